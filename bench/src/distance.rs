//! How far apart the two cores are at the moment: the round trip of one cache line between them.
//!
//! A hypervisor moves virtual cores between physical ones. On processors with several cache
//! clusters a line then takes 70 ns there and back, or 330 ns, and the state changes from second to
//! second; every switch's rate changes with it, by a factor of two and not all by the same. So the
//! distance is measured before and after each run, and runs are only compared within one state.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::Clock;
use crate::machine::{self, Cores};

/// Samples of which the fifth part is taken: less than the median, since whatever disturbs a sample
/// makes it longer.
const SAMPLES: usize = 100;
/// Round trips in a sample, which make 3 to 16 µs.
const TRIPS: u64 = 50;
/// Time for all samples, in case the other core is not to be had.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A line that the two cores throw to each other.
#[repr(align(128))]
#[derive(Default)]
struct Ball {
    /// Odd: it is the partner's turn.
    count: AtomicU64,
}

/// The round trip between the calling thread, which must be on the generator's core, and a thread on
/// the switch's core, in nanoseconds. Takes about 1 ms; `None` when the switch's core is not to be
/// had, for whatever else runs there.
pub fn round_trip_ns(cores: Cores) -> Result<Option<f64>> {
    let (ball, over) = (Ball::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let partner = scope.spawn(|| {
            let pinned = machine::pin(cores.switch);
            // Announces that it plays, or that there is no point in waiting.
            ball.count.store(2, Ordering::Release);
            while pinned.is_ok() && !over.load(Ordering::Relaxed) {
                let count = ball.count.load(Ordering::Acquire);
                if count & 1 == 1 {
                    ball.count.store(count + 1, Ordering::Release);
                }
            }
            pinned
        });
        let mut samples = play(&ball);
        over.store(true, Ordering::Relaxed);
        match partner.join() {
            Ok(pinned) => pinned.context("the partner on the switch's core")?,
            Err(_) => bail!("the partner on the switch's core panicked"),
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples.get(samples.len() / 5).map(|seconds| seconds * 1e9))
    })
}

/// Throws the ball until there are enough samples, or no time is left. Returns seconds a round trip,
/// one for each sample.
fn play(ball: &Ball) -> Vec<f64> {
    let clock = Clock::of_machine();
    let deadline = clock.now() + clock.ticks(TIMEOUT);
    let comes_back = |count: u64| loop {
        // The clock is read once in a while only, since that takes half as long as a near trip.
        for _ in 0..256 {
            if ball.count.load(Ordering::Acquire) == count {
                return true;
            }
        }
        if clock.now() > deadline {
            return false;
        }
    };
    let (mut samples, mut count) = (Vec::with_capacity(SAMPLES), 2);
    if !comes_back(count) {
        return samples;
    }
    while samples.len() < SAMPLES {
        let began = clock.now();
        for _ in 0..TRIPS {
            ball.count.store(count + 1, Ordering::Release);
            count += 2;
            if !comes_back(count) {
                return samples;
            }
        }
        samples.push(clock.seconds(clock.now() - began) / TRIPS as f64);
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_takes_between_ten_nanoseconds_and_ten_microseconds() {
        let cores = Cores { generator: 0, switch: 1 };
        if let Err(reason) = cores.check() {
            // A machine with one core has no distance; that this is said, is all there is to test.
            assert!(reason.to_string().contains("core"), "{reason}");
            return;
        }
        machine::pin(cores.generator).expect("core 0 was checked");
        let trip = round_trip_ns(cores).expect("both cores were checked");
        // On a machine that is busy with other tests there may be no answer in time.
        assert!(trip.is_none_or(|trip| (10.0..10_000.0).contains(&trip)), "{trip:?} ns");
    }
}
