//! Rules as tenants have them, and among them those that permit the load.
//!
//! What the load may use (the peer's prefix, by the load's UDP ports) is cut into many pieces, an
//! eighth of the rules, each permitted by a rule of its own that reaches a little beyond it: frames
//! with random addresses and ports meet all of these, no two of them are one rule in disguise, and
//! together with the others they are far from permitting everything. The piece with the first
//! address and port, which a load of one flow has, is the middle one of the list and the only one
//! that permits this flow.
//!
//! The others permit what tenants permit: mostly TCP, well-known ports and ranges, prefixes of all
//! lengths, some of them within the peer's, ICMP, other protocols, sets of addresses. None of them
//! permits a frame that a guest of the bench may send.

use std::collections::HashSet;

use super::{Policy, Ports, Protocol, Remote, Rule, Sets};
use crate::frame::{PORTS, Prefix, mix};

/// One of so many rules permits a piece of the load.
const PIECES: usize = 8;
/// Where all guests are.
const GUESTS: Prefix = Prefix { address: 10 << 24, length: 8 };
/// Where sets have their addresses, apart from everything else: 100.64.0.0/10.
const SETS: Prefix = Prefix { address: 100 << 24 | 64 << 16, length: 10 };
const GROUPS: usize = 4;
const GROUP_MEMBERS: usize = 300;
const ADDRESS_GROUPS: usize = 2;
const ADDRESS_GROUP_PREFIXES: usize = 100;
/// Ports of services that tenants have.
const SERVICES: [u16; 24] = [
    21, 22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 465, 514, 587, 636, 993, 1433, 3128, 3306,
    5432, 6379, 8080, 8443, 9200,
];
/// Protocols without ports: GRE, ESP, AH, OSPF, VRRP.
const OTHER_PROTOCOLS: [u8; 5] = [47, 50, 51, 89, 112];

/// `count` rules each way, which permit the load from and to `peer`.
pub fn policy(seed: u64, peer: Prefix, count: usize) -> Policy {
    let mut dice = Dice::new(seed ^ u64::from(peer.address));
    Policy { ingress: rules(&mut dice, peer, count), egress: rules(&mut dice, peer, count) }
}

/// The sets that rules name.
pub fn sets() -> Sets {
    let mut dice = Dice::new(0);
    let mut address = |length: u8| Prefix::around(dice.address_in(SETS), length);
    let mut distinct = |count: usize, lengths: &[u8]| {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        while found.len() < count {
            let prefix = address(lengths[found.len() % lengths.len()]);
            if seen.insert(prefix) {
                found.push(prefix);
            }
        }
        found
    };
    let hosts = |prefixes: Vec<Prefix>| prefixes.into_iter().map(|host| host.address).collect();
    let groups = (0..GROUPS).map(|_| hosts(distinct(GROUP_MEMBERS, &[32]))).collect();
    let lengths = [20, 24, 28, 29, 30, 32];
    let address_groups =
        (0..ADDRESS_GROUPS).map(|_| distinct(ADDRESS_GROUP_PREFIXES, &lengths)).collect();
    Sets { groups, address_groups }
}

fn rules(dice: &mut Dice, peer: Prefix, count: usize) -> Vec<Rule> {
    let mut pieces = pieces(dice, peer, (count / PIECES).max(1));
    let is_first = |rule: &Rule| permits(rule, Prefix::host(peer.address), *PORTS.start());
    let first = pieces.iter().position(is_first).map(|place| pieces.swap_remove(place));
    let mut seen: HashSet<_> = pieces.iter().copied().chain(first).collect();
    let mut rules = pieces;
    while rules.len() + usize::from(first.is_some()) < count {
        let rule = other(dice, peer);
        let harmless = !touches(&rule, GUESTS, *PORTS.start(), *PORTS.end());
        if harmless && seen.insert(rule) {
            rules.push(rule);
        }
    }
    dice.shuffle(&mut rules);
    rules.splice(count / 2..count / 2, first);
    rules
}

/// Cuts the load's space into `count` pieces, now by address and now by port, at places that have no
/// pattern.
fn pieces(dice: &mut Dice, peer: Prefix, count: usize) -> Vec<Rule> {
    let mut pieces = vec![(peer, *PORTS.start(), *PORTS.end())];
    while pieces.len() < count {
        let place = dice.below(pieces.len() as u32) as usize;
        let (prefix, first, last) = pieces[place];
        let by_address = prefix.length < 32 && (last - first < 2 || dice.below(2) == 0);
        if by_address {
            let length = prefix.length + 1;
            let upper = prefix.address | 1 << (32 - length);
            pieces[place].0 = Prefix { address: prefix.address, length };
            pieces.push((Prefix { address: upper, length }, first, last));
        } else if first < last {
            let cut = first + dice.below(u32::from(last - first)) as u16;
            pieces[place].2 = cut;
            pieces.push((prefix, cut + 1, last));
        }
    }
    let widened = |(prefix, first, last): (Prefix, u16, u16)| {
        let (below, above) = (dice.below(64) as u16, dice.below(64) as u16);
        let lowest = *PORTS.start();
        // Only pieces that begin with the lowest port permit it.
        let first = if first == lowest { first - below } else { (first - below).max(lowest + 1) };
        let protocol = Protocol::Udp(Ports { first, last: last + above });
        Rule { protocol, remote: Remote::Prefix(prefix) }
    };
    pieces.into_iter().map(widened).collect()
}

