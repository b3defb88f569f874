//! A virtual function as an uplink: taken, used, given back; and what its card and the host do to it
//! meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{self, Bed};
use crate::common::daemon::{network_key, port_key, uuid};
use crate::common::process::eventually;
use crate::vfs::shown;

/// The first virtual function of the first card.
const VF: &str = "0000:01:10.0";
/// Its address, which is that of the station behind the switch: it hears no other.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 0];
/// The station's address.
const IP: [u8; 4] = [10, 0, 0, 1];

/// Time for what takes some seconds there, such as trying a device again.
const LATER: Duration = Duration::from_secs(120);

const UPLINK: &str = "[physnets.wire]\ndevice = 'pf0/0'\n";

/// The switch with the uplink and its station, which the wire reaches.
#[track_caller]
fn on_the_uplink() -> Bed {
    let mut bed = Bed::restore();
    bed.start(UPLINK);
    add_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);
    bed
}

/// A network on the uplink, and a station on it: an interface of the machine.
fn add_station(bed: &Bed) {
    let network = json!({"type": "flat", "physnet": "wire"});
    bed.put(&network_key("red"), &network);
    let port = json!({
        "network": uuid("red"),
        "kind": "tap",
        "interface": "g1",
        "mac": "52:54:00:aa:00:00",
    });
    bed.put(&port_key("station"), &port);
    bed.wait_status("station", "ready");
    address_station(bed);
}

/// Gives the station its address, and the way to who asks.
fn address_station(bed: &Bed) {
    eventually("the station's interface is made", LATER, || bed.run("ip link show g1").status == 0);
    bed.sh("ip address replace 10.0.0.1/24 dev g1");
    bed.sh("ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev g1");
}

/// The driver that a device has.
fn driver(bed: &Bed, address: &str) -> String {
    let said = bed.run(&format!("readlink /sys/bus/pci/devices/{address}/driver"));
    said.text.trim().rsplit('/').next().unwrap_or_default().to_owned()
}

/// What `viaduct nics` says of a device.
fn nic(bed: &Bed, address: &str) -> Value {
    let all = bed.json("nics");
    let all = all.as_array().expect("a list").iter();
    all.clone().find(|nic| nic["address"] == address).expect("it is listed").clone()
}

#[test]
fn a_virtual_function_is_taken_and_given_back_to_its_driver() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.sh("modprobe igbvf");
    assert_eq!(driver(&bed, VF), "igbvf");
    bed.sh("ip link set pf0 vf 0 vlan 7 qos 2 && ip link set pf0 vf 0 trust on");
    let settings = json!({
        "mac": "52:54:00:aa:00:00", "vlan": 7, "qos": 2, "spoofchk": true, "trust": true,
        "link_state": "auto", "max_rate_mbps": 0,
    });
    assert_eq!(
        nic(&bed, VF)["of"],
        json!({"address": "0000:01:00.0", "interface": "pf0", "number": 0, "settings": settings})
    );
    let words = "mac 52:54:00:aa:00:00 spoofchk on trust on vlan 7 qos 2";
    let listed = bed.sh("viaduct nics");
    assert!(
        listed.lines().any(|line| line.contains(VF) && line.trim().ends_with(words)),
        "{listed}"
    );
    bed.sh("ip link set pf0 vf 0 vlan 0 && ip link set pf0 vf 0 trust off");
    bed.start(UPLINK);
    add_station(&bed);
    bed.wait_status("physnets/wire", "ready");
    assert_eq!(driver(&bed, VF), "vfio-pci");
    let line = bed.wait_logged("took the device for vfio-pci");
    assert!(line.contains(VF) && line.contains("igbvf"), "{line}");
    bed.wires[0].reaches(MAC, IP, LATER);

    // Who looks sees whose it is, and what it cannot do.
    let seen = nic(&bed, VF);
    assert_eq!((&seen["driver"], &seen["port"]), (&json!("vfio-pci"), &json!("wire")));
    assert_eq!(seen["held_by"][0]["name"], "viaduct", "{seen:#}");
    let ports = bed.json("show ports");
    let uplink = &ports[0];
    let reason = uplink["reason"].as_str().unwrap_or_default();
    assert_eq!(uplink["status"], "ready", "{uplink:#}");
    assert!(
        reason.starts_with("as a virtual function it receives frames to its own address"),
        "{reason}"
    );

    bed.wait_reason("physnets/wire", "its card drops (ip link set pf0 vf 0 spoofchk off)");
    let checked = bed.run("viaduct check").text;
    let doubt = "the card of 0000:01:10.0 drops what it sends from other addresses than its own";
    assert!(checked.contains(doubt), "{checked}");
    bed.sh("ip link set pf0 vf 0 spoofchk off");
    eventually("it is told no more", LATER, || {
        let state = bed.state("physnets/wire").unwrap_or_default();
        state["reason"].as_str().is_some_and(|reason| !reason.contains("spoofchk"))
    });
    assert!(!bed.run("viaduct check").text.contains(doubt));

    // Killed, it cannot give the device back; who follows it does.
    bed.kill();
    assert_eq!(driver(&bed, VF), "vfio-pci");
    bed.start_again();
    address_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);
    bed.stop();
    assert_eq!(driver(&bed, VF), "igbvf", "{}", bed.log());
    bed.wait_logged("gave the device back");
}

