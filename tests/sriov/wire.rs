//! The far end of a card's wire: the test sends and receives frames as whatever is out there would.
//!
//! QEMU's `stream` network: a unix socket on which each frame has its length in front, in four octets.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};

/// The station on the wire that tests play.
pub const STATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Its address.
pub const STATION_IP: [u8; 4] = [10, 0, 0, 9];

/// An end of a wire.
pub struct Wire {
    stream: UnixStream,
    received: Vec<u8>,
    /// Echo requests that were sent.
    sequence: u16,
}

impl Wire {
    /// Takes the end at this socket. QEMU serves one at a time.
    pub fn connect(socket: &Path) -> io::Result<Wire> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Wire { stream, received: Vec::new(), sequence: 0 })
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).expect("a frame is short").to_be_bytes();
        self.stream.write_all(&[&length[..], frame].concat()).expect("QEMU reads");
    }

    /// The next frame for which `wanted` holds, or none within `timeout`; others are passed over.
    pub fn find(&mut self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let frame = self.receive(deadline)?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some((length, rest)) = self.received.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let left = self.received.split_off(4 + length);
                    let frame = std::mem::replace(&mut self.received, left);
                    return Some(frame[4..].to_vec());
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => thread::sleep(Duration::from_millis(20)),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the wire: {error}"),
            }
        }
    }

    /// Whether a station behind this address answers an echo request within `timeout`.
    pub fn echoes(&mut self, mac: [u8; 6], ip: [u8; 4], timeout: Duration) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let builder = PacketBuilder::ethernet2(STATION_MAC, mac)
            .ipv4(STATION_IP, ip, 64)
            .icmpv4_echo_request(7, sequence);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"sriov").expect("a vector takes all");
        frame.resize(frame.len().max(60), 0);
        self.send(&frame);
        let answers = |frame: &[u8]| {
            let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
            let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { return false };
            matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(echo) if echo.seq == sequence)
        };
        self.find(timeout, answers).is_some()
    }

    /// Waits until the station answers, asking again and again.
    #[track_caller]
    pub fn reaches(&mut self, mac: [u8; 6], ip: [u8; 4], timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !self.echoes(mac, ip, Duration::from_millis(500)) {
            assert!(Instant::now() < deadline, "{ip:?} does not answer within {timeout:?}");
        }
    }
}
