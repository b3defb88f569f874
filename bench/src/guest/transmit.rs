//! The driver's side of a transmit ring.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::EventFd;

use super::ring::{Descriptor, NEXT, NO_INTERRUPT, NO_NOTIFY, Ring};
use super::rota::{Return, Rota};
use super::slots::{HEADER_BYTES, PAGE_BYTES, Slots};
use crate::frame::{HEAD_BYTES, Head, Stamp, Stream};
use crate::segment::Offload;

/// Makes a stream's frames, one after the other.
#[derive(Debug)]
pub struct Sender {
    stream: Stream,
    sequence: u64,
    /// `sequence % flows`, kept so that no frame costs a division.
    flow: u32,
}

impl Sender {
    /// Begins a stream.
    pub fn new(stream: Stream) -> Self {
        Self { stream, sequence: 0, flow: 0 }
    }

    /// How many frames were made.
    pub fn sent(&self) -> u64 {
        self.sequence
    }

    /// How many flows the stream has.
    pub fn flows(&self) -> u32 {
        self.stream.flows()
    }

    /// The next frame's first bytes, for the buffer that it is sent from, and its length.
    #[inline(always)]
    fn next<const SEGMENTS: bool>(&mut self, slot: u16) -> (Head, usize) {
        let stamp = Stamp { sequence: self.sequence, flow: self.flow, slot };
        self.sequence += 1;
        self.flow += 1;
        if self.flow == self.stream.flows() {
            self.flow = 0;
        }
        (self.stream.head::<SEGMENTS>(stamp), self.stream.frame_bytes(stamp.sequence))
    }
}

/// How many descriptors a frame of a stream takes: one, or, for segments, one for its head and one
/// for each page of the rest, as Linux sends them.
pub fn chain_length(stream: &Stream) -> u16 {
    if !stream.has_segments() {
        return 1;
    }
    1 + (stream.longest_frame() - HEAD_BYTES).div_ceil(PAGE_BYTES) as u16
}

/// A transmit ring with as many descriptors for each frame as [`chain_length`] says.
///
/// A buffer has a place and descriptors of its own for good, so a descriptor is only written when
/// the frame's length differs from that of the buffer's last one. A buffer is called by its first
/// descriptor.
#[derive(Debug)]
pub struct Transmit {
    ring: Ring,
    slots: Slots,
    bell: Bell,
    rota: Rota,
    /// Used entries seen so far, modulo 2^16.
    seen: u16,
    /// What each buffer's descriptors say of its length, header included.
    lengths: Box<[u32]>,
    /// Descriptors of a buffer.
    chain: u16,
    violations: u64,
}

impl Transmit {
    /// An empty ring, with the body of every frame that will ever leave a buffer already in it.
    pub fn new(ring: Ring, slots: Slots, kick: EventFd, stream: &Stream) -> Self {
        let chain = chain_length(stream);
        // The greatest power of two of buffers, so that the circle goes round with the ring.
        let rota = Rota::new(1 << (ring.size / chain).ilog2(), chain);
        let mut body = vec![0; stream.longest_frame() - HEAD_BYTES];
        for place in 0..rota.len() as u16 {
            let slot = rota.at(place);
            stream.body(slot, &mut body);
            if chain == 1 {
                slots.write(slot, HEADER_BYTES + HEAD_BYTES, &body);
            } else {
                let pages = (slot + 1..).zip(body.chunks(PAGE_BYTES));
                pages.for_each(|(slot, page)| slots.write(slot, 0, page));
            }
        }
        ring.prepare(&rota);
        ring.available_flags.release(NO_INTERRUPT);
        Self {
            bell: Bell::new(kick),
            rota,
            chain,
            seen: 0,
            lengths: vec![0; usize::from(ring.size)].into_boxed_slice(),
            violations: 0,
            ring,
            slots,
        }
    }

    /// What wakes the switch.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// How often the switch broke the ring's rules.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// Frames that the switch has not finished with, as of the last [`Self::reclaim`].
    pub fn outstanding(&self) -> usize {
        self.rota.outstanding()
    }

