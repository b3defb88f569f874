//! What a worker keeps of a burst while somebody watches.

use std::sync::Arc;

use vhost::{BURST_MAX, Frames, Sent, Staged, StagedFrame, TagEdit};

use super::{Record, Step, WATCHES_MAX, Wanted, Watch};
use crate::counters::{DropReason, WorkerCounters};
use crate::outbox::{Outbox, Sight};
use crate::snapshot::{Plan, PortId};

/// The worker's own: why frames of the burst were dropped on their way in, and what each watch is about.
#[derive(Debug)]
pub(crate) struct Witness {
    /// By the frame's index. Written whether or not somebody watches, as that costs less than to ask.
    fates: [Option<DropReason>; BURST_MAX],
    /// Bursts so far that were watched.
    bursts: u64,
    notes: [Notes; WATCHES_MAX],
}

/// What is known of the burst for one watch.
#[derive(Debug, Default)]
struct Notes {
    /// Frames that its filter was asked about, a bit for each.
    asked: u64,
    /// Those of them that it matched.
    matched: u64,
    /// The frame whose course is recorded.
    chosen: Option<u8>,
    /// The record of the frame that is just being sent.
    open: Option<Record>,
}

impl Default for Witness {
    fn default() -> Self {
        Self { fates: [None; BURST_MAX], bursts: 0, notes: Default::default() }
    }
}

impl Witness {
    /// Notes that a frame was dropped on its way in.
    #[inline(always)]
    pub(crate) fn note(&mut self, index: usize, reason: DropReason) {
        self.fates[index % BURST_MAX] = Some(reason);
    }

    /// Forgets the last burst.
    #[cold]
    pub(crate) fn forget(&mut self) {
        self.fates = [None; BURST_MAX];
        self.bursts += 1;
        for notes in &mut self.notes {
            *notes = Notes::default();
        }
    }

    /// Records what came in, and returns what looks on while it goes out.
    #[cold]
    pub(crate) fn look<'a>(
        &'a mut self,
        burst: WatchedBurst<'a>,
        cycles: u64,
        outbox: &Outbox,
    ) -> Watching<'a> {
        let mut watching = Watching { witness: self, burst, cycles };
        for at in 0..burst.watches().len() {
            watching.record_received(at, outbox);
        }
        burst.mirror_received();
        watching
    }
}

/// A burst while somebody looks on, under one plan.
#[derive(Clone, Copy)]
pub(crate) struct WatchedBurst<'a> {
    pub(crate) worker: usize,
    pub(crate) plan: &'a Plan,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) frames: Frames<'a>,
    pub(crate) from: PortId,
}

impl<'a> WatchedBurst<'a> {
    fn watches(&self) -> &'a [Arc<Watch>] {
        let watches = &self.plan.watches;
        &watches[..watches.len().min(WATCHES_MAX)]
    }
}

/// The same, on its way out.
pub(crate) struct Watching<'a> {
    witness: &'a mut Witness,
    burst: WatchedBurst<'a>,
    cycles: u64,
}

