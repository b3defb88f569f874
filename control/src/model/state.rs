//! Actual state: what this host reports about itself, object by object.
//!
//! The values are filled in by whoever attaches and detaches; here is their shape, and how it is kept
//! that an object's `since` moves only when something moved. Nothing here is ever read as a wish:
//! deleting it changes nothing, and it is written again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HostName, InterfaceName, Mac, NetworkUuid, PhysnetName, PortUuid, VfState};
use crate::key::Key;

/// All that one host reports, but for its being alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActualState {
    /// By port: those in force and those that were refused.
    pub ports: BTreeMap<PortUuid, PortState>,
    /// By physnet of the configuration.
    pub physnets: BTreeMap<PhysnetName, PhysnetState>,
}

/// What is reported about a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortState {
    /// Whether it works.
    pub status: Status,
    /// Why it does not, when it does not, or what it lacks although it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the newest desired value is not in force, while a former one still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// The network it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUuid>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether port security is on. Where it is off, all frames pass, from whatever address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// The path of its socket (kind `vhost-user`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Its DPDK device (kind `ethdev`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its interface (kind `tap`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// Its VF (kind `vf-direct`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<VfState>,
    /// Pairs of queues in use.
    #[serde(default)]
    pub queues: u16,
    /// The virtio features that guest and switch agreed on, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// When any of this last changed, as RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub since: Timestamp,
}

/// What is reported about a physnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhysnetState {
    /// Whether it works.
    pub status: Status,
    /// Why it does not, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its DPDK device, as configured; of a bond all of them, with spaces between.
    pub device: String,
    /// The device's own address; of a bond that of the first that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The largest payload it carries, in octets.
    pub mtu: u16,
    /// Speed of the link in Mbit/s, when it is up and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mbps: Option<u32>,
    /// The unicast filters of its device for guests of the switch, where the device's NIC has VFs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<FilterState>,
    /// When any of this last changed, as RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub since: Timestamp,
}

/// What is reported about a NIC's unicast filters for addresses behind the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterState {
    /// The interface that has them, or whose VF has them.
    pub interface: InterfaceName,
    /// Addresses behind the switch that have one.
    pub present: u32,
    /// Addresses behind the switch for which there is no room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Mac>,
    /// All filters that the interface has, of others too.
    pub total: u32,
    /// Whether the interface takes all frames since there is no room.
    pub promiscuous: bool,
    /// Why they are not as they should be, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// That a daemon runs for a host. Present while it does, as far as the store can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliveState {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon, on its host.
    pub pid: u32,
    /// Where that process id means something: the kernel's boot, and its namespace of process ids. A
    /// daemon that starts there can tell whether the one before it still runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// When that process started, in clock ticks after the machine: tells it from a later one of the
    /// same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ticks: Option<u64>,
    /// When the daemon started to report, as RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub since: Timestamp,
}

/// Whether an object works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It passes frames.
    Ready,
    /// Nothing is wrong here: the other side (a VMM, a guest's driver) has not come yet.
    Waiting,
    /// It is switched off, or its link is down.
    Down,
    /// The desired value cannot be in force; the reason names the field.
    Refused,
    /// The desired value is good, but could not be carried out.
    Failed,
}

impl Status {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ready => "ready",
            Status::Waiting => "waiting",
            Status::Down => "down",
            Status::Refused => "refused",
            Status::Failed => "failed",
        }
    }
}

impl PortState {
    /// A state that begins now, with nothing known but the status and why.
    pub fn new(status: Status, reason: Option<String>) -> PortState {
        PortState {
            status,
            reason,
            rejected: None,
            network: None,
            mac: None,
            port_security: None,
            socket: None,
            device: None,
            interface: None,
            vf: None,
            queues: 0,
            features: Vec::new(),
            since: Timestamp::now(),
        }
    }
}

impl ActualState {
    /// This state, with `since` of every object taken from `former` where nothing else changed.
    pub fn since(mut self, former: &ActualState) -> ActualState {
        for (port, state) in &mut self.ports {
            let Some(old) = former.ports.get(port) else { continue };
            if *old == (PortState { since: old.since, ..state.clone() }) {
                state.since = old.since;
            }
        }
        for (physnet, state) in &mut self.physnets {
            let Some(old) = former.physnets.get(physnet) else { continue };
            if *old == (PhysnetState { since: old.since, ..state.clone() }) {
                state.since = old.since;
            }
        }
        self
    }

    /// The keys and values that report this state for `host`.
    pub fn values(&self, host: &HostName) -> BTreeMap<Key, Value> {
        let ports = self
            .ports
            .iter()
            .map(|(&port, state)| (Key::PortState { host: host.clone(), port }, json(state)));
        let physnets = self.physnets.iter().map(|(physnet, state)| {
            (Key::PhysnetState { host: host.clone(), physnet: physnet.clone() }, json(state))
        });
        ports.chain(physnets).collect()
    }
}

/// An object of this crate as JSON.
pub(crate) fn json(object: &impl Serialize) -> Value {
    // Serde fails on maps whose keys are not text and on `Serialize` that refuses; no type here has
    // either, and the tests serialize each of them. A path that is not UTF-8 would be the exception:
    // paths come from configuration and desired state, which are text.
    serde_json::to_value(object).expect("every object of the model is representable as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_with_something_else() {
        let port: PortUuid = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d".parse().expect("a UUID");
        let mut early = PortState::new(Status::Waiting, Some("no socket yet".to_owned()));
        early.since = "2024-05-01T10:00:00Z".parse().expect("a time");
        let mut late = early.clone();
        late.since = "2024-05-01T11:00:00Z".parse().expect("a time");
        let of = |state: &PortState| ActualState {
            ports: BTreeMap::from([(port, state.clone())]),
            physnets: BTreeMap::new(),
        };

        assert_eq!(of(&late).since(&of(&early)).ports[&port].since, early.since);
        late.status = Status::Ready;
        assert_ne!(of(&late).since(&of(&early)).ports[&port].since, early.since);
        assert_eq!(of(&late).since(&ActualState::default()), of(&late));
    }

    #[test]
    fn states_are_json_and_come_back() {
        let port: PortUuid = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d".parse().expect("a UUID");
        let host: HostName = "h".parse().expect("a name");
        let physnet: PhysnetName = "p".parse().expect("a name");
        let mut state = PortState::new(Status::Refused, Some("mtu: 5 is too small".to_owned()));
        state.since = "2024-05-01T10:00:00Z".parse().expect("a time");
        let wire = PhysnetState {
            status: Status::Ready,
            reason: None,
            device: "net_tap0".to_owned(),
            mac: "52:54:00:12:34:56".parse().ok(),
            mtu: 1500,
            link_mbps: Some(10_000),
            filters: None,
            since: state.since,
        };
        let actual = ActualState {
            ports: BTreeMap::from([(port, state.clone())]),
            physnets: BTreeMap::from([(physnet, wire.clone())]),
        };
        let values: Vec<_> = actual.values(&host).into_iter().collect();
        assert_eq!(values[0].0.to_string(), format!("state/h/ports/{port}"));
        assert_eq!(
            values[0].1,
            serde_json::json!({
                "status": "refused", "reason": "mtu: 5 is too small", "queues": 0,
                "since": "2024-05-01T10:00:00Z",
            })
        );
        assert_eq!(values[1].0.to_string(), "state/h/physnets/p");
        assert_eq!(serde_json::from_value::<PortState>(values[0].1.clone()).ok(), Some(state));
        assert_eq!(serde_json::from_value::<PhysnetState>(values[1].1.clone()).ok(), Some(wire));
    }
}
