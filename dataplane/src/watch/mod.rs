//! Watching frames: what captures and traces get to see of the workers, and what it costs.
//!
//! A [`Watch`] says which frames are wanted, and has a [`Ring`] of records for each worker. It is part
//! of the published [`Plan`](crate::snapshot::Plan): with none in it, a burst pays one branch. With
//! one, the worker copies the first bytes of the frames that are wanted, with what became of each,
//! to records that were made before. Where none is free the frame is not recorded, and that is counted:
//! a reader that is slow, or none at all, holds nobody up.
//!
//! What is recorded happened: a frame that is wanted is handed to its port by itself, so that it is
//! known of each whether it was sent. Of its bytes the head is that on which the decision was made. The
//! body lies in the sender's memory, of which this is a second reading: a guest that changes it between
//! the two deceives the reader of the capture, and nobody else.

mod filter;
mod mirror;
mod witness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use vhost::TagEdit;

use crate::counters::{DropReason, count};
use crate::snapshot::{PORTS_MAX, PortId};

pub use filter::{End, Filter, FilterError, Op, Test};
pub use mirror::{Mirror, Mirrors};
pub(crate) use witness::{WatchedBurst, Witness};

/// Watches at a time.
pub const WATCHES_MAX: usize = 4;

/// The most bytes that are kept of a frame: more than any frame has.
pub const KEPT_BYTES_MAX: usize = 1 << 17;

/// Records of one ring, if their bytes permit.
const RECORDS_MAX: usize = 1024;

/// Bytes of one ring's records, and of all that a watch has.
const RING_BYTES: usize = 4 << 20;
const WATCH_BYTES: usize = 32 << 20;

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that come from the ports or go to them, and those of them that are dropped at others.
    All,
    /// Of these, those that are dropped.
    Drops,
    /// Those that come from the ports, one of a burst at most, with all that becomes of each.
    Courses,
}

/// Something that frames are recorded for. See the [module's head](self).
#[derive(Debug)]
pub struct Watch {
    wanted: Wanted,
    ports: Option<PortSet>,
    filter: Filter,
    rings: Box<[Ring]>,
    ended: AtomicBool,
}

/// A set of ports.
type PortSet = Box<[u64; PORTS_MAX / 64]>;

/// The records of one worker.
#[derive(Debug)]
struct Ring {
    free: ArrayQueue<Record>,
    full: ArrayQueue<Record>,
    /// Records that there was no room for, by port. Written by the worker alone.
    lost: Box<[AtomicU64]>,
}

/// What one worker did with one frame at one port.
#[derive(Debug)]
pub struct Record {
    /// When, in cycles.
    pub cycles: u64,
    /// Which frame of the worker's: the same in all records of one frame; those of one burst are in
    /// the same 64.
    pub serial: u64,
    /// The port that it came from.
    pub from: PortId,
    /// What became of it.
    pub step: Step,
    /// Its length in bytes, there and then.
    pub bytes: u32,
    kept: usize,
    data: Box<[u8]>,
}

/// One step of a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It came in.
    Received {
        /// Why it went no further, if so.
        dropped: Option<DropReason>,
        /// How many ports it goes to; for [`Wanted::Courses`] alone, else 0.
        ports: u16,
        /// Whether it goes to all others of its domain; likewise.
        flooded: bool,
    },
    /// It was to go out.
    Sent {
        /// To this port.
        to: PortId,
        /// With its tag edited so.
        tag: TagEdit,
        /// Why it did not, if so.
        dropped: Option<DropReason>,
    },
}

