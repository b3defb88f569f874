//! The grammar of keys: where each object stands, in every store.
//!
//! | key | object |
//! | --- | --- |
//! | `networks/<uuid>` | a network |
//! | `nodes/<host>/ports/<uuid>` | a port on a host |
//! | `security-groups/<uuid>` | a security group |
//! | `address-groups/<uuid>` | an address group |
//! | `group-members/<group>/<port>` | that a port, of any host, is a member of a security group |
//! | `state/<host>/alive` | that a daemon runs for the host |
//! | `state/<host>/ports/<uuid>` | what the host reports about a port |
//! | `state/<host>/physnets/<name>` | what the host reports about a physnet |
//!
//! In etcd a key stands under a prefix, by default `/viaduct/v1/`; in a directory it is the file
//! `<key>.json`. No other file of this crate puts a key together or takes one apart.

mod range;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use self::range::KeyRange;
use crate::config::Prefix;
use crate::model::{
    AddressGroupUuid, HostName, NetworkUuid, PhysnetName, PortUuid, SecurityGroupUuid,
};
use crate::problem::{Misfit, Problem, quoted};

/// The place of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `networks/<uuid>`: desired.
    Network(NetworkUuid),
    /// `nodes/<host>/ports/<uuid>`: desired.
    Port {
        /// The host that the port is on.
        host: HostName,
        /// The port.
        port: PortUuid,
    },
    /// `security-groups/<uuid>`: desired.
    SecurityGroup(SecurityGroupUuid),
    /// `address-groups/<uuid>`: desired.
    AddressGroup(AddressGroupUuid),
    /// `group-members/<group>/<port>`: desired.
    GroupMember {
        /// The security group.
        group: SecurityGroupUuid,
        /// The port, of whatever host.
        port: PortUuid,
    },
    /// `state/<host>/alive`: reported.
    Alive {
        /// The host that reports.
        host: HostName,
    },
    /// `state/<host>/ports/<uuid>`: reported.
    PortState {
        /// The host that reports.
        host: HostName,
        /// The port.
        port: PortUuid,
    },
    /// `state/<host>/physnets/<name>`: reported.
    PhysnetState {
        /// The host that reports.
        host: HostName,
        /// The physnet.
        physnet: PhysnetName,
    },
}

/// A text that is no key: which part of it, and what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {}: {misfit}", quoted(key))]
pub struct KeyError {
    /// The whole text.
    pub key: String,
    /// What is wrong with which part of it.
    pub misfit: Misfit,
}

/// What a folder of keys holds. A directory store walks by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// More folders, no values.
    Folders,
    /// Desired values.
    Values,
    /// What hosts report.
    State,
}

const NETWORKS: &str = "networks";
const NODES: &str = "nodes";
const SECURITY_GROUPS: &str = "security-groups";
const ADDRESS_GROUPS: &str = "address-groups";
const GROUP_MEMBERS: &str = "group-members";
const STATE: &str = "state";
const PORTS: &str = "ports";
const PHYSNETS: &str = "physnets";
const ALIVE: &str = "alive";
const EXTENSION: &str = ".json";

impl Key {
    /// The key in etcd.
    pub fn in_etcd(&self, prefix: &Prefix) -> String {
        format!("{prefix}{self}")
    }

    /// The key that stands at this place in etcd.
    pub fn from_etcd(text: &str, prefix: &Prefix) -> Result<Key, KeyError> {
        match text.strip_prefix(prefix.as_str()) {
            Some(key) => key.parse(),
            None => Err(error(text, format!("it is outside of `{prefix}`"), "move or delete it")),
        }
    }

