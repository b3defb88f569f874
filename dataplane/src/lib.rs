//! The data plane: frames from receive queues, through bridge domains, to ports.
//!
//! Begin with [`Worker::poll`](worker::Worker::poll), the heart, and [`decide`](decide::decide),
//! the decision. One worker runs per core; it learns of change by two roads only:
//!
//! * **published values**: an immutable [`Plan`](snapshot::Plan), replaced whole
//!   ([`publish`]);
//! * **mailed things**: receive queues that change owner ([`mailbox`]).
//!
//! What is absent: a worker never waits, allocates, logs or enters the kernel (the interrupt to a
//! guest and, where the operator asked for it, the rest when idle excepted). There is no flow
//! cache, no connection table and no upcall; the only table that traffic writes to is the [`fdb`],
//! which is bounded and only hints: the snapshot decides.
//!
//! Everything but `dpdk` and `port::eth` builds and is tested without DPDK (feature `dpdk` off).
#![deny(unsafe_code)]

pub mod acl;
pub mod clock;
pub mod counters;
pub mod decide;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod exits;
pub mod fdb;
pub mod headers;
pub mod idle;
mod lanes;
pub mod mailbox;
mod outbox;
pub mod packet;
mod pass;
pub mod policy;
pub mod port;
pub mod publish;
mod sample;
pub mod snapshot;
mod sync;
pub mod trial;
mod turns;
pub mod watch;
pub mod worker;
