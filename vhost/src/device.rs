//! One guest's network device: the place where its session and the workers meet.
//!
//! The session puts running rings into a [`Device`] and takes them out again; workers receive from
//! it through [`RxQueue`]s and send to it with [`Device::send`]. A worker holds a ring's lock
//! during a burst, so when [`Device::stop_ring`] returns no worker has the ring, nor its memory.
//!
//! A guest with several queues gets each flow on one of them, and how many it uses it may change at
//! any time: the queues that take frames are one word, which the session writes when it starts and
//! stops rings and a sender reads once a burst. A frame for a queue that was stopped in between
//! goes to another. Several workers may send to one guest; a flow comes in by one receive queue,
//! hence by one worker, so it stays in order.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::burst::{Burst, Frames, Sent, Source, Staged};
use crate::lock::{SpinGuard, SpinLock};
use crate::rarp;
use crate::spread::Spread;
use crate::vring::{RingCounters, RingPosition, Seat, Violation, Vring, count};

/// A guest's network device. See the [module's head](self).
#[derive(Debug)]
pub struct Device {
    /// The pairs whose receiveq takes frames, a bit each.
    open: AtomicU64,
    rings: Box<[Arc<CachePadded<Ring>>]>,
    /// Set when `violation` is; spares the control thread's tick the lock.
    violated: AtomicBool,
    violation: SpinLock<Option<RingViolation>>,
    /// An address to announce for the guest, in the low 48 bits, below a bit that says so.
    announcement: AtomicU64,
}

/// Laid out so that a look at a quiet ring stays in one line.
#[derive(Debug, Default)]
#[repr(C)]
struct Ring {
    seat: SpinLock<Seat>,
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

/// The most queue pairs of a device: as many as a word has bits.
pub const PAIRS_MAX: u16 = 64;

impl Device {
    /// A device of up to `pairs_max` queue pairs, none of them running.
    ///
    /// # Panics
    /// If these are more than [`PAIRS_MAX`].
    pub fn new(pairs_max: u16) -> Arc<Self> {
        assert!(pairs_max <= PAIRS_MAX, "a device has at most {PAIRS_MAX} queue pairs");
        Arc::new(Self {
            open: AtomicU64::new(0),
            rings: (0..2 * usize::from(pairs_max)).map(|_| Arc::default()).collect(),
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
        let queue = 2 * usize::from(pair) + 1;
        let ring = Arc::clone(&self.rings[queue]);
        RxQueue { own: OwnRing { ring, device: Arc::clone(self), queue }, held: false }
    }

    /// Sends frames to the guest. If several of its receiveqs take frames, each flow goes to one
    /// of them. A ring's lock is held once for all frames that go there. What became of them is added
    /// to `sent`.
    #[inline]
    pub fn send(&self, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        let open = self.open.load(Ordering::Relaxed);
        let pair = open.trailing_zeros() as usize;
        if !open.is_power_of_two() || !self.send_to(pair, frames, staged, sent) {
            self.send_by_flow(frames, staged, sent);
        }
    }

    /// Spreads frames over the pairs whose receiveq takes frames, if there are any.
    #[inline(never)]
    fn send_by_flow(&self, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        let open = self.open.load(Ordering::Relaxed);
        if open == 0 {
            sent.down += staged.len() as u64;
            return;
        }
        for (pair, lane) in Spread::new(open, frames, staged).lanes() {
            self.send_from(pair, frames, &staged.only(lane), sent);
        }
    }

    /// Sends frames to a pair or, if it was closed just now, to another one.
    fn send_from(&self, pair: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        if self.send_to(pair, frames, staged, sent) {
            return;
        }
        let mut open = self.open.load(Ordering::Relaxed) & !(1 << pair);
        while open != 0 {
            if self.send_to(open.trailing_zeros() as usize, frames, staged, sent) {
                return;
            }
            open &= open - 1;
        }
        sent.down += staged.len() as u64;
    }

    /// Sends frames to a pair, and returns whether its receiveq takes any. Not inlined, so that the work on
    /// the ring, which is, exists once and its variables stay in registers.
    #[inline(never)]
    fn send_to(
        &self,
        pair: usize,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        sent: &mut Sent,
    ) -> bool {
        let queue = 2 * pair;
        let ring = &self.rings[queue];
        let Some(mut guard) = ring.seat.lock_bounded() else {
            sent.busy += staged.len() as u64;
            return true;
        };
        let Some(vring) = guard.vring().filter(|vring| vring.is_enabled()) else { return false };
        if let Err(violation) = vring.enqueue(frames, staged, sent, &ring.counters) {
            self.report(RingViolation { queue, violation });
        }
        true
    }

    /// Makes a ring run, in place of the one that ran under this number. Control thread only.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn start_ring(&self, queue: usize, ring: Vring) {
        let Ok(()) = self.rebuild_ring(queue, |_| Ok::<_, Infallible>(Some(ring)));
    }

    /// Takes a ring out and puts in what `build` makes of its position, without a moment in
    /// between in which a worker would find none. If `build` fails there is none afterwards.
    /// Control thread only.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn rebuild_ring<E>(
        &self,
        queue: usize,
        build: impl FnOnce(Option<RingPosition>) -> Result<Option<Vring>, E>,
    ) -> Result<(), E> {
        let mut guard = self.rings[queue].seat.lock();
        let mut old = guard.take();
        let built = build(old.as_mut().map(Vring::stop));
        let (new, outcome) = match built {
            Ok(new) => (new, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let opens = new.as_ref().is_some_and(Vring::is_enabled);
        guard.put(new, self.is_asked());
        if queue.is_multiple_of(2) {
            let pair = 1 << (queue / 2);
            // Under the lock: who finds the ring closed also finds this up to date.
            if opens {
                self.open.fetch_or(pair, Ordering::Relaxed);
            } else {
                self.open.fetch_and(!pair, Ordering::Relaxed);
            }
        }
        drop(guard);
        // The old ring may own the last reference to a memory table: unmap it outside of the lock.
        drop(old);
        outcome
    }

    /// Takes a ring out; afterwards no worker touches it or its memory. Control thread only.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn stop_ring(&self, queue: usize) -> Option<RingPosition> {
        let mut stopped = None;
        let Ok(()) = self.rebuild_ring(queue, |position| {
            stopped = position;
            Ok::<_, Infallible>(None)
        });
        stopped
    }

    /// Where a ring stands, if it runs. Control thread only.
    pub fn ring_position(&self, queue: usize) -> Option<RingPosition> {
        let mut guard = self.rings.get(queue)?.seat.lock();
        guard.vring().map(|vring| vring.position())
    }

    /// Takes what a worker found wrong with the guest's rings. Its session is to be ended.
    pub fn take_violation(&self) -> Option<RingViolation> {
        if !self.violated.swap(false, Ordering::Acquire) {
            return None;
        }
        self.violation.lock().take()
    }

    /// Has the next burst from this guest begin with a RARP request of `mac`. Control thread only.
    pub fn announce(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        self.announcement.store(ANNOUNCE | address, Ordering::Release);
        // Whoever has a ring's lock later sees it, so each ring is asked, by us or by them.
        for ring in self.rings.iter().skip(1).step_by(2) {
            ring.seat.lock().settle(true);
        }
    }

    /// Whether an address is to be announced.
    #[inline(always)]
    fn is_asked(&self) -> bool {
        self.announcement.load(Ordering::Relaxed) != 0
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
                // Unless another one came meanwhile, which is announced in its place.
                let (set, unset) = (Ordering::Release, Ordering::Relaxed);
                let _ = self.announcement.compare_exchange(0, value, set, unset);
            }
        }
    }
}

