//! Which object somebody means: by name, by UUID, or by the first digits of the UUID.
//!
//! A name counts before digits: `face` is a port's name first. Fewer than four digits are none, so
//! that a mistyped name does not hit an object by chance.

use std::collections::BTreeMap;

use control::edit::{EditError, find_address_group, find_network, find_port, find_security_group};
use control::key::Key;
use control::model::{
    AddressGroupUuid, HostName, NetworkUuid, PortUuid, RawValue, SecurityGroupUuid,
};

use super::failure::Failure;

/// Digits of a UUID that name an object.
const DIGITS_MIN: usize = 4;

/// One of the objects that can be meant.
pub struct Candidate<T> {
    /// What is picked with it.
    pub item: T,
    /// Its UUID, if it has one.
    pub uuid: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// Picks the object that is meant, among those that the daemon shows by `viaduct show <list>`.
pub fn pick<T: Clone>(
    kind: &str,
    list: &str,
    wanted: &str,
    candidates: &[Candidate<T>],
) -> Result<T, Failure> {
    let matches = |fits: &dyn Fn(&Candidate<T>) -> bool| -> Vec<&Candidate<T>> {
        candidates.iter().filter(|candidate| fits(candidate)).collect()
    };
    let tries = [
        matches(&|candidate| candidate.uuid.as_deref() == Some(wanted)),
        matches(&|candidate| candidate.name.as_deref() == Some(wanted)),
        matches(&|candidate| candidate.uuid.as_ref().is_some_and(|uuid| begins(uuid, wanted))),
    ];
    match tries.into_iter().find(|found| !found.is_empty()).as_deref() {
        None => Err(Failure::Failed(format!(
            "there is no {kind} `{}` here; `viaduct show {list}` lists them",
            wanted.escape_debug()
        ))),
        Some([one]) => Ok(one.item.clone()),
        Some(several) => {
            let uuids: Vec<&str> =
                several.iter().filter_map(|candidate| candidate.uuid.as_deref()).collect();
            Err(Failure::Failed(format!(
                "several {kind}s are called `{}`; name one by UUID: {}",
                wanted.escape_debug(),
                uuids.join(", ")
            )))
        }
    }
}

/// Picks a network of a store.
pub fn network_of_store(
    values: &BTreeMap<Key, RawValue>,
    wanted: &str,
) -> Result<NetworkUuid, EditError> {
    or_by_digits(find_network(values, wanted), values, |key| match key {
        Key::Network(network) => Some(*network),
        _ => None,
    })
}

/// Picks a port of a host of a store.
pub fn port_of_store(
    values: &BTreeMap<Key, RawValue>,
    host: &HostName,
    wanted: &str,
) -> Result<PortUuid, EditError> {
    or_by_digits(find_port(values, host, wanted), values, |key| match key {
        Key::Port { host: its, port } if its == host => Some(*port),
        _ => None,
    })
}

/// Picks a security group of a store.
pub fn security_group_of_store(
    values: &BTreeMap<Key, RawValue>,
    wanted: &str,
) -> Result<SecurityGroupUuid, EditError> {
    or_by_digits(find_security_group(values, wanted), values, |key| match key {
        Key::SecurityGroup(group) => Some(*group),
        _ => None,
    })
}

/// Picks an address group of a store.
pub fn address_group_of_store(
    values: &BTreeMap<Key, RawValue>,
    wanted: &str,
) -> Result<AddressGroupUuid, EditError> {
    or_by_digits(find_address_group(values, wanted), values, |key| match key {
        Key::AddressGroup(group) => Some(*group),
        _ => None,
    })
}

fn or_by_digits<I: Copy + ToString>(
    found: Result<I, EditError>,
    values: &BTreeMap<Key, RawValue>,
    id: impl Fn(&Key) -> Option<I>,
) -> Result<I, EditError> {
    let Err(EditError::NotFound { kind, name }) = found else { return found };
    let fitting: Vec<(&Key, I)> = values
        .keys()
        .filter_map(|key| Some((key, id(key)?)))
        .filter(|(_, id)| begins(&id.to_string(), &name))
        .collect();
    match fitting[..] {
        [] => Err(EditError::NotFound { kind, name }),
        [(_, id)] => Ok(id),
        _ => {
            let found = fitting.into_iter().map(|(key, _)| key.clone()).collect();
            Err(EditError::Ambiguous { kind, name, found })
        }
    }
}

fn begins(uuid: &str, digits: &str) -> bool {
    digits.len() >= DIGITS_MIN && uuid.starts_with(&digits.to_ascii_lowercase())
}
