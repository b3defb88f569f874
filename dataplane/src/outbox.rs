//! Frames on their way out: collected by port over a burst, then handed over port by port.

use vhost::{BURST_MAX, Frames, Sent, Staged, TagEdit};

use crate::counters::{DropReason, WorkerCounters};
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

/// Who looks on while frames go out.
pub(crate) trait Sight {
    /// A port is not sent this frame.
    fn denied(&mut self, to: PortId, staged: Staged, reason: DropReason);

    /// Hands frames over to a port by `send`, all of them in order, and at once or not.
    fn send(&mut self, to: PortId, staged: &[Staged], send: impl Fn(&[Staged]) -> Sent) -> Sent;
}

/// Nobody.
pub(crate) struct Unseen;

impl Sight for Unseen {
    #[inline(always)]
    fn denied(&mut self, _: PortId, _: Staged, _: DropReason) {}

    #[inline(always)]
    fn send(&mut self, _: PortId, staged: &[Staged], send: impl Fn(&[Staged]) -> Sent) -> Sent {
        send(staged)
    }
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

    /// How many ports a frame of the burst goes to, and whether it is flooded.
    pub(crate) fn destinations(&self, index: u8) -> (u16, bool) {
        let lanes = self.waiting.iter().map(|port| &self.lanes[port.index()]);
        let staged = lanes.flat_map(|lane| &lane.staged[..lane.len]);
        staged
            .filter(|staged| staged.index == index)
            .fold((0, false), |(ports, flooded), staged| (ports + 1, flooded || !staged.sole))
    }

    /// What is in the lanes.
    #[cfg(test)]
    pub(crate) fn staged(&self) -> Vec<(PortId, &[Staged])> {
        let lane = |port: &PortId| {
            let lane = &self.lanes[port.index()];
            (*port, &lane.staged[..lane.len])
        };
        self.waiting.iter().map(lane).collect()
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
        sight: &mut impl Sight,
    ) {
        for port in self.waiting.drain(..) {
            let lane = &mut self.lanes[port.index()];
            let mut len = std::mem::take(&mut lane.len);
            if let Some(policy) = plan.snapshot.policy(port) {
                let counters = counters.of(port);
                let deny = |staged, reason| {
                    counters.dropped(reason, 1);
                    sight.denied(port, staged, reason);
                };
                len = policy.enter_burst(frames, looks, &mut lane.staged[..len], deny);
            }
            let staged = &lane.staged[..len];
            if staged.is_empty() {
                continue;
            }
            let sent = sight.send(port, staged, |staged| plan.send(worker, port, frames, staged));
            counters.of(port).sent(staged.len() as u64, sent);
        }
    }
}