/// The receive side of one queue pair; belongs to one worker.
#[derive(Debug)]
pub struct RxQueue {
    own: OwnRing,
    /// Whether `fill` kept the ring's lock for `release`.
    held: bool,
}

/// A ring of a device, which is reached without going through the device.
#[derive(Debug)]
struct OwnRing {
    ring: Arc<CachePadded<Ring>>,
    device: Arc<Device>,
    queue: usize,
}

impl RxQueue {
    /// The device that it receives from.
    pub fn device(&self) -> &Arc<Device> {
        &self.own.device
    }
}

impl OwnRing {
    /// Takes a burst from the ring, in which something may wait. If there is one, the lock is kept,
    /// since the frames lie in the ring's memory. Not inlined, so that a look at a quiet ring saves
    /// no registers.
    #[inline(never)]
    fn take(&self, mut seat: SpinGuard<'_, Seat>, burst: &mut Burst, held: &mut bool) {
        if let Some(vring) = seat.vring() {
            self.fill_from(vring, burst);
        }
        seat.settle(self.device.is_asked());
        if !burst.is_empty() {
            std::mem::forget(seat);
            *held = true;
        }
    }

    /// Not inlined, so that its variables stay in registers.
    #[inline(never)]
    fn fill_from(&self, vring: &mut Vring, burst: &mut Burst) {
        let Self { device, queue, ring } = self;
        let outcome = vring.dequeue(burst, &ring.counters);
        if let Err(violation) = outcome {
            device.report(RingViolation { queue: *queue, violation });
        }
        if device.is_asked() {
            device.put_announcement(burst);
        }
    }
}

impl Source for RxQueue {
    fn fill(&mut self, burst: &mut Burst) {
        let Self { own, held } = self;
        debug_assert!(!*held, "the last burst was released");
        let Some(seat) = own.ring.seat.try_lock_own() else { return };
        // A worker looks at all of its rings in turn, and most are empty: these must be cheap, so
        // what is done for them is here, and all else is out of line.
        if seat.is_quiet() {
            return;
        }
        own.take(seat, burst, held);
    }

    fn release(&mut self, burst: &mut Burst) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let ring = &self.own.ring;
        {
            // SAFETY: `held` says that `fill` forgot the guard of this lock and that nothing has
            // unlocked it since. The borrow ends with this block.
            let seat = unsafe { ring.seat.force_value() };
            if let Some(vring) = seat.vring() {
                vring.complete(&ring.counters);
            }
        }
        count(&ring.counters.frames, burst.len() as u64);
        count(&ring.counters.bytes, burst.bytes());
        // SAFETY: as above; the ring is not used any more.
        unsafe { ring.seat.force_unlock() };
    }
}

#[cfg(test)]
mod tests;
