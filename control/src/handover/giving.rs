//! The process that is to go on, as the one that runs sees it: started with the program that lies where
//! its own lay, with the same arguments, and greeted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dataplane::dpdk::keep_descriptors;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use vhost::socket::Parcels;

use super::{Channel, ChannelError, Hello, Message};

/// What `viaduct run` is told to take over by.
const FLAG: &str = "--take-over";

/// How long the end of a process that was ended is waited for.
const END: Duration = Duration::from_secs(2);

/// The new process. It ends when this is dropped, unless [`leave`](Self::leave) was called.
pub(crate) struct Successor {
    channel: Channel,
    child: Option<Child>,
    pid: u32,
    greeted: bool,
}

/// What the new process says.
pub(crate) enum Word {
    /// Its greeting.
    Hello(Hello),
    /// Anything else.
    Message(Message),
}

/// The program and the arguments that a daemon runs by.
#[derive(Clone, Debug)]
pub struct CommandLine {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl CommandLine {
    /// That of this process. To be asked at its start, as the program may be replaced later.
    pub fn own() -> io::Result<Self> {
        let arguments = std::env::args_os().skip(1).filter(|word| word != FLAG).collect();
        Ok(Self { program: std::env::current_exe()?, arguments })
    }

    /// Where the program lies.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

impl Successor {
    /// Starts it, where this process was `allowed` to run before it left the workers' cores.
    pub(crate) fn start(line: &CommandLine, allowed: &BTreeSet<u32>) -> io::Result<Self> {
        // What DPDK has open is to be free as soon as this process has closed it.
        keep_descriptors()?;
        let (ours, theirs) = Parcels::pair()?;
        let channel = Channel::new(ours)?;
        let mut command = Command::new(&line.program);
        command.args(&line.arguments).arg(FLAG).stdin(Stdio::from(theirs));
        // The watchdog is this process's until systemd is told of the other.
        command.env_remove("WATCHDOG_PID");
        let mut cpus = CpuSet::new();
        for cpu in allowed {
            // One that cannot be in a set was not allowed either.
            let _ = cpus.set(*cpu as usize);
        }
        // A process begins on the CPUs of the thread that starts it, so that is one of its own.
        let starter = std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
            sched_setaffinity(Pid::from_raw(0), &cpus)?;
            command.spawn()
        })?;
        let child = starter.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))?;
        Ok(Self { channel, pid: child.id(), child: Some(child), greeted: false })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it says next. Nothing is lost if the waiting is given up.
    pub(crate) async fn next(&mut self) -> Result<Word, ChannelError> {
        if self.greeted {
            return Ok(Word::Message(self.channel.receive().await?.0));
        }
        let (greeting, _) = self.channel.receive::<serde_json::Value>().await?;
        self.greeted = true;
        // It may be told that it is refused before it has a greeting to send.
        match serde_json::from_value(greeting.clone()) {
            Ok(hello) => Ok(Word::Hello(hello)),
            Err(_) => Ok(Word::Message(serde_json::from_value(greeting)?)),
        }
    }

    /// The same, if it comes in time.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Result<Message, ChannelError> {
        Ok(self.channel.receive_within(time).await?.0)
    }

    /// Tells it something.
    pub(crate) async fn tell(
        &mut self,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        self.channel.send(message, descriptors).await
    }

    /// Lets it live on, as it has taken over.
    pub(crate) fn leave(&mut self) {
        self.child = None;
    }

    /// Takes note of its end, which it comes to by itself, beside this thread.
    pub(crate) fn leave_to_end(&mut self) {
        if let Some(child) = self.child.take() {
            wait(child);
        }
    }

    /// Ends it, and waits for that.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It fails if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How it ended, if it has; else it is ended.
    pub(crate) fn end(mut self) -> String {
        let Some(mut child) = self.child.take() else { return String::new() };
        let deadline = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.to_string();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        reap(child);
        "it was ended".to_owned()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            reap(child);
        }
    }
}

/// Ends a process, and takes note of its end beside this thread.
fn reap(mut child: Child) {
    // It fails if it has ended already.
    let _ = child.kill();
    wait(child);
}

/// Takes note of a process's end beside this thread; one that does not come to it is ended.
fn wait(mut child: Child) {
    let waiting = std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
        let deadline = std::time::Instant::now() + END;
        while !matches!(child.try_wait(), Ok(Some(_))) {
            if std::time::Instant::now() >= deadline {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // Without the thread there is a zombie until this process ends.
    drop(waiting);
}
