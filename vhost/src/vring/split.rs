//! The split layout: a table of descriptors, a ring of available chains, a ring of used ones
//! (virtio 1.2 §2.7).
//!
//! The shared indexes are touched once per burst. A place is an entry of the available ring,
//! counted up for ever. With `IN_ORDER`, a burst that was only read is used by one entry, that of
//! its last chain (§2.7.9); buffers that were written need one each, for their lengths.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::areas::Areas;
use super::chain::{Chain, Descriptor, Head, WRITE, read};
use super::layout::Layout;
use super::seat::Bell;
use super::{Violation, VringConfig, VringError};
use crate::burst::BURST_MAX;
use crate::copy::{prefetch, prefetch_to_write};

/// Entries of a used ring in a cache line.
const USED_PER_LINE: usize = 8;

/// Heads that are kept: a burst that was taken, and one that was scouted behind it.
const HEADS: usize = 2 * BURST_MAX;

/// Driver asks not to be notified (virtio 1.2 §2.7.6, `VIRTQ_AVAIL_F_NO_INTERRUPT`).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Device asks not to be notified (virtio 1.2 §2.7.8, `VIRTQ_USED_F_NO_NOTIFY`).
const USED_NO_NOTIFY: u16 = 1;

/// The upper half of a mark's first word: no entry of a used ring has such an id.
const MARK: u32 = 0x7ac3 << 16;

/// The entry of the used ring at `place` that says that so many chains are being delivered.
#[inline(always)]
fn mark(place: u16, chains: u32) -> [u32; 2] {
    [MARK | u32::from(place), chains]
}

/// A split ring's areas and where we are in them. See the [module's head](self).
#[derive(Debug)]
pub(super) struct Split {
    descriptors: *const u8,
    available: *mut u16,
    used: *mut u16,
    size: u16,
    /// `size - 1`. In a word of its own: read together with a neighbour that was just written, it
    /// would have to wait until every store before that one has left the core.
    mask: usize,
    event_idx: bool,
    in_order: bool,
    /// Next entry of the available ring to be taken.
    next_available: u16,
    /// The driver's available index as last read.
    seen_available: u16,
    /// Next entry of the used ring to be written.
    next_used: u16,
    /// The used index that the driver was last shown.
    published: u16,
    /// Chains that were taken and not completed.
    taken: usize,
    /// Heads of the chains that were scouted or taken last, by their place.
    heads: [u16; HEADS],
}

// SAFETY: the pointers lead into mappings that outlive this; they are bound to no thread.
unsafe impl Send for Split {}

impl Split {
    /// Finds and checks the ring's areas. Its size is one that a split ring can have.
    ///
    /// The used index is taken from the ring itself. A base that differs from it tells of chains
    /// that an earlier back-end took and never completed; the ring then goes on from the used
    /// index, so that they are taken again. (This back-end completes in order and in the same
    /// burst, so for its own rings the two agree.)
    pub(super) fn new(areas: Areas<'_>, config: &VringConfig) -> Result<Self, VringError> {
        let size = config.size;
        let entries = u64::from(size);
        // Both rings end in a field for the event index, which drivers lay out in any case.
        let descriptors = areas.find("descriptor table", config.descriptors, 16 * entries, 16)?;
        let available = areas.find("available ring", config.available, 6 + 2 * entries, 2)?;
        let used = areas.find("used ring", config.used, 6 + 8 * entries, 4)?;
        let mut ring = Self {
            descriptors,
            available: available.cast(),
            used: used.cast(),
            size,
            mask: usize::from(size) - 1,
            event_idx: config.event_idx,
            in_order: config.in_order,
            next_available: 0,
            seen_available: 0,
            next_used: 0,
            published: 0,
            taken: 0,
            heads: [0; HEADS],
        };
        let reached = ring.used_index().load(Ordering::Relaxed);
        (ring.next_available, ring.seen_available) = (reached, reached);
        (ring.next_used, ring.published) = (reached, reached);
        // We poll, so the driver never needs to tell us. With event indexes the flag has no
        // meaning, and the event index stays behind the driver, which then sees no reason either.
        let flags = if config.event_idx { 0 } else { USED_NO_NOTIFY };
        ring.used_flags().store(flags, Ordering::Relaxed);
        Ok(ring)
    }

    /// The descriptor at `index` of the table.
    #[inline(always)]
    fn at(&self, index: u16) -> Result<Descriptor, Violation> {
        if index >= self.size {
            return Err(Violation::DescriptorIndex { index, size: self.size });
        }
        // SAFETY: `new` found `16 * size` bytes there, aligned, and `index < size`.
        let words = unsafe { read(self.descriptors.add(16 * usize::from(index))) };
        Ok(Self::descriptor(words))
    }

    #[inline(always)]
    fn available_flags(&self) -> &AtomicU16 {
        // SAFETY: `new` found the available ring, 2-byte aligned, of `6 + 2 * size` bytes, in
        // memory that outlives `self`; `flags` is its first field.
        unsafe { AtomicU16::from_ptr(self.available) }
    }

