//! What the test suites share.
#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

pub mod console;
pub mod daemon;
pub mod etcd;
pub mod etcd_v2;
pub mod front_end;
pub mod guest;
pub mod namespace;
pub mod process;
pub mod scenario;
pub mod wire;

use std::env;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::thread;

use dataplane::dpdk::{Eal, EalOptions};

/// Says that a test cannot run here, past the test runner's capture; in CI it is a failure.
pub fn skip(reason: &str) {
    let ci = env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "{reason}");
    let test = thread::current().name().unwrap_or("a test").to_owned();
    writeln!(io::stderr(), "SKIPPED {test}: {reason}").expect("standard error is open");
}

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
