//! The switch under real guests: QEMU, Linux, its virtio-net driver and its network stack.
//!
//! Guests prove function here and never speed: without hardware virtualisation they are many times
//! slower than real ones. A boot takes seconds, so each test boots its guests once and goes through
//! all that it can ask of them. Each guest is its own process, and the switch is the program as it
//! is installed.

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod early;
mod handover;
mod links;
mod offloads;
mod outages;
mod packed;
mod queues;
mod security;
mod traffic;
mod uplink;

use std::time::Duration;

use common::daemon::{Daemon, guest_port, port_key};
use common::guest::{self, BOOT, Guest, SHORT};
use common::process::eventually;
use common::skip;
use serde_json::json;

/// A guest as the switch and the other guests know it. Its port is called as it is.
struct Plan {
    name: &'static str,
    network: &'static str,
    mac: &'static str,
    ip: &'static str,
}

impl Plan {
    /// The guest, to be finished as the test likes.
    fn guest(&self, switch: &Daemon) -> guest::Builder {
        let address = format!("{}/24", self.ip);
        let builder = Guest::builder(self.name).socket(&switch.socket(self.name)).without_ipv6();
        builder.mac(self.mac).ip(&address)
    }

    /// Adds its port to the store.
    fn add_port(&self, switch: &Daemon) {
        switch.guest_port(self.name, self.network, self.mac);
    }

    /// Adds its port to the store, as one whose socket the switch owns.
    fn add_server_port(&self, switch: &Daemon) {
        let mut port = guest_port(self.name, self.network, self.mac);
        port["mode"] = json!("server");
        switch.put(&port_key(self.name), &port);
    }
}

/// Boots guests side by side, and waits for all of them.
#[track_caller]
fn boot<const N: usize>(builders: [guest::Builder; N]) -> [Guest; N] {
    let mut guests = builders.map(|builder| builder.start());
    for guest in &mut guests {
        guest.wait_ready(BOOT);
    }
    guests
}

/// Whether an echo comes back at all within a second.
#[track_caller]
fn reaches_once(from: &Guest, to: &str) -> bool {
    from.run(&format!("ping -q -c 1 -W 1 {to}"), SHORT).status == 0
}

/// Waits until echoes come back, and then loses none.
#[track_caller]
fn reaches(from: &Guest, to: &str) {
    eventually(&format!("{to} answers"), Duration::from_secs(60), || reaches_once(from, to));
    from.run(&format!("ping -q -c 5 -i 0.1 -W 5 {to}"), SHORT).success();
}

/// Sends echoes that nobody may answer.
#[track_caller]
fn never_reaches(from: &Guest, to: &str) {
    let output = from.run(&format!("ping -q -c 4 -i 0.2 -W 1 {to}"), SHORT);
    assert!(output.text.contains("100% packet loss"), "somebody answers:\n{}", output.text);
}

/// The number that a command in the guest prints.
#[track_caller]
fn number(guest: &Guest, command: &str) -> u64 {
    let text = guest.run(command, SHORT).success();
    text.trim().parse().unwrap_or_else(|_| panic!("`{command}` says no number: {text}"))
}
