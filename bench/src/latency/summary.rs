//! From runs at fixed rates to results: for each load and state, medians over the runs.

use serde::Serialize;

use super::Run;
use crate::generator::quartiles;
use crate::outcome::{self, Outcome, REFERENCE, State};

/// How much is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Percent of what came through at full load, in the same state of the machine.
    pub percent: u32,
    /// At whose full load.
    pub of: Whose,
}

/// Whose capacity a load is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The switch's own.
    Own,
    /// The reference's: the same rate for every switch.
    Reference,
}

impl Load {
    /// All loads, in the order of the report.
    pub const ALL: [Self; 4] = [
        Self { percent: 10, of: Whose::Own },
        Self { percent: 50, of: Whose::Own },
        Self { percent: 90, of: Whose::Own },
        Self { percent: 50, of: Whose::Reference },
    ];

    /// What the report calls it.
    pub fn name(self) -> String {
        match self.of {
            Whose::Own => format!("{} %", self.percent),
            Whose::Reference => format!("{} % of {REFERENCE}", self.percent),
        }
    }
}

/// A switch's run.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Which of the scenario's entrants; 0 is the reference.
    pub entrant: usize,
    /// How much was offered.
    pub load: Load,
    /// What that was a part of, in million frames a second.
    pub capacity_mpps: f64,
    /// The distance between the cores before and after, as a round trip in nanoseconds.
    pub round_trip_ns: [Option<f64>; 2],
    /// What it gave.
    pub run: Run,
}

/// What each entrant carried at full load, by the state of the machine.
#[derive(Debug)]
pub struct Capacities {
    known: Vec<(usize, State, f64)>,
}

impl Capacities {
    /// What the turns at full load tell.
    pub fn of(turns: &[outcome::Turn]) -> Self {
        let mut all = Self { known: Vec::new() };
        for turn in turns {
            all.add(turn.entrant, State::of(&turn.round_trip_ns), turn.run.mpps);
        }
        all
    }

    /// Adds what a turn at full load gave.
    pub fn add(&mut self, entrant: usize, state: State, mpps: f64) {
        self.known.push((entrant, state, mpps));
    }

    /// The median of an entrant's turns in that state, in million frames a second.
    pub fn within(&self, entrant: usize, state: State) -> Option<f64> {
        self.median(|one| one == (entrant, state))
    }

    /// The median of all of an entrant's turns, in million frames a second.
    pub fn overall(&self, entrant: usize) -> Option<f64> {
        self.median(|(one, _)| one == entrant)
    }

    fn median(&self, counts: impl Fn((usize, State)) -> bool) -> Option<f64> {
        let chosen = self.known.iter().filter(|(entrant, state, _)| counts((*entrant, *state)));
        quartiles(chosen.map(|(.., mpps)| *mpps).collect()).map(|[_, median, _]| median)
    }
}

/// A switch's latency under one load while the machine was in one state.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// The switch's name.
    pub switch: String,
    /// How much was offered.
    pub load: Load,
    /// The machine's state.
    pub state: State,
    /// The runs' median distance between the cores, as a round trip in nanoseconds.
    pub round_trip_ns: Option<f64>,
    /// How many runs this is from.
    pub runs: usize,
    /// Median of what was offered, in million frames a second.
    pub offered_mpps: f64,
    /// The runs' median of the percentile that half of the frames lie within, in microseconds.
    pub p50_us: f64,
    /// The runs' median of the 90th percentile.
    pub p90_us: f64,
    /// The runs' median of the 99th percentile.
    pub p99_us: f64,
    /// The runs' median of the 99.9th percentile.
    pub p999_us: f64,
    /// The runs' median of the 99.99th percentile.
    pub p9999_us: f64,
    /// The longest of all runs.
    pub max_us: f64,
    /// The last two of those frames only on whose way the guests' thread never stood still.
    pub undisturbed: Option<Undisturbed>,
    /// The runs' median of the time that half of the frames were sent late by.
    pub sent_late_p50_us: f64,
    /// The runs' median of the 99th percentile of the time that frames were sent late by.
    pub sent_late_p99_us: f64,
    /// The runs' median share of the looks at which the ring to the switch was full.
    pub full_looks: f64,
    /// The runs' median of the time between two looks of the guests, in nanoseconds.
    pub look_ns: f64,
    /// Share of the frames due that never arrived.
    pub lost: f64,
    /// Moments in all runs in which the guests' thread did not run.
    pub gaps: u64,
    /// The longest of them, in microseconds.
    pub longest_gap_us: f64,
}

