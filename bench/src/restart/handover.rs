//! How long guests hear nothing when a new process takes over.
//!
//! The guests are those of a restart, and none has to hand its rings over anew. The longest time between
//! two frames of one guest is looked for while the new process starts and takes over; and before that
//! while it starts and does not, by a dry run: here it shares two cores with the guests and the switch, and
//! while it prepares itself the kernel keeps the guests waiting. What is more than that, the handover is.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guest::Resident;
use super::{Bed, READY_TIMEOUT, TRAFFIC, await_traffic};
use crate::machine::Cores;
use crate::switch::Process;

/// One handover, after a dry run of it.
struct Round {
    /// What the new process says of it.
    prepared_ms: f64,
    pause_ms: f64,
    handover: Handover,
    dry_run: Handover,
}

/// What the daemon says of a handover, and the longest silence of each guest, in order.
struct Handover {
    view: Value,
    silences: Vec<Duration>,
}

/// Hands over `rounds` times, with so many ports, and returns a table.
pub fn measure_handover(program: &Path, ports: u16, rounds: u32, cores: Cores) -> Result<String> {
    nix::sys::prctl::set_child_subreaper(true).context("taking over what the switch starts")?;
    let bed = Bed::new(program, ports, cores, 2)?;
    let outcome = rounds_of(&bed, rounds);
    let text = outcome.map(|rounds| table(ports, bed.huge_pages, &rounds));
    bed.finish(text)
}

fn rounds_of(bed: &Bed, rounds: u32) -> Result<Vec<Round>> {
    let mut process = bed.start()?;
    let mut outcomes = Vec::new();
    await_traffic(&bed.residents, &mut process)?;
    for _ in 0..rounds {
        std::thread::sleep(TRAFFIC);
        let dry_run = hand_over(bed, &process, true)?;
        let handover = hand_over(bed, &process, false)?;
        let successor = handover.view["pid"].as_u64().context("a process")?;
        process.go_on_with(successor as u32, READY_TIMEOUT)?;
        let view = &handover.view;
        let number = |key: &str| view[key].as_f64().with_context(|| format!("{key} in {view}"));
        let (prepared_ms, pause_ms) = (number("prepared_ms")?, number("pause_us")? / 1000.0);
        outcomes.push(Round { prepared_ms, pause_ms, handover, dry_run });
    }
    Ok(outcomes)
}

/// Has a new process prepare itself and, unless it is a dry run, take over.
fn hand_over(bed: &Bed, process: &Process, dry_run: bool) -> Result<Handover> {
    listen(&bed.residents);
    let mut command = Command::new(&bed.program);
    command.args(["handover", "--json", "--config"]).arg(&bed.config);
    command.args(dry_run.then_some("--dry-run"));
    let output = command.output().context("running viaduct handover")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}\n{}", process.log_end());
    let view = serde_json::from_slice(&output.stdout).context("what it says")?;
    std::thread::sleep(TRAFFIC);
    Ok(Handover { view, silences: silences(&bed.residents)? })
}

fn listen(residents: &[Resident]) {
    residents.iter().for_each(|resident| resident.milestones.listen());
}

/// Each guest's longest silence, in order. Fails if one had to hand over its rings anew.
fn silences(residents: &[Resident]) -> Result<Vec<Duration>> {
    let heard = residents.iter().map(|resident| resident.milestones.silence());
    let (mut silences, sessions): (Vec<_>, Vec<_>) = heard.unzip();
    ensure!(sessions.iter().all(|count| *count == 1), "a guest was connected to again");
    silences.sort();
    Ok(silences)
}

fn table(ports: u16, huge_pages: bool, rounds: &[Round]) -> String {
    let pages = if huge_pages { "on huge pages" } else { "without huge pages" };
    let mut text = format!(
        "{ports} ports, {pages}; milliseconds\n\n\
         {:>8} {:>8} {:>9} {:>9} {:>16} {:>9}\n",
        "prepared", "pause", "median", "longest", "dry run: median", "longest"
    );
    let ends = |spans: &[Duration]| {
        let at = |at: usize| spans.get(at).map_or(0.0, |span| span.as_secs_f64() * 1000.0);
        (at(spans.len() / 2), at(spans.len().saturating_sub(1)))
    };
    for Round { prepared_ms, pause_ms, handover, dry_run } in rounds {
        let (median, longest) = ends(&handover.silences);
        let (dry_median, dry_longest) = ends(&dry_run.silences);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{prepared_ms:>8.1} {pause_ms:>8.1} {median:>9.1} {longest:>9.1} \
             {dry_median:>16.1} {dry_longest:>9.1}"
        );
    }
    text.push('\n');
    text
}
