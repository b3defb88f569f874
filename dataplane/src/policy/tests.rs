//! What a guest may send and be sent, by tables; and that what is plain is judged as all else is.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;
use vhost::{Burst, Received, Source};

use super::*;
use crate::acl::{Budget, Compiler, Family, Part, Remote, Rule};
use crate::headers::Mac;
use crate::packet::Looks;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PAIR: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// A port with 10.0.0.1, 2001:db8::1, and 10.9.0.0/16 by another MAC address.
fn policy(rules: &[Rule]) -> Policy {
    policy_of(&["10.0.0.1/32", "2001:db8::1/128"], rules)
}

/// The same with other addresses of its own.
fn policy_of(own: &[&str], rules: &[Rule]) -> Policy {
    let nets = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect::<Vec<IpNet>>();
    let guard = Guard::new(
        vec![
            Station::new(Mac::new(OWN), &nets(own)),
            Station::new(Mac::new(PAIR), &nets(&["10.9.0.0/16"])),
        ],
        &[0x88cc],
    );
    let budget = Budget { rules: 1000, bytes: 1 << 20 };
    let acl = Compiler::default().compile(rules, &BTreeMap::new(), budget).unwrap();
    Policy { guard, acl: Arc::new(acl) }
}

/// All is permitted by rule, so that only the guard says no.
fn permissive() -> Policy {
    let both = [Direction::Ingress, Direction::Egress];
    let all =
        both.into_iter().flat_map(|way| [Rule::any(way, Family::V4), Rule::any(way, Family::V6)]);
    policy(&all.collect::<Vec<_>>())
}

