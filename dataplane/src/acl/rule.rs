//! Rules as they are given to be compiled.

use ipnet::IpNet;

use crate::packet::protocol;

/// One permit or denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which frames of the port it is about.
    pub direction: Direction,
    /// Which version of IP.
    pub family: Family,
    /// The protocol, or all.
    pub protocol: Option<u8>,
    /// What of the protocol.
    pub part: Part,
    /// Whose addresses: senders' of ingress, receivers' of egress.
    pub remote: Remote,
    /// Whether it permits; else it denies.
    pub permit: bool,
    /// Rules of higher priority are looked at first; among equals, denials.
    pub priority: u16,
    /// Whether what it permits is answered, see [`Acl`](super::Acl).
    pub returns: bool,
    /// What the rule is called by who made it.
    pub label: RuleLabel,
}

/// What a rule is called: group and place in the group, as numbers of who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleLabel {
    /// The group.
    pub group: u32,
    /// The rule in the group.
    pub rule: u32,
}

/// Seen from the port's owner, as users of security groups know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Frames that go to the port.
    Ingress,
    /// Frames that come from the port.
    Egress,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What of a protocol a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it, fragments included.
    All,
    /// Destination ports, first and last.
    Ports(u16, u16),
    /// A type of the family's ICMP, and a code or all.
    Icmp(u8, Option<u8>),
}

/// Whose addresses a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Remote {
    /// Everybody's.
    Any,
    /// Those under a prefix, of the rule's family.
    Prefix(IpNet),
    /// Those of a set, by the number that it is given under. A number without a set is an empty set.
    Set(u32),
}

impl Rule {
    /// The rule that permits all of a direction and version of IP, to be narrowed. It opens nothing
    /// else.
    pub const fn any(direction: Direction, family: Family) -> Self {
        Self {
            direction,
            family,
            protocol: None,
            part: Part::All,
            remote: Remote::Any,
            permit: true,
            priority: 0,
            returns: false,
            label: RuleLabel { group: 0, rule: 0 },
        }
    }
}

impl Family {
    /// The protocol by which errors are told and echoes asked for: ICMP or ICMPv6.
    pub const fn icmp(self) -> u8 {
        match self {
            Self::V4 => protocol::ICMP,
            Self::V6 => protocol::ICMPV6,
        }
    }
}

impl Direction {
    /// The other one.
    pub const fn reverse(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}
