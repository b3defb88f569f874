//! What can be shown, as plain values.
//!
//! These are the shapes of `viaduct show --json`, hence an interface: a field may be added, but keeps
//! its name and meaning. Counters are exact here and count since the daemon's start or the object's
//! attachment, whichever came later; only tables for people round. A field that is not known is null.

mod acl;
mod bond;
mod config;
mod explain;
mod handover;
mod memory;
mod store;
mod trial;
mod vhost;
mod watch;
mod workers;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{
    FilterState, HostName, InterfaceName, Mac, Name, NetworkUuid, PhysnetName, PortUuid, Status,
    VfState,
};

pub use acl::{AclRulesView, AclView, GroupRef, NamedRule, PortSecurity, RuleView, SideView};
pub use bond::{BondMemberView, BondView, LacpMemberView, LacpPartnerView, LacpView, LinkView};
pub use config::{ChangeView, ConfigView, LastReloadView, ReloadOutcome, ReloadView};
pub use explain::{ExplainView, GroupModeView, ReturnTrafficView, StatementView, StationView};
pub use handover::{HandoverView, TakenOverView};
pub use memory::{DeviceMemoryView, GuestMemoryView, MemoryView, PoolView};
pub use store::{AcceptView, SourceView, StoreView};
pub use trial::{DeliveryView, JudgementView, TrialView};
pub use vhost::{RegionView, RingLayoutView, RingView, SocketModeView, VhostState, VhostView};
pub use watch::{CourseView, EndView, Event, FrameView, LostView, StationOrigin, WatchView};
pub use workers::{BalanceView, MoveView, RebalanceView, RxqView, Work, WorkerView};

/// A network by its identity, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkRef {
    /// The network.
    pub uuid: NetworkUuid,
    /// Its name, if it has one.
    pub name: Option<Name>,
}

/// A port by its identity, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// A port of desired state.
    Port {
        /// The port.
        uuid: PortUuid,
        /// Its name, if it has one.
        name: Option<Name>,
    },
    /// The port to a wire, which the configuration makes.
    Uplink {
        /// The wire.
        physnet: PhysnetName,
    },
}

/// A port, or the uplink to a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Which one.
    #[serde(flatten)]
    pub port: PortRef,
    /// What is attached by it.
    pub kind: PortKind,
    /// The number that workers know it by, while it is attached.
    pub number: Option<u16>,
    /// The network it is on; an uplink serves many.
    pub network: Option<NetworkRef>,
    /// Its address, if one is known.
    pub mac: Option<Mac>,
    /// Whether it works.
    pub status: Status,
    /// Why it does not, when it does not, or what it lacks although it does.
    pub reason: Option<String>,
    /// Whether it is meant to pass frames.
    pub admin_up: bool,
    /// What becomes of its frames by port security; null for an uplink, and for what is refused.
    pub port_security: Option<PortSecurity>,
    /// The path of its socket (kind `vhost-user`).
    pub socket: Option<PathBuf>,
    /// Its DPDK device (kinds `ethdev` and `uplink`).
    pub device: Option<String>,
    /// Its interface (kind `tap`).
    pub interface: Option<InterfaceName>,
    /// What of it is copied to another port.
    pub mirror: Option<MirrorView>,
    /// Its VF (kind `vf-direct`).
    #[serde(default)]
    pub vf: Option<VfState>,
    /// The unicast filters of its device for guests of the switch (kind `uplink`).
    #[serde(default)]
    pub filters: Option<FilterState>,
    /// Times that its device was stopped and started again, since its card had been reset or had given
    /// it another address (kinds `ethdev` and `uplink`).
    #[serde(default)]
    pub restarts: u64,
    /// Pairs of queues in use.
    pub queues: u16,
    /// The numbers of the workers that poll it.
    pub workers: Vec<u16>,
    /// Frames received from it.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames sent to it.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames dropped here, whatever the reason and the side.
    pub dropped_frames: u64,
    /// Frames received from it that were flooded.
    pub flooded_frames: u64,
    /// Checksums computed in software for frames sent to it, which its driver or device cannot
    /// compute.
    pub software_checksums: u64,
    /// Segments that frames were cut into in software for it.
    pub software_segments: u64,
    /// Addresses that are learned behind it now.
    pub learned: u32,
}

/// The mirror of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorView {
    /// The port that is sent the copies.
    pub to: PortRef,
    /// Whether frames towards the port's owner are copied.
    pub ingress: bool,
    /// Whether frames from the port's owner are copied.
    pub egress: bool,
    /// Which of them; all, if there is none.
    pub filter: Option<String>,
    /// Why nothing is copied, if so.
    pub missing: Option<String>,
}

/// What is attached by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A guest, by a vhost-user socket.
    VhostUser,
    /// A DPDK ethernet device.
    Ethdev,
    /// A tap interface of this host.
    Tap,
    /// A VF that is given to a guest.
    VfDirect,
    /// A wire, by a DPDK ethernet device.
    Uplink,
    /// Not known: the port was refused, perhaps for that.
    Unknown,
}

