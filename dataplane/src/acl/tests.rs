//! The compiled tables against the obvious matcher, on rules and packets made to disagree.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::packet::{Form, Plane, Transport};

const BUDGET: Budget = Budget { rules: 100_000, bytes: 64 << 20 };

/// Few addresses, ports and protocols, so that rules meet each other and the packets.
fn address4() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0u32..4, 0u32..4, 0u32..8).prop_map(|(a, b, d)| a << 30 | b << 15 | d),
        any::<u32>(),
        Just(0),
        Just(u32::MAX),
    ]
}

fn address6() -> impl Strategy<Value = u128> {
    prop_oneof![
        (0u128..4, 0u128..4, 0u128..8).prop_map(|(a, b, d)| a << 126 | b << 63 | d),
        any::<u128>(),
        Just(0),
        Just(u128::MAX),
    ]
}

fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::V4 => (address4(), prop_oneof![0u8..=32, 28u8..=32])
            .prop_map(|(address, length)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).unwrap().trunc())
            })
            .boxed(),
        Family::V6 => (address6(), prop_oneof![0u8..=128, 124u8..=128])
            .prop_map(|(address, length)| {
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).unwrap().trunc())
            })
            .boxed(),
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![20u16..26, Just(0), Just(u16::MAX), any::<u16>()]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    let number = prop_oneof![
        Just(None),
        Just(Some(6)),
        Just(Some(17)),
        Just(Some(1)),
        Just(Some(58)),
        Just(Some(132)),
        Just(Some(136)),
        Just(Some(33)),
        Just(Some(47)),
    ];
    let one = (direction, family(), number, port(), port(), 0u8..5, any::<bool>(), 0u16..3)
        .prop_flat_map(|(direction, family, number, one, other, how, permit, priority)| {
            let part = match (number, how) {
                (Some(6 | 17 | 33 | 132 | 136), 0..2) => {
                    Part::Ports(one.min(other), one.max(other))
                }
                (Some(6 | 17 | 33 | 132 | 136), 2) => Part::Ports(one, one),
                (Some(1 | 58), 0) => Part::Icmp(one as u8 % 20, None),
                (Some(1 | 58), 1) => Part::Icmp(one as u8 % 20, Some(other as u8 % 3)),
                (Some(1), 2) => Part::Icmp(8, None),
                (Some(58), 2) => Part::Icmp(128, None),
                _ => Part::All,
            };
            let remote = prop_oneof![
                Just(Remote::Any),
                prefix(family).prop_map(Remote::Prefix),
                (0u32..4).prop_map(Remote::Set),
            ];
            (remote, any::<bool>()).prop_map(move |(remote, returns)| Rule {
                protocol: number,
                part,
                remote,
                permit,
                priority,
                returns,
                ..Rule::any(direction, family)
            })
        });
    vec(one, 0..25).prop_map(|mut rules| {
        for (number, rule) in (0..).zip(&mut rules) {
            rule.label.rule = number;
        }
        rules
    })
}