    #[inline(always)]
    fn available_index(&self) -> &AtomicU16 {
        // SAFETY: as above; `idx` is the second field.
        unsafe { AtomicU16::from_ptr(self.available.add(1)) }
    }

    /// The head that stands in entry `at` of the available ring, which counts up for ever.
    #[inline(always)]
    fn available_entry(&self, at: usize) -> u16 {
        let entry = at & self.mask;
        // SAFETY: as above; `entry < size`, behind flags and index.
        unsafe { AtomicU16::from_ptr(self.available.add(2 + entry)) }.load(Ordering::Relaxed)
    }

    /// The driver's `used_event` (virtio 1.2 §2.7.10), behind the available ring's entries.
    #[inline(always)]
    fn used_event(&self) -> u16 {
        // SAFETY: as above; the area was checked to hold this field.
        unsafe { AtomicU16::from_ptr(self.available.add(2 + usize::from(self.size))) }
            .load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn used_flags(&self) -> &AtomicU16 {
        // SAFETY: `new` found the used ring, 4-byte aligned, of `6 + 8 * size` bytes, in memory
        // that outlives `self`; `flags` is its first field.
        unsafe { AtomicU16::from_ptr(self.used) }
    }

    #[inline(always)]
    fn used_index(&self) -> &AtomicU16 {
        // SAFETY: as above; `idx` is the second field.
        unsafe { AtomicU16::from_ptr(self.used.add(1)) }
    }

    /// Asks for the lines of the used ring that the next `entries` entries will be written to.
    #[inline(always)]
    fn prefetch_used(&self, entries: usize) {
        if entries == 0 {
            return;
        }
        // One more than the entries fill: they may begin anywhere in a line.
        for ahead in (0..entries + USED_PER_LINE - 1).step_by(USED_PER_LINE) {
            let entry = usize::from(self.next_used.wrapping_add(ahead as u16)) & self.mask;
            prefetch_to_write(self.used.wrapping_add(2 + 4 * entry).cast());
        }
        prefetch_to_write(self.used.cast());
    }

    /// Has the lines of the used ring's next `entries` entries brought over, as [`claim`](crate::copy::claim)
    /// does for buffers. They must be of chains that are available: entries further on may be such as the
    /// driver has yet to read.
    #[inline(always)]
    fn claim_used(&self, entries: usize) {
        let Some(last) = entries.checked_sub(1) else { return };
        for ahead in (0..last).step_by(USED_PER_LINE) {
            self.write_used(ahead, 0, 0);
        }
        self.write_used(last, 0, 0);
    }

    /// Writes the used ring's entry that is `ahead` behind the next. The driver sees it once the
    /// index is published.
    #[inline(always)]
    fn write_used(&self, ahead: usize, head: u16, bytes: u32) {
        let entry = usize::from(self.next_used).wrapping_add(ahead) & self.mask;
        let element = u64::from(head) | u64::from(bytes) << 32;
        // SAFETY: as above; entries of 8 bytes stand behind flags and index, `entry < size`. They
        // are 4-byte aligned only, hence the unaligned store.
        unsafe {
            self.used.add(2 + 4 * entry).cast::<u64>().write_unaligned(element.to_le());
        }
    }

    /// The two words of the used ring's next entry.
    #[inline(always)]
    fn next_used_entry(&self) -> [&AtomicU32; 2] {
        let entry = usize::from(self.next_used) & self.mask;
        // SAFETY: as above; the words are 4-byte aligned as the ring is, `entry < size`.
        [0, 1].map(|word| unsafe {
            AtomicU32::from_ptr(self.used.add(2 + 4 * entry).cast::<u32>().add(word))
        })
    }

    /// Reads the driver's index if fewer than `wanted` entries are known to be available, and
    /// returns how many are.
    #[inline(always)]
    fn refresh(&mut self, wanted: u16) -> Result<u16, Violation> {
        let known = self.seen_available.wrapping_sub(self.next_available);
        if known >= wanted {
            return Ok(known);
        }
        let index = self.available_index().load(Ordering::Acquire);
        let available = index.wrapping_sub(self.next_available);
        if available > self.size {
            return Err(Violation::AvailableJump {
                from: self.next_available,
                to: index,
                size: self.size,
            });
        }
        self.seen_available = index;
        Ok(available)
    }
}

impl Layout for Split {
    const POSITIONAL: bool = false;

    #[inline(always)]
    fn descriptor([low, high]: [u64; 2]) -> Descriptor {
        Descriptor {
            address: low,
            bytes: high as u32,
            flags: (high >> 32) as u16,
            link: (high >> 48) as u16,
        }
    }

    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn next(&self) -> u16 {
        self.next_available
    }

    #[inline(always)]
    fn after(&self, place: u16, places: u16) -> u16 {
        place.wrapping_add(places)
    }

    #[inline(always)]
    fn bell(&self) -> Bell {
        Bell::new(self.available_index().as_ptr(), u16::MAX, self.next_available)
    }

