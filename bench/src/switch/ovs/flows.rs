//! OpenFlow for scenarios with rules: what the rules permit, and nothing else.
//!
//! Four tables, as an OpenFlow firewall for virtual machines has them: the sender's own addresses, its
//! rules, the receiver's port by its MAC address, the receiver's rules. A range of ports is several
//! flows with masks, since OpenFlow has no ranges; a rule for a set of addresses is a conjunctive match,
//! so that the set's members are listed once for all rules and not once for each.
//!
//! With connection tracking, a frame passes it once, before the sender's rules; what belongs to a
//! connection skips all rules, and the first frame of one is entered when both sides' rules permit it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::Bed;
use crate::rules::{FIRST_SEED, Policy, Ports, Protocol, Remote, Rule, Sets};

/// Checks of the sender's own addresses.
const OWN: u8 = 0;
/// The sender's rules.
const EGRESS: u8 = 1;
/// Finds the receiver's port.
const FORWARD: u8 = 2;
/// The receiver's rules.
const INGRESS: u8 = 3;

/// All flows, one in a line, as `ovs-ofctl add-flows` reads them.
pub fn flows(bed: &Bed<'_>, conntrack: bool) -> String {
    let sets = Sets::of_rules();
    let mut book = Book { text: String::new(), sets: &sets, conjunctions: 0 };
    let state = if conntrack { "ct_state=+new+trk," } else { "" };
    for port in 0..bed.ports {
        let number = number(port);
        let addresses = bed.scenario.addresses_of(port);
        let prefix = if bed.scenario.random && port < 2 {
            addresses.prefix().to_string()
        } else {
            crate::frame::Prefix::host(addresses.ip(0)).to_string()
        };
        let mac = mac_text(addresses.mac(0));
        let checked = if conntrack { format!("ct(table={EGRESS},zone=1)") } else { table(EGRESS) };
        book.flow(OWN, 50, &format!("in_port={number},dl_src={mac},ip,nw_src={prefix}"), &checked);
        let arp = format!("in_port={number},dl_src={mac},arp,arp_spa={prefix}");
        book.flow(OWN, 50, &arp, "NORMAL");
        let forward = format!("load:{number}->NXM_NX_REG0[],resubmit(,{INGRESS})");
        book.flow(FORWARD, 50, &format!("dl_dst={mac}"), &forward);
        let policy = Policy::of(bed.scenario, port, FIRST_SEED);
        let (from, to) = (format!("in_port={number},{state}"), format!("reg0={number},{state}"));
        let output = if conntrack {
            format!("ct(commit,zone=1),output:{number}")
        } else {
            format!("output:{number}")
        };
        book.rules(EGRESS, &from, "nw_dst", &policy.egress, &table(FORWARD));
        book.rules(INGRESS, &to, "nw_src", &policy.ingress, &output);
        if conntrack {
            let known = format!("reg0={number},ct_state=+est+trk-inv,ip");
            book.flow(INGRESS, 100, &known, &format!("output:{number}"));
        }
    }
    if conntrack {
        book.flow(EGRESS, 100, "ct_state=+est+trk-inv,ip", &table(FORWARD));
    }
    book.text
}

/// A port's number in OpenFlow, which begins with 1.
pub fn number(port: u16) -> u16 {
    port + 1
}

fn table(number: u8) -> String {
    format!("resubmit(,{number})")
}

fn mac_text(mac: u64) -> String {
    let bytes = mac.to_be_bytes();
    bytes[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Flows as they are written.
struct Book<'a> {
    text: String,
    sets: &'a Sets,
    /// Conjunctions so far, whose numbers are used once.
    conjunctions: u32,
}

impl Book<'_> {
    fn flow(&mut self, table: u8, priority: u8, matches: &str, actions: &str) {
        // Writing to a String cannot fail.
        let _ =
            writeln!(self.text, "table={table},priority={priority},{matches},actions={actions}");
    }

    /// One side's rules: whoever matches one of them gets the actions.
    fn rules(&mut self, table: u8, side: &str, remote: &str, rules: &[Rule], actions: &str) {
        // The parts of conjunctive matches, those with the same match together.
        let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // Ranges that overlap may have a piece in common.
        let mut matches = BTreeSet::new();
        for rule in rules {
            let protocols = protocol_matches(rule.protocol);
            let prefixes = self.sets.prefixes(rule.remote);
            match rule.remote {
                Remote::Any | Remote::Prefix(_) => {
                    let prefix = prefixes.first().map(|prefix| format!(",{remote}={prefix}"));
                    for protocol in &protocols {
                        let prefix = prefix.as_deref().unwrap_or_default();
                        matches.insert(format!("{protocol}{prefix}"));
                    }
                }
                Remote::Group(_) | Remote::AddressGroup(_) => {
                    self.conjunctions += 1;
                    let id = self.conjunctions;
                    let members = prefixes.iter().map(|prefix| format!("ip,{remote}={prefix}"));
                    for part in members {
                        parts.entry(part).or_default().push(format!("conjunction({id},1/2)"));
                    }
                    for part in protocols {
                        parts.entry(part).or_default().push(format!("conjunction({id},2/2)"));
                    }
                    self.flow(table, 60, &format!("{side}conj_id={id},ip"), actions);
                }
            }
        }
        for one in matches {
            self.flow(table, 50, &format!("{side}{one}"), actions);
        }
        for (part, conjunctions) in parts {
            self.flow(table, 60, &format!("{side}{part}"), &conjunctions.join(","));
        }
    }
}

