//! The running switch in the place of networking-vpp's agent: a Neutron's part is played with an etcd
//! between, from a port's binding to its end.
//!
//! What each key means is tested beside the store; here it is that all of it meets in a daemon, in the
//! order in which Nova and Neutron go on.

mod common;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use common::daemon::{Builder, Daemon, HOST, SOON};
use common::etcd_v2::{self, EtcdV2};
use common::process::eventually;
use serde_json::{Value, json};

const PORT: &str = "8d58e341-42cb-4628-8259-c6aca4b2b882";
const OTHER: &str = "54294fe2-0fdb-4cb7-aac8-1eb61df4bf34";
const GROUP: &str = "6e99cc00-24d3-444a-880b-e6fc8857c855";

/// Whether etcd is here; in CI it must be.
fn runnable() -> bool {
    let Err(reason) = etcd_v2::requirements() else { return true };
    common::skip(&reason);
    false
}

/// A switch whose store is this etcd.
fn switch(etcd: &EtcdV2) -> Builder {
    let builder = Daemon::builder().unset("store.directory");
    let cache = builder.folder().join("last-read.json");
    builder
        .set("store.cache", &format!("'{}'", cache.display()))
        .set("store.networking_vpp.endpoints", &format!("['{}']", etcd.url()))
        .physnet("physnet1", "net_ring0")
}

fn at(part: &str) -> String {
    format!("/networking-vpp/{part}")
}

fn port_key(port: &str) -> String {
    at(&format!("nodes/{HOST}/ports/{port}"))
}

fn state_key(part: &str) -> String {
    at(&format!("state/{HOST}/{part}"))
}

/// A port as the driver writes it.
fn port(mac: &str, address: &str, groups: &[&str]) -> Value {
    json!({
        "mac_address": mac, "mtu": 1500, "physnet": "physnet1", "network_type": "vlan",
        "segmentation_id": 129, "binding_type": "vhostuser", "security_groups": groups,
        "allowed_address_pairs": [],
        "fixed_ips": [{"subnet_id": "ad94c74e-1bd3-41ef-975d-0d8c9454e2e7", "ip_address": address}],
        "port_security_enabled": true, "device_id": "11111111-2222-3333-4444-555555555501",
    })
}

/// A group as Neutron makes it for each project, with more rules for what comes in.
fn group(more: &[Value]) -> Value {
    let any = |six: u8, address: Option<&str>, group: Option<&str>| {
        json!({"is_ipv6": six, "remote_ip_addr": address, "ip_prefix_len": 0,
               "remote_group_id": group, "protocol": 0, "port_min": 0, "port_max": 0})
    };
    let members = [any(0, None, Some(GROUP)), any(1, None, Some(GROUP))];
    let ingress: Vec<Value> = members.into_iter().chain(more.iter().cloned()).collect();
    json!({"ingress_rules": ingress,
           "egress_rules": [any(0, Some("0.0.0.0"), None), any(1, Some("::"), None)]})
}

/// QEMU as it listens for the switch, its guest paused.
fn qemu(switch: &Daemon, port: &str) -> (UnixListener, PathBuf) {
    let path = switch.folder().join("vhost").join(port);
    let listener = UnixListener::bind(&path).expect("a socket directory of our own");
    listener.set_nonblocking(true).expect("a socket of ours");
    (listener, path)
}

fn accepted(listener: &UnixListener) -> UnixStream {
    let mut stream = None;
    eventually("the switch connects", SOON, || {
        stream = listener.accept().ok().map(|(stream, _)| stream);
        stream.is_some()
    });
    stream.expect("it was just there")
}

/// How a port fares, as `viaduct show ports` has it.
fn status(switch: &Daemon, port: &str) -> Option<String> {
    let ports = switch.show("ports");
    let found =
        ports.as_array().expect("a list of ports").iter().find(|found| found["uuid"] == port)?;
    found["status"].as_str().map(str::to_owned)
}

/// What would become of a frame to a port: whether it passes.
fn passes(switch: &Daemon, port: &str, frame: &str) -> bool {
    let output = switch.viaduct(&["test-frame", "--to-port", port, frame]);
    match output.status {
        0 => true,
        1 if output.text.contains("it is dropped") => false,
        _ => panic!("{}", output.text),
    }
}

