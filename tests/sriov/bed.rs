//! A machine with SR-IOV cards, in which the switch itself runs.
//!
//! `scripts/sriov-image` makes it and says what is in it; `scripts/sriov-guest` starts it, here always
//! from the snapshot that was taken when it had booted, so that each test has a machine of its own, as
//! it was then, within seconds. The program that was just built comes on a disk. Tests use the switch
//! in there as an operator does, by the machine's shell, and are themselves what is on the wires.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::console;
use crate::common::process::{self, Output, Process, eventually};
use crate::common::{self, daemon::HOST, daemon::uuid};
use crate::wire::Wire;

/// Time for the machine to go on from its snapshot, on a host whose cores others use too.
const RESTORE: Duration = Duration::from_secs(120);

/// Time for what takes a second or two there, where there is no hardware virtualisation.
pub const SOON: Duration = Duration::from_secs(90);

/// Octets of the disk that the program comes on: as when the snapshot was taken.
const MEDIA: u64 = 128 << 20;

/// What a configuration has in every test.
const CONFIGURATION: &str = "host = 'here'\n\
    [dpdk]\nmemory_mib = 160\npool_frames = 8191\n\
    [fdb]\nentries = 4096\n\
    [workers]\ncores = [1]\nidle = 'sleep'\nsleep_max_us = 500\n";

/// The machine. Dropping it ends it.
pub struct Bed {
    process: Process,
    folder: TempDir,
    /// The far ends of the wires of its cards `pf0` and `pf1`.
    pub wires: [Wire; 2],
}

/// Whether such machines can run here. If not, the reason is printed past the test runner's capture.
pub fn available() -> bool {
    let there = root().join(".cache/sriov/stamp").exists();
    if !there {
        common::skip(
            "there is no machine with SR-IOV: run scripts/sriov-image, which needs QEMU 8.2 or later \
             with the card `igb`, or Debian's backports, which have one",
        );
    }
    there
}

