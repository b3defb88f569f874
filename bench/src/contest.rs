//! Lets switches take turns on one core, each between two turns of the reference.
//!
//! A machine's speed can change by half within seconds (neighbours, clock, temperature, virtual
//! cores that move), so no rate means anything alone. All switches of a scenario are started
//! beforehand and wait, stopped, for their turns, which are short, many, and taken alternately, so
//! that what is compared ran within a fraction of a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::distance;
use crate::front_end::FrontEnd;
use crate::generator::{Generator, Run, Span};
use crate::guest::Pages;
use crate::latency::{self, Capacities, Load, Whose};
use crate::machine::Cores;
use crate::outcome::{Entrant, Outcome, State, Swaps, Turn};
use crate::scenario::{Guests, SWAP_INTERVAL, Scenario};
use crate::switch::{Bed, Contender, Switch, Testpmd};

/// How often in a scenario, and for how long, both cores sleep to be moved closer to each other.
const NAPS: u32 = 20;
const NAP: Duration = Duration::from_millis(100);
/// How many turns without frames a switch is forgiven in a scenario.
const STALLS: usize = 3;

/// How the bench is run, for all scenarios the same.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The switches beside the reference.
    pub contenders: Vec<Contender>,
    /// Turns of each contender, each between two of the reference.
    pub rounds: u32,
    /// Length of a turn.
    pub span: Span,
    /// Turns of each switch under each load, where latency is measured.
    pub latency_rounds: u32,
    /// Length of such a turn.
    pub latency_span: Span,
    /// Which cores to use.
    pub cores: Cores,
    /// What backs the guests' memory.
    pub pages: Pages,
}

impl Plan {
    /// Enough turns to be believed: about 20 s a scenario with two contenders.
    pub fn thorough(contenders: Vec<Contender>, cores: Cores, pages: Pages) -> Self {
        let span = Span { settle: Duration::from_millis(40), measured: Duration::from_millis(160) };
        let latency_span = Span { settle: Duration::from_millis(20), ..span };
        Self { contenders, rounds: 20, span, latency_rounds: 10, latency_span, cores, pages }
    }

    /// Enough to see that everything works: about 4 s a scenario, most of it starting switches.
    pub fn quick(contenders: Vec<Contender>, cores: Cores, pages: Pages) -> Self {
        let span = Span { settle: Duration::from_millis(20), measured: Duration::from_millis(60) };
        Self { contenders, rounds: 3, span, latency_rounds: 2, latency_span: span, cores, pages }
    }

    /// The plan for one scenario: where rules are replaced under way, fewer turns that are so long that
    /// this happens several times in each.
    fn for_scenario(&self, scenario: &Scenario) -> Self {
        let mut plan = self.clone();
        if scenario.swaps {
            let measured = SWAP_INTERVAL * 5;
            plan.span = Span { measured, ..plan.span };
            plan.latency_span = Span { measured, ..plan.latency_span };
            plan.rounds = plan.rounds.min(8);
            plan.latency_rounds = plan.latency_rounds.min(4);
        }
        plan
    }
}

/// Measures one scenario, the switches' latency included if that is wanted.
pub fn hold(scenario: &Scenario, plan: &Plan, with_latency: bool) -> Result<Outcome> {
    let plan = &plan.for_scenario(scenario);
    let generator = Generator::new(scenario);
    let mut stages = vec![Stage::set(Box::new(Testpmd::new()), scenario, plan, &generator)?];
    for contender in &plan.contenders {
        for switch in contender.switches(scenario) {
            stages.push(Stage::set(switch, scenario, plan, &generator)?);
        }
    }
    let mut timeline = Timeline::begin(plan, generator)?;
    timeline.turn(0, &mut stages)?;
    for _ in 0..plan.rounds {
        for contender in 1..stages.len() {
            if timeline.comes_closer()? {
                // What ran before ran in another state.
                timeline.turn(0, &mut stages)?;
            }
            timeline.turn(contender, &mut stages)?;
            timeline.turn(0, &mut stages)?;
        }
    }
    let latency = if with_latency { timeline.latency(&mut stages)? } else { Vec::new() };
    let entrants = stages.iter().map(Stage::entrant).collect();
    Ok(Outcome { scenario: scenario.clone(), entrants, turns: timeline.turns, latency })
}

