//! The bound: a process that copies from ring to ring and does nothing else.
//!
//! No socket, no lookup, no header is read; each frame is copied once, from the sender's buffer
//! into the receiver's. No switch that copies once can be faster on the same machine with the same
//! guests, so how near a switch comes is the share of its time that goes into what it is for. It
//! trusts the guests, as only something that ships with them may.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::{Bed, Switch};
use crate::front_end::FrontEnd;
use crate::guest::{
    Descriptor, Guest, GuestMemory, HEADER_BYTES, NEXT, NO_NOTIFY, RECEIVE_QUEUE, Ring,
    TRANSMIT_QUEUE, Used,
};
use crate::machine;
use crate::outcome::BOUND;
use crate::scenario::{Guests, Scenario};

/// Frames taken at once. Larger ones gain nothing; at 32 the hand-over of cache lines between the
/// cores shows.
const BURST: u16 = 64;

/// The copying process, if it was started.
///
/// It is a process like the switches it is compared with, and not a thread: the kernel shares a
/// core out by groups of tasks, and a thread here would have to share the generator's part.
#[derive(Debug, Default)]
pub struct Copy {
    process: Option<Pid>,
}

impl Copy {
    /// Not started yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.check()?;
        match self.process {
            Some(process) => kill(process, signal).context("signalling the copying process"),
            None => Ok(()),
        }
    }
}

impl Switch for Copy {
    fn name(&self) -> &str {
        BOUND
    }

    fn ports(&self, _: &Scenario) -> u16 {
        2
    }

    fn has_path(&self, scenario: &Scenario) -> bool {
        !scenario.uplinks
    }

    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>> {
        let devices = (Device::of(&guests.a)?, Device::of(&guests.b)?);
        // SAFETY: no other thread of this process exists now (the probes of `distance` have been
        // joined), so no lock is held that the child would wait for; the child never returns.
        match unsafe { fork() }.context("fork of the copying process")? {
            ForkResult::Child => copy_for_ever(devices, bed.cores.switch),
            ForkResult::Parent { child } => self.process = Some(child),
        }
        Ok(Vec::new())
    }

    fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn check(&mut self) -> Result<()> {
        let Some(process) = self.process else { return Ok(()) };
        let status = waitpid(process, Some(WaitPidFlag::WNOHANG)).context("the copying process")?;
        if status != WaitStatus::StillAlive {
            // It is reaped, so its number must not be used any more.
            self.process = None;
            bail!("the copying process ended: {status:?}");
        }
        Ok(())
    }

    fn command(&self) -> String {
        format!("(part of this program: ring to ring, one copy, bursts of {BURST})")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // SIGKILL also ends what is stopped; there is nothing that it could clean up.
            let ended = kill(process, Signal::SIGKILL).and_then(|()| waitpid(process, None));
            if let Err(error) = ended {
                eprintln!("the copying process {process} may still be running: {error}");
            }
        }
    }
}

/// The copying process.
fn copy_for_ever((mut a, mut b): (Device, Device), core: usize) -> ! {
    let prepared = nix::unistd::setsid().map_err(anyhow::Error::from).and_then(|_| {
        // The process shall not outlive the bench, however the bench ends.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Without the priority results are noisier, which their spread shows.
        let _ = machine::raise_group(std::process::id());
        machine::pin(core)
    });
    if prepared.is_err() {
        // SAFETY: ends the process without running what belongs to its parent.
        unsafe { libc::_exit(1) };
    }
    // The parent's sessions with other switches end when the parent closes them, not we.
    // SAFETY: nothing in this process uses a descriptor any more; mappings stay.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    loop {
        a.send_to(&mut b);
        b.send_to(&mut a);
    }
}

/// The device's side of a guest's two rings.
#[derive(Debug)]
struct Device {
    memory: Arc<GuestMemory>,
    /// Frames from the guest.
    transmit: Ring,
    /// Chains of `transmit` taken so far, modulo 2^16.
    transmitted: u16,
    /// Frames to the guest.
    receive: Ring,
    /// Buffers of `receive` filled so far, modulo 2^16.
    filled: u16,
}

impl Device {
    fn of(guest: &Guest) -> Result<Self> {
        let (memory, layouts) = (Arc::clone(guest.memory()), guest.layouts());
        let transmit = Ring::new(&memory, layouts[TRANSMIT_QUEUE])?;
        let receive = Ring::new(&memory, layouts[RECEIVE_QUEUE])?;
        transmit.used_flags.release(NO_NOTIFY);
        receive.used_flags.release(NO_NOTIFY);
        Ok(Self { memory, transmit, transmitted: 0, receive, filled: 0 })
    }

