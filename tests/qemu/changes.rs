//! Desired state changes while others send, and they lose nothing.

use std::time::Duration;

use serde_json::json;

use crate::common::daemon::{Daemon, guest_port, network_key, port_key, uuid};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::process::eventually;
use crate::{Plan, boot, never_reaches, reaches};

const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };
/// To this one all of it happens.
const C: Plan = Plan { name: "c", network: "blue", mac: "52:54:00:00:00:0c", ip: "10.0.0.3" };

#[test]
fn changes_cost_others_no_frame() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().set("workers.cores", "[0, 1]").start();
    for network in ["red", "blue"] {
        switch.local_network(network);
    }
    for plan in [&A, &B, &C] {
        plan.add_port(&switch);
    }
    let [a, b, c] = boot([A.guest(&switch), B.guest(&switch), C.guest(&switch)]);
    reaches(&a, B.ip);
    never_reaches(&c, A.ip);

    let stream = Stream::start(&a, B.ip);
    // A port moves to another network and back.
    switch.guest_port("c", "red", C.mac);
    reaches(&c, B.ip);
    switch.guest_port("c", "blue", C.mac);
    eventually("c has left the red network", SHORT, || {
        switch.show_port("ports", "c")["network"]["name"] == "blue"
    });
    never_reaches(&c, B.ip);

    // It goes down and comes up.
    switch.guest_port("c", "red", C.mac);
    reaches(&c, B.ip);
    let mut down = guest_port(C.name, "red", C.mac);
    down["admin_up"] = json!(false);
    switch.put(&port_key("c"), &down);
    switch.wait_status("c", "down");
    never_reaches(&c, B.ip);
    switch.guest_port("c", "red", C.mac);
    switch.wait_ready("c");
    reaches(&c, B.ip);

    // It is deleted under its guest, and made again.
    switch.delete(&port_key("c"));
    switch.wait_gone("c");
    never_reaches(&c, B.ip);
    switch.guest_port("c", "red", C.mac);
    reaches(&c, B.ip);

    // Networks and ports come and go, a few at a time and many at once; a DPDK device is one.
    for _ in 0..3 {
        let ports: Vec<String> = (0..20).map(|number| format!("spare{number}")).collect();
        switch.put(&network_key("spare"), &json!({"type": "local"}));
        for (number, port) in ports.iter().enumerate() {
            switch.guest_port(port, "spare", &format!("52:54:00:00:01:{number:02x}"));
        }
        let device = json!({"network": uuid("spare"), "kind": "ethdev",
                            "device": "net_ring0"});
        switch.put(&port_key("device"), &device);
        for port in &ports {
            switch.wait_status(port, "waiting");
        }
        switch.wait_ready("device");
        for port in ports.iter().map(String::as_str).chain(["device"]) {
            switch.delete(&port_key(port));
        }
        switch.delete(&network_key("spare"));
        for port in &ports {
            switch.wait_gone(port);
        }
        switch.wait_gone("device");
    }

    // What is refused changes nothing either.
    let mut bad = guest_port(C.name, "red", C.mac);
    bad["vlan"] = json!(5);
    switch.put(&port_key("c"), &bad);
    eventually("the bad value is reported", SHORT, || !switch.errors().is_empty());
    reaches(&c, B.ip);
    switch.guest_port("c", "red", C.mac);
    eventually("the good value is taken", SHORT, || switch.errors().is_empty());

    let (sent, received) = stream.stop();
    assert!(sent > 500, "only {sent} echoes were sent: this has shown nothing");
    assert_eq!(received, sent, "echoes were lost");
    let vhost = switch.show_port("vhost", "a");
    assert_eq!(vhost["sessions"], 1, "a's session was ended: {vhost:#}");
    drop(b);
    switch.stop();
}

/// Echoes that go on during the test, each of them counted.
struct Stream<'a> {
    guest: &'a Guest,
}

impl Stream<'_> {
    /// Sends a hundred echoes a second.
    #[track_caller]
    fn start<'a>(guest: &'a Guest, to: &str) -> Stream<'a> {
        // With its path, as busybox's setsid runs a ping of its own otherwise.
        let ping = format!(
            "setsid /usr/bin/ping -i 0.01 {to} >/tmp/stream 2>&1 & echo $! >/tmp/stream.pid"
        );
        guest.run(&ping, SHORT).success();
        eventually("echoes come back", SHORT, || {
            guest.run("grep -q 'bytes from' /tmp/stream", SHORT).status == 0
        });
        Stream { guest }
    }

    /// How many echoes were sent up to the last one that came back, and how many came back.
    #[track_caller]
    fn stop(self) -> (u64, u64) {
        let count = "match($0, /icmp_seq=[0-9]+/) { \
                       number = substr($0, RSTART + 9, RLENGTH - 9) + 0; \
                       if (number > last) last = number; \
                       if (!seen[number]++) came++; else twice++ } \
                     END { print last + 0, came + 0, twice + 0 }";
        let stop = format!(
            "pid=$(cat /tmp/stream.pid); sleep 1; kill -INT $pid; \
             while [[ -e /proc/$pid ]]; do sleep 0.1; done; awk '{count}' /tmp/stream"
        );
        let text = self.guest.run(&stop, Duration::from_secs(60)).success();
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let [last, came, twice] = numbers[..] else { panic!("no three numbers: {text}") };
        assert_eq!(twice, 0, "echoes came twice");
        (last, came)
    }
}
