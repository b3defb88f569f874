//! DPDK devices that are not there: told, tried again, and nobody else's trouble.

use std::fs;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, HOST, SOON, port_key, uuid};
use crate::common::process::eventually;
use crate::common::wire::Wire;
use crate::{SilentGuest, skip};

#[test]
fn a_device_that_is_not_there_is_told_and_waited_for() {
    if !geteuid().is_root() {
        return skip("making a tap interface needs root");
    }
    let interface = |end: &str| format!("vd{}{end}", std::process::id());
    let device = |number: u8, end: &str| format!("net_af_packet{number},iface={}", interface(end));
    let mut switch = Daemon::builder().physnet("w", &device(0, "w")).start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let tap = json!({"network": uuid("n"), "kind": "ethdev", "device": device(1, "p")});
    switch.put(&port_key("q"), &tap);
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");

    switch.wait_status("q", "failed");
    assert_eq!(physnet(&switch)["status"], "failed");
    eventually("both are told", SOON, || switch.errors().len() == 2);
    for (object, device) in [("physnets.w", "net_af_packet0"), (&port_key("q"), "net_af_packet1")] {
        let errors = switch.errors();
        let error = errors.iter().find(|error| error["object"] == object);
        let error = error.unwrap_or_else(|| panic!("{object} is not in {errors:#?}"));
        assert_eq!(error["field"], "device", "{error:#}");
        assert!(error["what"].as_str().is_some_and(|what| what.contains(device)), "{error:#}");
        assert_ne!(error["remedy"], "", "{error:#}");
    }

    // The interfaces come, and the switch takes them by itself.
    let _wires = [Wire::new(&interface("w")), Wire::new(&interface("p"))];
    switch.wait_ready("q");
    eventually("the physnet is ready", SOON, || physnet(&switch)["status"] == "ready");
    assert!(switch.errors().is_empty());
    guest.was_left_alone();
    switch.stop();
}

/// What is reported about the physnet.
fn physnet(switch: &Daemon) -> Value {
    let file = switch.folder().join("store/state").join(HOST).join("physnets/w.json");
    serde_json::from_slice(&fs::read(file).expect("it is reported")).expect("JSON")
}
