//! What guests send each other arrives, and arrives nowhere else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::{Daemon, guest_port, network_key, port_key, uuid};
use crate::common::guest::{self, Guest, SHORT};
use crate::{Plan, boot, never_reaches, number, reaches, skip};

const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };
/// As B in all that the guests can see, on another network.
const TWIN: Plan = Plan { name: "twin", network: "blue", ..B };

/// What a switch with its tables and two guests take.
const HUGE_PAGES: u32 = 320;

#[test]
fn guests_of_a_network_talk_and_networks_are_apart() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().start();
    for network in ["red", "blue"] {
        switch.local_network(network);
    }
    for plan in [&A, &B, &TWIN] {
        plan.add_port(&switch);
    }
    let [a, b, twin] = boot([A.guest(&switch), B.guest(&switch), TWIN.guest(&switch)]);
    for plan in [&A, &B, &TWIN] {
        switch.wait_ready(plan.name);
    }

    reaches(&a, B.ip);
    reaches(&b, A.ip);
    assert!(throughput(&a, &b, B.ip, 1, 3) > 0.0);

    // The twin has the address that A talks to, and hears none of it.
    let heard = "cat /sys/class/net/eth0/statistics/rx_packets";
    assert_eq!(number(&twin, heard), 0, "frames of the red network on the blue one");
    never_reaches(&twin, A.ip);
    assert_eq!(number(&twin, heard), 0, "A has answered over two networks");
    reaches(&a, B.ip);

    tells_what_it_does(&switch);
    switch.stop();
}

/// What `show` says is what was done above.
fn tells_what_it_does(switch: &Daemon) {
    assert!(switch.errors().is_empty());
    let summary = switch.show("");
    assert_eq!(summary["ports"]["ready"], 3, "{summary:#}");
    assert_eq!(summary["domains"], 2, "{summary:#}");

    let count = |port: &Value, what: &str| port[what].as_u64().expect("a count");
    let (a, b) = (switch.show_port("ports", "a"), switch.show_port("ports", "b"));
    for port in [&a, &b] {
        assert!(count(port, "received_frames") > 100, "{port:#}");
        assert!(count(port, "sent_bytes") > 10_000, "{port:#}");
    }
    let twin = switch.show_port("ports", "twin");
    assert_eq!(count(&twin, "sent_frames"), 0, "{twin:#}");
    assert!(count(&twin, "received_frames") > 0, "{twin:#}");

    // Whoever is alone on a network has nobody to send to.
    let drops = switch.show("drops");
    let lonely = drops
        .as_array()
        .expect("a list")
        .iter()
        .find(|drop| drop["uuid"] == uuid("twin") || drop["port"]["uuid"] == uuid("twin"));
    assert_eq!(lonely.expect("the twin's frames are dropped")["reason"], "no-listener");

    let vhost = switch.show_port("vhost", "a");
    assert_eq!(vhost["state"], "ready", "{vhost:#}");
    let features = vhost["features"].as_array().expect("negotiated");
    for feature in ["VERSION_1", "MRG_RXBUF"] {
        let has = features.iter().any(|name| name.as_str().is_some_and(|it| it.contains(feature)));
        assert!(has, "{feature} is not in {features:?}");
    }

    let fdb = switch.show("fdb");
    let entries = fdb["entries"].as_array().expect("a list");
    let places: Vec<_> = entries
        .iter()
        .filter(|entry| entry["mac"] == B.mac)
        .map(|entry| (entry["network"]["uuid"].clone(), entry["port"]["uuid"].clone()))
        .collect();
    for place in [("red", "b"), ("blue", "twin")] {
        let place = (json!(uuid(place.0)), json!(uuid(place.1)));
        assert!(places.contains(&place), "{place:?} is not in {fdb:#}");
    }

    let workers = switch.show("workers");
    let frames: u64 = workers
        .as_array()
        .expect("a list")
        .iter()
        .map(|worker| worker["frames"].as_u64().expect("a count"))
        .sum();
    assert!(frames >= count(&a, "received_frames") + count(&b, "received_frames"), "{workers:#}");
    for topic in ["ports", "domains", "fdb", "vhost", "workers", "drops", "errors"] {
        let table = switch.viaduct(&["show", topic]).success();
        assert!(!table.trim().is_empty(), "`show {topic}` prints nothing");
    }
}