/// The turns taken so far, and the state that the machine is in.
struct Timeline<'a> {
    plan: &'a Plan,
    generator: Generator,
    /// The last distance measured.
    round_trip_ns: Option<f64>,
    naps: u32,
    turns: Vec<Turn>,
}

impl<'a> Timeline<'a> {
    fn begin(plan: &'a Plan, generator: Generator) -> Result<Self> {
        let round_trip_ns = distance::round_trip_ns(plan.cores)?;
        Ok(Self { plan, generator, round_trip_ns, naps: NAPS, turns: Vec::new() })
    }

    /// One run of one switch.
    fn turn(&mut self, entrant: usize, stages: &mut [Stage]) -> Result<()> {
        let before = self.round_trip_ns;
        let run = stages[entrant].take_turn(&self.generator, self.plan.span)?;
        self.round_trip_ns = distance::round_trip_ns(self.plan.cores)?;
        self.turns.push(Turn { entrant, round_trip_ns: [before, self.round_trip_ns], run });
        Ok(())
    }

    /// Runs at parts of what the turns so far have shown that the switches can carry.
    fn latency(&mut self, stages: &mut [Stage]) -> Result<Vec<latency::Turn>> {
        let mut capacities = Capacities::of(&self.turns);
        let mut turns = Vec::new();
        self.naps = NAPS;
        for _ in 0..self.plan.latency_rounds {
            for load in Load::ALL {
                for entrant in 0..stages.len() {
                    self.comes_closer()?;
                    let whose = if load.of == Whose::Own { entrant } else { 0 };
                    let capacity_mpps = self.capacity(whose, &mut capacities, stages)?;
                    let mpps = capacity_mpps * f64::from(load.percent) / 100.0;
                    let before = self.round_trip_ns;
                    let (stage, span) = (&mut stages[entrant], self.plan.latency_span);
                    let run = stage.take_paced_turn(&self.generator, mpps, span)?;
                    self.round_trip_ns = distance::round_trip_ns(self.plan.cores)?;
                    let round_trip_ns = [before, self.round_trip_ns];
                    turns.push(latency::Turn { entrant, load, capacity_mpps, round_trip_ns, run });
                }
            }
        }
        Ok(turns)
    }

    /// What a switch carries in the present state. If that has not been seen yet, it is now.
    fn capacity(
        &mut self,
        entrant: usize,
        capacities: &mut Capacities,
        stages: &mut [Stage],
    ) -> Result<f64> {
        if let Some(mpps) = capacities.within(entrant, State::of(&[self.round_trip_ns])) {
            return Ok(mpps);
        }
        let before = self.round_trip_ns;
        let run = stages[entrant].take_turn(&self.generator, self.plan.span)?;
        self.round_trip_ns = distance::round_trip_ns(self.plan.cores)?;
        capacities.add(entrant, State::of(&[before, self.round_trip_ns]), run.mpps);
        capacities
            .within(entrant, State::of(&[self.round_trip_ns]))
            .or_else(|| capacities.overall(entrant))
            .context("a switch without a turn")
    }

    /// If the cores are far apart, gives the hypervisor a chance to move them: it does that with
    /// cores that sleep. Whether it has helped; tried a bounded number of times.
    fn comes_closer(&mut self) -> Result<bool> {
        if self.naps == 0 || State::of(&[self.round_trip_ns]) != State::Far {
            return Ok(false);
        }
        self.naps -= 1;
        std::thread::sleep(NAP);
        self.round_trip_ns = distance::round_trip_ns(self.plan.cores)?;
        Ok(State::of(&[self.round_trip_ns]) != State::Far)
    }
}

