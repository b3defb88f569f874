//! The daemon against a front-end that nobody here wrote: DPDK's virtio-user, by testpmd.
//!
//! testpmd has two guests' sides in one process and passes each frame that one of them gets on to
//! the other by way of the switch, so that a few frames go round for as long as nothing loses one.
//! (QEMU is in `qemu.rs`; the protocol against rust-vmm's front-end in `vhost/tests`.)

mod common;

use std::process::Command;
use std::time::Duration;

use common::daemon::{Daemon, guest_port, port_key};
use common::process::{Process, eventually};
use serde_json::{Value, json};

const MAC: [&str; 2] = ["52:54:00:00:00:0a", "52:54:00:00:00:0b"];
const NAMES: [&str; 2] = ["left", "right"];
/// Time for what takes a second or two on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(40);

/// How the two sides meet, and what the guests' sides offer.
struct Variant {
    /// The switch makes the sockets.
    switch_serves: bool,
    queues: u16,
    /// The workers' cores.
    cores: &'static str,
    /// More of virtio-user's arguments.
    options: &'static str,
    /// What testpmd does with frames.
    forward: &'static [&'static str],
    /// What the rings then are.
    layout: &'static str,
}

/// Each side sends what it gets to the other one's address, and a few frames to begin with.
const ROUND: &[&str] = &["--forward-mode=mac", "--tx-first"];

/// Each side sends frames of many flows, to an address that nobody has, and drops what it gets.
const FLOWS: &[&str] = &["--forward-mode=flowgen", "--flowgen-flows=500"];

impl Variant {
    fn start_switch(&self) -> Daemon {
        let daemon = Daemon::builder().set("workers.cores", self.cores).start();
        daemon.local_network("net");
        for (name, mac) in NAMES.iter().zip(MAC) {
            let mut port = guest_port(name, "net", mac);
            port["mode"] = json!(if self.switch_serves { "server" } else { "client" });
            port["queues"] = json!(self.queues);
            daemon.put(&port_key(name), &port);
        }
        for name in NAMES {
            daemon.wait_status(name, "waiting");
        }
        daemon
    }

    fn start_guests(&self, daemon: &Daemon) -> Process {
        let mut command = Command::new("dpdk-testpmd");
        command.args(["--no-pci", "--no-huge", "--no-shconf", "--no-telemetry", "-m", "256"]);
        command.args(["--lcores", "(0-1)@(0-1)", "--single-file-segments"]);
        command.args(["--file-prefix", &format!("vhost-test-{}", std::process::id())]);
        for (number, (name, mac)) in NAMES.iter().zip(MAC).enumerate() {
            let server = u8::from(!self.switch_serves);
            let path = daemon.socket(name);
            if !self.switch_serves {
                // A killed testpmd leaves its socket behind, and does not remove one that it finds.
                let _ = std::fs::remove_file(&path);
            }
            command.arg("--vdev").arg(format!(
                "net_virtio_user{number},path={},mac={mac},queues={},server={server}{}",
                path.display(),
                self.queues,
                self.options,
            ));
        }
        command.args(["--", "--total-num-mbufs=4096", "--auto-start", "--stats-period=1"]);
        command.args(self.forward);
        command.args([format!("--rxq={}", self.queues), format!("--txq={}", self.queues)]);
        // Each port sends to the other one's address.
        command.args([format!("--eth-peer=0,{}", MAC[1]), format!("--eth-peer=1,{}", MAC[0])]);
        Process::start(&mut command)
    }

    fn frames_go_round(&self) {
        let daemon = self.start_switch();
        let mut guests = self.start_guests(&daemon);
        wait_for_frames(&daemon, &mut guests, 10_000);
        let workers = self.cores.split(',').count();
        for name in NAMES {
            daemon.wait_ready(name);
            let port = daemon.show_port("ports", name);
            let polled_by = port["workers"].as_array().expect("a list").len();
            assert_eq!(polled_by, workers.min(usize::from(self.queues)), "{port}");
            assert_eq!(port["dropped_frames"], 0, "{}", daemon.show("drops"));
            let vhost = daemon.show_port("vhost", name);
            assert_eq!(vhost["state"], "ready", "{vhost}");
            assert_eq!(vhost["last_error"], Value::Null, "{vhost}");
            assert_eq!(vhost["sessions"], 1);
            let features = vhost["features"].as_array().expect("negotiated");
            let in_order = features.contains(&json!("VIRTIO_F_IN_ORDER"));
            assert_eq!(in_order, !self.options.contains("in_order=0"), "{vhost}");
            for ring in vhost["rings"].as_array().expect("a list") {
                assert_eq!(ring["layout"], self.layout, "{vhost}");
            }
        }
        guests.kill();
        for name in NAMES {
            let state = daemon.wait_status(name, "waiting");
            assert!(state["reason"].is_string(), "{state}");
        }
        // A front-end that comes back is served as if nothing had been.
        let before = received(&daemon, NAMES[0]);
        let mut guests = self.start_guests(&daemon);
        wait_for_frames(&daemon, &mut guests, before + 10_000);
        assert_eq!(daemon.show_port("vhost", NAMES[1])["sessions"], 2);
    }
}

