//! Viaduct: its daemon with the embedded store, one network (or one for each guest, with an uplink),
//! one port for each guest, with port security and a security group.
//!
//! Nothing is tuned but what the scenario needs: the worker's core, the network's MTU, and bounds of
//! the FDB above the number of addresses. The guests' sides listen, as QEMU does by default.

mod store;
mod swap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::swap::Swapper;
use super::process::Process;
use super::{Bed, Switch};
use crate::front_end::FrontEnd;
use crate::machine::{self, Description};
use crate::scenario::{Guests, Scenario};

/// The host's name in keys.
const HOST: &str = "bench";
/// What the name of one ends in whose rules are replaced while it has its turn.
pub const SWAPPING: &str = "-swap";
/// How long it may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory for DPDK, in MiB.
const MEMORY_MIB: u64 = 128;

/// Viaduct's daemon, if it was started.
#[derive(Debug)]
pub struct Viaduct {
    name: String,
    program: PathBuf,
    process: Option<Process>,
    /// Whether its rules are to be replaced while it has its turn.
    swaps: bool,
    swapper: Option<Swapper>,
}

impl Viaduct {
    /// The daemon in that program, under a name for the report; not started yet.
    pub fn new(name: String, program: PathBuf) -> Self {
        Self { name, program, process: None, swaps: false, swapper: None }
    }

    /// The same, its rules replaced again and again while it has its turn, under a longer name.
    pub fn swapping(self) -> Self {
        Self { name: self.name + SWAPPING, swaps: true, ..self }
    }

    /// Waits until it answers commands: its guests are served before DPDK, on the same core, has
    /// started.
    fn await_answer(&mut self, bed: &Bed<'_>) -> Result<()> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let mut show = Command::new(&self.program);
            show.args(["show", "--json", "--socket"]).arg(control(bed));
            let answer = show.output().context("asking whether the switch is ready")?;
            if answer.status.success() {
                return Ok(());
            }
            machine::check_interrupt()?;
            self.check()?;
            ensure!(
                Instant::now() < deadline,
                "no answer: {}",
                String::from_utf8_lossy(&answer.stderr)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Switch for Viaduct {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>> {
        store::write(bed).context("writing desired state")?;
        if self.swaps {
            self.swapper = Some(Swapper::prepare(bed)?);
        }
        let file = bed.directory.join("viaduct.toml");
        let huge_pages = Description::read().free_huge_pages >= MEMORY_MIB / 2;
        fs::write(&file, configuration(bed, huge_pages)?)
            .with_context(|| format!("writing {}", file.display()))?;
        let listeners = bed.listen()?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--config"]).arg(&file);
        self.process = Some(Process::start(self.name(), command, bed.directory, bed.cores)?);
        let sessions = bed.accept(&listeners, guests);
        match sessions.and_then(|sessions| self.await_answer(bed).map(|()| sessions)) {
            Ok(sessions) => Ok(sessions),
            Err(error) => {
                self.check()?;
                Err(error.context(self.log_end()))
            }
        }
    }

    fn pause(&mut self) -> Result<()> {
        self.swapper.as_mut().map_or(Ok(()), Swapper::stop)?;
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::resume)?;
        self.swapper.as_mut().map_or(Ok(()), Swapper::start)
    }

    fn swaps(&self) -> Option<u64> {
        self.swapper.as_ref().map(Swapper::swaps)
    }

    fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    fn command(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.command().to_owned())
    }

    fn log_end(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log_end)
    }
}

/// The socket for commands.
fn control(bed: &Bed<'_>) -> PathBuf {
    bed.directory.join("control.sock")
}

/// The daemon's configuration.
fn configuration(bed: &Bed<'_>, huge_pages: bool) -> Result<String> {
    let (store, control) = (bed.directory.join("store"), control(bed));
    let Scenario { addresses, ports, uplinks, .. } = bed.scenario;
    let mut physnets = String::new();
    for guest in 0..if *uplinks { bed.ports } else { 0 } {
        let device = quoted(bed.uplink(guest).as_ref())?;
        physnets += &format!("[physnets.uplink{guest}]\ndevice = {device}\n");
    }
    // Frames that devices receive into, if there are any.
    let frames = if *uplinks { 16_384 } else { 1024 };
    // Room for both guests' addresses and a few more, within the least that can be configured.
    let quota = (addresses * 2).max(4096);
    let entries = (quota * 4 + u32::from(*ports)).max(131_072);
    Ok(format!(
        "host = {HOST:?}\n\
         [store]\ndirectory = {}\n\
         [control]\nsocket = {}\n\
         [workers]\ncores = [{}]\n\
         [vhost]\nsocket_directory = {}\n\
         [dpdk]\nhugepages = {huge_pages}\nmemory_mib = {MEMORY_MIB}\npool_frames = {frames}\n\
         [fdb]\nentries = {entries}\nport_quota = {quota}\ndomain_quota = {}\n{physnets}",
        quoted(&store)?,
        quoted(&control)?,
        bed.cores.switch,
        quoted(bed.directory)?,
        quota * 2,
    ))
}

/// A path as a TOML string: JSON's strings are among them.
fn quoted(path: &Path) -> Result<String> {
    serde_json::to_string(path).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests;
