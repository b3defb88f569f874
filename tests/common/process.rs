//! Processes that tests start: bounded in time, output kept, ended with the test.
//!
//! Everything that a test starts on this machine goes through [`Process`], because a test that
//! fails, panics or is killed must not leave a guest or a packet generator running. What a process
//! prints goes to a file and not to a pipe, so that nobody has to read it while it runs and a
//! grandchild that keeps the pipe open cannot block a test.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A running process and what it has printed. Dropping it ends the process and its children.
pub struct Process {
    child: Child,
    /// Standard output and standard error in the order they were written.
    output: File,
    /// Filled once the process has ended and been waited for: its id may then be somebody else's.
    status: Option<i32>,
    /// The process that goes on in its place, of the same group.
    successor: Option<libc::pid_t>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// The exit status; 128 plus the signal's number when a signal ended it.
    pub status: i32,
    /// Standard output and standard error in the order they were written.
    pub text: String,
}

impl Output {
    /// The text of a command that must succeed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status == 0, "the command failed with {}:\n{}", self.status, self.text);
        self.text
    }
}

impl Process {
    /// Starts the command with no input, in a process group of its own.
    ///
    /// It lives no longer than the *thread* that calls this (`PR_SET_PDEATHSIG`): each test
    /// starts its own processes and doesn't hand them to another test.
    #[track_caller]
    pub fn start(command: &mut Command) -> Process {
        let output = tempfile::tempfile().expect("a temporary file for the output");
        let copy = |file: &File| Stdio::from(file.try_clone().expect("a copy of the descriptor"));
        command.stdin(Stdio::null()).stdout(copy(&output)).stderr(copy(&output)).process_group(0);
        // What a process leaves behind becomes a child of this one, as it would of systemd.
        // SAFETY: sets an attribute of this process and touches no memory.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; this closure
        // makes one such call, prctl, and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        match command.spawn() {
            Ok(child) => Process { child, output, status: None, successor: None },
            Err(error) => panic!("{command:?} did not start: {error}"),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.successor.map_or(self.child.id(), |successor| successor as u32)
    }

    /// Waits until it has ended, and goes on with a process that it has started.
    #[track_caller]
    pub fn go_on_with(&mut self, successor: u32, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.status().is_none() {
            assert!(
                Instant::now() < deadline,
                "it does not end, and is handed over:\n{}",
                self.text()
            );
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.status.take(), Some(0), "its end:\n{}", self.text());
        self.successor = Some(successor as libc::pid_t);
    }

    /// All that it has printed so far.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        // The descriptor shares its offset with the process, which writes where the offset is: a
        // view of its own, by /proc, leaves the process's alone.
        let mut view = File::open(format!("/proc/self/fd/{}", descriptor(&self.output)))
            .expect("our own descriptor");
        view.rewind().and_then(|()| view.read_to_end(&mut bytes)).expect("a readable file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its exit status if it has ended.
    pub fn status(&mut self) -> Option<i32> {
        if let (None, Some(successor)) = (self.status, self.successor) {
            let mut status = 0;
            // SAFETY: writes the status and nothing else. The process is a child of this one since the
            // former one has ended, and was not waited for.
            if unsafe { libc::waitpid(successor, &mut status, libc::WNOHANG) } != 0 {
                let exited = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                self.status = Some(exited.unwrap_or_else(|| 128 + libc::WTERMSIG(status)));
            }
        } else if self.status.is_none() {
            let ended = self.child.try_wait().expect("a child of this process");
            self.status = ended.map(|status| {
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
            });
        }
        self.status
    }

    /// Waits until it ends by itself. After `timeout`, ends it and panics.
    #[track_caller]
    pub fn finish(mut self, timeout: Duration) -> Output {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.status() {
                return Output { status, text: self.text() };
            }
            if Instant::now() > deadline {
                self.kill();
                panic!("it did not end within {timeout:?}; it had printed:\n{}", self.text());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to it and its children, if it still runs.
    pub fn signal(&mut self, signal: i32) {
        if self.status().is_some() {
            return;
        }
        let group = self.child.id().cast_signed();
        // SAFETY: as in `kill`: two integers, and a group that is still the child's own.
        unsafe { libc::killpg(group, signal) };
    }

    /// Ends it and its children now (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.status().is_some() {
            return;
        }
        let group = self.child.id().cast_signed();
        // SAFETY: killpg takes two integers and touches no memory. The group is the child's own:
        // it was made at the start, and the child has not been waited for, so the id is not reused.
        unsafe { libc::killpg(group, libc::SIGKILL) };
        if let Some(successor) = self.successor {
            // SAFETY: as in `status`, without a status.
            unsafe { libc::waitpid(successor, std::ptr::null_mut(), 0) };
            self.status = Some(128 + libc::SIGKILL);
            return;
        }
        let ended = self.child.wait().expect("a child of this process");
        self.status = Some(128 + ended.signal().unwrap_or_default());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end, within `timeout`.
#[track_caller]
pub fn run(command: &mut Command, timeout: Duration) -> Output {
    Process::start(command).finish(timeout)
}

/// Asks again and again until the condition holds; panics with `what` after `timeout`. Tests use
/// it instead of sleeping, as this machine may be much slower today.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn descriptor(file: &File) -> i32 {
    use std::os::fd::AsRawFd;
    file.as_raw_fd()
}
