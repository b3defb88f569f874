//! The DPDK layer on a real EAL: without huge pages, without privilege, on DPDK's virtual devices.
//!
//! EAL lives once in a process, so the tests share one and take turns ([`eal`]); what needs a start
//! of its own runs in a child process (`start`). Only `kernel` needs root, and says so if it has
//! to skip.
#![cfg(feature = "dpdk")]
#![allow(clippy::disallowed_methods, reason = "tests are no workers, and may wait")]

mod devices;
mod frames;
mod kernel;
mod offloads;
mod record;
mod start;

use std::io::{self, Write};
use std::sync::OnceLock;

use dataplane::dpdk::{Eal, EalOptions, Mbuf, Mempool};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};

/// A turn: EAL, and nobody else using it.
struct Turn {
    eal: Eal,
    _others_wait: MutexGuard<'static, ()>,
}

/// Starts EAL if it is not running and waits for the test's turn.
fn eal() -> Turn {
    static EAL: OnceLock<Eal> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock();
    let eal = EAL.get_or_init(|| {
        record::install();
        let before = affinity();
        let eal = Eal::start(&small()).expect("EAL starts without huge pages");
        assert!(before == affinity(), "EAL has changed the affinity of the thread that started it");
        eal
    });
    Turn { eal: *eal, _others_wait: turn }
}

/// Says that a test cannot run here. Not by a print macro, whose text the test harness hides.
fn skip(test: &str, reason: &str) {
    writeln!(io::stderr(), "SKIPPED {test}: {reason}").expect("stderr is open");
}

/// Options that work anywhere.
fn small() -> EalOptions {
    EalOptions { hugepages: false, memory_mib: 128, ..EalOptions::default() }
}

fn affinity() -> CpuSet {
    sched_getaffinity(Pid::from_raw(0)).expect("the affinity can be read")
}

/// A frame of `pool` with these bytes, in one segment.
fn frame(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut frame = pool.alloc().expect("the pool has a frame");
    frame.append(bytes.len()).expect("it fits").copy_from_slice(bytes);
    frame
}

/// All bytes of a frame.
fn bytes(frame: &Mbuf) -> Vec<u8> {
    frame.segments().flatten().copied().collect()
}

/// A test frame: broadcast, of a local experimental ethertype (IEEE 802, 0x88b5), with a number.
fn numbered(number: u16) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(60, 0x5a);
    bytes
}
