//! The primitives of `publish`, replaced by loom's when its tests explore all interleavings.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

/// Takes the lock if it is free.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    #[cfg(feature = "loom")]
    return mutex.try_lock().ok();
    #[cfg(not(feature = "loom"))]
    mutex.try_lock()
}

/// Takes the lock. For the control thread; a worker holds it for the time of a pointer's copy.
#[expect(clippy::disallowed_methods, reason = "the publishing side may wait")]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(feature = "loom")]
    return mutex.lock().expect("no panic while it is held");
    #[cfg(not(feature = "loom"))]
    mutex.lock()
}
