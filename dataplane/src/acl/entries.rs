//! Rules in the order in which they hold, with the traffic that they let answer.

use super::rule::{Direction, Family, Part, Remote, Rule};
use crate::packet::protocol;

/// A rule as it is compiled: one that was given, or what follows from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is matched.
    pub rule: Rule,
    /// Whether it is the traffic that answers what the rule of the other direction permits. The
    /// label and priority are that rule's; ports are then of the source.
    pub answer: bool,
}

impl Entry {
    /// Whether it lets errors of ICMP in, or out, that answer whatever is permitted the other way.
    pub fn is_error(&self) -> bool {
        match self.rule.part {
            Part::Icmp(kind, _) => self.answer && icmp_errors(self.rule.family).contains(&kind),
            Part::All | Part::Ports(..) => false,
        }
    }
}

/// ICMP's errors (RFC 1122 §3.2.2): unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];

/// ICMPv6's errors (RFC 4443 §2.1, and RFC 4890 §4.3.1 on passing them).
const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];

/// Requests and their answers: echo, timestamp, information, address mask; ICMPv6's echo.
const ICMP_ANSWERS: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
const ICMPV6_ANSWERS: [(u8, u8); 1] = [(128, 129)];

/// The entries of a direction, those that hold first, first: by priority, denials before permits,
/// then in the order given, errors of ICMP at the end.
pub(super) fn entries(rules: &[Rule], direction: Direction) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    for rule in rules {
        if rule.direction == direction {
            entries.push(Entry { rule: rule.clone(), answer: false });
        } else if rule.permit && rule.returns {
            entries.extend(answers(rule));
            let same = |entry: &Entry| entry.rule.family == rule.family;
            if !errors.iter().any(same) {
                errors.extend(icmp_errors(rule.family).iter().map(|kind| Entry {
                    rule: Rule {
                        direction,
                        protocol: Some(rule.family.icmp()),
                        part: Part::Icmp(*kind, None),
                        remote: Remote::Any,
                        priority: 0,
                        ..rule.clone()
                    },
                    answer: true,
                }));
            }
        }
    }
    entries.sort_by_key(|entry| (std::cmp::Reverse(entry.rule.priority), entry.rule.permit));
    // Errors come last: a denial of ICMP holds against them at any priority.
    entries.extend(errors);
    entries
}

fn icmp_errors(family: Family) -> &'static [u8] {
    match family {
        Family::V4 => &ICMP_ERRORS,
        Family::V6 => &ICMPV6_ERRORS,
    }
}

/// What answers the traffic that a rule permits.
fn answers(rule: &Rule) -> Vec<Entry> {
    let icmp = rule.family.icmp();
    let entry = |protocol: u8, part: Part| Entry {
        rule: Rule {
            direction: rule.direction.reverse(),
            protocol: Some(protocol),
            part,
            ..rule.clone()
        },
        answer: true,
    };
    let mut found = Vec::new();
    if rule.protocol.is_none_or(|number| number == protocol::TCP) {
        found.push(entry(protocol::TCP, rule.part));
    }
    // Without flags an answer cannot be told from a new dialogue, so only what one named port sends.
    if let (Some(number), Part::Ports(first, last)) = (rule.protocol, rule.part)
        && number != protocol::TCP
        && first == last
    {
        found.push(entry(number, rule.part));
    }
    if rule.protocol.is_none_or(|number| number == icmp) {
        let pairs = if rule.family == Family::V4 { &ICMP_ANSWERS[..] } else { &ICMPV6_ANSWERS[..] };
        let asked = |request: u8| match rule.part {
            Part::All => true,
            Part::Icmp(kind, _) => kind == request,
            Part::Ports(..) => false,
        };
        let answered = pairs.iter().filter(|(request, _)| asked(*request));
        found.extend(answered.map(|(_, answer)| entry(icmp, Part::Icmp(*answer, None))));
    }
    found
}
