//! When frames are due: at equal distances from the first, whatever happens meanwhile.
//!
//! A sender that waits until the switch has room, and counts from then, leaves out just the waiting
//! that its frames would have had. So a frame's time is a function of its number alone, and what a
//! stalled sender sends late is late.

/// Fractions of a tick are kept to this many bits: an interval of 250 ticks is exact to 10^-7.
const FRACTION_BITS: u32 = 16;

/// The times, in ticks of the clock, at which the frames of one direction are due.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    began: u64,
    /// Between two frames, in ticks with [`FRACTION_BITS`] binary places.
    interval: u64,
}

impl Pace {
    /// One frame each `interval_ticks`, the first at `began`.
    pub fn new(began: u64, interval_ticks: f64) -> Self {
        let interval = interval_ticks * f64::from(1 << FRACTION_BITS);
        Self { began, interval: (interval as u64).max(1) }
    }

    /// When a frame is due, counted from 0.
    #[inline(always)]
    pub fn due_at(&self, frame: u64) -> u64 {
        self.began + ((frame * self.interval) >> FRACTION_BITS)
    }

    /// How many frames from number `next` on are due by `now`, at most `most`.
    #[inline(always)]
    pub fn overdue(&self, next: u64, now: u64, most: usize) -> usize {
        let mut frames = 0;
        while frames < most && self.due_at(next + frames as u64) <= now {
            frames += 1;
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_one_by_one() {
        let pace = Pace::new(1_000, 250.0);
        assert_eq!([0, 1, 2].map(|frame| pace.due_at(frame)), [1_000, 1_250, 1_500]);
        assert_eq!(pace.overdue(0, 999, 32), 0);
        assert_eq!(pace.overdue(0, 1_000, 32), 1);
        assert_eq!(pace.overdue(1, 1_249, 32), 0);
        assert_eq!(pace.overdue(1, 1_250, 32), 1);
    }

    #[test]
    fn what_was_held_up_is_due_at_once_and_at_its_old_time() {
        let pace = Pace::new(1_000, 250.0);
        // Frames 0 and 1 are out; then nothing could be sent for 40 intervals.
        let now = pace.due_at(41);
        assert_eq!(pace.overdue(2, now, 32), 32);
        assert_eq!(pace.overdue(34, now, 32), 8);
        assert_eq!(pace.overdue(42, now, 32), 0);
        assert_eq!(now - pace.due_at(2), 39 * 250);
    }

    #[test]
    fn fractions_of_a_tick_do_not_add_up() {
        let pace = Pace::new(0, 270.27);
        let frames = 10_000_000;
        assert!((pace.due_at(frames) as f64 / (frames as f64 * 270.27) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_rate_beyond_the_clocks_is_bounded_by_the_burst() {
        assert_eq!(Pace::new(0, 0.0).overdue(0, 1, 32), 32);
    }
}
