//! Guest → us: frames out of a transmitq (virtio 1.2 §5.1.6.2).

use super::chain::{CHAIN_BYTES_MAX, Walked};
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
        let lead = Lead::Header(self.header_bytes, self.left);
        let outcome = self.take_available(burst, lead);
        self.layout.mark();
        burst.settle(lead);
        // While a long burst is decided on and sent, what comes next comes over. Behind a short one
        // there is nothing.
        let outcome = match outcome {
            Ok(()) if burst.len() >= BURST_MAX / 2 => self.look_up(BURST_MAX, 0),
            outcome => outcome,
        };
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
    fn take_available(&mut self, burst: &mut Burst, lead: Lead) -> Result<(), Violation> {
        loop {
            self.look_up(BURST_MAX - burst.len(), 0)?;
            self.layout.prepare(self.slots.len(), 0);
            self.take_singles(burst, lead);
            if burst.is_full() {
                return Ok(());
            }
            // Where the next chain of a packed ring begins is known once this one has been walked.
            if (self.slots.len() == 0 && !L::POSITIONAL) || !self.take_walked(burst)? {
                return Ok(());
            }
        }
    }

    /// Takes frames as long as each is in one piece that is known and long enough. What nearly all
    /// frames pass.
    #[inline(always)]
    fn take_singles(&mut self, burst: &mut Burst, lead: Lead) {
        let lengths = self.header_bytes..=CHAIN_BYTES_MAX as u32;
        let singles = self.slots.iter().take_while(|slot| lengths.contains(&slot.bytes));
        let run = burst.push_singles(
            // SAFETY: `look_up` found the bytes in memory that the ring keeps mapped; the burst is
            // released before the ring is, which its lock's holder sees to.
            singles.map(|slot| unsafe { Segment::new(slot.host, slot.bytes) }),
            lead,
        );
        self.layout.take_singles(self.slots.iter().take(run).map(|slot| slot.id));
        self.slots.pass(run);
    }

    /// Puts a chain of any form into the burst; `false` if there is none, or if it has to wait for
    /// the next burst.
    #[inline(never)]
    fn take_walked(&mut self, burst: &mut Burst) -> Result<bool, Violation> {
        let mark = burst.mark();
        let taken = self.walk_frame(burst, mark);
        if taken != Ok(true) {
            // What was no frame leaves nothing in the burst.
            burst.rewind(mark);
        }
        taken
    }

    #[inline(always)]
    fn walk_frame(&mut self, burst: &mut Burst, mark: usize) -> Result<bool, Violation> {
        let place = self.layout.next();
        let Some(head) = self.layout.scouted(place)? else { return Ok(false) };
        let free = burst.segments_free();
        let Walked { bytes, pieces, chain } = self.walk(place, head, 0, |host, bytes| {
            // SAFETY: as in `take_singles`; `walk` translates each piece.
            burst.append(unsafe { Segment::new(host, bytes) });
        })?;
        if pieces > free {
            // The chain may fit an empty burst. If not even that, it is no frame.
            return if burst.is_empty() { Err(Violation::ChainBytes { bytes }) } else { Ok(false) };
        }
        self.check(bytes)?;
        burst.stage(mark, bytes as u32);
        self.layout.take(chain);
        self.slots.pass(1);
        Ok(true)
    }

    /// Whether a chain can be a frame behind its net header.
    #[inline(always)]
    fn check(&self, bytes: u64) -> Result<(), Violation> {
        if bytes < u64::from(self.header_bytes) {
            return Err(Violation::ShortHeader { bytes, header: self.header_bytes });
        }
        if bytes > CHAIN_BYTES_MAX {
            return Err(Violation::ChainBytes { bytes });
        }
        Ok(())
    }
}
