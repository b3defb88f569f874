//! From runs to results: ratios to the reference, by the state that the machine was in.
//!
//! Each run of a switch stands between two runs of the reference and is divided by their geometric
//! mean. Such a ratio only counts when the distance between the two cores (see `distance`) was the
//! same before, between and after the three; then it belongs to the state that this distance stands
//! for, and what is reported is the median of each state.

use serde::{Deserialize, Serialize};

use crate::generator::{Run, quartiles};
use crate::guest::Faults;
use crate::latency;
use crate::scenario::Scenario;

/// Distances that differ by more than this factor were not measured in one state: within one they
/// repeat to a tenth or so.
const SAME_STATE: f64 = 1.35;
/// Round trips below this many nanoseconds are [`State::Close`].
const CLOSE_NS: f64 = 90.0;
/// Round trips above this many nanoseconds are [`State::Far`].
const FAR_NS: f64 = 200.0;

/// The name of the switch that all others are compared with.
pub const REFERENCE: &str = "testpmd";

/// The name of the switch that does nothing but copy.
pub const BOUND: &str = "copy";

/// How far apart generator and switch were, by a cache line's round trip.
///
/// The classes are those that a virtual machine on an AMD EPYC was seen in (65 to 85, 100 to 130 and
/// 320 to 350 ns). A machine that knows only one has all its results in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Below 90 ns.
    Close,
    /// Between.
    Near,
    /// Above 200 ns.
    Far,
    /// It changed under way, or is not known.
    Mixed,
}

impl State {
    /// All states, best first.
    pub const ALL: [Self; 4] = [Self::Close, Self::Near, Self::Far, Self::Mixed];

    /// What the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Near => "near",
            Self::Far => "far",
            Self::Mixed => "mixed",
        }
    }

    /// The state in which several distances were measured.
    pub fn of(distances: &[Option<f64>]) -> Self {
        let known: Option<Vec<f64>> = distances.iter().copied().collect();
        let [low, middle, high] = match known.map(|mut known| {
            known.sort_by(f64::total_cmp);
            known
        }) {
            Some(known) if !known.is_empty() => {
                [known[0], known[known.len() / 2], known[known.len() - 1]]
            }
            _ => return Self::Mixed,
        };
        if high > low * SAME_STATE {
            Self::Mixed
        } else if middle < CLOSE_NS {
            Self::Close
        } else if middle <= FAR_NS {
            Self::Near
        } else {
            Self::Far
        }
    }
}

/// A switch that took part in a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// How it was started.
    pub command: String,
    /// Ports that it had.
    pub ports: u16,
    /// Whether the guests' memory was on 2 MiB pages.
    pub huge_pages: bool,
    /// Everything wrong that it did, from its first frame on, warm-up included.
    pub faults: Faults,
    /// Turns in which hardly anything was delivered, which were repeated: for each, how long after
    /// it the next frame came.
    pub stalls_seconds: Vec<f64>,
    /// How often its rules were replaced, if that was measured of it.
    pub swaps: Option<Swaps>,
}

/// Replacements of rules under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Swaps {
    /// How often other rules were asked for.
    pub ordered: u64,
    /// How many changes of the rules in force the guests have seen, at least, by frames that only one of
    /// three sets permits. Changes between the other two stay unseen, and those that are overtaken by
    /// the next.
    pub seen: u64,
}

/// A switch's run.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Which of the scenario's entrants; 0 is the reference.
    pub entrant: usize,
    /// The distance between the cores before and after, as a round trip in nanoseconds.
    pub round_trip_ns: [Option<f64>; 2],
    /// What it gave.
    pub run: Run,
}

/// One scenario's runs.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub scenario: Scenario,
    /// Who took part; the reference first.
    pub entrants: Vec<Entrant>,
    /// All runs in the order of time. Right before and after each is one of the reference.
    pub turns: Vec<Turn>,
    /// Runs at fixed rates, after those, if latency was measured.
    pub latency: Vec<latency::Turn>,
}