#[test]
fn a_card_that_goes_down_and_up_leaves_it_deaf_for_a_moment_only() {
    if !bed::available() {
        return;
    }
    let mut bed = on_the_uplink();

    bed.sh("ip link set pf0 down");
    bed.wait_reason("physnets/wire", "the interface pf0 of its card is down");
    let state = bed.wait_status("physnets/wire", "down");
    let reason = state["reason"].as_str().unwrap_or_default();
    assert!(reason.ends_with("ip link set pf0 up"), "{reason}");
    bed.sh("ip link set pf0 up");
    bed.wires[0].reaches(MAC, IP, LATER);
    bed.wait_status("physnets/wire", "ready");
    bed.wait_logged("started the device again");

    // Faster than anybody looks.
    bed.sh("ip link set pf0 down; ip link set pf0 up");
    bed.wires[0].reaches(MAC, IP, LATER);
    eventually("it was started again", LATER, || {
        bed.log().matches("started the device again").count() >= 2
    });
    bed.wires[0].reaches(MAC, IP, LATER);
}

#[test]
fn another_address_that_its_card_gives_it_is_used() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    // The card of a trusted one would take the former address back from it.
    bed.sh("ip link set pf0 vf 0 trust on");
    bed.start(UPLINK);
    add_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);
    let uplink = |bed: &Bed| bed.json("show ports")[0].clone();
    let restarts = uplink(&bed)["restarts"].as_u64().expect("a number");

    let give = |bed: &Bed, mac: [u8; 6]| {
        let words = mac.map(|octet| format!("{octet:02x}")).join(":");
        bed.sh(&format!("ip link set pf0 vf 0 mac {words}"));
        let station =
            json!({"network": uuid("red"), "kind": "tap", "interface": "g1", "mac": words});
        bed.put(&port_key("station"), &station);
        bed.sh(&format!("ip link set g1 address {words}"));
        address_station(bed);
        words
    };
    let mac = [0x52, 0x54, 0, 0xbb, 0, 1];
    let words = give(&bed, mac);
    bed.wait_logged(&format!(
        "its card has given it the address {words}: started the device again"
    ));
    bed.wires[0].reaches(mac, IP, LATER);
    let seen = uplink(&bed);
    assert_eq!(
        (&seen["mac"], &seen["restarts"]),
        (&json!(words), &json!(restarts + 1)),
        "{seen:#}"
    );
    assert_eq!(shown(&bed, "pf0", 0)["address"], words, "the card has it still");

    // Another function's address is no matter of this one. This is seen later than that.
    bed.sh("ip link set pf0 vf 1 mac 52:54:00:bb:00:02");
    let mac = [0x52, 0x54, 0, 0xbb, 0, 3];
    let words = give(&bed, mac);
    eventually("the second address is used", LATER, || uplink(&bed)["mac"] == words);
    bed.wires[0].reaches(mac, IP, LATER);
    assert_eq!(uplink(&bed)["restarts"], json!(restarts + 2));

    // While its card is down nobody can tell the function.
    bed.sh("ip link set pf0 down");
    bed.wait_status("physnets/wire", "down");
    let mac = [0x52, 0x54, 0, 0xbb, 0, 4];
    let words = give(&bed, mac);
    bed.sh("ip link set pf0 up");
    eventually("the third address is used", LATER, || uplink(&bed)["mac"] == words);
    bed.wires[0].reaches(mac, IP, LATER);
    assert_eq!(shown(&bed, "pf0", 0)["address"], words, "the card has it still");
    bed.stop();
}

