//! What a worker does when there is nothing to do.
//!
//! By default it polls on, which is fastest and what an isolated core is for. Where cores are
//! shared (a laptop, a test machine with guests on the same cores) it can rest in growing steps
//! instead, up to a bound that the operator chose: the longest that a frame may then wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Empty polls before the first rest.
const PATIENCE: u32 = 64;

/// How to be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Poll on.
    Poll,
    /// Sleep, twice as long each time, up to this long.
    Sleep {
        /// The longest sleep.
        max: Duration,
    },
}

/// What a worker is told without mail, in one word that it looks at between bursts: how to be idle,
/// to pause, and to stop.
#[derive(Debug)]
pub struct Orders {
    word: AtomicU64,
    /// The worker has done all that it had begun and waits.
    paused: AtomicBool,
}

/// What the word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To work, and to be idle like this.
    Work(IdlePolicy),
    /// To wait for another order, with nothing under way.
    Pause,
    /// To stop.
    Stop,
}

impl Orders {
    /// To stop.
    const STOP: u64 = u64::MAX;
    /// To pause.
    const PAUSE: u64 = u64::MAX - 1;

    /// To work, and to be idle like this.
    pub fn new(policy: IdlePolicy) -> Self {
        Self { word: AtomicU64::new(Self::word(policy)), paused: AtomicBool::new(false) }
    }

    /// To wait, before any work, for [`work`](Self::work).
    pub fn paused() -> Self {
        Self { word: AtomicU64::new(Self::PAUSE), paused: AtomicBool::new(false) }
    }

    /// To be idle like this from now on.
    pub fn idle(&self, policy: IdlePolicy) {
        // Who was told to stop or to pause has not been told otherwise.
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (word < Self::PAUSE).then_some(Self::word(policy))
        });
    }

    /// To work again after a pause, and to be idle like this. Its thread has to be unparked.
    pub fn work(&self, policy: IdlePolicy) {
        self.paused.store(false, Ordering::Relaxed);
        self.word.store(Self::word(policy), Ordering::Release);
    }

    /// To do what is begun and wait; see [`is_paused`](Self::is_paused).
    pub fn pause(&self) {
        self.word.store(Self::PAUSE, Ordering::Relaxed);
    }

    /// Whether the worker waits. All that it did before is to be seen then.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// To stop. A thread that waits has to be unparked.
    pub fn stop(&self) {
        self.word.store(Self::STOP, Ordering::Relaxed);
    }

    /// The longest sleep in nanoseconds; 0 to poll on.
    fn word(policy: IdlePolicy) -> u64 {
        match policy {
            IdlePolicy::Poll => 0,
            IdlePolicy::Sleep { max } => {
                u64::try_from(max.as_nanos()).unwrap_or(u64::MAX).min(Self::PAUSE - 1)
            }
        }
    }

    /// What is ordered, to be compared with what was.
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }

    /// What the word says.
    pub(crate) fn read(word: u64) -> Order {
        match word {
            Self::STOP => Order::Stop,
            Self::PAUSE => Order::Pause,
            0 => Order::Work(IdlePolicy::Poll),
            nanos => Order::Work(IdlePolicy::Sleep { max: Duration::from_nanos(nanos) }),
        }
    }

    /// Waits while the order is to pause.
    #[cold]
    pub(crate) fn wait(&self) {
        self.paused.store(true, Ordering::Release);
        while self.word.load(Ordering::Acquire) == Self::PAUSE {
            std::thread::park();
        }
        self.paused.store(false, Ordering::Relaxed);
    }
}

/// A worker's idleness.
#[derive(Debug)]
pub struct Idle {
    policy: IdlePolicy,
    empty_polls: u32,
    next: Duration,
}

const FIRST_REST: Duration = Duration::from_micros(1);

impl Idle {
    /// Not idle yet.
    pub fn new(policy: IdlePolicy) -> Self {
        Self { policy, empty_polls: 0, next: FIRST_REST }
    }

    /// Makes the calling worker's thread one that rests, or one that does not. If it does, its sleeps
    /// end on time, not up to 50 µs late, and it is patient with workers that the kernel has put
    /// aside, as their cores are shared too.
    pub fn prepare_thread(&self) {
        let rests = self.policy != IdlePolicy::Poll;
        if rests {
            // Without it sleeps are longer than asked for, which is no reason to fail.
            let _ = nix::sys::prctl::set_timerslack(1);
        }
        vhost::share_core(rests);
    }

    /// Takes note of a poll, and rests if that is due. Returns whether it rested.
    #[inline(always)]
    pub fn after_poll(&mut self, frames: usize) -> bool {
        let IdlePolicy::Sleep { max } = self.policy else { return false };
        if frames > 0 {
            (self.empty_polls, self.next) = (0, FIRST_REST);
            return false;
        }
        self.empty_polls += 1;
        if self.empty_polls < PATIENCE {
            return false;
        }
        self.rest(max);
        true
    }

    #[cold]
    #[expect(clippy::disallowed_methods, reason = "the operator asked for it")]
    fn rest(&mut self, max: Duration) {
        std::thread::sleep(self.next.min(max));
        self.next = (self.next * 2).min(max);
        self.empty_polls = PATIENCE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_the_bound_and_work_ends_them() {
        let max = Duration::from_micros(10);
        let mut idle = Idle::new(IdlePolicy::Sleep { max });
        let rested = (0..PATIENCE + 5).filter(|_| idle.after_poll(0)).count();
        assert_eq!(rested, 6);
        assert_eq!(idle.next, max);
        assert!(!idle.after_poll(3));
        assert_eq!(idle.next, FIRST_REST);
        assert!(!idle.after_poll(0));
    }

    #[test]
    fn orders_are_followed_until_the_last() {
        let sleep = |micros| IdlePolicy::Sleep { max: Duration::from_micros(micros) };
        let orders = Orders::new(sleep(250));
        assert_eq!(Orders::read(orders.load()), Order::Work(sleep(250)));
        for policy in [IdlePolicy::Poll, sleep(1), IdlePolicy::Sleep { max: Duration::MAX }] {
            orders.idle(policy);
            let order = Orders::read(orders.load());
            assert!(matches!(order, Order::Work(_)), "{policy:?} is no order to stop or pause");
        }
        orders.pause();
        orders.idle(IdlePolicy::Poll);
        assert_eq!(Orders::read(orders.load()), Order::Pause);
        orders.work(sleep(2));
        assert_eq!(Orders::read(orders.load()), Order::Work(sleep(2)));
        orders.stop();
        orders.idle(IdlePolicy::Poll);
        assert_eq!(Orders::read(orders.load()), Order::Stop);
    }

    #[test]
    fn who_pauses_says_so_and_waits_to_be_told() {
        let orders = std::sync::Arc::new(Orders::paused());
        assert!(!orders.is_paused(), "nobody has read the order");
        let of_thread = std::sync::Arc::clone(&orders);
        let thread = std::thread::spawn(move || of_thread.wait());
        while !orders.is_paused() {
            std::thread::yield_now();
        }
        assert!(!thread.is_finished());
        orders.work(IdlePolicy::Poll);
        thread.thread().unpark();
        thread.join().expect("it goes on");
    }

    #[test]
    fn polling_never_rests() {
        let mut idle = Idle::new(IdlePolicy::Poll);
        assert!((0..10_000).all(|_| !idle.after_poll(0)));
    }
}
