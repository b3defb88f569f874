//! Guests of the switch and VFs on one card: the card's filters for addresses behind the switch.
//!
//! The station behind the switch is a tap port's, in a network namespace, and so is the VF's guest.

use etherparse::PacketBuilder;
use serde_json::{Value, json};

use crate::bed::{self, Bed, SOON};
use crate::common::daemon::{network_key, uuid};
use crate::common::process::eventually;
use crate::vfs::guest;
use crate::wire::STATION_MAC;

const WIRES: &str = "[physnets.zero]\ndevice = 'net_af_packet0,iface=pf0'\n\
                     [physnets.one]\ndevice = 'net_af_packet1,iface=pf1'\n";

/// The station behind the switch.
const STATION: &str = "52:54:00:00:00:02";

/// The switch with two cards for uplinks, a network on each, and a VF of the first that is a guest's.
fn beside_a_vf() -> Bed {
    let bed = Bed::restore();
    bed.sh("modprobe tun");
    bed.start(WIRES);
    put_networks(&bed);
    bed.put(&key("vf"), &vf("n0", "pf0/0", "52:54:00:00:00:01"));
    bed
}

fn put_networks(bed: &Bed) {
    for (name, physnet) in [("n0", "zero"), ("n1", "one")] {
        let network = json!({"type": "flat", "physnet": physnet});
        bed.put(&format!("networks/{}", uuid(name)), &network);
    }
}

fn key(name: &str) -> String {
    format!("nodes/here/ports/{}", uuid(name))
}

fn vf(network: &str, vf: &str, mac: &str) -> Value {
    json!({"network": uuid(network), "kind": "vf-direct", "vf": vf, "mac": mac})
}

fn tap(network: &str) -> Value {
    json!({"network": uuid(network), "kind": "tap", "interface": "station", "mac": STATION})
}

/// The unicast filters that a PF has, as `bridge` shows them.
#[track_caller]
fn filters(bed: &Bed, pf: &str) -> Vec<String> {
    // It complains of filters that change while it reads them, in the middle of what it prints.
    let text = bed.sh(&format!("bridge -j fdb show dev {pf} 2>/dev/null"));
    let entries: Value = serde_json::from_str(text.trim()).expect("JSON");
    let macs = entries.as_array().expect("a list").iter().filter_map(|entry| entry["mac"].as_str());
    macs.filter(|mac| mac.starts_with("52:54")).map(str::to_owned).collect()
}

#[test]
fn a_vf_reaches_a_guest_of_the_switch_by_its_filter() {
    if !bed::available() {
        return;
    }
    let bed = beside_a_vf();
    // A station of which desired state does not say the address: there can be no filter for it.
    let unknown = json!({"network": uuid("n0"), "kind": "tap", "interface": "station"});
    bed.put(&key("t"), &unknown);
    bed.wait_status("vf", "ready");
    bed.wait_status("t", "ready");
    bed.sh(&format!(
        "ip netns add s && ip link set station address {STATION} && ip link set station netns s && \
         ip -n s link set station up && ip -n s address add 10.0.0.2/24 dev station"
    ));
    guest(&bed, "g", "0000:01:10.0", "10.0.0.1");
    let heard = "ip -n s neigh show 10.0.0.1 | grep -q 52:54:00:00:00:01";
    eventually("broadcast arrives, and so does what is sent to the VF", SOON, || {
        bed.run("ip netns exec g ping -c 1 -W 1 10.0.0.2 >/dev/null");
        bed.run(&format!("{heard} && ip -n g neigh show 10.0.0.2 | grep -q {STATION}")).status == 0
    });
    let ping = "ip netns exec g ping -c 3 -i 0.3 -W 2 10.0.0.2";
    assert_ne!(bed.run(ping).status, 0, "without a filter unicast does not arrive");
    assert_eq!(filters(&bed, "pf0"), [""; 0]);

    // Once its address is known, it is reached.
    bed.put(&key("t"), &tap("n0"));
    eventually("the card has a filter", SOON, || filters(&bed, "pf0") == [STATION]);
    eventually("unicast arrives", SOON, || bed.run(ping).status == 0);
    let state = bed.wait_status("physnets/zero", "ready");
    let wanted = json!({"interface": "pf0", "present": 1, "total": 1, "promiscuous": false});
    assert_eq!(state["filters"], wanted);

    // Somebody else removes it, and it is put back.
    bed.sh(&format!("bridge fdb del {STATION} dev pf0 self"));
    eventually("it is put back", SOON, || filters(&bed, "pf0") == [STATION]);

    // It stays while the switch is away, and is known to the next one as its own.
    bed.stop();
    assert_eq!(filters(&bed, "pf0"), [STATION]);
    bed.start_again();

    // It moves with the port, and goes with it.
    bed.put(&key("t"), &tap("n1"));
    eventually("it moves", SOON, || {
        filters(&bed, "pf1") == [STATION] && filters(&bed, "pf0").is_empty()
    });
    bed.delete(&key("t"));
    eventually("it goes", SOON, || filters(&bed, "pf1").is_empty());
}

