//! One guest's network device: the place where its session and the workers meet.
//!
//! The session puts running rings into a [`Device`] and takes them out again; workers receive from
//! it through [`RxQueue`]s and send to it with [`Device::send`]. A worker holds a ring's lock
//! during a burst, so when [`Device::stop_ring`] returns no worker has the ring, nor its memory.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::burst::{Burst, Frames, Sent, Source, Staged};
use crate::lock::SpinLock;
use crate::rarp;
use crate::vring::{RingCounters, Violation, Vring, count};

/// How often a worker looks at a ring that another thread holds before it drops the frames meant
/// for it. A burst takes a few microseconds; this is some tens.
const BUSY_TRIES: u32 = 2000;

/// A guest's network device. See the [module's head](self).
#[derive(Debug)]
pub struct Device {
    rings: Box<[CachePadded<Ring>]>,
    /// Set when `violation` is; spares the control thread's tick the lock.
    violated: AtomicBool,
    violation: SpinLock<Option<RingViolation>>,
    /// An address to announce for the guest, in the low 48 bits, below a bit that says so.
    announcement: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    vring: SpinLock<Option<Vring>>,
    counters: RingCounters,
}

/// What a worker found wrong with a ring of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue}: {violation}")]
pub struct RingViolation {
    /// The ring, as virtio numbers them (virtio 1.2 §5.1.2).
    pub queue: usize,
    /// What it was.
    pub violation: Violation,
}

/// Where a ring stood when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPosition {
    /// Next entry of the available ring (vhost-user: `GET_VRING_BASE`).
    pub next_available: u16,
    /// Next entry of the used ring.
    pub next_used: u16,
}

/// Counts of one ring since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Frames moved.
    pub frames: u64,
    /// Their bytes, without net headers.
    pub bytes: u64,
    /// Frames dropped since the guest had made no buffer available.
    pub full: u64,
    /// Frames dropped since none of the guest's buffers could hold them.
    pub too_big: u64,
    /// Frames taken from a disabled queue and thrown away.
    pub discarded: u64,
    /// Interrupts sent to the driver.
    pub kicks: u64,
}

const ANNOUNCE: u64 = 1 << 48;

impl Device {
    /// A device of up to `pairs_max` queue pairs, none of them running.
    pub fn new(pairs_max: u16) -> Arc<Self> {
        Arc::new(Self {
            rings: (0..2 * usize::from(pairs_max)).map(|_| CachePadded::default()).collect(),
            violated: AtomicBool::new(false),
            violation: SpinLock::new(None),
            announcement: AtomicU64::new(0),
        })
    }

    /// The most queue pairs it can have.
    pub fn pairs_max(&self) -> u16 {
        (self.rings.len() / 2) as u16
    }

    /// The receive side of queue pair `pair`, for one worker.
    ///
    /// # Panics
    /// If there is no such pair.
    pub fn rxq(self: &Arc<Self>, pair: u16) -> RxQueue {
        assert!(pair < self.pairs_max(), "the device has {} queue pairs", self.pairs_max());
        RxQueue { device: Arc::clone(self), ring: 2 * usize::from(pair) + 1, held: false }
    }

    /// Sends frames to the guest: on the receiveq of pair `queue` modulo the pairs that run, so
    /// any number will do. The ring's lock is held once for all of them.
    #[inline]
    pub fn send(&self, queue: usize, frames: Frames<'_>, staged: &[Staged]) -> Sent {
        let pairs = self.rings.len() / 2;
        for pair in 0..pairs {
            let index = 2 * ((queue + pair) % pairs);
            let ring = &self.rings[index];
            let Some(mut guard) = ring.vring.lock_bounded(BUSY_TRIES) else {
                return Sent { busy: staged.len() as u64, ..Sent::default() };
            };
            let Some(vring) = guard.as_mut().filter(|vring| vring.is_enabled()) else { continue };
            let (sent, outcome) = vring.enqueue(frames, staged, &ring.counters);
            if let Err(violation) = outcome {
                self.report(RingViolation { queue: index, violation });
            }
            return sent;
        }
        Sent { down: staged.len() as u64, ..Sent::default() }
    }

