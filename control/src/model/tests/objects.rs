//! Tables of single objects: what is written, and the exact words that come back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::*;
use super::{GROUP, NET};
use crate::documented::{assert_documented, blocks};
use crate::problem::Fault;

pub fn words(faults: Vec<Fault>) -> Vec<String> {
    let problems = faults.into_iter().map(|fault| fault.at("x"));
    problems.inspect(assert_documented).map(|problem| problem.to_string()).collect()
}

/// Each text, and all that is said about it.
pub fn refused<T: std::fmt::Debug>(
    read: fn(&[u8]) -> Result<T, Vec<Fault>>,
    table: &[(&str, &[&str])],
) {
    for (text, messages) in table {
        let found = words(read(text.as_bytes()).expect_err(text));
        assert_eq!(found, *messages, "{text}");
    }
}

#[test]
fn good_networks_are_read_and_come_back() {
    let physnet: PhysnetName = "p".parse().expect("a name");
    let vlan = Segment::Vlan { physnet: physnet.clone(), vlan: "100".parse().expect("a VLAN") };
    for (text, network) in [
        (r#"{"type":"vlan","physnet":"p","vlan":100}"#, Network::new(vlan.clone())),
        (r#"{"type":"flat","physnet":"p"}"#, Network::new(Segment::Flat { physnet })),
        (r#"{"type":"local"}"#, Network::new(Segment::Local)),
        (
            r#"{"type":"vlan","physnet":"p","vlan":100,"name":"blue","mtu":9000,
                "learning":false,"flooding":false,"follow_uplink":true}"#,
            Network {
                name: "blue".parse().ok(),
                segment: vlan,
                mtu: 9000,
                learning: false,
                flooding: false,
                follow_uplink: true,
            },
        ),
        (r#"{"type":"local","name":null}"#, Network::new(Segment::Local)),
    ] {
        assert_eq!(Network::from_json(text.as_bytes()), Ok(network.clone()), "{text}");
        let written = crate::model::json(&network).to_string();
        assert_eq!(Network::from_json(written.as_bytes()), Ok(network), "{written}");
    }
}

#[test]
fn bad_networks_are_refused_with_all_that_is_wrong() {
    refused(
        Network::from_json,
        &[
            ("", &["x: is empty; write a network as a JSON object"]),
            (" \n", &["x: is empty; write a network as a JSON object"]),
            (
                "{\"type\":\n\"local\"",
                &[
                    "x: is not JSON: EOF while parsing an object at line 2 column 7; correct the text \
               there",
                ],
            ),
            (
                "{\"type\":\"local\",}",
                &["x: is not JSON: trailing comma at line 1 column 17; correct the text there"],
            ),
            ("[]", &["x: a list is not an object; write the fields of a network"]),
            ("5", &["x: 5 is not an object; write the fields of a network"]),
            ("{}", &["x: type: is missing; write `vlan`, `flat` or `local`"]),
            (
                r#"{"type":"vxlan","vlan":5}"#,
                &["x: type: `vxlan` is not known; write `vlan` or `flat` or `local`"],
            ),
            (
                r#"{"type":"vlan"}"#,
                &[
                    "x: physnet: is missing; write the name of a physnet of the host's configuration",
                    "x: vlan: is missing; write the VLAN's number, 1 to 4094",
                ],
            ),
            (
                r#"{"type":"vlan","physnet":"p","vlan":5000}"#,
                &["x: vlan: 5000 is too large; write a whole number from 1 to 4094"],
            ),
            (
                r#"{"type":"vlan","physnet":"a b","vlan":"100","mtu":10,"learning":"no","colour":1}"#,
                &[
                    "x: physnet: `a b` is not the name of a physnet; write 1 to 63 letters, digits, \
                 `.`, `_` or `-`, the first a letter or digit",
                    "x: vlan: `100` is not a whole number; write a whole number from 1 to 4094",
                    "x: mtu: 10 is too small; write a whole number from 68 to 65535",
                    "x: learning: `no` is neither true nor false; write true or false, without quotes",
                    "x: colour: is not a field of a network of type `vlan`; remove it, or use one of: \
                 name, type, physnet, vlan, mtu, learning, flooding, follow_uplink",
                ],
            ),
            (
                r#"{"type":"flat","physnet":"p","vlan":0}"#,
                &[
                    "x: vlan: is not a field of a network of type `flat`; remove it, or use one of: \
               name, type, physnet, mtu, learning, flooding, follow_uplink",
                ],
            ),
            (
                r#"{"type":"local","physnet":"p","mtu":1.5,"name":7}"#,
                &[
                    "x: name: 7 is not text; write 1 to 255 printable characters",
                    "x: mtu: 1.5 is not a whole number; write a whole number from 68 to 65535",
                    "x: physnet: is not a field of a network of type `local`; remove it, or use one \
                 of: name, type, mtu, learning, flooding, follow_uplink",
                ],
            ),
            (
                r#"{"type":"local","follow_uplink":true}"#,
                &[
                    "x: follow_uplink: a network of type `local` has no uplink to follow; remove it, or \
                   put the network on a physnet",
                ],
            ),
            (
                r#"{"type":"local","mtu":-5}"#,
                &["x: mtu: -5 is too small; write a whole number from 68 to 65535"],
            ),
        ],
    );
}

#[test]
fn good_ports_are_read_and_come_back() {
    let network: NetworkUuid = NET.parse().expect("a UUID");
    let mac: Mac = "52:54:00:00:00:01".parse().expect("a MAC");
    let guest = |socket: &str, mode, queues| {
        let socket = socket.parse().expect("a socket");
        Port::new(network, Attachment::VhostUser { mac, socket, mode, queues })
    };
    let device = |mac: Option<Mac>| {
        let device = "net_tap0,iface=t".parse().expect("one");
        Port {
            name: "wire".parse().ok(),
            admin_up: false,
            cores: vec![2, 3],
            port_security: mac.is_some(),
            ..Port::new(network, Attachment::Ethdev { mac, device })
        }
    };
    let address = |text: &str| text.parse().expect("an address");
    let tap = |mac: Option<Mac>, bridge: Option<(&str, &str)>| {
        let name = |text: &str| text.parse().expect("a name");
        let bridge =
            bridge.map(|(bridge, member)| TapBridge { name: name(bridge), member: name(member) });
        Port::new(network, Attachment::Tap { mac, interface: name("vpp1a2b3c4d-5e"), bridge })
    };
    assert!(!tap(Some(mac), None).port_security, "services answer for others");
    for (text, port) in [
        (r#"{"network":"NET","kind":"tap","interface":"vpp1a2b3c4d-5e"}"#, tap(None, None)),
        (
            r#"{"network":"NET","kind":"tap","interface":"vpp1a2b3c4d-5e","mac":"52:54:00:00:00:01",
                "bridge":{"name":"br-1a2b3c4d-5e","member":"tap1a2b3c4d-5e"}}"#,
            tap(Some(mac), Some(("br-1a2b3c4d-5e", "tap1a2b3c4d-5e"))),
        ),
        (
            r#"{"network":"NET","kind":"tap","interface":"vpp1a2b3c4d-5e","mac":"52:54:00:00:00:01",
                "port_security":true,"security_groups":["GROUP"]}"#,
            Port {
                port_security: true,
                security_groups: vec![GROUP.parse().expect("a UUID")],
                ..tap(Some(mac), None)
            },
        ),
        (
            r#"{"network":"NET","kind":"vhost-user","socket":"a.sock","mac":"52:54:00:00:00:01"}"#,
            guest("a.sock", SocketMode::Client, 1),
        ),
        (
            r#"{"network":"NET","kind":"vhost-user","socket":"/run/vm/a.sock","mode":"server",
                "queues":4,"mac":"52:54:00:00:00:01"}"#,
            guest("/run/vm/a.sock", SocketMode::Server, 4),
        ),
        (
            r#"{"network":"NET","kind":"ethdev","device":"net_tap0,iface=t","name":"wire",
                "admin_up":false,"cores":[2,3]}"#,
            device(None),
        ),
        (
            r#"{"network":"NET","kind":"ethdev","device":"net_tap0,iface=t","name":"wire",
                "admin_up":false,"cores":[2,3],"mac":"52:54:00:00:00:01"}"#,
            device(Some(mac)),
        ),
        (
            r#"{"network":"NET","kind":"vhost-user","socket":"a.sock","mac":"52:54:00:00:00:01",
                "fixed_ips":["10.0.0.5","2001:db8::5"],"allowed_address_pairs":[
                {"ip":"10.0.0.100"},{"ip":"10.1.0.0/16","mac":"00:00:5e:00:01:01"}],
                "security_groups":["GROUP"]}"#,
            Port {
                fixed_ips: vec![address("10.0.0.5"), address("2001:db8::5")],
                allowed_address_pairs: vec![
                    AddressPair { ip: "10.0.0.100".parse().expect("an address"), mac: None },
                    AddressPair {
                        ip: "10.1.0.0/16".parse().expect("a prefix"),
                        mac: "00:00:5e:00:01:01".parse().ok(),
                    },
                ],
                security_groups: vec![GROUP.parse().expect("a UUID")],
                ..guest("a.sock", SocketMode::Client, 1)
            },
        ),
        (
            r#"{"network":"NET","kind":"vhost-user","socket":"a.sock","mac":"52:54:00:00:00:01",
                "port_security":false,"fixed_ips":["10.0.0.5"]}"#,
            Port {
                port_security: false,
                fixed_ips: vec![address("10.0.0.5")],
                ..guest("a.sock", SocketMode::Client, 1)
            },
        ),
        (
            r#"{"network":"NET","kind":"vhost-user","socket":"a.sock","mac":"52:54:00:00:00:01",
                "mirror":{"to":"GROUP","direction":"egress","filter":"tcp port 80"}}"#,
            Port {
                mirror: Some(Mirror {
                    to: GROUP.parse().expect("a UUID"),
                    direction: Some(Direction::Egress),
                    filter: "tcp port 80".parse().ok(),
                }),
                ..guest("a.sock", SocketMode::Client, 1)
            },
        ),
    ] {
        let text = text.replace("NET", NET).replace("GROUP", GROUP);
        assert_eq!(Port::from_json(text.as_bytes()), Ok(port.clone()), "{text}");
        let written = crate::model::json(&port).to_string();
        assert_eq!(Port::from_json(written.as_bytes()), Ok(port), "{written}");
    }
}