#[test]
fn a_card_without_room_is_told_and_the_ports_are_refused_or_not() {
    if !bed::available() {
        return;
    }
    let bed = beside_a_vf();
    let pairs: Vec<Value> = (0..40)
        .map(|last| json!({"ip": "10.0.1.0/24", "mac": format!("52:54:00:00:01:{last:02x}")}))
        .collect();
    let mut many = tap("n0");
    many["allowed_address_pairs"] = pairs.into();
    bed.put(&key("t"), &many);
    let state = bed.wait_status("t", "failed");
    let reason = state["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("PF `pf0` has "), "{reason}");
    assert!(reason.contains("unicast filters and no room for"), "{reason}");
    assert!(reason.ends_with("or set physnets.zero.filters_full = \"promiscuous\""), "{reason}");
    let state = bed.wait_status("physnets/zero", "ready");
    let present = state["filters"]["present"].as_u64().expect("a number");
    let refused = state["filters"]["refused"].as_array().expect("a list").len() as u64;
    assert_eq!(present + refused, 41, "{state}");
    assert!(present > 0 && refused > 0, "{state}");
    assert_eq!(filters(&bed, "pf0").len() as u64, present);

    let promiscuous = WIRES.replacen("pf0'", "pf0'\nfilters_full = 'promiscuous'", 1);
    let configuration = bed.sh("cat /etc/viaduct/viaduct.toml");
    bed.write(
        "/etc/viaduct/viaduct.toml",
        &configuration.replace("\r", "").replace(WIRES, &promiscuous),
    );
    bed.sh("viaduct reload");
    bed.wait_status("t", "ready");
    eventually("the card hears all", SOON, || {
        bed.wait_status("physnets/zero", "ready")["filters"]["promiscuous"] == json!(true)
    });

    bed.put(&key("t"), &tap("n0"));
    eventually("what is not wanted any more is removed", SOON, || {
        filters(&bed, "pf0") == [STATION]
    });
}

#[test]
fn a_station_behind_a_vf_that_cannot_be_reached_is_told_and_refused_or_not() {
    if !bed::available() {
        return;
    }
    let mut bed = Bed::restore();
    bed.sh("modprobe tun");
    bed.start("[physnets.zero]\ndevice = 'pf0/0'\n");
    bed.put(&network_key("n0"), &json!({"type": "flat", "physnet": "zero"}));
    let own = |mac: &str| {
        json!({
            "network": uuid("n0"), "kind": "tap", "interface": "own", "mac": mac,
        })
    };
    bed.put(&key("own"), &own("52:54:00:aa:00:00"));
    bed.put(&key("t"), &tap("n0"));
    // The VF's own address needs no filter; the other does, for which DPDK's driver of igb's VFs has none.
    let state = bed.wait_status("t", "failed");
    let reason = state["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("VF 0 of `pf0` has 0 unicast filters and is refused 1 more ("),
        "{reason}"
    );
    assert!(reason.ends_with("or set physnets.zero.filters_full = \"promiscuous\""), "{reason}");
    bed.wait_status("own", "ready");
    bed.sh("ip address add 10.0.0.1/24 dev own && ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 dev own");
    bed.wires[0].reaches([0x52, 0x54, 0, 0xaa, 0, 0], [10, 0, 0, 1], SOON);
    let state = bed.wait_status("physnets/zero", "ready");
    assert_eq!(state["filters"]["refused"], json!([STATION]), "{state}");
    let metrics = bed.json("show ports");
    assert_eq!(metrics[0]["filters"]["refused"], json!([STATION]), "{metrics}");

    // Who says so has it in force, and it is reached by what is not for it alone.
    bed.configure("[physnets.zero]\ndevice = 'pf0/0'\nfilters_full = 'promiscuous'\n");
    bed.sh("viaduct reload");
    bed.wait_status("t", "ready");
    bed.sh("ip address add 10.0.1.2/24 dev station");
    let mut ask = Vec::new();
    let station = [10, 0, 1, 2];
    PacketBuilder::ethernet2(STATION_MAC, [0xff; 6])
        .ipv4([10, 0, 1, 9], station, 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut ask, b"sriov")
        .expect("a vector takes all");
    ask.resize(60, 0);
    let heard = "ip neigh show dev station; ip -s link show dev station | sed -n 4p";
    let before = bed.sh(heard);
    eventually("broadcast arrives", SOON, || {
        bed.wires[0].send(&ask);
        bed.sh(heard) != before
    });

    // The VF's own address moves to it, which then needs no filter, and the other does.
    bed.sh("ip link set pf0 vf 0 mac 52:54:00:00:00:02");
    eventually("the one that is refused is the other now", SOON, || {
        let state = bed.state("physnets/zero").unwrap_or_default();
        state["filters"]["refused"] == json!(["52:54:00:aa:00:00"])
    });
    bed.delete(&key("own"));
    eventually("nothing is refused", SOON, || {
        bed.state("physnets/zero").is_some_and(|state| state["filters"].is_null())
    });
}
