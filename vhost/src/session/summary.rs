//! What `viaduct show vhost` tells of a session.

use std::fmt;

use super::Session;
use crate::features;
use crate::memory::RegionSpec;
use crate::vring::{RING_SIZE_MAX, RingLayout};

/// A session at one moment. Plain values, for whoever prints or serialises them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSummary {
    /// Device features that were accepted, by name; none before they were negotiated.
    pub features: Option<Vec<String>>,
    /// Protocol features that were accepted, by name.
    pub protocol_features: Vec<String>,
    /// The device status that the driver wrote (virtio 1.2 §2.1).
    pub driver_status: u8,
    /// The MTU that the guest is told, if the front-end said.
    pub mtu: Option<u16>,
    /// The guest's memory, by guest address.
    pub memory: Vec<RegionSpec>,
    /// The rings that the front-end has said anything about.
    pub rings: Vec<RingSummary>,
    /// What was refused last while the session went on, and why.
    pub refusal: Option<String>,
}

/// A ring at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSummary {
    /// The ring: even numbers are the guest's receiveqs, odd ones its transmitqs.
    pub queue: usize,
    /// How it lies in memory; none before the driver's features are known.
    pub layout: Option<RingLayout>,
    /// Entries; none before the front-end said.
    pub size: Option<u16>,
    /// Whether it moves.
    pub state: RingState,
    /// A disabled receiveq gets nothing, what a disabled transmitq sends is thrown away.
    pub enabled: bool,
    /// Whether the driver can be interrupted.
    pub call: bool,
    /// The next entry of the available ring, or of a packed ring where the next chain is taken.
    pub next_available: u16,
    /// The next entry of the used ring, or of a packed ring where the next chain is used, if it
    /// runs.
    pub next_used: Option<u16>,
}

/// Whether a ring moves, and if not, why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingState {
    /// Workers serve it.
    Running,
    /// The front-end does not want it to run.
    Stopped,
    /// It will run once this has come.
    Waiting(&'static str),
}

impl fmt::Display for RingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Stopped => f.write_str("stopped"),
            Self::Waiting(what) => write!(f, "waiting for {what}"),
        }
    }
}

impl Session {
    /// What there is to show. Takes each running ring's lock for a moment.
    pub fn summary(&self) -> SessionSummary {
        let known = self.rings.iter().enumerate().filter(|(_, ring)| {
            ring.kicked || ring.size.is_some() || ring.addresses.is_some() || ring.call.is_some()
        });
        let rings = known.map(|(queue, ring)| {
            let position = self.device.ring_position(queue);
            // The wrap counter tells nobody anything.
            let packed = self.layout() == Some(RingLayout::Packed);
            let index = |place: u16| if packed { place & (RING_SIZE_MAX - 1) } else { place };
            let base = position.map_or(ring.base as u16, |position| position.next_available);
            RingSummary {
                queue,
                layout: self.layout(),
                size: ring.size,
                state: self.ring_state(queue),
                enabled: ring.enabled,
                call: ring.call.is_some(),
                next_available: index(base),
                next_used: position.map(|position| index(position.next_used)),
            }
        });
        SessionSummary {
            features: self.features.map(features::device_names),
            protocol_features: features::protocol_names(self.protocol_features),
            driver_status: self.status,
            mtu: self.mtu,
            memory: self.memory.regions().collect(),
            rings: rings.collect(),
            refusal: self.refusal.clone(),
        }
    }

    fn ring_state(&self, queue: usize) -> RingState {
        let ring = &self.rings[queue];
        if ring.running {
            RingState::Running
        } else if !ring.kicked {
            RingState::Stopped
        } else if let Some(request) = ring.lacks() {
            RingState::Waiting(request)
        } else if self.features.is_none() {
            RingState::Waiting("SET_FEATURES")
        } else {
            RingState::Waiting("the memory that it lies in")
        }
    }
}
