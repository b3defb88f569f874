//! Which worker should poll which receive queue, by what each has cost lately. Pure.
//!
//! A move costs little, but is a change; so the plan begins with what is there and takes the step
//! that relieves the busiest worker most, a move or an exchange of two queues, until none helps.
//! A queue that is kept to some workers only goes to those.

/// What a step must take off the busiest worker to be worth it: a hundredth of its core.
const GAIN: f64 = 0.01;

/// A receive queue as the plan sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queue {
    /// The worker that has it.
    pub(crate) worker: usize,
    /// The share of a core that it takes, about 0 to 1.
    pub(crate) share: f64,
    /// The workers that may have it, one at least.
    pub(crate) allowed: Vec<usize>,
}

/// What each of `workers` workers does with these queues, as shares of its core.
pub(crate) fn shares(workers: usize, queues: &[Queue]) -> Vec<f64> {
    let mut shares = vec![0.0; workers];
    for queue in queues {
        shares[queue.worker] += queue.share;
    }
    shares
}

/// Changes the queues' workers for the better.
pub(crate) fn balance(workers: usize, queues: &mut [Queue]) {
    for queue in &mut *queues {
        if !queue.allowed.contains(&queue.worker) {
            queue.worker = queue.allowed[0];
        }
    }
    // Each step takes a hundredth of a core off the busiest worker, so this ends long before.
    for _ in 0..100 * (queues.len() + 1) {
        let Some(step) = best_step(&shares(workers, queues), queues) else { return };
        for (queue, worker) in step {
            queues[queue].worker = worker;
        }
    }
}

/// The queues to be given to other workers next.
fn best_step(shares: &[f64], queues: &[Queue]) -> Option<Vec<(usize, usize)>> {
    let busiest = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]))?;
    let may = |queue: &Queue, worker: usize| queue.allowed.contains(&worker);
    let mut best = (shares[busiest] - GAIN, None);
    // Of the two workers that a step concerns, the busier one afterwards is what counts.
    let mut consider = |from: f64, to: f64, step: Vec<(usize, usize)>| {
        let after = from.max(to);
        if after < best.0 {
            best = (after, Some(step));
        }
    };
    let of = |worker: usize| move |(_, queue): &(usize, &Queue)| queue.worker == worker;
    for (at, queue) in queues.iter().enumerate().filter(of(busiest)) {
        for worker in (0..shares.len()).filter(|worker| *worker != busiest && may(queue, *worker)) {
            let (from, to) = (shares[busiest] - queue.share, shares[worker] + queue.share);
            consider(from, to, vec![(at, worker)]);
            for (other_at, other) in queues.iter().enumerate().filter(of(worker)) {
                if may(other, busiest) {
                    let step = vec![(at, worker), (other_at, busiest)];
                    consider(from + other.share, to - other.share, step);
                }
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Queues that any of `workers` may have, from (worker, share).
    fn queues(workers: usize, of: &[(usize, f64)]) -> Vec<Queue> {
        let queue = |&(worker, share)| Queue { worker, share, allowed: (0..workers).collect() };
        of.iter().map(queue).collect()
    }

    fn balanced(workers: usize, of: &[(usize, f64)]) -> (Vec<usize>, Vec<f64>) {
        let mut queues = queues(workers, of);
        balance(workers, &mut queues);
        let shares = shares(workers, &queues);
        let rounded = shares.iter().map(|share| (share * 100.0).round() / 100.0);
        (queues.iter().map(|queue| queue.worker).collect(), rounded.collect())
    }

    #[test]
    fn what_is_even_stays() {
        let (places, _) = balanced(2, &[(0, 0.3), (1, 0.3), (0, 0.0), (0, 0.0), (0, 0.0)]);
        assert_eq!(places, [0, 1, 0, 0, 0], "idle queues are no reason to move");
        let (places, _) = balanced(2, &[(0, 0.304), (1, 0.3)]);
        assert_eq!(places, [0, 1]);
        assert_eq!(balanced(1, &[(0, 0.9), (0, 0.1)]).0, [0, 0]);
        assert_eq!(balanced(3, &[]).0, [0; 0]);
    }

    #[test]
    fn the_busiest_worker_gives() {
        let (places, shares) = balanced(2, &[(0, 0.4), (0, 0.4)]);
        assert_eq!(shares, [0.4, 0.4]);
        assert_ne!(places[0], places[1]);
        let of = [(0, 0.2), (0, 0.2), (0, 0.2), (0, 0.1), (0, 0.1), (0, 0.2)];
        let (_, shares) = balanced(3, &of);
        assert_eq!(shares.iter().copied().fold(0.0, f64::max), 0.4, "{shares:?}");
    }

    #[test]
    fn two_queues_change_places_where_no_move_helps() {
        // Moving 0.4 would make 0.5 and 1.0 of it.
        let (_, shares) = balanced(2, &[(0, 0.5), (0, 0.4), (1, 0.3), (1, 0.3)]);
        assert_eq!(shares.iter().copied().fold(0.0, f64::max), 0.8, "{shares:?}");
    }

    #[test]
    fn a_queue_stays_where_it_is_kept() {
        let mut kept = queues(2, &[(0, 0.4), (0, 0.4), (1, 0.1)]);
        kept[0].allowed = vec![0];
        kept[1].allowed = vec![0];
        balance(2, &mut kept);
        assert_eq!(shares(2, &kept), [0.8, 0.1]);
        kept[1].allowed = vec![1];
        balance(2, &mut kept);
        assert_eq!(kept[1].worker, 1, "even where it was not before");
    }

    proptest! {
        #[test]
        fn nobody_gets_busier_than_the_busiest_was(
            workers in 1_usize..5,
            of in prop::collection::vec((0_usize..5, 0.0..0.5_f64), 0..20),
        ) {
            let of: Vec<_> = of.into_iter().map(|(at, share)| (at % workers, share)).collect();
            let mut after = queues(workers, &of);
            let max = |queues: &[Queue]| shares(workers, queues).into_iter().fold(0.0, f64::max);
            let (before, sum) = (max(&after), shares(workers, &after).iter().sum::<f64>());
            balance(workers, &mut after);
            prop_assert!(max(&after) <= before + 1e-9);
            // The usual bound for such plans: no worker has more than its part and one queue.
            let largest = of.iter().map(|(_, share)| *share).fold(0.0, f64::max);
            prop_assert!(max(&after) <= sum / workers as f64 + largest + GAIN + 1e-9);
            let again = after.clone();
            balance(workers, &mut after);
            prop_assert_eq!(after, again, "a plan that was carried out is followed by none");
        }
    }
}
