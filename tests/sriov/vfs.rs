//! VFs that are given to guests: set through their PF, kept set, and reset with their port.
//!
//! What plays the guest is the kernel's driver of the VF, in a network namespace of its own.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{self, Bed, SOON};
use crate::common::daemon::uuid;
use crate::common::process::eventually;

/// A physnet whose device is of no interest here.
const WIRE: &str = "[physnets.wire]\ndevice = 'net_null0'\n";

fn network(bed: &Bed, name: &str, value: Value) {
    bed.put(&format!("networks/{}", uuid(name)), &value);
}

fn key(name: &str) -> String {
    format!("nodes/here/ports/{}", uuid(name))
}

/// A port that gives a VF away, with more fields.
fn port(vf: &str, last: u8, more: &Value) -> Value {
    let mut port = json!({
        "network": uuid("n"), "kind": "vf-direct", "vf": vf,
        "mac": format!("52:54:00:00:00:{last:02x}"),
    });
    for (name, value) in more.as_object().expect("an object") {
        port[name] = value.clone();
    }
    port
}

/// A VF as `ip` shows it.
#[track_caller]
pub fn shown(bed: &Bed, pf: &str, number: usize) -> Value {
    let text = bed.sh(&format!("ip -j -d link show {pf}"));
    let links: Value = serde_json::from_str(text.trim()).expect("JSON");
    links[0]["vfinfo_list"][number].clone()
}

/// Has the VF's kernel driver be a guest: in a namespace, with this address, by the name `eth0`.
#[track_caller]
pub fn guest(bed: &Bed, namespace: &str, function: &str, ip: &str) {
    bed.sh(&format!(
        "modprobe igbvf && ip netns add {namespace} && \
         ip link set $(ls /sys/bus/pci/devices/{function}/net) netns {namespace} name eth0 && \
         ip -n {namespace} link set eth0 up && ip -n {namespace} address add {ip}/24 dev eth0"
    ));
}

#[test]
fn a_vf_is_set_kept_and_reset() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.start(WIRE);
    network(&bed, "n", json!({"type": "vlan", "physnet": "wire", "vlan": 100}));
    let more = json!({"qos": 3, "max_rate_mbps": 100, "trust": true});
    bed.put(&key("a"), &port("pf0/0", 1, &more));
    let state = bed.wait_status("a", "ready");
    assert_eq!(
        state["vf"],
        json!({
            "name": "pf0/0", "pf": "pf0", "number": 0, "address": "0000:01:10.0",
            "restored": 0, "renewed": 0,
            "actual": {
                "mac": "52:54:00:00:00:01", "vlan": 100, "qos": 3, "spoofchk": true, "trust": true,
                "link_state": "auto", "max_rate_mbps": 100,
            },
        })
    );
    let vf = shown(&bed, "pf0", 0);
    assert_eq!(vf["address"], "52:54:00:00:00:01", "{vf}");
    assert_eq!(vf["vlan_list"], json!([{"vlan": 100, "qos": 3}]), "{vf}");
    assert_eq!((&vf["spoofchk"], &vf["trust"]), (&json!(true), &json!(true)), "{vf}");
    assert_eq!((&vf["link_state"], &vf["rate"]["max_tx"]), (&json!("auto"), &json!(100)), "{vf}");
    let other = shown(&bed, "pf0", 1);
    assert_eq!(other["address"], "52:54:00:aa:00:01", "nobody's VF is left alone: {other}");

    // What the guest sends leaves with the network's tag.
    guest(&bed, "g", "0000:01:10.0", "10.0.0.1");
    bed.sh("ip netns exec g ping -c 8 -W 1 10.0.0.9 >/dev/null; true");
    let from_guest = |frame: &[u8]| frame[6..12] == [0x52, 0x54, 0, 0, 0, 1];
    let frame =
        bed.wires[0].find(Duration::from_secs(5), from_guest).expect("it asks who has that");
    assert_eq!(
        (&frame[12..14], frame[15], frame[14] & 0x0f),
        (&[0x81, 0][..], 100, 0),
        "{frame:?}"
    );

    // Somebody else changes it, and it is put back and counted.
    bed.sh("ip link set pf0 vf 0 vlan 200 && ip link set pf0 vf 0 trust off");
    eventually("what was changed is put back", SOON, || {
        let vf = shown(&bed, "pf0", 0);
        vf["vlan_list"] == json!([{"vlan": 100, "qos": 3}]) && vf["trust"] == json!(true)
    });
    eventually("that is counted", SOON, || {
        bed.state("a").is_some_and(|state| state["vf"]["restored"] == json!(2))
    });
    let ports = bed.json("show ports");
    let shown_port =
        ports.as_array().expect("a list").iter().find(|port| port["kind"] == "vf-direct");
    assert_eq!(shown_port.expect("it is shown")["vf"]["restored"], json!(2));
    bed.wait_logged("somebody has set VLAN 200; it is put back to VLAN 100 with priority 3");

    // Another value of desired state is no meddling.
    bed.put(&key("a"), &port("pf0/0", 1, &json!({"spoofchk": false})));
    eventually("it follows desired state", SOON, || {
        bed.state("a").is_some_and(|state| state["vf"]["actual"]["spoofchk"] == json!(false))
    });
    assert_eq!(bed.wait_status("a", "ready")["vf"]["restored"], json!(2));

    // It stays while the daemon is away, and goes with the port.
    bed.kill();
    bed.start_again();
    eventually("the next daemon finds it as it should be", SOON, || {
        let vf = bed.state("a").map(|state| state["vf"].clone()).unwrap_or_default();
        (&vf["restored"], &vf["actual"]["vlan"]) == (&json!(0), &json!(100))
    });
    bed.delete(&key("a"));
    eventually("it is reset", SOON, || {
        let vf = shown(&bed, "pf0", 0);
        vf["address"] == "00:00:00:00:00:00"
            && vf["spoofchk"] == json!(true)
            && vf["trust"] == json!(false)
            && vf["vlan_list"].get(0).is_none_or(|tag| tag["vlan"].as_u64().unwrap_or(0) == 0)
    });
}

