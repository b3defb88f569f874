//! What desired state makes of ports' filters, and what stays the same in memory.

use dataplane::packet::{Form, Ip, Packet, Plane, Transport};
use serde_json::{Value, json};

use super::*;
use crate::config::Vhost;
use crate::key::Key;
use crate::model::{HostName, RawValue, Site};

const NET: &str = "11111111-1111-4111-8111-111111111111";
const WEB: &str = "22222222-2222-4222-8222-222222222222";
const DB: &str = "33333333-3333-4333-8333-333333333333";
const BAD: &str = "44444444-4444-4444-8444-444444444444";
const ONE: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const TWO: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

/// A store, what is desired by it, and the filters that follow.
struct Bed {
    raw: BTreeMap<Key, RawValue>,
    desired: Desired,
    filters: Filters,
    limits: Limits,
}

impl Bed {
    fn new() -> Self {
        let (raw, desired, filters, limits) = Default::default();
        let mut bed = Self { raw, desired, filters, limits };
        bed.put(&format!("networks/{NET}"), json!({"type": "local"}));
        bed
    }

    fn put(&mut self, key: &str, value: Value) {
        let text = serde_json::to_vec(&value).unwrap();
        self.raw.insert(key.parse().unwrap(), RawValue::Json(text.into()));
    }

    fn port(&mut self, uuid: &str, number: u8, groups: &[&str]) {
        let value = json!({
            "network": NET, "kind": "vhost-user", "socket": format!("{number}.sock"),
            "mac": format!("02:00:00:00:00:{number:02x}"), "fixed_ips": [format!("10.0.0.{number}")],
            "security_groups": groups,
        });
        self.put(&format!("nodes/h/ports/{uuid}"), value);
    }

    fn follow(&mut self) {
        let host: HostName = "h".parse().unwrap();
        let vhost = Vhost::default();
        let site = Site { host: &host, physnets: None, vhost: &vhost, cores: &[] };
        self.desired = self.desired.rebuild(&self.raw, site);
        assert!(self.desired.problems.is_empty(), "{:?}", self.desired.problems);
        self.filters.update(&self.desired, &self.limits);
    }

    fn policy(&self, port: &str) -> Arc<Policy> {
        match self.filters.port(port.parse().unwrap()) {
            Some(PortFilter::Filtered(policy)) => Arc::clone(policy),
            other => panic!("{other:?}"),
        }
    }

