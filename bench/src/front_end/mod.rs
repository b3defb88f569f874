//! The vhost-user front-end: does for a [`Guest`] what a VMM does for a virtual machine.
//!
//! It connects to a switch's socket or waits on a socket of its own for the switch, negotiates, and
//! hands over memory and rings in QEMU's order. Every request that has no answer of its own is sent
//! with a demand for acknowledgement where the switch can give one, so that a switch that rejects
//! something is named here and not by a rate of zero later. No back-end channel is offered, and
//! there is no migration.

mod message;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{ErrorKind, IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};

use crate::guest::Guest;
use crate::machine;
use message::{
    FEATURE_MERGEABLE, FEATURE_PROTOCOL, FEATURE_VERSION_1, FEATURES_SEGMENTS, HEADER_BYTES,
    Header, LONGEST_REPLY, PROTOCOL_MULTIQUEUE, PROTOCOL_REPLY_ACK, PROTOCOL_STATUS, Payload,
    Request, encode,
};

/// How long a switch may take for one answer; generous, because it may share its core.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK (virtio 1.2 §2.1).
const STATUS_RUNNING: u64 = 1 | 2 | 8 | 4;

/// Between two looks whether a socket has appeared or somebody has connected.
const RETRY: Duration = Duration::from_millis(1);

/// A socket that a switch is going to connect to.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at a path that does not exist yet.
    pub fn bind(path: &Path) -> Result<Self> {
        let socket = UnixListener::bind(path)
            .with_context(|| format!("listening on {}: is the path free?", path.display()))?;
        socket.set_nonblocking(true).context("a socket that does not block")?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Waits until the switch connects, at most until `deadline`.
    pub fn accept(&self, deadline: Instant) -> Result<FrontEnd> {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => return FrontEnd::on(stream, &self.path),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_once(deadline, || {
                        format!("the switch did not connect to {}", self.path.display())
                    })?;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("accept {}", self.path.display()));
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The path is in a directory that goes too; a failure here leaves nothing behind.
        let _ = fs::remove_file(&self.path);
    }
}

/// A session with a switch, for one guest's queue pair. The session ends when this is dropped.
#[derive(Debug)]
pub struct FrontEnd {
    stream: UnixStream,
    path: PathBuf,
    /// Whether requests can be acknowledged.
    acknowledges: bool,
    /// How many rings were handed over.
    running_rings: usize,
}

