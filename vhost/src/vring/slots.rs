//! Buffers that were looked up ahead of their use.
//!
//! A line that the guest's core had last takes long to come over, so buffers are looked up well before
//! they are read or written: what the next burst will probably need right after a burst, the rest at the
//! next one's beginning. Those to be read are asked for at once, those to be written to when a burst for
//! them is there.

use super::Violation;
use super::chain::{Descriptor, INDIRECT, NEXT, WRITE};
use super::layout::Layout;
use super::ring::Ring;
use crate::burst::BURST_MAX;
use crate::copy::{claim, prefetch};
use crate::memory::Window;

/// The next buffers of a ring, in order, at most a burst.
#[derive(Debug)]
pub(super) struct Slots {
    /// Buffer number `n` since the ring was made is in entry `n % BURST_MAX`.
    slots: [Slot; BURST_MAX],
    /// The number of the next buffer to be used.
    next: usize,
    /// The number of the next buffer to be looked up, `next..=next + BURST_MAX`.
    end: usize,
    /// The number of the first buffer that is not claimed, if it is not behind `next`.
    unclaimed: usize,
}

/// A buffer: the private copy of a chain's first descriptor, and where its memory is if the chain
/// is just that one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) id: u16,
    /// Nothing for anything but a single buffer in one region.
    pub(super) bytes: u32,
    pub(super) host: *mut u8,
}

impl Slot {
    /// Of no buffer.
    const NONE: Self = Self { id: 0, bytes: 0, host: std::ptr::null_mut() };
}

impl Slots {
    /// None looked up yet.
    pub(super) fn new() -> Self {
        Self { slots: [Slot::NONE; BURST_MAX], next: 0, end: 0, unclaimed: 0 }
    }

    /// How many are known.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.end.wrapping_sub(self.next)
    }

    /// The one that is `ahead` behind the next, which must be known.
    #[inline(always)]
    pub(super) fn at(&self, ahead: usize) -> Slot {
        debug_assert!(ahead < self.len(), "it was looked up");
        self.slots[self.next.wrapping_add(ahead) % BURST_MAX]
    }

    /// Those that are known, in order.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Slot> {
        let (slots, next) = (&self.slots, self.next);
        (0..self.len()).map(move |ahead| slots[next.wrapping_add(ahead) % BURST_MAX])
    }

    /// Has the first lines of the next `wanted` buffers brought over, as far as these are known and it has
    /// not been done: the guest gave them to be written to. Returns how many are known.
    #[inline(always)]
    pub(super) fn claim(&mut self, wanted: usize) -> usize {
        let wanted = wanted.min(self.len());
        let claimed = self.unclaimed.wrapping_sub(self.next);
        let claimed = if claimed > self.len() { 0 } else { claimed };
        for ahead in claimed..wanted {
            let Slot { host, bytes, .. } = self.at(ahead);
            if bytes > 0 {
                // SAFETY: a buffer that is known is `bytes` bytes of guest memory that the ring keeps
                // mapped.
                unsafe { claim(host, bytes as usize) };
            }
        }
        self.unclaimed = self.next.wrapping_add(claimed.max(wanted));
        wanted
    }

    /// That many buffers were used, whether they were known or not.
    #[inline(always)]
    pub(super) fn pass(&mut self, used: usize) {
        self.next = self.next.wrapping_add(used.min(self.len()));
    }
}

impl<L: Layout> Ring<L> {
    /// Looks up the next `wanted` buffers (at most a burst), for `direction` as in
    /// [`Layout::scout`], as far as that has not been done: each step for all of them before the
    /// next step, so that the lines come over at the same time.
    #[inline(always)]
    pub(super) fn look_up(&mut self, wanted: usize, direction: u16) -> Result<(), Violation> {
        let known = self.slots.len();
        if known >= wanted {
            return Ok(());
        }
        let found = self.layout.scout(known, wanted - known, direction)?;
        let next = self.layout.next();
        let mut near = self.memory.guess(self.hint);
        // In registers, as they would be read anew for each buffer.
        let (start, mut end) = (self.slots.next, self.slots.end);
        let last = end.wrapping_add(found);
        let mut outcome = Ok(());
        while end != last {
            let ahead = end.wrapping_sub(start);
            let head = match self.layout.scouted(self.layout.after(next, ahead as u16)) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(violation) => {
                    // What comes before it is good; it will be the first.
                    outcome = if ahead > 0 { Ok(()) } else { Err(violation) };
                    break;
                }
            };
            let first = head.first;
            if L::POSITIONAL && first.flags & NEXT != 0 {
                // Where the next chain begins is known once this one has been walked.
                break;
            }
            let mut slot = Slot { id: L::chain(head, first, 1).id, ..Slot::NONE };
            if first.flags & (NEXT | INDIRECT | WRITE) == direction {
                (slot.host, slot.bytes) = match near.host(first.address, u64::from(first.bytes)) {
                    Some(host) => (host, first.bytes),
                    None => self.find_elsewhere(first, &mut near),
                };
            }
            if direction != WRITE {
                prefetch(slot.host);
                prefetch(slot.host.wrapping_add(64));
            }
            self.slots.slots[end % BURST_MAX] = slot;
            end = end.wrapping_add(1);
        }
        self.slots.end = end;
        outcome
    }

    /// Where a buffer is that is not in the region `near`, which becomes the one where it is; nothing if it is in
    /// none, or not in one alone.
    #[cold]
    fn find_elsewhere(&mut self, buffer: Descriptor, near: &mut Window) -> (*mut u8, u32) {
        let bytes = u64::from(buffer.bytes);
        let host = self.memory.translate(buffer.address, bytes, &mut self.hint);
        *near = self.memory.guess(self.hint);
        host.map_or((Slot::NONE.host, 0), |host| (host, buffer.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_buffer_is_claimed_once() {
        let mut buffers = [[7_u8; 256]; BURST_MAX];
        let mut slots = Slots::new();
        let mut push = |slots: &mut Slots, range: std::ops::Range<usize>| {
            for at in range {
                // Every fifth is not in one piece.
                let bytes = if at % 5 == 4 { 0 } else { 256 };
                let host = buffers[at % BURST_MAX].as_mut_ptr();
                slots.slots[slots.end % BURST_MAX] = Slot { id: at as u16, bytes, host };
                slots.end += 1;
            }
        };
        push(&mut slots, 0..10);
        let claimed = |slots: &Slots, count: usize| {
            let first = |ahead| {
                let host = slots.at(ahead).host;
                // SAFETY: a buffer of this test. The next claim is to be seen as this one was.
                unsafe { host.replace(7) }
            };
            (0..count).map(|ahead| u8::from(first(ahead) == 0)).collect::<Vec<_>>()
        };
        assert_eq!((slots.claim(3), claimed(&slots, 10)), (3, vec![1, 1, 1, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!((slots.claim(2), claimed(&slots, 4)), (2, vec![0; 4]));
        slots.pass(2);
        assert_eq!((slots.claim(5), claimed(&slots, 6)), (5, vec![0, 1, 0, 1, 1, 0]));
        slots.pass(8);
        assert_eq!(slots.claim(9), 0);
        push(&mut slots, 10..13);
        assert_eq!((slots.claim(9), claimed(&slots, 3)), (3, vec![1; 3]));
        // Used without having been claimed.
        push(&mut slots, 13..20);
        slots.pass(5);
        assert_eq!((slots.claim(1), claimed(&slots, 5)), (1, vec![1, 0, 0, 0, 0]));
    }
}
