//! How long guests hear nothing when Viaduct is stopped and started again, and when it is killed.
//!
//! Each port has a guest with a thread of its own, as each has a QEMU in earnest: it sends a numbered
//! frame to its neighbour as soon as the last was taken, looks at its rings every half millisecond, and
//! hands its rings over anew when the switch connects again. The blackout of a guest is the time from
//! the last frame that it got of the old process to the first of the new one; the longest of all guests
//! is what is reported, with what the time went to. Nothing waits between end and start, as with
//! `systemctl restart`; after a crash the unit's `RestartSec=` comes on top.

mod guest;
mod handover;
mod store;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::guest::Faults;
use crate::machine::{self, Cores, Description};
use crate::switch::Process;
use guest::Resident;
pub use handover::measure_handover;

/// How long everything may take to be there.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long frames flow before the switch is ended.
const TRAFFIC: Duration = Duration::from_millis(500);
/// Between two looks whether it has happened.
const LOOK: Duration = Duration::from_millis(1);

/// How Viaduct is ended.
#[derive(Clone, Copy, Debug)]
struct End {
    name: &'static str,
    signal: Signal,
}

const ENDS: [End; 2] = [
    End { name: "SIGTERM", signal: Signal::SIGTERM },
    End { name: "SIGKILL", signal: Signal::SIGKILL },
];

/// Where the time of one blackout went, in order.
#[derive(Clone, Copy, Debug)]
struct Blackout {
    /// From the signal to the end of the process.
    ended: Duration,
    /// From there until the new one connected to the first guest, …
    started: Duration,
    /// … until the last guest's rings were handed over, …
    attached: Duration,
    /// … until the last guest had got a frame.
    flowing: Duration,
    /// The longest time that a guest heard nothing.
    longest: Duration,
    /// The median guest's.
    median: Duration,
}

/// Ends and starts the switch in `program` `rounds` times in each way, with so many ports, and returns
/// a table.
pub fn measure(program: &Path, ports: u16, rounds: u32, cores: Cores) -> Result<String> {
    let bed = Bed::new(program, ports, cores, 1)?;
    let outcome = rounds_of(&bed.residents, rounds, || bed.start());
    let text = outcome.map(|outcomes| table(ports, bed.huge_pages, &outcomes));
    bed.finish(text)
}

/// Guests in pairs, and what the switch is to be for them.
struct Bed {
    program: PathBuf,
    directory: tempfile::TempDir,
    config: PathBuf,
    cores: Cores,
    huge_pages: bool,
    residents: Vec<Resident>,
    stop: Arc<AtomicBool>,
}

impl Bed {
    /// Starts the guests. There are so many `switches` at a time.
    fn new(program: &Path, ports: u16, cores: Cores, switches: u64) -> Result<Self> {
        ensure!(
            (2..=126).contains(&ports) && ports.is_multiple_of(2),
            "{ports} ports: take an even number up to 126, as guests send in pairs"
        );
        let directory = tempfile::tempdir().context("a directory for sockets and logs")?;
        let huge_pages =
            Description::read().free_huge_pages >= switches * (store::MEMORY_MIB / 2 + 1);
        let config = store::write(directory.path(), ports, cores, huge_pages)?;
        let stop = Arc::new(AtomicBool::new(false));
        let residents = (0..ports)
            .map(|number| Resident::start(directory.path(), number, Arc::clone(&stop)))
            .collect::<Result<Vec<_>>>()?;
        let program = program.to_owned();
        Ok(Self { program, directory, config, cores, huge_pages, residents, stop })
    }

    /// Starts the switch.
    fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--config"]).arg(&self.config);
        Process::start("viaduct", command, self.directory.path(), self.cores)
    }

    /// Ends the guests. What was measured is worth nothing if one of them got a wrong frame.
    fn finish(self, text: Result<String>) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut faults = Faults::default();
        for resident in self.residents {
            faults += resident.finish()?;
        }
        let text = text?;
        ensure!(faults.total() == 0, "wrong frames: {faults:?}\n{text}");
        Ok(text + "no frame came twice, out of order or damaged\n")
    }
}

fn rounds_of(
    residents: &[Resident],
    rounds: u32,
    start: impl Fn() -> Result<Process>,
) -> Result<Vec<(End, Vec<Blackout>)>> {
    let mut process = start()?;
    let mut outcomes = Vec::new();
    for end in ENDS {
        let mut blackouts = Vec::new();
        for _ in 0..rounds {
            await_traffic(residents, &mut process)?;
            std::thread::sleep(TRAFFIC);
            let told = Instant::now();
            residents.iter().for_each(|resident| resident.milestones.forget());
            process.send(end.signal)?;
            process.await_end(READY_TIMEOUT)?;
            let ended = Instant::now();
            process = start()?;
            await_traffic(residents, &mut process)?;
            blackouts.push(Blackout::of(residents, told, ended)?);
        }
        outcomes.push((end, blackouts));
    }
    Ok(outcomes)
}

/// Waits until every guest gets frames of the present process.
fn await_traffic(residents: &[Resident], process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !residents.iter().all(|resident| resident.milestones.flows()) {
        machine::check_interrupt()?;
        process.check()?;
        if let Some(failure) = residents.iter().find_map(|resident| resident.milestones.failure()) {
            bail!("{failure}\n{}", process.log_end());
        }
        ensure!(
            Instant::now() < deadline,
            "not every guest gets frames after {} s\n{}",
            READY_TIMEOUT.as_secs(),
            process.log_end()
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

impl Blackout {
    fn of(residents: &[Resident], told: Instant, ended: Instant) -> Result<Self> {
        let spans = residents.iter().map(|resident| resident.milestones.spans());
        let spans = spans.collect::<Option<Vec<_>>>().context("a guest without a frame")?;
        let first = spans.iter().map(|it| it.connected).min().context("guests")?;
        let attached = spans.iter().map(|it| it.attached).max().context("guests")?;
        let flowing = spans.iter().map(|it| it.first).max().context("guests")?;
        let mut silent: Vec<_> = spans.iter().map(|it| it.first - it.last).collect();
        silent.sort();
        Ok(Self {
            ended: ended - told,
            started: first.saturating_duration_since(ended),
            attached: attached.saturating_duration_since(first),
            flowing: flowing.saturating_duration_since(attached),
            longest: silent[silent.len() - 1],
            median: silent[silent.len() / 2],
        })
    }
}

fn table(ports: u16, huge_pages: bool, outcomes: &[(End, Vec<Blackout>)]) -> String {
    let pages = if huge_pages { "on huge pages" } else { "without huge pages" };
    let mut text = format!(
        "{ports} ports, {pages}; milliseconds\n\n\
         {:<9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}\n",
        "end", "ended", "started", "attached", "flowing", "median", "longest"
    );
    for (end, blackouts) in outcomes {
        for it in blackouts {
            let spans = [it.ended, it.started, it.attached, it.flowing, it.median, it.longest];
            let [ended, started, attached, flowing, median, longest] =
                spans.map(|span| span.as_secs_f64() * 1000.0);
            let name = end.name;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:<9} {ended:>8.1} {started:>8.1} {attached:>8.1} {flowing:>8.1} \
                 {median:>9.1} {longest:>9.1}"
            );
        }
    }
    text.push('\n');
    text
}
