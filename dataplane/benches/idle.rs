//! What rest costs and gains: how long a frame waits for a worker that was idle, and how much of its
//! core an idle worker takes, with each setting of `workers.idle`.
//!
//! ```sh
//! cargo bench -p viaduct-dataplane --bench idle
//! ```
//!
//! A guest is silent for some milliseconds, sends one frame, and looks how long it takes to arrive at
//! another guest; the worker runs on a thread of its own. It needs two cores with nothing else on
//! them; what is printed is for people, and judges nothing.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "not a worker")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::idle::{IdlePolicy, Orders};

#[path = "parts/bed.rs"]
#[allow(dead_code, reason = "the other bench uses all of it")]
mod bed;
#[path = "parts/switch.rs"]
mod switch;

use bed::{GuestBed, frame, mac};
use switch::Switch;

/// Frames that are sent with each setting.
const FRAMES: usize = 400;

/// Silence before each of them: longer than any sleep here.
const SILENCE: Duration = Duration::from_millis(5);

fn main() {
    // As `cargo test --benches` calls it: that it builds is enough.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("{:>14}  {:>9}  {:>9}  {:>9}  {:>9}", "idle", "median", "p99", "max", "of core");
    measure("poll", IdlePolicy::Poll);
    for microseconds in [50, 250, 1000] {
        let max = Duration::from_micros(microseconds);
        measure(&format!("sleep {microseconds} us"), IdlePolicy::Sleep { max });
    }
}

fn measure(name: &str, policy: IdlePolicy) {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let Switch { worker, .. } =
        Switch::new(&[Arc::clone(&from.device), Arc::clone(&to.device)], true);
    let orders = Arc::new(Orders::new(policy));
    let followed = Arc::clone(&orders);
    let thread = std::thread::spawn(move || {
        let start = Instant::now();
        worker.run(&followed);
        // The first number: nanoseconds on a core (proc(5)).
        let used = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let used = used.split(' ').next().and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        used / start.elapsed().as_nanos() as f64
    });
    let frame = frame(mac(1), mac(2), 64);
    let mut waits: Vec<Duration> = (0..FRAMES)
        .map(|_| {
            to.supply(1);
            std::thread::sleep(SILENCE);
            let sent = Instant::now();
            from.transmit(&frame, 1);
            while to.received().is_empty() {
                std::hint::spin_loop();
            }
            sent.elapsed()
        })
        .collect();
    orders.stop();
    let share = thread.join().expect("the worker ends in peace");
    waits.sort_unstable();
    let at = |share: f64| {
        format!(
            "{:.1} us",
            waits[(share * (FRAMES - 1) as f64) as usize].as_nanos() as f64 / 1000.0
        )
    };
    println!(
        "{name:>14}  {:>9}  {:>9}  {:>9}  {:>8.1}%",
        at(0.5),
        at(0.99),
        at(1.0),
        share * 100.0
    );
}