#[test]
fn a_port_lives_from_bind_to_unbind() {
    if !runnable() {
        return;
    }
    let etcd = EtcdV2::start();
    let mut switch = switch(&etcd).start();
    // Neutron binds on a host that is alive and has the physnet.
    eventually("ports can be bound", SOON, || {
        etcd.value(&state_key("alive")).is_some()
            && etcd.value(&state_key("physnets/physnet1")).is_some()
    });

    // The driver writes the port, then that it is a member of its group. The group may be late.
    let (qemu, _) = qemu(&switch, PORT);
    etcd.set_json(&port_key(PORT), &port("fa:16:3e:d0:9d:71", "10.2.0.232", &[GROUP]));
    etcd.set_json(&at(&format!("global/remote_group/{GROUP}/{PORT}")), &json!(["10.2.0.232"]));
    let connection = accepted(&qemu);
    let plugged = state_key(&format!("ports/{PORT}"));
    eventually("it waits for its group", SOON, || {
        status(&switch, PORT).as_deref() == Some("waiting")
    });
    assert_eq!(etcd.value(&plugged), None, "it would pass nothing yet");
    etcd.set_json(&at(&format!("global/secgroups/{GROUP}")), &group(&[]));
    eventually("it is plugged", SOON, || etcd.value(&plugged).is_some());
    let said: Value =
        serde_json::from_str(&etcd.value(&plugged).expect("it is as the test wrote it"))
            .expect("it is as the test wrote it");
    assert_eq!(said["path"], json!(switch.folder().join("vhost").join(PORT)));
    assert_eq!(said["net_data"]["segmentation_id"], 129);
    let written = etcd.node(&plugged).expect("it is as the test wrote it")["modifiedIndex"].clone();

    // The port is ACTIVE now, so that the driver writes it once more, the same.
    etcd.set_json(&port_key(PORT), &port("fa:16:3e:d0:9d:71", "10.2.0.232", &[GROUP]));
    etcd.set_json(&at(&format!("global/remote_group/{GROUP}/{PORT}")), &json!(["10.2.0.232"]));

    // A project's usual group lets everything out. That lets nothing in but what answers.
    let ssh = "tcp 10.9.9.9:4000 > 10.2.0.232:22";
    assert!(!passes(&switch, PORT, &format!("{ssh} syn")));
    assert!(passes(&switch, PORT, "tcp 10.9.9.9:443 > 10.2.0.232:4000 ack"));
    assert!(!passes(&switch, PORT, "udp 10.9.9.9:53 > 10.2.0.232:4000"));
    assert!(!passes(&switch, PORT, "icmp 8 10.9.9.9 > 10.2.0.232"));
    let rule = json!({"is_ipv6": 0, "remote_ip_addr": "10.9.9.7", "ip_prefix_len": 24,
                      "remote_group_id": null, "protocol": 6, "port_min": 22, "port_max": 22});
    etcd.set_json(&at(&format!("global/secgroups/{GROUP}")), &group(&[rule]));
    eventually("the rule is in force", SOON, || passes(&switch, PORT, &format!("{ssh} syn")));
    assert!(!passes(&switch, PORT, "tcp 10.9.8.9:4000 > 10.2.0.232:22 syn"));

    // A member that comes on another host may speak, and after it went, not.
    let member = at(&format!("global/remote_group/{GROUP}/{OTHER}"));
    let ping = "icmp 8 10.2.0.77 > 10.2.0.232";
    assert!(!passes(&switch, PORT, ping));
    etcd.set_json(&member, &json!(["10.2.0.77"]));
    eventually("it is a member", SOON, || passes(&switch, PORT, ping));
    etcd.delete(&member);
    eventually("it is no member", SOON, || !passes(&switch, PORT, ping));
    assert_eq!(
        etcd.node(&plugged).expect("it is as the test wrote it")["modifiedIndex"],
        written,
        "it was plugged once"
    );

    // Unbound, it is gone at once: the guest's memory is given back.
    etcd.delete(&at(&format!("global/remote_group/{GROUP}/{PORT}")));
    etcd.delete(&port_key(PORT));
    eventually("it is unplugged", SOON, || etcd.value(&plugged).is_none());
    connection.set_nonblocking(true).expect("a socket of ours");
    eventually("the switch lets go", SOON, || {
        // What the switch said before is passed over; then comes the end.
        let mut octets = [0; 4096];
        matches!(std::io::Read::read(&mut &connection, &mut octets), Ok(0))
    });
    switch.stop();
    assert_eq!(etcd.keys(&state_key("")), [""; 0], "nothing is bound here any more");
}

#[test]
fn neither_etcd_nor_a_restart_is_noticed_by_guests() {
    if !runnable() {
        return;
    }
    let mut etcd = EtcdV2::start();
    etcd.set_json(&at(&format!("global/secgroups/{GROUP}")), &group(&[]));
    etcd.set_json(&port_key(PORT), &port("fa:16:3e:d0:9d:71", "10.2.0.232", &[GROUP]));
    let mut switch = switch(&etcd).set("store.networking_vpp.return_traffic", "'none'").start();
    let (qemu, _) = qemu(&switch, PORT);
    let _connection = accepted(&qemu);
    let plugged = state_key(&format!("ports/{PORT}"));
    eventually("it is plugged", SOON, || etcd.value(&plugged).is_some());
    let problems = switch.show("errors");
    let warned = |problem: &Value| {
        problem["field"] == "store.networking_vpp.return_traffic"
            && problem["severity"] == "warning"
    };
    assert!(problems.as_array().expect("a list of ports").iter().any(warned), "{problems:#}");
    assert!(!passes(&switch, PORT, "tcp 10.9.9.9:443 > 10.2.0.232:4000 ack"), "no answer passes");

    // What Neutron asks for and this switch cannot is told at its key.
    let mut gpe = port("fa:16:3e:b3:b9:6c", "10.9.0.203", &[]);
    gpe["network_type"] = json!("gpe");
    etcd.set_json(&port_key(OTHER), &gpe);
    eventually("it is told", SOON, || switch.errors().len() == 1);
    assert_eq!(switch.errors()[0]["object"], port_key(OTHER));
    etcd.delete(&port_key(OTHER));
    eventually("it is over", SOON, || switch.errors().is_empty());

    etcd.kill();
    eventually("the outage is told", SOON, || !switch.errors().is_empty());
    assert_eq!(status(&switch, PORT).as_deref(), Some("ready"));
    etcd.launch();
    etcd.wait();
    eventually("it is over", SOON, || switch.errors().is_empty());
    assert!(qemu.accept().is_err(), "the switch has connected a second time");

    // Killed and started again, it finds its port as it was, and says so again.
    switch.kill();
    etcd.set(&state_key("ports/11111111-1111-4111-8111-111111111111"), "1");
    switch.start();
    let _connection = accepted(&qemu);
    eventually("what is not true goes", SOON, || {
        let keys = etcd.keys(&state_key("ports"));
        keys == [plugged.clone()]
    });
    assert!(
        fs::metadata(switch.folder().join("last-read.json")).is_ok(),
        "it can start without etcd"
    );
    switch.stop();
}
