//! What objects in force wait for: groups and ports that they name and that are not in force.
//!
//! Who writes a port and its groups need not write them in any order, so a group that is not there is
//! no fault of who names it; but until it comes, nothing passes the port, and that is told. So it is
//! with the port that a mirror leads to, until which nothing is copied.

use std::collections::BTreeMap;

use super::HostName;
use super::desired::{Desired, RawValue};
use crate::key::Key;
use crate::problem::{Fault, Problem};

/// What is missing, by the key of who names it. `raw` tells a group that is refused from one that is
/// not there.
pub(super) fn warnings(
    desired: &Desired,
    host: &HostName,
    raw: &BTreeMap<Key, RawValue>,
) -> BTreeMap<Key, Vec<Problem>> {
    let mut warnings: BTreeMap<Key, Vec<Problem>> = BTreeMap::new();
    let mut warn = |key: Key, field: String, missing: Key, until: &str| {
        let kind = if let Key::Port { .. } = missing { "port" } else { "group" };
        let (what, remedy) = if raw.contains_key(&missing) {
            (
                format!("{missing} is not in force"),
                format!("correct what is reported for that {kind}"),
            )
        } else {
            (format!("{missing} is not there"), format!("correct the UUID, or add that {kind}"))
        };
        let remedy = format!("{remedy}; until then {until}");
        let warning = Fault::new(field, what, remedy).warning().at(&key);
        warnings.entry(key).or_default().push(warning);
    };
    for (&port, object) in &desired.ports {
        for (index, group) in object.security_groups.iter().enumerate() {
            if !desired.security_groups.contains_key(group) {
                let key = Key::Port { host: host.clone(), port };
                let (field, group) =
                    (format!("security_groups[{index}]"), Key::SecurityGroup(*group));
                warn(key, field, group, "nothing passes this port");
            }
        }
        let to = object.mirror.as_ref().map(|mirror| mirror.to);
        if let Some(to) = to.filter(|to| !desired.ports.contains_key(to)) {
            let key = |port| Key::Port { host: host.clone(), port };
            warn(key(port), "mirror.to".to_owned(), key(to), "nothing is copied");
        }
    }
    for (&id, object) in &desired.security_groups {
        for (index, group) in object.address_groups() {
            if !desired.address_groups.contains_key(&group) {
                let field = format!("rules[{index}].remote_address_group");
                let (key, group) = (Key::SecurityGroup(id), Key::AddressGroup(group));
                warn(key, field, group, "nothing passes the ports of this group");
            }
        }
    }
    warnings
}