impl Bed {
    /// The machine as it is after its boot, with the program in it.
    #[track_caller]
    pub fn restore() -> Bed {
        let folder = tempfile::Builder::new().prefix("sriov-").tempdir().expect("a folder in /tmp");
        let mut command = Command::new(root().join("scripts/sriov-guest"));
        command.arg("--place").arg(folder.path()).arg("--media").arg(media()).arg("--restore");
        let mut process = Process::start(&mut command);
        let deadline = Instant::now() + RESTORE;
        let mut until = |what: &str, done: &dyn Fn() -> bool| {
            while !done() {
                let lives = process.status().is_none() && Instant::now() < deadline;
                assert!(lives, "{what} ({:?}): {}", process.status(), process.text());
                thread::sleep(Duration::from_millis(50));
            }
        };
        let socket = |name: &str| folder.path().join(name);
        let sockets = ["wire0", "wire1", "console", "monitor"];
        until("QEMU makes no sockets", &|| sockets.iter().all(|name| socket(name).exists()));
        let wires = ["wire0", "wire1"].map(|name| {
            // The file is there before QEMU listens.
            let mut wire = Wire::connect(&socket(name));
            while wire.is_err() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
                wire = Wire::connect(&socket(name));
            }
            wire.expect("QEMU takes what is on its wires")
        });
        let monitor = |command: &str| console::monitor(&socket("monitor"), command, RESTORE);
        until("QEMU does not take the wires", &|| {
            monitor("info network").is_ok_and(|said| said.matches("type=stream,unix:").count() == 2)
        });
        let snapshot = root().join(".cache/sriov/snapshot");
        let restore = format!("migrate_incoming file:{}", snapshot.display());
        monitor(&restore).expect("QEMU takes the snapshot");
        let answers = || console::run(&socket("console"), "true", Duration::from_secs(5)).is_ok();
        until("the machine does not go on", &answers);
        let bed = Bed { process, folder, wires };
        bed.sh("tar -xf /dev/vda -C /usr/bin && mkdir -p /run/viaduct/vhost /var/lib/viaduct");
        bed
    }

    /// Runs a command line in the machine's shell; it must succeed. Returns what it prints.
    #[track_caller]
    pub fn sh(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(output.status == 0, "`{command}` failed with {}:\n{}", output.status, output.text);
        output.text
    }

    /// Runs a command line in the machine's shell.
    #[track_caller]
    pub fn run(&self, command: &str) -> Output {
        self.try_run(command, SOON).unwrap_or_else(|reason| panic!("`{command}`: {reason}"))
    }

    fn try_run(&self, command: &str, timeout: Duration) -> Result<Output, String> {
        console::run(&self.path("console"), command, timeout)
    }

    /// Gives QEMU's monitor a command (`set_link wire0 off`), and returns its answer.
    #[track_caller]
    pub fn monitor(&self, command: &str) -> String {
        console::monitor(&self.path("monitor"), command, SOON).expect("QEMU answers")
    }

    /// Writes a file in the machine, whole.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let folder = Path::new(path).parent().expect("a file is in a folder").display();
        let mut left = text;
        self.sh(&format!("mkdir -p {folder} && : >{path}.new"));
        while !left.is_empty() {
            // A line of the terminal has an end; the shell's quoting takes some of it.
            let at = left.char_indices().map(|(at, _)| at).take_while(|at| *at <= 1500).last();
            let at = if left.len() <= 1500 { left.len() } else { at.unwrap_or(left.len()) };
            let (part, rest) = left.split_at(at);
            self.sh(&format!("printf %s '{}' >>{path}.new", part.replace('\'', r"'\''")));
            left = rest;
        }
        self.sh(&format!("mv {path}.new {path}"));
    }

    /// Starts the switch with this beside what is in every configuration, and waits until it answers.
    #[track_caller]
    pub fn start(&self, configuration: &str) {
        self.configure(configuration);
        self.start_again();
    }

    /// Writes a configuration for who reads it next: this beside what is in every one.
    #[track_caller]
    pub fn configure(&self, configuration: &str) {
        self.write("/etc/viaduct/viaduct.toml", &format!("{CONFIGURATION}{configuration}"));
    }

    /// Has a new process of the switch go on in the place of the one that runs; returns its process id.
    #[track_caller]
    pub fn hand_over(&self) -> u64 {
        let told = self.json("handover");
        let pid = told["pid"].as_u64().expect("a process");
        self.sh(&format!("echo {pid} >/run/viaduct.pid"));
        pid
    }

    /// Starts the switch as it was configured last, and waits until it answers.
    #[track_caller]
    pub fn start_again(&self) {
        self.sh("setsid viaduct run >>/run/viaduct.log 2>&1 & echo $! >/run/viaduct.pid");
        eventually("the switch answers", SOON, || {
            let runs = self.run("kill -0 $(cat /run/viaduct.pid)").status == 0;
            assert!(runs, "the switch has ended:\n{}", self.log());
            self.run("viaduct show").status == 0
        });
    }

    /// Ends the switch in order, and waits for that.
    #[track_caller]
    pub fn stop(&self) {
        self.sh("kill $(cat /run/viaduct.pid)");
        self.wait_ended();
    }

    /// Ends the switch at once, as a crash would.
    #[track_caller]
    pub fn kill(&self) {
        self.sh("kill -9 $(cat /run/viaduct.pid)");
        self.wait_ended();
    }

    #[track_caller]
    fn wait_ended(&self) {
        eventually("the switch ends", SOON, || {
            self.run("kill -0 $(cat /run/viaduct.pid)").status != 0
        });
    }

    /// What the switch has logged, in former lives too.
    pub fn log(&self) -> String {
        self.try_run("cat /run/viaduct.log", SOON).map(|output| output.text).unwrap_or_default()
    }

    /// Waits until the switch has logged this, and returns that line.
    #[track_caller]
    pub fn wait_logged(&self, text: &str) -> String {
        let mut line = None;
        eventually(&format!("the switch logs `{text}`"), SOON, || {
            line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            line.is_some()
        });
        line.expect("it was just found")
    }

    /// Writes an object into the store.
    #[track_caller]
    pub fn put(&self, key: &str, value: &Value) {
        self.write(&format!("/var/lib/viaduct/{key}.json"), &value.to_string());
    }

    /// Deletes an object from the store.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.sh(&format!("rm /var/lib/viaduct/{key}.json"));
    }

    /// What a command of the program prints as JSON: `show ports --json`.
    #[track_caller]
    pub fn json(&self, arguments: &str) -> Value {
        let text = self.sh(&format!("viaduct {arguments} --json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
    }

    /// The actual state of a port by its name in the test, or of a physnet (`physnets/wire`).
    #[track_caller]
    pub fn state(&self, what: &str) -> Option<Value> {
        let part =
            if what.contains('/') { what.to_owned() } else { format!("ports/{}", uuid(what)) };
        let output = self.run(&format!("cat /var/lib/viaduct/state/{HOST}/{part}.json"));
        (output.status == 0).then(|| serde_json::from_str(&output.text).expect("state is JSON"))
    }

    /// Waits until a port, or a physnet, has this status, and returns its state.
    #[track_caller]
    pub fn wait_status(&self, what: &str, status: &str) -> Value {
        let mut last = None;
        let deadline = Instant::now() + SOON;
        loop {
            last = self.state(what).or(last);
            match last {
                Some(state) if state["status"] == status => return state,
                _ => assert!(
                    Instant::now() < deadline,
                    "{what} is not {status}: {last:?}\n{}",
                    self.log()
                ),
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a port, or a physnet, has a reason with this in it, and returns the reason.
    #[track_caller]
    pub fn wait_reason(&self, what: &str, part: &str) -> String {
        let mut reason = String::new();
        eventually(&format!("the reason of {what} has `{part}`"), SOON, || {
            let state = self.state(what).unwrap_or_default();
            reason = state["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains(part)
        });
        reason
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            let kernel = self.try_run("dmesg | tail -n 20", SOON).map(|output| output.text);
            eprintln!("--- end of the switch's log:\n{tail}");
            eprintln!("--- end of the kernel's log:\n{}", kernel.unwrap_or_else(|reason| reason));
            eprintln!("--- QEMU:\n{}", self.process.text());
        }
        self.process.kill();
    }
}

/// The disk with the program, made once for all tests of this process.
fn media() -> &'static Path {
    static MEDIUM: OnceLock<PathBuf> = OnceLock::new();
    MEDIUM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sriov-media");
        fs::create_dir_all(&folder).expect("cargo's folder is ours");
        let (program, disk) = (folder.join("viaduct"), folder.join("disk"));
        let mut strip = Command::new("strip");
        // Without what debuggers read it is a tenth as large.
        strip.arg("--strip-debug").arg(env!("CARGO_BIN_EXE_viaduct")).arg("-o").arg(&program);
        process::run(&mut strip, SOON).success();
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&disk).arg("-C").arg(&folder).arg("viaduct");
        process::run(&mut tar, SOON).success();
        let disk_file = fs::OpenOptions::new().write(true).open(&disk).expect("tar made it");
        let length = disk_file.metadata().expect("it is open").len();
        assert!(length <= MEDIA, "the program has {length} octets, more than the disk");
        disk_file.set_len(MEDIA).expect("the rest is a hole");
        disk
    })
}

/// The root of the source tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
