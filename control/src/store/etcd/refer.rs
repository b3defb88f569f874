//! What a value names, hence what else a host must know.
//!
//! Values are read leniently: one that the model refuses may name things all the same, and is about to
//! be corrected. And while it is refused, the value before it may stay in force (see
//! `model::Desired::rebuild`), so what that one named is still needed.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::key::{Key, KeyRange};
use crate::model::{Port, RawValue, SecurityGroup};

/// What one key needs, by its value and those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Referral {
    now: BTreeSet<KeyRange>,
    /// What the value named that may be in force instead.
    kept: BTreeSet<KeyRange>,
    /// That value: the last one of which it is known that it could take the place of the one before.
    settled: Option<Arc<[u8]>>,
}

impl Referral {
    /// What is needed at first.
    pub fn new(key: &Key, value: &RawValue) -> Referral {
        Referral::default().then(key, value)
    }

    /// What is needed from now on.
    pub fn then(&self, key: &Key, value: &RawValue) -> Referral {
        if !names(key) {
            return Referral::default();
        }
        let now = named(key, value);
        let lost = self.ranges().any(|range| !now.contains(range));
        let text = match value {
            RawValue::Json(text) => Some(text),
            RawValue::Unreadable(_) => None,
        };
        let settled = text.filter(|text| settles(key, text, self.settled.as_deref(), lost));
        match (settled, &self.settled) {
            (None, Some(former)) => {
                Referral { now, kept: named_in(key, former), settled: Some(former.clone()) }
            }
            // If nothing was before, nothing can be in force instead.
            (settled, _) => Referral { now, kept: BTreeSet::new(), settled: settled.cloned() },
        }
    }

    /// All that is needed.
    pub fn ranges(&self) -> impl Iterator<Item = &KeyRange> {
        self.now.iter().chain(&self.kept)
    }
}

/// Whether values at this key name anything. Members name nothing, and are many.
fn names(key: &Key) -> bool {
    matches!(key, Key::Port { .. } | Key::SecurityGroup(_))
}

/// Whether a value surely is in force in place of the former one, or names all that that one did.
fn settles(key: &Key, text: &[u8], former: Option<&[u8]>, lost: bool) -> bool {
    match key {
        // To read a group's rules takes long, and they rarely lose a name.
        Key::SecurityGroup(_) => !lost || SecurityGroup::from_json(text).is_ok(),
        // A port may be refused for what another one has, or the host lacks; not if it asks for what
        // it asked for before.
        Key::Port { .. } => {
            let Ok(port) = Port::from_json(text) else { return false };
            let former = former.and_then(|former| Port::from_json(former).ok());
            former.is_none_or(|former| {
                (former.network, &former.attachment, &former.cores)
                    == (port.network, &port.attachment, &port.cores)
            })
        }
        _ => false,
    }
}

/// What a value names.
fn named(key: &Key, value: &RawValue) -> BTreeSet<KeyRange> {
    match value {
        RawValue::Json(text) => named_in(key, text),
        RawValue::Unreadable(_) => BTreeSet::new(),
    }
}

fn named_in(key: &Key, text: &[u8]) -> BTreeSet<KeyRange> {
    let mut found = BTreeSet::new();
    let collect: fn(&str, &Value) -> Option<KeyRange> = match key {
        Key::Port { .. } => |field, value| match field {
            "network" => Some(KeyRange::One(Key::Network(id(value)?))),
            "security_groups" => Some(KeyRange::One(Key::SecurityGroup(id(value)?))),
            _ => None,
        },
        Key::SecurityGroup(_) => |field, value| match field {
            "remote_group" => Some(KeyRange::MembersOf(id(value)?)),
            "remote_address_group" => Some(KeyRange::One(Key::AddressGroup(id(value)?))),
            _ => None,
        },
        _ => return found,
    };
    if let Ok(value) = serde_json::from_slice(text) {
        walk("", &value, &mut |field, value| found.extend(collect(field, value)));
    }
    found
}