/// A bridge domain: a network that has a port on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// The network.
    #[serde(flatten)]
    pub network: NetworkRef,
    /// The number that workers know it by, while it has one.
    pub number: Option<u16>,
    /// How it leaves the host.
    #[serde(flatten)]
    pub segment: SegmentView,
    /// The largest payload of a frame, in octets.
    pub mtu: u16,
    /// Whether addresses are learned from frames.
    pub learning: bool,
    /// Whether frames to unknown unicast addresses go to all ports.
    pub flooding: bool,
    /// Its ports, the uplink among them.
    pub members: Vec<PortRef>,
    /// Addresses that are learned in it now.
    pub learned: u32,
}

/// How a network leaves the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SegmentView {
    /// Tagged, on a physnet.
    Vlan {
        /// The wire.
        physnet: PhysnetName,
        /// The VLAN on it.
        vlan: u16,
    },
    /// Untagged, on a physnet.
    Flat {
        /// The wire.
        physnet: PhysnetName,
    },
    /// Not at all.
    Local,
}

/// The forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbView {
    /// Its size, and counts since start, of all networks.
    pub statistics: FdbStatisticsView,
    /// The addresses that are known now, those of desired state among them.
    pub entries: Vec<FdbEntryView>,
}

/// Counts of the forwarding database since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbStatisticsView {
    /// Places taken by learned addresses.
    pub entries: u64,
    /// Places for learned addresses.
    pub capacity: u64,
    /// Whether it lies on huge pages.
    pub huge_pages: bool,
    /// Addresses admitted.
    pub learned: u64,
    /// Addresses that were heard on another port than before.
    pub moved: u64,
    /// Addresses that had to make room.
    pub evicted: u64,
    /// Addresses forgotten after their time.
    pub aged: u64,
    /// Addresses not admitted since their port or network has its quota.
    pub over_quota: u64,
    /// Addresses not admitted since no other port had more.
    pub no_room: u64,
    /// Addresses put off to a later frame.
    pub deferred: u64,
    /// Moves refused since the address moves too often.
    pub damped: u64,
}

/// Where one address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntryView {
    /// The network.
    pub network: NetworkRef,
    /// The address.
    pub mac: Mac,
    /// The port it is behind.
    pub port: PortRef,
    /// Seconds since it was heard, to within an eighth of the ageing time; none for a static one.
    pub age_seconds: Option<u32>,
    /// How it came to be known.
    pub origin: FdbOrigin,
}

/// How an address came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbOrigin {
    /// From a frame's source.
    Learned,
    /// From desired state; it does not age.
    Static,
}

/// Frames that were dropped at one port for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The port that they are counted at.
    pub port: PortRef,
    /// Why, by name.
    pub reason: String,
    /// Whether they came from the port or were to go to it.
    pub side: Side,
    /// How many.
    pub frames: u64,
    /// What the reason means and what to do about it.
    pub help: String,
}

/// The side of a port that a drop is counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The frame came from the port.
    Ingress,
    /// The frame was to go to the port.
    Egress,
}

/// One thing that is wrong with what somebody wrote: a [`Problem`](crate::problem::Problem).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What is wrong: the key of an object, or the path of a file or directory.
    pub object: String,
    /// Line in the file, counted from 1, where the format tells it.
    pub line: Option<usize>,
    /// Path of the field inside the object; empty for the whole object.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether the object, or its new value, is not in force because of it.
    pub severity: Severity,
}

/// How much a problem weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, or the new value of it, is not in force.
    Error,
    /// The object is in force, or nothing on this host depends on it.
    Warning,
}

/// The daemon at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The host that it runs for.
    pub host: HostName,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// What it took over from; null if it was started from nothing.
    #[serde(default)]
    pub taken_over: Option<TakenOverView>,
    /// Where desired state is read: `directory /var/lib/viaduct`.
    pub store: String,
    /// Seconds since desired state last changed; null if it never did.
    pub changed_seconds: Option<u64>,
    /// The CPUs of the workers, in the order of their numbers.
    pub cores: Vec<u32>,
    /// Bridge domains.
    pub domains: u32,
    /// Uplinks by status.
    pub uplinks: Counts,
    /// Ports by status, without uplinks.
    pub ports: Counts,
    /// Problems of desired state that keep an object, or its new value, out of force.
    pub errors: u32,
    /// Other problems.
    pub warnings: u32,
}

/// Objects by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// They pass frames.
    pub ready: u32,
    /// The other side has not come yet.
    pub waiting: u32,
    /// They are switched off, or their link is down.
    pub down: u32,
    /// Their desired value cannot be in force.
    pub refused: u32,
    /// Their desired value could not be carried out.
    pub failed: u32,
}
