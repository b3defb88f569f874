//! Do the rules permit the load and not much else? By a matcher that is too simple to be wrong.

use std::collections::HashSet;

use super::*;
use crate::frame::{Addresses, Stamp, Stream};

/// What rules look at in a UDP frame, from its receiver's or sender's side.
#[derive(Clone, Copy, Debug)]
struct Seen {
    remote: u32,
    port: u16,
}

fn permits(rule: &Rule, sets: &Sets, seen: Seen) -> bool {
    let within = |prefix: &Prefix| {
        let bits = 32 - u32::from(prefix.length);
        u64::from(seen.remote) >> bits == u64::from(prefix.address) >> bits
    };
    let remote = rule.remote == Remote::Any || sets.prefixes(rule.remote).iter().any(within);
    let protocol = match rule.protocol {
        Protocol::Any | Protocol::Number(17) => true,
        Protocol::Udp(ports) => ports.first <= seen.port && seen.port <= ports.last,
        _ => false,
    };
    remote && protocol
}

/// The places of the rules that permit a frame.
fn permitting(rules: &[Rule], sets: &Sets, seen: Seen) -> Vec<usize> {
    (0..rules.len()).filter(|place| permits(&rules[*place], sets, seen)).collect()
}

fn ip(head: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

/// What the sender's rules and the receiver's rules see of a frame.
fn both_sides(stream: &Stream, flow: u32) -> [Seen; 2] {
    let head = stream.head::<false>(Stamp { sequence: 9, flow, slot: 0 });
    let bytes: Vec<_> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    let port = u16::from_be_bytes([bytes[36], bytes[37]]);
    [30, 26].map(|at| Seen { remote: ip(&bytes, at), port })
}

fn scenario(rules: u32) -> Scenario {
    let standard = Scenario::standard();
    let found = standard.iter().find(|one| one.rules == rules && one.flows == 1 && one.ports == 2);
    found.expect("a scenario with one flow").clone()
}

#[test]
fn there_are_as_many_rules_as_asked_for_and_no_two_are_alike() {
    for count in [100, 1_000, 10_000] {
        for port in 0..2 {
            let scenario = Scenario { rules: count, ..scenario(1_000) };
            let policy = Policy::of(&scenario, port, FIRST_SEED);
            assert_eq!(policy, Policy::of(&scenario, port, FIRST_SEED), "the same each time");
            for rules in [&policy.ingress, &policy.egress] {
                assert_eq!(rules.len(), count as usize);
                let distinct: HashSet<_> = rules.iter().collect();
                assert_eq!(distinct.len(), count as usize);
            }
            assert_ne!(policy, Policy::of(&scenario, port, SEEDS[1]));
        }
    }
}

#[test]
fn flows_between_two_addresses_are_permitted_by_the_middle_rule_alone() {
    let sets = Sets::of_rules();
    for count in [1_000, 10_000] {
        let scenario = scenario(count);
        let policies = [0, 1].map(|port| Policy::of(&scenario, port, FIRST_SEED));
        for (from, to) in [(0, 1), (1, 0)] {
            let addresses = [from, to].map(|port| scenario.addresses_of(port as u16));
            let stream = Stream::new(1, &[64], 10_000, addresses[0], addresses[1]);
            // Flows differ in their source ports, which no rule asks for.
            for flow in [0, 1, 9_999] {
                let [sent, received] = both_sides(&stream, flow);
                let middle = vec![count as usize / 2];
                assert_eq!(permitting(&policies[from].egress, &sets, sent), middle);
                assert_eq!(permitting(&policies[to].ingress, &sets, received), middle);
            }
        }
    }
}

#[test]
fn random_flows_are_permitted_by_many_rules() {
    let sets = Sets::of_rules();
    let scenario = scenario(1_000);
    let policies = [0, 1].map(|port| Policy::of(&scenario, port, SEEDS[1]));
    let addresses = [0, 1].map(|port| scenario.addresses_of(port));
    let stream = Stream::new(1, &[64], 1 << 20, addresses[0], addresses[1]).scattered();
    let mut used = [HashSet::new(), HashSet::new()];
    for flow in 0..20_000 {
        let [sent, received] = both_sides(&stream, flow);
        for (side, places) in [
            permitting(&policies[0].egress, &sets, sent),
            permitting(&policies[1].ingress, &sets, received),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(!places.is_empty(), "flow {flow}: {sent:?} {received:?}");
            used[side].extend(places);
        }
    }
    // An eighth of the rules are for pieces of the load; those of the smallest are hardly met.
    assert!(used.iter().all(|used| (60..=125).contains(&used.len())), "{used:?}");
}

#[test]
fn frames_of_nobodys_are_not_permitted() {
    let sets = Sets::of_rules();
    let policy = Policy::of(&scenario(10_000), 0, FIRST_SEED);
    // The load's ports, from and to guests that are not the peer, and from the port itself.
    for guest in [1, 3, 4, 5, 127] {
        for index in [0, 1, 77_777] {
            for port in [0x4000, 0x5000, 0x7fff] {
                let seen = Seen { remote: Addresses::new(guest, 1).ip(index), port };
                assert!(permitting(&policy.ingress, &sets, seen).is_empty(), "{seen:?}");
                assert!(permitting(&policy.egress, &sets, seen).is_empty(), "{seen:?}");
            }
        }
    }
    // The peer itself may not do everything: most of its addresses and ports are closed.
    let peer = Addresses::new(2, 1);
    let ports = (0..40_000_u16).step_by(41).filter(|port| !(0x3f00..0x8100).contains(port));
    let (mut permitted, mut asked) = (0, 0);
    for port in ports {
        let seen = Seen { remote: peer.ip(u32::from(port) * 3 % 131_072), port };
        permitted += usize::from(!permitting(&policy.ingress, &sets, seen).is_empty());
        asked += 1;
    }
    assert!(permitted * 2 < asked, "{permitted} of {asked}");
}

#[test]
fn remotes_have_all_lengths_and_kinds_and_protocols_too() {
    let policy = Policy::of(&scenario(10_000), 1, FIRST_SEED);
    for rules in [policy.ingress, policy.egress] {
        let mut lengths = HashSet::new();
        let mut kinds = [0; 9];
        for rule in rules {
            match rule.remote {
                Remote::Any => kinds[0] += 1,
                Remote::Prefix(prefix) => drop(lengths.insert(prefix.length)),
                Remote::Group(_) => kinds[1] += 1,
                Remote::AddressGroup(_) => kinds[2] += 1,
            }
            match rule.protocol {
                Protocol::Any => kinds[3] += 1,
                Protocol::Tcp(_) => kinds[4] += 1,
                Protocol::Udp(_) => kinds[5] += 1,
                Protocol::Icmp(None) => kinds[6] += 1,
                Protocol::Icmp(Some(_)) => kinds[7] += 1,
                Protocol::Number(_) => kinds[8] += 1,
            }
        }
        assert!((8..=32).all(|length| lengths.contains(&length)), "{lengths:?}");
        assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
    }
}

#[test]
fn only_the_first_of_the_sets_lets_the_probe_through() {
    let standard = Scenario::standard();
    let scenario = standard.iter().find(|one| one.swaps).expect("a scenario that swaps");
    let sets = Sets::of_rules();
    let probe = Seen { remote: scenario.addresses_of(2).ip(0), port: 0x4000 };
    let peer = scenario.addresses_of(1);
    for (seed, passes) in SEEDS.into_iter().zip([true, false, false]) {
        let policy = Policy::of(scenario, 0, seed);
        assert_eq!(!permitting(&policy.ingress, &sets, probe).is_empty(), passes);
        let load = Seen { remote: peer.ip(0), port: 0x4000 };
        assert!(!permitting(&policy.egress, &sets, load).is_empty());
        assert!(!permitting(&policy.ingress, &sets, load).is_empty());
        assert_eq!(policy.ingress.len(), 10_000);
    }
}

#[test]
fn a_floods_target_gets_nothing_of_it_and_may_send() {
    let standard = Scenario::standard();
    let scenario = standard.iter().find(|one| one.flood).expect("a scenario with a flood");
    let policy = Policy::of(scenario, 3, FIRST_SEED);
    let flood = Seen { remote: scenario.addresses_of(2).ip(0), port: 0x4000 };
    assert!(permitting(&policy.ingress, &Sets::of_rules(), flood).is_empty());
    assert_eq!((policy.egress, policy.ingress.len()), (vec![Rule::ANY], 1_000));
    assert_eq!(Policy::of(scenario, 2, FIRST_SEED), Policy::open());
}