    fn waiting(&self) -> u16 {
        let index = self.available_index().load(Ordering::Acquire);
        index.wrapping_sub(self.next_available).min(self.size)
    }

    #[inline(always)]
    fn scout(&mut self, ahead: usize, most: usize, direction: u16) -> Result<usize, Violation> {
        let enough = ahead + if direction == WRITE { most } else { 1 };
        let found = usize::from(self.refresh(enough as u16)?).saturating_sub(ahead).min(most);
        let start = usize::from(self.next_available);
        // Places go round at a multiple of what both are reduced by.
        for place in start + ahead..start + ahead + found {
            let head = self.available_entry(place);
            self.heads[place % HEADS] = head;
            // It may be out of range, which is checked when it is read.
            prefetch(self.descriptors.wrapping_add(16 * usize::from(head)));
        }
        Ok(found)
    }

    #[inline(always)]
    fn prepare(&self, chains: usize, direction: u16) {
        if direction == WRITE {
            self.claim_used(chains);
        } else {
            self.prefetch_used(if self.in_order { chains.min(1) } else { chains });
        }
    }

    #[inline(always)]
    fn scouted(&self, place: u16) -> Result<Option<Head>, Violation> {
        let id = self.heads[usize::from(place) % HEADS];
        Ok(Some(Head { id, first: self.at(id)? }))
    }

    #[inline(always)]
    fn head(&mut self, place: u16, ahead: u16) -> Result<Option<Head>, Violation> {
        if self.refresh(ahead + 1)? <= ahead {
            return Ok(None);
        }
        let id = self.available_entry(usize::from(place));
        Ok(Some(Head { id, first: self.at(id)? }))
    }

    #[inline(always)]
    fn linked(
        &self,
        _place: u16,
        _steps: u16,
        descriptor: Descriptor,
    ) -> Result<Descriptor, Violation> {
        self.at(descriptor.link)
    }

    #[inline(always)]
    fn chain(head: Head, _last: Descriptor, _descriptors: u16) -> Chain {
        Chain { id: head.id, places: 1 }
    }

    #[inline(always)]
    fn take(&mut self, _chain: Chain) {
        self.next_available = self.next_available.wrapping_add(1);
        self.taken += 1;
    }

    #[inline(always)]
    fn take_singles(&mut self, ids: impl ExactSizeIterator<Item = u16>) {
        self.next_available = self.next_available.wrapping_add(ids.len() as u16);
        self.taken += ids.len();
    }

    #[inline(always)]
    fn taken(&self) -> usize {
        self.taken
    }

    #[inline(always)]
    fn complete(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        let first = self.next_available.wrapping_sub(taken as u16);
        // With `IN_ORDER`, the last entry stands for all.
        let from = if self.in_order { taken.saturating_sub(1) } else { 0 };
        for at in from..taken {
            let place = usize::from(first.wrapping_add(at as u16));
            self.write_used(at - from, self.heads[place % HEADS], 0);
        }
        self.next_used = self.next_used.wrapping_add(taken as u16);
    }

    /// In the used ring's next entry, which the driver reads once the index is behind it, and which
    /// is written again before that.
    #[inline(always)]
    fn mark(&mut self) {
        if self.taken > 0 {
            let [id, bytes] = mark(self.next_used, self.taken as u32);
            let [id_at, bytes_at] = self.next_used_entry();
            bytes_at.store(bytes.to_le(), Ordering::Relaxed);
            id_at.store(id.to_le(), Ordering::Release);
        }
    }

    fn marked(&self) -> usize {
        let [id, bytes] =
            self.next_used_entry().map(|word| u32::from_le(word.load(Ordering::Acquire)));
        let chains = bytes.min(BURST_MAX as u32);
        if [id, bytes] == mark(self.next_used, chains) { chains as usize } else { 0 }
    }

    #[inline(always)]
    fn use_next(&mut self, chain: Chain, bytes: u32) {
        self.use_single(0, chain.id, bytes);
        self.pass(1);
    }

    #[inline(always)]
    fn use_single(&mut self, ahead: usize, id: u16, bytes: u32) {
        self.write_used(ahead, id, bytes);
    }

    #[inline(always)]
    fn pass(&mut self, chains: usize) {
        self.next_available = self.next_available.wrapping_add(chains as u16);
        self.next_used = self.next_used.wrapping_add(chains as u16);
    }

    #[inline(always)]
    fn publish(&mut self) -> Option<u16> {
        if self.next_used == self.published {
            return None;
        }
        self.used_index().store(self.next_used, Ordering::Release);
        Some(std::mem::replace(&mut self.published, self.next_used))
    }

    #[inline(always)]
    fn wants_call(&self, from: u16) -> bool {
        if self.event_idx {
            let used = self.published;
            used.wrapping_sub(self.used_event()).wrapping_sub(1) < used.wrapping_sub(from)
        } else {
            self.available_flags().load(Ordering::Relaxed) & AVAIL_NO_INTERRUPT == 0
        }
    }

    fn position(&self) -> (u16, u16) {
        (self.next_available, self.next_used)
    }
}