fn ethernet(source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [[0xff; 6], source].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn v4(source: [u8; 4], protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + rest.len() as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend([10, 0, 0, 2]);
    packet.extend(rest);
    packet
}

fn v6(source: &str, next: u8, rest: &[u8]) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(rest);
    packet
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

fn arp(sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(sender);
    packet.extend(address);
    packet.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    packet
}

/// Neighbour discovery: type, target, and an option with an address.
fn discovery(kind: u8, target: Option<&str>, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if let Some(target) = target {
        let target: std::net::Ipv6Addr = target.parse().unwrap();
        message.extend(target.octets());
    }
    if let Some((kind, mac)) = option {
        message.extend([kind, 1]);
        message.extend(mac);
    }
    message
}

fn leave(policy: &Policy, frame: &[u8]) -> Result<(), DropReason> {
    let headers = Headers::parse_head(frame, frame.len()).unwrap();
    policy.leave(frame, &headers, &Packet::parse(frame, &headers))
}

fn enter(policy: &Policy, frame: &[u8]) -> Result<(), DropReason> {
    let headers = Headers::parse_head(frame, frame.len()).unwrap();
    policy.enter(&Packet::parse(frame, &headers))
}

#[test]
fn only_what_is_a_ports_own_leaves_it() {
    use DropReason::*;
    let syn = [0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let ip = |mac, address, rest: &[u8]| ethernet(mac, 0x0800, &v4(address, 6, 0, rest));
    let six = |source: &str, next, rest: &[u8]| ethernet(OWN, 0x86dd, &v6(source, next, rest));
    let nd = |source: &str, message: &[u8]| six(source, 58, message);
    let hop = |rest: &[u8], next| [&[next, 0, 1, 4, 0, 0, 0, 0][..], rest].concat();
    let cut = |rest: &[u8], next| [&[next, 0, 0, 1, 0, 0, 0, 7][..], rest].concat();
    let one = "2001:db8::1";
    let rows: &[(&str, Vec<u8>, Result<(), DropReason>)] = &[
        ("own addresses", ip(OWN, [10, 0, 0, 1], &syn), Ok(())),
        ("a pair's", ip(PAIR, [10, 9, 200, 1], &syn), Ok(())),
        ("another MAC", ip(OTHER, [10, 0, 0, 1], &syn), Err(SpoofMac)),
        ("another address", ip(OWN, [10, 0, 0, 3], &syn), Err(SpoofIp)),
        ("a pair's address with the own MAC", ip(OWN, [10, 9, 0, 1], &syn), Err(SpoofIp)),
        ("no address", ip(OWN, [0; 4], &syn), Err(SpoofIp)),
        ("own IPv6", six(one, 6, &syn), Ok(())),
        ("any link-local", six("fe80::dead:beef", 6, &syn), Ok(())),
        ("another IPv6", six("2001:db8::2", 6, &syn), Err(SpoofIp)),
        ("no IPv6", six("::", 6, &syn), Err(SpoofIp)),
        ("DHCP asks", ethernet(OWN, 0x0800, &v4([0; 4], 17, 0, &udp(68, 67))), Ok(())),
        (
            "DHCP asks as another",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 3], 17, 0, &udp(68, 67))),
            Err(SpoofIp),
        ),
        (
            "DHCP answers",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 17, 0, &udp(67, 68))),
            Err(DhcpServer),
        ),
        (
            "DHCP answers from an odd port, in a first fragment",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 17, 0x2000, &udp(4011, 68))),
            Err(DhcpServer),
        ),
        ("DHCPv6 asks", six("fe80::1", 17, &udp(546, 547)), Ok(())),
        ("DHCPv6 answers", six("fe80::1", 17, &udp(547, 546)), Err(DhcpServer)),
        (
            "DHCPv6 answers behind a header",
            six("fe80::1", 0, &hop(&udp(547, 546), 17)),
            Err(DhcpServer),
        ),
        ("own ARP", ethernet(OWN, 0x0806, &arp(OWN, [10, 0, 0, 1])), Ok(())),
        ("ARP probe", ethernet(OWN, 0x0806, &arp(OWN, [0; 4])), Ok(())),
        ("a pair's ARP", ethernet(OWN, 0x0806, &arp(PAIR, [10, 9, 0, 1])), Ok(())),
        ("another's ARP", ethernet(OWN, 0x0806, &arp(OWN, [10, 0, 0, 2])), Err(SpoofArp)),
        ("ARP for another MAC", ethernet(OWN, 0x0806, &arp(OTHER, [10, 0, 0, 1])), Err(SpoofArp)),
        ("ARP by another MAC", ethernet(OTHER, 0x0806, &arp(OWN, [10, 0, 0, 1])), Err(SpoofMac)),
        ("ARP of no IP", ethernet(OWN, 0x0806, &[0; 28]), Err(SpoofArp)),
        ("RS", nd("fe80::1", &discovery(133, None, Some((1, OWN)))), Ok(())),
        ("RS without address", nd("::", &discovery(133, None, None)), Ok(())),
        ("RS of another MAC", nd("fe80::1", &discovery(133, None, Some((1, OTHER)))), Err(SpoofNd)),
        ("NS", nd(one, &discovery(135, Some("2001:db8::2"), Some((1, OWN)))), Ok(())),
        ("NS for the own address, without one", nd("::", &discovery(135, Some(one), None)), Ok(())),
        (
            "NS for another's address, without one",
            nd("::", &discovery(135, Some("2001:db8::2"), None)),
            Err(SpoofNd),
        ),
        ("NA", nd(one, &discovery(136, Some(one), Some((2, OWN)))), Ok(())),
        (
            "NA of another",
            nd(one, &discovery(136, Some("2001:db8::2"), Some((2, OWN)))),
            Err(SpoofNd),
        ),
        ("NA for another MAC", nd(one, &discovery(136, Some(one), Some((2, OTHER)))), Err(SpoofNd)),
        (
            "NA with an option of no length",
            nd(one, &[discovery(136, Some(one), None), vec![2, 0, 0, 0, 0, 0, 0, 0]].concat()),
            Err(SpoofNd),
        ),
        ("NA cut short", nd(one, &discovery(136, None, None)), Err(SpoofNd)),
        ("RA", nd("fe80::1", &discovery(134, None, None)), Err(RouterAdvertisement)),
        ("redirect", nd("fe80::1", &discovery(137, None, None)), Err(RouterAdvertisement)),
        (
            "RA behind headers",
            six("fe80::1", 0, &hop(&hop(&discovery(134, None, None), 58), 60)),
            Err(RouterAdvertisement),
        ),
        (
            "RA in a fragment",
            six("fe80::1", 44, &cut(&discovery(134, None, None), 58)),
            Err(NdFragment),
        ),
        (
            "RA whose type is in a later fragment",
            six("fe80::1", 44, &cut(&[60, 0, 0, 0], 60)),
            Err(TinyFragment),
        ),
        ("listener report without address", nd("::", &discovery(143, None, None)), Ok(())),
        ("a permitted ethertype", ethernet(OWN, 0x88cc, &[0; 20]), Ok(())),
        ("another ethertype", ethernet(OWN, 0x8863, &[0; 20]), Err(Ethertype)),
        ("a length", ethernet(OWN, 0x0026, &[0x42; 38]), Err(Ethertype)),
        (
            "a second tag",
            ethernet(OWN, 0x8100, &[&[0, 0, 0x81, 0, 0, 5, 8, 0][..], &[0; 40]].concat()),
            Err(Ethertype),
        ),
        (
            "a tiny fragment",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 6, 0x2000, &syn[..8])),
            Err(TinyFragment),
        ),
        (
            "an overlapping fragment",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 6, 1, &syn)),
            Err(TinyFragment),
        ),
        (
            "a truncated header",
            ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 6, 0, &syn[..8])),
            Err(TruncatedHeader),
        ),
        (
            "many headers",
            six(
                one,
                0,
                &(0..9).fold(syn.to_vec(), |rest, at| hop(&rest, if at == 0 { 6 } else { 60 })),
            ),
            Err(HeaderChain),
        ),
    ];
    let policy = permissive();
    for (what, frame, expected) in rows {
        assert_eq!(leave(&policy, frame), *expected, "{what}");
    }
}

