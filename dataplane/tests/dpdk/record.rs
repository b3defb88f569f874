//! A `tracing` subscriber that keeps what it is told, for tests to look at.

use std::fmt::{self, Write};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Recorder;

/// Records everything from now on.
pub fn install() {
    tracing::subscriber::set_global_default(Recorder).expect("no other subscriber");
}

/// Whether a line of this level with this text has come from DPDK.
pub fn heard(level: Level, text: &str) -> bool {
    LINES.lock().iter().any(|(at, line)| *at == level && line.contains(text))
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").expect("strings take everything");
        }
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "dpdk" {
            let mut message = Message(String::new());
            event.record(&mut message);
            LINES.lock().push((*event.metadata().level(), message.0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
