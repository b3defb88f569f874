//! One worker, as the control thread sees it: what it is sent, and what it gives back.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::counters::WorkerCounters;
use dataplane::dpdk::{Eal, EalError};
use dataplane::idle::Orders;
use dataplane::mailbox::{Mail, Postman, Returned};
use dataplane::port::Rxq;
use dataplane::snapshot::PortId;

use super::{Assigned, PATIENCE, PROMPT};

/// How long workers may take before the log says so.
const SLOW: Duration = Duration::from_secs(1);

/// One worker, as the control thread sees it.
pub(super) struct Member {
    /// Its number, which it keeps; its place in the crew may change.
    pub(super) number: usize,
    pub(super) core: u32,
    pub(super) orders: Arc<Orders>,
    pub(super) postman: Postman,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) thread: JoinHandle<()>,
    /// The receive queues that it was given.
    pub(super) queues: Vec<Assigned>,
}

impl Member {
    /// Ends it, and waits for that: it takes one iteration, or one sleep.
    pub(super) fn stop(self) {
        self.orders.stop();
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!(core = self.core, "the worker had panicked");
        }
    }

    /// Sends a letter; waits while the box is full.
    pub(super) async fn send(&self, mail: Mail) {
        let mut mail = mail;
        while let Err(back) = self.postman.send(mail) {
            mail = back;
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Has it use DPDK.
    pub(super) async fn register(&self, eal: Eal) -> Result<(), EalError> {
        self.send(Mail::Register(eal)).await;
        let mut slow = Slow::new("register with DPDK");
        loop {
            if let Some(Returned::Registered(outcome)) = self.postman.collect() {
                return outcome;
            }
            slow.wait(|| format!("worker on core {}", self.core)).await;
        }
    }

    /// Takes a port's receive queues back, or one of them.
    pub(super) async fn take_back(&self, port: PortId, queue: Option<u16>) -> Vec<Rxq> {
        self.send(Mail::Detach { port, queue }).await;
        let mut back = Vec::new();
        let mut slow = Slow::new("give back a queue");
        // A worker needs microseconds, and a sleep here takes a thousand: a queue that goes to
        // another worker fills up meanwhile.
        let prompt = Instant::now() + PROMPT;
        loop {
            match self.postman.collect() {
                Some(Returned::Detached(done)) if done == port => return back,
                Some(Returned::Queue(rxq)) => back.push(rxq),
                Some(Returned::Detached(_) | Returned::Registered(_)) => {}
                None if Instant::now() < prompt => std::thread::yield_now(),
                None => slow.wait(|| format!("worker on core {}", self.core)).await,
            }
        }
    }
}

/// Says so in the log when workers are slow, and waits meanwhile.
pub(super) struct Slow {
    what: &'static str,
    since: tokio::time::Instant,
    warned: bool,
}

impl Slow {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, since: tokio::time::Instant::now(), warned: false }
    }

    pub(super) async fn wait(&mut self, who: impl FnOnce() -> String) {
        if !self.warned && self.since.elapsed() > SLOW {
            self.warned = true;
            let (who, what) = (who(), self.what);
            tracing::warn!(who, "a worker takes over a second to {what}; is its core shared?");
        }
        tokio::time::sleep(PATIENCE).await;
    }
}
