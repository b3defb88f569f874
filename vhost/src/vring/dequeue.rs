//! Guest → us: frames out of a transmitq (virtio 1.2 §5.1.6.2).

use super::chain::{Head, INDIRECT, NEXT, WRITE, Walked};
use super::layout::Layout;
use super::ring::Ring;
use super::{RingCounters, Violation, count};
use crate::burst::{BURST_MAX, Burst, Lead, Segment};

impl<L: Layout> Ring<L> {
    /// See [`Vring::dequeue`](super::Vring::dequeue).
    #[inline]
    pub(super) fn dequeue(
        &mut self,
        burst: &mut Burst,
        counters: &RingCounters,
    ) -> Result<(), Violation> {
        debug_assert!(burst.is_empty() && self.layout.taken() == 0, "the last burst was released");
        if self.broken {
            return Ok(());
        }
        let outcome = self.stage_available(burst);
        burst.settle(Lead::Header(self.header_bytes, self.left));
        self.broken = outcome.is_err();
        if !self.enabled && self.waiting > 0 {
            // What the driver sent while it might is sent: a guest that uses fewer queues from now
            // on loses nothing of what was in those that it gives up.
            self.waiting = self.waiting.saturating_sub(self.layout.taken() as u16);
        } else if !self.enabled {
            // Vhost-user, "Ring states": a disabled transmitq is processed without effect.
            count(&counters.discarded, burst.len() as u64);
            self.complete(counters);
            burst.clear();
        }
        outcome
    }

    /// See [`Vring::complete`](super::Vring::complete).
    #[inline]
    pub(super) fn complete(&mut self, counters: &RingCounters) {
        self.layout.complete();
        self.publish(counters);
    }

    #[inline(always)]
    fn stage_available(&mut self, burst: &mut Burst) -> Result<(), Violation> {
        for _ in 0..self.layout.scout(BURST_MAX, 0)? {
            let Some(head) = self.layout.scouted(self.layout.next())? else { break };
            if !self.stage_chain(head, burst)? {
                break;
            }
        }
        Ok(())
    }

    /// Puts one chain into the burst; `false` if it has to wait for the next burst.
    #[inline(always)]
    fn stage_chain(&mut self, head: Head, burst: &mut Burst) -> Result<bool, Violation> {
        let first = head.first;
        let mark = burst.mark();
        let (bytes, chain) = if first.flags & (NEXT | INDIRECT | WRITE) == 0
            && let Some(host) =
                self.memory.translate(first.address, u64::from(first.bytes), &mut self.hint)
        {
            if burst.segments_free() == 0 {
                return Ok(false);
            }
            // SAFETY: `translate` found the bytes in memory that the ring keeps mapped; the burst
            // is released before the ring is, which its lock's holder sees to.
            burst.append(unsafe { Segment::new(host, first.bytes) });
            (u64::from(first.bytes), L::chain(head, first, 1))
        } else {
            let free = burst.segments_free();
            let place = self.layout.next();
            let Walked { bytes, pieces, chain } = self.walk(place, head, 0, |host, bytes| {
                // SAFETY: as above; `walk` translates each piece.
                burst.append(unsafe { Segment::new(host, bytes) });
            })?;
            if pieces > free {
                burst.rewind(mark);
                // The chain may fit an empty burst. If not even that, it is no frame.
                return if burst.is_empty() {
                    Err(Violation::ChainBytes { bytes })
                } else {
                    Ok(false)
                };
            }
            (bytes, chain)
        };
        if bytes < u64::from(self.header_bytes) {
            return Err(Violation::ShortHeader { bytes, header: self.header_bytes });
        }
        if bytes > super::chain::CHAIN_BYTES_MAX {
            return Err(Violation::ChainBytes { bytes });
        }
        burst.stage(mark, bytes as u32);
        self.layout.take(chain);
        Ok(true)
    }
}
