//! One burst of one port on its way through the tables: frame by frame, each to lanes or a counter.

use vhost::{FrameRef, Frames, Staged};

use crate::acl::Direction;
use crate::counters::{DropReason, WorkerCounters};
use crate::decide::{Egress, accept, decide, find, foresee};
use crate::fdb::Learner;
use crate::headers::Headers;
use crate::outbox::Outbox;
use crate::packet::{Looks, Packet};
use crate::snapshot::{Port, PortId, Snapshot};
use crate::watch::Witness;

/// See the [module's head](self).
pub(crate) struct Pass<'a> {
    pub ingress: PortId,
    pub attached: Option<&'a Port>,
    pub snapshot: &'a Snapshot,
    pub learner: Learner<'a>,
    pub counters: &'a WorkerCounters,
}

impl Pass<'_> {
    /// Has fetched what the FDB will be asked for the burst.
    #[inline(always)]
    pub fn foresee(&self, frames: Frames<'_>) {
        let Some(port) = self.attached else { return };
        for headers in frames.iter().filter_map(|frame| Headers::parse(frame).ok()) {
            foresee(&headers, port, self.snapshot, &self.learner);
        }
    }

    /// Looks at the packets of the burst, as policies will ask for them, and drops what the port may
    /// not send. Returns which frames are left, a bit for each. Those that cannot come in at all, such
    /// as tagged ones, are left to be dropped as such: that tells more than what a policy says of them.
    #[inline(never)]
    pub fn inspect(&self, frames: Frames<'_>, looks: &mut Looks, witness: &mut Witness) -> u64 {
        match self.attached {
            Some(port @ Port { up: true, policy: Some(policy), .. }) => {
                let counters = self.counters.of(self.ingress);
                let accept = |headers: &Headers| accept(headers, port, self.snapshot).is_ok();
                policy.leave_burst(frames, looks, accept, |index, reason| {
                    counters.dropped(reason, 1);
                    witness.note(index, reason);
                })
            }
            _ => {
                looks.read(frames, |_, _| true);
                u64::MAX
            }
        }
    }

    /// Decides about the frame with this index in the burst, and puts it into the lanes of the ports
    /// that it goes to.
    #[inline(always)]
    pub fn frame(
        &mut self,
        index: u8,
        frame: FrameRef<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(frame)?;
        let attached = self.attached.ok_or(DropReason::PortDown)?;
        match decide(&headers, self.ingress, attached, self.snapshot, &mut self.learner)? {
            Egress::Port(to, domain) => {
                let tag = domain.tag_edit(headers.tag, to);
                outbox.push(to, Staged { index, tag, sole: true });
            }
            Egress::Flood(domain) => {
                self.counters.of(self.ingress).flooded();
                for to in domain.members.iter().filter(|to| **to != self.ingress) {
                    let tag = domain.tag_edit(headers.tag, *to);
                    outbox.push(*to, Staged { index, tag, sole: false });
                }
            }
        }
        Ok(())
    }

    /// Counts at their rules one frame of the burst, as many times as the burst has frames: so the
    /// counts are exact where frames come one by one, and where they come in bursts they are a
    /// sample, which costs a burst as much as a frame. `turn` chooses the frame.
    #[inline(never)]
    pub fn count_hits(&self, frames: Frames<'_>, turn: usize) {
        let (Some(frame), Some(port)) = (frames.iter().nth(turn % frames.len()), self.attached)
        else {
            return;
        };
        let Ok(headers) = Headers::parse(frame) else { return };
        let packet = Packet::parse(frame.head(), &headers);
        let weight = frames.len() as u64;
        let hit = |port: &Port, direction: Direction| {
            if let (Some(policy), Packet::V4(_) | Packet::V6(_)) = (&port.policy, packet) {
                policy.acl.hit(direction, policy.acl.judge(direction, &packet), weight);
            }
        };
        let Ok(domain) = accept(&headers, port, self.snapshot) else { return };
        if let Some(policy) = &port.policy {
            // What anti-spoofing stops, rules are not asked about.
            match policy.leave(frame.head(), &headers, &packet) {
                Ok(()) => hit(port, Direction::Egress),
                Err(DropReason::AclOut | DropReason::FragmentOut) => {
                    return hit(port, Direction::Egress);
                }
                Err(_) => return,
            }
        }
        let egress = find(&headers, self.ingress, domain, self.snapshot, &self.learner);
        match egress {
            Ok(Egress::Port(to, _)) => {
                self.snapshot.port(to).into_iter().for_each(|to| hit(to, Direction::Ingress));
            }
            Ok(Egress::Flood(domain)) => {
                let others = domain.members.iter().filter(|to| **to != self.ingress);
                let others = others.filter_map(|to| self.snapshot.port(*to));
                others.for_each(|to| hit(to, Direction::Ingress));
            }
            Err(_) => {}
        }
    }
}
