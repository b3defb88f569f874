//! A guest changes how many queues it uses, while it is talked to.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::{Daemon, guest_port, port_key};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::process::eventually;
use crate::{Plan, boot, reaches};

/// Has one queue, and talks.
const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
/// Has four, and changes its mind.
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

/// How many queue pairs B has.
const QUEUES: usize = 4;

/// Seconds that B is talked to.
const SECONDS: u32 = 14;

#[test]
fn a_guest_changes_its_number_of_queues_under_traffic() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().set("workers.cores", "[0, 1]").start();
    switch.local_network("red");
    A.add_port(&switch);
    let mut port = guest_port(B.name, B.network, B.mac);
    port["queues"] = json!(QUEUES);
    switch.put(&port_key(B.name), &port);
    let [a, b] = boot([A.guest(&switch), B.guest(&switch).queues(QUEUES as u16)]);
    reaches(&a, B.ip);
    assert_eq!(enabled(&switch), QUEUES);

    let talk = Talk::start(&a, &b);
    let mut used = [false; QUEUES];
    for number in [1, 4, 2, 3, 1, 4] {
        b.run(&format!("ethtool -L eth0 combined {number}"), SHORT).success();
        // The driver has been told when the command ends, and the switch before it.
        eventually("the switch follows", SHORT, || enabled(&switch) == number);
        let before = frames_to(&switch);
        std::thread::sleep(Duration::from_secs(1));
        let moved: Vec<_> =
            frames_to(&switch).iter().zip(before).map(|(now, before)| now - before).collect();
        assert!(moved.iter().sum::<u64>() > 0, "nobody talks: this shows nothing");
        for (queue, frames) in moved.iter().enumerate() {
            assert!(queue < number || *frames == 0, "{frames} frames on queue {queue} of {number}");
            used[queue] |= *frames > 0;
        }
    }
    assert!(used.iter().filter(|used| **used).count() > 1, "one queue got everything: {used:?}");
    talk.end();

    let drops = switch.show("drops");
    for drop in drops.as_array().expect("a list") {
        assert_ne!(drop["reason"], "queue-down", "{drops:#}");
        assert_ne!(drop["reason"], "ring-full", "{drops:#}");
    }
    let vhost = switch.show_port("vhost", B.name);
    assert_eq!(vhost["sessions"], 1, "the session was ended: {vhost:#}");
    switch.stop();
}

fn rings(switch: &Daemon) -> Vec<Value> {
    let vhost = switch.show_port("vhost", B.name);
    vhost["rings"].as_array().expect("a list").clone()
}

/// The number of B's receive queues that are enabled.
fn enabled(switch: &Daemon) -> usize {
    let to_guest = rings(switch).into_iter().step_by(2);
    to_guest.filter(|ring| ring["enabled"] == true).count()
}

/// Frames that each of B's receive queues has got.
fn frames_to(switch: &Daemon) -> Vec<u64> {
    let to_guest = rings(switch).into_iter().step_by(2);
    to_guest.map(|ring| ring["frames"].as_u64().expect("a count")).collect()
}

/// Eight streams of numbered datagrams from A to B, each of them a flow.
struct Talk<'a> {
    a: &'a Guest,
}

impl Talk<'_> {
    fn start<'a>(a: &'a Guest, b: &Guest) -> Talk<'a> {
        b.run("iperf3 --server --one-off --daemon", SHORT).success();
        let client = format!(
            "setsid iperf3 --client {} --udp --parallel 8 --bitrate 200K --length 200 \
             --time {SECONDS} --json >/tmp/talk 2>&1 & echo $! >/tmp/talk.pid",
            B.ip
        );
        a.run(&client, SHORT).success();
        Talk { a }
    }

    /// Waits for its end. Every datagram has arrived, and those of each flow in order.
    fn end(self) {
        let ended = || self.a.run("[[ -e /proc/$(cat /tmp/talk.pid) ]]", SHORT).status != 0;
        eventually("the streams end", Duration::from_secs(90), ended);
        let text = self.a.run("cat /tmp/talk", SHORT).success();
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error} in what iperf3 says:\n{text}");
        });
        for stream in report["end"]["streams"].as_array().expect("a list") {
            let udp = &stream["udp"];
            assert!(udp["packets"].as_u64().expect("a count") > 500, "{udp:#}");
            assert_eq!(udp["lost_packets"], 0, "{udp:#}");
            assert_eq!(udp["out_of_order"], 0, "{udp:#}");
        }
    }
}
