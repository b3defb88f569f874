//! The driver's side of a receive ring.

use nix::sys::eventfd::EventFd;

use super::ring::{Descriptor, NO_INTERRUPT, Ring, WRITE};
use super::rota::{Return, Rota};
use super::slots::{HEADER_BYTES, Header, Slots};
use super::transmit::Bell;
use crate::frame::{HEAD_BYTES, Head};

/// A frame as it lies in one or more buffers, before they go back to the switch.
#[derive(Debug)]
pub struct Received<'a> {
    /// The virtio-net header in front of it.
    pub header: Header,
    /// Its first 64 bytes; whatever lay in the buffer where the frame is shorter.
    pub head: Head,
    /// The first buffer with the bytes written to it, header included.
    first: Piece,
    /// The other buffers of a long frame.
    more: &'a [Piece],
    slots: &'a Slots,
}

/// A buffer that the switch has used.
#[derive(Clone, Copy, Debug)]
struct Piece {
    slot: u16,
    /// Written by the switch.
    bytes: usize,
}

impl Received<'_> {
    /// The frame's length in bytes.
    #[inline(always)]
    pub fn length(&self) -> usize {
        let more: usize = self.more.iter().map(|piece| piece.bytes).sum();
        (self.first.bytes + more).saturating_sub(HEADER_BYTES)
    }

    /// Copies out the bytes behind the head. `into` must not be longer than they are.
    pub fn body(&self, into: &mut [u8]) {
        let (mut skip, mut filled) = (HEADER_BYTES + HEAD_BYTES, 0);
        for piece in std::iter::once(&self.first).chain(self.more) {
            let here = piece.bytes.saturating_sub(skip).min(into.len() - filled);
            self.slots.read(piece.slot, skip, &mut into[filled..filled + here]);
            filled += here;
            skip = 0;
        }
    }
}

/// Whoever looks at what comes. A trait, as a closure would be called where this must be inlined.
pub trait Jury {
    /// Whether TCP segments are expected.
    fn has_segments(&self) -> bool;

