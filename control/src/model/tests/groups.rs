//! Groups, rules, and what ports say of addresses: what is written, and the exact words that come
//! back; and groups among ports.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::*;
use super::objects::{refused, words};
use super::{GROUP, GROUP2, Host, NET, PORT, PORT2, guest, messages, raw};

fn rule(value: Value) -> Result<Rule, Vec<String>> {
    let text = json!({"rules": [value]}).to_string();
    let group = SecurityGroup::from_json(text.as_bytes()).map_err(words)?;
    let written = crate::model::json(&group).to_string();
    assert_eq!(SecurityGroup::from_json(written.as_bytes()), Ok(group.clone()), "{written}");
    Ok(group.rules[0].clone())
}

#[test]
fn good_rules_are_read_and_come_back() {
    let ingress = Rule::new(Direction::Ingress);
    let prefix = |text: &str| Some(Remote::Prefix(text.parse().expect("a prefix")));
    let (four, six) = (Some(Ethertype::Ipv4), Some(Ethertype::Ipv6));
    let protocol = |protocol| Some(protocol);
    for (value, expected) in [
        (json!({"direction": "ingress"}), ingress.clone()),
        (json!({"direction": "egress"}), Rule::new(Direction::Egress)),
        (
            json!({"direction": "ingress", "protocol": "tcp", "ports": 80, "name": "web",
                   "remote_prefix": "10.0.0.0/8", "priority": 7}),
            Rule {
                name: "web".parse().ok(),
                ethertype: four,
                protocol: protocol(Protocol::TCP),
                ports: PortRange::new(80, 80),
                remote: prefix("10.0.0.0/8"),
                priority: 7,
                ..ingress.clone()
            },
        ),
        (
            json!({"direction": "ingress", "protocol": 17, "ports": "8000-8999",
                   "remote_group": GROUP, "action": "deny"}),
            Rule {
                protocol: protocol(Protocol::UDP),
                ports: PortRange::new(8000, 8999),
                remote: Some(Remote::Group(GROUP.parse().expect("a UUID"))),
                action: Action::Deny,
                ..ingress.clone()
            },
        ),
        (
            json!({"direction": "ingress", "protocol": "132", "ports": "80",
                   "remote_address_group": GROUP}),
            Rule {
                protocol: protocol(Protocol::SCTP),
                ports: PortRange::new(80, 80),
                remote: Some(Remote::AddressGroup(GROUP.parse().expect("a UUID"))),
                ..ingress.clone()
            },
        ),
        // What a rule leaves open, and the rest of it decides.
        (
            json!({"direction": "ingress", "protocol": "icmp", "icmp_type": 0, "icmp_code": 0}),
            Rule {
                ethertype: four,
                protocol: protocol(Protocol::ICMP),
                icmp_type: Some(0),
                icmp_code: Some(0),
                ..ingress.clone()
            },
        ),
        (
            json!({"direction": "ingress", "protocol": "icmp", "ethertype": "ipv6"}),
            Rule { ethertype: six, protocol: protocol(Protocol::ICMPV6), ..ingress.clone() },
        ),
        (
            json!({"direction": "ingress", "protocol": 1, "remote_prefix": "2001:db8::/32"}),
            Rule {
                ethertype: six,
                protocol: protocol(Protocol::ICMPV6),
                remote: prefix("2001:db8::/32"),
                ..ingress.clone()
            },
        ),
        (
            json!({"direction": "ingress", "protocol": "ipv6-icmp", "icmp_type": 128}),
            Rule {
                ethertype: six,
                protocol: protocol(Protocol::ICMPV6),
                icmp_type: Some(128),
                ..ingress.clone()
            },
        ),
        (
            json!({"direction": "ingress", "remote_prefix": "::/0", "ports": null}),
            Rule { ethertype: six, remote: prefix("::/0"), ..ingress.clone() },
        ),
    ] {
        assert_eq!(rule(value.clone()), Ok(expected), "{value}");
    }
}

