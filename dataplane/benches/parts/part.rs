//! What a part is, and how what it does is measured.

use std::time::{Duration, Instant};

/// Something that a worker does to frames or queues, to be measured by itself.
pub struct Part {
    /// Its name in tables and on command lines.
    pub name: &'static str,
    /// What it is done to: a frame, say.
    pub unit: &'static str,
    /// How many of these one run does.
    pub units: u64,
    /// Builds what it needs.
    pub build: fn() -> Box<dyn Run>,
}

/// A part with all that it needs.
pub trait Run {
    /// Prepares and does the part's work once, the work under the meter.
    fn run(&mut self, meter: &mut Meter);
}

impl<F: FnMut(&mut Meter)> Run for F {
    fn run(&mut self, meter: &mut Meter) {
        self(meter);
    }
}

/// Tells what counts from what only prepares.
pub struct Meter {
    on: bool,
    elapsed: Duration,
}

impl Meter {
    /// One that measures.
    pub fn on() -> Self {
        Self { on: true, elapsed: Duration::ZERO }
    }

    /// One that does the work and measures nothing.
    pub fn off() -> Self {
        Self { on: false, elapsed: Duration::ZERO }
    }

    /// Does work that counts.
    pub fn measure(&mut self, mut work: impl FnMut()) {
        if self.on {
            let start = Instant::now();
            measured(&mut work);
            self.elapsed += start.elapsed();
        } else {
            work();
        }
    }

    /// How long all work under this meter took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// Valgrind counts from the entry to the exit of this function; `scripts/instructions` names it.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}
