//! Parts that filter: reading a packet's headers, anti-spoofing, rules.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::acl::{
    Acl, Budget, Compiler, Direction, Family, Part as Of, Remote, Rule, RuleLabel,
};
use dataplane::headers::Headers;
use dataplane::packet::{Asked, Look, Packet, Plane};
use dataplane::policy::{Guard, Policy, Station};
use ipnet::{IpNet, Ipv4Net};
use vhost::{BURST_MAX, HEAD_MAX};

use crate::bed::{BURST, frame, mac};
use crate::part::{Meter, Part, Run};

pub fn parts() -> Vec<Part> {
    let part = |name, build| Part { name, unit: "frame", units: BURST, build };
    vec![
        part("look", look),
        part("packet", packet),
        part("acl-50", || judging(50)),
        part("acl-1k", || judging(1_000)),
        part("acl-10k", || judging(10_000)),
    ]
}

fn look() -> Box<dyn Run> {
    let head = |at| {
        let mut head = [0; HEAD_MAX];
        head[..64].copy_from_slice(&frame(mac(at), mac(at + 1), 64));
        head
    };
    let heads: Vec<_> = (0..BURST).map(head).collect();
    Box::new(move |meter: &mut Meter| {
        meter.measure(|| {
            for head in &heads {
                black_box(Look::read(black_box(head), black_box(64)));
            }
        });
    })
}

fn packet() -> Box<dyn Run> {
    let frames: Vec<_> = (0..BURST).map(|at| frame(mac(at), mac(at + 1), 64)).collect();
    Box::new(move |meter: &mut Meter| {
        meter.measure(|| {
            for frame in &frames {
                let headers = Headers::parse_head(black_box(frame), 64).expect("a whole frame");
                black_box(Packet::parse(frame, &headers));
            }
        });
    })
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // Marsaglia, "Xorshift RNGs".
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// Rules for TCP and UDP, from prefixes of 8 to 32 bits, most of them long, to one port or several.
fn rules(count: u32, dice: &mut Dice) -> Vec<Rule> {
    let one = |at: u32| {
        let length = [32, 32, 32, 28, 24, 24, 20, 16, 12, 8][dice.below(10) as usize];
        let address = Ipv4Addr::from(dice.roll() as u32);
        let prefix = Ipv4Net::new(address, length).expect("a length of IPv4").trunc();
        let first = dice.below(60_000) as u16;
        let last = first + [0, 0, 0, 1, 9, 99, 1023][dice.below(7) as usize];
        Rule {
            direction: Direction::Ingress,
            family: Family::V4,
            protocol: Some(if at.is_multiple_of(3) { 17 } else { 6 }),
            part: Of::Ports(first, last),
            remote: Remote::Prefix(IpNet::V4(prefix)),
            permit: true,
            priority: 0,
            returns: false,
            label: RuleLabel { group: 0, rule: at },
        }
    };
    (0..count).map(one).collect()
}

/// A packet that the rule permits.
fn fitting(rule: &Rule, dice: &mut Dice) -> Look {
    let (Remote::Prefix(IpNet::V4(prefix)), Of::Ports(first, last)) = (&rule.remote, rule.part)
    else {
        panic!("{rule:?} is none of those that were made");
    };
    let first_address = u32::from(prefix.network());
    let hosts = u64::from(u32::from(prefix.broadcast()) - first_address) + 1;
    let asked = Asked {
        plane: if rule.protocol == Some(6) { Plane::Tcp } else { Plane::Udp },
        flags: 2,
        source_port: 40_000,
        selector: first + dice.below(u64::from(last - first) + 1) as u16,
    };
    let source = first_address + dice.below(hosts) as u32;
    Look { source, destination: 0x0a00_0001, asked }
}

const BUDGET: Budget = Budget { rules: 100_000, bytes: 64 << 20 };

fn compile(rules: &[Rule]) -> Acl {
    let acl = Compiler::default().compile(rules, &BTreeMap::new(), BUDGET);
    acl.expect("a common set is within any budget")
}

/// Rules that permit the frames of the bed: one that permits all, or so many of which one does.
pub fn permitting(count: Option<u32>) -> Arc<Acl> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut all = rules(count.unwrap_or(1), &mut dice);
    let middle = all.len() / 2;
    let subnet = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 24).expect("a length of IPv4");
    let (protocol, part, remote) = match count {
        None => (None, Of::All, Remote::Any),
        Some(_) => (Some(17), Of::Ports(5001, 5001), Remote::Prefix(IpNet::V4(subnet))),
    };
    all[middle] = Rule { protocol, part, remote, ..all[middle].clone() };
    let out = all.clone().into_iter().map(|rule| Rule { direction: Direction::Egress, ..rule });
    all.extend(out);
    Arc::new(compile(&all))
}

/// Of the port with the bed's address of this number.
pub fn policy(number: u64, acl: &Arc<Acl>) -> Arc<Policy> {
    let address = IpNet::V4(Ipv4Net::from(Ipv4Addr::new(10, 0, 0, number as u8)));
    let guard = Guard::new(vec![Station::new(mac(number), [&address])], &[]);
    Arc::new(Policy { guard, acl: Arc::clone(acl) })
}

fn judging(count: u32) -> Box<dyn Run> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let rules = rules(count, &mut dice);
    let acl = compile(&rules);
    Box::new(move |meter: &mut Meter| {
        // New ones in every run: nothing could be remembered.
        let packets: [_; BURST_MAX] =
            std::array::from_fn(|_| fitting(&rules[dice.below(count.into()) as usize], &mut dice));
        meter.measure(|| {
            let plain = acl.plain(Direction::Ingress);
            assert_eq!(plain.permit_each(black_box(&packets), u64::MAX, None), u64::MAX);
        });
    })
}