#[test]
fn bad_rules_are_refused_with_all_that_is_wrong() {
    let such = "write a name such as tcp, udp or icmp, or a number from 0 to 255";
    let no_ports = "name tcp, udp, sctp, dccp or udplite as the protocol, or leave ports out";
    let no_icmp = "name icmp or icmpv6 as the protocol, or leave type and code out";
    let range = "write a port such as 80 or a range such as \"8000-8999\", within 0 to 65535";
    let either = "leave one out; for either of two, write two rules";
    let table: Vec<(Value, Vec<String>)> = vec![
        (json!("ingress"), vec!["`ingress` is not an object; write the fields of a rule".into()]),
        (
            json!({}),
            vec![
                "direction: is missing; write `ingress` (towards the port's owner) or `egress` \
                 (from it)"
                    .into(),
            ],
        ),
        (
            // As Neutron's API has them.
            json!({"direction": "in", "ethertype": "IPv4", "protocol": "http", "ports": 80,
                   "port_range_min": 80}),
            vec![
                "direction: `in` is not known; write `ingress` or `egress`".into(),
                "ethertype: `IPv4` is not known; write `ipv4` or `ipv6`".into(),
                format!("protocol: `http` is not a protocol; {such}"),
                "port_range_min: is not a field of a rule; remove it, or use one of: name, \
                 direction, ethertype, protocol, ports, icmp_type, icmp_code, remote_prefix, \
                 remote_group, remote_address_group, action, priority"
                    .into(),
            ],
        ),
        (
            json!({"direction": "ingress", "protocol": "any"}),
            vec!["protocol: `any` is not a protocol; leave the protocol out to mean any".into()],
        ),
        (
            json!({"direction": "ingress", "protocol": 256}),
            vec![format!("protocol: 256 is not a protocol; {such}")],
        ),
        (
            json!({"direction": "ingress", "protocol": ["tcp"]}),
            vec![format!("protocol: a list is not a protocol; {such}")],
        ),
        (
            json!({"direction": "ingress", "ports": 80}),
            vec![format!("ports: the rule names no protocol; {no_ports}")],
        ),
        (
            json!({"direction": "ingress", "protocol": "gre", "ports": 80}),
            vec![format!("ports: `gre` has no ports; {no_ports}")],
        ),
        (
            json!({"direction": "ingress", "protocol": "tcp", "ports": "90-80"}),
            vec!["ports: `90-80` ends before it begins; write \"80-90\"".into()],
        ),
        (
            json!({"direction": "ingress", "protocol": "tcp", "ports": 65536}),
            vec![format!("ports: 65536 is not a port or a range of ports; {range}")],
        ),
        (
            json!({"direction": "ingress", "protocol": "tcp", "ports": [80, 443]}),
            vec![
                "ports: a list is not a port or a range of ports; write one port or range; for \
                 several, write a rule for each"
                    .into(),
            ],
        ),
        (
            json!({"direction": "ingress", "protocol": "tcp", "icmp_type": 8, "icmp_code": 0}),
            vec![
                format!("icmp_type: `tcp` has no types and codes; {no_icmp}"),
                format!("icmp_code: `tcp` has no types and codes; {no_icmp}"),
            ],
        ),
        (
            json!({"direction": "ingress", "icmp_type": 8}),
            vec![format!("icmp_type: the rule names no protocol; {no_icmp}")],
        ),
        (
            json!({"direction": "ingress", "protocol": "icmp", "icmp_code": 0}),
            vec!["icmp_code: a code means nothing without its type; add icmp_type".into()],
        ),
        (
            json!({"direction": "ingress", "protocol": "icmp", "icmp_type": 256}),
            vec!["icmp_type: 256 is too large; write a whole number from 0 to 255".into()],
        ),
        (
            json!({"direction": "ingress", "ethertype": "ipv4", "remote_prefix": "::/0"}),
            vec![
                "ethertype: ::/0 is not of `ipv4`; write `ipv6`, or leave it out: the prefix says \
                 it"
                .into(),
            ],
        ),
        (
            json!({"direction": "ingress", "protocol": "icmpv6", "ethertype": "ipv4"}),
            vec!["protocol: `icmpv6` is not a protocol of `ipv4`; write `icmp`, or `ipv6`".into()],
        ),
        (
            json!({"direction": "ingress", "protocol": "icmpv6", "remote_prefix": "10.0.0.0/8"}),
            vec!["protocol: `icmpv6` is not a protocol of `ipv4`; write `icmp`, or `ipv6`".into()],
        ),
        (
            json!({"direction": "ingress", "remote_prefix": "10.0.0.1/8", "remote_group": GROUP,
                   "remote_address_group": "x"}),
            vec![
                format!(
                    "remote_group: stands beside remote_prefix, and a rule has one remote; {either}"
                ),
                format!(
                    "remote_address_group: stands beside remote_prefix, and a rule has one remote; \
                     {either}"
                ),
                "remote_prefix: `10.0.0.1/8` has bits set beyond its length; write 10.0.0.0/8 for \
                 the prefix, or 10.0.0.1 for the address"
                    .into(),
                "remote_address_group: `x` is not a UUID; write a UUID such as \
                 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
                    .into(),
            ],
        ),
        (
            json!({"direction": "ingress", "action": "drop", "priority": 65536}),
            vec![
                "action: `drop` is not known; write `permit` or `deny`".into(),
                "priority: 65536 is too large; write a whole number from 0 to 65535".into(),
            ],
        ),
    ];
    for (value, messages) in table {
        let place = |message: &String| match message.split_once(": ") {
            Some((field, _)) if !field.contains(' ') => format!("x: rules[0].{message}"),
            _ => format!("x: rules[0]: {message}"),
        };
        let messages: Vec<String> = messages.iter().map(place).collect();
        assert_eq!(rule(value.clone()), Err(messages), "{value}");
    }
}

