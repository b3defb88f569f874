//! Frames on their way out: collected by port over a burst, then handed over port by port.

use vhost::{BURST_MAX, Frames, Sent, Staged, StagedFrame, TagEdit};

use crate::counters::{DropReason, WorkerCounters};
use crate::lanes::equal;
use crate::packet::Looks;
use crate::snapshot::{PORTS_MAX, Plan, PortId};

/// See the [module's head](self). Each port gets its frames in the order in which they came.
#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: Box<[Lane; PORTS_MAX]>,
    /// What happens to the tags of frames, by port and index; good for those that are `edited`.
    edits: Box<[[TagEdit; BURST_MAX]]>,
    /// Ports with frames in their lane.
    waiting: Vec<PortId>,
    /// Frames that are flooded, a bit for each by its index in the burst.
    flooded: u64,
}

/// Frames for a port, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    frames: u64,
    /// Those whose tag is edited.
    edited: u64,
}

/// Who looks on while frames go out.
pub(crate) trait Sight {
    /// A port is not sent this frame.
    fn denied(&mut self, to: PortId, frame: StagedFrame, reason: DropReason);

    /// Hands frames over to a port by `send`, all of them in order, and at once or not.
    fn send(
        &mut self,
        to: PortId,
        staged: &Staged<'_>,
        sent: &mut Sent,
        send: impl Fn(&Staged<'_>, &mut Sent),
    );
}

/// Nobody.
pub(crate) struct Unseen;

impl Sight for Unseen {
    #[inline(always)]
    fn denied(&mut self, _: PortId, _: StagedFrame, _: DropReason) {}

    #[inline(always)]
    fn send(
        &mut self,
        _: PortId,
        staged: &Staged<'_>,
        sent: &mut Sent,
        send: impl Fn(&Staged<'_>, &mut Sent),
    ) {
        send(staged, sent);
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            lanes: Box::new([Lane::default(); PORTS_MAX]),
            edits: vec![[TagEdit::Keep; BURST_MAX]; PORTS_MAX].into_boxed_slice(),
            waiting: Vec::with_capacity(PORTS_MAX),
            flooded: 0,
        }
    }
}

impl Outbox {
    /// Adds a frame of the burst to a port's lane.
    #[inline(always)]
    pub(crate) fn push(&mut self, port: PortId, index: u8, tag: TagEdit) {
        let lane = &mut self.lanes[port.index() % PORTS_MAX];
        if lane.frames == 0 {
            self.waiting.push(port);
        }
        lane.frames |= 1 << index;
        if tag != TagEdit::Keep {
            lane.edited |= 1 << index;
            self.edits[port.index()][usize::from(index) % BURST_MAX] = tag;
        }
    }

    /// As [`push`](Self::push), of many frames, a bit for each by its index, with the numbers of the ports
    /// that they are for. Their tags are left as they are.
    ///
    /// Port by port, not frame by frame: each change of a lane would wait for the one before it.
    pub(crate) fn push_all(&mut self, frames: u64, ports: &[u16; BURST_MAX]) {
        let mut rest = frames;
        while rest != 0 {
            let port = ports[rest.trailing_zeros() as usize];
            let lane = &mut self.lanes[usize::from(port) % PORTS_MAX];
            if lane.frames == 0 {
                self.waiting.extend(PortId::new(usize::from(port)));
            }
            // Of a last one there is none to compare with.
            let same = if rest.is_power_of_two() { rest } else { rest & equal(ports, port) };
            lane.frames |= same;
            rest ^= same;
        }
    }

    /// Says what happens to the tags of those of `frames`, a bit for each, that are in a port's lane.
    pub(crate) fn edit(&mut self, port: PortId, frames: u64, tag: TagEdit) {
        let lane = &mut self.lanes[port.index() % PORTS_MAX];
        let mut rest = lane.frames & frames;
        lane.edited |= rest;
        while rest != 0 {
            self.edits[port.index()][rest.trailing_zeros() as usize] = tag;
            rest &= rest - 1;
        }
    }