/// What a frame must match to be of a protocol; one match is enough.
fn protocol_matches(protocol: Protocol) -> Vec<String> {
    let with_ports = |name: &str, ports: Ports| match ports {
        Ports::ANY => vec![name.to_owned()],
        _ => masks(ports).into_iter().map(|mask| format!("{name},tp_dst={mask}")).collect(),
    };
    match protocol {
        Protocol::Any => vec!["ip".to_owned()],
        Protocol::Tcp(ports) => with_ports("tcp", ports),
        Protocol::Udp(ports) => with_ports("udp", ports),
        Protocol::Icmp(None) => vec!["icmp".to_owned()],
        Protocol::Icmp(Some((kind, None))) => vec![format!("icmp,icmp_type={kind}")],
        Protocol::Icmp(Some((kind, Some(code)))) => {
            vec![format!("icmp,icmp_type={kind},icmp_code={code}")]
        }
        Protocol::Number(number) => vec![format!("ip,nw_proto={number}")],
    }
}

/// The fewest values with masks that make up a range of ports.
fn masks(ports: Ports) -> Vec<String> {
    let (mut next, last) = (u32::from(ports.first), u32::from(ports.last));
    let mut masks = Vec::new();
    while next <= last {
        // The largest block that begins here and does not reach beyond the end.
        let mut size = if next == 0 { 1 << 16 } else { 1 << next.trailing_zeros() };
        while next + size - 1 > last {
            size /= 2;
        }
        masks.push(match size {
            1 => next.to_string(),
            _ => format!("{next:#x}/{:#x}", 0x1_0000 - size),
        });
        next += size;
    }
    masks
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::machine::Cores;
    use crate::scenario::Scenario;

    #[test]
    fn a_range_is_made_up_exactly() {
        for (first, last) in [(80, 80), (1, 65_535), (0, 65_535), (1000, 1999), (65_535, 65_535)] {
            let masks: Vec<(u32, u32)> = masks(Ports { first, last })
                .iter()
                .map(|text| match text.split_once('/') {
                    Some((value, mask)) => {
                        let number = |text: &str| u32::from_str_radix(&text[2..], 16);
                        (number(value).expect("a value"), number(mask).expect("a mask"))
                    }
                    None => (text.parse().expect("a port"), 0xffff),
                })
                .collect();
            for port in 0..=65_535 {
                let hits = masks.iter().filter(|(value, mask)| port & mask == *value).count();
                let within = u32::from(first) <= port && port <= u32::from(last);
                assert_eq!(hits, usize::from(within), "port {port} of {first}-{last}");
            }
        }
    }

    #[test]
    fn each_rule_has_its_flows_and_no_match_stands_twice() {
        let scenario = Scenario { rules: 1_000, ..Scenario::one_way("x", 64) };
        let cores = Cores { generator: 0, switch: 1 };
        let bed = Bed { directory: Path::new("/d"), cores, scenario: &scenario, ports: 2 };
        for conntrack in [false, true] {
            let text = flows(&bed, conntrack);
            let mut matches: Vec<_> =
                text.lines().map(|line| line.split(",actions=").next().expect("a match")).collect();
            let count = matches.len();
            matches.sort_unstable();
            matches.dedup();
            assert_eq!(matches.len(), count);
            let own = |line: &&str| line.starts_with("table=1,") && line.contains("in_port=1,");
            assert!(text.lines().filter(own).count() > 1_000);
            assert!(text.contains("in_port=2,dl_src=02:02:00:00:00:00,ip,nw_src=10.4.0.0/32,"));
            assert_eq!(text.contains("ct(commit,zone=1),output:2"), conntrack);
        }
    }
}
