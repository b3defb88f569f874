//! What it costs a burst that rules are replaced: how long a worker takes for one iteration with 64
//! frames while its plan stays, and while another thread publishes one with other rules each millisecond.
//!
//! ```sh
//! cargo bench -p viaduct-dataplane --bench swap
//! ```
//!
//! Each port has 10 000 rules in each direction, compiled before. It needs two cores with nothing else on
//! them; what is printed is for people, and judges nothing.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "not a worker")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "parts/bed.rs"]
#[allow(dead_code, reason = "the other bench uses all of it")]
mod bed;
#[path = "parts/filters.rs"]
#[allow(dead_code, reason = "the other bench uses all of it")]
mod filters;
#[path = "parts/part.rs"]
#[allow(dead_code, reason = "the other bench uses all of it")]
mod part;
#[path = "parts/switch.rs"]
#[allow(dead_code, reason = "the other bench uses all of it")]
mod switch;

use bed::{BURST, GuestBed, frame, mac};
use switch::{Switch, plan};

/// Iterations that are timed in each turn.
const ITERATIONS: usize = 200_000;

/// Turns with each.
const TURNS: usize = 5;

fn main() {
    // As `cargo test --benches` calls it: that it builds is enough.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>10} {:>6}",
        "rules", "median", "p99", "p99.99", "max", "plans"
    );
    for _ in 0..TURNS {
        measure("stay", false);
        measure("replaced", true);
    }
}

fn measure(name: &str, replaced: bool) {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let devices = [Arc::clone(&from.device), Arc::clone(&to.device)];
    let sets = [10_000, 9_999].map(|count| filters::permitting(Some(count)));
    let policy = |set: usize| {
        let acl = Arc::clone(&sets[set % sets.len()]);
        move |number| Some(filters::policy(number, &acl))
    };
    let Switch { mut worker, mut publisher, hash, .. } =
        Switch::with_policies(&devices, true, policy(0));
    let (frame, over) = (frame(mac(1), mac(2), 64), AtomicBool::new(false));
    let mut times = Vec::with_capacity(ITERATIONS);
    let plans = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut plans = 0;
            while replaced && !over.load(Ordering::Relaxed) {
                plans += 1;
                publisher.publish(plan(hash, &devices, true, policy(plans)));
                std::thread::sleep(Duration::from_millis(1));
            }
            plans
        });
        for _ in 0..ITERATIONS {
            from.transmit(&frame, BURST);
            to.supply(BURST);
            let start = Instant::now();
            assert_eq!(worker.poll() as u64, BURST);
            times.push(start.elapsed());
            assert_eq!(to.received().len() as u64, BURST, "none is lost");
        }
        over.store(true, Ordering::Relaxed);
        publishing.join().expect("plans are published in peace")
    });
    times.sort_unstable();
    let at = |share: f64| {
        let time = times[(share * (ITERATIONS - 1) as f64) as usize];
        format!("{:.2} us", time.as_nanos() as f64 / 1000.0)
    };
    let (p50, p99, p9999, max) = (at(0.5), at(0.99), at(0.9999), at(1.0));
    println!("{name:>9} {p50:>9} {p99:>9} {p9999:>9} {max:>10} {plans:>6}");
}
