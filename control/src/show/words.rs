//! A rule in words.

use crate::model::{Direction, Ethertype, GroupNames, Protocol, Remote, Rule};

/// What a rule is about: `TCP to port 80 from 10.0.0.0/8`.
pub(crate) fn rule(rule: &Rule, names: &dyn GroupNames) -> String {
    let mut words = match rule.protocol {
        None => match rule.ethertype {
            None => "all of IPv4 and IPv6".to_owned(),
            Some(Ethertype::Ipv4) => "all of IPv4".to_owned(),
            Some(Ethertype::Ipv6) => "all of IPv6".to_owned(),
        },
        Some(protocol) => {
            let version = match rule.ethertype {
                Some(version) if !protocol.is_icmp() && rule.remote.is_none() => match version {
                    Ethertype::Ipv4 => "IPv4 ",
                    Ethertype::Ipv6 => "IPv6 ",
                },
                _ => "",
            };
            format!("{version}{}", protocol_name(protocol))
        }
    };
    if let Some(ports) = rule.ports {
        let noun = if ports.first() == ports.last() { "port" } else { "ports" };
        words += &format!(" to {noun} {ports}");
    }
    if let Some(kind) = rule.icmp_type {
        words += &format!(" of type {kind}");
        words += icmp_name(rule.protocol, kind);
    }
    if let Some(code) = rule.icmp_code {
        words += &format!(", code {code}");
    }
    let way = match rule.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let named = |remote, uuid: String| names.name(remote).unwrap_or(uuid);
    words
        + &match rule.remote {
            None => format!(" {way} anybody"),
            Some(Remote::Prefix(prefix)) => format!(" {way} {prefix}"),
            Some(remote @ Remote::Group(id)) => {
                format!(" {way} the members of group {}", named(remote, id.to_string()))
            }
            Some(remote @ Remote::AddressGroup(id)) => {
                format!(" {way} the addresses of group {}", named(remote, id.to_string()))
            }
        }
}

fn protocol_name(protocol: Protocol) -> String {
    let name = protocol.to_string();
    match protocol {
        Protocol::ICMPV6 => "ICMPv6".to_owned(),
        Protocol::UDPLITE => "UDP-Lite".to_owned(),
        _ if name.bytes().all(|byte| byte.is_ascii_digit()) => format!("protocol {name}"),
        _ => name.to_ascii_uppercase(),
    }
}

/// The types that people know by name.
fn icmp_name(protocol: Option<Protocol>, kind: u8) -> &'static str {
    match (protocol, kind) {
        (Some(Protocol::ICMP), 0) | (Some(Protocol::ICMPV6), 129) => " (echo reply)",
        (Some(Protocol::ICMP), 8) | (Some(Protocol::ICMPV6), 128) => " (echo request)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Desired;

    #[test]
    fn rules_read_as_sentences_do() {
        for (line, words) in [
            ("ingress any", "all of IPv4 and IPv6 from anybody"),
            ("egress ipv6 any", "all of IPv6 to anybody"),
            ("ingress tcp 80 from 10.0.0.0/8", "TCP to port 80 from 10.0.0.0/8"),
            ("ingress ipv4 udp 80-90", "IPv4 UDP to ports 80-90 from anybody"),
            ("egress icmp 8", "ICMP of type 8 (echo request) to anybody"),
            ("egress icmpv6 1/4", "ICMPv6 of type 1, code 4 to anybody"),
            ("egress protocol 89 to ::/0", "OSPF to ::/0"),
            ("egress protocol 253", "protocol 253 to anybody"),
        ] {
            let rule: Rule = line.parse().expect(line);
            assert_eq!(super::rule(&rule, &Desired::default()), words, "{line}");
        }
    }
}
