//! The packed layout: one ring of descriptors, which the driver makes available and the device
//! marks as used in place (virtio 1.2 §2.8).
//!
//! A place is a descriptor's index with the wrap counter above it in bit 15, which is also how
//! places are written in event suppression areas and in vhost-user's messages.
//!
//! Both sides write to the same lines, so all turns on how often a line changes hands. A burst's
//! lines are asked for at once and to be written, since each of them will be. Of what was used, the
//! burst's first descriptor is written last, with release: the driver goes through the ring in
//! order, so it comes to no other line before. With `IN_ORDER`, a burst that was only read is used
//! by that one descriptor (§2.8.8); buffers that were written need one each, for their lengths.
//!
//! Chains are completed in order and within a burst, so between bursts the place where the next
//! chain is taken is the place where it will be used.

mod events;
mod resume;

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::areas::Areas;
use super::chain::{Chain, Descriptor, Head, NEXT, WRITE, read};
use super::layout::Layout;
use super::seat::Bell;
use super::{Violation, VringConfig, VringError};
use crate::burst::BURST_MAX;
use crate::copy::prefetch_to_write;
use events::Events;

/// Descriptors in a cache line.
const PER_LINE: usize = 4;

/// The driver made the descriptor available in a lap with this wrap counter (virtio 1.2 §2.8.1).
const AVAIL: u16 = 1 << 7;
/// Used in a lap with this wrap counter, if it is the same as above.
const USED: u16 = 1 << 15;

/// A place's wrap counter.
const WRAP: u16 = 1 << 15;

/// A packed ring and where we are in it. See the [module's head](self).
#[derive(Debug)]
pub(super) struct Packed {
    descriptors: *mut u8,
    events: Events,
    in_order: bool,
    /// Entries. Words of their own, here and below: what is read together with a neighbour that
    /// was just written waits until every store before that one has left the core.
    size: usize,
    /// Where the next chain is taken.
    next: usize,
    /// Where the next chain is used.
    used: usize,
    /// What is used up to here has been published.
    published: usize,
    /// The second word of the used descriptor at `published`, to be written last.
    held: u64,
    /// Descriptors that the last burst consisted of.
    last: usize,
    /// Chains that were taken and not completed.
    taken: usize,
    chains: [Chain; BURST_MAX],
}

// SAFETY: the pointers lead into mappings that outlive this; they are bound to no thread.
unsafe impl Send for Packed {}

impl Packed {
    /// Finds and checks the ring's areas, and where it stands, see [`resume`]. Its size is one that
    /// a packed ring can have.
    pub(super) fn new(areas: Areas<'_>, config: &VringConfig) -> Result<Self, VringError> {
        let size = config.size;
        let bytes = 16 * u64::from(size);
        let descriptors = areas.find("descriptor ring", config.descriptors, bytes, 16)?;
        let driver = areas.find("driver event suppression area", config.available, 4, 4)?;
        let device = areas.find("device event suppression area", config.used, 4, 4)?;
        // SAFETY: both areas are 4 aligned bytes, in memory that outlives the ring.
        let events = unsafe { Events::new(driver, device, config.event_idx) };
        let mut ring = Self {
            descriptors,
            events,
            in_order: config.in_order,
            size: usize::from(size),
            next: 0,
            used: 0,
            published: 0,
            held: 0,
            last: 0,
            taken: 0,
            chains: [Chain::default(); BURST_MAX],
        };
        let base = resume::place(&ring, config.base)?;
        ring.next = usize::from(base);
        (ring.used, ring.published) = (ring.next, ring.next);
        // We poll, so the driver never needs to tell us.
        ring.events.want_none(0);
        Ok(ring)
    }

    /// Leaves word of the place for whoever goes on with the ring, see [`resume`].
    pub(super) fn leave_note(&self) {
        self.events.want_none(resume::note(self.published as u16));
    }

    /// The descriptor at a place. All places are inside the ring: the first is checked, and
    /// [`after`](Layout::after) makes the others.
    #[inline(always)]
    fn at(&self, place: u16) -> *mut u8 {
        let index = usize::from(place & !WRAP);
        debug_assert!(index < self.size, "places are made by `after`");
        self.descriptors.wrapping_add(16 * index)
    }

    #[inline(always)]
    fn flags(&self, place: u16) -> &AtomicU16 {
        // SAFETY: `new` found the ring, 16-byte aligned, in memory that outlives `self`, and `at`
        // stays inside; the flags are a descriptor's last field.
        unsafe { AtomicU16::from_ptr(self.at(place).add(14).cast()) }
    }

