//! A running switch, as a value that a test holds: `viaduct run` with a configuration, a store and
//! sockets of its own in a temporary folder.
//!
//! Tests use it from outside, as an operator does: by files in the store, by the program's commands,
//! by signals, and by what it reports. Its workers sleep when idle and it takes no huge pages, so
//! that it runs beside guests on a machine with two cores. It is not a way to look into the switch:
//! what no command shows has tests beside the code.

use super::process::{self, Output, Process, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Time for what takes well under a second, on a machine that guests keep busy.
pub const SOON: Duration = Duration::from_secs(30);

/// The host that the configuration names.
pub const HOST: &str = "here";

/// A switch, running or not. Dropping it ends its process and removes its folder; when the test is
/// failing, the end of its log is printed.
pub struct Daemon {
    place: Place,
    process: Option<Process>,
    /// What former processes wrote.
    former_log: String,
}

/// What a switch shall be.
pub struct Builder {
    place: Place,
}

/// A folder with all that a switch needs.
struct Place {
    folder: TempDir,
    /// The configuration: dotted keys of TOML and their values.
    config: BTreeMap<String, String>,
    /// A command that becomes the one that follows it.
    wrapper: Vec<String>,
    /// The program.
    program: PathBuf,
}

/// The UUID that stands for a name in these tests: the name's octets, of which there are at most
/// sixteen. It tells in a log what is meant.
pub fn uuid(name: &str) -> String {
    assert!(name.len() <= 16, "the name {name} is too long");
    let mut digits: String = name.bytes().map(|octet| format!("{octet:02x}")).collect();
    digits.extend(std::iter::repeat_n('0', 32 - digits.len()));
    for hyphen in [8, 13, 18, 23] {
        digits.insert(hyphen, '-');
    }
    digits
}

/// The key of a network by its name in the test.
pub fn network_key(name: &str) -> String {
    format!("networks/{}", uuid(name))
}

/// The key of a port of the switch's host by its name in the test.
pub fn port_key(name: &str) -> String {
    format!("nodes/{HOST}/ports/{}", uuid(name))
}

impl Daemon {
    /// Describes a switch without networks, ports and physnets.
    pub fn builder() -> Builder {
        let folder = tempfile::Builder::new().prefix("viaduct-").tempdir().expect("a folder");
        for part in ["store", "vhost"] {
            fs::create_dir(folder.path().join(part)).expect("the folder is empty");
        }
        let path = |part: &str| format!("'{}'", folder.path().join(part).display());
        let config = [
            ("host", format!("'{HOST}'")),
            ("store.directory", path("store")),
            ("control.socket", path("viaduct.sock")),
            ("vhost.socket_directory", path("vhost")),
            ("workers.idle", "'sleep'".to_owned()),
            ("workers.sleep_max_us", "100".to_owned()),
            ("dpdk.hugepages", "false".to_owned()),
            ("dpdk.pool_frames", "8191".to_owned()),
        ];
        let config = config.map(|(key, value)| (key.to_owned(), value)).into();
        let program = env!("CARGO_BIN_EXE_viaduct").into();
        Builder { place: Place { folder, config, wrapper: Vec::new(), program } }
    }

    /// Starts it, and waits until it answers commands.
    #[track_caller]
    pub fn start(&mut self) {
        self.launch();
        self.wait_for_answers();
    }

    /// Starts it.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(Process::start(&mut self.place.run()));
    }

    /// Waits until it answers commands.
    #[track_caller]
    pub fn wait_for_answers(&mut self) {
        let mut process = self.process.take().expect("it was launched");
        eventually("the switch answers", SOON, || {
            if let Some(status) = process.status() {
                panic!("the switch ended with status {status}:\n{}", process.text());
            }
            self.viaduct(&["show", "--json"]).status == 0
        });
        self.process = Some(process);
    }

    /// Stops it as an administrator does, by SIGTERM. It must end in order: with status 0, without
    /// a panic, and with nothing left that it reported.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let pid = process.pid().cast_signed();
        if process.status().is_none() {
            // SAFETY: kill takes two integers and touches no memory. The process has not been
            // waited for, so its id is not another's.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let Output { status, text } = process.finish(SOON);
        assert!(status == 0, "the switch ended with status {status}:\n{text}");
        assert!(!text.contains("panicked"), "a thread of the switch panicked:\n{text}");
        self.former_log.push_str(&text);
        let reported = self.folder().join("store/state").join(HOST);
        let left: Vec<_> = files(&reported).collect();
        assert!(left.is_empty(), "the switch left what it reported: {left:?}");
    }

    /// Stops it in order and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Ends it at once, as a crash would (SIGKILL).
    #[track_caller]
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill();
        self.former_log.push_str(&process.text());
    }

    /// Has a new process go on in its place, and returns what the command says of it.
    #[track_caller]
    pub fn hand_over(&mut self) -> Value {
        let text = self.viaduct(&["handover", "--json"]).success();
        let view: Value = serde_json::from_str(&text).expect("JSON");
        self.go_on_with(&view);
        view
    }

    /// Goes on with the process that `viaduct handover --json` has told of.
    #[track_caller]
    pub fn go_on_with(&mut self, handover: &Value) {
        let successor = handover["pid"].as_u64().expect("a process") as u32;
        self.process.as_mut().expect("it runs").go_on_with(successor, SOON);
    }

    /// Changes a key of the configuration, or has it as it was: for who reads it next.
    pub fn rewrite(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => drop(self.place.config.insert(key.to_owned(), value.to_owned())),
            None => drop(self.place.config.remove(key)),
        }
        self.place.write_config();
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// All that it has logged, in former processes too.
    pub fn log(&self) -> String {
        let now = self.process.as_ref().map(Process::text).unwrap_or_default();
        format!("{}{now}", self.former_log)
    }

    /// Its folder: `viaduct.toml`, `viaduct.sock`, `store/` and, for the guests' sockets, `vhost/`.
    pub fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// The path of a socket in its socket directory.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder().join("vhost").join(format!("{name}.sock"))
    }

    /// Writes an object into the store, whole, as tools should: a network or port that was there is
    /// replaced.
    #[track_caller]
    pub fn put(&self, key: &str, value: &Value) {
        self.put_text(key, &value.to_string());
    }

    /// The same, with a text that need not be JSON.
    #[track_caller]
    pub fn put_text(&self, key: &str, text: &str) {
        let file = self.file(key);
        let folder = file.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("the store is ours");
        let beside = folder.join(".new");
        fs::write(&beside, text).expect("the store is ours");
        fs::rename(&beside, &file).expect("it is beside");
    }

    /// Deletes an object from the store.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        fs::remove_file(self.file(key)).expect("it was put there");
    }

    /// Adds a network that does not leave the host, or changes one to that.
    #[track_caller]
    pub fn local_network(&self, name: &str) {
        self.put(&network_key(name), &json!({"name": name, "type": "local"}));
    }

    /// Adds a port for a guest, whose socket is [`Daemon::socket`] of the port's name, or replaces
    /// one.
    #[track_caller]
    pub fn guest_port(&self, name: &str, network: &str, mac: &str) {
        self.put(&port_key(name), &guest_port(name, network, mac));
    }

    /// Runs a command of the program against this switch or its store: `show ports`,
    /// `port del web`.
    #[track_caller]
    pub fn viaduct(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
        process::run(command.args(arguments).arg("--config").arg(self.place.config_file()), SOON)
    }

    /// What `viaduct show` has to say on a topic, or in general with none.
    #[track_caller]
    pub fn show(&self, topic: &str) -> Value {
        let mut arguments = vec!["show", "--json"];
        arguments.extend(Some(topic).filter(|topic| !topic.is_empty()));
        let text = self.viaduct(&arguments).success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
    }

    /// What `viaduct show` has to say about one port, named as in the test: its line of that topic.
    #[track_caller]
    pub fn show_port(&self, topic: &str, name: &str) -> Value {
        let all = self.show(topic);
        let all = all.as_array().expect("a list of ports");
        let found = all.iter().find(|one| one["uuid"] == uuid(name));
        found.unwrap_or_else(|| panic!("`show {topic}` has no {name} in {all:#?}")).clone()
    }

    /// All that keeps an object or its new value out of force, by `viaduct show errors`. Warnings
    /// are left out: on a small machine the configuration has one.
    #[track_caller]
    pub fn errors(&self) -> Vec<Value> {
        let all = self.show("errors");
        let all = all.as_array().expect("a list of problems");
        all.iter().filter(|problem| problem["severity"] == "error").cloned().collect()
    }

    /// The actual state of a port, if one is reported.
    pub fn state(&self, name: &str) -> Option<Value> {
        let key = format!("state/{HOST}/ports/{}", uuid(name));
        let text = fs::read(self.file(&key)).ok()?;
        // It is written whole, hence always JSON.
        Some(serde_json::from_slice(&text).expect("reported state is JSON"))
    }

    /// Waits until a port is reported with this status, and returns the report.
    #[track_caller]
    pub fn wait_status(&self, name: &str, status: &str) -> Value {
        let mut last = None;
        eventually(&format!("port {name} is {status}"), SOON, || {
            last = self.state(name);
            last.as_ref().is_some_and(|state| state["status"] == status)
        });
        last.expect("it was just read")
    }

    /// Waits until a port is ready.
    #[track_caller]
    pub fn wait_ready(&self, name: &str) -> Value {
        self.wait_status(name, "ready")
    }

    /// Waits until nothing is reported about a port any more.
    #[track_caller]
    pub fn wait_gone(&self, name: &str) {
        eventually(&format!("port {name} is gone"), SOON, || self.state(name).is_none());
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder().join("store").join(format!("{key}.json"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- end of the switch's log:\n{tail}");
        }
    }
}

