//! A guest sees its link go down when nothing can leave by its network, and come up again: by the end
//! of its session, whoever makes the socket, and by QEMU's monitor.

use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::json;

use crate::common::daemon::{Daemon, guest_port, network_key, port_key};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::process::{self, eventually};
use crate::common::wire::Wire;
use crate::{Plan, boot, reaches, skip};

/// Its QEMU owns the socket, and the switch connects.
const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
/// The switch owns the socket, and its QEMU connects.
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

#[test]
fn guests_are_told_that_nothing_can_leave() {
    if !guest::available() {
        return;
    }
    if !geteuid().is_root() {
        return skip("making a tap interface needs root");
    }
    let interface = format!("vdl{}", std::process::id());
    let _wire = Wire::new(&interface);
    let device = format!("net_af_packet0,iface={interface}");
    let mut switch = Daemon::builder().physnet("w", &device).start();
    let network = json!({"type": "flat", "physnet": "w", "follow_uplink": true});
    switch.put(&network_key("red"), &network);
    A.add_port(&switch);
    let mut port = guest_port(B.name, B.network, B.mac);
    port["mode"] = json!("server");
    switch.put(&port_key(B.name), &port);
    let [a, b] = boot([A.guest(&switch), B.guest(&switch).qemu_is_server(false)]);
    reaches(&a, B.ip);

    let carrier = |word: &str| {
        let mut command = Command::new("ip");
        command.args(["link", "set", &interface, "carrier", word]);
        process::run(&mut command, SHORT).success();
    };
    for _ in 0..2 {
        carrier("off");
        for guest in [&a, &b] {
            link_is(guest, "0");
        }
        for name in ["a", "b"] {
            let state = switch.wait_status(name, "waiting");
            let reason = state["reason"].as_str().expect("why").to_owned();
            assert!(reason.ends_with("physnet: its link is down too"), "{reason}");
        }
        carrier("on");
        for guest in [&a, &b] {
            link_is(guest, "1");
        }
        reaches(&a, B.ip);
    }

    // By hand, for one guest, while its session stays.
    a.monitor("set_link net off");
    link_is(&a, "0");
    assert_eq!(switch.state("a").expect("it is reported")["status"], "ready");
    a.monitor("set_link net on");
    link_is(&a, "1");
    reaches(&a, B.ip);
    switch.stop();
}

#[track_caller]
fn link_is(guest: &Guest, carrier: &str) {
    eventually(&format!("the carrier is {carrier}"), Duration::from_secs(60), || {
        guest.run("cat /sys/class/net/eth0/carrier", SHORT).text.trim() == carrier
    });
}
