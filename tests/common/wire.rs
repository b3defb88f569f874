//! The far end of an uplink, frame by frame: a tap interface whose other side is the test.
//!
//! The switch opens the interface as an uplink (af_packet), and what it sends there arrives here as
//! the very bytes of the frame, VLAN tag and all; what a test sends here, the switch receives.
//! Making one needs root. A kernel behind the uplink, with sockets and ping, is `namespace.rs`.

use super::process;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A tap interface. Dropping it removes it.
pub struct Wire {
    tap: File,
}

impl Wire {
    /// Makes the interface, up, with no IPv6 so that the kernel sends nothing by itself. Names are
    /// 15 characters at most.
    #[track_caller]
    pub fn new(interface: &str) -> Wire {
        assert!(interface.len() < libc::IFNAMSIZ, "the name {interface} is too long");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let tap = options.open("/dev/net/tun").expect("/dev/net/tun opens for root");
        // SAFETY: ifreq consists of integers and of arrays of them, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = flags.try_into().expect("the flags are 16 bits wide");
        // SAFETY: TUNSETIFF reads one ifreq, which lives until the call returns.
        let status = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        let error = std::io::Error::last_os_error();
        assert!(status == 0, "no tap interface {interface}: {error}");

        // A kernel without IPv6 has no such file and nothing to keep quiet.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
        let mut up = Command::new("ip");
        up.args(["link", "set", interface, "mtu", "9000", "up"]);
        process::run(&mut up, Duration::from_secs(30)).success();
        Wire { tap }
    }

    /// Puts a frame on the wire: what the switch is to receive, without a check sequence.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = (&self.tap).write(frame).expect("the tap interface takes a frame");
        assert_eq!(sent, frame.len());
    }

    /// The next frame that the switch sends, or none within `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut frame = vec![0; 65536];
        loop {
            match (&self.tap).read(&mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the tap interface: {error}"),
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next frame for which `wanted` holds, or none within `timeout`; others are passed over.
    pub fn find(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let frame = self.receive(deadline.saturating_duration_since(Instant::now()))?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
