//! A new process goes on with guests that talk by TCP all the while, one with packed rings and one with
//! split ones.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::Daemon;
use crate::common::guest::{self, Guest, SHORT};
use crate::common::process::eventually;
use crate::{Plan, boot, number, reaches};

/// Its QEMU owns the socket.
const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
/// The switch owns the socket.
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

#[test]
fn a_connection_of_tcp_outlives_handovers() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("red");
    A.add_port(&switch);
    B.add_server_port(&switch);
    let packed = A.guest(&switch).queue_size(256).device("packed=on");
    let [a, b] = boot([packed, B.guest(&switch).qemu_is_server(false)]);
    reaches(&a, B.ip);
    let carriers = [&a, &b].map(carrier_changes);

    // Echoes are numbered; what is sent by TCP is one connection, which fails if it is reset.
    let witness = format!("setsid ping -q -c 400 -i 0.05 -W 5 {} >/tmp/witness 2>&1 &", B.ip);
    a.run(&witness, SHORT).success();
    b.run("iperf3 --server --one-off --daemon", SHORT).success();
    let client = format!(
        "setsid iperf3 --client {} --time 20 --bitrate 4M --json >/tmp/talk 2>&1 & echo $! >/tmp/talk.pid",
        B.ip
    );
    a.run(&client, SHORT).success();
    for _ in 0..3 {
        let before = moved(&a);
        eventually("the connection moves", SHORT, || moved(&a) > before + 100);
        let view = switch.hand_over();
        assert_eq!(view["guests"], json!(2), "{view:#}");
    }
    let ended = || a.run("[[ -e /proc/$(cat /tmp/talk.pid) ]]", SHORT).status != 0;
    eventually("the connection ends", Duration::from_secs(120), ended);
    let text = a.run("cat /tmp/talk", SHORT).success();
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(report["error"].is_null(), "{text}");
    let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
    assert!(sent["bytes"].as_u64() > Some(1 << 20), "{text}");
    assert_eq!(sent["bytes"], received["bytes"], "not all of it has arrived");

    let witnessed = || a.run("cat /tmp/witness", SHORT).success();
    eventually("the echoes end", Duration::from_secs(60), || witnessed().contains("packet loss"));
    let witness = witnessed();
    assert!(witness.contains("400 packets received, 0% packet loss"), "{witness}");
    assert!(!witness.contains("duplicate"), "{witness}");
    assert_eq!([&a, &b].map(carrier_changes), carriers, "a guest has noticed");
    for name in ["a", "b"] {
        let vhost = switch.show_port("vhost", name);
        assert_eq!((&vhost["sessions"], &vhost["last_error"]), (&json!(1), &json!(null)));
    }
    switch.stop();
}

fn carrier_changes(guest: &Guest) -> u64 {
    number(guest, "cat /sys/class/net/eth0/carrier_changes")
}

/// Frames that the guest has sent.
fn moved(guest: &Guest) -> u64 {
    number(guest, "cat /sys/class/net/eth0/statistics/tx_packets")
}