/// Calls with every text of a value, and the name of the field in which it stands, at any depth.
fn walk(field: &str, value: &Value, see: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| walk(field, value, see)),
        Value::Array(values) => values.iter().for_each(|value| walk(field, value, see)),
        Value::String(_) => see(field, value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn id<T: FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
    const B: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
    const N: &str = "11111111-1111-4111-8111-111111111111";

    fn json(text: &str) -> RawValue {
        RawValue::Json(Arc::from(text.as_bytes()))
    }

    fn port(mac: u8, groups: &[&str]) -> RawValue {
        json(&format!(
            r#"{{"network":"{N}","kind":"vhost-user","socket":"a","mac":"52:54:00:00:00:0{mac}",
                "security_groups":{groups:?}}}"#
        ))
    }

    fn group(rule: &str) -> RawValue {
        json(&format!(r#"{{"rules":[{{"direction":"ingress",{rule}}}]}}"#))
    }

    fn said(referral: &Referral) -> Vec<String> {
        let all: BTreeSet<String> = referral.ranges().map(ToString::to_string).collect();
        all.into_iter().collect()
    }

    fn key(text: String) -> Key {
        text.parse().expect("a key")
    }

    #[test]
    fn ports_name_networks_and_groups_and_groups_name_sets() {
        let (net, a, b) = (
            format!("networks/{N}"),
            format!("security-groups/{A}"),
            format!("security-groups/{B}"),
        );
        let port_key = key(format!("nodes/h/ports/{A}"));
        let referral = Referral::new(&port_key, &port(1, &[A, B]));
        assert_eq!(said(&referral), [net.clone(), a.clone(), b.clone()]);

        let group_key = key(a.clone());
        let members = format!("group-members/{B}/");
        let addresses = format!("address-groups/{B}");
        for (rule, named) in [
            (format!(r#""remote_group":"{B}""#), vec![members]),
            (format!(r#""remote_address_group":"{B}""#), vec![addresses]),
            (r#""remote_prefix":"10.0.0.0/8""#.to_owned(), vec![]),
            (r#""remote_group":"x""#.to_owned(), vec![]),
        ] {
            assert_eq!(said(&Referral::new(&group_key, &group(&rule))), named, "{rule}");
        }
        // Lenient: what is named counts, however wrong the rest is, and wherever it stands.
        let odd = json(&format!(
            r#"{{"network":"{N}","security_groups":"{A}","trunk":[{{"network":"{B}"}}],"x":1}}"#
        ));
        assert_eq!(said(&Referral::new(&port_key, &odd)), [net, format!("networks/{B}"), a]);
        let member = key(format!("group-members/{A}/{B}"));
        assert_eq!(said(&Referral::new(&member, &port(1, &[A]))), Vec::<String>::new());
    }

    #[test]
    fn what_the_last_good_value_named_is_kept_while_the_newer_one_is_refused() {
        let (net, a, b) = (
            format!("networks/{N}"),
            format!("security-groups/{A}"),
            format!("security-groups/{B}"),
        );
        let key = key(format!("nodes/h/ports/{A}"));
        let good = Referral::new(&key, &port(1, &[A]));
        let refused =
            RawValue::Unreadable(crate::problem::Misfit::new("is too large", "shrink it"));
        for bad in [json("{"), json("7"), refused] {
            let kept = good.then(&key, &bad);
            assert_eq!(said(&kept), [net.clone(), a.clone()], "{bad:?}");
            assert_eq!(said(&kept.then(&key, &bad)), [net.clone(), a.clone()], "twice");
            // What a refused value names is needed too: it may be about to be corrected.
            let other = json(&format!(r#"{{"security_groups":["{B}"]}}"#));
            assert_eq!(said(&kept.then(&key, &other)), [net.clone(), a.clone(), b.clone()]);
            assert_eq!(said(&kept.then(&key, &port(1, &[B]))), [net.clone(), b.clone()]);
        }
        assert_eq!(said(&good.then(&key, &port(1, &[]))), std::slice::from_ref(&net));
        // A value may be refused for what another port has, which only the model knows.
        let moved = good.then(&key, &port(2, &[B]));
        assert_eq!(said(&moved), [net.clone(), a.clone(), b.clone()]);
        assert_eq!(said(&moved.then(&key, &port(2, &[]))), [net.clone(), a]);
        assert_eq!(said(&moved.then(&key, &port(1, &[B]))), [net, b]);
        // The first value of all has none before it.
        assert_eq!(said(&Referral::new(&key, &json("{"))), Vec::<String>::new());
    }
}
