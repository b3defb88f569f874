//! A split virtqueue, seen from the device (virtio 1.2 §2.7).
//!
//! A [`Vring`] is a ring that runs: its three areas have been found in guest memory and checked,
//! and it owns that memory for as long as it lives. `dequeue` takes frames from a guest's
//! transmitq, `enqueue` puts frames into a guest's receiveq; both work on bursts, touch the shared
//! indexes once per burst, and fetch descriptors and buffers ahead of their use, since a line that
//! the guest's core wrote last takes some 80 ns to come over.
//!
//! Whatever the guest wrote is read once into private memory and checked there. What breaks the
//! rules that a driver must follow is a [`Violation`]: the ring is not touched again.
#![allow(unsafe_code)]

mod call;
mod chain;
mod dequeue;
mod enqueue;
mod violation;

#[cfg(test)]
mod tests;

pub use call::{Call, CallError};
pub use violation::Violation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use crate::burst::BURST_MAX;
use crate::copy::prefetch_to_write;
use crate::memory::GuestMemory;
use chain::Slot;

/// The largest ring (virtio 1.2 §2.7: "The maximum Queue Size value is 32768").
pub const RING_SIZE_MAX: u16 = 32768;

/// Entries of a used ring in a cache line.
const USED_PER_LINE: usize = 8;

/// Driver asks not to be notified (virtio 1.2 §2.7.6, `VIRTQ_AVAIL_F_NO_INTERRUPT`).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Device asks not to be notified (virtio 1.2 §2.7.8, `VIRTQ_USED_F_NO_NOTIFY`).
const USED_NO_NOTIFY: u16 = 1;

/// What a session knows of a ring when it starts it. Addresses are in the front-end's own space.
#[derive(Clone, Debug)]
pub struct VringConfig {
    /// Entries: a power of two, at most [`RING_SIZE_MAX`].
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
    /// Where to go on in the available ring (vhost-user: `SET_VRING_BASE`).
    pub base: u16,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `VIRTIO_NET_F_MRG_RXBUF` was negotiated.
    pub mergeable: bool,
    /// `VIRTIO_F_VERSION_1` was negotiated.
    pub version_1: bool,
    /// Started but disabled rings supply nothing, and discard what is taken from them.
    pub enabled: bool,
    /// How to interrupt the driver; without it the driver polls.
    pub call: Option<Arc<Call>>,
}

/// Why a ring could not be started.
#[derive(Debug, thiserror::Error)]
pub enum VringError {
    /// See [`VringConfig::size`].
    #[error("ring size {0} is not a power of two between 1 and {RING_SIZE_MAX}")]
    Size(u16),
    /// An area is not inside the guest's memory.
    #[error(
        "{area} at user address {address:#x} with {bytes} bytes is not inside one memory region"
    )]
    Outside {
        /// Which area.
        area: &'static str,
        /// Its address.
        address: u64,
        /// Its size.
        bytes: u64,
    },
    /// An area is not aligned (virtio 1.2 §2.7, table of alignments).
    #[error("{area} at user address {address:#x} is not aligned to {align} bytes")]
    Unaligned {
        /// Which area.
        area: &'static str,
        /// Its address.
        address: u64,
        /// What it must be a multiple of.
        align: u64,
    },
}

/// Counts of one ring since its [`Device`](crate::Device) was made; written under the ring's lock
/// by one thread at a time, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct RingCounters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) too_big: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) kicks: AtomicU64,
}