/// What a switch did in a scenario while the machine was in one state.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// The switch's name.
    pub switch: String,
    /// The machine's state.
    pub state: State,
    /// The runs' median distance between the cores, as a round trip in nanoseconds.
    pub round_trip_ns: Option<f64>,
    /// How many runs this is from.
    pub runs: usize,
    /// Median rate, in million frames delivered a second.
    pub mpps: f64,
    /// The same in gigabits a second, from the destination address to the end of the payload.
    pub gbps: f64,
    /// Lower quartile, median and upper quartile of the ratios to the reference.
    pub ratio: [f64; 3],
    /// The median ratio over that of the copy without switching, in the same state.
    pub of_bound: Option<f64>,
    /// Share of the frames sent that never arrived.
    pub lost: f64,
    /// What was wrong with what arrived.
    pub faults: Faults,
    /// The runs' median share of time in which the generator was idle.
    pub generator_idle: f64,
    /// The runs' median share of time in which the generator had no core.
    pub generator_waited: f64,
}

impl Outcome {
    /// All results: for each entrant, each state that it was seen in.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut summaries = Vec::new();
        for entrant in 0..self.entrants.len() {
            for state in State::ALL {
                summaries.extend(self.summary(entrant, state));
            }
        }
        summaries
    }

    fn summary(&self, entrant: usize, state: State) -> Option<Summary> {
        let ratios = self.ratios(entrant, state);
        let ratio = quartiles(ratios.iter().map(|(_, ratio)| *ratio).collect())?;
        let runs: Vec<&Run> = ratios.iter().map(|(turn, _)| &self.turns[*turn].run).collect();
        let bound = self.entrants.iter().position(|entrant| entrant.name == BOUND);
        let bound = bound.and_then(|bound| {
            let ratios = self.ratios(bound, state);
            quartiles(ratios.into_iter().map(|(_, ratio)| ratio).collect())
        });
        let distances = ratios.iter().flat_map(|(turn, _)| self.turns[*turn].round_trip_ns);
        let sent: u64 = runs.iter().map(|run| run.sent).sum();
        let lost: i64 = runs.iter().map(|run| run.lost).sum();
        let mut faults = Faults::default();
        runs.iter().for_each(|run| faults += run.faults);
        let median = |of: fn(&Run) -> f64| {
            quartiles(runs.iter().map(|run| of(run)).collect()).map_or(0.0, |[_, median, _]| median)
        };
        Some(Summary {
            scenario: self.scenario.name.clone(),
            switch: self.entrants[entrant].name.clone(),
            state,
            round_trip_ns: quartiles(distances.flatten().collect()).map(|[_, median, _]| median),
            runs: runs.len(),
            mpps: median(|run| run.mpps),
            gbps: median(|run| run.mpps) * self.scenario.mean_frame() * 8.0 / 1e3,
            ratio,
            of_bound: bound.map(|[_, bound, _]| ratio[1] / bound),
            lost: lost.max(0) as f64 / sent.max(1) as f64,
            faults,
            generator_idle: median(|run| run.generator_idle),
            generator_waited: median(|run| run.generator_waited),
        })
    }

    /// An entrant's turns in a state, with their ratios to the reference's on both sides. The
    /// reference's own are 1.
    fn ratios(&self, entrant: usize, state: State) -> Vec<(usize, f64)> {
        let mut ratios = Vec::new();
        for (index, turn) in self.turns.iter().enumerate().filter(|(_, t)| t.entrant == entrant) {
            let (ratio, distances) = if entrant == 0 {
                (1.0, turn.round_trip_ns.to_vec())
            } else {
                let around = [&self.turns[index - 1], &self.turns[index + 1]];
                let reference = (around[0].run.mpps * around[1].run.mpps).sqrt();
                let distances =
                    [around[0].round_trip_ns, turn.round_trip_ns, around[1].round_trip_ns];
                (turn.run.mpps / reference, distances.concat())
            };
            if State::of(&distances) == state {
                ratios.push((index, ratio));
            }
        }
        ratios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(entrant: usize, mpps: f64, before: f64, after: f64) -> Turn {
        let run = Run {
            mpps,
            mpps_quartiles: [mpps; 2],
            sent: 1000,
            lost: 10,
            faults: Faults { corrupt: 1, ..Faults::default() },
            flooded: 0,
            burst: 32.0,
            generator_idle: 0.2,
            generator_waited: 0.0,
            kicks: 0,
        };
        let known = |ns: f64| (ns > 0.0).then_some(ns);
        Turn { entrant, round_trip_ns: [known(before), known(after)], run }
    }

    fn outcome(turns: Vec<Turn>) -> Outcome {
        let entrants = ["testpmd", "copy", "x"].map(|name| Entrant {
            name: name.to_owned(),
            command: String::new(),
            ports: 2,
            huge_pages: true,
            faults: Faults::default(),
            stalls_seconds: Vec::new(),
            swaps: None,
        });
        let (scenario, entrants) = (Scenario::one_way("s", 64), entrants.to_vec());
        Outcome { scenario, entrants, turns, latency: Vec::new() }
    }

    fn of<'a>(summaries: &'a [Summary], switch: &str, state: State) -> Option<&'a Summary> {
        summaries.iter().find(|summary| summary.switch == switch && summary.state == state)
    }

    #[test]
    fn a_state_is_steady_or_none() {
        let of = |distances: &[f64]| {
            State::of(&distances.iter().map(|ns| Some(*ns)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[66.0, 79.0, 70.0]), State::Close);
        assert_eq!(of(&[112.0, 130.0]), State::Near);
        assert_eq!(of(&[163.0]), State::Near);
        assert_eq!(of(&[320.0, 360.0]), State::Far);
        assert_eq!(of(&[79.0, 118.0]), State::Mixed);
        assert_eq!(of(&[]), State::Mixed);
        assert_eq!(State::of(&[Some(70.0), None]), State::Mixed);
    }

    #[test]
    fn a_ratio_is_to_the_geometric_mean_of_its_neighbours() {
        let turns = vec![
            turn(0, 4.0, 70.0, 72.0),
            turn(1, 12.0, 72.0, 71.0),
            turn(0, 9.0, 71.0, 75.0),
            turn(2, 4.5, 75.0, 70.0),
            turn(0, 9.0, 70.0, 70.0),
        ];
        let summaries = outcome(turns).summaries();
        assert_eq!(summaries.len(), 3);
        let copy = of(&summaries, "copy", State::Close).expect("it ran");
        assert_eq!((copy.ratio, copy.mpps, copy.runs), ([2.0; 3], 12.0, 1));
        assert_eq!(copy.gbps, 12.0 * 0.512, "64 B are 512 bits");
        let x = of(&summaries, "x", State::Close).expect("it ran");
        assert_eq!((x.ratio[1], x.of_bound), (0.5, Some(0.25)));
        assert_eq!((x.lost, x.faults.total()), (0.01, 1));
        let reference = of(&summaries, "testpmd", State::Close).expect("it ran");
        assert_eq!((reference.ratio[1], reference.mpps, reference.runs), (1.0, 9.0, 3));
    }

    #[test]
    fn states_are_kept_apart_and_changes_under_way_do_not_count() {
        let turns = vec![
            turn(0, 8.0, 70.0, 70.0),
            turn(2, 16.0, 70.0, 70.0),
            turn(0, 8.0, 70.0, 320.0),
            turn(2, 4.0, 320.0, 330.0),
            turn(0, 4.0, 330.0, 340.0),
            turn(2, 4.4, 340.0, 320.0),
            turn(0, 4.0, 320.0, 0.0),
        ];
        let outcome = outcome(turns);
        let summaries = outcome.summaries();
        assert!(of(&summaries, "x", State::Close).is_none());
        assert!(of(&summaries, "x", State::Far).is_none());
        assert_eq!(of(&summaries, "x", State::Mixed).expect("all three").runs, 3);
        assert_eq!(of(&summaries, "testpmd", State::Close).expect("the first").mpps, 8.0);
        assert_eq!(of(&summaries, "testpmd", State::Far).expect("the third").mpps, 4.0);
        assert_eq!(of(&summaries, "testpmd", State::Mixed).expect("two").runs, 2);
    }

    #[test]
    fn without_the_bound_there_is_no_share_of_it() {
        let turns =
            vec![turn(0, 8.0, 70.0, 70.0), turn(2, 16.0, 70.0, 70.0), turn(0, 8.0, 70.0, 70.0)];
        let summaries = outcome(turns).summaries();
        assert_eq!(of(&summaries, "x", State::Close).expect("it ran").of_bound, None);
    }
}
