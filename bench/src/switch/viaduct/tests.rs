//! Is what is written for the daemon what the scenario needs?

use serde_json::{Value, json};

use super::store::NETWORK;
use super::swap::{Swapper, set_after};
use super::*;
use crate::machine::Cores;
use crate::rules::{Policy, SEEDS};

fn with_bed(scenario: &Scenario, check: impl FnOnce(&Bed<'_>)) {
    let directory = tempfile::tempdir().expect("a directory");
    let cores = Cores { generator: 0, switch: 1 };
    check(&Bed { directory: directory.path(), cores, scenario, ports: scenario.ports });
}

fn read(bed: &Bed<'_>, path: &str) -> Value {
    let text = fs::read_to_string(bed.directory.join("store").join(path));
    serde_json::from_str(&text.expect("it was written")).expect("JSON")
}

fn port(bed: &Bed<'_>, number: u16) -> Value {
    read(bed, &format!("nodes/bench/ports/00000000-0000-4000-9000-{number:012x}.json"))
}

/// The group of a port that has one.
fn group(bed: &Bed<'_>, number: u16) -> Value {
    let port = port(bed, number);
    let groups = port["security_groups"].as_array().expect("a list");
    assert_eq!(groups.len(), 1);
    read(bed, &format!("security-groups/{}.json", groups[0].as_str().expect("a UUID")))
}

#[test]
fn the_store_has_a_network_and_each_guests_port() {
    let scenario = Scenario { ports: 3, ..Scenario::one_way("x", 9000) };
    with_bed(&scenario, |bed| {
        store::write(bed).expect("a directory that can be written");
        let read = |path: String| read(bed, &path);
        assert_eq!(read(format!("networks/{NETWORK}.json"))["mtu"], 8986);
        let port = read("nodes/bench/ports/00000000-0000-4000-9000-000000000002.json".into());
        assert_eq!(port["mac"], "02:03:00:00:00:00");
        assert_eq!(port["network"], NETWORK);
        assert_eq!(port["socket"], serde_json::json!(bed.socket(2)));
    });
}

#[test]
fn guests_with_uplinks_are_on_different_networks() {
    let scenario = Scenario { uplinks: true, ..Scenario::one_way("x", 64) };
    with_bed(&scenario, |bed| {
        store::write(bed).expect("a directory that can be written");
        let read = |path: String| read(bed, &path);
        let physnets = [0, 1].map(|port| {
            let port = format!("nodes/bench/ports/00000000-0000-4000-9000-{port:012x}.json");
            let network = read(port)["network"].as_str().expect("a UUID").to_owned();
            read(format!("networks/{network}.json"))["physnet"].clone()
        });
        assert_eq!(physnets, ["uplink0", "uplink1"]);
        let text = configuration(bed, true).expect("a path in UTF-8");
        for part in ["[physnets.uplink0]\ndevice = \"net_memif0,role=server,", "role=client,"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    });
}

#[test]
fn the_fdb_has_room_for_the_scenario() {
    let scenario = Scenario { addresses: 100_000, ..Scenario::one_way("x", 64) };
    with_bed(&scenario, |bed| {
        let text = configuration(bed, false).expect("a path in UTF-8");
        assert!(text.contains("port_quota = 200000\n"), "{text}");
        assert!(text.contains("cores = [1]\n"), "{text}");
        assert!(text.contains("hugepages = false\n"), "{text}");
    });
}

#[test]
fn a_port_without_rules_may_use_its_own_address_for_everything() {
    with_bed(&Scenario { flows: 1_000, ..Scenario::one_way("x", 64) }, |bed| {
        store::write(bed).expect("a directory that can be written");
        let port = port(bed, 1);
        assert_eq!(port["port_security"], json!(true));
        assert_eq!(port["fixed_ips"], json!(["10.4.0.0"]));
        assert_eq!(port["allowed_address_pairs"], json!([]));
        let rules = json!([{ "direction": "ingress" }, { "direction": "egress" }]);
        assert_eq!(group(bed, 1), json!({ "return_traffic": "none", "rules": rules }));
    });
}

#[test]
fn a_port_with_many_addresses_has_no_port_security() {
    let scenario = Scenario { addresses: 9, flows: 9, ..Scenario::one_way("x", 64) };
    with_bed(&Scenario { port_security: false, ..scenario }, |bed| {
        store::write(bed).expect("a directory that can be written");
        let port = port(bed, 0);
        assert_eq!(port["port_security"], json!(false));
        assert!(port.get("security_groups").is_none() && port.get("fixed_ips").is_none());
        assert!(!bed.directory.join("store/security-groups").exists());
    });
}

#[test]
fn rules_are_written_with_the_sets_that_they_name() {
    let scenario = Scenario { rules: 1_000, random: true, ..Scenario::one_way("x", 64) };
    with_bed(&scenario, |bed| {
        store::write(bed).expect("a directory that can be written");
        assert_eq!(port(bed, 0)["allowed_address_pairs"], json!([{ "ip": "10.2.0.0/15" }]));
        let group = group(bed, 0);
        let rules = group["rules"].as_array().expect("a list");
        let directed = |direction: &str| {
            rules.iter().filter(|rule| rule["direction"] == direction).collect::<Vec<_>>()
        };
        assert_eq!([directed("ingress").len(), directed("egress").len()], [1_000; 2]);
        let (mut groups, mut address_groups) = (0, 0);
        for rule in rules {
            let remotes = ["remote_prefix", "remote_group", "remote_address_group"];
            assert!(remotes.iter().filter(|field| rule.get(**field).is_some()).count() <= 1);
            let in_order = |text: &str| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                first.parse::<u16>().expect("a port") <= last.parse().expect("a port")
            };
            assert!(rule.get("ports").is_none_or(|text| in_order(text.as_str().expect("text"))));
            if let Some(group) = rule.get("remote_group") {
                let members = format!("store/group-members/{}", group.as_str().expect("a UUID"));
                let members = fs::read_dir(bed.directory.join(members)).expect("members").count();
                assert_eq!(members, 300);
                groups += 1;
            }
            if let Some(group) = rule.get("remote_address_group") {
                let group = format!("address-groups/{}.json", group.as_str().expect("a UUID"));
                assert_eq!(read(bed, &group)["addresses"].as_array().map(Vec::len), Some(100));
                address_groups += 1;
            }
        }
        assert!(groups > 20 && address_groups > 20, "{groups} {address_groups}");
    });
}

#[test]
fn sets_take_turns_until_they_are_told_to_stop() {
    let scenario = Scenario { rules: 100, swaps: true, ports: 3, ..Scenario::one_way("x", 64) };
    with_bed(&scenario, |bed| {
        store::write(bed).expect("a directory that can be written");
        let mut swapper = Swapper::prepare(bed).expect("a directory that can be written");
        let value = |seed: u64| store::group(&Policy::of(&scenario, 0, seed));
        assert_eq!(group(bed, 0), value(SEEDS[0]));
        assert_ne!(value(SEEDS[0]), value(SEEDS[1]));
        swapper.start().expect("a thread");
        while swapper.swaps() < 3 {
            std::thread::yield_now();
        }
        swapper.stop().expect("a directory that can be written");
        let swaps = swapper.swaps();
        assert_eq!(group(bed, 0), value(SEEDS[set_after(swaps)]));
        std::thread::sleep(crate::scenario::SWAP_INTERVAL * 2);
        assert_eq!(swapper.swaps(), swaps);
    });
}

#[test]
fn no_set_follows_itself_and_who_looks_seldom_sees_them_all() {
    assert!((0..1_000).all(|swaps| set_after(swaps) != set_after(swaps + 1)));
    for interval in 1..=4 {
        let mut seen: Vec<_> = (0..30).map(|look| set_after(look * interval)).collect();
        let changes = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes > 10, "every {interval}: {seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }
}
