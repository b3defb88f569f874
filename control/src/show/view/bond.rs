//! Bonds of uplinks.

use serde::{Deserialize, Serialize};

use crate::model::PhysnetName;

/// A bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondView {
    /// The wire that it is on.
    pub physnet: PhysnetName,
    /// `active-backup`, `balance` or `lacp`.
    pub mode: String,
    /// Milliseconds for which a link has to be up before its member carries frames.
    pub up_delay_ms: u32,
    /// Milliseconds between two looks at the links.
    pub monitor_ms: u32,
    /// Seconds since it changed which members carry frames.
    pub since_seconds: u64,
    /// How often another member took over.
    pub failovers: u64,
    /// How often no member was left.
    pub outages: u64,
    /// With `lacp`: our end of it.
    pub lacp: Option<LacpView>,
    /// Its members, in the order of the configuration.
    pub members: Vec<BondMemberView>,
}

/// A member of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondMemberView {
    /// Its device, as configured.
    pub device: String,
    /// Its link.
    pub link: LinkView,
    /// Seconds since its link changed.
    pub since_seconds: u64,
    /// Speed of the link in Mbit/s, when it is up and known.
    pub speed_mbps: Option<u32>,
    /// Whether it carries frames.
    pub carries: bool,
    /// Whether it carries frames whenever it can.
    pub primary: bool,
    /// How often its link was lost.
    pub losses: u64,
    /// Frames that the device has received, by its own count.
    pub received_frames: u64,
    /// Frames that it has sent.
    pub sent_frames: u64,
    /// Frames that came by it while it carried nothing, and were dropped as `inactive-member`.
    pub ignored_frames: u64,
    /// Why its device is not open, or why it carries nothing by LACP though its link is up.
    pub reason: Option<String>,
    /// With `lacp`: how that stands.
    pub lacp: Option<LacpMemberView>,
}

/// A bond's end of LACP (802.1AX).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LacpView {
    /// Our system's address, that of the first member that was open; none before.
    pub system: Option<String>,
    /// Its priority.
    pub system_priority: u16,
    /// `fast` or `slow`: how often partners are asked to send.
    pub rate: String,
    /// Whether nobody speaks LACP, and one member carries alone.
    pub fallback: bool,
}

/// A member's end of LACP, and the other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LacpMemberView {
    /// Of `detached`, `waiting`, `attached`, `collecting`, `distributing`: how far it has come.
    pub mux: String,
    /// Our state of it in words: `active`, `fast`, `aggregatable`, `in-sync`, `collecting`,
    /// `distributing`, `defaulted`, `expired`.
    pub actor: Vec<String>,
    /// The number of our port.
    pub port: u16,
    /// Our key.
    pub key: u16,
    /// The partner; none where nobody speaks.
    pub partner: Option<LacpPartnerView>,
    /// Milliseconds since it spoke last.
    pub heard_ms: Option<u64>,
    /// LACPDUs that were received.
    pub received: u64,
    /// LACPDUs that were sent.
    pub sent: u64,
    /// Marker requests that were answered.
    pub markers: u64,
    /// Frames of slow protocols that made no sense.
    pub malformed: u64,
    /// What was wrong with the last of these.
    pub fault: Option<String>,
    /// Such frames that came faster than they were read.
    pub lost: u64,
}

/// The other end of a member's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LacpPartnerView {
    /// Its system's address.
    pub system: String,
    /// That system's priority.
    pub system_priority: u16,
    /// Its key.
    pub key: u16,
    /// The number of its port.
    pub port: u16,
    /// The priority of that.
    pub port_priority: u16,
    /// Its state in words, as for ours. It is `in-sync` where it is with us.
    pub state: Vec<String>,
}

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkView {
    /// Frames can pass.
    Up,
    /// Frames cannot pass.
    Down,
    /// The device is not open.
    Absent,
    /// It was not looked at yet.
    Unknown,
}

impl LinkView {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            LinkView::Up => "up",
            LinkView::Down => "down",
            LinkView::Absent => "absent",
            LinkView::Unknown => "unknown",
        }
    }
}
