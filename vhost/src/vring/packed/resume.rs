//! Where a packed ring goes on.
//!
//! A split ring's used index lies in guest memory; nothing of a packed ring says where we are in
//! it. A front-end that stopped the ring knows (`GET_VRING_BASE`). One that lost us does not: QEMU
//! then begins at the last place it heard of, where the guest's driver has long gone on. So:
//!
//! * A burst that we died over is marked where it begins, see [`resume`](crate::vring::resume). Then
//!   that is the place.
//! * A ring that is stopped leaves its place in its device area, where it has no meaning for the
//!   driver (virtio 1.2 §2.8.14: only beside another flag). That is taken if it can be true.
//! * If there is none, the front-end is believed if what it says can be true.
//! * If it cannot, we died. Then the ring goes on behind what was used last.
//!
//! What can be true, the descriptors tell. Whoever wrote one last set its AVAIL bit to his lap, so
//! where that bit changes is where the driver writes next. Back from there descriptors look
//! available, up to the one that was used last. Behind that one may still be the rest of its chain,
//! or with `IN_ORDER` of its burst, which ends with a descriptor of the same id.
//!
//! After a death this is wrong in three cases: the chain that was used last had several
//! descriptors, which drivers make only where they cannot use indirect ones; with `IN_ORDER`, the
//! driver has overwritten the used descriptor but not yet filled the ring; we died between the
//! stores that publish one burst, which are a handful of instructions. Then the guest has to reset
//! its device.
//!
//! A guest that writes nonsense here misleads nobody but itself.

use std::sync::atomic::Ordering;

use super::{AVAIL, Packed, USED, WRAP};
use crate::vring::VringError;
use crate::vring::chain::NEXT;
use crate::vring::layout::Layout;

/// How often a ring is read whose driver writes to it meanwhile, before the front-end is believed.
const TRIES: usize = 64;

/// The note that a stopped ring leaves: not 0, which stands there otherwise. (But for the last
/// place of the largest ring, which is none then.)
pub(super) fn note(place: u16) -> u16 {
    !place
}

/// The place where `ring` goes on, whose front-end says that it is `base` (vhost-user:
/// `SET_VRING_BASE` of a packed ring).
pub(super) fn place(ring: &Packed, base: u32) -> Result<u16, VringError> {
    let (available, used) = (base as u16, (base >> 16) as u16);
    // Chains that were taken and not used are taken again. Front-ends which know that there are
    // none, as DPDK's, leave the upper half out.
    let told = if used == 0 { available } else { used };
    let inside = |place: u16| usize::from(place & !WRAP) < ring.size;
    if !inside(told) {
        return Err(VringError::Base { base, size: ring.size as u16 });
    }
    let mut places = (0..ring.size as u16).flat_map(|index| [index, index | WRAP]);
    if let Some(marked) = places.find(|place| ring.marked_at(*place).is_some()) {
        return Ok(marked);
    }
    let left = ring.events.note().filter(|left| *left != 0).map(|left| !left);
    if left == Some(told) {
        return Ok(told);
    }
    let Some(traces) = (0..TRIES).find_map(|_| Traces::read(ring)) else { return Ok(told) };
    if let Some(left) = left.filter(|left| inside(*left) && traces.allow(*left)) {
        return Ok(left);
    }
    Ok(traces.likely(told))
}

/// What the descriptors tell.
struct Traces<'a> {
    ring: &'a Packed,
    /// Flags and id of each.
    descriptors: Vec<(u16, u16)>,
    /// Behind the descriptor that was used last.
    least: u16,
    /// How many there are from `least` to where the driver writes next.
    open: usize,
}

impl<'a> Traces<'a> {
    /// Reads the ring; nothing if the driver was in the middle of it.
    fn read(ring: &'a Packed) -> Option<Self> {
        let word = |index| u64::from_le(ring.word(index).load(Ordering::Acquire));
        let descriptors: Vec<_> = (0..ring.size as u16)
            .map(word)
            .map(|word| ((word >> 48) as u16, (word >> 32) as u16))
            .collect();
        let lap = |index: usize| descriptors[index].0 & AVAIL;
        let turn = (0..ring.size).find(|index| lap(*index) != lap(0));
        let driver = match turn {
            Some(turn) if (turn..ring.size).any(|index| lap(index) == lap(0)) => return None,
            Some(turn) if lap(0) != 0 => turn as u16 | WRAP,
            Some(turn) => turn as u16,
            None if lap(0) != 0 => 0,
            None => WRAP,
        };
        let mut traces = Self { ring, descriptors, least: driver, open: 0 };
        while traces.open < ring.size {
            let (flags, _) = traces.before(traces.least);
            if (flags & AVAIL != 0) == (flags & USED != 0) {
                break;
            }
            traces.least = ring.before(traces.least);
            traces.open += 1;
        }
        Some(traces)
    }

    /// Flags and id of the descriptor before a place.
    fn before(&self, place: u16) -> (u16, u16) {
        self.descriptors[usize::from(self.ring.before(place) & !WRAP)]
    }

    /// Whether the ring may stand at `place`.
    fn allow(&self, place: u16) -> bool {
        let rest = self.ring.distance(self.least, place);
        rest == 0 || rest <= self.open && self.before(place).0 & NEXT == 0
    }

    /// Whether that is where the rest of a chain or burst ends.
    fn end(&self, place: u16) -> bool {
        // If no used descriptor is left, the ring is most likely full; and one of zeros is new.
        let new = self.ring.read(self.ring.before(self.least)).address == 0;
        let known = self.open < self.ring.size && !new;
        known && self.allow(place) && self.before(place).1 == self.before(self.least).1
    }

    /// The most likely place, if somebody says that it is `told`.
    fn likely(&self, told: u16) -> u16 {
        if !self.ring.in_order {
            return if self.end(told) { told } else { self.least };
        }
        // Without a reason to give ids but in turn, drivers give none twice.
        let places = (1..=self.open as u16).rev().map(|rest| self.ring.after(self.least, rest));
        let mut ends = places.filter(|place| self.end(*place));
        ends.next().unwrap_or(self.least)
    }
}

impl Packed {
    /// The place before `place`.
    fn before(&self, place: u16) -> u16 {
        match place & !WRAP {
            0 => (self.size - 1) as u16 | (place & WRAP) ^ WRAP,
            _ => place - 1,
        }
    }
}
