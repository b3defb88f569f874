//! Guest → us: frames out of a transmitq (virtio 1.2 §5.1.6.2).

use super::chain::{INDIRECT, NEXT, WRITE, Walked};
use super::{RingCounters, Violation, Vring, count};
use crate::burst::{BURST_MAX, Burst, Segment};
use crate::copy::prefetch;

impl Vring {
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
        debug_assert!(burst.is_empty() && self.taken == 0, "the last burst was released");
        if self.broken {
            return Ok(());
        }
        let outcome = self.stage_available(burst);
        burst.settle(self.header_bytes);
        self.broken = outcome.is_err();
        if !self.enabled {
            // Vhost-user, "Ring states": a disabled transmitq is processed without effect.
            count(&counters.discarded, burst.len() as u64);
            self.complete(counters);
            burst.clear();
        }
        outcome
    }

    /// Gives the chains of the last [`dequeue`](Self::dequeue) back to the driver.
    #[inline]
    pub(crate) fn complete(&mut self, counters: &RingCounters) {
        for at in 0..self.taken {
            self.use_chain(self.heads[at], 0);
        }
        self.taken = 0;
        self.publish(counters);
    }

    #[inline(always)]
    fn stage_available(&mut self, burst: &mut Burst) -> Result<(), Violation> {
        let available = self.refresh(1)?;
        let take = usize::from(available).min(BURST_MAX);
        self.prefetch_used(take);
        for at in 0..take {
            let head = self.available_entry(self.next_available.wrapping_add(at as u16));
            self.heads[at] = head;
            prefetch(self.descriptor_address(head));
        }
        for at in 0..take {
            if !self.stage_chain(self.heads[at], burst)? {
                break;
            }
            self.next_available = self.next_available.wrapping_add(1);
            self.taken += 1;
        }
        Ok(())
    }

    /// Puts one chain into the burst; `false` if it has to wait for the next burst.
    #[inline(always)]
    fn stage_chain(&mut self, head: u16, burst: &mut Burst) -> Result<bool, Violation> {
        let first = self.descriptor(head)?;
        let mark = burst.mark();
        let bytes = if first.flags & (NEXT | INDIRECT | WRITE) == 0
            && let Some(host) =
                self.memory.translate(first.address, u64::from(first.bytes), &mut self.hint)
        {
            if burst.segments_free() == 0 {
                return Ok(false);
            }
            // SAFETY: `translate` found the bytes in memory that the ring keeps mapped; the burst
            // is released before the ring is, which its lock's holder sees to.
            burst.append(unsafe { Segment::new(host, first.bytes) });
            u64::from(first.bytes)
        } else {
            let free = burst.segments_free();
            let Walked { bytes, pieces } = self.walk(first, 0, |host, bytes| {
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
            bytes
        };
        if bytes < u64::from(self.header_bytes) {
            return Err(Violation::ShortHeader { bytes, header: self.header_bytes });
        }
        if bytes > super::chain::CHAIN_BYTES_MAX {
            return Err(Violation::ChainBytes { bytes });
        }
        burst.stage(mark, bytes as u32);
        Ok(true)
    }
}
