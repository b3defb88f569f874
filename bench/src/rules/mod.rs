//! Which frames the ports' owners may send and receive: security groups, as plain rules that each
//! switch gets in its own language.
//!
//! A scenario without rules still has port security on, with a group that permits everything. In one
//! with rules, the two busy guests' ports have as many in each direction as it says ([`generate`]),
//! made anew from a seed: the same in each run, and nothing is stored.

mod generate;
#[cfg(test)]
mod tests;

use crate::frame::Prefix;
use crate::scenario::Scenario;

/// The seed of the set that is in force when a switch starts.
pub const FIRST_SEED: u64 = 1;
/// The seeds of all sets that take turns, where sets are swapped.
pub const SEEDS: [u64; 3] = [FIRST_SEED, 2, 3];

/// Ports of UDP or TCP, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// A single port.
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// What a rule says of the protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Any,
    /// To those destination ports.
    Tcp(Ports),
    /// To those destination ports.
    Udp(Ports),
    /// Of that type, if any is named, and of that code, if any is named.
    Icmp(Option<(u8, Option<u8>)>),
    /// IP's number for another protocol.
    Number(u8),
}

/// Whom a rule lets speak with the port's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    Any,
    Prefix(Prefix),
    /// The members of that one of [`Sets::groups`].
    Group(usize),
    /// What is in that one of [`Sets::address_groups`].
    AddressGroup(usize),
}

/// Permits what both parts match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub protocol: Protocol,
    pub remote: Remote,
}

impl Rule {
    /// Permits everything.
    pub const ANY: Self = Self { protocol: Protocol::Any, remote: Remote::Any };
}

/// A port's security group: what matches none of its rules is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For frames to the port's owner; the remote is the sender.
    pub ingress: Vec<Rule>,
    /// For frames from the port's owner; the remote is the receiver.
    pub egress: Vec<Rule>,
}

impl Policy {
    /// Permits everything both ways.
    pub fn open() -> Self {
        Self { ingress: vec![Rule::ANY], egress: vec![Rule::ANY] }
    }

    /// The policy of a port of a scenario, counted from 0, made from a seed.
    pub fn of(scenario: &Scenario, port: u16, seed: u64) -> Self {
        let peer = |port: u16| scenario.addresses_of(port).prefix();
        match port {
            _ if scenario.rules == 0 => Self::open(),
            0 | 1 => {
                let mut policy = generate::policy(seed, peer(1 - port), scenario.rules as usize);
                if scenario.swaps && port == 0 && seed == FIRST_SEED {
                    // Only this set lets the probe through, which tells it from the others.
                    let remote = Remote::Prefix(Prefix::host(scenario.addresses_of(2).ip(0)));
                    let last = policy.ingress.len() - 1;
                    policy.ingress[last] = Rule { protocol: Protocol::Any, remote };
                }
                policy
            }
            // The flood's target: it may send, so that its address can be learnt, and gets only what
            // A would send.
            3 if scenario.flood => {
                let rules = generate::policy(seed, peer(0), scenario.rules as usize);
                Self { egress: vec![Rule::ANY], ..rules }
            }
            _ => Self::open(),
        }
    }
}

/// The sets of addresses that rules name; the same for all policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sets {
    /// Security groups with the addresses of ports elsewhere.
    pub groups: Vec<Vec<u32>>,
    /// Address groups.
    pub address_groups: Vec<Vec<Prefix>>,
}

impl Sets {
    /// Those that generated rules name.
    pub fn of_rules() -> Self {
        generate::sets()
    }

    /// The prefixes that a remote stands for; none for [`Remote::Any`], which stands for all.
    pub fn prefixes(&self, remote: Remote) -> Vec<Prefix> {
        match remote {
            Remote::Any => Vec::new(),
            Remote::Prefix(prefix) => vec![prefix],
            Remote::Group(group) => self.groups[group].iter().copied().map(Prefix::host).collect(),
            Remote::AddressGroup(group) => self.address_groups[group].clone(),
        }
    }
}
