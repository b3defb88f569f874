//! How long to wait before a guest's socket is tried again.

use std::time::Duration;

/// Growing pauses, each up to a quarter longer by chance, so that many ports do not try at once.
pub(super) struct Backoff {
    /// The first pause, and the next after a good session.
    pub(super) first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min_ms: u32, max_ms: u32) -> Self {
        let first = Duration::from_millis(min_ms.into());
        Self { first, max: Duration::from_millis(max_ms.into()).max(first), next: first }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        let chance = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        pause + pause * chance / 1024
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}
