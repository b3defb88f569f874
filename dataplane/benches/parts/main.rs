//! Benches of the parts that a frame passes on its way, and of the whole way through a worker.
//!
//! ```sh
//! cargo bench -p viaduct-dataplane --bench parts            # times, by criterion
//! cargo bench -p viaduct-dataplane --bench parts -- poll    # only those
//! scripts/instructions                                      # instructions, by valgrind
//! ```
//!
//! Times vary by half on a machine that others use; how many instructions a part takes does not.
//! So each part can also be run a few times by name, as `scripts/instructions` does under
//! valgrind, whose counts are compared with those in `instructions.toml`. Both ways run the same
//! code, see [`Meter`]. What is rare or only prepares is not measured.
#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::disallowed_macros, reason = "no worker of the switch runs in here")]

mod bed;
mod filters;
mod part;
mod rings;
mod switch;
mod tables;
mod whole;

use std::time::Duration;

use criterion::{Criterion, Throughput};

use part::{Meter, Part};

/// Runs that are made of a part to count instructions: some to warm up, then those that count.
const WARM_UP_RUNS: u64 = 8;
const COUNTED_RUNS: u64 = 32;

fn parts() -> Vec<Part> {
    [tables::parts(), filters::parts(), rings::parts(), whole::parts()]
        .into_iter()
        .flatten()
        .collect()
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--names"] => parts().iter().for_each(|part| println!("{}", part.name)),
        ["--count", name] => {
            let part = parts().into_iter().find(|part| part.name == name);
            let part = part.unwrap_or_else(|| panic!("there is no part {name:?}: see --names"));
            count(&part);
        }
        _ => time(),
    }
}

/// Runs a part for somebody who counts instructions, and tells by how many units to divide.
fn count(part: &Part) {
    let mut bed = (part.build)();
    for _ in 0..WARM_UP_RUNS {
        bed.run(&mut Meter::off());
    }
    let mut meter = Meter::on();
    for _ in 0..COUNTED_RUNS {
        bed.run(&mut meter);
    }
    println!("{} {}", COUNTED_RUNS * part.units, part.unit);
}

fn time() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for part in parts() {
        let mut group = criterion.benchmark_group(part.name);
        group.throughput(Throughput::Elements(part.units));
        group.bench_function(part.unit, |bencher| {
            let mut bed = (part.build)();
            bencher.iter_custom(|runs| {
                let mut meter = Meter::on();
                for _ in 0..runs {
                    bed.run(&mut meter);
                }
                meter.elapsed()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
