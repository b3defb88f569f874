//! Frames on their way out: collected by port over a burst, then handed over port by port.

use vhost::{BURST_MAX, Frames, Staged, TagEdit};

use crate::counters::WorkerCounters;
use crate::packet::Looks;
use crate::snapshot::{PORTS_MAX, Plan, PortId};

/// See the [module's head](self). Each port gets its frames in the order in which they came.
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: Box<[Lane]>,
    /// Ports with frames in their lane.
    waiting: Vec<PortId>,
}

#[derive(Clone, Debug)]
struct Lane {
    staged: [Staged; BURST_MAX],
    len: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        let nothing = Staged { index: 0, tag: TagEdit::Keep, sole: false };
        let lane = Lane { staged: [nothing; BURST_MAX], len: 0 };
        Self {
            lanes: vec![lane; PORTS_MAX].into_boxed_slice(),
            waiting: Vec::with_capacity(PORTS_MAX),
        }
    }
}

impl Outbox {
    /// Adds a frame of the burst to a port's lane. A frame goes to a port at most once, so a lane
    /// never holds more than a burst.
    #[inline(always)]
    pub(crate) fn push(&mut self, port: PortId, staged: Staged) {
        let lane = &mut self.lanes[port.index()];
        if lane.len == 0 {
            self.waiting.push(port);
        }
        lane.staged[lane.len] = staged;
        lane.len += 1;
    }

    /// Hands over everything that ports may be sent, and counts what became of it.
    #[inline(always)]
    pub(crate) fn flush(
        &mut self,
        worker: usize,
        plan: &Plan,
        frames: Frames<'_>,
        looks: &Looks,
        counters: &WorkerCounters,
    ) {
        for port in self.waiting.drain(..) {
            let lane = &mut self.lanes[port.index()];
            let mut len = std::mem::take(&mut lane.len);
            if let Some(policy) = plan.snapshot.policy(port) {
                let counters = counters.of(port);
                let deny = |reason| counters.dropped(reason, 1);
                len = policy.enter_burst(frames, looks, &mut lane.staged[..len], deny);
            }
            let staged = &lane.staged[..len];
            if staged.is_empty() {
                continue;
            }
            let sent = match plan.egress.get(port.index()) {
                Some(Some(egress)) => egress.send(worker, frames, staged),
                _ => vhost::Sent { down: staged.len() as u64, ..vhost::Sent::default() },
            };
            counters.of(port).sent(staged.len() as u64, sent);
        }
    }
}
