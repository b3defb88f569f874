//! Why a session ends, or why a request of it is refused.

use crate::memory::MemoryError;
use crate::message::{Code, MessageError};
use crate::vring::{CallError, VringError};

/// What is wrong with a request in the state that its session is in. What it displays is the reason
/// that an operator sees.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It is not even well formed.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Features were accepted that were never offered.
    #[error("{code} accepts what was not offered: {names}")]
    FeaturesNotOffered {
        /// The request.
        code: Code,
        /// The features.
        names: String,
    },
    /// A ring that the device does not have.
    #[error("{code}: there is no queue {queue}, the device has {queues} ({} pairs)", queues / 2)]
    NoQueue {
        /// The request.
        code: Code,
        /// What it says.
        queue: u32,
        /// How many there are.
        queues: usize,
    },
    /// A ring's size is none (virtio 1.2 §2.7, §2.8).
    #[error("SET_VRING_NUM: queue {queue} cannot have {size} entries, only {rule}")]
    RingSize {
        /// The ring.
        queue: usize,
        /// What it says.
        size: u32,
        /// What it may say.
        rule: &'static str,
    },
    /// A ring's position is none (vhost-user: "A vring descriptor index for split virtqueues").
    #[error("SET_VRING_BASE: queue {queue} cannot begin at {base}, positions go up to 65535")]
    RingBase {
        /// The ring.
        queue: usize,
        /// What it says.
        base: u32,
    },
    /// A ring's addresses carry flags that nobody agreed on.
    #[error("SET_VRING_ADDR: flags {flags:#x} of queue {queue} are not supported (no dirty log)")]
    RingFlags {
        /// The ring.
        queue: usize,
        /// What it says.
        flags: u32,
    },
    /// A ring can be enabled or disabled.
    #[error("SET_VRING_ENABLE: queue {queue} cannot be set to {value}, only to 0 or 1")]
    RingEnable {
        /// The ring.
        queue: usize,
        /// What it says.
        value: u32,
    },
    /// What cannot change under a running ring.
    #[error("{code} while queue {queue} runs; stop it by GET_VRING_BASE first")]
    RingRuns {
        /// The request.
        code: Code,
        /// The ring.
        queue: usize,
    },
    /// A ring has all that it needs and yet cannot run.
    #[error("{code}: queue {queue} cannot run: {source}")]
    Ring {
        /// The request.
        code: Code,
        /// The ring.
        queue: usize,
        /// Why.
        source: VringError,
    },
    /// A descriptor that cannot be signalled.
    #[error("{code}: queue {queue}: {source}")]
    Descriptor {
        /// The request.
        code: Code,
        /// The ring.
        queue: usize,
        /// Why.
        source: CallError,
    },
    /// The guest's memory cannot be used.
    #[error("{code}: {source}")]
    Memory {
        /// The request.
        code: Code,
        /// Why.
        source: MemoryError,
    },
    /// The guest would be told an MTU that its network does not have.
    #[error("NET_SET_MTU: {mtu} is not between 68 and the network's {max}")]
    Mtu {
        /// What it says.
        mtu: u64,
        /// The largest.
        max: u16,
    },
    /// A device status has eight bits (virtio 1.2 §2.1).
    #[error("SET_STATUS: {status:#x} has more than eight bits")]
    Status {
        /// What it says.
        status: u64,
    },
}

impl SessionError {
    /// Whether a correct front-end can run into it, so that being told is enough: memory that
    /// cannot be mapped, a ring that its driver put nowhere, an MTU that only we know to be too
    /// large, a feature that we lack. All else is a front-end that cannot be talked to.
    pub fn is_refusal(&self) -> bool {
        match self {
            // Features reach too far to be taken back once a ring has failed with them.
            Self::Ring { code, .. } => *code != Code::SetFeatures,
            Self::Memory { .. } | Self::Mtu { .. } => true,
            Self::Message(error) => matches!(error, MessageError::NotOffered { .. }),
            _ => false,
        }
    }
}
