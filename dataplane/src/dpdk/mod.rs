//! DPDK behind a fence: EAL, memory pools, frames in mbufs, Ethernet devices and their queues.
//!
//! The only place that calls DPDK, and with guest memory the only place in this crate where
//! `unsafe` may stand. Everything that is exported is safe to use as its types allow, with one
//! exception that cannot be avoided: [`Mbuf::from_raw`]. What is here knows frames and devices; it
//! knows neither ports nor bridge domains.
//!
//! ```text
//! Eal ── once per process; a token that others ask for as proof
//!  ├─ Mempool ── shared handle; its memory outlives every Mbuf
//!  │    └─ Mbuf ── one frame, owned; freed when dropped
//!  ├─ EthDev ── one probed device; stopped, closed and removed with its last handle
//!  │    └─ RxQueue, TxQueue ── owned by the worker that polls them; keep device and pool alive
//!  └─ RegisteredThread ── a worker's pass to the pools' per-thread caches
//! ```
//!
//! Threads: probing, configuring and removing devices belong to the control thread (they block);
//! bursts and frames belong to workers and enter no lock.

// The fence: calls into C and frames that lie in C's memory.
#![allow(unsafe_code)]
// Locks are for probing, configuring, and making and freeing pools; bursts and frames take none.
#![allow(clippy::disallowed_methods)]

mod address;
mod configure;
mod descriptors;
mod devargs;
mod eal;
mod error;
mod ethdev;
mod event;
mod log;
mod mbuf;
mod mempool;
mod offload;
mod queue;
mod thread;
mod vlan;

pub use configure::{Applied, DESCRIPTORS, EthConfig, Started};
pub use descriptors::keep_descriptors;
pub use eal::{Eal, EalOptions};
pub use error::{EalError, EthError, PoolError, ProbeError};
pub use ethdev::{EthDev, EthStats, Link};
pub use event::DeviceEvent;
pub use mbuf::{Mbuf, Segments, free_bulk};
pub use mempool::Mempool;
pub use offload::{Leave, TxOffloads};
pub use queue::{RxQueue, TxQueue};
pub use thread::RegisteredThread;

use std::ffi::CStr;

/// What DPDK calls an error number (positive, as in `errno`).
fn errno_name(errno: i32) -> String {
    // SAFETY: rte_strerror takes any number and returns a string that is static or thread-local;
    // it is copied before the thread can call it again.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.abs())) };
    text.to_string_lossy().into_owned()
}
