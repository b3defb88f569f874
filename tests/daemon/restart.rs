//! The switch ends, in order or not, and the next one goes on: guests stay up, frames are numbered.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, guest_port, network_key, port_key, uuid};
use crate::common::process::{self, eventually};
use crate::pair::{A, B, Pair, address, end_under_traffic, frame, number, two_guests};

#[test]
fn a_restart_loses_no_frame_and_repeats_none() {
    let mut switch = two_guests();
    let mut pair = Pair::start(&switch);
    for _ in 0..4 {
        end_under_traffic(&mut switch, &mut pair, Daemon::stop);
        switch.start();
        assert_eq!(pair.settle(), 0, "frames were lost");
    }
    switch.stop();
}

#[test]
fn a_killed_switch_repeats_no_frame_and_loses_no_descriptor() {
    let mut switch = two_guests();
    let mut pair = Pair::start(&switch);
    let mut lost = 0;
    for _ in 0..6 {
        end_under_traffic(&mut switch, &mut pair, Daemon::kill);
        switch.start();
        let now = pair.settle();
        // Those of the burst that the worker had taken.
        assert!(now - lost <= 64, "{} frames were lost", now - lost);
        lost = now;
    }
    switch.stop();
}

/// Stands before DPDK's start, which goes on when the file `gate` is there.
const GATE: &str = include_str!("gate.c");

#[test]
fn guests_do_not_wait_for_dpdk() {
    let builder = Daemon::builder();
    let at = |name: &str| builder.folder().join(name);
    let (source, library) = (at("gate.c"), at("gate.so"));
    let [entered, gate, left] = ["entered", "gate", "left"].map(at);
    fs::write(&source, GATE).expect("the folder is ours");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    compile.arg(format!("-DFOLDER=\"{}\"", builder.folder().display()));
    process::run(&mut compile, SOON).success();
    fs::write(&gate, "").expect("the folder is ours");
    let preload = format!("LD_PRELOAD={}", library.display());
    let mut switch = builder.physnet("w", "net_ring0").under(&["env", &preload]).start();
    let network = json!({"name": "n", "type": "flat", "physnet": "w"});
    switch.put(&network_key("n"), &network);
    for (name, mac) in [("a", A), ("b", B)] {
        switch.guest_port(name, "n", &address(mac));
    }
    let device = json!({"network": uuid("n"), "kind": "ethdev", "device": "net_ring1"});
    switch.put(&port_key("c"), &device);
    let mut pair = Pair::start(&switch);
    switch.wait_ready("c");

    end_under_traffic(&mut switch, &mut pair, Daemon::stop);
    for file in [&entered, &gate, &left] {
        fs::remove_file(file).expect("DPDK went through the gate");
    }
    switch.launch();
    eventually("DPDK is starting", SOON, || entered.exists());
    assert_eq!(pair.settle(), 0, "frames were lost");
    assert!(!left.exists(), "DPDK did not wait, so nothing was shown");
    assert_eq!(switch.state("c"), None, "nothing is said of a device while DPDK starts");
    // To whoever has it: the other guest, and the uplink, which is not open.
    pair.a.send(0, &frame([0x52, 0x54, 0, 0, 9, 9], A, 7));
    assert_eq!(pair.b.receive(SOON).map(|frame| number(&frame)), Some(7));

    fs::write(&gate, "").expect("the folder is ours");
    switch.wait_for_answers();
    assert!(left.exists());
    let drops = switch.show("drops");
    let of_uplink = |one: &&Value| one["port"].to_string().contains("\"w\"");
    let of_uplink = drops.as_array().expect("a list").iter().find(of_uplink);
    assert_eq!(of_uplink.expect("a frame found it closed")["reason"], "queue-down", "{drops:#}");
    for port in ["a", "b", "c"] {
        switch.wait_ready(port);
    }
    assert_eq!(pair.check(), 0, "frames were lost");
    switch.stop();
}