fn received(daemon: &Daemon, name: &str) -> u64 {
    daemon.show_port("ports", name)["received_frames"].as_u64().expect("a count")
}

fn wait_for_frames(daemon: &Daemon, guests: &mut Process, at_least: u64) {
    eventually("frames go round", SOON, || {
        assert!(guests.status().is_none(), "testpmd ended:\n{}", guests.text());
        NAMES.iter().all(|name| received(daemon, name) >= at_least)
    });
}

/// One queue pair, one worker, and the switch makes the sockets.
const PLAIN: Variant = Variant {
    switch_serves: true,
    queues: 1,
    cores: "[1]",
    options: "",
    layout: "split",
    forward: ROUND,
};
/// As that, with packed rings. virtio-user is in order unless it is told otherwise.
const PACKED: Variant = Variant { options: ",packed_vq=1,in_order=0", layout: "packed", ..PLAIN };

#[test]
fn virtio_user_connects_to_the_switch() {
    PLAIN.frames_go_round();
}

#[test]
fn the_switch_connects_to_virtio_user() {
    Variant { switch_serves: false, ..PLAIN }.frames_go_round();
}

#[test]
fn several_queue_pairs() {
    Variant { queues: 2, ..PLAIN }.frames_go_round();
}

#[test]
fn many_flows_use_every_queue_of_a_guest() {
    for cores in ["[1]", "[0, 1]"] {
        let variant = Variant { queues: 3, cores, forward: FLOWS, ..PLAIN };
        let daemon = variant.start_switch();
        let mut guests = variant.start_guests(&daemon);
        wait_for_frames(&daemon, &mut guests, 10_000);
        // The frames of 500 flows are many more on one of three queues than these only if most
        // flows are there.
        eventually("every queue gets its share", SOON, || {
            NAMES.iter().all(|name| {
                let frames = frames_to(&daemon, name);
                assert_eq!(frames.len(), 3, "{frames:?}");
                let sum: u64 = frames.iter().sum();
                sum > 10_000 && frames.iter().all(|frames| *frames > sum / 5)
            })
        });
        for name in NAMES {
            let vhost = daemon.show_port("vhost", name);
            assert_eq!(vhost["last_error"], Value::Null, "{vhost}");
        }
    }
}

/// Frames that each queue to the guest has got.
fn frames_to(daemon: &Daemon, name: &str) -> Vec<u64> {
    let vhost = daemon.show_port("vhost", name);
    let rings = vhost["rings"].as_array().expect("a list").iter();
    let to_guest = rings.filter(|ring| ring["queue"].as_u64().is_some_and(|it| it % 2 == 0));
    to_guest.map(|ring| ring["frames"].as_u64().expect("a count")).collect()
}

#[test]
fn two_workers_share_the_queues() {
    Variant { queues: 2, cores: "[0, 1]", ..PLAIN }.frames_go_round();
}

