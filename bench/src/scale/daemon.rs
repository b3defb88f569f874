//! The measured daemon, as an operator has it: started, asked over its socket, ended by a signal. Its
//! guests' sockets are listened on; a guest's driver is not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use crate::desired::{HOST, socket};
use crate::size::Size;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long its end may take.
const END: Duration = Duration::from_secs(20);
/// Between two questions. A change is seen to be in force so much too late at most.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// Memory for DPDK.
const MEMORY_MIB: u64 = 128;

/// A daemon, running or not. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
    /// How often one of its guests' sockets was connected to.
    connections: Arc<AtomicUsize>,
}

/// Memory of the process, in octets.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// On ordinary pages now.
    pub resident: u64,
    /// The most that this has been.
    pub peak: u64,
    /// On huge pages.
    pub huge: u64,
}

impl Daemon {
    /// Makes what it needs in a directory. It is not started yet.
    pub fn new(program: &Path, directory: &Path, endpoint: &str, size: &Size) -> Result<Daemon> {
        let path = |name: &str| format!("{:?}", directory.join(name));
        let configuration = format!(
            "host = {HOST:?}\n\
             [store]\ncache = {}\n\
             [store.etcd]\nendpoints = [{endpoint:?}]\n\
             [control]\nsocket = {}\n\
             [workers]\nidle = \"sleep\"\n\
             [vhost]\nsocket_directory = {}\n\
             [dpdk]\nhugepages = {}\nmemory_mib = {MEMORY_MIB}\npool_frames = 1024\n",
            path("cache.json"),
            path("control.sock"),
            path(""),
            free_huge_pages()? >= MEMORY_MIB / 2,
        );
        fs::write(directory.join("viaduct.toml"), configuration).context("the configuration")?;
        let connections = Arc::new(AtomicUsize::new(0));
        for number in 0..size.ports {
            let listener = UnixListener::bind(directory.join(socket(number)));
            let listener = listener.context("listening for the daemon")?;
            tokio::spawn(listen(listener, Arc::clone(&connections)));
        }
        let (program, directory) = (program.to_owned(), directory.to_owned());
        Ok(Daemon { program, directory, child: None, connections })
    }

    /// Starts it. It may take its time to answer.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.context("the daemon's log")?;
        // It ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(["run", "--config"])
            .arg(self.directory.join("viaduct.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the daemon's log")?)
            .stderr(log);
        self.child = Some(command.spawn().context("starting the daemon")?);
        Ok(())
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(&child, Signal::SIGTERM)?;
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the daemon ended ({status}): {}", self.log_end());
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        child.kill()?;
        child.wait()?;
        bail!("the daemon did not end: {}", self.log_end())
    }

    /// Freezes it, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let child = self.child.as_ref().context("the daemon does not run")?;
        signal(child, if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the daemon does not run")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon ended ({status}): {}", self.log_end()),
        }
    }

    /// Asks it something. Returns what is in the answer.
    pub async fn ask(&self, question: &Value) -> Result<Value> {
        let talk = async {
            let mut stream = UnixStream::connect(self.directory.join("control.sock")).await?;
            stream.write_all(format!("{question}\n").as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(PATIENCE, talk).await.context("the daemon does not answer")?;
        let mut answer: Value = serde_json::from_slice(&answer.context("asking the daemon")?)?;
        let name = question["query"].as_str().unwrap_or_default();
        match answer["answer"][name].take() {
            Value::Null => bail!("the daemon refuses {question}: {answer}"),
            answer => Ok(answer),
        }
    }

    /// Asks until the answer is as it should be. Returns when that was known.
    pub async fn until(
        &mut self,
        question: &Value,
        right: impl Fn(&Value) -> bool,
    ) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(question).await?;
            if right(&answer) {
                return Ok(Instant::now());
            }
            self.check()?;
            ensure!(Instant::now() < deadline, "{question} is still answered by {answer}");
            sleep(ASK_AGAIN).await;
        }
    }

    /// How often a guest's socket was connected to so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Memory of the process now.
    pub fn memory(&self) -> Result<Memory> {
        let (status, _) = self.process_files()?;
        let field = |name: &str| -> u64 {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        };
        Ok(Memory { resident: field("VmRSS"), peak: field("VmHWM"), huge: field("HugetlbPages") })
    }

    /// CPU seconds of the process so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let (_, stat) = self.process_files()?;
        // What comes before may have blanks in it: the program's name in parentheses.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|it| it.parse::<u64>().ok())
            .sum();
        // USER_HZ is 100 wherever Linux runs.
        Ok(ticks as f64 / 100.0)
    }

    fn process_files(&self) -> Result<(String, String)> {
        let id = self.child.as_ref().context("the daemon does not run")?.id();
        let read = |name: &str| fs::read_to_string(format!("/proc/{id}/{name}"));
        Ok((read("status")?, read("stat")?))
    }

    fn log(&self) -> PathBuf {
        self.directory.join("viaduct.log")
    }

    /// The end of its log, for errors.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // What was not stopped in order is of no worth any more.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Takes connections and keeps each for as long as the other end does.
async fn listen(listener: UnixListener, connections: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut octets = [0; 64];
            while matches!(stream.read(&mut octets).await, Ok(read) if read > 0) {}
        });
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    // The child was not waited for, so the number is its own.
    kill(Pid::from_raw(child.id().cast_signed()), signal)
        .with_context(|| format!("sending {signal} to the daemon"))
}

fn free_huge_pages() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let free = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    Ok(free.and_then(|free| free.trim().parse().ok()).unwrap_or(0))
}