#[test]
fn jumbo_frames_and_many_queues_on_huge_pages() {
    if !guest::available() {
        return;
    }
    let huge = huge_pages_free() >= HUGE_PAGES;
    if !huge {
        // All else can still be shown.
        skip("too few huge pages are free, so none are used: run scripts/hugepages");
    }
    let builder = Daemon::builder().set("workers.cores", "[0, 1]");
    let mut switch = builder.set("dpdk.hugepages", &huge.to_string()).start();
    switch.put(&network_key("red"), &json!({"type": "local", "mtu": 9000}));
    for plan in [&A, &B] {
        let mut port = guest_port(plan.name, plan.network, plan.mac);
        port["queues"] = json!(2);
        switch.put(&port_key(plan.name), &port);
    }
    // B is told of the MTU by its device, A by its administrator.
    let big = |plan: &Plan| {
        let guest = plan.guest(&switch).mtu(9000).queues(2).cpus(2);
        if huge { guest.hugepages() } else { guest }
    };
    let [a, b] = boot([big(&A), big(&B).host_mtu(9000)]);
    reaches(&a, B.ip);

    let before = frames_by_ring(&switch, "a");
    for (from, to) in [(&a, B.ip), (&b, A.ip)] {
        // The payload of an IPv4 packet of 9000 octets, whole and in one frame.
        from.run(&format!("ping -q -c 5 -i 0.1 -W 5 -s 8972 -M do {to}"), SHORT).success();
    }
    assert!(throughput(&a, &b, B.ip, 2, 3) > 0.0);
    // The driver takes the ring of the CPU that it sends on.
    for cpu in ["1", "2"] {
        let ping = format!("taskset {cpu} /usr/bin/ping -q -c 20 -i 0.05 -W 5 {}", B.ip);
        a.run(&ping, SHORT).success();
    }
    // The switch takes the ring of the flow.
    let flows = format!("for port in {{2000..2063}}; do echo hello >/dev/udp/{}/$port; done", A.ip);
    b.run(&flows, SHORT);
    let after = frames_by_ring(&switch, "a");
    for (ring, (before, after)) in before.iter().zip(&after).enumerate() {
        assert!(after > before, "ring {ring} of a is idle: {before} and then {after} frames");
    }
    assert_eq!(after.len(), 4, "two pairs of rings");
    let vhost = switch.show_port("vhost", "b");
    assert_eq!(vhost["mtu"], 9000, "{vhost:#}");

    // One octet more than the network allows does not leave the guest as a whole.
    let over = format!("ping -q -c 1 -W 1 -s 8973 -M do {}", B.ip);
    assert_ne!(a.run(&over, SHORT).status, 0);
    switch.stop();
}

/// Huge pages of 2 MiB that nobody has taken.
fn huge_pages_free() -> u32 {
    let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Frames that each ring of a guest has moved.
fn frames_by_ring(switch: &Daemon, name: &str) -> Vec<u64> {
    let vhost = switch.show_port("vhost", name);
    let rings = vhost["rings"].as_array().expect("a list");
    rings.iter().map(|ring| ring["frames"].as_u64().expect("a count")).collect()
}

/// Sends by TCP for some seconds and returns what the receiver measured, in bit/s.
#[track_caller]
pub(crate) fn throughput(
    from: &Guest,
    to: &Guest,
    address: &str,
    streams: u32,
    seconds: u32,
) -> f64 {
    to.run("iperf3 --server --one-off --daemon", SHORT).success();
    let client = format!(
        "for try in 1 2 3 4 5; do \
           iperf3 --client {address} --time {seconds} --parallel {streams} --json >/tmp/iperf3 && break; \
           sleep 1; done; cat /tmp/iperf3"
    );
    let text = from.run(&client, Duration::from_secs(90)).success();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in what iperf3 says:\n{text}");
    });
    let received = &report["end"]["sum_received"]["bits_per_second"];
    received.as_f64().unwrap_or_else(|| panic!("iperf3 did not measure:\n{text}"))
}
