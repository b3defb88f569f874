//! A DPDK device's queues as the two ends of a port.
//!
//! Receiving copies a frame's head to private memory and leaves the body in its mbuf. Sending
//! copies a guest's frame into a new mbuf, once; a frame that came from another NIC and goes
//! nowhere else is handed on in the mbuf that it came in, without a copy.
//!
//! What a guest left undone of a frame is left to the device if that can do it, and done while the
//! frame is copied if not.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use vhost::{
    BURST_MAX, Burst, FrameRef, Frames, NicOffload, Segment, Sent, Source, SpinLock, Staged,
    StagedFrame, TagEdit,
};

use crate::dpdk::{Leave, Mbuf, Mempool, RxQueue, TxOffloads, TxQueue, free_bulk};
use crate::port::TxPort;

/// 802.1Q's TPID.
const TPID: u16 = 0x8100;

/// A device's receive queue.
#[derive(Debug)]
pub struct EthSource {
    queue: RxQueue,
    /// Received and not yet in a burst.
    waiting: Vec<Mbuf>,
    /// Released and not yet freed; empty between calls.
    freed: Vec<Mbuf>,
}

impl EthSource {
    /// The receive side on one queue.
    pub fn new(queue: RxQueue) -> Self {
        let room = || Vec::with_capacity(BURST_MAX);
        Self { queue, waiting: room(), freed: room() }
    }
}

impl Source for EthSource {
    #[inline]
    fn fill(&mut self, burst: &mut Burst) {
        if self.waiting.is_empty() {
            self.queue.rx_burst(&mut self.waiting);
        }
        let mut taken = 0;
        for mbuf in &self.waiting {
            // SAFETY: the mbuf is owned by its token from here until `release` or until a
            // transmit side takes the token over, so its segments stay readable that long. The
            // token is the mbuf's address, as `EthPort` expects.
            let pushed = unsafe {
                let segments = mbuf
                    .segments()
                    .map(|segment| Segment::new(segment.as_ptr(), segment.len() as u32));
                burst.push_owned(mbuf.as_ptr().expose_provenance(), segments)
            };
            // What has too many segments for the rest of this burst opens the next one.
            if !pushed {
                break;
            }
            taken += 1;
        }
        if taken == 0 && !self.waiting.is_empty() {
            // More segments than a whole burst may have: no frame of any MTU is like that.
            self.waiting.remove(0);
        }
        for mbuf in self.waiting.drain(..taken) {
            std::mem::forget(mbuf);
        }
    }

    #[inline]
    fn release(&mut self, burst: &mut Burst) {
        for token in burst.tokens() {
            // SAFETY: `fill` forgot the mbuf at this address in favour of the token, and whoever
            // takes a token leaves 0 behind, so this is the only owner.
            self.freed.push(unsafe { adopt(token) });
        }
        free_bulk(&mut self.freed);
    }
}

/// The mbuf that a token stands for.
///
/// # Safety
/// The token must have been made by [`EthSource`] and be used no more.
#[inline]
unsafe fn adopt(token: usize) -> Mbuf {
    let mbuf = NonNull::new(std::ptr::with_exposed_provenance_mut(token));
    // SAFETY: tokens that are not 0 are addresses of whole frames, given up by their owner.
    unsafe { Mbuf::from_raw(mbuf.expect("tokens of 0 are not given out")) }
}

/// A device's transmit side: its queues, shared among the workers.
pub struct EthPort {
    lanes: Box<[SpinLock<Lane>]>,
    pool: Mempool,
    multi_segment: bool,
    offloads: TxOffloads,
}

struct Lane {
    queue: TxQueue,
    frames: Vec<Mbuf>,
    /// A frame of this host's own that goes before all others; mostly none.
    first: Vec<Mbuf>,
    /// Something is left to the device of one of the frames.
    unprepared: bool,
}