/// Adds to a counter that only the holder of its lock writes: no locked instruction.
#[inline(always)]
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A running split ring. See the [module's head](self).
#[derive(Debug)]
pub struct Vring {
    memory: Arc<GuestMemory>,
    call: Option<Arc<Call>>,
    descriptors: *const u8,
    available: *mut u16,
    used: *mut u16,
    size: u16,
    /// `size - 1`. In a word of its own: read together with a neighbour that was just written, it
    /// would have to wait until every store before that one has left the core.
    mask: usize,
    header_bytes: u32,
    event_idx: bool,
    mergeable: bool,
    enabled: bool,
    broken: bool,
    /// Next entry of the available ring to be taken.
    next_available: u16,
    /// The driver's available index as last read.
    seen_available: u16,
    /// Next entry of the used ring to be written.
    next_used: u16,
    /// The used index when the driver was last considered for a call.
    called_used: u16,
    /// Which memory region the last address was in.
    hint: usize,
    /// Chains that were dequeued and not completed.
    taken: usize,
    heads: [u16; BURST_MAX],
    slots: Box<[Slot; BURST_MAX]>,
}

// SAFETY: the pointers lead into mappings that `memory` keeps alive; they are bound to no thread.
unsafe impl Send for Vring {}

impl Vring {
    /// Finds and checks the ring's areas in `memory`.
    ///
    /// The used index is taken from the ring itself. A `base` that differs from it tells of
    /// chains that an earlier back-end took and never completed; the ring then goes on from the
    /// used index, so that they are taken again. (This back-end completes in order and in the same
    /// burst, so for its own rings the two agree.)
    pub fn new(memory: Arc<GuestMemory>, config: &VringConfig) -> Result<Self, VringError> {
        let size = config.size;
        if !size.is_power_of_two() || size > RING_SIZE_MAX {
            return Err(VringError::Size(size));
        }
        let entries = u64::from(size);
        // Both rings end in a field for the event index, which drivers lay out in any case.
        let area = |area, address: u64, bytes, align| {
            if !address.is_multiple_of(align) {
                return Err(VringError::Unaligned { area, address, align });
            }
            let host = memory.translate_user(address, bytes);
            let host = host.ok_or(VringError::Outside { area, address, bytes })?;
            // A region may be mapped at an odd offset of its file.
            if !(host.addr() as u64).is_multiple_of(align) {
                return Err(VringError::Unaligned { area, address, align });
            }
            Ok(host)
        };
        let descriptors = area("descriptor table", config.descriptors, 16 * entries, 16)?;
        let available = area("available ring", config.available, 6 + 2 * entries, 2)?;
        let used = area("used ring", config.used, 6 + 8 * entries, 4)?;
        let header_bytes = if config.mergeable || config.version_1 { 12 } else { 10 };

        let mut ring = Self {
            memory,
            call: config.call.clone(),
            descriptors,
            available: available.cast(),
            used: used.cast(),
            size,
            mask: usize::from(size) - 1,
            header_bytes,
            event_idx: config.event_idx,
            mergeable: config.mergeable,
            enabled: config.enabled,
            broken: false,
            next_available: config.base,
            seen_available: config.base,
            next_used: 0,
            called_used: 0,
            hint: 0,
            taken: 0,
            heads: [0; BURST_MAX],
            slots: Box::new([Slot::default(); BURST_MAX]),
        };
        ring.next_used = ring.used_index().load(Ordering::Relaxed);
        ring.called_used = ring.next_used;
        if ring.next_used != config.base {
            (ring.next_available, ring.seen_available) = (ring.next_used, ring.next_used);
        }
        // We poll, so the driver never needs to tell us. With event indexes the flag has no
        // meaning, and the event index stays behind the driver, which then sees no reason either.
        let flags = if config.event_idx { 0 } else { USED_NO_NOTIFY };
        ring.used_flags().store(flags, Ordering::Relaxed);
        Ok(ring)
    }

    /// Where the ring stands: next entry of the available ring, next entry of the used ring.
    pub fn position(&self) -> (u16, u16) {
        (self.next_available, self.next_used)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Whether it moves frames; a disabled one supplies nothing and discards what it takes.
    pub fn is_enabled(&self) -> bool {
        self.enabled && !self.broken
    }

    #[inline(always)]
    fn available_flags(&self) -> &AtomicU16 {
        // SAFETY: `new` found the available ring, 2-byte aligned, of `6 + 2 * size` bytes, in
        // memory that `self` keeps mapped; `flags` is its first field.
        unsafe { AtomicU16::from_ptr(self.available) }
    }

    #[inline(always)]
    fn available_index(&self) -> &AtomicU16 {
        // SAFETY: as above; `idx` is the second field.
        unsafe { AtomicU16::from_ptr(self.available.add(1)) }
    }

    /// The head that stands in entry `at` of the available ring, which counts up for ever.
    #[inline(always)]
    fn available_entry(&self, at: u16) -> u16 {
        let entry = usize::from(at) & self.mask;
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
        // that `self` keeps mapped; `flags` is its first field.
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

    /// Writes the used ring's next entry. The driver sees it once the index is published.
    #[inline(always)]
    fn use_chain(&mut self, head: u16, bytes: u32) {
        let entry = usize::from(self.next_used) & self.mask;
        let element = u64::from(head) | u64::from(bytes) << 32;
        // SAFETY: as above; entries of 8 bytes stand behind flags and index, `entry < size`. They
        // are 4-byte aligned only, hence the unaligned store.
        unsafe {
            self.used.add(2 + 4 * entry).cast::<u64>().write_unaligned(element.to_le());
        }
        self.next_used = self.next_used.wrapping_add(1);
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

    /// Publishes what was used since the last time and interrupts the driver if it wants that.
    #[inline(always)]
    fn publish(&mut self, counters: &RingCounters) {
        if self.next_used == self.called_used {
            return;
        }
        self.used_index().store(self.next_used, Ordering::Release);
        let from = std::mem::replace(&mut self.called_used, self.next_used);
        let Some(call) = &self.call else { return };
        // The driver writes its wish and then reads the used index; we wrote the index and now
        // read the wish. One of us must see the other's (virtio 1.2 §2.7.7.2).
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let used = self.next_used;
            used.wrapping_sub(self.used_event()).wrapping_sub(1) < used.wrapping_sub(from)
        } else {
            self.available_flags().load(Ordering::Relaxed) & AVAIL_NO_INTERRUPT == 0
        };
        if wanted {
            call.ring();
            count(&counters.kicks, 1);
        }
    }
}