#[test]
fn what_cannot_be_had_is_told_and_changes_nothing_else() {
    if !bed::available() {
        return;
    }
    let bed = Bed::restore();
    bed.start(&format!("{WIRE}[physnets.other]\ndevice = 'pf1/0'\n"));
    network(&bed, "n", json!({"type": "vlan", "physnet": "wire", "vlan": 100}));
    bed.put(&key("good"), &port("pf0/0", 1, &json!({})));
    bed.wait_status("good", "ready");
    for (at, (vf, more, reason)) in [
        (
            "pf0/5",
            json!({}),
            "PF `pf0` has VFs 0 to 1 and no VF 5; have it make 6 or more: write the number to \
             /sys/class/net/pf0/device/sriov_numvfs",
        ),
        (
            "pf0/77",
            json!({}),
            "PF `pf0` has VFs 0 to 1 and no VF 77, and can have 7; choose a VF below 7",
        ),
        (
            "pf9/0",
            json!({}),
            "PF `pf9` is not there; load its driver, or correct the name of its interface",
        ),
        (
            "pf1/1",
            json!({"link_state": "enable"}),
            "PF `pf1` cannot give VF 1 link state `enable`: its driver igb has no such setting; remove \
             `link_state`, or choose a VF of another NIC",
        ),
        (
            "0000:02:10.0",
            json!({}),
            "VF 0 of `pf1` is the device of physnet `other`; choose another VF",
        ),
        (
            "0000:01:10.0",
            json!({}),
            &format!(
                "VF 0 of `pf0` is that of port {} by another name; choose another VF",
                uuid("good")
            ),
        ),
        ("0000:01:00.0", json!({}), "0000:01:00.0 is not a VF; write the address of a VF"),
    ]
    .into_iter()
    .enumerate()
    {
        // Of two ports with one VF, the smaller UUID has it, which is that of `good`.
        let name = format!("z{at}");
        bed.put(&key(&name), &port(vf, 0x10 + at as u8, &more));
        let state = bed.wait_status(&name, "failed");
        assert_eq!(state["reason"], reason);
        bed.delete(&key(&name));
    }
    assert_eq!(bed.wait_status("good", "ready")["vf"]["restored"], json!(0));
    assert_eq!(
        shown(&bed, "pf1", 0)["address"],
        "52:54:00:aa:01:00",
        "the switch's VF is left alone"
    );
}

#[test]
fn a_vf_or_a_pf_that_was_made_again_is_set_again() {
    if !bed::available() {
        return;
    }
    let bed = Bed::restore();
    bed.start(WIRE);
    network(&bed, "n", json!({"type": "vlan", "physnet": "wire", "vlan": 100}));
    bed.put(&key("a"), &port("pf0/1", 1, &json!({})));
    bed.put(&key("b"), &port("pf1/1", 2, &json!({})));
    bed.wait_status("a", "ready");
    bed.wait_status("b", "ready");

    // The VF is removed under its guest, and comes again.
    guest(&bed, "g", "0000:01:10.2", "10.0.0.1");
    bed.sh("echo 0 >/sys/class/net/pf0/device/sriov_numvfs");
    let state = bed.wait_status("a", "failed");
    let reason = state["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("PF `pf0` has no VFs; have it make 2 or more"), "{reason}");
    bed.sh("echo 2 >/sys/class/net/pf0/device/sriov_numvfs");
    let state = bed.wait_status("a", "ready");
    assert_eq!((&state["vf"]["renewed"], &state["vf"]["restored"]), (&json!(1), &json!(0)));
    assert_eq!(shown(&bed, "pf0", 1)["address"], "52:54:00:00:00:01");

    // The PF's driver goes, and comes again.
    bed.sh("rmmod igbvf; echo 0000:01:00.0 >/sys/bus/pci/drivers/igb/unbind");
    let state = bed.wait_status("a", "failed");
    let reason = state["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("PF `pf0` is not there; load its driver"), "{reason}");
    bed.sh("echo 0000:01:00.0 >/sys/bus/pci/drivers/igb/bind && \
         ip link set $(ls /sys/bus/pci/devices/0000:01:00.0/net) name pf0 && ip link set pf0 up && \
         echo 2 >/sys/class/net/pf0/device/sriov_numvfs");
    let state = bed.wait_status("a", "ready");
    assert_eq!(state["vf"]["renewed"], json!(2));
    let vf = shown(&bed, "pf0", 1);
    assert_eq!(
        (&vf["address"], &vf["vlan_list"][0]["vlan"]),
        (&json!("52:54:00:00:00:01"), &json!(100))
    );
    assert_eq!(bed.wait_status("b", "ready")["vf"]["renewed"], json!(0), "others are left alone");

    // A dead wire is told: the VF's link state is that of the wire.
    bed.monitor("set_link wire0 off");
    let state = bed.wait_status("a", "down");
    assert_eq!(state["reason"], "the link of its PF `pf0` is down");
    bed.monitor("set_link wire0 on");
    bed.wait_status("a", "ready");
}