fn sets() -> impl Strategy<Value = BTreeMap<u32, AddressSet>> {
    let prefix = prop_oneof![prefix(Family::V4), prefix(Family::V6)];
    let set = vec(prefix, 0..6).prop_map(|prefixes| AddressSet { prefixes });
    proptest::collection::btree_map(0u32..3, set, 0..3)
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let number = prop_oneof![
        Just(6u8),
        Just(17),
        Just(1),
        Just(58),
        Just(132),
        Just(136),
        Just(33),
        Just(47),
        Just(0)
    ];
    let form = prop_oneof![
        8 => Just(Form::Whole), 2 => Just(Form::Later), 1 => Just(Form::Tiny), 1 => Just(Form::Deep)
    ];
    let transport = (number, form, port(), port(), any::<u8>(), 0u8..20, 0u8..3).boxed();
    let transport = |icmp: u8| {
        transport.clone().prop_map(move |(protocol, form, source, port, flags, kind, code)| {
            let bare = Transport {
                form,
                plane: Plane::Protocol,
                protocol,
                flags: 0,
                fragment: form != Form::Whole,
                offset: 34,
                source_port: 0,
                selector: u16::from(protocol) << 8,
            };
            let ports = Transport { source_port: source, selector: port, ..bare };
            match (form, protocol) {
                (Form::Whole, 6) => Transport { plane: Plane::Tcp, flags, ..ports },
                (Form::Whole, 17) => Transport { plane: Plane::Udp, ..ports },
                (Form::Whole, 132) => Transport { plane: Plane::Sctp, ..ports },
                (Form::Whole, 33) => Transport { plane: Plane::Dccp, ..ports },
                (Form::Whole, 136) => Transport { plane: Plane::UdpLite, ..ports },
                (Form::Whole, number) if number == icmp => {
                    let kind = if icmp == 58 && kind >= 10 { 118 + kind } else { kind };
                    let selector = u16::from_be_bytes([kind, code]);
                    Transport { plane: Plane::Icmp, selector, ..bare }
                }
                (Form::Whole | Form::Later, _) => bare,
                _ => Transport { plane: Plane::Nothing, ..bare },
            }
        })
    };
    let v4 = (transport(1), address4(), address4()).prop_map(|(transport, source, destination)| {
        Packet::V4(Ip { source, destination, transport })
    });
    let v6 =
        (transport(58), address6(), address6()).prop_map(|(transport, source, destination)| {
            Packet::V6(Ip { source, destination, transport })
        });
    vec(prop_oneof![v4, v6], 1..40)
}

/// Holds the tables against the obvious matcher.
fn agree(rules: &[Rule], sets: &BTreeMap<u32, AddressSet>, packets: &[Packet]) -> Acl {
    let acl = Compiler::default().compile(rules, sets, BUDGET).unwrap();
    for packet in packets {
        for direction in [Direction::Ingress, Direction::Egress] {
            let (permits, by) = reference::judge(rules, sets, direction, packet);
            let verdict = acl.judge(direction, packet);
            assert_eq!(verdict.permits(), permits, "{direction:?} {packet:?}");
            if let Packet::V4(Ip { source, destination, transport }) = *packet
                && let Form::Whole = transport.form
                && let Plane::Tcp | Plane::Udp = transport.plane
            {
                let plain = Look { source, destination, asked: transport.asked() };
                assert_eq!(acl.plain(direction).judge(&plain).permits(), permits, "{plain:?}");
            }
            let entry = acl.entry(direction, verdict);
            if let Some((index, answer)) = by {
                let entry = entry.expect("a rule speaks of it");
                // Rules that are equal but for their place are the first one's, and of a permit and
                // an answer at different priorities the permit is named: either lets it pass.
                let same = entry.rule.priority == rules[index].priority
                    && entry.rule.permit == rules[index].permit;
                assert!(same || permits, "{entry:?} instead of {:?} ({answer})", rules[index]);
            } else {
                let error = entry.is_some_and(|entry| entry.answer);
                assert_eq!(error, permits, "only errors pass without a rule: {entry:?}");
            }
        }
    }
    for burst in packets.chunks(vhost::BURST_MAX) {
        agree_on_a_burst(&acl, burst);
    }
    acl
}