#[test]
fn groups_are_read_with_all_that_is_wrong() {
    let group = SecurityGroup::from_json(b"{}").expect("no rules");
    assert_eq!(group, SecurityGroup::default());
    assert_eq!(group.return_traffic, ReturnTraffic::Established);
    let group = SecurityGroup::from_json(br#"{"name":"web","return_traffic":"none","rules":[]}"#);
    assert_eq!(group.expect("good").return_traffic, ReturnTraffic::None);
    refused(
        SecurityGroup::from_json,
        &[
            ("", &["x: is empty; write a security group as a JSON object"]),
            (
                r#"{"return_traffic":"stateful","rules":{},"stateful":true}"#,
                &[
                    "x: return_traffic: `stateful` is not known; write `established` or `none`",
                    "x: rules: an object is not a list; write a list in square brackets",
                    "x: stateful: is not a field of a security group; remove it, or use one of: \
                     name, return_traffic, rules",
                ],
            ),
        ],
    );
    refused(
        GroupMember::from_json,
        &[(
            r#"{"addresses":["10.0.0.1/8",7],"name":"x"}"#,
            &[
                "x: addresses[0]: `10.0.0.1/8` has bits set beyond its length; write 10.0.0.0/8 \
                 for the prefix, or 10.0.0.1 for the address",
                "x: addresses[1]: 7 is not text; write an address such as 10.0.0.5, or a prefix \
                 such as 10.0.0.0/8 or 2001:db8::/32",
                "x: name: is not a field of a member of a group; remove it, or use one of: \
                 addresses",
            ],
        )],
    );
    // A set is the same in whatever order it is written, and however often.
    let set = |text: &str| AddressGroup::from_json(text.as_bytes()).expect("good");
    assert_eq!(
        set(r#"{"addresses":["::1","10.0.0.1","10.0.0.0/8","10.0.0.1/32"]}"#),
        set(r#"{"addresses":["10.0.0.0/8","10.0.0.1","::1"]}"#)
    );
}

#[test]
fn of_very_much_that_is_wrong_some_is_told() {
    let rules = vec![json!({"direction": "up"}); 10_000];
    let text = json!({"rules": rules}).to_string();
    let told = words(SecurityGroup::from_json(text.as_bytes()).expect_err("all of it is wrong"));
    assert_eq!(told.len(), 101);
    assert_eq!(
        told[100],
        "x: rules: was not read beyond rules[99]: too much is wrong; correct what is told first"
    );
}

#[test]
fn ports_are_refused_for_what_they_say_of_addresses_and_groups() {
    let station = "write an address such as 10.0.0.5 or 2001:db8::5";
    let uuid = "11111111-1111-4111-8111-111111111111";
    let port = |more: Value| {
        let mut port = json!({"network": uuid, "kind": "vhost-user", "socket": "a",
                              "mac": "52:54:00:00:00:01"});
        let fields = port.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        port.to_string()
    };
    let ips = |count: usize| -> Vec<String> { (0..count).map(|i| format!("10.0.0.{i}")).collect() };
    let groups: Vec<String> =
        (0..33).map(|i| format!("cccccccc-cccc-4ccc-8ccc-0000000000{i:02}")).collect();
    let pairs: Vec<Value> = ips(65).into_iter().map(|ip| json!({"ip": ip})).collect();
    let table = [
        (
            json!({"fixed_ips": ["10.0.0.5/24", "224.0.0.1", "10.0.0.5", "10.0.0.5"]}),
            vec![
                "fixed_ips[0]: `10.0.0.5/24` is not an IP address; write 10.0.0.5, without the \
                 length of a prefix"
                    .to_owned(),
                format!(
                    "fixed_ips[1]: 224.0.0.1 is the address of a group and cannot belong to one \
                     port; {station}"
                ),
            ],
        ),
        (
            json!({"fixed_ips": ["10.0.0.5", "10.0.0.6", "10.0.0.5"]}),
            vec!["fixed_ips[2]: 10.0.0.5 is listed twice; remove one of the two".to_owned()],
        ),
        (
            json!({"fixed_ips": ips(65)}),
            vec!["fixed_ips: has 65 addresses; keep to 64 at most".into()],
        ),
        (
            json!({"allowed_address_pairs": [{}, {"ip_address": "10.0.0.1"},
                   {"ip": "10.0.0.1/8", "mac": "01:00:5e:00:00:01"}, {"ip": "ff02::/16"}, "x"]}),
            vec![
                "allowed_address_pairs[0].ip: is missing; write the address or prefix that the \
                 port may send from"
                    .to_owned(),
                "allowed_address_pairs[1].ip: is missing; write the address or prefix that the \
                 port may send from"
                    .to_owned(),
                "allowed_address_pairs[1].ip_address: is not a field of a pair; remove it, or use \
                 one of: ip, mac"
                    .to_owned(),
                "allowed_address_pairs[2].ip: `10.0.0.1/8` has bits set beyond its length; write \
                 10.0.0.0/8 for the prefix, or 10.0.0.1 for the address"
                    .to_owned(),
                "allowed_address_pairs[2].mac: 01:00:5e:00:00:01 is a group address and cannot \
                 belong to one port; write an address whose first octet is even"
                    .to_owned(),
                "allowed_address_pairs[3].ip: ff02::/16 is the address of a group, from which \
                 nobody sends; write addresses of stations"
                    .to_owned(),
                "allowed_address_pairs[4]: `x` is not an object; write the fields of a pair"
                    .to_owned(),
            ],
        ),
        (
            json!({"allowed_address_pairs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1/32"},
                   {"ip": "10.0.0.1", "mac": "00:00:5e:00:01:01"}]}),
            vec![
                "allowed_address_pairs[1]: 10.0.0.1 is listed twice; remove one of the two".into(),
            ],
        ),
        (
            json!({"allowed_address_pairs": pairs}),
            vec!["allowed_address_pairs: has 65 pairs; keep to 64 at most".into()],
        ),
        (
            json!({"security_groups": ["web", groups[0], groups[0]]}),
            vec![
                "security_groups[0]: `web` is not a UUID; write a UUID such as \
                 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
                    .to_owned(),
            ],
        ),
        (
            json!({"security_groups": [groups[0], groups[0]]}),
            vec![format!(
                "security_groups[1]: {} is listed twice; remove one of the two",
                groups[0]
            )],
        ),
        (
            json!({"security_groups": groups}),
            vec!["security_groups: has 33 groups; keep to 32 at most".to_owned()],
        ),
        (
            json!({"security_groups": [groups[0]], "port_security": false}),
            vec![
                "security_groups: groups do nothing without port security; set port_security to \
                 true (which needs a mac), or remove the groups"
                    .to_owned(),
            ],
        ),
        (
            json!({"port_security": "no"}),
            vec![
                "port_security: `no` is neither true nor false; write true or false, without \
                 quotes"
                    .to_owned(),
            ],
        ),
    ];
    for (more, messages) in table {
        let text = port(more);
        let messages: Vec<String> =
            messages.iter().map(|message| format!("x: {message}")).collect();
        assert_eq!(words(Port::from_json(text.as_bytes()).expect_err(&text)), messages, "{text}");
    }
    refused(
        Port::from_json,
        &[
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"ethdev",
                    "device":"net_tap0","port_security":true}"#,
                &["x: port_security: a port without `mac` cannot have port security; add the \
                     `mac` of the station behind it, or set false"],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"ethdev",
                    "device":"net_tap0",
                    "security_groups":["cccccccc-cccc-4ccc-8ccc-cccccccccccc"]}"#,
                &["x: security_groups: groups do nothing without port security; set \
                     port_security to true (which needs a mac), or remove the groups"],
            ),
        ],
    );
}