#[test]
fn bad_ports_are_refused_with_all_that_is_wrong() {
    let long = "s".repeat(108);
    let long_socket = format!(
        r#"{{"network":"{NET}","kind":"vhost-user","mac":"52:54:00:00:00:01","socket":"{long}"}}"#
    );
    let long_message = format!(
        "x: socket: `{long}` is 108 octets long; choose a socket path of at most 107 octets: the \
         kernel takes no more"
    );
    refused(
        Port::from_json,
        &[
            (
                "{}",
                &[
                    "x: network: is missing; write the UUID of the network that the port is on",
                    "x: kind: is missing; write `vhost-user`, `ethdev`, `tap` or `vf-direct`",
                ],
            ),
            (
                r#"{"network":"00000000-0000-4000-8000-000000000001","kind":"ethdev",
                    "device":"net_tap0","cores":[2,-1,2]}"#,
                &["x: cores[1]: -1 is too small; write a whole number from 0 to 65535"],
            ),
            (
                r#"{"network":"00000000-0000-4000-8000-000000000001","kind":"ethdev",
                    "device":"net_tap0","cores":[2,3,2]}"#,
                &["x: cores[2]: CPU 2 is listed twice; list each CPU once"],
            ),
            (
                r#"{"network":"00000000-0000-4000-8000-000000000001","kind":"ethdev",
                    "device":"net_tap0","cores":[]}"#,
                &["x: cores: no CPU is listed; list at least one, or remove the line"],
            ),
            (
                r#"{"network":"blue","kind":"vf"}"#,
                &[
                    "x: network: `blue` is not a UUID; write a UUID such as \
                 6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d",
                    "x: kind: `vf` is not known; write `vhost-user` or `ethdev` or `tap` or `vf-direct`",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"vhost-user"}"#,
                &[
                    "x: mac: is missing; write the guest's MAC address",
                    "x: socket: is missing; write a name under the socket directory, or an absolute \
                 path",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"vhost-user",
                "mac":"01:00:5e:00:00:01","socket":"../a","mode":"both","queues":17,
                "device":"net_tap0","security_group":[]}"#,
                &[
                    "x: mac: 01:00:5e:00:00:01 is a group address and cannot belong to one port; write \
                 an address whose first octet is even",
                    "x: socket: `../a` is not the path of a socket; write a name such as guest1.sock, \
                 or an absolute path, without `.` and `..` in it",
                    "x: mode: `both` is not known; write `client` or `server`",
                    "x: queues: 17 is too large; write a whole number from 1 to 16",
                    "x: device: is not a field of a port of kind `vhost-user`; remove it, or use one \
                 of: name, network, kind, mac, socket, mode, queues, admin_up, cores, port_security, \
                 fixed_ips, allowed_address_pairs, security_groups, mirror",
                    "x: security_group: is not a field of a port of kind `vhost-user`; remove it, or \
                 use one of: name, network, kind, mac, socket, mode, queues, admin_up, cores, \
                 port_security, fixed_ips, allowed_address_pairs, security_groups, mirror",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"ethdev",
                "device":"","queues":2}"#,
                &[
                    "x: device: `` does not name a DPDK device; write a PCI address such as \
                 0000:01:10.0, a virtual function such as ens1f0/3, or a virtual device such as \
                 net_af_packet0,iface=eth1",
                    "x: queues: is not a field of a port of kind `ethdev`; remove it, or use one of: \
                 name, network, kind, mac, device, admin_up, cores, port_security, fixed_ips, \
                 allowed_address_pairs, security_groups, mirror",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"tap",
                "interface":"sixteen_octets__","port_security":true,
                "bridge":{"name":"tap%d","device":"x"}}"#,
                &[
                    "x: interface: `sixteen_octets__` is not the name of an interface; write 1 to 15 \
                 letters, digits, `.`, `_` or `-`, the first a letter, a digit or `_`, and not `all` or \
                 `default`",
                    "x: bridge.member: is missing; write the name of the interface that the bridge \
                 connects to",
                    "x: bridge.name: `tap%d` is not the name of an interface; write 1 to 15 letters, \
                 digits, `.`, `_` or `-`, the first a letter, a digit or `_`, and not `all` or `default`",
                    "x: bridge.device: is not a field of a bridge; remove it, or use one of: name, \
                 member",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"tap",
                "interface":"a","bridge":{"name":"b","member":"a"}}"#,
                &["x: bridge.member: `a` stands for another interface of this port; name another \
                 interface"],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"tap",
                "interface":"a","mirror":{"direction":"up","filter":"sideways","from":1}}"#,
                &[
                    "x: mirror.to: is missing; write the UUID of the port that is sent the copies",
                    "x: mirror.direction: `up` is not known; write `ingress` or `egress`",
                    "x: mirror.filter: `sideways` is not understood; write a filter such as \
                 `tcp port 80 and host 10.0.0.1`",
                    "x: mirror.from: is not a field of a mirror; remove it, or use one of: to, \
                 direction, filter",
                ],
            ),
            (
                r#"{"network":"11111111-1111-4111-8111-111111111111","kind":"tap",
                "interface":"a","port_security":true}"#,
                &[
                    "x: port_security: a port without `mac` cannot have port security; add the `mac` of \
                 the station behind it, or set false",
                ],
            ),
            (&long_socket, &[&long_message]),
        ],
    );
}