#[test]
fn queues_go_to_other_workers_under_traffic() {
    let variant = Variant { queues: 2, cores: "[0, 1]", ..PLAIN };
    let daemon = variant.start_switch();
    let mut guests = variant.start_guests(&daemon);
    wait_for_frames(&daemon, &mut guests, 10_000);
    assert_eq!(rxqs_of_workers(&daemon), [2, 2]);

    // Kept to one worker and to the other, by turns, all queues move each time.
    for core in [0, 1, 0, 1, 0] {
        for (name, mac) in NAMES.iter().zip(MAC) {
            let mut port = guest_port(name, "net", mac);
            port["mode"] = json!("server");
            port["queues"] = json!(2);
            port["cores"] = json!([core]);
            daemon.put(&port_key(name), &port);
        }
        let all = if core == 0 { [4, 0] } else { [0, 4] };
        eventually("the queues have moved", SOON, || rxqs_of_workers(&daemon) == all);
        let before = received(&daemon, NAMES[0]).max(received(&daemon, NAMES[1]));
        wait_for_frames(&daemon, &mut guests, before + 1000);
    }
    // There is nothing to balance as long as they are kept.
    let plan = rebalance(&daemon, &["--dry-run"]);
    assert_eq!((&plan["done"], &plan["moves"]), (&json!(false), &json!([])), "{plan:#}");

    // Set free they stay, until somebody asks for a balance.
    for (name, mac) in NAMES.iter().zip(MAC) {
        let mut port = guest_port(name, "net", mac);
        port["mode"] = json!("server");
        port["queues"] = json!(2);
        daemon.put(&port_key(name), &port);
    }
    eventually("a balance can be planned", SOON, || {
        let plan = rebalance(&daemon, &["--dry-run"]);
        plan["moves"].as_array().is_some_and(|moves| !moves.is_empty())
    });
    assert_eq!(rxqs_of_workers(&daemon), [4, 0], "it was only planned");
    let balance = rebalance(&daemon, &[]);
    assert_eq!(balance["done"], true, "{balance:#}");
    let moves = balance["moves"].as_array().expect("a list").len();
    assert!(moves > 0, "{balance:#}");
    assert_eq!(rxqs_of_workers(&daemon), [4 - moves, moves], "{balance:#}");
    let load =
        |worker: usize, when: &str| balance["workers"][worker][when].as_f64().expect("a share");
    assert!(load(0, "after_percent") < load(0, "before_percent"), "{balance:#}");
    assert_eq!(load(1, "before_percent"), 0.0, "{balance:#}");

    // The few frames that go round are all still there.
    let before = received(&daemon, NAMES[0]).max(received(&daemon, NAMES[1]));
    wait_for_frames(&daemon, &mut guests, before + 10_000);
    for name in NAMES {
        let port = daemon.show_port("ports", name);
        assert_eq!(port["dropped_frames"], 0, "{}", daemon.show("drops"));
        assert_eq!(daemon.show_port("vhost", name)["sessions"], 1);
    }

    // A core without a worker is refused, and what is in force stays so.
    let mut port = guest_port(NAMES[0], "net", MAC[0]);
    port["cores"] = json!([63]);
    daemon.put(&port_key(NAMES[0]), &port);
    eventually("the core is refused", SOON, || {
        daemon.errors().iter().any(|error| error["field"] == "cores[0]")
    });
    wait_for_frames(&daemon, &mut guests, before + 20_000);
}

/// How many receive queues each worker has.
fn rxqs_of_workers(daemon: &Daemon) -> [usize; 2] {
    let workers = daemon.show("workers");
    let rxqs = |number: usize| workers[number]["rxqs"].as_array().expect("a list").len();
    [rxqs(0), rxqs(1)]
}

fn rebalance(daemon: &Daemon, options: &[&str]) -> Value {
    let mut arguments = vec!["rebalance", "--json"];
    arguments.extend(options);
    let text = daemon.viaduct(&arguments).success();
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn without_mergeable_buffers() {
    Variant { options: ",mrg_rxbuf=0", ..PLAIN }.frames_go_round();
}

#[test]
fn a_ring_of_another_size() {
    Variant { options: ",queue_size=1024", ..PLAIN }.frames_go_round();
}

#[test]
fn split_rings_not_in_order() {
    Variant { options: ",in_order=0", ..PLAIN }.frames_go_round();
}

#[test]
fn packed_rings() {
    PACKED.frames_go_round();
}

#[test]
fn packed_rings_of_a_size_that_is_no_power_of_two() {
    let options = ",packed_vq=1,queue_size=1000,mrg_rxbuf=1";
    Variant { options, switch_serves: false, ..PACKED }.frames_go_round();
}

#[test]
fn packed_rings_in_order_without_mergeable_buffers() {
    let options = ",packed_vq=1,in_order=1,mrg_rxbuf=0";
    Variant { options, queues: 2, cores: "[0, 1]", ..PACKED }.frames_go_round();
}