    /// Makes a ring run, in place of the one that ran under this number. Control thread only.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn start_ring(&self, queue: usize, ring: Vring) {
        let old = self.rings[queue].vring.lock().replace(ring);
        // The old ring may own the last reference to a memory table: unmap it outside of the lock.
        drop(old);
    }

    /// Takes a ring out; afterwards no worker touches it or its memory. Control thread only.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn stop_ring(&self, queue: usize) -> Option<RingPosition> {
        let old = self.rings[queue].vring.lock().take();
        old.map(|vring| {
            let (next_available, next_used) = vring.position();
            RingPosition { next_available, next_used }
        })
    }

    /// Where a ring stands, if it runs. Control thread only.
    pub fn ring_position(&self, queue: usize) -> Option<RingPosition> {
        let guard = self.rings.get(queue)?.vring.lock();
        guard.as_ref().map(|vring| {
            let (next_available, next_used) = vring.position();
            RingPosition { next_available, next_used }
        })
    }

    /// Takes what a worker found wrong with the guest's rings. Its session is to be ended.
    pub fn take_violation(&self) -> Option<RingViolation> {
        if !self.violated.swap(false, Ordering::Acquire) {
            return None;
        }
        self.violation.lock().take()
    }

    /// Has the next burst from this guest begin with a RARP request of `mac`.
    pub fn announce(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        self.announcement.store(ANNOUNCE | address, Ordering::Release);
    }

    /// Counts of one ring; zeros for one that does not exist.
    pub fn statistics(&self, queue: usize) -> QueueStatistics {
        let Some(ring) = self.rings.get(queue) else { return QueueStatistics::default() };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueStatistics {
            frames: read(&ring.counters.frames),
            bytes: read(&ring.counters.bytes),
            full: read(&ring.counters.full),
            too_big: read(&ring.counters.too_big),
            discarded: read(&ring.counters.discarded),
            kicks: read(&ring.counters.kicks),
        }
    }

    #[cold]
    fn report(&self, violation: RingViolation) {
        // The first one counts; if the control thread is just reading it, there is one already.
        if let Some(mut first) = self.violation.try_lock() {
            first.get_or_insert(violation);
        }
        self.violated.store(true, Ordering::Release);
    }

    #[cold]
    fn put_announcement(&self, burst: &mut Burst) {
        let value = self.announcement.swap(0, Ordering::Acquire);
        if value & ANNOUNCE != 0 {
            let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
            let added = burst.push_private(&rarp::request([a, b, c, d, e, f]));
            if !added {
                self.announcement.fetch_or(value, Ordering::Release);
            }
        }
    }
}

/// The receive side of one queue pair; belongs to one worker.
#[derive(Debug)]
pub struct RxQueue {
    device: Arc<Device>,
    ring: usize,
    /// Whether `fill` kept the ring's lock for `release`.
    held: bool,
}

impl RxQueue {
    /// The device that it receives from.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Fills a burst from this queue's ring, in which something may wait.
    #[inline(never)]
    fn fill_from(&self, vring: &mut Vring, burst: &mut Burst) {
        let Self { device, ring, .. } = self;
        let outcome = vring.dequeue(burst, &device.rings[*ring].counters);
        if let Err(violation) = outcome {
            device.report(RingViolation { queue: *ring, violation });
        }
        if device.announcement.load(Ordering::Relaxed) != 0 {
            device.put_announcement(burst);
        }
    }
}

impl Source for RxQueue {
    #[inline]
    fn fill(&mut self, burst: &mut Burst) {
        let ring = &self.device.rings[self.ring];
        debug_assert!(!self.held, "the last burst was released");
        let Some(mut guard) = ring.vring.try_lock() else { return };
        let Some(vring) = guard.as_mut() else { return };
        // A worker looks at all of its rings in turn, and most are empty: these must be cheap, so
        // what is done for them is here, and all else is out of line.
        if vring.is_quiet() && self.device.announcement.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.fill_from(vring, burst);
        if !burst.is_empty() {
            // The frames lie in the ring's memory: keep the lock until `release`.
            std::mem::forget(guard);
            self.held = true;
        }
    }

    #[inline]
    fn release(&mut self, burst: &mut Burst) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let ring = &self.device.rings[self.ring];
        {
            // SAFETY: `held` says that `fill` forgot the guard of this lock and that nothing has
            // unlocked it since. The borrow ends with this block.
            let vring = unsafe { ring.vring.force_value() };
            if let Some(vring) = vring {
                vring.complete(&ring.counters);
            }
        }
        count(&ring.counters.frames, burst.len() as u64);
        count(&ring.counters.bytes, burst.bytes());
        // SAFETY: as above; the ring is not used any more.
        unsafe { ring.vring.force_unlock() };
    }
}
