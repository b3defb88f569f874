//! `viaduct-scale`: how Viaduct's control side grows with ports, groups, rules, members and hosts, with
//! a real etcd and a real daemon.
//!
//! It shares no code with Viaduct: it writes values into etcd as an orchestrator does, asks the daemon
//! over its socket as an operator does, and reads what the kernel and etcd say. docs/scale.md says how to
//! read the tables.

mod daemon;
mod desired;
mod etcd;
mod host;
mod size;
mod table;
mod watchers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use size::Size;

/// How Viaduct's control side grows with ports, groups, rules, members and hosts.
#[derive(Debug, Parser)]
#[command(version, name = "viaduct-scale")]
struct Arguments {
    /// Viaduct's program.
    #[arg(long, value_name = "PATH")]
    viaduct: PathBuf,

    /// Small and few: shows that everything works.
    #[arg(long)]
    quick: bool,

    /// Only this; may be repeated.
    #[arg(long, value_enum)]
    part: Vec<Part>,

    /// How often each duration is measured.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=100))]
    repetitions: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A host of 200 ports.
    Host,
    /// One with a tenth of that.
    Tenth,
    /// The latter, in an etcd with a tenth of the other hosts.
    Lonely,
    /// Many hosts that watch.
    Watchers,
}

fn main() -> ExitCode {
    match begin(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("viaduct-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until done or until a signal comes; what was started ends either way.
fn begin(arguments: &Arguments) -> Result<()> {
    // One thread: what it starts shall end with it, and with a thread is how the kernel has that.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            result = run(arguments) => result,
            _ = terminate.recv() => bail!("ended by SIGTERM"),
            _ = interrupt.recv() => bail!("ended by SIGINT"),
        }
    })
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut parts = arguments.part.clone();
    if parts.is_empty() {
        parts = vec![Part::Lonely, Part::Tenth, Part::Host, Part::Watchers];
        if arguments.quick {
            parts = vec![Part::Lonely, Part::Watchers];
        }
    }
    let repetitions = arguments.repetitions.unwrap_or(if arguments.quick { 1 } else { 5 }).into();
    let mut hosts = Vec::new();
    println!("etcd's data in {}, {repetitions} repetitions, medians", etcd::Etcd::place());
    for part in parts {
        let size = match part {
            Part::Host => Size::FULL,
            Part::Tenth => Size::TENTH,
            Part::Lonely => Size::LONELY,
            Part::Watchers => {
                let many = if arguments.quick { 50 } else { 1000 };
                let mut outcomes = Vec::new();
                for hosts in [many / 10, many] {
                    eprintln!("{hosts} hosts that watch");
                    outcomes.push(watchers::measure(hosts, repetitions).await?);
                }
                println!("\n{}", table::of_watchers(&outcomes));
                continue;
            }
        };
        eprintln!("a host: {}", size.describe());
        hosts.push(host::measure(&arguments.viaduct, size, repetitions).await?);
    }
    if !hosts.is_empty() {
        println!("\n{}", table::of_hosts(&hosts));
    }
    Ok(())
}