impl Builder {
    /// Sets a key of the configuration to a value of TOML: `"workers.cores"`, `"[0, 1]"`.
    pub fn set(mut self, key: &str, value: &str) -> Builder {
        self.place.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Keeps its state in etcd and not in a directory.
    pub fn etcd(mut self, endpoints: &[String]) -> Builder {
        self.place.config.remove("store.directory");
        let cache = format!("'{}'", self.place.folder.path().join("last-read.json").display());
        self.set("store.etcd.endpoints", &format!("{endpoints:?}")).set("store.cache", &cache)
    }

    /// Removes a key of the configuration that all switches have.
    pub fn unset(mut self, key: &str) -> Builder {
        self.place.config.remove(key);
        self
    }

    /// Adds a physnet, and the DPDK device on it.
    pub fn physnet(self, name: &str, device: &str) -> Builder {
        self.set(&format!("physnets.{name}.device"), &format!("'{device}'"))
    }

    /// Runs a copy of the program, which the test may replace; returns where it lies.
    pub fn own_program(mut self) -> (Builder, PathBuf) {
        let path = self.place.folder.path().join("viaduct");
        let original = Path::new(env!("CARGO_BIN_EXE_viaduct"));
        // A second name is enough of a copy where both are on one disk.
        if fs::hard_link(original, &path).is_err() {
            fs::copy(original, &path).expect("a folder of our own");
        }
        self.place.program = path.clone();
        (self, path)
    }

    /// Starts it by a command that becomes the one that follows it, as `taskset -c 0` does.
    pub fn under(mut self, wrapper: &[&str]) -> Builder {
        self.place.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The folder that the switch will be in.
    pub fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// Starts it, and waits until it answers commands.
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.place.write_config();
        let mut daemon = Daemon { place: self.place, process: None, former_log: String::new() };
        daemon.start();
        daemon
    }

    /// Starts a switch that cannot run, and returns what it says and ends with.
    #[track_caller]
    pub fn refused(&self) -> Output {
        self.place.write_config();
        let output = process::run(&mut self.place.run(), SOON);
        assert!(output.status != 0, "it was to be refused, and ended in order:\n{}", output.text);
        assert!(!output.text.contains("panicked"), "it was to be refused:\n{}", output.text);
        output
    }
}

impl Place {
    fn config_file(&self) -> PathBuf {
        self.folder.path().join("viaduct.toml")
    }

    fn write_config(&self) {
        let lines = self.config.iter().map(|(key, value)| format!("{key} = {value}\n"));
        fs::write(self.config_file(), lines.collect::<String>()).expect("the folder is ours");
    }

    fn run(&self) -> Command {
        let program = self.program.to_str().expect("a path in UTF-8");
        let mut words = self.wrapper.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).arg("run").arg("--config").arg(self.config_file());
        command
    }
}

/// A port for a guest in client mode, with one pair of queues, as it stands in the store. Without
/// port security: tests about addresses and groups add it.
pub fn guest_port(name: &str, network: &str, mac: &str) -> Value {
    json!({
        "name": name,
        "network": uuid(network),
        "kind": "vhost-user",
        "socket": format!("{name}.sock"),
        "mac": mac,
        "port_security": false,
    })
}

/// All files below a folder but hidden ones.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ if hidden => {}
                _ => found.push(entry.path()),
            }
        }
    }
    found.into_iter()
}
