//! The vhost-user back-end: everything between a guest's virtio-net device and the switch.
//!
//! Two halves that meet in [`Device`]:
//!
//! * the **session** half speaks the vhost-user protocol on a unix socket. It runs on the control
//!   thread, may block and allocate, and decides when a ring may be used and when no longer;
//! * the **ring** half moves frames. It runs on workers, never blocks, allocates or logs, and
//!   trusts nothing that a guest can write.
//!
//! Each ring stands behind a lock that a worker takes once per burst and the session takes to
//! start, stop or rebuild the ring. So memory is never unmapped under a worker: whoever holds the
//! ring's lock holds its memory.
//!
//! The crate knows no DPDK and no bridge domain. Its unit of work is the [`Burst`]: frames whose
//! heads have been copied to private memory and whose bodies still lie where they came from.
#![deny(unsafe_code)]

mod burst;
mod copy;
mod device;
pub mod features;
mod flow;
mod lock;
mod memory;
pub mod message;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
mod offload;
mod rarp;
pub mod session;
pub mod socket;
mod spread;
mod vring;

pub use burst::{
    BURST_MAX, Burst, FrameRef, Frames, HEAD_MAX, Received, Segment, Sent, Source, Staged,
    StagedFrame, TagEdit,
};
pub use copy::prefetch;
pub use device::{Device, PAIRS_MAX, QueueStatistics, RingViolation, RxQueue};
pub use lock::{SpinGuard, SpinLock, share_core};
pub use memory::{GuestMemory, MemoryError, RegionSpec};
pub use offload::{Completion, NicOffload, Offload, Offloads, Part};
pub use vring::{
    Call, CallError, RING_SIZE_MAX, RingLayout, RingPosition, Violation, Vring, VringConfig,
    VringError,
};
