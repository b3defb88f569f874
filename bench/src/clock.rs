//! Time in the load generator's loop.
//!
//! The loop reads the time once an iteration, some ten million times a second, so it wants the
//! processor's time stamp counter where that counter is invariant, and the kernel's clock
//! elsewhere. It is not a wall clock: only differences mean anything.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A tick counter with a known rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: Source,
    ticks_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The time stamp counter; only chosen when it ticks at one rate in every power state.
    #[cfg(target_arch = "x86_64")]
    Counter,
    /// Nanoseconds since `origin`.
    Kernel { origin: Instant },
}

impl Clock {
    /// The machine's clock, calibrated against the kernel's once in the life of the process.
    pub fn of_machine() -> Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(Self::calibrate)
    }

    /// The present tick.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        match self.source {
            #[cfg(target_arch = "x86_64")]
            Source::Counter => time_stamp(),
            Source::Kernel { origin } => origin.elapsed().as_nanos() as u64,
        }
    }

    /// The present tick, read after everything before it in the program is done. [`Self::now`] may
    /// be read while the lines of the frame before it are still on their way.
    #[inline(always)]
    pub fn now_after(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction orders others and touches no memory; it is part of SSE2, which
        // every x86_64 processor has.
        unsafe {
            core::arch::x86_64::_mm_lfence();
        }
        self.now()
    }

    /// How many ticks a span of time is.
    pub fn ticks(&self, span: Duration) -> u64 {
        (span.as_secs_f64() * self.ticks_per_second) as u64
    }

    /// How many seconds a number of ticks is.
    pub fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_second
    }

    fn calibrate() -> Self {
        #[cfg(target_arch = "x86_64")]
        if counter_is_invariant() {
            let (began, first) = (Instant::now(), time_stamp());
            // 30 ms against a clock that is good to well under a microsecond: better than 0.01 %.
            while began.elapsed() < Duration::from_millis(30) {
                std::hint::spin_loop();
            }
            let (elapsed, last) = (began.elapsed(), time_stamp());
            let ticks_per_second = last.wrapping_sub(first) as f64 / elapsed.as_secs_f64();
            return Self { source: Source::Counter, ticks_per_second };
        }
        Self { source: Source::Kernel { origin: Instant::now() }, ticks_per_second: 1e9 }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn time_stamp() -> u64 {
    // SAFETY: the instruction reads a counter and touches no memory; every x86_64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether the counter's rate is independent of frequency and sleep states (CPUID 8000_0007h, EDX
/// bit 8); a counter that is not would turn every rate of the report into fiction.
#[cfg(target_arch = "x86_64")]
fn counter_is_invariant() -> bool {
    let highest = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    highest >= 0x8000_0007 && core::arch::x86_64::__cpuid(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slept_span_is_measured_in_seconds() {
        let clock = Clock::of_machine();
        let (began, first) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(20));
        let (kernel, ours) = (began.elapsed().as_secs_f64(), clock.seconds(clock.now() - first));
        assert!((ours / kernel - 1.0).abs() < 0.05, "{ours} s against the kernel's {kernel} s");
    }

    #[test]
    fn ticks_and_seconds_are_inverse() {
        let clock = Clock::of_machine();
        let seconds = clock.seconds(clock.ticks(Duration::from_millis(250)));
        assert!((seconds - 0.25).abs() < 1e-6, "{seconds}");
    }
}
