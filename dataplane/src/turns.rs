//! How many bursts of a queue have their turn one after the other.
//!
//! Every queue has a turn in each iteration, and in most of these nothing is there: the looks at quiet
//! queues are all that many ports cost the few that are busy. So a queue whose burst was full goes on for
//! up to [`MORE`] others, if the queues that were quiet in the iteration before leave so many to each that
//! was full: one for every [`QUIET`] of them. What takes long as it is, as long frames do, has its one burst.
//! So an iteration has at most a sixteenth more bursts than there are queues, and what comes in by a quiet
//! queue waits for one iteration at most.

use vhost::{BURST_MAX, Frames};

/// Looks at quiet queues that are worth one burst: they take about a twentieth of its time.
const QUIET: usize = 16;

/// The most further bursts of a queue in one turn.
const MORE: usize = 3;

/// Bytes of a burst that takes so long that looks at quiet queues are nothing beside it.
const LONG: u64 = 64 * 2048;

/// See the [module's head](self).
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Further bursts that a queue may have in a turn.
    each: usize,
    /// Further bursts that there may be in what is left of this iteration.
    left: usize,
    /// Queues that had frames in this iteration.
    busy: usize,
    /// Those of them whose first burst was full, and not long.
    full: usize,
}

impl Turns {
    /// Whether a queue goes on that has had so many bursts in its turn, of which these frames were the last.
    #[inline(always)]
    pub fn goes_on(&mut self, bursts: usize, frames: Frames<'_>) -> bool {
        self.go_on(bursts, is_full(frames.len(), frames.bytes()))
    }

    #[inline(always)]
    fn go_on(&mut self, bursts: usize, full: bool) -> bool {
        if bursts == 1 {
            self.busy += 1;
            self.full += usize::from(full);
        }
        let more = full && bursts <= self.each && self.left > 0;
        self.left -= usize::from(more);
        more
    }

    /// Ends an iteration over so many queues.
    #[inline(always)]
    pub fn end(&mut self, queues: usize) {
        self.left = (queues - self.busy) / QUIET;
        let each = if self.full < 2 { self.left } else { self.left / self.full };
        self.each = each.min(MORE);
        (self.busy, self.full) = (0, 0);
    }
}

/// Whether a burst of so many frames, with so many bytes, is full and not long.
#[inline(always)]
const fn is_full(frames: usize, bytes: u64) -> bool {
    frames == BURST_MAX && bytes < LONG
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bursts each queue has in an iteration, if so many frames wait.
    fn iterate(turns: &mut Turns, waiting: &[usize]) -> Vec<usize> {
        let bursts = waiting.iter().map(|waiting| {
            let (mut rest, mut bursts) = (*waiting, 0);
            while rest > 0 {
                let frames = rest.min(BURST_MAX);
                rest -= frames;
                bursts += 1;
                if !turns.go_on(bursts, is_full(frames, 64 * frames as u64)) {
                    break;
                }
            }
            bursts
        });
        let bursts = bursts.collect();
        turns.end(waiting.len());
        bursts
    }

    /// The bursts of some of 64 queues, if so many frames wait at these.
    fn bursts(busy: &[usize]) -> Vec<usize> {
        let mut waiting = [0; 64];
        waiting[..busy.len()].copy_from_slice(busy);
        let mut turns = Turns::default();
        // What was the first time is known the second time.
        iterate(&mut turns, &waiting);
        let mut bursts = iterate(&mut turns, &waiting);
        bursts.truncate(busy.len());
        bursts
    }

    #[test]
    fn full_bursts_take_the_turns_of_the_quiet() {
        assert_eq!(bursts(&[63]), [1]);
        assert_eq!(bursts(&[64]), [1]);
        assert_eq!(bursts(&[100]), [2]);
        assert_eq!(bursts(&[1000]), [4]);
        assert_eq!(bursts(&[1000, 1]), [4, 1]);
        assert_eq!(bursts(&[1000, 1000]), [2, 2]);
        assert_eq!(bursts(&[1000; 4]), [1; 4]);
        assert_eq!(bursts(&[1000; 64]), [1; 64]);
        // However many are quiet, nobody has more than four bursts in a turn.
        let mut turns = Turns::default();
        iterate(&mut turns, &[0; 1000]);
        let all = iterate(&mut turns, &[9999; 1000]);
        assert_eq!(all[..20], [4; 20]);
        assert_eq!(all.iter().sum::<usize>(), 1000 + 62);
    }

    #[test]
    fn long_bursts_are_not_full() {
        assert!(is_full(BURST_MAX, 64 * 1514) && !is_full(BURST_MAX - 1, 64 * 60));
        assert!(!is_full(BURST_MAX, 64 * 2048));
    }

    #[test]
    fn what_was_left_is_given_away_once() {
        let mut turns = Turns::default();
        let mut waiting = [0; 64];
        waiting[7] = 1000;
        iterate(&mut turns, &waiting);
        let bursts = iterate(&mut turns, &[1000; 64]);
        assert_eq!(bursts[0], 4);
        assert_eq!(bursts[1..], [1; 63]);
        assert_eq!(iterate(&mut turns, &[1000; 64]), [1; 64]);
    }

    proptest! {
        #[test]
        fn an_iteration_is_bounded_and_serves_everyone(
            iterations in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![4 => Just(0), 1 => 1usize..1000], 0..200),
                1..5,
            ),
        ) {
            let mut turns = Turns::default();
            let mut quiet = 0;
            for waiting in iterations {
                let bursts = iterate(&mut turns, &waiting);
                let served = |(waiting, bursts): (&usize, &usize)| (*waiting > 0) == (*bursts > 0);
                prop_assert!(waiting.iter().zip(&bursts).all(served));
                let busy = waiting.iter().filter(|waiting| **waiting > 0).count();
                prop_assert!(bursts.iter().sum::<usize>() <= busy + quiet / QUIET);
                quiet = waiting.len() - busy;
            }
        }
    }
}