/// Holds what is said of packets side by side against what is said of each alone.
fn agree_on_a_burst(acl: &Acl, packets: &[Packet]) {
    let mut looks = [Look::NOT_PLAIN; vhost::BURST_MAX];
    for (look, packet) in looks.iter_mut().zip(packets) {
        if let Packet::V4(Ip { source, destination, transport }) = *packet
            && matches!(transport.plane, Plane::Tcp | Plane::Udp)
        {
            *look = Look { source, destination, asked: transport.asked() };
        }
    }
    let plain = (0..).zip(&looks).filter(|(_, look)| look.is_plain());
    let plain = plain.fold(0u64, |plain, (index, _)| plain | 1 << index);
    for direction in [Direction::Ingress, Direction::Egress] {
        let tables = acl.plain(direction);
        // All of them, and every other one.
        for wanted in [plain, plain & 0x5555_5555_5555_5555] {
            let permitted = tables.permit_each(&looks, wanted, None);
            assert_eq!(permitted, tables.permit_each_any(&looks, wanted, None), "any processor");
            for (index, packet) in packets.iter().enumerate() {
                let expected = wanted >> index & 1 == 1 && acl.judge(direction, packet).permits();
                assert_eq!(permitted >> index & 1 == 1, expected, "{direction:?} {packet:?}");
            }
            // And those with one remote address, as such.
            let remote = |look: &Look| match direction {
                Direction::Ingress => look.source,
                Direction::Egress => look.destination,
            };
            for address in looks.iter().map(remote) {
                let same = (0..).zip(&looks).filter(|(_, look)| remote(look) == address);
                let same = wanted & same.fold(0, |same, (index, _)| same | 1 << index);
                let again = tables.permit_each(&looks, same, Some(address));
                assert_eq!(again, permitted & same, "{direction:?} {address:#x}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn tables_say_what_the_rules_say(rules in rules(), sets in sets(), packets in packets()) {
        agree(&rules, &sets, &packets);
    }
}

fn tcp(source: u32, destination: u32, port: u16, flags: u8) -> Packet {
    let transport = Transport {
        form: Form::Whole,
        plane: Plane::Tcp,
        protocol: 6,
        flags,
        fragment: false,
        offset: 34,
        source_port: 40_000,
        selector: port,
    };
    Packet::V4(Ip { source, destination, transport })
}

/// Packets to and from the edges of what the rules name.
fn edges(rules: &[Rule]) -> Vec<Packet> {
    let mut packets = Vec::new();
    for rule in rules {
        let Remote::Prefix(IpNet::V4(prefix)) = rule.remote else { continue };
        let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        let Part::Ports(low, high) = rule.part else { continue };
        for remote in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
            for port in [low, high, low.wrapping_sub(1), high.wrapping_add(1)] {
                packets.push(tcp(remote, remote, port, 2));
            }
        }
    }
    packets
}

fn ingress(address: u32, length: u8, ports: (u16, u16)) -> Rule {
    let prefix = Ipv4Net::new(address.into(), length).unwrap().trunc();
    Rule {
        protocol: Some(6),
        part: Part::Ports(ports.0, ports.1),
        remote: Remote::Prefix(prefix.into()),
        ..Rule::any(Direction::Ingress, Family::V4)
    }
}

#[test]
fn nested_prefixes_wide_ranges_and_all_masks_are_told_apart() {
    // Every length of prefix under each other, every one with ports of its own.
    let nested: Vec<_> = (0..=32)
        .map(|length| ingress(0x0a01_0203, length, (1000, 1000 + u16::from(length))))
        .collect();
    let acl = agree(&nested, &BTreeMap::new(), &edges(&nested));
    assert!(acl.size().bytes < 100_000, "{:?}", acl.size());

    // Ranges that overlap each other and nearly everything.
    let wide: Vec<_> = (0..200u16)
        .map(|at| ingress(u32::from(at) << 20, 12 + (at % 20) as u8, (at * 100, 65_535 - at * 50)))
        .collect();
    agree(&wide, &BTreeMap::new(), &edges(&wide));

    // Each combination of a prefix's length and a range's, as breaks searches by tuples.
    let mut tuples = Vec::new();
    for length in 1..=32 {
        for bits in 0..16 {
            let at = (u32::from(length) * 0x0123_4567) ^ (bits << 27);
            let low = (bits as u16) << 12;
            tuples.push(ingress(at, length, (low, low | ((1u32 << bits) - 1) as u16)));
        }
    }
    let acl = agree(&tuples, &BTreeMap::new(), &edges(&tuples));
    let few = agree(&tuples[..40], &BTreeMap::new(), &[]);
    assert!(
        acl.size().lines_read <= few.size().lines_read + 2,
        "{:?} {:?}",
        acl.size(),
        few.size()
    );
}

#[test]
fn what_needs_too_much_is_refused_and_says_so() {
    let rules: Vec<_> = (0..5000).map(|at| ingress(at << 12, 32, (1, 2))).collect();
    let sets = BTreeMap::new();
    let small = Budget { bytes: 100_000, ..BUDGET };
    let refused = Compiler::default().compile(&rules, &sets, small).unwrap_err();
    assert_eq!(refused, OverBudget::Memory { most: 100_000 });
    let few = Budget { rules: 4999, ..BUDGET };
    let refused = Compiler::default().compile(&rules, &sets, few).unwrap_err();
    assert_eq!(refused, OverBudget::Rules { rules: 5000, most: 4999 });
    let acl = Compiler::default().compile(&rules, &sets, BUDGET).unwrap();
    assert_eq!(acl.size().rules, 5000);
    assert!(acl.size().bytes > 100_000);
}

#[test]
fn tables_of_the_same_addresses_are_shared_while_somebody_has_them() {
    let members = (0..1000u32).map(|at| IpNet::V4(Ipv4Net::from(Ipv4Addr::from(at << 8))));
    let sets = BTreeMap::from([(1, AddressSet { prefixes: members.collect() })]);
    let from_set = |port| Rule {
        protocol: Some(6),
        part: Part::Ports(port, port),
        remote: Remote::Set(1),
        ..Rule::any(Direction::Ingress, Family::V4)
    };
    let mut compiler = Compiler::default();
    let one = compiler.compile(&[from_set(1)], &sets, BUDGET).unwrap();
    let other = compiler.compile(&[from_set(2)], &sets, BUDGET).unwrap();
    assert!(Arc::ptr_eq(&one.ingress.v4.addresses, &other.ingress.v4.addresses));
    assert!(Arc::ptr_eq(&one.ingress.v4.addresses, &one.egress.v4.addresses));
    let kept = Arc::downgrade(&one.ingress.v4.addresses);
    drop((one, other));
    assert!(kept.upgrade().is_none());
    let again = compiler.compile(&[from_set(1)], &BTreeMap::new(), BUDGET).unwrap();
    assert!(!again.judge(Direction::Ingress, &tcp(0, 0, 1, 2)).permits());
}

#[test]
fn hits_are_counted_by_rule_and_apart_where_none_applies() {
    let rules = [ingress(0x0a00_0000, 8, (80, 80)), ingress(0x0b00_0000, 8, (80, 80))];
    let acl = Compiler::default().compile(&rules, &BTreeMap::new(), BUDGET).unwrap();
    for (remote, frames) in [(0x0b00_0001, 5), (0x0a00_0001, 1), (0x0b01_0000, 2), (0, 9)] {
        let verdict = acl.judge(Direction::Ingress, &tcp(remote, 0, 80, 2));
        acl.hit(Direction::Ingress, verdict, frames);
    }
    let (hits, unmatched) = acl.hits(Direction::Ingress);
    assert_eq!((hits.collect::<Vec<_>>(), unmatched), (vec![1, 7], 9));
}

#[test]
fn rules_that_permit_all_are_known_to() {
    let any = Rule::any(Direction::Egress, Family::V4);
    let of = |number| Rule { protocol: Some(number), ..any.clone() };
    let prefix = |text: &str| Remote::Prefix(text.parse().unwrap());
    let half = |text: &str| Rule { remote: prefix(text), ..any.clone() };
    let deny = Rule { part: Part::Ports(22, 22), permit: false, priority: 1, ..of(6) };
    let open = |rules: &[Rule]| {
        let acl = Compiler::default().compile(rules, &BTreeMap::new(), BUDGET).unwrap();
        [Direction::Ingress, Direction::Egress].map(|way| acl.plain(way).open)
    };
    assert_eq!(open(std::slice::from_ref(&any)), [false, true]);
    assert_eq!(open(&[of(6), of(17)]), [false, true], "no more is plain");
    assert_eq!(open(&[half("0.0.0.0/1"), half("128.0.0.0/1")]), [false, true]);
    assert_eq!(open(&[half("0.0.0.0/0")]), [false, true]);
    assert_eq!(open(&[half("0.0.0.0/1")]), [false; 2]);
    assert_eq!(open(&[of(6)]), [false; 2]);
    assert_eq!(open(&[any.clone(), deny]), [false; 2]);
    assert_eq!(open(&[]), [false; 2]);
}