impl EthPort {
    /// The transmit side of a device. `pool` is where guests' frames are copied to;
    /// `multi_segment` says whether the device sends frames of several buffers.
    ///
    /// # Panics
    /// If there is no queue.
    pub fn new(queues: Vec<TxQueue>, pool: Mempool, multi_segment: bool) -> Self {
        assert!(!queues.is_empty(), "a started device has a transmit queue");
        let lane = |queue| {
            let frames = Vec::with_capacity(BURST_MAX);
            let first = Vec::with_capacity(1);
            SpinLock::new(Lane { queue, frames, first, unprepared: false })
        };
        let lanes = queues.into_iter().map(lane).collect();
        Self { lanes, pool, multi_segment, offloads: TxOffloads::default() }
    }

    /// With what the device was started to do itself.
    pub fn with_offloads(self, offloads: TxOffloads) -> Self {
        Self { offloads, ..self }
    }

    /// The frame as an mbuf: its own, or a copy.
    #[inline]
    fn mbuf(&self, frame: FrameRef<'_>, staged: StagedFrame) -> Result<Mbuf, Unsendable> {
        if staged.sole && frame.token() != 0 {
            // SAFETY: only `EthSource` makes tokens, and taking it leaves 0 behind.
            let mut mbuf = unsafe { adopt(frame.take_token()) };
            if edit(&mut mbuf, staged.tag) {
                return Ok(mbuf);
            }
            return Err(Unsendable::NoBuffer);
        }
        let mut mbuf = self.empty(frame.bytes_with(staged.tag))?;
        let beyond = frame.copy_to_pieces(staged.tag, mbuf.segments_mut());
        debug_assert_eq!(beyond, 0, "the mbuf was made for this length");
        Ok(mbuf)
    }

    /// An mbuf of this length, to be written.
    #[inline]
    fn empty(&self, bytes: usize) -> Result<Mbuf, Unsendable> {
        if !self.multi_segment && bytes > usize::from(self.pool.data_room()) {
            return Err(Unsendable::TooBig);
        }
        self.pool.alloc_frame(bytes).ok_or(Unsendable::NoBuffer)
    }

    /// Sends a frame whose sender left something undone: as it is, if the device can do it.
    #[inline(never)]
    fn send_unfinished(
        &self,
        lane: &mut Lane,
        frame: FrameRef<'_>,
        tag: TagEdit,
        sent: &mut Sent,
    ) -> Result<(), Unsendable> {
        let offload = frame.offload();
        let leave = offload.for_nic(frame.head(), tag).map(leave);
        // A frame to be cut is longer than a buffer as a rule.
        let fits =
            self.multi_segment || frame.bytes_with(tag) <= usize::from(self.pool.data_room());
        if let Some(leave) = leave.filter(|leave| fits && self.offloads.take(leave)) {
            let mut mbuf = self.empty(frame.bytes_with(tag))?;
            frame.copy_to_pieces(tag, mbuf.segments_mut());
            if mbuf.leave(&leave, self.offloads) {
                lane.unprepared = true;
                lane.push(mbuf, sent);
                return Ok(());
            }
        }
        let mut completion = frame.completed(tag).ok_or(Unsendable::Unfinished)?;
        if !offload.is_segmented() {
            if let Some(part) = completion.next() {
                let mut mbuf = self.empty(part.bytes())?;
                part.copy_to_pieces(mbuf.segments_mut());
                sent.completed(offload);
                lane.push(mbuf, sent);
            }
            return Ok(());
        }
        if !sent.may_cut() {
            sent.full += 1;
            return Ok(());
        }
        // The segments of one frame are sent by themselves, so that it is known whether all of
        // them were.
        lane.flush(sent);
        let mut of_segments = Sent::default();
        let mut made = 0;
        let mut outcome = Ok(());
        while let Some(part) = completion.next() {
            let mut mbuf = match self.empty(part.bytes()) {
                Ok(mbuf) => mbuf,
                Err(reason) => {
                    outcome = Err(reason);
                    break;
                }
            };
            part.copy_to_pieces(mbuf.segments_mut());
            sent.completed(offload);
            lane.push(mbuf, &mut of_segments);
            made += 1;
            if lane.frames.len() == BURST_MAX {
                lane.flush(&mut of_segments);
                if of_segments.frames < made {
                    break;
                }
            }
        }
        lane.flush(&mut of_segments);
        sent.bytes += of_segments.bytes;
        outcome?;
        if of_segments.frames == made {
            sent.frames += 1
        } else {
            sent.full += 1
        }
        Ok(())
    }
}

