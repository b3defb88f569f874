//! A switch's process: started in a session of its own, paused, and ended for certain.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::sched_setaffinity;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::machine::{self, Cores};

/// How long a process may take to end when asked to.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of its log that an error shows.
const LOG_LINES: usize = 15;

/// A running process. Dropping it ends the process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    command: String,
    /// The process that goes on in its place, and whether that has ended.
    successor: Option<(Pid, bool)>,
}

impl Process {
    /// Starts a command with both cores allowed, its output in a log in `directory`.
    pub fn start(name: &str, mut command: Command, directory: &Path, cores: Cores) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let errors = output.try_clone().context("a second handle to the log")?;
        // The input stays open and empty: some switches end when it closes.
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let both = cores.both()?;
        // SAFETY: between fork and exec only these three system calls are made, which allocate
        // nothing and take no lock.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                // The process shall not outlive the bench, however the bench ends.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                sched_setaffinity(Pid::from_raw(0), &both)?;
                Ok(())
            });
        }
        let line = describe(&command);
        let child = command.spawn().with_context(|| format!("starting {name}: {line}"))?;
        // Without the priority results are noisier, which their spread shows.
        let _ = machine::raise_group(child.id());
        Ok(Self { child, name: name.to_owned(), log, command: line, successor: None })
    }

    /// The command line.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Waits until it has ended, and goes on with a process that it has started. That is a child of the
    /// bench then, which has to be asked for before.
    pub fn go_on_with(&mut self, successor: u32, timeout: Duration) -> Result<()> {
        self.await_end(timeout)?;
        self.successor = Some((Pid::from_raw(successor as i32), false));
        Ok(())
    }

    /// Whether it has ended, with what.
    fn ended(&mut self) -> Result<Option<String>> {
        let Some((successor, gone)) = &mut self.successor else {
            return Ok(self.child.try_wait()?.map(|status| status.to_string()));
        };
        if *gone {
            return Ok(Some("it has ended".to_owned()));
        }
        match waitpid(*successor, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => Ok(None),
            status => {
                *gone = true;
                Ok(Some(format!("{status:?}")))
            }
        }
    }

    fn pid(&self) -> Pid {
        self.successor.map_or(Pid::from_raw(self.child.id() as i32), |(successor, _)| successor)
    }

    /// Takes the process off its core. Fails if it has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::SIGSTOP)
    }

    /// Puts it back. Fails if it has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::SIGCONT)
    }

    /// Sends it a signal. Fails if it has ended.
    pub fn send(&mut self, signal: Signal) -> Result<()> {
        self.check()?;
        self.signal(signal)
    }

    /// Waits until it has ended.
    pub fn await_end(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.ended()?.is_none() {
            ensure!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Fails if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.ended().with_context(|| format!("waiting for {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_end()),
        }
    }

    /// The log's last lines.
    pub fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines[from..].iter().map(|line| format!("  | {line}\n")).collect()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // Every caller has just seen that the child was not reaped, so the number is still its own.
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    fn end(&mut self) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGCONT)?;
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal(Signal::SIGKILL)?;
        while self.ended()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{} may still be running: {error:#}", self.name);
        }
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