#[test]
fn a_process_that_takes_over_goes_on_with_it() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.sh("modprobe igbvf");
    bed.start(UPLINK);
    add_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);

    let pid = bed.hand_over();
    // The station's interface goes with the one process and is made anew by the other.
    eventually("the station is reached by the new process", LATER, || {
        bed.run("ip address replace 10.0.0.1/24 dev g1");
        bed.run("ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev g1");
        bed.wires[0].echoes(MAC, IP, Duration::from_millis(500))
    });
    bed.wait_status("physnets/wire", "ready");
    let seen = nic(&bed, VF);
    assert_eq!(seen["held_by"][0]["pid"], json!(pid), "{seen:#}");
    assert_eq!((&seen["driver"], &seen["port"]), (&json!("vfio-pci"), &json!("wire")));
    let log = bed.log();
    assert_eq!(log.matches("took the device for vfio-pci").count(), 1, "{log}");
    assert!(!log.contains("gave the device back"), "{log}");

    // What a third one is not to have, it gives back; and what it has, when it ends.
    bed.configure("[physnets.wire]\ndevice = 'pf1/0'\n");
    let pid = bed.hand_over();
    bed.wait_status("physnets/wire", "ready");
    eventually("the first one is given back", LATER, || driver(&bed, VF) == "igbvf");
    let seen = nic(&bed, "0000:02:10.0");
    assert_eq!(seen["held_by"][0]["pid"], json!(pid), "{seen:#}");
    assert_eq!(driver(&bed, "0000:02:10.0"), "vfio-pci");
    bed.stop();
    assert_eq!(driver(&bed, "0000:02:10.0"), "igbvf", "{}", bed.log());
}

#[test]
fn a_port_of_its_own_is_served_as_an_uplink_is() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.sh("modprobe igbvf");
    bed.start("");
    bed.put(&network_key("red"), &json!({"type": "local"}));
    let port = json!({"network": uuid("red"), "kind": "ethdev", "device": "pf0/0"});
    bed.put(&port_key("vf"), &port);
    bed.wait_status("vf", "ready");
    assert_eq!(driver(&bed, VF), "vfio-pci");
    assert_eq!(nic(&bed, VF)["port"], json!(uuid("vf")));
    let station = json!({"network": uuid("red"), "kind": "tap", "interface": "g1"});
    bed.put(&port_key("station"), &station);
    bed.wait_status("station", "ready");
    bed.sh("ip link set g1 address 52:54:00:aa:00:00");
    address_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);
    let view = |bed: &Bed| {
        let ports = bed.json("show ports");
        let mut ports = ports.as_array().expect("a list").iter();
        ports.find(|port| port["uuid"] == uuid("vf")).expect("it is shown").clone()
    };
    assert!(view(&bed)["received_frames"].as_u64() > Some(0), "{}", view(&bed));

    // What its card does to it is seen to.
    bed.sh("ip link set pf0 down");
    bed.wait_reason("vf", "the interface pf0 of its card is down");
    bed.wait_status("vf", "down");
    bed.sh("ip link set pf0 up");
    bed.wires[0].reaches(MAC, IP, LATER);
    let mac = [0x52, 0x54, 0, 0xbb, 0, 1];
    bed.sh("ip link set pf0 vf 0 mac 52:54:00:bb:00:01; ip link set g1 address 52:54:00:bb:00:01");
    address_station(&bed);
    eventually("the other address is used", LATER, || {
        bed.state("vf").is_some_and(|state| state["mac"] == "52:54:00:bb:00:01")
    });
    bed.wires[0].reaches(mac, IP, LATER);
    assert!(view(&bed)["restarts"].as_u64() >= Some(2), "{}", view(&bed));

    // The host takes it away and gives it back.
    bed.sh("timeout 60 sh -c 'echo 0 >/sys/class/net/pf0/device/sriov_numvfs'");
    bed.wait_status("vf", "failed");
    bed.sh("echo 2 >/sys/class/net/pf0/device/sriov_numvfs && ip link set pf0 vf 0 mac 52:54:00:bb:00:01");
    bed.wait_status("vf", "ready");
    bed.wires[0].reaches(mac, IP, LATER);

    bed.delete(&port_key("vf"));
    eventually("it is given back", LATER, || driver(&bed, VF) == "igbvf");
    assert_eq!(bed.wait_status("station", "ready")["status"], "ready");
    bed.stop();
}