    /// The word of length, id and flags.
    #[inline(always)]
    fn word(&self, place: u16) -> &AtomicU64 {
        // SAFETY: as above; the word is the second half of 16 aligned bytes.
        unsafe { AtomicU64::from_ptr(self.at(place).add(8).cast()) }
    }

    /// The word of the buffer's address.
    #[inline(always)]
    fn address(&self, place: u16) -> &AtomicU64 {
        // SAFETY: as above; the word is the first half of 16 aligned bytes.
        unsafe { AtomicU64::from_ptr(self.at(place).cast()) }
    }

    /// How many chains an earlier back-end took from `place` on and died over, if it did.
    fn marked_at(&self, place: u16) -> Option<usize> {
        self.available(place)?;
        let word = u64::from_le(self.address(place).load(Ordering::Relaxed));
        let chains = (word as u16 as usize).min(BURST_MAX);
        (chains > 0 && word == mark(place, chains)).then_some(chains)
    }

    /// The descriptor at `place`, whatever its flags say.
    #[inline(always)]
    fn read(&self, place: u16) -> Descriptor {
        // SAFETY: as above.
        Self::descriptor(unsafe { read(self.at(place)) })
    }

    /// The head at `place`, if the driver has made it available.
    #[inline(always)]
    fn available(&self, place: u16) -> Option<Head> {
        // The other fields are good only if they are read after the flags (virtio 1.2 §2.8.21.1).
        let flags = u16::from_le(self.flags(place).load(Ordering::Acquire));
        if !is_available(place, flags) {
            return None;
        }
        let first = Descriptor { flags, ..self.read(place) };
        Some(Head { id: first.link, first })
    }

    /// Writes a used descriptor and goes on by `places`. The driver sees it once it is published.
    #[inline(always)]
    fn use_chain(&mut self, chain: Chain, bytes: u32, flags: u16) {
        let used = self.used as u16;
        let lap = used & WRAP;
        let flags = flags | lap | lap >> 8;
        let word = u64::from(bytes) | u64::from(chain.id) << 32 | u64::from(flags) << 48;
        if self.used == self.published {
            self.held = word;
        } else {
            self.word(used).store(word.to_le(), Ordering::Relaxed);
        }
        self.used = usize::from(self.after(used, chain.places));
    }

    /// How many descriptors are behind `from` and before `to`, which is less than two laps ahead.
    #[inline(always)]
    fn distance(&self, from: u16, to: u16) -> usize {
        let linear =
            |place: u16| usize::from(place & !WRAP) + if place & WRAP != 0 { 0 } else { self.size };
        (linear(to) + 2 * self.size - linear(from)) % (2 * self.size)
    }
}

/// The upper half of a mark: no guest has memory there.
const MARK: u64 = 0x7ac3_90d1 << 32;

/// What stands for an address at `place` while so many chains from there on are being delivered.
#[inline(always)]
fn mark(place: u16, chains: usize) -> u64 {
    MARK | u64::from(place) << 16 | chains as u64
}

/// Whether a descriptor with these flags is one that the driver made available at `place`: its
/// AVAIL bit is the lap, its USED bit is not.
#[inline(always)]
fn is_available(place: u16, flags: u16) -> bool {
    const { assert!(USED == WRAP && AVAIL << 8 == WRAP) };
    let (used_before, available) = (flags ^ place, !(flags << 8 ^ place));
    used_before & available & WRAP != 0
}

impl Layout for Packed {
    const POSITIONAL: bool = true;

    #[inline(always)]
    fn descriptor([low, high]: [u64; 2]) -> Descriptor {
        Descriptor {
            address: low,
            bytes: high as u32,
            link: (high >> 32) as u16,
            flags: (high >> 48) as u16,
        }
    }

    fn size(&self) -> u16 {
        self.size as u16
    }

    #[inline(always)]
    fn next(&self) -> u16 {
        self.next as u16
    }

    /// `places` is at most a lap, since chains are not longer, nor are those that are merged.
    #[inline(always)]
    fn after(&self, place: u16, places: u16) -> u16 {
        let index = usize::from(place & !WRAP) + usize::from(places);
        debug_assert!(index < 2 * self.size, "chains are not longer than the ring");
        let wrap = place & WRAP;
        if index < self.size {
            index as u16 | wrap
        } else {
            (index - self.size) as u16 | wrap ^ WRAP
        }
    }

    #[inline(always)]
    fn bell(&self) -> Bell {
        let place = self.next as u16;
        // The USED bit needs no look: nothing at the next place is used in this lap.
        let quiet = if place & WRAP == 0 { AVAIL } else { 0 };
        Bell::new(self.flags(place).as_ptr(), AVAIL.to_le(), quiet.to_le())
    }