impl Lane {
    #[inline]
    fn push(&mut self, mbuf: Mbuf, sent: &mut Sent) {
        sent.bytes += mbuf.len() as u64;
        self.frames.push(mbuf);
    }

    /// Hands over the frame that goes before all others, if there is one. Returns whether none is left.
    #[cold]
    fn send_first(&mut self) -> bool {
        self.queue.tx_burst(&mut self.first);
        self.first.is_empty()
    }

    /// Hands over what was pushed, and frees what the device does not take.
    #[inline]
    fn flush(&mut self, sent: &mut Sent) {
        if std::mem::take(&mut self.unprepared) {
            self.prepare(sent);
        }
        let Self { queue, frames, .. } = self;
        sent.frames += queue.tx_burst(frames) as u64;
        sent.full += frames.len() as u64;
        sent.bytes -= bytes(frames);
        free_bulk(frames);
    }

    #[cold]
    fn prepare(&mut self, sent: &mut Sent) {
        let Self { queue, frames, .. } = self;
        let mut fit = 0;
        loop {
            fit += queue.prepare(&mut frames[fit..]);
            if fit == frames.len() {
                return;
            }
            let unfit = frames.remove(fit);
            sent.bytes -= unfit.len() as u64;
            sent.unfinished += 1;
        }
    }
}

fn bytes(frames: &[Mbuf]) -> u64 {
    frames.iter().map(|mbuf| mbuf.len() as u64).sum()
}

fn leave(offload: NicOffload) -> Leave {
    let NicOffload { ipv6, udp, link_bytes, network_bytes, transport_bytes, segment_bytes } =
        offload;
    Leave { ipv6, udp, link_bytes, network_bytes, transport_bytes, segment_bytes }
}

enum Unsendable {
    NoBuffer,
    TooBig,
    Unfinished,
}

/// Edits the tag where the frame lies; `false` if its buffer has no room for one.
#[inline]
fn edit(mbuf: &mut Mbuf, tag: TagEdit) -> bool {
    match tag {
        TagEdit::Keep => true,
        TagEdit::Pop => mbuf.pop_vlan().is_some(),
        TagEdit::Push(tci) => mbuf.push_vlan(TPID, tci),
        TagEdit::Replace(tci) => mbuf.pop_vlan().is_some() && mbuf.push_vlan(TPID, tci),
    }
}

impl TxPort for EthPort {
    #[inline]
    fn send(&self, worker: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        let lane = &self.lanes[worker % self.lanes.len()];
        // Held by another worker only where a device has fewer transmit queues than there are workers.
        let Some(mut lane) = lane.lock_bounded() else {
            sent.busy += staged.len() as u64;
            return;
        };
        if !lane.first.is_empty() && !lane.send_first() {
            sent.full += staged.len() as u64;
            return;
        }
        for staged in staged.iter() {
            let frame = frames.frame(usize::from(staged.index));
            let outcome = if frame.is_complete() {
                self.mbuf(frame, staged).map(|mbuf| lane.push(mbuf, sent))
            } else {
                self.send_unfinished(&mut lane, frame, staged.tag, sent)
            };
            match outcome {
                Ok(()) => {}
                Err(Unsendable::NoBuffer) => sent.no_buffer += 1,
                Err(Unsendable::TooBig) => sent.too_big += 1,
                Err(Unsendable::Unfinished) => sent.unfinished += 1,
            }
        }
        lane.flush(sent);
    }

    fn send_first(&self, worker: usize, frame: &[u8]) -> bool {
        let Some(mut lane) = self.lanes[worker % self.lanes.len()].lock_bounded() else {
            return false;
        };
        let Ok(mut mbuf) = self.empty(frame.len()) else { return false };
        let mut left = frame;
        for segment in mbuf.segments_mut() {
            let (now, later) = left.split_at(segment.len());
            segment.copy_from_slice(now);
            left = later;
        }
        // What waits is older than this one.
        lane.first.clear();
        lane.first.push(mbuf);
        lane.send_first()
    }
}
