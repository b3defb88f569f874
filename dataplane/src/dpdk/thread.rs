//! Threads registered with DPDK, and how many there are.
//!
//! DPDK calls a registered thread an lcore and keeps a cache for it in every memory pool. The
//! number of them matters once more: only registered threads touch a pool's memory after a frame
//! has been counted as returned, so a pool may be freed when there are none (see `mempool`).

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

use parking_lot::{Mutex, MutexGuard};

use super::error::EalError;
use super::{errno_name, mempool};

/// Keeps the thread that made it registered with DPDK; see
/// [`Eal::register_thread`](super::Eal::register_thread).
#[derive(Debug)]
pub struct RegisteredThread {
    /// DPDK keeps the registration in thread-locals, so the guard must stay on its thread.
    stays_on_its_thread: PhantomData<*const ()>,
}

/// How many threads are registered.
static REGISTERED: Mutex<usize> = Mutex::new(0);

thread_local! {
    static THIS_THREAD: Cell<bool> = const { Cell::new(false) };
    /// The registration of a thread that has it for life.
    static KEPT: RefCell<Option<RegisteredThread>> = const { RefCell::new(None) };
}

impl RegisteredThread {
    pub(super) fn new() -> Result<Self, EalError> {
        let refuse = |reason: &str| Err(EalError::Thread(reason.to_owned()));
        if THIS_THREAD.get() {
            return refuse("it is registered already");
        }
        let mut registered = REGISTERED.lock();
        // SAFETY: EAL runs, of which the caller of register_thread holds the proof; this thread is
        // not registered.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            // SAFETY: reads a thread-local of this thread.
            return match unsafe { dpdk_sys::viaduct_errno() } {
                libc::ENOMEM => {
                    refuse("as many threads are as this DPDK allows; use fewer workers")
                }
                errno => refuse(&errno_name(errno)),
            };
        }
        *registered += 1;
        THIS_THREAD.set(true);
        Ok(Self { stays_on_its_thread: PhantomData })
    }
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        let mut registered = REGISTERED.lock();
        // SAFETY: this is the thread that was registered: the guard is not Send.
        unsafe { dpdk_sys::rte_thread_unregister() };
        *registered -= 1;
        THIS_THREAD.set(false);
        drop(registered);
        mempool::free_retired();
    }
}

/// Keeps the calling thread registered until it ends.
pub(super) fn keep(registered: RegisteredThread) {
    KEPT.set(Some(registered));
}

/// Proof that, while it is held, no other thread is registered or becomes so.
pub(super) struct Alone {
    _registered: MutexGuard<'static, usize>,
}

/// The proof, if it can be given now.
pub(super) fn alone() -> Option<Alone> {
    let registered = REGISTERED.lock();
    let mine = usize::from(THIS_THREAD.get());
    (*registered == mine).then_some(Alone { _registered: registered })
}