#[test]
fn one_that_the_host_takes_away_is_let_go_and_comes_back_by_itself() {
    if !bed::available() {
        return;
    }
    let mut bed = on_the_uplink();

    // Under traffic. Who removes it must not wait for the switch for ever.
    bed.sh("setsid ping -q -i 0.02 10.0.0.9 >/dev/null 2>&1 &");
    bed.sh("timeout 60 sh -c 'echo 0 >/sys/class/net/pf0/device/sriov_numvfs'");
    let state = bed.wait_status("physnets/wire", "failed");
    let reason = state["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(VF) || reason.contains("pf0 has no virtual functions now"), "{reason}");
    assert_eq!(bed.json("show ports")[1]["status"], "ready", "the others stay");
    bed.sh("echo 2 >/sys/class/net/pf0/device/sriov_numvfs && ip link set pf0 vf 0 mac 52:54:00:aa:00:00");
    bed.wait_status("physnets/wire", "ready");
    bed.wires[0].reaches(MAC, IP, LATER);

    // The driver of its card is loaded anew, and with it go all its functions.
    bed.sh("timeout 60 rmmod igb");
    bed.wait_status("physnets/wire", "failed");
    bed.sh(
        "modprobe igb && old=$(ls /sys/bus/pci/devices/0000:01:00.0/net) && ip link set $old down && \
         ip link set $old name pf0 && ip link set pf0 up && echo 2 >/sys/class/net/pf0/device/sriov_numvfs && \
         ip link set pf0 vf 0 mac 52:54:00:aa:00:00",
    );
    bed.wait_status("physnets/wire", "ready");
    bed.wires[0].reaches(MAC, IP, LATER);
    bed.stop();
}

#[test]
fn what_is_not_ours_to_take_is_named_and_left() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.sh("echo 1 >/sys/class/net/pf2/device/sriov_numvfs");
    // A guest has one, and the host another.
    bed.sh("echo vfio-pci >/sys/bus/pci/devices/0000:02:10.0/driver_override && \
         echo 0000:02:10.0 >/sys/bus/pci/drivers_probe");
    bed.sh(
        "exec 7<>/dev/vfio/$(basename $(readlink /sys/bus/pci/devices/0000:02:10.0/iommu_group))",
    );
    bed.sh("modprobe igbvf");
    bed.sh("ip link set $(ls /sys/bus/pci/devices/0000:02:10.2/net) up");
    let table = [
        ("beyond", "pf0/9", "pf0 has no virtual function 9: it can have 7", "up to 6"),
        ("more", "pf0/5", "pf0 has no virtual function 5: there are 2", "echo 6"),
        ("nowhere", "pf9/0", "there is no interface pf9", "correct the name"),
        ("empty", "0000:01:11.0", "there is no PCI device 0000:01:11.0", "sriov_numvfs"),
        ("guest", "pf1/0", "0000:02:10.0 is in use: process", "name another device"),
        ("host", "pf1/1", "0000:02:10.2 is in use: igbvf has it", "ip link set"),
        ("shared", "pf2/0", "0000:03:10.0 shares IOMMU group", "ACS"),
        ("card", "0000:02:00.0", "0000:02:00.0 is in use: igb has it", "ip link set pf1 down"),
    ];
    let physnet = |(name, device, ..): &(&str, &str, &str, &str)| {
        format!("[physnets.{name}]\ndevice = '{device}'\n")
    };
    let configuration: String = table.iter().map(physnet).collect();
    bed.start(&format!("{UPLINK}{configuration}"));
    for (name, _, what, remedy) in table {
        let state = bed.wait_status(&format!("physnets/{name}"), "failed");
        let reason = state["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(what), "{name}: {reason}");
        let (_, said) = reason.split_once("; ").expect("a remedy");
        assert!(said.contains(remedy), "{name}: {reason}");
    }
    add_station(&bed);
    bed.wires[0].reaches(MAC, IP, LATER);
    for (address, has) in [
        ("0000:02:10.0", "vfio-pci"),
        ("0000:02:10.2", "igbvf"),
        ("0000:03:10.0", "igbvf"),
        ("0000:02:00.0", "igb"),
        ("0000:01:10.2", "igbvf"),
    ] {
        assert_eq!(driver(&bed, address), has, "{address}");
    }
    let checked = bed.run("viaduct check").text;
    for what in ["physnets.beyond.device: pf0 has no virtual function 9", "physnets.shared.device"]
    {
        assert!(checked.contains(what), "{checked}");
    }
    bed.stop();
}