    fn closed(&self, port: &str) -> String {
        match self.filters.port(port.parse().unwrap()) {
            Some(PortFilter::Closed(reason)) => reason.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn syn(source: [u8; 4], port: u16) -> Packet {
    let transport = Transport {
        form: Form::Whole,
        plane: Plane::Tcp,
        protocol: 6,
        flags: 2,
        fragment: false,
        offset: 34,
        source_port: 40_000,
        selector: port,
    };
    Packet::V4(Ip { source: u32::from_be_bytes(source), destination: 0, transport })
}

fn enters(policy: &Policy, packet: Packet) -> bool {
    policy.acl.judge(Direction::Ingress, &packet).permits()
}

#[test]
fn ports_with_the_same_groups_share_rules_and_a_change_compiles_them_once() {
    let mut bed = Bed::new();
    let rules = |port: u16| {
        json!({"rules": [
            {"direction": "ingress", "protocol": "tcp", "ports": port, "remote_group": DB},
            {"direction": "ingress", "protocol": "tcp", "ports": 22, "remote_prefix": "10.0.0.0/8"},
        ]})
    };
    bed.put(&format!("security-groups/{WEB}"), rules(80));
    bed.port(ONE, 1, &[WEB]);
    bed.port(TWO, 2, &[WEB]);
    bed.follow();
    let (one, two) = (bed.policy(ONE), bed.policy(TWO));
    assert!(Arc::ptr_eq(&one.acl, &two.acl));
    assert!(enters(&one, syn([10, 1, 1, 1], 22)) && !enters(&one, syn([192, 0, 2, 1], 80)));

    // What changes nothing leaves everything where it is.
    bed.put(&format!("networks/{NET}"), json!({"type": "local", "mtu": 9000}));
    bed.follow();
    assert!(Arc::ptr_eq(&bed.policy(ONE), &one));

    // A member joins: of the set, not of a rule. What was counted stays.
    one.acl.hit_rule(Direction::Ingress, 1, 7);
    bed.put(&format!("group-members/{DB}/{TWO}"), json!({"addresses": ["192.0.2.0/24"]}));
    bed.follow();
    let joined = bed.policy(ONE);
    assert!(!Arc::ptr_eq(&joined.acl, &one.acl));
    assert!(Arc::ptr_eq(&joined.acl, &bed.policy(TWO).acl), "compiled once");
    assert!(enters(&joined, syn([192, 0, 2, 1], 80)) && !enters(&joined, syn([192, 0, 3, 1], 80)));
    assert_eq!(joined.acl.hits(Direction::Ingress).0.sum::<u64>(), 7);

    // A port of this host that has the group is a member without being named.
    bed.put(&format!("security-groups/{DB}"), json!({"rules": []}));
    bed.port(TWO, 2, &[DB]);
    bed.follow();
    assert!(enters(&bed.policy(ONE), syn([10, 0, 0, 2], 80)));
    assert!(
        !enters(&bed.policy(TWO), syn([10, 0, 0, 1], 22)),
        "a group without rules permits nothing"
    );
}

#[test]
fn a_port_stays_closed_until_all_that_it_names_is_there() {
    let mut bed = Bed::new();
    bed.port(ONE, 1, &[WEB]);
    bed.follow();
    assert_eq!(bed.closed(ONE), format!("waiting for security-groups/{WEB}"));
    let rule = json!({"direction": "ingress", "remote_address_group": BAD, "action": "deny"});
    bed.put(&format!("security-groups/{WEB}"), json!({"rules": [rule, {"direction": "ingress"}]}));
    bed.follow();
    assert_eq!(bed.closed(ONE), format!("waiting for address-groups/{BAD}"));
    bed.put(
        &format!("address-groups/{BAD}"),
        json!({"addresses": ["192.0.2.0/24", "2001:db8::1"]}),
    );
    bed.follow();
    let policy = bed.policy(ONE);
    assert!(!enters(&policy, syn([192, 0, 2, 9], 80)) && enters(&policy, syn([192, 0, 3, 9], 80)));
}

#[test]
fn rules_over_the_budget_are_refused_and_the_former_stay() {
    let mut bed = Bed::new();
    bed.limits.rules = 100;
    let many = |count: u16| {
        let rule = |port| {
            json!({"direction": "ingress", "protocol": "tcp", "ports": port,
            "ethertype": "ipv4"})
        };
        json!({"return_traffic": "none", "rules": (1..=count).map(rule).collect::<Vec<_>>()})
    };
    bed.put(&format!("security-groups/{WEB}"), many(101));
    bed.port(ONE, 1, &[WEB]);
    bed.follow();
    let refusal = "101 rules in one direction, of 100 that may be; name fewer rules, or raise \
                   acl.rules or acl.memory_mib in the configuration";
    assert_eq!(bed.closed(ONE), refusal);
    bed.put(&format!("security-groups/{WEB}"), many(100));
    bed.follow();
    let good = bed.policy(ONE);
    assert!(enters(&good, syn([1, 1, 1, 1], 100)));
    bed.put(&format!("security-groups/{WEB}"), many(102));
    bed.follow();
    assert!(Arc::ptr_eq(&bed.policy(ONE), &good));
    let port = &bed.desired.ports[&ONE.parse().unwrap()];
    let told = bed.filters.of(port).unwrap().refusal.as_deref().unwrap();
    assert!(told.starts_with("102 rules"), "{told}");
}

#[test]
fn without_port_security_all_passes() {
    let mut bed = Bed::new();
    bed.port(ONE, 1, &[]);
    let mut open = json!({"network": NET, "kind": "ethdev", "device": "net_null0"});
    bed.put(&format!("nodes/h/ports/{TWO}"), open.clone());
    bed.follow();
    assert!(matches!(bed.filters.port(TWO.parse().unwrap()), Some(PortFilter::Open)));
    assert!(!enters(&bed.policy(ONE), syn([1, 1, 1, 1], 1)));
    open["mac"] = json!("02:00:00:00:00:02");
    bed.put(&format!("nodes/h/ports/{TWO}"), open);
    bed.follow();
    assert!(matches!(bed.filters.port(TWO.parse().unwrap()), Some(PortFilter::Filtered(_))));
}
