//! The two ends of a port: where frames come from and where they go.

use std::sync::Arc;

use vhost::{Device, Frames, Sent, Source, Staged};

use crate::counters::RxqCounters;
use crate::snapshot::PortId;

pub mod bond;
#[cfg(feature = "dpdk")]
pub mod eth;
pub mod own;

/// A receive queue with the port that it belongs to. One worker owns it at a time.
pub struct Rxq {
    /// The port.
    pub port: PortId,
    /// Its number among the port's queues.
    pub queue: u16,
    /// Where the frames come from.
    pub source: Box<dyn Source>,
    /// What it has cost so far, whoever polled it.
    pub counters: Arc<RxqCounters>,
}

impl Rxq {
    /// A queue that nobody has polled yet.
    pub fn new(port: PortId, queue: u16, source: Box<dyn Source>) -> Self {
        Self { port, queue, source, counters: Arc::default() }
    }
}

impl std::fmt::Debug for Rxq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { port, queue, .. } = self;
        f.debug_struct("Rxq").field("port", port).field("queue", queue).finish_non_exhaustive()
    }
}

/// The transmit side of a port. Any worker may send to any port.
pub trait TxPort: Send + Sync {
    /// Sends those of the frames that are staged, those of a flow in order. `worker` is the
    /// sender's number, by which a NIC's port chooses a queue. What became of them is added to `sent`,
    /// each counted exactly once. Never waits for room.
    fn send(&self, worker: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent);

    /// Sends a frame of this host's own, of [`HEAD_MAX`](vhost::HEAD_MAX) bytes at most, before all
    /// that is given to the sender's queue from now on. Returns whether it was taken. A device that
    /// is full takes it before any other frame then, but a later one of these takes its place.
    fn send_first(&self, worker: usize, frame: &[u8]) -> bool {
        own::send(self, worker, &[frame]) == 1
    }
}

impl TxPort for Device {
    #[inline]
    fn send(&self, _worker: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        Self::send(self, frames, staged, sent);
    }
}
