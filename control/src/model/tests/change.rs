//! Sets that follow each other, and sets that nobody would write.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::{GROUP, Host, NET, NET2, PORT, PORT2, guest, in_force, messages, raw, vlan};
use crate::key::Key;
use crate::problem::Misfit;

#[test]
fn a_bad_new_value_leaves_the_former_one_in_force() {
    let host = Host::new();
    let net = format!("networks/{NET}");
    let port = format!("nodes/h/ports/{PORT}");
    let good = raw(&[(&net, vlan("p", 100)), (&port, guest(NET, "a", 1))]);
    let first = Desired::build(&good, host.site());
    let bad = raw(&[(&net, vlan("p", 500)), (&port, json!("{"))]);
    let second = first.rebuild(&bad, host.site());
    assert_eq!((&second.networks, &second.ports), (&first.networks, &first.ports));
    assert_eq!(
        messages(&second),
        [
            format!(
                "{net}: vlan: VLAN 500 is not among those of physnet `p`: 100-199; choose one of \
                 these, or extend physnets.p.vlans in the configuration (the value read before \
                 stays in force)"
            ),
            format!(
                "{port}: is not JSON: EOF while parsing an object at line 1 column 1; correct the \
                 text there (the value read before stays in force)"
            ),
        ]
    );
    assert_eq!(second.refused_ports(&host.name).count(), 0);
    // Again the same, again the same: a bad value may stay for long.
    assert_eq!(second.rebuild(&bad, host.site()), second);
    // A restart has no former value.
    assert_eq!(in_force(&Desired::build(&bad, host.site())), [] as [&str; 0]);
    // Corrected, all is well; deleted, all is gone.
    assert_eq!(second.rebuild(&good, host.site()), first);
    assert_eq!(second.rebuild(&BTreeMap::new(), host.site()), Desired::default());
}

#[test]
fn an_unreadable_value_is_reported_like_a_bad_one() {
    let host = Host::new();
    let port = format!("nodes/h/ports/{PORT}");
    let mut values = raw(&[(&port, guest(NET, "a", 1))]);
    let misfit =
        Misfit::new("cannot be read: no", "make it readable for the user that runs viaduct");
    values.insert(port.parse().expect("a key"), RawValue::Unreadable(misfit));
    let desired = Desired::build(&values, host.site());
    assert_eq!(
        messages(&desired),
        [format!("{port}: cannot be read: no; make it readable for the user that runs viaduct")]
    );
    let refused: Vec<_> = desired.refused_ports(&host.name).map(|(id, _)| id.to_string()).collect();
    assert_eq!(refused, [PORT]);
}

#[test]
fn a_newcomer_takes_nothing_from_who_has_it() {
    let host = Host::new();
    let net = format!("networks/{NET}");
    let net2 = format!("networks/{NET2}");
    let (port, port2) = (format!("nodes/h/ports/{PORT}"), format!("nodes/h/ports/{PORT2}"));
    // The larger UUIDs are there first.
    let mut values = vec![(net2.as_str(), vlan("p", 100)), (&port2, guest(NET2, "a", 1))];
    let first = Desired::build(&raw(&values), host.site());
    values.extend([(net.as_str(), vlan("p", 100)), (port.as_str(), guest(NET2, "a", 2))]);
    let second = first.rebuild(&raw(&values), host.site());
    assert_eq!(in_force(&second), [NET2, PORT2]);
    assert_eq!(
        messages(&second),
        [
            format!(
                "{net}: vlan: VLAN 100 of physnet `p` belongs to {net2}, which stays in force; \
                 choose another VLAN, or delete one of the two networks"
            ),
            format!(
                "{port}: socket: `/run/viaduct/vhost/a` is the socket of {port2}, which stays in \
                 force; choose another socket, or delete one of the two ports"
            ),
        ]
    );
    // Once they are gone, the newcomers have their turn.
    let third = second.rebuild(&raw(&values[2..3]), host.site());
    assert_eq!(in_force(&third), [NET]);
}

