//! What may enter and leave a port.

use serde::{Deserialize, Serialize};

use super::{GroupRef, NamedRule, NetworkRef, PortRef, PortSecurity};
use crate::model::Mac;

/// What may enter and leave a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// Which one.
    #[serde(flatten)]
    pub port: PortRef,
    /// The network it is on.
    pub network: NetworkRef,
    /// What port security makes of it. All that follows is empty but where it filters.
    pub port_security: PortSecurity,
    /// Why it is closed, or why its newest rules are not in force.
    pub reason: Option<String>,
    /// What it may send from.
    pub stations: Vec<StationView>,
    /// Ethertypes that pass besides IP and ARP.
    pub ethertypes: Vec<u16>,
    /// Its groups.
    pub groups: Vec<GroupModeView>,
    /// What it may be sent, in the order in which it holds.
    pub ingress: Vec<StatementView>,
    /// What it may send, in the order in which it holds.
    pub egress: Vec<StatementView>,
}

/// A MAC address, and the IP addresses that go with it. Link-local ones of IPv6 do too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationView {
    /// The MAC address.
    pub mac: Mac,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
}

/// A group of a port, and what it makes of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupModeView {
    /// The group.
    pub group: GroupRef,
    /// What its rules permit of the answers to what they permit.
    pub return_traffic: ReturnTrafficView,
}

/// What a group's rules permit in the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnTrafficView {
    /// What answers look like.
    Established,
    /// Nothing.
    None,
}

/// A compiled rule in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementView {
    /// Whether what it is about passes.
    pub permits: bool,
    /// What it is about.
    pub words: String,
    /// The rule itself.
    pub rule: NamedRule,
}
