//! Tables: what the driver writes, and what it is in our model. The recordings are of a Neutron with
//! that driver.

use serde_json::json;

use super::super::place;
use super::super::v2::Node;
use super::*;
use crate::config::{ReturnTraffic, Servers};
use crate::documented::assert_documented;
use crate::model::{Desired, Site};

const PORT: &str = "18626f6b-7ea5-4e7f-9441-3c3496caffba";
const GROUP: &str = "bcff0641-52e8-421b-a95c-f8d9377793d1";
const RULES: &str = include_str!("../../../../tests/networking_vpp/recordings/rules.json");

fn settings() -> NetworkingVpp {
    NetworkingVpp {
        servers: Servers {
            endpoints: Vec::new(),
            ca: None,
            certificate: None,
            key: None,
            user: None,
            password_file: None,
            timeout_ms: 1000,
        },
        return_traffic: ReturnTraffic::Established,
        security_groups: true,
        queues: 2,
        mtu: None,
        physnet_mtus: BTreeMap::from([("physnet1".parse().expect("a name"), 9000)]),
    }
}

/// A port as the driver writes it, with these fields in the place of the usual ones.
fn port(changes: Value) -> String {
    let mut port = json!({
        "mac_address": "fa:16:3e:98:02:81", "mtu": 1500, "physnet": "physnet1",
        "network_type": "vlan", "segmentation_id": 165, "binding_type": "vhostuser",
        "security_groups": [], "allowed_address_pairs": [], "fixed_ips": [],
        "port_security_enabled": true, "device_id": "",
    });
    let changes = changes.as_object().cloned().unwrap_or_default();
    port.as_object_mut().expect("an object").extend(changes);
    port.to_string()
}

fn port_of(changes: Value, settings: &NetworkingVpp) -> (Value, Value) {
    let id = PORT.parse().expect("a UUID");
    match port::read(&port(changes), id, settings) {
        Verdict::Good(port) => (parsed(&port.value), parsed(&port.network_value)),
        other => panic!("{other:?}"),
    }
}

fn parsed(value: &[u8]) -> Value {
    serde_json::from_slice(value).expect("what is made here is JSON")
}

fn mirror(values: &[(String, String)]) -> Mirror {
    let mut mirror = Mirror::default();
    let nodes: Vec<Value> = values
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value, "modifiedIndex": 1}))
        .collect();
    let tree = json!({"key": "/networking-vpp", "dir": true, "nodes": nodes});
    mirror.replace("/networking-vpp", serde_json::from_value::<Node>(tree).expect("a tree"));
    mirror
}

#[test]
fn rules_mean_what_neutron_was_told() {
    let recorded: Vec<Value> = serde_json::from_str(RULES).expect("JSON");
    let mut ours = Vec::new();
    for rule in &recorded {
        let mut group = json!({"ingress_rules": [], "egress_rules": []});
        group[rule["list"].as_str().expect("a name")] = json!([rule["etcd_rule"]]);
        match group::read(&group.to_string(), &settings()) {
            Verdict::Good(group) => ours.push(parsed(&group.value)["rules"][0].clone()),
            other => panic!("{rule}: {other:?}"),
        }
    }
    let in4 = |rest: Value| with(json!({"direction": "ingress", "ethertype": "ipv4"}), rest);
    let in6 = |rest: Value| with(json!({"direction": "ingress", "ethertype": "ipv6"}), rest);
    let web = "05d270fb-e237-4d6d-9448-1563412ef89c";
    let default = "6e99cc00-24d3-444a-880b-e6fc8857c855";
    let expected = [
        in4(json!({"protocol": 6, "ports": "80"})),
        in4(json!({"protocol": 6, "ports": "8000-8100", "remote_prefix": "198.51.100.0/24"})),
        in6(json!({"protocol": 17})),
        in4(json!({"protocol": 1})),
        in4(json!({"protocol": 1, "icmp_type": 8})),
        in4(json!({"protocol": 1, "icmp_type": 3, "icmp_code": 4})),
        // The driver makes all of ICMP of an echo reply.
        in4(json!({"protocol": 1})),
        in6(json!({"protocol": 58, "icmp_type": 128})),
        in4(json!({"protocol": 132, "ports": "5000"})),
        in4(json!({"protocol": 47})),
        in4(json!({"protocol": 112})),
        in4(json!({"protocol": 136, "ports": "7"})),
        in4(json!({"remote_group": web})),
        in4(json!({"protocol": 6, "ports": "22", "remote_group": default})),
        with(
            json!({"direction": "egress", "ethertype": "ipv6"}),
            json!({"protocol": 6, "ports": "443", "remote_prefix": "2001:db8::/32"}),
        ),
    ];
    assert_eq!(ours, expected);
}