#[test]
fn a_port_stays_closed_until_its_policy_is_in_force() {
    let mut switch = two_guests();
    let rules = json!([{"direction": "egress", "ethertype": "ipv4"}]);
    let key = format!("security-groups/{}", uuid("g"));
    switch.put(&key, &json!({"name": "g", "rules": rules}));
    let mut port = guest_port("a", "n", &address(A));
    port["port_security"] = json!(true);
    port["fixed_ips"] = json!(["10.0.0.1"]);
    port["security_groups"] = json!([uuid("g")]);
    switch.put(&port_key("a"), &port);
    let mut pair = Pair::start(&switch);
    // 10.0.0.SOURCE sends UDP to 10.0.0.2.
    let ip = |source: u8| {
        let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 0, 0, 2];
        let mut frame = [&B[..], &A, &[8, 0], &header, &[0, 9, 0, 9, 0, 8, 0, 0]].concat();
        frame.resize(60, 0);
        frame
    };
    eventually("the port's own address passes", SOON, || {
        pair.a.send(0, &ip(1));
        pair.b.receive(Duration::from_millis(100)).is_some()
    });
    while pair.b.receive(Duration::from_millis(100)).is_some() {}
    for end in [Daemon::stop, Daemon::kill] {
        end(&mut switch);
        // These wait for the next switch; the last one tells that it has seen to those before.
        for _ in 0..10 {
            pair.a.send(0, &ip(66));
        }
        pair.a.send(0, &ip(1));
        switch.start();
        pair.b.reconnect();
        pair.a.reconnect();
        let frame = pair.b.receive(SOON).expect("the port's own address passes");
        assert_eq!(frame[26..30], [10, 0, 0, 1], "a forged address came through");
        assert_eq!(pair.b.receive(Duration::from_millis(50)), None);
    }
    switch.stop();
}

#[test]
fn learned_addresses_are_known_again() {
    const BEHIND: [u8; 6] = [0x52, 0x54, 0, 0, 9, 9];
    let builder = Daemon::builder();
    let file = builder.folder().join("fdb.json");
    let mut switch = builder.set("fdb.file", &format!("'{}'", file.display())).start();
    switch.local_network("n");
    switch.guest_port("a", "n", &address(A));
    switch.guest_port("b", "n", &address(B));
    let mut pair = Pair::start(&switch);
    pair.a.send(0, &frame(B, BEHIND, 1));
    pair.b.receives(|frame| number(frame) == 1);
    let learned = |switch: &Daemon| -> Vec<Value> {
        let view = switch.show("fdb");
        let entries = view["entries"].as_array().expect("a list").iter();
        entries.filter(|entry| entry["origin"] == "learned").cloned().collect()
    };
    eventually("it is learned", SOON, || learned(&switch).len() == 1);

    // Killed, it has what was written last; ended in order, what it knew.
    eventually("it is kept", SOON, || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&address(BEHIND)))
    });
    for end in [Daemon::kill, Daemon::stop] {
        std::thread::sleep(Duration::from_secs(2));
        end(&mut switch);
        switch.start();
        eventually("desired state is in force", SOON, || learned(&switch).len() == 1);
        let entry = &learned(&switch)[0];
        assert_eq!(entry["mac"], json!(address(BEHIND)));
        assert!(entry["port"].to_string().contains(&uuid("a")), "{entry:#}");
        assert!(entry["age_seconds"].as_u64().is_some_and(|age| age >= 2), "{entry:#}");
    }

    // Whose port has gone is nobody's.
    switch.stop();
    switch.delete(&port_key("a"));
    switch.start();
    switch.wait_gone("a");
    assert_eq!(learned(&switch), Vec::<Value>::new());

    // A damaged file is told, and is no reason not to start.
    switch.stop();
    fs::write(&file, "{\"written\": 1, ").expect("our own folder");
    switch.start();
    eventually("the file is named", SOON, || {
        switch.log().contains("fdb.json: is not what a daemon keeps")
    });
    switch.stop();
}
