//! One burst of one port on its way through the tables: frame by frame, each to lanes or a counter.

use vhost::{FrameRef, Frames, Staged};

use crate::acl::Direction;
use crate::counters::{DropReason, WorkerCounters};
use crate::decide::{Egress, Subject, accept, decide, find, foresee};
use crate::fdb::Learner;
use crate::headers::Headers;
use crate::outbox::Outbox;
use crate::packet::{Ip, Packet, ethertype};
use crate::policy::{Inspect, Unread};
use crate::snapshot::{Domain, Port, PortId, Snapshot};

/// See the [module's head](self).
pub(crate) struct Pass<'a> {
    pub ingress: PortId,
    pub attached: Option<&'a Port>,
    pub snapshot: &'a Snapshot,
    pub learner: Learner<'a>,
    pub counters: &'a WorkerCounters,
}

/// Where a frame goes to in the lanes.
struct Slot<'a> {
    index: u8,
    outbox: &'a mut Outbox,
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

    /// Decides about the frame with this index in the burst, and puts it into the lanes of the ports
    /// that it goes to. Drops at these are counted here, those at the port it came from by the caller.
    #[inline(always)]
    pub fn frame(
        &mut self,
        index: u8,
        frame: FrameRef<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(frame)?;
        let head = frame.head();
        let (headers, at) = (&headers, Slot { index, outbox });
        if !self.snapshot.filters() {
            return self.deal(Subject { head, headers, packet: Unread }, at);
        }
        match headers.ethertype {
            ethertype::IPV4 => {
                let packet = Ip::<u32>::parse(head, headers);
                self.deal(Subject { head, headers, packet }, at)
            }
            ethertype::IPV6 => self.v6(head, headers, at),
            _ => self.other(head, headers, at),
        }
    }

    #[inline(never)]
    fn v6(&mut self, head: &[u8], headers: &Headers, at: Slot<'_>) -> Result<(), DropReason> {
        let packet = Ip::<u128>::parse(head, headers);
        self.deal(Subject { head, headers, packet }, at)
    }

    #[inline(never)]
    fn other(&mut self, head: &[u8], headers: &Headers, at: Slot<'_>) -> Result<(), DropReason> {
        let packet = Packet::parse(head, headers);
        self.deal(Subject { head, headers, packet }, at)
    }

    #[inline(always)]
    fn deal<P: Inspect>(
        &mut self,
        subject: Subject<'_, P>,
        at: Slot<'_>,
    ) -> Result<(), DropReason> {
        let attached = self.attached.ok_or(DropReason::PortDown)?;
        match decide(&subject, self.ingress, attached, self.snapshot, &mut self.learner)? {
            Egress::Port(to, domain) => match self.snapshot.admits(to, &subject.packet) {
                Ok(()) => {
                    let tag = domain.tag_edit(subject.headers.tag, to);
                    at.outbox.push(to, Staged { index: at.index, tag, sole: true });
                }
                Err(reason) => self.counters.of(to).dropped(reason, 1),
            },
            Egress::Flood(domain) => self.flood(domain, &subject, at),
        }
        Ok(())
    }

    #[inline(never)]
    fn flood<P: Inspect>(&self, domain: &Domain, subject: &Subject<'_, P>, at: Slot<'_>) {
        self.counters.of(self.ingress).flooded();
        for to in domain.members.iter().copied().filter(|to| *to != self.ingress) {
            match self.snapshot.admits(to, &subject.packet) {
                Ok(()) => {
                    let tag = domain.tag_edit(subject.headers.tag, to);
                    at.outbox.push(to, Staged { index: at.index, tag, sole: false });
                }
                Err(reason) => self.counters.of(to).dropped(reason, 1),
            }
        }
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
        hit(port, Direction::Egress);
        let subject = Subject { head: frame.head(), headers: &headers, packet };
        let egress = accept(&subject, port, self.snapshot)
            .and_then(|domain| find(&headers, self.ingress, domain, self.snapshot, &self.learner));
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
