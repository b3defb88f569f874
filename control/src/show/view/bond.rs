//! Bonds of uplinks.

use serde::{Deserialize, Serialize};

use crate::model::PhysnetName;

/// A bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondView {
    /// The wire that it is on.
    pub physnet: PhysnetName,
    /// `active-backup` or `balance`.
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
    /// Why its device is not open.
    pub reason: Option<String>,
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