/// A rule like those that tenants write.
fn other(dice: &mut Dice, peer: Prefix) -> Rule {
    let remote = match dice.below(100) {
        0..15 => dice.prefix_in(peer, 16, 32),
        15..45 => dice.prefix_in(GUESTS, 9, 32),
        45..60 => dice.prefix_in(Prefix { address: 172 << 24 | 16 << 16, length: 12 }, 12, 32),
        60..70 => dice.prefix_in(Prefix { address: 192 << 24 | 168 << 16, length: 16 }, 16, 32),
        70..90 => {
            // Anywhere, but not where the guests and the sets are.
            let address = loop {
                let address = dice.address_in(Prefix { address: 0, length: 0 });
                let host = Prefix::host(address);
                if (1..224).contains(&(address >> 24)) && ![0x0a, 0x64].contains(&(address >> 24)) {
                    break host.address;
                }
            };
            Remote::Prefix(Prefix::around(address, dice.between(8, 32) as u8))
        }
        90..94 => Remote::Group(dice.below(GROUPS as u32) as usize),
        94..97 => Remote::AddressGroup(dice.below(ADDRESS_GROUPS as u32) as usize),
        _ => Remote::Any,
    };
    let protocol = match dice.below(100) {
        0..45 => Protocol::Tcp(Ports::one(dice.service())),
        45..60 => Protocol::Tcp(dice.range()),
        60..72 => Protocol::Udp(Ports::one(dice.service())),
        72..82 => Protocol::Udp(dice.range()),
        82..86 => Protocol::Tcp(Ports::ANY),
        86..88 => Protocol::Udp(Ports::ANY),
        88..90 => Protocol::Icmp(None),
        90..92 => Protocol::Icmp(Some((dice.below(16) as u8, None))),
        92..94 => Protocol::Icmp(Some((3, Some(dice.below(16) as u8)))),
        94..98 => Protocol::Number(OTHER_PROTOCOLS[dice.below(5) as usize]),
        _ => Protocol::Any,
    };
    Rule { protocol, remote }
}

/// Whether a rule of a piece permits a UDP frame from or to that host, to that port.
fn permits(rule: &Rule, host: Prefix, port: u16) -> bool {
    touches(rule, host, port, port)
}

/// Whether a rule permits any UDP frame from or to that prefix, to any port of that range.
fn touches(rule: &Rule, prefix: Prefix, first: u16, last: u16) -> bool {
    let remote = match rule.remote {
        Remote::Any => true,
        Remote::Prefix(other) => other.meets(prefix),
        Remote::Group(_) | Remote::AddressGroup(_) => SETS.meets(prefix),
    };
    let protocol = match rule.protocol {
        Protocol::Any => true,
        Protocol::Udp(ports) => ports.first <= last && first <= ports.last,
        Protocol::Tcp(_) | Protocol::Icmp(_) | Protocol::Number(_) => false,
    };
    remote && protocol
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    /// Splitmix64.
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to below `limit`, which is not 0.
    fn below(&mut self, limit: u32) -> u32 {
        (((self.throw() >> 32) * u64::from(limit)) >> 32) as u32
    }

    fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    fn address_in(&mut self, prefix: Prefix) -> u32 {
        let below = (1_u64 << (32 - prefix.length)) - 1;
        prefix.address | (self.throw() & below) as u32
    }

    /// A prefix within another, its length between two. Every second is as long as it may be, as
    /// single addresses are most of what tenants write.
    fn prefix_in(&mut self, room: Prefix, shortest: u32, longest: u32) -> Remote {
        let length = if self.below(2) == 0 { longest } else { self.between(shortest, longest) };
        Remote::Prefix(Prefix::around(self.address_in(room), length as u8))
    }

    /// A port of a service: well known, or the owner's choice.
    fn service(&mut self) -> u16 {
        match self.below(2) {
            0 => SERVICES[self.below(SERVICES.len() as u32) as usize],
            _ => self.between(1024, 65_535) as u16,
        }
    }

    /// A range of 2 to 4096 ports, as often short as long.
    fn range(&mut self) -> Ports {
        let ports = 1 << self.between(1, 12);
        let first = self.between(1, 65_535 - ports);
        Ports { first: first as u16, last: (first + self.between(1, ports - 1)) as u16 }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place as u32 + 1) as usize);
        }
    }
}