    /// Notes a frame. `SEGMENTS` is [`Self::has_segments`].
    fn judge<const SEGMENTS: bool>(&mut self, frame: &Received<'_>);
}

/// A receive ring with one buffer for each descriptor, all of them always offered.
///
/// A buffer's descriptor is written once and for all: what is offered again is the same place.
#[derive(Debug)]
pub struct Receive {
    ring: Ring,
    slots: Slots,
    bell: Bell,
    mergeable: bool,
    /// What a poll takes back it lends again only at its end, so that a buffer that one poll finds
    /// used twice does not pass for one that was offered again.
    rota: Rota,
    /// Used entries seen so far, modulo 2^16.
    seen: u16,
    /// Counts polls that found something.
    polls: u64,
    /// The second and further pieces of the frame in hand, kept to spare an allocation a frame.
    more: Vec<Piece>,
    violations: u64,
}

impl Receive {
    /// A ring with all its buffers offered.
    pub fn new(ring: Ring, slots: Slots, kick: EventFd, mergeable: bool) -> Self {
        ring.available_flags.release(NO_INTERRUPT);
        let size = ring.size;
        let length = slots.stride() as u32;
        for slot in 0..size {
            let address = slots.guest_address(slot);
            let descriptor = Descriptor { address, length, flags: WRITE, next: 0 };
            ring.descriptors.store(usize::from(slot), descriptor.words());
        }
        let mut rota = Rota::new(size, 1);
        ring.prepare(&rota);
        rota.lend(usize::from(size));
        ring.available_index.release(rota.lent());
        Self {
            ring,
            slots,
            bell: Bell::new(kick),
            mergeable,
            rota,
            seen: 0,
            polls: 0,
            more: Vec::with_capacity(usize::from(size)),
            violations: 0,
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

    /// How many polls found frames.
    pub fn bursts(&self) -> u64 {
        self.polls
    }

    /// Hands up to `most` frames to `jury` and their buffers back to the switch, and wakes it if
    /// it sleeps for want of buffers. Returns how many frames there were.
    #[inline(always)]
    pub fn poll(&mut self, most: usize, jury: &mut impl Jury) -> usize {
        if jury.has_segments() {
            self.poll_segments(most, jury)
        } else {
            self.poll_frames::<false>(most, jury)
        }
    }

    #[cold]
    #[inline(never)]
    fn poll_segments(&mut self, most: usize, jury: &mut impl Jury) -> usize {
        self.poll_frames::<true>(most, jury)
    }

    #[inline(always)]
    fn poll_frames<const SEGMENTS: bool>(&mut self, most: usize, jury: &mut impl Jury) -> usize {
        self.bell.ring_if_wanted(&self.ring);
        let ready = self.ring.used_index.acquire().wrapping_sub(self.seen);
        if ready == 0 {
            return 0;
        }
        if usize::from(ready) > self.rota.outstanding() {
            // More than we ever lent: the index jumped, and no entry can be believed.
            self.violations += 1;
            return 0;
        }
        self.polls += 1;
        // All of the burst's lines are on their way from the switch's core before the first is used.
        for ahead in 0..most.min(usize::from(ready)) {
            let id = self.ring.used.load(usize::from(self.seen) + ahead).id;
            self.slots.prefetch(id as u16 & (self.ring.size - 1));
        }
        let (mut left, mut frames) = (ready, 0);
        while left > 0 && frames < most {
            left -= self.take_frame::<SEGMENTS>(left, jury);
            frames += 1;
        }
        self.rota.lend(self.rota.room());
        self.ring.available_index.release(self.rota.lent());
        self.bell.offered();
        frames
    }

    /// Judges the frame that begins at the next used entry; `left` entries are visible. Returns how
    /// many entries it took.
    #[inline(always)]
    fn take_frame<const SEGMENTS: bool>(&mut self, left: u16, jury: &mut impl Jury) -> u16 {
        let Some(first) = self.take_buffer() else { return 1 };
        let (header, head) = self.slots.read_head(first.slot);
        let mut entries = 1;
        if header.num_buffers != 1 && self.mergeable {
            entries = self.take_more(first, header.num_buffers, left);
        }
        let more = &self.more[..usize::from(entries) - 1];
        jury.judge::<SEGMENTS>(&Received { header, head, first, more, slots: &self.slots });
        entries
    }

    /// Takes the rest of a frame that the switch says is spread over several buffers. Returns how
    /// many entries there are with the first.
    #[inline(never)]
    fn take_more(&mut self, first: Piece, buffers: u16, left: u16) -> u16 {
        let entries = buffers.clamp(1, left);
        // All buffers of a frame become visible together (virtio 1.2 §5.1.6.4.1).
        self.violations += u64::from(entries != buffers);
        self.more.clear();
        let mut last = first;
        for _ in 1..entries {
            // All but the last are filled up (§5.1.6.4.1).
            self.violations += u64::from(last.bytes != self.slots.stride());
            // What is not a buffer has no bytes, so that the frame's length comes out wrong.
            last = self.take_buffer().unwrap_or(Piece { slot: 0, bytes: 0 });
            self.more.push(last);
        }
        entries
    }

    /// Takes the next used entry, unless it is nonsense.
    #[inline(always)]
    fn take_buffer(&mut self) -> Option<Piece> {
        let used = self.ring.used.load(usize::from(self.seen));
        self.seen = self.seen.wrapping_add(1);
        let bytes = used.length as usize;
        let slot = match self.rota.take_back(used.id) {
            Return::InTurn(slot) => slot,
            Return::OutOfTurn(slot, places) => {
                self.ring.offer_again(&self.rota, places);
                slot
            }
            Return::Unknown => {
                // Nothing is offered again for it: which buffer the switch meant is not known.
                self.violations += 1;
                return None;
            }
        };
        if bytes > self.slots.stride() {
            self.violations += 1;
            return None;
        }
        Some(Piece { slot, bytes })
    }
}
