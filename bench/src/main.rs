//! `viaduct-bench`: how fast a vhost-user switch carries frames from guest to guest.
//!
//! The load comes from guest drivers and a vhost-user front-end of the bench's own: it shares no
//! code with Viaduct, so a mistake in one cannot hide one in the other, and any switch that speaks
//! vhost-user can stand the same test. Results are ratios to `dpdk-testpmd` in the same seconds.
//! docs/performance.md says how to read them.

mod arguments;
mod clock;
mod contest;
mod distance;
mod frame;
mod front_end;
mod generator;
mod guest;
mod latency;
mod machine;
mod outcome;
mod plot;
mod report;
mod restart;
mod rules;
mod scenario;
mod segment;
mod swap;
mod switch;
mod tracker;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use arguments::Arguments;
use machine::Description;
use report::Report;
use scenario::Scenario;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("viaduct-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        println!("{}", report::list(&Scenario::standard(), &Scenario::quick()));
        println!("\nswitches: {}", switch::CONTENDERS.join(", "));
        println!("only in scenarios with rules: {}", switch::WITH_RULES_ONLY.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(from), Some(svg)) = (&arguments.from, &arguments.svg) {
        plot::save(&plot::load(from)?, svg)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (scenarios, plan) = (arguments.scenarios()?, arguments.plan()?);
    machine::catch_interrupts()?;
    if let Some(ports) = arguments.restart {
        let program =
            arguments.viaduct.as_deref().context("give Viaduct's program with --viaduct")?;
        let rounds = arguments.rounds.unwrap_or(5);
        print!("{}", restart::measure(program, ports, rounds, plan.cores)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(ports) = arguments.handover {
        let program =
            arguments.viaduct.as_deref().context("give Viaduct's program with --viaduct")?;
        let rounds = arguments.rounds.unwrap_or(5);
        print!("{}", restart::measure_handover(program, ports, rounds, plan.cores)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut notes = Vec::new();
    if let Some(reason) = machine::raise_own_group() {
        notes.push(format!("the generator runs at ordinary priority: {reason}"));
    }
    let machine = Description::read();
    if machine.free_huge_pages == 0 {
        notes.push("no free huge pages: all rates suffer, testpmd's most".to_owned());
    }
    machine::pin(plan.cores.generator)?;
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for (index, scenario) in scenarios.iter().enumerate() {
        let place = format!("{} of {}", index + 1, scenarios.len());
        eprintln!("{place}: scenario {} ({})", scenario.name, scenario.describe());
        match contest::hold(scenario, &plan, arguments.measures_latency(scenario)) {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                machine::check_interrupt()?;
                // What was measured so far is worth something, and so are the other scenarios.
                eprintln!("{place}: {error:#}");
                failures.push(format!("scenario {}: {error:#}", scenario.name));
            }
        }
    }
    let report = Report::new(machine, plan, notes, outcomes, failures);
    println!("{}", report.text());
    if let Some(path) = &arguments.json {
        report.save(path)?;
    }
    if let Some(path) = &arguments.svg {
        let points: Vec<_> = report.summaries.iter().map(plot::Point::from).collect();
        plot::save(&points, path)?;
    }
    Ok(if report.is_bad() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
