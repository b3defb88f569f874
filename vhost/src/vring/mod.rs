//! A virtqueue, seen from the device (virtio 1.2 §2.6), split (§2.7) or packed (§2.8).
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
//! [`layout::Layout`], which are `split` and `packed`. Which of the two a ring has is asked once a
//! burst.
#![allow(unsafe_code)]

mod areas;
mod call;
mod chain;
mod dequeue;
mod enqueue;
mod layout;
mod packed;
mod resume;
mod ring;
mod seat;
mod slots;
mod split;
mod violation;

#[cfg(test)]
mod tests;

pub use call::{Call, CallError};
pub(crate) use seat::Seat;
pub use violation::Violation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::burst::{Burst, Frames, Sent, Staged};
use crate::memory::GuestMemory;
use crate::offload::Offloads;
use layout::Layout;
use packed::Packed;
use ring::Ring;
use seat::Bell;
use split::Split;

/// The largest ring (virtio 1.2 §2.7: "The maximum Queue Size value is 32768").
pub const RING_SIZE_MAX: u16 = 32768;

/// How a ring lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingLayout {
    /// A table of descriptors, and a ring for each side (virtio 1.2 §2.7).
    #[default]
    Split,
    /// One ring for all (virtio 1.2 §2.8): `VIRTIO_F_RING_PACKED` was negotiated.
    Packed,
}

impl RingLayout {
    /// Whether a ring can have that many entries.
    pub fn allows(self, size: u16) -> bool {
        let fits = (1..=RING_SIZE_MAX).contains(&size);
        fits && (self == Self::Packed || size.is_power_of_two())
    }

    /// How many entries a ring can have, in words.
    pub fn size_rule(self) -> &'static str {
        match self {
            Self::Split => "a power of two up to 32768",
            Self::Packed => "1 to 32768",
        }
    }
}

/// What a session knows of a ring when it starts it. Addresses are in the front-end's own space.
#[derive(Clone, Debug)]
pub struct VringConfig {
    /// What the areas below are.
    pub layout: RingLayout,
    /// Entries: at most [`RING_SIZE_MAX`], of a split ring a power of two.
    pub size: u16,
    /// The descriptor table, or the packed ring.
    pub descriptors: u64,
    /// The available ring, or the driver's event suppression area.
    pub available: u64,
    /// The used ring, or the device's event suppression area.
    pub used: u64,
    /// Where to go on (vhost-user: `SET_VRING_BASE`), as far as the ring's own memory does not
    /// tell: see `Split::new` and [`packed`].
    pub base: u32,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `VIRTIO_F_IN_ORDER` was negotiated.
    pub in_order: bool,
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
    #[error("a ring cannot have {size} entries, only {}", layout.size_rule())]
    Size {
        /// What it is.
        size: u16,
        /// The ring's layout.
        layout: RingLayout,
    },
    /// See [`VringConfig::base`].
    #[error("a ring of {size} entries cannot begin at {base:#x}")]
    Base {
        /// What the front-end says.
        base: u32,
        /// The ring's size.
        size: u16,
    },
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
    /// An area is not aligned (virtio 1.2 §2.7, §2.8, tables of alignments).
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

/// Where a ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPosition {
    /// The ring's layout, which says what the other two are.
    pub layout: RingLayout,
    /// Split: next entry of the available ring, counted up for ever. Packed: where the next chain
    /// is taken, with the wrap counter in bit 15.
    pub next_available: u16,
    /// Split: next entry of the used ring, counted up for ever. Packed: where the next chain is
    /// used, with the wrap counter in bit 15.
    pub next_used: u16,
}

impl RingPosition {
    /// As a front-end keeps it (vhost-user: `GET_VRING_BASE`).
    pub fn base(self) -> u32 {
        match self.layout {
            RingLayout::Split => u32::from(self.next_available),
            RingLayout::Packed => u32::from(self.next_available) | u32::from(self.next_used) << 16,
        }
    }
}

/// A running ring. See the [module's head](self).
#[derive(Debug)]
pub struct Vring {
    ring: AnyRing,
}

#[derive(Debug)]
enum AnyRing {
    Split(Ring<Split>),
    Packed(Ring<Packed>),
}

/// The same expression for a ring of either layout.
macro_rules! either {
    ($vring:expr, $ring:ident => $what:expr) => {
        match $vring {
            AnyRing::Split($ring) => $what,
            AnyRing::Packed($ring) => $what,
        }
    };
}

impl Vring {
    /// Finds and checks the ring's areas in `memory`.
    pub fn new(memory: Arc<GuestMemory>, config: &VringConfig) -> Result<Self, VringError> {
        let (layout, size) = (config.layout, config.size);
        if !layout.allows(size) {
            return Err(VringError::Size { size, layout });
        }
        let ring = match layout {
            RingLayout::Split => AnyRing::Split(Ring::new(memory, config, Split::new)?),
            RingLayout::Packed => AnyRing::Packed(Ring::new(memory, config, Packed::new)?),
        };
        Ok(Self { ring })
    }

    /// Where the ring stands.
    pub fn position(&self) -> RingPosition {
        let layout = match self.ring {
            AnyRing::Split(_) => RingLayout::Split,
            AnyRing::Packed(_) => RingLayout::Packed,
        };
        let (next_available, next_used) = either!(&self.ring, ring => ring.layout.position());
        RingPosition { layout, next_available, next_used }
    }

    /// Ends the ring, which is not to be used any more, and tells where it stood. In a packed ring
    /// a note of that is left, see `packed::resume`.
    pub fn stop(&mut self) -> RingPosition {
        if let AnyRing::Packed(ring) = &self.ring {
            ring.layout.leave_note();
        }
        self.position()
    }

    /// What tells a look that something waits.
    #[inline(always)]
    fn bell(&self) -> Bell {
        either!(&self.ring, ring => ring.bell())
    }

    /// Whether it moves frames; a disabled one supplies nothing and discards what it takes, but
    /// for what waited in it when it was made.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        either!(&self.ring, ring => ring.is_enabled())
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
        either!(&mut self.ring, ring => ring.dequeue(burst, counters))
    }

    /// Gives the chains of the last [`dequeue`](Self::dequeue) back to the driver.
    #[inline]
    pub(crate) fn complete(&mut self, counters: &RingCounters) {
        either!(&mut self.ring, ring => ring.complete(counters));
    }

    /// Copies frames into the buffers that the driver made available, in order, and publishes
    /// them. Frames that find no room are counted, not waited for. What became of each is added to `sent`.
    ///
    /// After a violation the frames before it were sent and the ring is broken.
    #[inline]
    pub(crate) fn enqueue(
        &mut self,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        sent: &mut Sent,
        counters: &RingCounters,
    ) -> Result<(), Violation> {
        either!(&mut self.ring, ring => ring.enqueue(frames, staged, sent, counters))
    }
}