impl FrontEnd {
    /// Connects to a socket that the switch makes, at most until `deadline`.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self> {
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::on(stream, path),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) =>
                {
                    wait_once(deadline, || format!("no switch listens on {}", path.display()))?;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("connect {}", path.display()));
                }
            }
        }
    }

    /// Negotiates and starts both rings of a guest.
    pub fn start(&mut self, guest: &Guest) -> Result<()> {
        self.start_rings(guest).with_context(|| format!("vhost-user on {}", self.path.display()))
    }

    /// Whether the switch has hung up.
    pub fn is_over(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // An end of file or an error; nothing to read, which is usual, is the error EAGAIN.
        !matches!(recv(self.stream.as_raw_fd(), &mut [0], flags), Err(Errno::EAGAIN) | Ok(1))
    }

    fn on(stream: UnixStream, path: &Path) -> Result<Self> {
        stream.set_nonblocking(false).context("a socket that blocks")?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).context("a read timeout")?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).context("a write timeout")?;
        Ok(Self { stream, path: path.to_owned(), acknowledges: false, running_rings: 0 })
    }

    fn start_rings(&mut self, guest: &Guest) -> Result<()> {
        let offered = self.ask(Request::Features, &Payload::default())?;
        let needed = FEATURE_VERSION_1 | FEATURE_PROTOCOL;
        ensure!(
            offered & needed == needed,
            "the switch offers features {offered:#x}, without VERSION_1 (bit 32) or protocol \
             features (bit 30)"
        );
        let mut features = needed;
        if guest.is_mergeable() {
            ensure!(offered & FEATURE_MERGEABLE != 0, "the switch does not offer MRG_RXBUF");
            features |= FEATURE_MERGEABLE;
        }
        if guest.leaves_work() {
            ensure!(
                offered & FEATURES_SEGMENTS == FEATURES_SEGMENTS,
                "the switch offers features {offered:#x}, without all of CSUM, GUEST_CSUM, \
                 GUEST_TSO4 and HOST_TSO4 (bits 0, 1, 7 and 11)"
            );
            features |= FEATURES_SEGMENTS;
        }
        let protocol = self.ask(Request::ProtocolFeatures, &Payload::default())?
            & (PROTOCOL_MULTIQUEUE | PROTOCOL_REPLY_ACK | PROTOCOL_STATUS);
        self.tell(Request::SetProtocolFeatures, &Payload::default().u64(protocol), &[])?;
        self.acknowledges = protocol & PROTOCOL_REPLY_ACK != 0;
        if protocol & PROTOCOL_MULTIQUEUE != 0 {
            // The specification counts queues; a back-end may count pairs for a net device.
            let queues = self.ask(Request::QueueCount, &Payload::default())?;
            ensure!(queues >= 1, "the switch offers {queues} queues, a guest needs a pair");
        }
        self.tell(Request::SetOwner, &Payload::default(), &[])?;
        self.tell(Request::SetFeatures, &Payload::default().u64(features), &[])?;
        self.share_memory(guest)?;
        for queue in 0..guest.layouts().len() {
            self.hand_over(guest, queue)?;
        }
        if protocol & PROTOCOL_STATUS != 0 {
            self.tell(Request::SetStatus, &Payload::default().u64(STATUS_RUNNING), &[])?;
        }
        for queue in 0..self.running_rings as u32 {
            self.tell(Request::SetRingEnable, &Payload::default().u32(queue).u32(1), &[])?;
        }
        Ok(())
    }

    fn share_memory(&mut self, guest: &Guest) -> Result<()> {
        let regions = guest.memory().regions();
        let mut payload = Payload::default().u32(regions.len() as u32).u32(0);
        for region in &regions {
            payload = payload
                .u64(region.guest_address)
                .u64(region.length)
                .u64(region.user_address)
                .u64(region.file_offset);
        }
        let files = [guest.memory().file(); 2];
        self.tell(Request::SetMemoryTable, &payload, &files)
    }

    fn hand_over(&mut self, guest: &Guest, queue: usize) -> Result<()> {
        let (layout, memory, index) = (guest.layouts()[queue], guest.memory(), queue as u32);
        let size = Payload::default().u32(index).u32(u32::from(layout.size));
        self.tell(Request::SetRingSize, &size, &[])?;
        self.tell(Request::SetRingBase, &Payload::default().u32(index).u32(0), &[])?;
        // Ring addresses are the front-end's own, unlike those in descriptors.
        let place = Payload::default()
            .u32(index)
            .u32(0)
            .u64(memory.user_address(layout.descriptors))
            .u64(memory.user_address(layout.used))
            .u64(memory.user_address(layout.available))
            .u64(0);
        self.tell(Request::SetRingAddress, &place, &[])?;
        let number = Payload::default().u64(queue as u64);
        self.tell(Request::SetRingCall, &number, &[guest.call(queue)])?;
        self.tell(Request::SetRingKick, &number, &[guest.kick(queue)])?;
        self.running_rings += 1;
        Ok(())
    }

    /// Sends a request without an answer of its own, and waits for its acknowledgement if the
    /// switch can give one.
    fn tell(
        &mut self,
        request: Request,
        payload: &Payload,
        files: &[BorrowedFd<'_>],
    ) -> Result<()> {
        self.send(request, payload, files, self.acknowledges)?;
        if self.acknowledges {
            let code = self.answer(request)?;
            ensure!(code == 0, "the switch refused {request:?} with code {code}");
        }
        Ok(())
    }

    /// Sends a request and returns the 64-bit value that it is answered with.
    fn ask(&mut self, request: Request, payload: &Payload) -> Result<u64> {
        self.send(request, payload, &[], false)?;
        self.answer(request)
    }

    fn send(
        &mut self,
        request: Request,
        payload: &Payload,
        files: &[BorrowedFd<'_>],
        acknowledge: bool,
    ) -> Result<()> {
        let bytes = encode(request, payload.bytes(), acknowledge);
        let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let control = if files.is_empty() { &[] } else { &rights[..] };
        let pieces = [IoSlice::new(&bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &pieces, control, flags, None)
            .with_context(|| format!("sending {request:?}: did the switch hang up?"))?;
        ensure!(sent == bytes.len(), "{request:?} was sent in part, {sent} bytes");
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Result<u64> {
        let mut bytes = [0; HEADER_BYTES];
        self.stream
            .read_exact(&mut bytes)
            .with_context(|| format!("waiting for the answer to {request:?}"))?;
        let header = Header::parse(&bytes);
        let length = header.payload_bytes as usize;
        ensure!(
            header.answers(request) && (8..=LONGEST_REPLY).contains(&length),
            "the switch answered {request:?} with {header:?}"
        );
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).context("an answer's payload")?;
        let value = payload.first_chunk().context("an answer of 8 bytes at least")?;
        Ok(u64::from_ne_bytes(*value))
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        // A VMM stops its rings before it hangs up. A switch that is gone or does not answer has
        // nothing left to stop, so the first error ends the good-bye.
        for queue in 0..self.running_rings as u32 {
            if self.ask(Request::RingBase, &Payload::default().u32(queue).u32(0)).is_err() {
                break;
            }
        }
    }
}

/// Sleeps a moment unless the deadline is over or the program shall end.
fn wait_once(deadline: Instant, what: impl FnOnce() -> String) -> Result<()> {
    machine::check_interrupt()?;
    if Instant::now() >= deadline {
        bail!("{} in time", what());
    }
    std::thread::sleep(RETRY);
    Ok(())
}
