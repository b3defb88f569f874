//! The vhost-user side of ports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::PortRef;

/// The vhost-user side of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostView {
    /// Which port.
    #[serde(flatten)]
    pub port: PortRef,
    /// The path of its socket.
    pub socket: PathBuf,
    /// Who makes the socket.
    pub mode: SocketModeView,
    /// How far it has come.
    pub state: VhostState,
    /// Why it is not ready, when it is not.
    pub reason: Option<String>,
    /// Device features that were accepted, by name; null before they were negotiated.
    pub features: Option<Vec<String>>,
    /// Protocol features that were accepted, by name.
    pub protocol_features: Vec<String>,
    /// The device status that the driver wrote (virtio 1.2 §2.1).
    pub driver_status: u8,
    /// The MTU that the guest is told, if its VMM said.
    pub mtu: Option<u16>,
    /// The guest's memory.
    pub memory: Vec<RegionView>,
    /// The rings that the guest's VMM has said anything about.
    pub rings: Vec<RingView>,
    /// Sessions since the port was attached, this one included.
    pub sessions: u64,
    /// Why the last session ended, or what a worker found wrong with the guest's rings.
    pub last_error: Option<String>,
    /// What was refused last while this session went on.
    pub refusal: Option<String>,
}

/// Who makes a vhost-user socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketModeView {
    /// The guest's VMM.
    Client,
    /// The switch.
    Server,
}

/// How far a vhost-user port has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VhostState {
    /// A VMM is connected, and its port is not in desired state yet: nothing is forwarded.
    Early,
    /// No VMM is connected.
    Unconnected,
    /// A VMM is connected, but the guest's driver does not run yet.
    Connected,
    /// At least one pair of queues moves frames both ways.
    Ready,
}

/// A region of a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionView {
    /// Where the guest sees it.
    pub guest_address: u64,
    /// Its size.
    pub bytes: u64,
}

/// How a ring lies in memory (virtio 1.2 §2.7, §2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingLayoutView {
    /// A table of descriptors, and a ring for each side.
    Split,
    /// One ring for all.
    Packed,
}

impl From<vhost::RingLayout> for RingLayoutView {
    fn from(layout: vhost::RingLayout) -> Self {
        match layout {
            vhost::RingLayout::Split => Self::Split,
            vhost::RingLayout::Packed => Self::Packed,
        }
    }
}

/// A ring of a guest's device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// As virtio numbers them: even ones go to the guest, odd ones come from it.
    pub queue: u16,
    /// How it lies in memory; null before the guest's driver said.
    pub layout: Option<RingLayoutView>,
    /// Entries; null before the VMM said.
    pub size: Option<u16>,
    /// Whether it moves, and if not, what it waits for.
    pub state: String,
    /// A disabled ring to the guest gets nothing; what a disabled one from it has is thrown away.
    pub enabled: bool,
    /// The next entry of the available ring, or of a packed ring where the next chain is taken.
    pub next_available: u16,
    /// The next entry of the used ring, or of a packed ring where the next chain is used, if it
    /// runs.
    pub next_used: Option<u16>,
    /// Frames moved.
    pub frames: u64,
    /// Their bytes, without net headers.
    pub bytes: u64,
    /// Frames dropped since the guest had made no buffer available.
    pub full: u64,
    /// Frames dropped since none of the guest's buffers could hold them.
    pub too_big: u64,
    /// Frames taken from a disabled ring and thrown away.
    pub discarded: u64,
    /// Interrupts sent to the driver.
    pub kicks: u64,
}