impl Watching<'_> {
    fn record_received(&mut self, at: usize, outbox: &Outbox) {
        let watch = &self.burst.watches()[at];
        if watch.is_ended() || !watch.has(self.burst.from) {
            return;
        }
        for index in 0..self.burst.frames.len() {
            let dropped = self.witness.fates[index];
            if watch.wanted == Wanted::Drops && dropped.is_none() || !self.matches(at, index) {
                continue;
            }
            let courses = watch.wanted == Wanted::Courses;
            let (ports, flooded) =
                if courses { outbox.destinations(index as u8) } else { (0, false) };
            if let Some(record) = self.copy(at, index, TagEdit::Keep, self.burst.from) {
                let step = Step::Received { dropped, ports, flooded };
                self.publish(at, Record { step, ..record });
                self.witness.notes[at].chosen = Some(index as u8);
            }
            if courses {
                break;
            }
        }
    }

    /// Whether a watch's filter matches a frame, which is asked once.
    fn matches(&mut self, at: usize, index: usize) -> bool {
        let notes = &mut self.witness.notes[at];
        let bit = 1 << index;
        if notes.asked & bit == 0 {
            notes.asked |= bit;
            if self.burst.watches()[at].filter.matches(self.burst.frames.frame(index).head()) {
                notes.matched |= bit;
            }
        }
        notes.matched & bit != 0
    }

    /// Whether a watch wants to know what becomes of a frame at a port that it is to go to.
    fn wants(&mut self, at: usize, index: u8, to: PortId) -> bool {
        let watch = &self.burst.watches()[at];
        if watch.is_ended() {
            return false;
        }
        match watch.wanted {
            Wanted::Courses => self.witness.notes[at].chosen == Some(index),
            Wanted::All | Wanted::Drops => {
                (watch.has(to) || watch.has(self.burst.from))
                    && self.matches(at, usize::from(index))
            }
        }
    }

    /// Whether a watch shows what became of a frame, now that it is known.
    fn shows(&self, at: usize, to: PortId, dropped: Option<DropReason>) -> bool {
        let watch = &self.burst.watches()[at];
        match watch.wanted {
            Wanted::Courses => true,
            Wanted::All => dropped.is_some() || watch.has(to),
            Wanted::Drops => dropped.is_some(),
        }
    }

    /// A record with a copy of the frame, if one is free; else that is counted at `port`.
    fn copy(&self, at: usize, index: usize, tag: TagEdit, port: PortId) -> Option<Record> {
        let mut record = self.burst.watches()[at].rings.get(self.burst.worker)?.take(port)?;
        let frame = self.burst.frames.frame(index);
        let bytes = frame.bytes_with(tag);
        let beyond = frame.copy_to_pieces(tag, [&mut record.data[..]]);
        record.kept = bytes - beyond;
        record.bytes = bytes as u32;
        record.cycles = self.cycles;
        record.serial = self.witness.bursts * BURST_MAX as u64 + index as u64;
        record.from = self.burst.from;
        Some(record)
    }

    fn publish(&self, at: usize, record: Record) {
        if let Some(ring) = self.burst.watches()[at].rings.get(self.burst.worker) {
            ring.publish(record);
        }
    }

    /// Has records ready of a frame that is about to be sent, as it must be copied before. Returns
    /// whether any watch wants to know how it ends.
    fn open(&mut self, frame: StagedFrame, to: PortId) -> bool {
        let mut any = false;
        for at in 0..self.burst.watches().len() {
            if self.wants(at, frame.index, to) {
                let record = self.copy(at, usize::from(frame.index), frame.tag, to);
                any |= record.is_some();
                self.witness.notes[at].open = record;
            }
        }
        any
    }

    fn close(&mut self, frame: StagedFrame, to: PortId, dropped: Option<DropReason>) {
        for at in 0..self.burst.watches().len() {
            let Some(record) = self.witness.notes[at].open.take() else { continue };
            if self.shows(at, to, dropped) {
                let step = Step::Sent { to, tag: frame.tag, dropped };
                self.publish(at, Record { step, ..record });
            } else if let Some(ring) = self.burst.watches()[at].rings.get(self.burst.worker) {
                ring.give_back(record);
            }
        }
    }
}

impl Sight for Watching<'_> {
    fn denied(&mut self, to: PortId, frame: StagedFrame, reason: DropReason) {
        if self.open(frame, to) {
            self.close(frame, to, Some(reason));
        }
    }

    /// Hands each frame that is wanted over by itself, and what is between them in one go: so their
    /// order is kept, and it is known what became of each.
    fn send(
        &mut self,
        to: PortId,
        staged: &Staged<'_>,
        sent: &mut Sent,
        send: impl Fn(&Staged<'_>, &mut Sent),
    ) {
        self.burst.mirror_sent(to, *staged);
        let send = |staged: Staged<'_>, sent: &mut Sent| {
            if !staged.is_empty() {
                send(&staged, sent);
            }
        };
        let mut rest = *staged;
        for frame in staged.iter() {
            if self.open(frame, to) {
                let bit = 1_u64 << frame.index;
                let before = bit - 1;
                send(rest.only(before), sent);
                let mut alone = Sent::default();
                send(rest.only(bit), &mut alone);
                self.close(frame, to, DropReason::of(&alone));
                *sent += alone;
                rest = rest.only(!(before | bit));
            }
        }
        send(rest, sent);
    }
}