    /// Copies up to a burst of frames to another guest, as far as that one has buffers. Returns how
    /// many.
    fn send_to(&mut self, to: &mut Device) -> u16 {
        let ready = self.transmit.available_index.acquire().wrapping_sub(self.transmitted);
        if ready == 0 {
            return 0;
        }
        let burst = ready.min(BURST);
        let mut room = to.receive.available_index.acquire().wrapping_sub(to.filled);
        self.prefetch(burst);
        to.claim_buffers(burst.min(room));
        // Eight to a line.
        for ahead in (0..usize::from(burst)).step_by(8) {
            self.transmit.used.prefetch_write(usize::from(self.transmitted) + ahead);
        }
        let mut sent = 0;
        while sent < burst {
            let chain = self.transmit.available.load(usize::from(self.transmitted));
            let Some((buffers, bytes)) = self.copy(chain, to, room) else { break };
            room -= buffers;
            to.filled = to.filled.wrapping_add(buffers);
            let used = Used { id: u32::from(chain), length: 0 };
            self.transmit.used.store(usize::from(self.transmitted), used);
            self.transmitted = self.transmitted.wrapping_add(1);
            sent += 1;
            debug_assert!(bytes > 0, "guests of this bench send no empty frames");
        }
        if sent > 0 {
            to.receive.used_index.release(to.filled);
            self.transmit.used_index.release(self.transmitted);
        }
        sent
    }

    /// Fetches the first lines of the burst's frames while the first ones are copied.
    fn prefetch(&self, burst: u16) {
        for ahead in 0..usize::from(burst) {
            let chain = self.transmit.available.load(usize::from(self.transmitted) + ahead);
            let words = self.transmit.descriptors.load(usize::from(chain));
            let descriptor = Descriptor::from_words(words);
            if let Some(offset) = self.memory.offset_of(descriptor.address, HEADER_BYTES) {
                self.memory.prefetch(offset);
                self.memory.prefetch(offset + 64);
            }
        }
    }

    /// Claims the first lines of the next receive buffers, and those of their used entries, see
    /// [`GuestMemory::claim`]. The buffers must be available: entries further on may be such as the guest has
    /// yet to read.
    fn claim_buffers(&self, burst: u16) {
        for ahead in 0..usize::from(burst) {
            let place = usize::from(self.filled) + ahead;
            let id = self.receive.available.load(place);
            let words = self.receive.descriptors.load(usize::from(id));
            let address = Descriptor::from_words(words).address;
            if let Some(offset) = self.memory.offset_of(address, HEADER_BYTES) {
                self.memory.claim(offset);
                self.memory.claim(offset + 64);
            }
            // Eight to a line, that begin anywhere in it.
            if ahead % 8 == 0 || ahead + 1 == usize::from(burst) {
                self.receive.used.store(place, Used { id: 0, length: 0 });
            }
        }
    }

    /// Copies one frame into as many receive buffers as it needs. Returns how many buffers, and
    /// bytes; `None`, with nothing visible to the guest, when they do not suffice.
    #[inline(always)]
    fn copy(&self, chain: u16, to: &Device, room: u16) -> Option<(u16, usize)> {
        let source =
            |slot: u16| Descriptor::from_words(self.transmit.descriptors.load(usize::from(slot)));
        let mut source_piece = source(chain);
        // The sender's virtio-net header is the receiver's, but for the number of buffers.
        let (mut bytes, mut buffers, mut first) = (0, 0, 0);
        let (mut place, mut id) = (0, 0);
        let mut buffer = Descriptor { address: 0, length: 0, flags: 0, next: 0 };
        let mut filled = 0;
        loop {
            let mut done = 0;
            while done < source_piece.length {
                if filled == buffer.length {
                    if buffers == room {
                        return None;
                    }
                    place = usize::from(to.filled.wrapping_add(buffers));
                    id = to.receive.available.load(place);
                    let words = to.receive.descriptors.load(usize::from(id));
                    buffer = Descriptor::from_words(words);
                    filled = 0;
                    if buffers == 0 {
                        first = buffer.address;
                    }
                    buffers += 1;
                }
                let piece = (source_piece.length - done).min(buffer.length - filled);
                let from = source_piece.address + u64::from(done);
                let into = buffer.address + u64::from(filled);
                if !to.memory.copy(into, &self.memory, from, piece as usize) {
                    return None;
                }
                done += piece;
                filled += piece;
                to.receive.used.store(place, Used { id: u32::from(id), length: filled });
            }
            bytes += done as usize;
            if source_piece.flags & NEXT == 0 {
                break;
            }
            source_piece = source(source_piece.next);
        }
        let header = to.memory.offset_of(first, HEADER_BYTES)?;
        to.memory.write(header + HEADER_BYTES - 2, &buffers.to_le_bytes());
        Some((buffers, bytes))
    }
}
