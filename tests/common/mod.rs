//! What the test suites share.
#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

pub mod console;
pub mod daemon;
pub mod etcd;
pub mod etcd_v2;
pub mod guest;
pub mod namespace;
pub mod process;
pub mod scenario;
pub mod wire;

use std::sync::OnceLock;

use dataplane::dpdk::{Eal, EalOptions};

/// DPDK, started once in this process: unprivileged, without huge pages, without devices.
pub fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| {
        let options = EalOptions {
            hugepages: false,
            memory_mib: 256,
            file_prefix: format!("viaduct-test-{}", std::process::id()),
            extra_args: Vec::new(),
        };
        Eal::start(&options).expect("DPDK starts without privileges")
    })
}
