//! A DPDK device's queues as the two ends of a port.
//!
//! Receiving copies a frame's head to private memory and leaves the body in its mbuf. Sending
//! copies a guest's frame into a new mbuf, once; a frame that came from another NIC and goes
//! nowhere else is handed on in the mbuf that it came in, without a copy.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use vhost::{BURST_MAX, Burst, FrameRef, Frames, Segment, Sent, Source, SpinLock, Staged, TagEdit};

use crate::dpdk::{Mbuf, Mempool, RxQueue, TxQueue, free_bulk};
use crate::port::TxPort;

/// 802.1Q's TPID.
const TPID: u16 = 0x8100;

/// How often a worker looks at a queue that another one holds before it drops its frames. Only
/// devices with fewer transmit queues than there are workers share queues.
const BUSY_TRIES: u32 = 2000;

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
}

struct Lane {
    queue: TxQueue,
    frames: Vec<Mbuf>,
}

impl EthPort {
    /// The transmit side of a device. `pool` is where guests' frames are copied to;
    /// `multi_segment` says whether the device sends frames of several buffers.
    ///
    /// # Panics
    /// If there is no queue.
    pub fn new(queues: Vec<TxQueue>, pool: Mempool, multi_segment: bool) -> Self {
        assert!(!queues.is_empty(), "a started device has a transmit queue");
        let lane = |queue| SpinLock::new(Lane { queue, frames: Vec::with_capacity(BURST_MAX) });
        Self { lanes: queues.into_iter().map(lane).collect(), pool, multi_segment }
    }

    /// The frame as an mbuf: its own, or a copy.
    #[inline]
    fn mbuf(&self, frame: FrameRef<'_>, staged: &Staged) -> Result<Mbuf, Unsendable> {
        if staged.sole && frame.token() != 0 {
            // SAFETY: only `EthSource` makes tokens, and taking it leaves 0 behind.
            let mut mbuf = unsafe { adopt(frame.take_token()) };
            if edit(&mut mbuf, staged.tag) {
                return Ok(mbuf);
            }
            return Err(Unsendable::NoBuffer);
        }
        let bytes = frame.bytes_with(staged.tag);
        if !self.multi_segment && bytes > usize::from(self.pool.data_room()) {
            return Err(Unsendable::TooBig);
        }
        let mut mbuf = self.pool.alloc_frame(bytes).ok_or(Unsendable::NoBuffer)?;
        let beyond = frame.copy_to_pieces(staged.tag, mbuf.segments_mut());
        debug_assert_eq!(beyond, 0, "the mbuf was made for this length");
        Ok(mbuf)
    }
}

enum Unsendable {
    NoBuffer,
    TooBig,
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
    fn send(&self, worker: usize, frames: Frames<'_>, staged: &[Staged]) -> Sent {
        let mut sent = Sent::default();
        let lane = &self.lanes[worker % self.lanes.len()];
        let Some(mut lane) = lane.lock_bounded(BUSY_TRIES) else {
            sent.busy = staged.len() as u64;
            return sent;
        };
        let Lane { queue, frames: out } = &mut *lane;
        for staged in staged {
            match self.mbuf(frames.frame(usize::from(staged.index)), staged) {
                Ok(mbuf) => {
                    sent.bytes += mbuf.len() as u64;
                    out.push(mbuf);
                }
                Err(Unsendable::NoBuffer) => sent.no_buffer += 1,
                Err(Unsendable::TooBig) => sent.too_big += 1,
            }
        }
        sent.frames = queue.tx_burst(out) as u64;
        sent.full = out.len() as u64;
        sent.bytes -= out.iter().map(|mbuf| mbuf.len() as u64).sum::<u64>();
        free_bulk(out);
        sent
    }
}
