//! Bonds of VFs. The switch's own, of two uplinks; and one address on two physnets at once: a guest that
//! has two VFs, or a VF and a port of the switch, and bonds them by its kernel's driver.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{self, Bed};
use crate::common::daemon::{network_key, port_key, uuid};
use crate::common::process::eventually;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 7];
const IP: [u8; 4] = [10, 0, 0, 7];
const PATIENCE: Duration = Duration::from_secs(60);

const WIRES: &str = "[physnets.zero]\ndevice = 'net_af_packet0,iface=pf0'\n\
                     [physnets.one]\ndevice = 'net_af_packet1,iface=pf1'\n";

fn put(bed: &Bed, name: &str, network: &str, more: Value) {
    let mut port = json!({"network": uuid(network), "mac": "52:54:00:00:00:07"});
    for (name, value) in more.as_object().expect("an object") {
        port[name] = value.clone();
    }
    bed.put(&format!("nodes/here/ports/{}", uuid(name)), &port);
}

/// The switch with both ports of the guest, plugged at once.
fn plugged(first: Value, second: Value) -> Bed {
    let bed = Bed::restore();
    bed.sh("modprobe tun");
    bed.start(WIRES);
    for (name, physnet) in [("n0", "zero"), ("n1", "one")] {
        let network = json!({"type": "flat", "physnet": physnet});
        bed.put(&format!("networks/{}", uuid(name)), &network);
    }
    put(&bed, "a", "n0", first);
    put(&bed, "b", "n1", second);
    for port in ["a", "b"] {
        assert_eq!(bed.wait_status(port, "ready")["mac"], "52:54:00:00:00:07");
    }
    bed
}

/// Bonds two interfaces as the guest's kernel does.
fn bond(bed: &Bed, mode: &str, interfaces: [&str; 2]) {
    let [a, b] = interfaces;
    bed.sh(&format!(
        "modprobe -a bonding igbvf; ip netns add g && \
         ip link set {a} netns g name s0 && ip link set {b} netns g name s1 && \
         ip -n g link add bond0 type bond mode {mode} miimon 100 && \
         ip -n g link set s0 down && ip -n g link set s1 down && \
         ip -n g link set s0 master bond0 && ip -n g link set s1 master bond0 && \
         ip -n g link set bond0 up && ip -n g address add 10.0.0.7/24 dev bond0 && \
         ip -n g neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev bond0"
    ));
    assert!(bed.sh("ip -n g link show bond0").contains("52:54:00:00:00:07"));
}

const VF0: &str = "$(ls /sys/bus/pci/devices/0000:01:10.0/net)";
const VF1: &str = "$(ls /sys/bus/pci/devices/0000:02:10.0/net)";

#[test]
fn an_active_backup_bond_of_two_vfs_goes_from_one_to_the_other() {
    if !bed::available() {
        return;
    }
    let vf = |vf: &str| json!({"kind": "vf-direct", "vf": vf});
    let mut bed = plugged(vf("pf0/0"), vf("pf1/0"));
    bed.sh("modprobe igbvf");
    bond(&bed, "active-backup primary s0", [VF0, VF1]);
    bed.wires[0].reaches(MAC, IP, PATIENCE);
    // The guest gives up its first VF. That a dead wire makes it do so is the card's to tell, and the
    // emulated one does not.
    bed.sh("ip -n g link set s0 down");
    bed.wires[1].reaches(MAC, IP, PATIENCE);
    bed.sh("ip -n g link set s0 up");
    bed.wires[0].reaches(MAC, IP, PATIENCE);
}

#[test]
fn a_round_robin_bond_of_a_vf_and_a_port_of_the_switch_uses_both() {
    if !bed::available() {
        return;
    }
    let tap = json!({"kind": "tap", "interface": "station"});
    let mut bed = plugged(json!({"kind": "vf-direct", "vf": "pf0/0"}), tap);
    bed.sh("modprobe igbvf");
    bond(&bed, "balance-rr", [VF0, "station"]);
    for wire in [0, 1] {
        bed.wires[wire].reaches(MAC, IP, PATIENCE);
    }
    let ports = bed.json("show ports");
    let of = |name: &str| {
        let ports = ports.as_array().expect("a list");
        ports.iter().find(|port| port["uuid"] == uuid(name)).expect("it is shown").clone()
    };
    assert!(of("b")["received_frames"].as_u64() > Some(0), "{}", of("b"));
    assert_eq!(of("a")["received_frames"], json!(0), "a VF's frames never see the switch");
}

/// A station behind a bond of the switch's: the address of both VFs, since each hears no other.
fn add_station(bed: &Bed) {
    bed.put(&network_key("n"), &json!({"type": "flat", "physnet": "pair"}));
    let port = json!({
        "network": uuid("n"), "kind": "tap", "interface": "station", "mac": "52:54:00:00:00:07",
    });
    bed.put(&port_key("s"), &port);
    bed.wait_status("s", "ready");
    address_station(bed);
}

fn address_station(bed: &Bed) {
    eventually("the station's interface is made", PATIENCE, || {
        bed.run("ip link show station").status == 0
    });
    bed.sh("ip address replace 10.0.0.7/24 dev station");
    bed.sh("ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev station");
}

#[test]
fn a_bond_of_two_uplink_vfs_goes_on_with_the_one_that_is_left() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    let address = |bed: &Bed, pf: &str| {
        bed.sh(&format!("ip link set {pf} vf 0 mac 52:54:00:00:00:07"));
    };
    address(&bed, "pf0");
    address(&bed, "pf1");
    bed.start(
        "[physnets.pair.bond]\nmembers = ['pf0/0', 'pf1/0']\nprimary = 'pf0/0'\nup_delay_ms = 200\n",
    );
    add_station(&bed);
    bed.wait_status("physnets/pair", "ready");
    bed.wires[0].reaches(MAC, IP, PATIENCE);

    // The card of the first goes down, of which its function's link says nothing.
    bed.sh("ip link set pf0 down");
    bed.wires[1].reaches(MAC, IP, PATIENCE);
    let reason = bed.wait_reason("physnets/pair", "interface pf0 of its card is down");
    assert_eq!(bed.state("physnets/pair").expect("it is told")["status"], "ready", "{reason}");
    bed.sh("ip link set pf0 up");
    bed.wires[0].reaches(MAC, IP, PATIENCE);

    // The host takes it away.
    bed.sh("timeout 60 sh -c 'echo 0 >/sys/class/net/pf0/device/sriov_numvfs'");
    bed.wires[1].reaches(MAC, IP, PATIENCE);
    bed.wait_reason("physnets/pair", "pf0 has no virtual functions now");
    assert_eq!(bed.state("physnets/pair").expect("it is told")["status"], "ready");

    // Whoever starts then has one, and the other when it is there.
    bed.stop();
    bed.start_again();
    address_station(&bed);
    bed.wires[1].reaches(MAC, IP, PATIENCE);
    bed.wait_reason("physnets/pair", "pf0 has no virtual functions now");
    bed.sh("echo 2 >/sys/class/net/pf0/device/sriov_numvfs");
    address(&bed, "pf0");
    bed.wires[0].reaches(MAC, IP, PATIENCE);
    bed.wait_status("physnets/pair", "ready");
    bed.sh("ip link set pf1 down");
    bed.wires[0].reaches(MAC, IP, PATIENCE);
    bed.stop();
}
