//! The two ways to talk to a guest's QEMU: its serial console, where a shell runs, and its monitor.
//!
//! Both are unix sockets that serve one connection at a time. Each command makes a connection of
//! its own: QEMU drops what the guest prints while nobody is connected, so an idle guest never
//! waits for a reader, and nothing here outlives a reboot. The guest's side of the shell is
//! `scripts/lib/guest-init.sh`.

use super::process::Output;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A connection with an end to all waiting.
struct Console {
    stream: UnixStream,
    received: Vec<u8>,
    deadline: Instant,
}

/// Makes each command's marker its own, so that the late output of one is never taken for the
/// next one's.
static COMMANDS: AtomicU32 = AtomicU32::new(0);

/// Runs a command line in the guest's shell. The shell is the same for all commands, so a `cd` or a
/// variable persists. A command that takes longer than `timeout` is interrupted and is an error.
pub fn run(socket: &Path, command: &str, timeout: Duration) -> Result<Output, String> {
    let marker = format!("{}x{}", std::process::id(), COMMANDS.fetch_add(1, Ordering::Relaxed));
    let (begin, end) = (format!("BEGIN{marker}\n"), format!("END{marker}:"));
    let line = format!(
        "echo BEGIN{marker}; eval {} </dev/null 2>&1; echo END{marker}:$?\n",
        quote(command)
    );
    // The guest's terminal passes on 4095 bytes of a line and drops the rest.
    if line.len() > 4000 {
        return Err(format!("the command is too long for a terminal's line: {command}"));
    }

    let mut console = Console::open(socket, timeout)?;
    console.send(&line)?;
    console.receive_until(&begin)?;
    let text = match console.receive_until(&end) {
        Ok(text) => text,
        Err(reason) => {
            // Ctrl-C; the connection must stay until QEMU has read it.
            let _ = console.send("\x03");
            thread::sleep(Duration::from_millis(300));
            let so_far = String::from_utf8_lossy(&console.received);
            return Err(format!("'{command}': {reason}; it had printed:\n{so_far}"));
        }
    };
    let status = console.receive_until("\n")?;
    let status = status.trim().parse().map_err(|_| format!("no exit status: '{status}'"))?;
    Ok(Output { status, text })
}

/// Gives QEMU's monitor a command of its human language, such as `set_link net off`, and returns
/// the answer. Before the first vhost-user connection QEMU does not answer.
pub fn monitor(socket: &Path, command: &str, timeout: Duration) -> Result<String, String> {
    const PROMPT: &str = "(qemu) ";
    let mut console = Console::open(socket, timeout)?;
    console.receive_until(PROMPT)?;
    console.send(&format!("{command}\n"))?;
    // The monitor echoes the command, with escape sequences, up to the end of the line.
    console.receive_until("\r\n")?;
    match console.receive_until(PROMPT) {
        Ok(answer) => Ok(answer.replace('\r', "")),
        Err(reason) => Err(format!("QEMU's monitor, '{command}': {reason}")),
    }
}

impl Console {
    fn open(socket: &Path, timeout: Duration) -> Result<Console, String> {
        let failed = |error| format!("{}: {error}", socket.display());
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_millis(100))).map_err(failed)?;
        Ok(Console { stream, received: Vec::new(), deadline: Instant::now() + timeout })
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.stream.write_all(text.as_bytes()).map_err(|error| format!("cannot write: {error}"))
    }

    /// Everything up to the mark, which is consumed. What is behind it stays for the next call.
    fn receive_until(&mut self, mark: &str) -> Result<String, String> {
        let mut buffer = [0; 4096];
        loop {
            let found = self.received.windows(mark.len()).position(|part| part == mark.as_bytes());
            if let Some(at) = found {
                let rest = self.received.split_off(at + mark.len());
                let text = String::from_utf8_lossy(&self.received[..at]).into_owned();
                self.received = rest;
                return Ok(text);
            }
            if Instant::now() > self.deadline {
                return Err("no answer in time".to_owned());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the guest ended".to_owned()),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("cannot read: {error}")),
            }
        }
    }
}

/// The command as one word of bash, on one line.
fn quote(command: &str) -> String {
    let mut word = String::from("$'");
    for character in command.chars() {
        match character {
            '\\' | '\'' => word.extend(['\\', character]),
            control if control.is_ascii_control() => {
                write!(word, "\\x{:02x}", u32::from(control)).expect("a string takes all");
            }
            other => word.push(other),
        }
    }
    word.push('\'');
    word
}