fn with(mut object: Value, rest: Value) -> Value {
    let rest = rest.as_object().cloned().unwrap_or_default();
    object.as_object_mut().expect("an object").extend(rest);
    object
}

#[test]
fn groups_do_not_depend_on_the_order_of_rules() {
    let rule = |port: u16| {
        json!({"is_ipv6": 0, "remote_ip_addr": "0.0.0.0", "ip_prefix_len": 0,
               "remote_group_id": null, "protocol": 6, "port_min": port, "port_max": port})
    };
    let group = |ports: &[u16]| {
        let rules: Vec<Value> = ports.iter().map(|port| rule(*port)).collect();
        let text = json!({"ingress_rules": rules, "egress_rules": [], "stateful": 1}).to_string();
        match group::read(&text, &settings()) {
            Verdict::Good(group) => group.value.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(group(&[80, 443, 80]), group(&[443, 80]));
    assert_ne!(group(&[80, 443]), group(&[80]));
    assert_eq!(parsed(&group(&[]))["return_traffic"], "established");
}

#[test]
fn a_port_has_what_the_driver_says_and_its_segment_is_a_network() {
    let settings = settings();
    let (one, network) = port_of(
        json!({
            "fixed_ips": [{"subnet_id": "x", "ip_address": "10.1.0.23"}, {"ip_address": "10.1.0.23"}],
            "allowed_address_pairs": [
                {"mac_address": "fa:16:3e:00:00:99", "ip_address": "192.168.0.7/16"},
                {"mac_address": "fa:16:3e:98:02:81", "ip_address": "10.1.0.200"},
                {"ip_address": "10.1.0.200"},
            ],
            "security_groups": [GROUP, GROUP],
            "unheard_of": [1],
        }),
        &settings,
    );
    assert_eq!(one["socket"], PORT);
    assert_eq!((&one["mode"], &one["queues"]), (&json!("client"), &json!(2)));
    assert_eq!(one["fixed_ips"], json!(["10.1.0.23"]));
    assert_eq!(
        one["allowed_address_pairs"],
        json!([{"ip": "192.168.0.0/16", "mac": "fa:16:3e:00:00:99"}, {"ip": "10.1.0.200/32"}])
    );
    assert_eq!(one["security_groups"], json!([GROUP]));
    assert_eq!(
        network,
        json!({"name": "physnet1 vlan 165", "type": "vlan", "physnet": "physnet1", "vlan": 165,
               "mtu": 9000})
    );

    let (same, _) = port_of(json!({"device_id": "x"}), &settings);
    let (other, _) = port_of(json!({"segmentation_id": 166}), &settings);
    let (flat, network) =
        port_of(json!({"network_type": "flat", "segmentation_id": null}), &settings);
    assert_eq!(one["network"], same["network"]);
    assert_ne!(one["network"], other["network"]);
    assert_ne!(one["network"], flat["network"]);
    assert_eq!(network["type"], "flat");
    assert!(network.get("vlan").is_none());

    // The driver always says 1500; what is configured counts.
    for (mtu, physnet, expected) in [
        (Some(1400), "physnet1", 1400),
        (Some(9216), "physnet1", 9000),
        (Some(1400), "unheard-of", 1400),
        (None, "unheard-of", 1500),
    ] {
        let settings = NetworkingVpp { mtu, ..settings.clone() };
        let (_, network) = port_of(json!({"physnet": physnet}), &settings);
        assert_eq!(network["mtu"], expected, "{mtu:?} {physnet}");
    }
}

#[test]
fn filters_are_off_where_neutron_has_them_off() {
    let settings = settings();
    let secured = |changes: Value, settings: &NetworkingVpp| {
        let (port, _) = port_of(changes, settings);
        (port["port_security"].clone(), port["security_groups"].clone())
    };
    let groups = json!({"security_groups": [GROUP]});
    assert_eq!(secured(groups.clone(), &settings), (json!(true), json!([GROUP])));
    assert_eq!(secured(json!({}), &settings), (json!(true), json!([])));
    assert_eq!(secured(json!({"port_security_enabled": null}), &settings).0, json!(true));
    let off = with(json!({"port_security_enabled": false}), groups.clone());
    assert_eq!(secured(off, &settings), (json!(false), json!([])));
    let without = NetworkingVpp { security_groups: false, ..settings };
    assert_eq!(secured(groups, &without), (json!(false), json!([])));
}

#[test]
fn taps_have_the_names_that_agents_look_for() {
    for binding in ["tap", "plugtap"] {
        let (port, _) = port_of(json!({"binding_type": binding}), &settings());
        assert_eq!(
            port,
            json!({
                "kind": "tap", "network": port["network"], "port_security": false,
                "interface": "vpp18626f6b-7e",
                "bridge": {"name": "br-18626f6b-7e", "member": "tap18626f6b-7e"},
            })
        );
    }
}

#[test]
fn what_the_driver_would_not_write_is_told_at_its_key() {
    let rule = |changes: Value| {
        let rule = json!({"is_ipv6": 0, "remote_ip_addr": "10.0.0.0", "ip_prefix_len": 8,
                          "remote_group_id": null, "protocol": 6, "port_min": 1, "port_max": 2});
        json!({"ingress_rules": [with(rule, changes)], "egress_rules": []}).to_string()
    };
    let (at_port, at_group) = (place::port("h", PORT.parse().expect("a UUID")), group_key());
    let member = place::member(GROUP.parse().expect("a UUID"), PORT.parse().expect("a UUID"));
    let large = format!("{{\"x\": \"{}\"}}", "x".repeat(VALUE_OCTETS_MAX));
    for (key, text, what) in [
        (&at_port, String::new(), "is empty"),
        (&at_port, "{".to_owned(), "is not JSON: EOF while parsing an object at line 1 column 1"),
        (&at_port, "[]".to_owned(), "a list is not an object"),
        (&at_port, large, "is larger than 4194304 octets"),
        (&at_port, "{}".to_owned(), "binding_type: is missing"),
        (
            &at_port,
            json!({"jwt": "x.y.z", "certificate": "x"}).to_string(),
            "the value is signed, which is not supported",
        ),
        (&at_port, port(json!({"binding_type": "x"})), "binding_type: `x` is not known"),
        (&at_port, port(json!({"network_type": 5})), "network_type: 5 is not text"),
        (&at_port, port(json!({"segmentation_id": null})), "segmentation_id: is missing"),
        (&at_port, port(json!({"segmentation_id": 4095})), "segmentation_id: 4095 is too large"),
        (&at_port, port(json!({"mac_address": null})), "mac_address: is missing"),
        (&at_port, port(json!({"physnet": null})), "physnet: is missing"),
        (
            &at_port,
            port(json!({"security_groups": ["x"]})),
            "security_groups[0]: `x` is not a UUID",
        ),
        (
            &at_port,
            port(json!({"allowed_address_pairs": [{"ip_address": "x"}]})),
            "allowed_address_pairs[0].ip_address: `x` is not an IP address or prefix",
        ),
        (
            &at_port,
            port(json!({"port_security_enabled": 1})),
            "port_security_enabled: 1 is neither true nor false",
        ),
        (&at_group, "{}".to_owned(), "ingress_rules: is missing"),
        (&at_group, rule(json!({"is_ipv6": 2})), "ingress_rules[0].is_ipv6: 2 is not known"),
        // What would open more than is said.
        (&at_group, rule(json!({"protocol": null})), "ingress_rules[0].protocol: is missing"),
        (&at_group, rule(json!({"port_min": null})), "ingress_rules[0].port_min: is missing"),
        (
            &at_group,
            rule(json!({"ip_prefix_len": null})),
            "ingress_rules[0].ip_prefix_len: is missing",
        ),
        (
            &at_group,
            rule(json!({"ip_prefix_len": 33})),
            "ingress_rules[0].ip_prefix_len: 33 is too large",
        ),
        (
            &at_group,
            rule(json!({"remote_ip_addr": null})),
            "ingress_rules[0].remote_group_id: is missing",
        ),
        (
            &at_group,
            rule(json!({"remote_ip_addr": "::"})),
            "ingress_rules[0].remote_ip_addr: `::` is not an address of IPv4",
        ),
        (
            &at_group,
            rule(json!({"port_min": 3})),
            "ingress_rules[0].port_min: 3 is more than port_max: 2",
        ),
        (
            &at_group,
            rule(json!({"protocol": 1, "port_min": 256, "port_max": -1})),
            "ingress_rules[0].port_min: 256 is too large",
        ),
        (
            &member,
            "{}".to_owned(),
            "is not a list in JSON: invalid type: map, expected a sequence at line 1 column 0",
        ),
        (&member, "[\"10.0.0.1\", 5]".to_owned(), "[1]: 5 is not an IP address"),
    ] {
        let mirror = mirror(&[(key.clone(), text.clone())]);
        let found = Translator::new(settings()).translate(&mirror, None);
        assert_eq!(found.problems, [], "{text:.200}");
        let [(_, RawValue::Unreadable(misfit))] = &found.values.iter().collect::<Vec<_>>()[..]
        else {
            panic!("{text:.200}: {found:?}")
        };
        assert_eq!(misfit.what, format!("{key}: {what}"), "{text:.200}");
        assert_documented(&problem(key, misfit));
    }
}

fn group_key() -> String {
    place::group(GROUP.parse().expect("a UUID"))
}

#[test]
fn what_is_not_supported_is_told_and_changes_nothing() {
    let values = [
        ("nodes/h/ports/x".to_owned(), "{}".to_owned(), "`x` is not a UUID"),
        (
            format!("nodes/h/ports/{PORT}"),
            port(json!({"network_type": "gpe", "physnet": null})),
            "the network type `gpe` is not supported",
        ),
        (
            format!("nodes/h/trunks/{PORT}"),
            "{}".to_owned(),
            "trunks are not supported, and nothing is done about this key",
        ),
        (
            format!("nodes/h/routers/{PORT}/{PORT}"),
            "{}".to_owned(),
            "routers are not supported, and nothing is done about this key",
        ),
        (format!("nodes/h h/ports/{PORT}"), port(json!({})), "`h h` is not a host name"),
    ];
    for (key, text, what) in values {
        let key = format!("/networking-vpp/{key}");
        let found = Translator::new(settings()).translate(&mirror(&[(key.clone(), text)]), None);
        assert!(found.values.is_empty(), "{found:?}");
        let [problem] = &found.problems[..] else { panic!("{found:?}") };
        assert_eq!((&*problem.object, &*problem.what), (&*key, what));
        assert_documented(problem);
    }
}

#[test]
fn a_bad_value_leaves_the_former_one_in_force() {
    let host: HostName = "h".parse().expect("a name");
    let mut translator = Translator::new(settings());
    let key = place::port("h", PORT.parse().expect("a UUID"));
    let group = json!({"ingress_rules": [], "egress_rules": []}).to_string();
    let mut desired = Desired::default();
    let mut rebuilt = |text: &str, group: &str| {
        let values = [(key.clone(), text.to_owned()), (group_key(), group.to_owned())];
        let found = translator.translate(&mirror(&values), Some(&host));
        let vhost = Default::default();
        let site = Site { host: &host, physnets: None, vhost: &vhost, cores: &[] };
        desired = desired.rebuild(&found.values, site);
        (desired.ports.len(), desired.security_groups.len(), desired.problems.len())
    };
    let good = port(json!({"security_groups": [GROUP]}));
    assert_eq!(rebuilt(&good, &group), (1, 1, 0));
    assert_eq!(rebuilt("garbage", "[]"), (1, 1, 2), "with its network and its group");
    assert_eq!(rebuilt("other garbage", &group), (1, 1, 1));
    assert_eq!(rebuilt(&port(json!({"network_type": "gpe"})), &group), (0, 0, 0));
    assert_eq!(rebuilt(&good, &group), (1, 1, 0));
}

#[test]
fn only_groups_that_this_host_needs_are_translated() {
    let uuid = |digit: &str| format!("{}-0000-4000-8000-000000000000", digit.repeat(8));
    let (had, named, of_named, other) = (uuid("1"), uuid("2"), uuid("3"), uuid("4"));
    let names = |group: &str| {
        let rule = json!({"is_ipv6": 0, "remote_ip_addr": null, "ip_prefix_len": 0,
                          "remote_group_id": group, "protocol": 0, "port_min": 0, "port_max": 0});
        json!({"ingress_rules": [rule], "egress_rules": []}).to_string()
    };
    let at = |part: &str| format!("/networking-vpp/global/{part}");
    let values = [
        (place::port("h", PORT.parse().expect("a UUID")), port(json!({"security_groups": [had]}))),
        (at(&format!("secgroups/{had}")), names(&named)),
        (at(&format!("secgroups/{named}")), names(&of_named)),
        (at(&format!("secgroups/{other}")), names(&other)),
        (at(&format!("remote_group/{had}/{PORT}")), r#"["10.0.0.1"]"#.to_owned()),
        (at(&format!("remote_group/{named}/{PORT}")), r#"["10.0.0.1","2001:db8::1"]"#.to_owned()),
        (at(&format!("remote_group/{other}/{PORT}")), r#"["10.0.0.1"]"#.to_owned()),
    ];
    let host: HostName = "h".parse().expect("a name");
    let mut translator = Translator::new(settings());
    let mirror = mirror(&values);
    let found = translator.translate(&mirror, Some(&host));
    let keys: Vec<String> = found.values.keys().map(Key::to_string).collect();
    let network = keys[0].clone();
    assert_eq!(
        keys,
        [
            network,
            format!("nodes/h/ports/{PORT}"),
            format!("security-groups/{had}"),
            format!("group-members/{named}/{PORT}"),
        ]
    );
    let member = Key::GroupMember {
        group: named.parse().expect("a UUID"),
        port: PORT.parse().expect("a UUID"),
    };
    let RawValue::Json(addresses) = &found.values[&member] else { panic!("{found:?}") };
    assert_eq!(parsed(addresses), json!({"addresses": ["10.0.0.1/32", "2001:db8::1/128"]}));

    // What did not change is the same in memory.
    let again = translator.translate(&mirror, Some(&host));
    let RawValue::Json(same) = &again.values[&member] else { panic!("{again:?}") };
    assert!(Arc::ptr_eq(addresses, same));
    assert_eq!(translator.translate(&mirror, None).values.len(), 8, "for all hosts, all");
}