impl Watch {
    /// A watch with a ring for each of the `workers`, of records that keep `kept_bytes` of a frame,
    /// [`KEPT_BYTES_MAX`] at most. `ports` are all if there is none.
    pub fn new(
        wanted: Wanted,
        ports: &[PortId],
        filter: Filter,
        kept_bytes: usize,
        workers: usize,
    ) -> Self {
        let set = (!ports.is_empty()).then(|| {
            let mut set = Box::new([0; PORTS_MAX / 64]);
            ports.iter().for_each(|port| set[port.index() / 64] |= 1 << (port.index() % 64));
            set
        });
        let kept_bytes = kept_bytes.min(KEPT_BYTES_MAX);
        let ring_bytes = RING_BYTES.min(WATCH_BYTES / workers.max(1));
        let rings = (0..workers).map(|_| Ring::new(kept_bytes, ring_bytes)).collect();
        Self { wanted, ports: set, filter, rings, ended: AtomicBool::new(false) }
    }

    /// Nothing is recorded any more from now on.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    #[inline(always)]
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many workers it has rings for.
    pub fn workers(&self) -> usize {
        self.rings.len()
    }

    /// The oldest record of a worker, to be [given back](Self::give_back) soon.
    pub fn take(&self, worker: usize) -> Option<Record> {
        self.rings.get(worker)?.full.pop()
    }

    /// Lets the worker write this record again, which was taken from it.
    pub fn give_back(&self, worker: usize, record: Record) {
        if let Some(ring) = self.rings.get(worker) {
            ring.give_back(record);
        }
    }

    /// Records that there was no room for, by port, where there are any.
    pub fn lost(&self) -> impl Iterator<Item = (PortId, u64)> + '_ {
        (0..PORTS_MAX).filter_map(|number| {
            let read = |ring: &Ring| ring.lost[number].load(Ordering::Relaxed);
            let lost = self.rings.iter().map(read).sum();
            PortId::new(number).filter(|_| lost > 0).map(|port| (port, lost))
        })
    }

    #[inline]
    fn has(&self, port: PortId) -> bool {
        let bit = |set: &PortSet| set[port.index() / 64] >> (port.index() % 64) & 1 == 1;
        self.ports.as_ref().is_none_or(bit)
    }
}

impl Ring {
    fn new(kept_bytes: usize, ring_bytes: usize) -> Self {
        let records = (ring_bytes / kept_bytes.max(1)).clamp(1, RECORDS_MAX);
        let free = ArrayQueue::new(records);
        for _ in 0..records {
            let record = Record {
                cycles: 0,
                serial: 0,
                from: PortId::new(0).expect("there are ports"),
                step: Step::Received { dropped: None, ports: 0, flooded: false },
                bytes: 0,
                kept: 0,
                // Written once, so that the worker meets no page that the kernel has yet to find.
                data: vec![0xff; kept_bytes].into(),
            };
            free.push(record).expect("the queue has room for as many");
        }
        let lost = (0..PORTS_MAX).map(|_| AtomicU64::new(0)).collect();
        Self { free, full: ArrayQueue::new(records), lost }
    }

    /// A record to be written; if there is none, counts that for `port`.
    fn take(&self, port: PortId) -> Option<Record> {
        let record = self.free.pop();
        if record.is_none() {
            count(&self.lost[port.index()], 1);
        }
        record
    }

    fn publish(&self, record: Record) {
        if let Err(refused) = self.full.push(record) {
            // Both queues have room for all records there are. A worker frees nothing.
            std::mem::forget(refused);
        }
    }

    fn give_back(&self, record: Record) {
        if let Err(refused) = self.free.push(record) {
            std::mem::forget(refused);
        }
    }
}

impl Record {
    /// The frame's bytes, as many as were to be kept.
    pub fn data(&self) -> &[u8] {
        &self.data[..self.kept]
    }

    /// The port at which it was recorded.
    pub fn port(&self) -> PortId {
        match self.step {
            Step::Received { .. } => self.from,
            Step::Sent { to, .. } => to,
        }
    }

    /// Why the frame was dropped there, if it was.
    pub fn dropped(&self) -> Option<DropReason> {
        match self.step {
            Step::Received { dropped, .. } | Step::Sent { dropped, .. } => dropped,
        }
    }
}
