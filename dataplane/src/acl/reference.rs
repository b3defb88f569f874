//! What [`Acl::judge`](super::Acl::judge) must say, in the most obvious way: rule by rule.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{AddressSet, Direction, Family, Part, Remote, Rule};
use crate::packet::{Form, Packet, TCP_ESTABLISHED, Transport, protocol};

/// Whether a packet passes, and by which of the given rules or the answers to them it does or does
/// not: its index and whether it is an answer. ICMP's errors have none.
pub fn judge(
    rules: &[Rule],
    sets: &BTreeMap<u32, AddressSet>,
    direction: Direction,
    packet: &Packet,
) -> (bool, Option<(usize, bool)>) {
    let (family, source, destination, transport): (_, IpAddr, IpAddr, _) = match *packet {
        Packet::V4(ip) => (
            Family::V4,
            IpAddr::V4(ip.source.into()),
            IpAddr::V4(ip.destination.into()),
            ip.transport,
        ),
        Packet::V6(ip) => (
            Family::V6,
            IpAddr::V6(ip.source.into()),
            IpAddr::V6(ip.destination.into()),
            ip.transport,
        ),
        _ => return (false, None),
    };
    if !matches!(transport.form, Form::Whole | Form::Later) {
        return (false, None);
    }
    let remote = if direction == Direction::Ingress { source } else { destination };
    let concerns = |rule: &Rule| {
        rule.family == family
            && match &rule.remote {
                Remote::Any => true,
                Remote::Prefix(prefix) => prefix.contains(&remote),
                Remote::Set(set) => sets
                    .get(set)
                    .is_some_and(|set| set.prefixes.iter().any(|p| p.contains(&remote))),
            }
    };

    let mut best: Option<(u16, bool, usize, bool)> = None;
    let mut consider = |priority: u16, permit: bool, index, answer| {
        let better = best.is_none_or(|(highest, permits, ..)| {
            priority > highest || (priority == highest && permits && !permit)
        });
        if better {
            best = Some((priority, permit, index, answer));
        }
    };
    // Where both a rule and an answer permit, at one priority, either may be named; the rule is.
    for (index, rule) in rules.iter().enumerate() {
        if rule.direction == direction && concerns(rule) && matches_forward(rule, &transport) {
            consider(rule.priority, rule.permit, index, false);
        }
    }
    for (index, rule) in rules.iter().enumerate() {
        let answers = rule.direction != direction && rule.permit && rule.returns;
        if answers && concerns(rule) && matches_answer(rule, &transport, family) {
            consider(rule.priority, true, index, true);
        }
    }
    if let Some((_, permit, index, answer)) = best {
        return (permit, Some((index, answer)));
    }
    let returns = rules.iter().any(|rule| {
        rule.direction != direction && rule.permit && rule.returns && rule.family == family
    });
    (returns && is_error(&transport, family), None)
}

fn matches_forward(rule: &Rule, transport: &Transport) -> bool {
    if rule.protocol.is_some_and(|number| number != transport.protocol) {
        return false;
    }
    if matches!(rule.part, Part::Icmp(..)) && transport.protocol != rule.family.icmp() {
        return false;
    }
    if transport.form == Form::Later {
        return rule.part == Part::All || !rule.permit;
    }
    match rule.part {
        Part::All => true,
        Part::Ports(first, last) => (first..=last).contains(&transport.selector),
        Part::Icmp(kind, code) => {
            let [its_kind, its_code] = transport.selector.to_be_bytes();
            kind == its_kind && code.is_none_or(|code| code == its_code)
        }
    }
}

fn matches_answer(rule: &Rule, transport: &Transport, family: Family) -> bool {
    if rule.protocol.is_some_and(|number| number != transport.protocol)
        || transport.form == Form::Later
    {
        return false;
    }
    let port = transport.source_port;
    match transport.protocol {
        protocol::TCP => {
            let within = match rule.part {
                Part::Ports(first, last) => (first..=last).contains(&port),
                _ => true,
            };
            within && transport.flags & TCP_ESTABLISHED != 0
        }
        protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDPLITE => {
            rule.part == Part::Ports(port, port) && rule.protocol.is_some()
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let pairs: &[(u8, u8)] = match (family, transport.protocol) {
                (Family::V4, protocol::ICMP) => &[(8, 0), (13, 14), (15, 16), (17, 18)],
                (Family::V6, protocol::ICMPV6) => &[(128, 129)],
                _ => &[],
            };
            let kind = transport.selector.to_be_bytes()[0];
            pairs.iter().any(|(request, answer)| {
                *answer == kind
                    && match rule.part {
                        Part::Icmp(asked, _) => asked == *request,
                        _ => true,
                    }
            })
        }
        _ => false,
    }
}

fn is_error(transport: &Transport, family: Family) -> bool {
    let kind = transport.selector.to_be_bytes()[0];
    // Where ICMP was not read, the selector is another.
    transport.form == Form::Whole
        && match (family, transport.protocol) {
            (Family::V4, protocol::ICMP) => [3, 11, 12].contains(&kind),
            (Family::V6, protocol::ICMPV6) => (1..=4).contains(&kind),
            _ => false,
        }
}