#[test]
fn without_rules_only_the_basics_pass() {
    use DropReason::*;
    let closed = policy(&[]);
    let own = |rest: &[u8], number, fragment| {
        ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], number, fragment, rest))
    };
    let from = |number: u8, rest: &[u8]| ethernet(OTHER, 0x86dd, &v6("fe80::2", number, rest));
    assert_eq!(leave(&closed, &own(&udp(1, 2), 17, 0)), Err(AclOut));
    assert_eq!(leave(&closed, &own(&[0; 8], 17, 100)), Err(FragmentOut));
    assert_eq!(leave(&closed, &own(&udp(68, 67), 17, 0)), Ok(()));
    assert_eq!(leave(&closed, &ethernet(OWN, 0x0806, &arp(OWN, [10, 0, 0, 1]))), Ok(()));
    let asks = discovery(135, Some("fe80::2"), None);
    assert_eq!(leave(&closed, &ethernet(OWN, 0x86dd, &v6("fe80::1", 58, &asks))), Ok(()));

    assert_eq!(enter(&closed, &own(&udp(1, 2), 17, 0)), Err(AclIn));
    assert_eq!(enter(&closed, &own(&[0; 8], 17, 100)), Err(FragmentIn));
    assert_eq!(enter(&closed, &own(&[0; 8], 17, 1)), Err(MalformedIn));
    assert_eq!(enter(&closed, &own(&udp(67, 68), 17, 0)), Ok(()));
    assert_eq!(enter(&closed, &own(&udp(67, 69), 17, 0)), Err(AclIn));
    assert_eq!(enter(&closed, &from(17, &udp(547, 546))), Ok(()));
    for (kind, expected) in [
        (130, Ok(())),
        (134, Ok(())),
        (135, Ok(())),
        (136, Ok(())),
        (137, Err(AclIn)),
        (128, Err(AclIn)),
    ] {
        assert_eq!(enter(&closed, &from(58, &discovery(kind, None, None))), expected, "{kind}");
    }
    assert_eq!(enter(&closed, &ethernet(OTHER, 0x0806, &arp(OTHER, [1; 4]))), Ok(()));
    assert_eq!(enter(&closed, &ethernet(OTHER, 0x88cc, &[0; 20])), Ok(()));
    assert_eq!(enter(&closed, &ethernet(OTHER, 0x8863, &[0; 20])), Err(EthertypeIn));
}

/// Frames that are near to plain ones.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let address = prop_oneof![
        Just([10, 0, 0, 1]),
        Just([10, 9, 3, 4]),
        Just([10, 0, 0, 3]),
        any::<[u8; 4]>()
    ];
    let port = prop_oneof![Just(80u16), Just(68), Just(67), any::<u16>()];
    let mac = prop_oneof![4 => Just(OWN), 1 => Just(PAIR), 1 => Just(OTHER)];
    let number = prop_oneof![Just(6u8), Just(17), Just(1)];
    let flip = proptest::option::weighted(0.5, (12usize..60, any::<u8>()));
    let one = (mac, address, number, port.clone(), port, flip, 34usize..70).prop_map(
        |(mac, address, number, from, to, flip, length)| {
            let mut rest = udp(from, to);
            rest.extend([0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0]);
            let mut frame = ethernet(mac, 0x0800, &v4(address, number, 0, &rest));
            if let Some((at, byte)) = flip {
                frame[at.min(59)] = byte;
            }
            frame.truncate(length);
            frame
        },
    );
    proptest::collection::vec(one, 1..vhost::BURST_MAX)
}

