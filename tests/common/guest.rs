//! A QEMU guest with a vhost-user network device, as a value that a test holds.
//!
//! `scripts/guest` knows QEMU's command line and `scripts/guest-image` what is booted; this file
//! starts the one, waits for it, runs commands in it and ends it. It is not a way to measure speed:
//! where the host has no hardware virtualisation, guests are 5 to 20 times slower than real ones.
//!
//! A guest boots only when a switch is on its socket: see the head of `scripts/guest`. So a test
//! starts its guests and its switch in any order and then calls [`Guest::wait_ready`].

use super::console;
use super::process::{Output, Process, eventually};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time for a guest to boot, when several others do so on two busy cores. A lone boot on an idle
/// machine takes 3 to 5 seconds without hardware virtualisation.
pub const BOOT: Duration = Duration::from_secs(180);

/// Time for a short command in a guest, on the same busy machine.
pub const SHORT: Duration = Duration::from_secs(30);

/// A running guest. Dropping it ends exactly this QEMU and removes its files; when the test is
/// failing, the console is printed and kept.
pub struct Guest {
    name: String,
    process: Process,
    /// The console and monitor sockets and the console's log.
    folder: TempDir,
    /// The vhost-user socket, when it is QEMU's to remove.
    own_socket: Option<PathBuf>,
    /// How many READY lines the console must show for the guest to be ready.
    boots: usize,
}

/// What a guest shall be. It can be started any number of times, one after the other.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    socket: PathBuf,
    qemu_is_server: bool,
    arguments: Vec<String>,
}

/// What is missing to boot guests here, as a sentence.
pub fn requirements() -> Result<(), String> {
    let image = root().join(".cache/guest/stamp");
    if !image.exists() {
        return Err("there is no guest image: run scripts/guest-image".to_owned());
    }
    let qemu = "qemu-system-x86_64";
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join(qemu).exists()) {
        return Err(format!("{qemu} is not installed: run scripts/guest-image"));
    }
    Ok(())
}

/// Whether guests can boot here. If not, the reason is printed past the test runner's capture, so
/// that nobody takes the skipped test for a passed one; in CI it is a failure.
pub fn available() -> bool {
    let Err(missing) = requirements() else { return true };
    super::skip(&missing);
    false
}