    /// Frames that can be sent now, as of the last [`Self::reclaim`].
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.rota.room()
    }

    /// Takes back the buffers that the switch is done with, and wakes it if it sleeps over what was
    /// sent. Returns how many.
    #[inline(always)]
    pub fn reclaim(&mut self) -> usize {
        self.bell.ring_if_wanted(&self.ring);
        let ready = self.ring.used_index.acquire().wrapping_sub(self.seen);
        if usize::from(ready) > self.outstanding() {
            // More than we ever lent: the index jumped, and no entry can be believed.
            self.violations += 1;
            return 0;
        }
        for _ in 0..ready {
            let id = self.ring.used.load(usize::from(self.seen)).id;
            self.seen = self.seen.wrapping_add(1);
            match self.rota.take_back(id) {
                Return::InTurn(_) => {}
                Return::OutOfTurn(_, places) => self.ring.offer_again(&self.rota, places),
                Return::Unknown => self.violations += 1,
            }
        }
        usize::from(ready)
    }

    /// Sends up to `most` frames, as far as buffers are free. Returns how many.
    #[inline(always)]
    pub fn send(&mut self, most: usize, sender: &mut Sender) -> usize {
        if sender.stream.has_segments() {
            self.send_segments(most, sender)
        } else {
            self.send_frames::<false>(most, sender)
        }
    }

    #[cold]
    #[inline(never)]
    fn send_segments(&mut self, most: usize, sender: &mut Sender) -> usize {
        self.send_frames::<true>(most, sender)
    }

    #[inline(always)]
    fn send_frames<const SEGMENTS: bool>(&mut self, most: usize, sender: &mut Sender) -> usize {
        let burst = most.min(self.rota.room());
        if burst == 0 {
            return 0;
        }
        // The switch has read the lines that the burst will be written to.
        for ahead in 0..burst {
            self.slots.claim(self.rota.next(ahead));
        }
        for ahead in 0..burst {
            let slot = self.rota.next(ahead);
            let (head, frame_bytes) = sender.next::<SEGMENTS>(slot);
            self.slots.write_head(slot, Offload::of(SEGMENTS), &head);
            let length = (HEADER_BYTES + frame_bytes) as u32;
            if self.lengths[usize::from(slot)] != length {
                self.describe(slot, length);
            }
        }
        self.rota.lend(burst);
        self.ring.available_index.release(self.rota.lent());
        self.bell.offered();
        burst
    }

    #[inline(never)]
    fn describe(&mut self, slot: u16, length: u32) {
        self.lengths[usize::from(slot)] = length;
        let (mut left, mut next) = (length, slot);
        while left > 0 {
            let room = match (self.chain, next == slot) {
                (1, _) => length,
                (_, true) => (HEADER_BYTES + HEAD_BYTES) as u32,
                (_, false) => PAGE_BYTES as u32,
            };
            let (address, here) = (self.slots.guest_address(next), room.min(left));
            left -= here;
            let flags = if left > 0 { NEXT } else { 0 };
            let descriptor = Descriptor { address, length: here, flags, next: next + 1 };
            self.ring.descriptors.store(usize::from(next), descriptor.words());
            next += 1;
        }
    }
}

/// Wakes a device that does not poll.
///
/// The specification has the driver look at the device's wish right after an offer, with a full
/// barrier between (virtio 1.2 §2.7.13.4). A driver that polls for ever can do without the barrier,
/// which would stall each burst until all its cache lines have come over: it looks again with each
/// poll, until the wish is seen or there is nothing to tell.
#[derive(Debug)]
pub struct Bell {
    kick: EventFd,
    /// Something was offered after the last kick.
    due: bool,
    kicks: u64,
}

impl Bell {
    /// A bell that is due, so that a device finds what was offered before it came.
    pub fn new(kick: EventFd) -> Self {
        Self { kick, due: true, kicks: 0 }
    }

    /// What the device waits for.
    pub fn kick(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// How often the device had to be woken; a polling one says that it needs no kick.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Notes that something was offered.
    #[inline(always)]
    pub fn offered(&mut self) {
        self.due = true;
    }

    /// Rings if something was offered and the device wants to know.
    #[inline(always)]
    pub fn ring_if_wanted(&mut self, ring: &Ring) {
        if self.due && ring.used_flags.acquire() & NO_NOTIFY == 0 {
            self.ring();
        }
    }

    #[cold]
    fn ring(&mut self) {
        // A full counter (the only error that an eventfd's write can meet here) is a pending kick.
        let _ = self.kick.write(1);
        self.due = false;
        self.kicks += 1;
    }
}
