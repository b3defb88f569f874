//! A guest's network leaves the host as a VLAN of the wire, and only as that one.

use std::time::Duration;

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder, SlicedPacket};
use etherparse::{LinkExtSlice, NetSlice, VlanId};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, network_key};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::process::eventually;
use crate::common::wire::Wire;
use crate::{Plan, boot, number, skip};

const GUEST: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x0a];
const GUEST_IP: [u8; 4] = [10, 0, 0, 1];

/// A station on the wire.
const STATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const STATION_IP: [u8; 4] = [10, 0, 0, 9];

#[test]
fn a_network_is_its_vlan_on_the_wire() {
    if !guest::available() {
        return;
    }
    if !geteuid().is_root() {
        return skip("making a tap interface needs root");
    }
    let interface = format!("vd{}", std::process::id());
    let wire = Wire::new(&interface);
    let device = format!("net_af_packet0,iface={interface}");
    let mut switch = Daemon::builder().physnet("w", &device).start();
    let network = json!({"type": "vlan", "physnet": "w", "vlan": 100});
    switch.put(&network_key("red"), &network);
    GUEST.add_port(&switch);
    let [guest] = boot([GUEST.guest(&switch)]);

    // From the wire: only what is tagged 100 is for the guest, and reaches it without the tag.
    let heard = "cat /sys/class/net/eth0/statistics/rx_packets";
    let before = number(&guest, heard);
    for vlan in [None, Some(99), Some(101), Some(200)] {
        for _ in 0..5 {
            wire.send(&question(vlan));
        }
    }
    let drops = || uplink_drops(&switch.show("drops"));
    eventually("the switch has dropped all of these", SHORT, || drops() == (15, 5));
    assert_eq!(number(&guest, heard), before, "a frame of another VLAN");
    sniff(&guest, "arp and ether src 02:00:00:00:00:09");
    wire.send(&question(Some(100)));
    let answer = wire.find(SHORT, |frame| arp_of_guest(frame).is_some_and(|arp| arp.is_reply));
    let answer = arp_of_guest(&answer.expect("the guest answers")).expect("it was found by that");
    assert_eq!(answer.vlans, [100], "an answer leaves with the network's tag alone");
    assert_eq!((answer.target_mac, answer.target_ip), (STATION_MAC, STATION_IP));
    assert!(sniffed(&guest).contains("ethertype ARP (0x0806)"), "the tag was not popped");

    // From the guest: the tag is pushed, and nothing leaves without.
    guest.run("ip neigh flush all; ping -q -c 1 -W 1 10.0.0.77", SHORT);
    let asked = wire.find(SHORT, |frame| {
        arp_of_guest(frame).is_some_and(|arp| !arp.is_reply && arp.target_ip == [10, 0, 0, 77])
    });
    let asked = asked.expect("the guest asks for whom it pings");
    assert_eq!(arp_of_guest(&asked).expect("it was found by that").vlans, [100]);
    assert_eq!(&asked[..6], [0xff; 6]);
    let stray = wire.find(Duration::from_millis(300), |frame| {
        arp_of_guest(frame).is_none_or(|arp| arp.vlans != [100])
    });
    assert_eq!(stray, None, "something else has left");

    // The guest's MAC and the station's are known where they are.
    let fdb = switch.show("fdb");
    let entries = fdb["entries"].as_array().expect("a list");
    let station = entries.iter().find(|entry| entry["mac"] == "02:00:00:00:00:09");
    assert_eq!(station.expect("it was learned")["port"]["physnet"], "w", "{fdb:#}");

    // The network moves to another VLAN, and the guest goes with it.
    switch.put(&network_key("red"), &json!({"type": "vlan", "physnet": "w", "vlan": 200}));
    eventually("the guest answers on VLAN 200", SHORT, || {
        wire.send(&question(Some(200)));
        let answer = wire.find(Duration::from_millis(500), |frame| {
            arp_of_guest(frame).is_some_and(|arp| arp.is_reply)
        });
        answer.and_then(|frame| arp_of_guest(&frame)).is_some_and(|arp| arp.vlans == [200])
    });
    wire.send(&question(Some(100)));
    let answer = wire.find(Duration::from_millis(500), |frame| {
        arp_of_guest(frame).is_some_and(|arp| arp.is_reply || arp.vlans != [200])
    });
    assert_eq!(answer, None, "the guest is still on VLAN 100");

    let uplinks = switch.show("");
    assert_eq!(uplinks["uplinks"]["ready"], 1, "{uplinks:#}");
    switch.stop();
}

/// A broadcast that asks for the guest's address.
fn question(vlan: Option<u16>) -> Vec<u8> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &STATION_MAC,
        &STATION_IP,
        &[0; 6],
        &GUEST_IP,
    )
    .expect("the lengths are those of addresses");
    let builder = PacketBuilder::ethernet2(STATION_MAC, [0xff; 6]);
    let mut frame = Vec::new();
    match vlan {
        Some(vlan) => {
            let vlan = VlanId::try_new(vlan).expect("it has 12 bits");
            let packet = builder.single_vlan(vlan).arp(arp);
            packet.write(&mut frame)
        }
        None => builder.arp(arp).write(&mut frame),
    }
    .expect("a vector takes all");
    // The least that Ethernet knows, without the check sequence.
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An ARP packet that the guest has sent, as it is on the wire.
struct Arp {
    vlans: Vec<u16>,
    is_reply: bool,
    target_mac: [u8; 6],
    target_ip: [u8; 4],
}

fn arp_of_guest(frame: &[u8]) -> Option<Arp> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let vlans = packet.link_exts.iter().filter_map(|ext| match ext {
        LinkExtSlice::Vlan(vlan) => Some(vlan.vlan_identifier().value()),
        LinkExtSlice::Macsec(_) => None,
    });
    let vlans = vlans.collect();
    let Some(NetSlice::Arp(arp)) = packet.net else { return None };
    (arp.sender_hw_addr() == GUEST_MAC).then(|| Arp {
        vlans,
        is_reply: arp.operation() == ArpOperation::REPLY,
        target_mac: arp.target_hw_addr().try_into().expect("an Ethernet address"),
        target_ip: arp.target_protocol_addr().try_into().expect("an IPv4 address"),
    })
}

/// Frames dropped at the uplink: for their VLAN, and for having none.
fn uplink_drops(drops: &Value) -> (u64, u64) {
    let of = |reason: &str| {
        let drops = drops.as_array().expect("a list");
        let found =
            drops.iter().find(|drop| drop["port"]["physnet"] == "w" && drop["reason"] == reason);
        found.map_or(0, |drop| drop["frames"].as_u64().expect("a count"))
    };
    (of("unknown-vlan"), of("untagged"))
}

/// Has the guest print the next frame that matches, link-level header and all.
fn sniff(guest: &Guest, filter: &str) {
    let command = format!(
        "rm -f /tmp/sniffed; setsid tcpdump -l -n -e -i eth0 -c 1 '{filter}' \
         >/tmp/sniffed 2>/tmp/sniffing & \
         until grep -q 'listening on' /tmp/sniffing; do sleep 0.1; done"
    );
    guest.run(&command, SHORT).success();
}

/// What the guest has printed since [`sniff`].
fn sniffed(guest: &Guest) -> String {
    let command = "until [[ -s /tmp/sniffed ]]; do sleep 0.1; done; cat /tmp/sniffed";
    guest.run(command, SHORT).success()
}
