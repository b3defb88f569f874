//! What a receive queue costs: its counters, and what they said some seconds ago.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::counters::RxqCounters;

/// Seconds after which the counters are noted again. What is told is of one to two times as many.
const INTERVAL_SECONDS: u64 = 5;

/// See the [module's head](self).
pub(crate) struct Load {
    counters: Arc<RxqCounters>,
    /// The counters as they were noted last, and the time before.
    noted: [Noted; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    /// When, by the time-stamp counter.
    at: u64,
    cycles: u64,
    frames: u64,
    bursts: u64,
}

/// What a queue did over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    /// Cycles of the time-stamp counter that passed.
    pub(crate) passed: u64,
    /// Those that the queue took.
    pub(crate) cycles: u64,
    pub(crate) frames: u64,
    pub(crate) bursts: u64,
}

impl Load {
    /// A queue that was just made.
    pub(crate) fn new(counters: Arc<RxqCounters>) -> Self {
        let now = Noted { at: dataplane::clock::cycles(), ..Noted::default() };
        Self { counters, noted: [now; 2] }
    }

    /// Notes the counters if that is due. `rate` is in cycles a second.
    pub(crate) fn observe(&mut self, now: u64, rate: u64) {
        if now.saturating_sub(self.noted[0].at) >= INTERVAL_SECONDS * rate {
            self.noted = [self.read(now), self.noted[0]];
        }
    }

    /// What the queue did since the last but one note.
    pub(crate) fn recent(&self, now: u64) -> Recent {
        let (now, then) = (self.read(now), self.noted[1]);
        Recent {
            passed: now.at.saturating_sub(then.at),
            cycles: now.cycles - then.cycles,
            frames: now.frames - then.frames,
            bursts: now.bursts - then.bursts,
        }
    }

    /// Frames since the queue was made.
    pub(crate) fn frames(&self) -> u64 {
        self.counters.frames.load(Ordering::Relaxed)
    }

    fn read(&self, at: u64) -> Noted {
        let RxqCounters { cycles, frames, bursts } = &*self.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Noted { at, cycles: read(cycles), frames: read(frames), bursts: read(bursts) }
    }
}

impl Recent {
    /// The share of a core that the queue took.
    pub(crate) fn share(&self) -> f64 {
        if self.passed == 0 { 0.0 } else { self.cycles as f64 / self.passed as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_of_the_last_seconds() {
        let counters = Arc::new(RxqCounters::default());
        let mut load = Load::new(Arc::clone(&counters));
        let start = load.noted[0].at;
        let at = |seconds: u64| start + seconds * 1000;
        let work = |cycles, frames| {
            counters.cycles.fetch_add(cycles, Ordering::Relaxed);
            counters.frames.fetch_add(frames, Ordering::Relaxed);
            counters.bursts.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(load.recent(start).share(), 0.0);
        work(2000, 100);
        load.observe(at(4), 1000);
        assert_eq!(
            load.recent(at(4)),
            Recent { passed: 4000, cycles: 2000, frames: 100, bursts: 1 }
        );
        assert_eq!(load.recent(at(4)).share(), 0.5);
        // Notes are taken every five seconds; after two of them the work is out of sight.
        for seconds in [5, 6, 10] {
            load.observe(at(seconds), 1000);
        }
        assert_eq!(load.recent(at(11)).frames, 0);
        work(100, 7);
        assert_eq!(load.recent(at(11)), Recent { passed: 6000, cycles: 100, frames: 7, bursts: 1 });
        assert_eq!(load.frames(), 107);
    }
}