#[test]
fn the_documented_examples_are_good() {
    for example in blocks("json") {
        let bytes = example.as_bytes();
        let has = |field: &str| example.contains(&format!("\"{field}\""));
        let read = if has("kind") {
            Port::from_json(bytes).map(drop)
        } else if has("rules") {
            SecurityGroup::from_json(bytes).map(drop)
        } else if has("addresses") && has("name") {
            AddressGroup::from_json(bytes).map(drop)
        } else if has("addresses") {
            GroupMember::from_json(bytes).map(drop)
        } else {
            Network::from_json(bytes).map(drop)
        };
        assert_eq!(read, Ok(()), "{example}");
    }
    assert_eq!(blocks("json").count(), 10);
}

#[test]
fn socket_names_are_one_text_a_socket() {
    for good in ["a.sock", "vm1/net0", "/run/vm/a.sock", &"s".repeat(107)] {
        assert_eq!(good.parse::<SocketName>().expect(good).as_str(), good);
    }
    for bad in ["", "/", ".", "..", "a/", "a//b", "./a", "a/./b", "a/../b", "/a/..", "a\0b", "a\nb"]
    {
        assert!(bad.parse::<SocketName>().is_err(), "{bad:?}");
    }
}

/// The fields that the reader knows, from what it says to one that it does not.
fn known_fields<T: std::fmt::Debug>(
    read: fn(&[u8]) -> Result<T, Vec<Fault>>,
    object: Value,
) -> BTreeSet<String> {
    let faults = read(object.to_string().as_bytes()).expect_err("an unknown field");
    let unknown = faults.iter().find(|fault| fault.field.ends_with("zzz"));
    let unknown = unknown.expect("it is reported");
    let list = unknown.remedy.split_once(": ").expect("a list").1;
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn schemas_have_the_fields_that_are_read() {
    let mut networks = BTreeSet::new();
    for kind in ["vlan", "flat", "local"] {
        networks.extend(known_fields(Network::from_json, json!({"type": kind, "zzz": 1})));
    }
    let mut ports = BTreeSet::new();
    for kind in ["vhost-user", "ethdev", "tap", "vf-direct"] {
        ports.extend(known_fields(Port::from_json, json!({"kind": kind, "zzz": 1})));
    }
    let zzz = json!({"zzz": 1});
    let groups = known_fields(SecurityGroup::from_json, zzz.clone());
    let address_groups = known_fields(AddressGroup::from_json, zzz.clone());
    let members = known_fields(GroupMember::from_json, zzz);
    let rules = known_fields(SecurityGroup::from_json, json!({"rules": [{"zzz": 1}]}));
    let bridge = json!({"kind": "tap", "interface": "a", "bridge": {"zzz": 1}});
    let bridge = known_fields(Port::from_json, bridge);
    let pairs = json!({"kind": "ethdev", "allowed_address_pairs": [{"zzz": 1}]});
    let pairs = known_fields(Port::from_json, pairs);
    for (name, schema) in crate::schema::all() {
        let schema = schema.as_value();
        let mut fields = properties(schema);
        match name {
            "network.json" => assert_eq!(fields, networks),
            "port.json" => {
                fields.extend(properties(&schema["$defs"]["VfDirect"]));
                assert_eq!(fields, ports);
                assert_eq!(properties(&schema["$defs"]["AddressPair"]), pairs);
                assert_eq!(properties(&schema["$defs"]["TapBridge"]), bridge);
            }
            "security-group.json" => {
                assert_eq!(fields, groups);
                assert_eq!(properties(&schema["$defs"]["Rule"]), rules);
            }
            "address-group.json" => assert_eq!(fields, address_groups),
            "group-member.json" => assert_eq!(fields, members),
            _ => {}
        }
    }
}

/// The properties that a schema has in any of its variants.
fn properties(schema: &Value) -> BTreeSet<String> {
    let own = schema["properties"].as_object().into_iter().flat_map(|all| all.keys().cloned());
    let variants = ["oneOf", "anyOf"].into_iter().flat_map(|of| schema[of].as_array());
    own.chain(variants.flatten().flat_map(properties)).collect()
}