    /// The file that holds the value in a directory store.
    pub fn file(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}{EXTENSION}"))
    }

    /// The key whose value stands in this file, by its path inside the store's directory.
    pub fn from_file(inside: &Path) -> Result<Key, KeyError> {
        let shown = inside.display().to_string();
        let Some(text) = inside.to_str() else {
            return Err(error(&shown, "the name is not UTF-8", "rename or remove the file"));
        };
        match text.strip_suffix(EXTENSION) {
            Some(key) => key.parse(),
            None => Err(error(&shown, "the name does not end in `.json`", "rename the file")),
        }
    }

    /// Whether the object is a wish, and not a report.
    pub fn is_desired(&self) -> bool {
        match self {
            Key::Network(_)
            | Key::Port { .. }
            | Key::SecurityGroup(_)
            | Key::AddressGroup(_)
            | Key::GroupMember { .. } => true,
            Key::Alive { .. } | Key::PortState { .. } | Key::PhysnetState { .. } => false,
        }
    }

    /// The host that the object belongs to, if it belongs to one.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Key::Network(_)
            | Key::SecurityGroup(_)
            | Key::AddressGroup(_)
            | Key::GroupMember { .. } => None,
            Key::Port { host, .. }
            | Key::Alive { host }
            | Key::PortState { host, .. }
            | Key::PhysnetState { host, .. } => Some(host),
        }
    }

    /// What stands before every key that this host reports.
    pub fn state_prefix(host: &HostName) -> String {
        format!("{STATE}/{host}/")
    }

    /// What stands before every key that any host reports.
    pub(crate) fn state_of_all() -> String {
        format!("{STATE}/")
    }

    /// What stands before the desired objects that belong to no host.
    pub(crate) fn folders_of_all() -> impl Iterator<Item = String> {
        [NETWORKS, SECURITY_GROUPS, ADDRESS_GROUPS, GROUP_MEMBERS]
            .map(|it| format!("{it}/"))
            .into_iter()
    }

    /// Where the ports of a host stand.
    pub(crate) fn ports_of(host: &HostName) -> String {
        format!("{NODES}/{host}/{PORTS}")
    }

    /// Whether the key stands in the folder with these parts, or deeper.
    pub(crate) fn lies_in(&self, folder: &[String]) -> bool {
        let key = self.to_string();
        let mut parts = key.split('/');
        folder.iter().all(|part| parts.next() == Some(part)) && parts.next().is_some()
    }
}

impl Folder {
    /// What the folder at this path inside the store holds, or why it should not be there.
    pub fn of(parts: &[&str]) -> Result<Folder, KeyError> {
        match parts {
            [] | [NODES] | [GROUP_MEMBERS] => Ok(Folder::Folders),
            [NETWORKS] | [SECURITY_GROUPS] | [ADDRESS_GROUPS] | [NODES, _, PORTS] => {
                Ok(Folder::Values)
            }
            [GROUP_MEMBERS, group] => match group.parse::<SecurityGroupUuid>() {
                Ok(_) => Ok(Folder::Values),
                Err(misfit) => Err(KeyError { key: parts.join("/"), misfit }),
            },
            [NODES, host] => host_part(&parts.join("/"), host).map(|_| Folder::Folders),
            [STATE] => Ok(Folder::State),
            _ => Err(error(
                &parts.join("/"),
                "no key of this version stands here",
                "move it out of the store; the folders are `networks`, `security-groups`, \
                 `address-groups`, `group-members/<group>` and `nodes/<host>/ports`",
            )),
        }
    }
}

fn error(key: &str, what: impl Into<String>, remedy: impl Into<String>) -> KeyError {
    KeyError { key: key.to_owned(), misfit: Misfit::new(what, remedy) }
}