/// A switch with its guests, started and ready for its turns.
///
/// The fields' order is the order of their end: guests detach before the switch goes, and the
/// directory goes last.
struct Stage {
    sessions: Vec<FrontEnd>,
    switch: Box<dyn Switch>,
    guests: Guests,
    ports: u16,
    /// How long after a turn without frames the first one came.
    stalls_seconds: Vec<f64>,
    directory: TempDir,
}

impl Stage {
    /// Starts a switch, attaches its guests, lets it learn, and pauses it.
    fn set(
        switch: Box<dyn Switch>,
        scenario: &Scenario,
        plan: &Plan,
        generator: &Generator,
    ) -> Result<Self> {
        let ports = switch.ports(scenario);
        // No two switches, nor two benches, have frames alike.
        let nonce = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_nanos();
        let directory = TempDir::with_prefix("viaduct-bench-").context("a directory")?;
        let mut guests = Guests::new(scenario, ports, nonce as u64, plan.pages)?;
        if !switch.keeps_sums() {
            guests.expect_short_sums();
        }
        let (sessions, stalls_seconds) = (Vec::new(), Vec::new());
        let mut stage = Self { sessions, switch, guests, ports, stalls_seconds, directory };
        stage.begin(scenario, plan.cores, generator).with_context(|| {
            format!("switch {}, scenario {}", stage.switch.name(), scenario.name)
        })?;
        Ok(stage)
    }

    fn begin(&mut self, scenario: &Scenario, cores: Cores, generator: &Generator) -> Result<()> {
        let bed = Bed { directory: self.directory.path(), cores, scenario, ports: self.ports };
        self.sessions = self.switch.start(&bed, &self.guests)?;
        if let Err(error) = generator.warm_up(&mut self.guests) {
            // A dead switch explains more than the frames that did not come.
            self.switch.check()?;
            return Err(error);
        }
        self.switch.pause()
    }

    fn take_turn(&mut self, generator: &Generator, span: Span) -> Result<Run> {
        loop {
            self.switch.resume()?;
            let run = generator.run(&mut self.guests, span)?;
            if run.mpps > 0.0 {
                self.switch.pause()?;
                return Ok(run);
            }
            self.note_stall(generator)?;
            self.switch.pause()?;
        }
    }

    /// A turn at a fixed rate.
    fn take_paced_turn(
        &mut self,
        generator: &Generator,
        offered_mpps: f64,
        span: Span,
    ) -> Result<latency::Run> {
        loop {
            self.switch.resume()?;
            if let Some(run) = latency::measure(generator, &mut self.guests, offered_mpps, span)? {
                self.switch.pause()?;
                return Ok(run);
            }
            self.note_stall(generator)?;
            self.switch.pause()?;
        }
    }

    /// Nothing came in most of a turn: finds out whether anything comes at all. That happens to a
    /// switch whose core was taken by something else, and is forgiven a few times.
    fn note_stall(&mut self, generator: &Generator) -> Result<()> {
        let name = self.switch.name().to_owned();
        let delay = generator.await_recovery(&mut self.guests).and_then(|delay| {
            ensure!(self.stalls_seconds.len() < STALLS, "that has happened {STALLS} times before");
            Ok(delay)
        });
        let delay = delay.with_context(|| {
            format!("{name} delivered nothing in most of a turn\n{}", self.switch.log_end())
        })?;
        self.stalls_seconds.push(delay.as_secs_f64());
        Ok(())
    }

    fn entrant(&self) -> Entrant {
        Entrant {
            name: self.switch.name().to_owned(),
            command: self.switch.command(),
            ports: self.ports,
            huge_pages: self.guests.all().all(|guest| guest.memory().is_huge()),
            faults: self.guests.faults(),
            stalls_seconds: self.stalls_seconds.clone(),
            swaps: self
                .switch
                .swaps()
                .map(|ordered| Swaps { ordered, seen: 2 * self.guests.a.judge.probe_stops() }),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Guests detach by asking the switch to stop their rings, for which it must run. If it is
        // dead, the sessions notice by themselves.
        let _ = self.switch.resume();
    }
}