#[test]
fn groups_that_are_not_there_are_waited_for() {
    let host = Host::new();
    let (net, port) = (format!("networks/{NET}"), format!("nodes/h/ports/{PORT}"));
    let (group, other) = (format!("security-groups/{GROUP}"), format!("security-groups/{GROUP2}"));
    let addresses = format!("address-groups/{GROUP}");
    let member = format!("group-members/{GROUP2}/{PORT2}");
    let mut secured = guest(NET, "a", 1);
    secured["security_groups"] = json!([GROUP, GROUP2]);
    let rules = json!({"rules": [
        {"direction": "ingress", "remote_group": GROUP2},
        {"direction": "ingress", "remote_address_group": GROUP},
        {"direction": "egress", "remote_address_group": GROUP},
    ]});
    let mut values = vec![
        (net.as_str(), json!({"type": "local"})),
        (&port, secured),
        (&group, rules),
        (&other, json!({"rules": 5})),
        (&member, json!({"addresses": ["10.0.0.7"]})),
    ];
    let first = Desired::build(&raw(&values), host.site());
    assert_eq!(
        messages(&first),
        [
            format!("{other}: rules: 5 is not a list; write a list in square brackets"),
            format!(
                "{port}: security_groups[1]: {other} is not in force; correct what is reported for \
                 that group; until then nothing passes this port"
            ),
            format!(
                "{group}: rules[1].remote_address_group: {addresses} is not there; correct the \
                 UUID, or add that group; until then nothing passes the ports of this group"
            ),
        ]
    );
    // What waits is in force all the same, and nothing about it is refused or kept.
    assert_eq!(first.ports.len(), 1);
    assert!(first.warnings.values().flatten().all(|warning| !warning.is_error()));
    let key = port.parse().expect("a key");
    assert!(!first.problems.contains_key(&key) && first.refused_ports(&host.name).count() == 0);
    let members = &first.group_members[&GROUP2.parse().expect("a UUID")];
    assert_eq!(members.len(), 1);

    values[3].1 = json!({"rules": []});
    values.push((&addresses, json!({"addresses": ["10.0.0.0/8"]})));
    let second = first.rebuild(&raw(&values), host.site());
    assert_eq!(messages(&second), [] as [&str; 0]);
    assert_eq!((second.security_groups.len(), second.address_groups.len()), (2, 1));

    // A bad value keeps the former one, of groups as of ports.
    values[2].1 = json!({"rules": [{}]});
    values[4].1 = json!({"addresses": "10.0.0.8"});
    values[5].1 = json!("{");
    let third = second.rebuild(&raw(&values), host.site());
    assert_eq!(third.security_groups, second.security_groups);
    assert_eq!(third.address_groups, second.address_groups);
    assert_eq!(third.group_members, second.group_members);
    assert_eq!(third.problems.len(), 3);
    for message in messages(&third) {
        assert!(message.ends_with(" (the value read before stays in force)"), "{message}");
    }
    let gone = third.rebuild(&raw(&values[..2]), host.site());
    assert!(gone.security_groups.is_empty() && gone.group_members.is_empty());
    assert_eq!(gone.warnings.len(), 1);
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let host = Host::new();
    let (one, two) = (format!("security-groups/{GROUP}"), format!("security-groups/{GROUP2}"));
    let rules =
        |port: u16| json!({"rules": [{"direction": "ingress", "protocol": "tcp", "ports": port}]});
    let id = |text: &str| -> SecurityGroupUuid { text.parse().expect("a UUID") };
    let values = raw(&[(&one, rules(80)), (&two, rules(81))]);
    let first = Desired::build(&values, host.site());
    let second = first.rebuild(&raw(&[(&one, rules(80)), (&two, rules(82))]), host.site());
    let same = |uuid: &str| {
        Arc::ptr_eq(&first.security_groups[&id(uuid)], &second.security_groups[&id(uuid)])
    };
    assert!(same(GROUP) && !same(GROUP2));
    // The same for another host, which has nothing in force yet.
    let elsewhere = first.clone().cleared();
    assert_eq!(elsewhere, Desired::default());
    let elsewhere = elsewhere.rebuild(&values, host.site());
    assert!(Arc::ptr_eq(
        &first.security_groups[&id(GROUP)],
        &elsewhere.security_groups[&id(GROUP)]
    ));
}