    /// Notes that a frame goes to several ports.
    #[inline(always)]
    pub(crate) fn flood(&mut self, index: u8) {
        self.flooded |= 1 << index;
    }

    /// How many ports a frame of the burst goes to, and whether it is flooded.
    pub(crate) fn destinations(&self, index: u8) -> (u16, bool) {
        let has = |port: &&PortId| self.lanes[port.index()].frames >> index & 1 != 0;
        let ports = self.waiting.iter().filter(has).count();
        (ports as u16, self.flooded >> index & 1 != 0)
    }

    /// What is in a port's lane.
    #[inline(always)]
    fn staged(&self, port: PortId) -> Staged<'_> {
        let Lane { frames, edited } = self.lanes[port.index()];
        let edits = &self.edits[port.index()];
        Staged::new(frames).with_shared(self.flooded).with_edits(edited, edits)
    }

    /// What is in the lanes.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(PortId, Vec<StagedFrame>)> {
        self.waiting.iter().map(|port| (*port, self.staged(*port).iter().collect())).collect()
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
        for port in &self.waiting {
            let port = *port;
            let mut staged = self.staged(port);
            if let Some(policy) = plan.snapshot.policy(port) {
                let counters = counters.of(port);
                let deny = |index, reason| {
                    counters.dropped(reason, 1);
                    sight.denied(port, staged.frame(index), reason);
                };
                let passed = policy.enter_burst(frames, looks, staged.frames(), deny);
                staged = staged.only(passed);
            }
            if staged.is_empty() {
                continue;
            }
            let mut sent = Sent::default();
            sight.send(port, &staged, &mut sent, |staged, sent| {
                plan.send(worker, port, frames, staged, sent);
            });
            counters.of(port).sent(staged.len() as u64, &sent);
        }
        for port in self.waiting.drain(..) {
            self.lanes[port.index()] = Lane::default();
        }
        self.flooded = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_put_where_each_would_be() {
        // One port, each another one, and some by turns.
        for ports in [[5; BURST_MAX], std::array::from_fn(|index| index as u16), {
            std::array::from_fn(|index| [0, PORTS_MAX as u16 - 1, 7][index % 3])
        }] {
            for frames in [0, 1, 1 << 63, u64::MAX, 0xf0f0_1234_5678_9abc] {
                let (mut together, mut singly) = (Outbox::default(), Outbox::default());
                for outbox in [&mut together, &mut singly] {
                    outbox.push(PortId::new(7).expect("few ports"), 2, TagEdit::Pop);
                }
                together.push_all(frames, &ports);
                for index in (0..BURST_MAX).filter(|index| frames >> index & 1 != 0) {
                    let port = PortId::new(ports[index].into()).expect("few ports");
                    singly.push(port, index as u8, TagEdit::Keep);
                }
                assert_eq!(together.all(), singly.all(), "{frames:#x} to {ports:?}");
            }
        }
    }

    #[test]
    fn each_port_gets_its_frames_with_their_tags() {
        let port = |number| PortId::new(number).expect("few ports");
        let mut outbox = Outbox::default();
        outbox.push(port(1), 0, TagEdit::Keep);
        outbox.push(port(2), 3, TagEdit::Pop);
        outbox.flood(63);
        outbox.push(port(2), 63, TagEdit::Keep);
        outbox.push(port(1), 63, TagEdit::Keep);
        outbox.edit(port(1), !1, TagEdit::Push(7));
        let frame = |index, tag, sole| StagedFrame { index, tag, sole };
        let expected = [
            (port(1), vec![frame(0, TagEdit::Keep, true), frame(63, TagEdit::Push(7), false)]),
            (port(2), vec![frame(3, TagEdit::Pop, true), frame(63, TagEdit::Keep, false)]),
        ];
        assert_eq!(outbox.all(), expected);
        assert_eq!(
            [0, 3, 63, 5].map(|index| outbox.destinations(index)),
            [(1, false), (1, false), (2, true), (0, false)]
        );
    }
}
