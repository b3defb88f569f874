//! Memory as a budget: a device for which too little is left is refused, and comes when there is room.

use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, port_key, uuid};
use crate::common::process::eventually;

/// A port by a device that is a program, which takes 1024 buffers to receive into.
fn device(name: &str) -> Value {
    json!({
        "name": name,
        "network": uuid("n"),
        "kind": "ethdev",
        "device": format!("net_null{}", name.len()),
        "port_security": false,
    })
}

#[test]
fn a_device_over_the_budget_is_refused_until_there_is_room() {
    // One worker's cache and two devices: 384 + 2 * 1024.
    let builder = Daemon::builder().set("dpdk.pool_frames", "2500").physnet("w", "net_null0");
    let mut switch = builder.start();
    let log = switch.log();
    for line in [
        "memory: pool: 2500 buffers",
        "memory: physnet w: 1024 buffers (1024 to receive, 0 to send)",
    ] {
        assert!(log.contains(line), "{line:?} is not in:\n{log}");
    }
    switch.local_network("n");
    switch.put(&port_key("a"), &device("a"));
    switch.wait_ready("a");
    switch.put(&port_key("bb"), &device("bb"));
    let state = switch.wait_status("bb", "failed");
    let reason = state["reason"].as_str().expect("it is told");
    assert_eq!(
        reason,
        "it needs 1024 buffers of the pool (1024 to receive, 0 to send), and 68 of 2500 are left; \
         set dpdk.pool_frames = 3456 and restart, or remove another device"
    );
    let memory = switch.show("memory");
    assert_eq!(memory["pool"]["unclaimed_frames"], 68, "{memory:#}");
    assert_eq!(memory["devices"].as_array().map(Vec::len), Some(2), "{memory:#}");
    assert_eq!(switch.show_port("ports", "a")["status"], "ready", "others notice nothing");

    let told = switch.viaduct(&["check"]).success();
    assert!(told.contains("over: 956 buffers more are needed than there are"), "{told}");

    switch.delete(&port_key("a"));
    switch.wait_gone("a");
    switch.wait_ready("bb");
    eventually("it is set aside", SOON, || switch.show("memory")["pool"]["unclaimed_frames"] == 68);
    switch.stop();
}