/// Of the frames on whose way the guests' thread never stood still.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Undisturbed {
    /// The runs' median of the 99.99th percentile, in microseconds.
    pub p9999_us: f64,
    /// The longest of all runs, in microseconds.
    pub max_us: f64,
}

/// All results of a scenario: for each load and state, each entrant that was seen in it.
pub fn summaries(outcome: &Outcome) -> Vec<Summary> {
    let mut summaries = Vec::new();
    for load in Load::ALL {
        for state in State::ALL {
            for (entrant, one) in outcome.entrants.iter().enumerate() {
                let turns: Vec<&Turn> = outcome
                    .latency
                    .iter()
                    .filter(|turn| turn.entrant == entrant && turn.load == load)
                    .filter(|turn| State::of(&turn.round_trip_ns) == state)
                    .collect();
                let (scenario, switch) = (outcome.scenario.name.clone(), one.name.clone());
                summaries.extend(summary(scenario, switch, load, state, &turns));
            }
        }
    }
    summaries
}

fn summary(
    scenario: String,
    switch: String,
    load: Load,
    state: State,
    turns: &[&Turn],
) -> Option<Summary> {
    let median = |of: fn(&Run) -> f64| {
        quartiles(turns.iter().map(|turn| of(&turn.run)).collect()).map(|[_, median, _]| median)
    };
    let most = |of: fn(&Run) -> f64| turns.iter().map(|turn| of(&turn.run)).fold(0.0, f64::max);
    let sum = |of: fn(&Run) -> u64| turns.iter().map(|turn| of(&turn.run)).sum::<u64>();
    let distances = turns.iter().flat_map(|turn| turn.round_trip_ns).flatten().collect();
    Some(Summary {
        scenario,
        switch,
        load,
        state,
        round_trip_ns: quartiles(distances).map(|[_, median, _]| median),
        runs: turns.len(),
        offered_mpps: median(|run| run.offered_mpps)?,
        p50_us: median(|run| run.latency.p50_us)?,
        p90_us: median(|run| run.latency.p90_us)?,
        p99_us: median(|run| run.latency.p99_us)?,
        p999_us: median(|run| run.latency.p999_us)?,
        p9999_us: median(|run| run.latency.p9999_us)?,
        max_us: most(|run| run.latency.max_us),
        undisturbed: undisturbed(turns),
        sent_late_p99_us: median(|run| run.sent_late.p99_us)?,
        sent_late_p50_us: median(|run| run.sent_late.p50_us)?,
        full_looks: median(|run| run.full_looks)?,
        look_ns: median(|run| run.look_ns)?,
        lost: sum(|run| run.lost) as f64 / sum(|run| run.due).max(1) as f64,
        gaps: sum(|run| run.gaps),
        longest_gap_us: most(|run| run.longest_gap_us),
    })
}

fn undisturbed(turns: &[&Turn]) -> Option<Undisturbed> {
    let runs: Vec<_> = turns.iter().filter_map(|turn| turn.run.undisturbed).collect();
    let [_, p9999_us, _] = quartiles(runs.iter().map(|run| run.p9999_us).collect())?;
    let max_us = runs.iter().map(|run| run.max_us).fold(0.0, f64::max);
    Some(Undisturbed { p9999_us, max_us })
}
