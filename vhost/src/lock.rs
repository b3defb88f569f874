//! The lock around each ring: one atomic exchange to take, one store to give back.
//!
//! Workers take it once per burst with [`SpinLock::try_lock`] (receive) or
//! [`SpinLock::lock_bounded`] (send) and, on cores of their own, never wait in the kernel. The
//! control thread uses [`SpinLock::lock`], which gives its core away between tries: on a small
//! machine the worker that holds the lock may need that very core to finish its burst. Workers that
//! [share their core](share_core) do so too, as the kernel may have put a holder aside for
//! milliseconds.
//!
//! It is not a general mutex: it is unfair, and holders must be quick.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::hint;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a worker looks at a lock that another thread holds before it gives up, or naps. A burst
/// takes a few microseconds; this is some tens.
const TRIES: u32 = 2000;

/// How often a worker that shares its core then naps: 20 ms, a few of the scheduler's slices.
const NAPS: u32 = 1000;

/// How long it naps at least between looks at the lock.
const NAP: Duration = Duration::from_micros(20);

/// How often a thread that naps looks at the lock in between.
const LOOKS: u32 = 64;

thread_local! {
    /// How often this thread naps before it gives up.
    static NAPS_HERE: Cell<u32> = const { Cell::new(0) };
}

/// Says whether the calling thread is a worker whose core is shared with others, as those are that it
/// shares locks with: [`SpinLock::lock_bounded`] then waits for 20 ms and not for some tens of
/// microseconds.
pub fn share_core(shared: bool) {
    NAPS_HERE.set(if shared { NAPS } else { 0 });
}

/// A value that one thread at a time may use, see the [module's head](self).
///
/// Laid out so that the lock shares its line with the value's beginning, which its holder wants.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SpinLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, and `held` lets one guard exist at a time, so
// sharing the lock between threads moves the value between them at most: `T: Send` suffices.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Takes the lock if it is free, at the cost of one atomic exchange.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let free = !self.held.load(Ordering::Relaxed) && !self.held.swap(true, Ordering::Acquire);
        free.then(|| SpinGuard { lock: self })
    }

    /// As [`try_lock`](Self::try_lock), for a lock that hardly anybody else ever takes: it is not
    /// read before. If it is held after all, this takes its line from the holder.
    #[inline]
    pub(crate) fn try_lock_own(&self) -> Option<SpinGuard<'_, T>> {
        let free = !self.held.swap(true, Ordering::Acquire);
        free.then(|| SpinGuard { lock: self })
    }

    /// Takes the lock, waiting for it for a bounded time. For workers.
    #[inline]
    pub fn lock_bounded(&self) -> Option<SpinGuard<'_, T>> {
        self.try_lock().or_else(|| self.wait())
    }

    #[cold]
    fn wait(&self) -> Option<SpinGuard<'_, T>> {
        self.spin(TRIES).or_else(|| {
            (0..NAPS_HERE.get()).find_map(|_| {
                std::thread::sleep(NAP);
                self.spin(LOOKS)
            })
        })
    }

    fn spin(&self, tries: u32) -> Option<SpinGuard<'_, T>> {
        for _ in 0..tries {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            hint::spin_loop();
        }
        None
    }

    /// Takes the lock, sleeping between tries. For the control thread only.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        loop {
            if let Some(guard) = self.spin(LOOKS) {
                return guard;
            }
            std::thread::sleep(NAP);
        }
    }

    /// Gives back a lock whose guard was forgotten.
    ///
    /// # Safety
    /// The caller must hold the lock by a guard that went through [`std::mem::forget`], and must
    /// not use the value afterwards.
    #[inline]
    pub(crate) unsafe fn force_unlock(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// The value of a lock whose guard was forgotten.
    ///
    /// # Safety
    /// The caller must hold the lock by a guard that went through [`std::mem::forget`], and must
    /// end this borrow before it makes another one or unlocks.
    #[expect(clippy::mut_from_ref, reason = "exclusive by the lock that the caller holds")]
    #[inline]
    pub(crate) unsafe fn force_value(&self) -> &mut T {
        // SAFETY: the caller holds the lock, so nobody else has a reference to the value.
        unsafe { &mut *self.value.get() }
    }
}

/// The right to use a [`SpinLock`]'s value; ends when dropped.
#[derive(Debug)]
pub struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard exists, so the lock is held here and nowhere else.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard exists and is borrowed exclusively, so nobody else has the value.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_holder_at_a_time() {
        let lock = Arc::new(SpinLock::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lock = Arc::clone(&lock);
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        *lock.lock() += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*lock.lock(), 40_000);
    }

    #[test]
    fn a_held_lock_is_refused_and_comes_back() {
        let lock = SpinLock::new(1);
        let guard = lock.try_lock().unwrap();
        assert!(lock.try_lock().is_none());
        assert!(lock.try_lock_own().is_none());
        assert!(lock.lock_bounded().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
        assert!(lock.try_lock_own().is_some());
    }

    #[test]
    fn on_a_shared_core_a_holder_may_be_away_for_long() {
        let lock = Arc::new(SpinLock::new(1));
        let guard = lock.try_lock().unwrap();
        let waiting = {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                share_core(true);
                lock.lock_bounded().is_some()
            })
        };
        // Far longer than the spinning takes.
        std::thread::sleep(Duration::from_millis(2));
        drop(guard);
        assert!(waiting.join().unwrap());
    }
}
