//! Timers that go off together: with many guests, each of whom is looked after ten times a second or
//! more, the control thread wakes as often as with one.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Ticks at once, and then at times that all beats of this process share whose periods divide each
/// other. What is missed is left out. Needs a runtime.
pub(crate) fn beat(period: Duration) -> Interval {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let mut beat = interval_at(last(*FIRST.get_or_init(|| now), now, period), period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beat
}

/// The last time by `now` that is whole periods after the first.
fn last(first: Instant, now: Instant, period: Duration) -> Instant {
    let since = now.saturating_duration_since(first).as_nanos();
    let past = since % period.as_nanos().max(1);
    // Less than a period, which was given as a duration.
    now.checked_sub(Duration::from_nanos(past as u64)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_whole_periods_after_the_first() {
        let first = Instant::now();
        let ms = Duration::from_millis;
        let last = |at: Duration, period| last(first, first + at, period) - first;
        assert_eq!(last(ms(0), ms(50)), ms(0));
        assert_eq!(last(ms(49), ms(50)), ms(0));
        assert_eq!(last(ms(150), ms(50)), ms(150));
        assert_eq!(last(ms(1_000_000_199), ms(100)), ms(1_000_000_100));
        assert_eq!(last(Duration::from_nanos(7), Duration::from_nanos(2)), Duration::from_nanos(6));
    }

    #[tokio::test]
    async fn beats_that_begin_apart_tick_together() {
        let period = Duration::from_millis(20);
        let mut one = beat(period);
        one.tick().await;
        tokio::time::sleep(Duration::from_millis(7)).await;
        let mut other = beat(period);
        let began = Instant::now();
        // The first tick is at once, for what has been.
        assert!(other.tick().await <= began);
        let (one, other) = (one.tick().await, other.tick().await);
        let apart = other.duration_since(one).max(one.duration_since(other)).as_nanos();
        assert_eq!(apart % period.as_nanos(), 0);
    }
}
