//! Network namespaces: hosts beyond the uplink that are this machine's own kernel.
//!
//! A namespace is a host of its own at the far end of a veth pair; the near end stays outside, for
//! the switch to open as its uplink (af_packet). Making one needs root.
//!
//! It is not a way to see a frame exactly as it was sent: a kernel moves VLAN tags between the
//! frame and its metadata, and not every kernel has VLAN interfaces. For that there is `wire.rs`.

use super::process::{self, Output, Process};
use std::cell::RefCell;
use std::process::Command;
use std::time::Duration;

/// A network namespace. Dropping it removes it with all its interfaces; processes in it must have
/// been ended before.
pub struct Namespace {
    name: String,
    /// The near ends of the veth pairs. Removing them removes the far ends too.
    outside: RefCell<Vec<String>>,
}

/// Time for a command of `ip`, on a busy machine.
const SETUP: Duration = Duration::from_secs(30);

/// What is missing to make namespaces here, as a sentence.
pub fn requirements() -> Result<(), String> {
    let probe = process::run(Command::new("unshare").args(["--net", "true"]), SETUP);
    if probe.status != 0 {
        return Err(format!("network namespaces need root: {}", probe.text.trim()));
    }
    Ok(())
}

impl Namespace {
    /// Makes a namespace with its loopback interface up. The label makes several of one test
    /// distinct; the process id does so for tests that run at the same time.
    #[track_caller]
    pub fn new(label: &str) -> Namespace {
        let name = format!("viaduct-{}-{label}", std::process::id());
        host(&["ip", "netns", "add", &name]);
        let namespace = Namespace { name, outside: RefCell::default() };
        namespace.run("ip link set lo up", SETUP).success();
        namespace
    }

    /// The name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a veth pair: `outside` stays with the caller, `inside` goes into the namespace; both
    /// are up. Interface names are 15 characters at most.
    ///
    /// The kernel is kept from leaving work to a network card that is not there: through a packet
    /// socket, frames without checksums or longer than the MTU would reach the switch. And it is
    /// kept from sending anything by itself on the outer end (IPv6).
    #[track_caller]
    pub fn veth(&self, outside: &str, inside: &str) {
        host(&[
            "ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns",
            &self.name,
        ]);
        self.outside.borrow_mut().push(outside.to_owned());
        let quiet = format!("/proc/sys/net/ipv6/conf/{outside}/disable_ipv6");
        // A kernel without IPv6 has no such file and nothing to keep quiet.
        let _ = std::fs::write(quiet, "1");
        host(&["ip", "link", "set", outside, "up"]);
        let offloads = "tx off sg off tso off gso off gro off";
        self.run(&format!("ethtool -K {inside} {offloads}"), SETUP).success();
        self.run(&format!("ip link set {inside} up"), SETUP).success();
    }

    /// Runs a command line in the namespace, within `timeout`.
    #[track_caller]
    pub fn run(&self, command: &str, timeout: Duration) -> Output {
        self.start(command).finish(timeout)
    }

    /// Starts a command line in the namespace that runs until the value is dropped.
    #[track_caller]
    pub fn start(&self, command: &str) -> Process {
        let arguments = ["netns", "exec", &self.name, "bash", "-c", command];
        Process::start(Command::new("ip").args(arguments))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Errors have nobody to tell: a test that fails has said so, and a later test makes a
        // namespace by another name.
        for outside in self.outside.borrow().iter() {
            let _ = Command::new("ip").args(["link", "delete", outside]).output();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

#[track_caller]
fn host(command: &[&str]) {
    let output = process::run(Command::new(command[0]).args(&command[1..]), SETUP);
    assert!(output.status == 0, "{}: {}", command.join(" "), output.text);
}
