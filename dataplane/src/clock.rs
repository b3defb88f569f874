//! Time as a worker sees it: cycles of the time-stamp counter, and whole seconds.
//!
//! Reading the counter costs a few nanoseconds and never enters the kernel.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// A point in time in cycles. Differences between two of one worker are meaningful.
#[inline(always)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has the instruction, and it has no effect on memory.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Turns cycles into seconds since some time before it was made. One is made at start and given to all workers.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    cycles_per_second: u64,
    /// What it showed when it was made.
    first: u32,
}

/// How long the counter's rate is measured at least.
const MEASURED: Duration = Duration::from_millis(20);

/// Measures the counter's rate against the kernel's clock while something else is done.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    start: u64,
    from: Instant,
}

impl Stopwatch {
    /// Begins to measure.
    pub fn start() -> Self {
        Self { start: cycles(), from: Instant::now() }
    }

    /// Ends it, not before 20 ms.
    #[expect(clippy::disallowed_methods, reason = "at start, on the control thread")]
    pub fn clock(self) -> Clock {
        let Self { start, from } = self;
        std::thread::sleep(MEASURED.saturating_sub(from.elapsed()));
        let (counted, took) = (cycles() - start, from.elapsed());
        let rate = u128::from(counted) * 1_000_000_000 / took.as_nanos().max(1);
        Clock { start, cycles_per_second: (rate as u64).max(1), first: 0 }
    }
}

impl Clock {
    /// Measures the counter's rate against the kernel's clock, for some 20 ms.
    pub fn calibrate() -> Self {
        Stopwatch::start().clock()
    }

    /// The same clock, as if it had been made so many seconds earlier: then what happened before
    /// this program was started has its place on it.
    pub fn set_on(self, seconds: u32) -> Self {
        Self { first: self.first + seconds, ..self }
    }

    /// Whole seconds that it shows.
    #[inline(always)]
    pub fn seconds(&self, cycles: u64) -> u32 {
        (cycles.saturating_sub(self.start) / self.cycles_per_second) as u32 + self.first
    }

    /// Cycles in a second.
    pub fn rate(&self) -> u64 {
        self.cycles_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_from_the_start() {
        let clock = Clock { start: 1000, cycles_per_second: 50, first: 0 };
        assert_eq!(clock.seconds(999), 0);
        assert_eq!(clock.seconds(1049), 0);
        assert_eq!(clock.seconds(1050), 1);
        assert_eq!(clock.set_on(300).seconds(1050), 301);
        assert!(Clock::calibrate().rate() > 1_000_000);
    }
}