/// Hands out frames that lie in private memory.
struct Private(Vec<Vec<u8>>);

impl Source for Private {
    fn fill(&mut self, burst: &mut Burst) {
        self.0.iter().for_each(|frame| assert!(burst.push_private(frame)));
    }

    fn release(&mut self, _: &mut Burst) {}
}

proptest! {
    #[test]
    fn a_burst_is_judged_as_its_frames_are_one_by_one(
        frames in frames(),
        (open, narrow) in any::<(bool, bool)>(),
        own in prop_oneof![Just("10.0.0.1/32"), Just("10.0.0.0/31"), Just("10.0.0.0/8")],
    ) {
        let some = |way| Rule {
            protocol: Some(6),
            part: Part::Ports(1, 40_000),
            returns: true,
            ..Rule::any(way, Family::V4)
        };
        let some = |way| if open { Rule::any(way, Family::V4) } else { some(way) };
        let mut ingress = some(Direction::Ingress);
        if narrow {
            ingress.remote = Remote::Prefix("10.0.0.1/32".parse().unwrap());
        }
        let policy = policy_of(&[own], &[ingress, some(Direction::Egress)]);
        let mut burst = Burst::default();
        // What a frame is too short for must not be taken from the one that was there before.
        let before = ethernet(OWN, 0x0800, &v4([10, 0, 0, 1], 17, 0, &[0; 40]));
        drop(Received::take(&mut Private(vec![before; vhost::BURST_MAX]), &mut burst));
        let mut source = Private(frames.clone());
        let received = Received::take(&mut source, &mut burst);
        let mut looks = Looks::default();
        let mut denied = Vec::new();
        let Left { passed, plain: own } = policy.leave_burst(received.frames(), &mut looks, |_| true, |_, reason| denied.push(reason));
        for (index, frame) in frames.iter().enumerate() {
            let look = looks.of(index as u8);
            // What is plain is what the whole reading says, too.
            if let (true, Ok(headers)) = (look.is_plain(), Headers::parse_head(frame, frame.len())) {
                let Packet::V4(ip) = Packet::parse(frame, &headers) else { panic!("plain is IPv4") };
                prop_assert_eq!(look.asked, ip.transport.asked());
                prop_assert_eq!((look.source, look.destination), (ip.source, ip.destination));
            }
        }
        let plain = (0..frames.len()).filter(|index| looks.of(*index as u8).is_plain());
        prop_assert_eq!(looks.plain(), plain.fold(0, |plain, index| plain | 1 << index));
        let mut expected = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let result = Headers::parse_head(frame, frame.len())
                .map_or(Ok(()), |headers| policy.leave(frame, &headers, &Packet::parse(frame, &headers)));
            prop_assert_eq!(passed >> index & 1 == 1, result.is_ok(), "{}", index);
            let look = looks.of(index as u8);
            let expected_own = result.is_ok() && look.is_plain() && frame[6..12] == OWN;
            prop_assert!(own >> index & 1 == 0 || expected_own, "{}", index);
            expected.extend(result.err());
        }
        denied.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(denied, expected);

        let all = received.frames().all();
        let mut denied = 0;
        let deny = |index, _| denied |= 1_u64 << index;
        let passed = policy.enter_burst(received.frames(), &looks, all, deny);
        let expected = (0..frames.len()).filter(|index| {
            let frame = &frames[*index];
            Headers::parse_head(frame, frame.len())
                .is_ok_and(|headers| policy.enter(&Packet::parse(frame, &headers)).is_ok())
        });
        prop_assert_eq!(passed, expected.fold(0, |passed, index| passed | 1 << index));
        prop_assert_eq!(denied, all & !passed);
    }
}

#[test]
fn whose_a_burst_is_holds_for_that_burst() {
    let (mut burst, mut looks) = (Burst::default(), Looks::default());
    let udp = v4([10, 0, 0, 1], 17, 0, &[0; 40]);
    let mut source = Private(vec![ethernet(OWN, 0x0800, &udp), ethernet(OTHER, 0x0800, &udp)]);
    let received = Received::take(&mut source, &mut burst);
    permissive().leave_burst(received.frames(), &mut looks, |_| true, |_, _| {});
    assert_eq!(looks.source_of(0b01), Some(u32::from_be_bytes([10, 0, 0, 1])));
    assert_eq!(looks.source_of(0b11), None, "the second is not the port's own");
    looks.read(received.frames(), |_, _| true);
    assert_eq!(looks.source_of(0b01), None, "nobody said whose these are");
}