    fn waiting(&self) -> u16 {
        let mut chains = 0;
        for ahead in 0..self.size as u16 {
            let place = self.after(self.next as u16, ahead);
            let flags = u16::from_le(self.flags(place).load(Ordering::Acquire));
            if !is_available(place, flags) {
                break;
            }
            chains += u16::from(flags & NEXT == 0);
        }
        chains
    }

    #[inline(always)]
    fn scout(&mut self, ahead: usize, most: usize, direction: u16) -> Result<usize, Violation> {
        let most = most.min(self.size - ahead);
        let next = self.after(self.next as u16, ahead as u16);
        if most == 0 || self.available(next).is_none() {
            return Ok(0);
        }
        // How many there are is not known. Lines that the driver has yet to write are better left
        // to it, so no more are asked for than are needed, or were there the last time and one.
        let likely = if direction == WRITE { most } else { most.min(self.last + PER_LINE) };
        for ahead in (PER_LINE..likely + PER_LINE).step_by(PER_LINE) {
            let index = usize::from(next & !WRAP) + ahead;
            let index = if index < self.size { index } else { index - self.size };
            // A ring of few entries may end in between; any address is harmless.
            prefetch_to_write(self.descriptors.wrapping_add(16 * index));
        }
        Ok(most)
    }

    /// The lines of the chains themselves, which [`scout`](Layout::scout) asked for.
    #[inline(always)]
    fn prepare(&self, _chains: usize, _direction: u16) {}

    #[inline(always)]
    fn scouted(&self, place: u16) -> Result<Option<Head>, Violation> {
        Ok(self.available(place))
    }

    #[inline(always)]
    fn head(&mut self, place: u16, _ahead: u16) -> Result<Option<Head>, Violation> {
        Ok(self.available(place))
    }

    #[inline(always)]
    fn linked(
        &self,
        place: u16,
        steps: u16,
        _descriptor: Descriptor,
    ) -> Result<Descriptor, Violation> {
        Ok(self.read(self.after(place, steps)))
    }

    #[inline(always)]
    fn chain(_head: Head, last: Descriptor, descriptors: u16) -> Chain {
        Chain { id: last.link, places: descriptors }
    }

    #[inline(always)]
    fn take(&mut self, chain: Chain) {
        self.next = usize::from(self.after(self.next as u16, chain.places));
        self.chains[self.taken] = chain;
        self.taken += 1;
    }

    #[inline(always)]
    fn take_singles(&mut self, ids: impl ExactSizeIterator<Item = u16>) {
        ids.for_each(|id| self.take(Chain { id, places: 1 }));
    }

    #[inline(always)]
    fn taken(&self) -> usize {
        self.taken
    }

    #[inline(always)]
    fn complete(&mut self) {
        if self.in_order && self.taken > 0 {
            let Chain { id, .. } = self.chains[self.taken - 1];
            self.use_chain(Chain { id, places: 0 }, 0, 0);
            self.used = self.next;
        } else {
            for at in 0..self.taken {
                self.use_chain(self.chains[at], 0, 0);
            }
        }
        self.taken = 0;
    }

    /// In the first chain's address, which was read, which the driver does not read back, and which
    /// it writes anew before the descriptor is available again.
    #[inline(always)]
    fn mark(&mut self) {
        if self.taken > 0 {
            let used = self.used as u16;
            self.address(used).store(mark(used, self.taken).to_le(), Ordering::Release);
        }
    }

    fn marked(&self) -> usize {
        self.marked_at(self.used as u16).unwrap_or(0)
    }

    #[inline(always)]
    fn use_next(&mut self, chain: Chain, bytes: u32) {
        self.use_chain(chain, bytes, WRITE);
        self.next = self.used;
    }

    #[inline(always)]
    fn use_single(&mut self, _ahead: usize, id: u16, bytes: u32) {
        self.use_chain(Chain { id, places: 1 }, bytes, WRITE);
    }

    #[inline(always)]
    fn pass(&mut self, _chains: usize) {
        self.next = self.used;
    }

    #[inline(always)]
    fn publish(&mut self) -> Option<u16> {
        if self.used == self.published {
            return None;
        }
        let from = self.published as u16;
        // With it the driver also sees all that was written behind it.
        self.word(from).store(self.held.to_le(), Ordering::Release);
        self.published = self.used;
        self.last = self.distance(from, self.used as u16);
        Some(from)
    }

    #[inline(always)]
    fn wants_call(&self, from: u16) -> bool {
        self.events.wants_call(|event| {
            self.distance(from, event) < self.distance(from, self.published as u16)
        })
    }

    fn position(&self) -> (u16, u16) {
        (self.next as u16, self.used as u16)
    }
}
