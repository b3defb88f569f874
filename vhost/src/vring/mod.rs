//! A virtqueue, seen from the device (virtio 1.2 §2.6), split (§2.7).
//!
//! A [`Vring`] is a ring that runs: its areas have been found in guest memory and checked, and it
//! owns that memory for as long as it lives. `dequeue` takes frames from a guest's transmitq,
//! `enqueue` puts frames into a guest's receiveq; both work on bursts, touch what is shared as few
//! times per burst as the layout lets them, and fetch descriptors and buffers ahead of their use,
//! since a line that the guest's core wrote last takes some 80 ns to come over.
//!
//! Whatever the guest wrote is read once into private memory and checked there. What breaks the
//! rules that a driver must follow is a [`Violation`]: the ring is not touched again.
//!
//! `dequeue`, `enqueue` and `chain` are written once, for [`ring::Ring`] over any
//! [`layout::Layout`]; `split` is one.
#![allow(unsafe_code)]

mod areas;
mod call;
mod chain;
mod dequeue;
mod enqueue;
mod layout;
mod ring;
mod split;
mod violation;

#[cfg(test)]
mod tests;

pub use call::{Call, CallError};
pub use violation::Violation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::burst::{Burst, Frames, Sent, Staged};
use crate::memory::GuestMemory;
use crate::offload::Offloads;
use layout::Layout;
use ring::Ring;
use split::Split;

/// The largest ring (virtio 1.2 §2.7: "The maximum Queue Size value is 32768").
pub const RING_SIZE_MAX: u16 = 32768;

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
    /// What the driver may leave to us.
    pub left: Offloads,
    /// What may be left to the driver.
    pub accepted: Offloads,
    /// Started but disabled rings supply nothing, and discard what is put into them from then on.
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

/// A running ring. See the [module's head](self).
#[derive(Debug)]
pub struct Vring {
    ring: Ring<Split>,
}

impl Vring {
    /// Finds and checks the ring's areas in `memory`.
    pub fn new(memory: Arc<GuestMemory>, config: &VringConfig) -> Result<Self, VringError> {
        Ok(Self { ring: Ring::new(memory, config, Split::new)? })
    }

    /// Where the ring stands: next entry of the available ring, next entry of the used ring.
    pub fn position(&self) -> (u16, u16) {
        self.ring.layout.position()
    }

    /// Whether the driver has made nothing available since the last look.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        self.ring.layout.is_quiet()
    }

    /// Whether it moves frames; a disabled one supplies nothing and discards what it takes, but
    /// for what waited in it when it was made.
    pub fn is_enabled(&self) -> bool {
        self.ring.is_enabled()
    }

    /// Moves what the driver made available, up to what fits, into `burst`, which must be empty.
    ///
    /// The frames' bodies stay in the guest's buffers until [`complete`](Self::complete). After a
    /// violation the frames that came before it are in the burst and the ring is broken: it gives
    /// nothing any more.
    #[inline]
    pub(crate) fn dequeue(
        &mut self,
        burst: &mut Burst,
        counters: &RingCounters,
    ) -> Result<(), Violation> {
        self.ring.dequeue(burst, counters)
    }

    /// Gives the chains of the last [`dequeue`](Self::dequeue) back to the driver.
    #[inline]
    pub(crate) fn complete(&mut self, counters: &RingCounters) {
        self.ring.complete(counters);
    }

    /// Copies frames into the buffers that the driver made available, in order, and publishes
    /// them. Frames that find no room are counted, not waited for.
    ///
    /// After a violation the frames before it were sent and the ring is broken.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        frames: Frames<'_>,
        staged: &[Staged],
        counters: &RingCounters,
    ) -> (Sent, Result<(), Violation>) {
        self.ring.enqueue(frames, staged, counters)
    }
}