fn host_part(key: &str, part: &str) -> Result<HostName, KeyError> {
    part.parse().map_err(|misfit| KeyError { key: key.to_owned(), misfit })
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Key, KeyError> {
        let misfit = |misfit| KeyError { key: key.to_owned(), misfit };
        let port = |part: &str| part.parse::<PortUuid>().map_err(misfit);
        let host = |part: &str| host_part(key, part);
        let parts: Vec<&str> = key.split('/').collect();
        match parts[..] {
            [NETWORKS, network] => Ok(Key::Network(network.parse().map_err(misfit)?)),
            [NODES, name, PORTS, uuid] => Ok(Key::Port { host: host(name)?, port: port(uuid)? }),
            [SECURITY_GROUPS, group] => Ok(Key::SecurityGroup(group.parse().map_err(misfit)?)),
            [ADDRESS_GROUPS, group] => Ok(Key::AddressGroup(group.parse().map_err(misfit)?)),
            [GROUP_MEMBERS, group, uuid] => {
                let group = group.parse().map_err(misfit)?;
                Ok(Key::GroupMember { group, port: port(uuid)? })
            }
            [STATE, name, ALIVE] => Ok(Key::Alive { host: host(name)? }),
            [STATE, name, PORTS, uuid] => {
                Ok(Key::PortState { host: host(name)?, port: port(uuid)? })
            }
            [STATE, name, PHYSNETS, physnet] => {
                let physnet = physnet.parse().map_err(misfit)?;
                Ok(Key::PhysnetState { host: host(name)?, physnet })
            }
            [NETWORKS, ..] => Err(error(key, "it has too many parts", "write networks/<uuid>")),
            [SECURITY_GROUPS, ..] => {
                Err(error(key, "it has too many parts", "write security-groups/<uuid>"))
            }
            [ADDRESS_GROUPS, ..] => {
                Err(error(key, "it has too many parts", "write address-groups/<uuid>"))
            }
            [GROUP_MEMBERS, ..] => Err(error(
                key,
                "it does not end in two UUIDs",
                "write group-members/<uuid of the group>/<uuid of the port>",
            )),
            [NODES, _, PORTS, ..] => {
                Err(error(key, "it does not end in one UUID", "write nodes/<host>/ports/<uuid>"))
            }
            [NODES, _, kind, ..] => Err(error(
                key,
                format!("{} is nothing that a node has in this version", quoted(kind)),
                "write nodes/<host>/ports/<uuid>",
            )),
            [NODES, ..] => Err(error(key, "it ends too early", "write nodes/<host>/ports/<uuid>")),
            [STATE, ..] => Err(error(
                key,
                "no state is reported there",
                "leave `state` to the daemon, which writes it",
            )),
            _ => Err(error(
                key,
                format!("{} is not known in this version", quoted(parts[0])),
                "write networks/<uuid>, nodes/<host>/ports/<uuid>, security-groups/<uuid>, \
                 address-groups/<uuid> or group-members/<group>/<port>",
            )),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Network(network) => write!(f, "{NETWORKS}/{network}"),
            Key::Port { host, port } => write!(f, "{NODES}/{host}/{PORTS}/{port}"),
            Key::SecurityGroup(group) => write!(f, "{SECURITY_GROUPS}/{group}"),
            Key::AddressGroup(group) => write!(f, "{ADDRESS_GROUPS}/{group}"),
            Key::GroupMember { group, port } => write!(f, "{GROUP_MEMBERS}/{group}/{port}"),
            Key::Alive { host } => write!(f, "{STATE}/{host}/{ALIVE}"),
            Key::PortState { host, port } => write!(f, "{STATE}/{host}/{PORTS}/{port}"),
            Key::PhysnetState { host, physnet } => {
                write!(f, "{STATE}/{host}/{PHYSNETS}/{physnet}")
            }
        }
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Problem {
        Problem::whole(error.key, error.misfit.what, error.misfit.remedy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::documented::assert_documented;

    const UUID: &str = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";

    fn any_key() -> impl Strategy<Value = Key> {
        let uuid = any::<[u8; 16]>().prop_map(uuid::Uuid::from_bytes);
        let host = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}";
        let physnet = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}";
        (0..8, uuid, host, physnet).prop_map(|(kind, uuid, host, physnet)| {
            let host: HostName = host.parse().expect("the pattern of host names");
            let port = PortUuid::from(uuid);
            match kind {
                0 => Key::Network(uuid.into()),
                1 => Key::Port { host, port },
                2 => Key::Alive { host },
                3 => Key::PortState { host, port },
                4 => Key::SecurityGroup(uuid.into()),
                5 => Key::AddressGroup(uuid.into()),
                6 => Key::GroupMember { group: uuid.into(), port },
                _ => Key::PhysnetState { host, physnet: physnet.parse().expect("a physnet") },
            }
        })
    }

    proptest! {
        #[test]
        fn keys_come_back_from_text_etcd_and_files(key in any_key()) {
            prop_assert_eq!(key.to_string().parse(), Ok(key.clone()));
            let prefix = Prefix::default();
            prop_assert_eq!(Key::from_etcd(&key.in_etcd(&prefix), &prefix), Ok(key.clone()));
            let file = key.file(Path::new("/store"));
            let inside = file.strip_prefix("/store").expect("inside the store");
            prop_assert_eq!(Key::from_file(inside), Ok(key.clone()));
            // A key that is desired lies in a folder that is walked, and no other does.
            let folder: Vec<_> = inside.parent().expect("a folder").iter()
                .map(|part| part.to_str().expect("text")).collect();
            prop_assert_eq!(Folder::of(&folder) == Ok(Folder::Values), key.is_desired());
        }

        #[test]
        fn no_text_panics_and_what_parses_prints_the_same(text in "\\PC{0,80}|[a-z0-9/.-]{0,80}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_part() {
        let u = UUID;
        for (text, message) in [
            (
                "networks/xyz".to_owned(),
                format!("key `networks/xyz`: `xyz` is not a UUID; write a UUID such as {u}"),
            ),
            (
                format!("networks/{u}/x"),
                format!("key `networks/{u}/x`: it has too many parts; write networks/<uuid>"),
            ),
            (
                format!("nodes/a b/ports/{u}"),
                format!(
                    "key `nodes/a b/ports/{u}`: `a b` is not a host name; write 1 to 200 letters, \
                     digits, `.`, `_` or `-`, the first a letter or digit"
                ),
            ),
            (
                "nodes/h".to_owned(),
                "key `nodes/h`: it ends too early; write nodes/<host>/ports/<uuid>".to_owned(),
            ),
            (
                "nodes/h/ports".to_owned(),
                "key `nodes/h/ports`: it does not end in one UUID; write nodes/<host>/ports/<uuid>"
                    .to_owned(),
            ),
            (
                format!("nodes/h/mirrors/{u}"),
                format!(
                    "key `nodes/h/mirrors/{u}`: `mirrors` is nothing that a node has in this \
                     version; write nodes/<host>/ports/<uuid>"
                ),
            ),
            (
                format!("security-groups/{u}/rules"),
                format!(
                    "key `security-groups/{u}/rules`: it has too many parts; write \
                     security-groups/<uuid>"
                ),
            ),
            (
                "address-groups/bad".to_owned(),
                format!("key `address-groups/bad`: `bad` is not a UUID; write a UUID such as {u}"),
            ),
            (
                format!("address-groups/{u}/{u}"),
                format!(
                    "key `address-groups/{u}/{u}`: it has too many parts; write \
                     address-groups/<uuid>"
                ),
            ),
            (
                format!("group-members/{u}"),
                format!(
                    "key `group-members/{u}`: it does not end in two UUIDs; write \
                     group-members/<uuid of the group>/<uuid of the port>"
                ),
            ),
            (
                format!("routers/{u}"),
                format!(
                    "key `routers/{u}`: `routers` is not known in this version; write \
                     networks/<uuid>, nodes/<host>/ports/<uuid>, security-groups/<uuid>, \
                     address-groups/<uuid> or group-members/<group>/<port>"
                ),
            ),
            (
                "".to_owned(),
                "key ``: `` is not known in this version; write networks/<uuid>, \
                 nodes/<host>/ports/<uuid>, security-groups/<uuid>, address-groups/<uuid> or \
                 group-members/<group>/<port>"
                    .to_owned(),
            ),
            (
                "state/h/x".to_owned(),
                "key `state/h/x`: no state is reported there; leave `state` to the daemon, which \
                 writes it"
                    .to_owned(),
            ),
        ] {
            let error = text.parse::<Key>().expect_err(&text);
            assert_eq!(error.to_string(), message);
            assert_documented(&error.into());
        }
        assert_eq!(
            Key::from_etcd("/calico/x", &Prefix::default()).expect_err("another root").to_string(),
            "key `/calico/x`: it is outside of `/viaduct/v1/`; move or delete it"
        );
    }
}