#[test]
fn two_ports_may_exchange_what_they_have() {
    let host = Host::new();
    let net = format!("networks/{NET}");
    let (port, port2) = (format!("nodes/h/ports/{PORT}"), format!("nodes/h/ports/{PORT2}"));
    let local = json!({"type": "local"});
    let set = |first, second| {
        raw(&[
            (&net, local.clone()),
            (&port, guest(NET, first, 1)),
            (&port2, guest(NET, second, 2)),
        ])
    };
    let before = Desired::build(&set("a", "b"), host.site());
    let after = before.rebuild(&set("b", "a"), host.site());
    assert_eq!(after, Desired::build(&set("b", "a"), host.site()));
    assert!(after.problems.is_empty());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop_oneof![
            Just("vlan"),
            Just("flat"),
            Just("local"),
            Just("vhost-user"),
            Just("ethdev"),
            Just("p"),
            Just("q"),
            Just(NET),
            Just("a.sock"),
            Just("52:54:00:00:00:01"),
            Just("ingress"),
            Just("ipv6"),
            Just("icmp"),
            Just("tcp"),
            Just("80-90"),
            Just("10.0.0.1"),
            Just("2001:db8::/32"),
        ]
        .prop_map(Value::from),
        (0..6000u32).prop_map(Value::from),
    ];
    let field = prop_oneof![
        Just("name"),
        Just("type"),
        Just("physnet"),
        Just("vlan"),
        Just("mtu"),
        Just("learning"),
        Just("flooding"),
        Just("network"),
        Just("kind"),
        Just("mac"),
        Just("socket"),
        Just("mode"),
        Just("queues"),
        Just("device"),
        Just("admin_up"),
        Just("port_security"),
        Just("fixed_ips"),
        Just("allowed_address_pairs"),
        Just("ip"),
        Just("security_groups"),
        Just("rules"),
        Just("direction"),
        Just("ethertype"),
        Just("protocol"),
        Just("ports"),
        Just("icmp_type"),
        Just("icmp_code"),
        Just("remote_prefix"),
        Just("remote_group"),
        Just("addresses"),
        Just("other"),
    ];
    leaf.prop_recursive(3, 40, 10, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field.clone().prop_map(String::from), inner, 0..10)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Nothing panics; what is in force is good alone and among the others; the same set again is the
    /// same result; and a network of a port is there.
    #[test]
    fn anything_may_be_written(
        values in prop::collection::vec(any_json(), 7),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        later in prop::collection::vec(any_json(), 7),
    ) {
        let host = Host::new();
        let keys: [Key; 8] = [
            format!("networks/{NET}"), format!("networks/{NET2}"),
            format!("nodes/h/ports/{PORT}"), format!("nodes/h/ports/{PORT2}"),
            format!("security-groups/{GROUP}"), format!("address-groups/{GROUP}"),
            format!("group-members/{GROUP}/{PORT}"), format!("nodes/h/ports/{NET}"),
        ].map(|key| key.parse().expect("a key"));
        let set = |values: &[Value]| -> BTreeMap<Key, RawValue> {
            let texts = values.iter().map(|value| value.to_string().into_bytes());
            keys.iter().cloned()
                .zip(texts.chain([bytes.clone()]).map(|text| RawValue::Json(text.into())))
                .collect()
        };
        let first = Desired::build(&set(&values), host.site());
        let second = first.rebuild(&set(&later), host.site());
        prop_assert_eq!(&second.rebuild(&set(&later), host.site()).networks, &second.networks);
        for desired in [first, second] {
            for port in desired.ports.values() {
                prop_assert!(desired.networks.contains_key(&port.network));
            }
            let again = |text: &Value| RawValue::Json(text.to_string().into_bytes().into());
            let good: BTreeMap<Key, RawValue> = desired.networks.iter()
                .map(|(id, network)| (Key::Network(*id), again(&crate::model::json(network))))
                .chain(desired.ports.iter().map(|(id, port)| {
                    (Key::Port { host: host.name.clone(), port: *id }, again(&crate::model::json(port)))
                }))
                .chain(desired.security_groups.iter().map(|(id, group)| {
                    (Key::SecurityGroup(*id), again(&crate::model::json(&**group)))
                }))
                .chain(desired.address_groups.iter().map(|(id, group)| {
                    (Key::AddressGroup(*id), again(&crate::model::json(&**group)))
                }))
                .collect();
            let alone = Desired::build(&good, host.site());
            prop_assert_eq!(&alone.networks, &desired.networks);
            prop_assert_eq!(&alone.ports, &desired.ports);
            prop_assert_eq!(&alone.security_groups, &desired.security_groups);
            prop_assert_eq!(&alone.address_groups, &desired.address_groups);
            prop_assert!(alone.problems.is_empty());
        }
    }
}