impl Guest {
    /// Describes a guest by that name: letters, digits and dashes.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            socket: PathBuf::new(),
            qemu_is_server: true,
            arguments: Vec::new(),
        }
    }

    /// Waits until the guest has booted and set up its network device. Panics with the console's
    /// tail when it fails, panics, ends, or isn't ready in time.
    #[track_caller]
    pub fn wait_ready(&mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let (ready, failed) = (format!("READY {} ", self.name), format!("FAILED {} ", self.name));
        loop {
            let console = self.console();
            if console.matches(&ready).count() >= self.boots {
                return;
            }
            if let Some(status) = self.process.status() {
                self.fail(&format!("QEMU ended with status {status}"));
            }
            if console.contains(&failed) {
                self.fail("the network device could not be set up");
            }
            if console.contains("Kernel panic") {
                self.fail("the guest's kernel panicked");
            }
            if Instant::now() > deadline {
                self.fail(&format!("not ready after {timeout:?}; is a switch on its socket?"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command line in the guest's shell and returns what it prints and its status. Panics
    /// when it takes longer than `timeout`. A command left in the background must start with
    /// `setsid`, or the Ctrl-C of one that takes too long ends it too.
    #[track_caller]
    pub fn run(&self, command: &str, timeout: Duration) -> Output {
        match console::run(&self.console_socket(), command, timeout) {
            Ok(output) => output,
            Err(reason) => self.fail(&reason),
        }
    }

    /// Gives QEMU's monitor a command (`set_link net off`, `stop`, `info network`) and returns the
    /// answer. The network device's backend is called `net`.
    #[track_caller]
    pub fn monitor(&self, command: &str) -> String {
        match console::monitor(&self.folder.path().join("monitor"), command, SHORT) {
            Ok(answer) => answer,
            Err(reason) => self.fail(&reason),
        }
    }

    /// Reboots as an administrator would, from inside, and waits until the guest is ready again.
    #[track_caller]
    pub fn reboot(&mut self, timeout: Duration) {
        self.boots += 1;
        // The shell goes down with the guest, so the command has no end to wait for.
        let restart = "(sleep 0.2; reboot -f) &";
        self.run(restart, SHORT).success();
        self.wait_ready(timeout);
    }

    /// Pulls the reset line: the guest's driver cannot say goodbye to the device.
    #[track_caller]
    pub fn reset(&mut self, timeout: Duration) {
        self.boots += 1;
        self.monitor("system_reset");
        self.wait_ready(timeout);
    }

    /// Powers off from inside and waits until QEMU has ended.
    #[track_caller]
    pub fn power_off(&mut self, timeout: Duration) {
        self.run("(sleep 0.2; poweroff -f) &", SHORT).success();
        eventually("the guest powers off", timeout, || self.process.status().is_some());
    }

    /// Ends QEMU at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that the console has printed since the start, commands' output included.
    pub fn console(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn console_socket(&self) -> PathBuf {
        self.folder.path().join("console")
    }

    #[track_caller]
    fn fail(&self, reason: &str) -> ! {
        panic!("guest {}: {reason}", self.name)
    }

    /// Prints the end of what the guest and QEMU said, and keeps the whole.
    fn report(&self) {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.name));
        let text = format!("{}\n--- QEMU:\n{}", self.console(), self.process.text());
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!("--- console of guest {} (all of it: {}):\n{tail}", self.name, kept.display());
        if let Err(error) = fs::write(&kept, text) {
            eprintln!("{}: {error}", kept.display());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            self.report();
        }
        self.process.kill();
        if let Some(socket) = &self.own_socket {
            // QEMU removes it when it ends in peace, and only then.
            let _ = fs::remove_file(socket);
        }
    }
}

impl Builder {
    /// The path of the vhost-user socket. Needed.
    pub fn socket(mut self, path: &Path) -> Builder {
        self.socket = path.to_owned();
        self
    }

    /// Whether QEMU listens on the socket and the switch connects (the default), or the other way
    /// round.
    pub fn qemu_is_server(mut self, yes: bool) -> Builder {
        self.qemu_is_server = yes;
        self
    }

    /// Has QEMU wait for the switch before it does anything at all, its console included.
    pub fn waiting(self) -> Builder {
        self.flag("--wait")
    }

    /// The network device's address, as `52:54:00:00:00:01`.
    pub fn mac(self, mac: &str) -> Builder {
        self.option("--mac", mac)
    }

    /// Addresses to set at boot, with prefix lengths and commas between: `10.0.0.1/24,fd00::1/64`.
    pub fn ip(self, addresses: &str) -> Builder {
        self.option("--ip", addresses)
    }

    /// The MTU that the guest sets at boot.
    pub fn mtu(self, bytes: u16) -> Builder {
        self.option("--mtu", &bytes.to_string())
    }

    /// The MTU that the device offers by `VIRTIO_NET_F_MTU`; needs a switch with `NET_MTU`.
    pub fn host_mtu(self, bytes: u16) -> Builder {
        self.option("--host-mtu", &bytes.to_string())
    }

    /// Queue pairs. The guest uses all of them, whatever its number of CPUs.
    pub fn queues(self, pairs: u16) -> Builder {
        self.option("--queues", &pairs.to_string())
    }

    /// Descriptors in each ring: a power of two, 256 to 1024.
    pub fn queue_size(self, descriptors: u16) -> Builder {
        self.option("--queue-size", &descriptors.to_string())
    }

    /// More properties of QEMU's virtio-net-pci: `packed=on`, `event_idx=off,mrg_rxbuf=off`.
    pub fn device(self, properties: &str) -> Builder {
        self.option("--device", properties)
    }

    /// The guest's memory.
    pub fn memory_mib(self, mib: u32) -> Builder {
        self.option("--mem", &mib.to_string())
    }

    /// The guest's CPUs.
    pub fn cpus(self, count: u16) -> Builder {
        self.option("--cpus", &count.to_string())
    }

    /// The guest's memory lies on 2 MiB pages of the host; there must be enough of them.
    pub fn hugepages(self) -> Builder {
        self.flag("--hugepages")
    }

    /// No IPv6 in the guest: it then sends nothing that it was not asked to send.
    pub fn without_ipv6(self) -> Builder {
        self.flag("--no-ipv6")
    }

    /// Starts QEMU. When QEMU is the server, its socket is there when this returns.
    #[track_caller]
    pub fn start(&self) -> Guest {
        let folder = tempfile::Builder::new().prefix("guest-").tempdir().expect("a folder in /tmp");
        let mut command = Command::new(root().join("scripts/guest"));
        command.arg(&self.name).arg("--socket").arg(&self.socket).args(&self.arguments);
        command.arg(if self.qemu_is_server { "--server" } else { "--client" });
        for option in ["console", "log", "monitor"] {
            command.arg(format!("--{option}")).arg(folder.path().join(option));
        }
        let own_socket = self.qemu_is_server.then(|| self.socket.clone());
        if let Some(socket) = &own_socket {
            // One that an earlier QEMU left must not be taken for the new one.
            let _ = fs::remove_file(socket);
        }
        let process = Process::start(&mut command);
        let name = self.name.clone();
        let mut guest = Guest { name, process, folder, own_socket, boots: 1 };

        let expected = if self.qemu_is_server { &self.socket } else { &guest.console_socket() };
        let deadline = Instant::now() + SHORT;
        while !expected.exists() {
            if let Some(status) = guest.process.status() {
                guest.fail(&format!("QEMU ended with status {status}"));
            }
            if Instant::now() > deadline {
                guest.fail(&format!("QEMU did not make {} in time", expected.display()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        guest
    }

    fn option(mut self, name: &str, value: &str) -> Builder {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    fn flag(mut self, name: &str) -> Builder {
        self.arguments.push(name.to_owned());
        self
    }
}

/// The root of the source tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
