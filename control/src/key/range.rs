//! Keys that are read and watched together.

use std::fmt;

use super::{GROUP_MEMBERS, Key};
use crate::config::Prefix;
use crate::model::{HostName, SecurityGroupUuid};

/// One key, or all under a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyRange {
    /// `nodes/<host>/ports/`: the ports of a host.
    PortsOf(HostName),
    /// One object.
    One(Key),
    /// `group-members/<group>/`: the members of a security group.
    MembersOf(SecurityGroupUuid),
}

impl KeyRange {
    /// The key in etcd, or what stands before all of its keys there.
    pub fn in_etcd(&self, prefix: &Prefix) -> String {
        format!("{prefix}{self}")
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        !matches!(self, KeyRange::One(_))
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRange::PortsOf(host) => write!(f, "{}/", Key::ports_of(host)),
            KeyRange::One(key) => key.fmt(f),
            KeyRange::MembersOf(group) => write!(f, "{GROUP_MEMBERS}/{group}/"),
        }
    }
}
