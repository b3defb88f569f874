//! A burst: up to [`BURST_MAX`] frames between their receipt and their departure.
//!
//! A frame is private memory plus a body where it lies. Its first [`HEAD_MAX`] bytes are copied
//! when it is received, so that what a decision was made on is what is sent, whatever a guest
//! does to its own buffers meanwhile. The rest stays in the sender's buffers, named by
//! [`Segment`]s, and is copied once: to where it goes.
//!
//! The bodies are good only until the source is told to release them, so they can be reached only
//! through a [`Received`], which borrows both the burst and its source and releases when dropped.
#![allow(unsafe_code)]

mod frame;
mod reader;
mod staged;

pub(crate) use frame::Lead;
pub use frame::{FrameRef, TagEdit};
pub(crate) use reader::Reader;
pub use staged::{Staged, StagedFrame};

use std::ops::AddAssign;

use crate::copy::prefetch;
use crate::offload::Offload;
use frame::Frame;

/// The most frames in a burst. Handing cache lines between cores gets cheaper up to about this
/// many, and latency dearer beyond.
pub const BURST_MAX: usize = 64;

/// The most bytes that are copied to private memory on receipt of a frame, counting what stands
/// before the frame in a guest's buffer: room for Ethernet, one tag, IPv6 with extension headers and
/// a transport header.
pub const HEAD_MAX: usize = 128;

/// The most descriptors that the frames of one burst may consist of: what bounds the time that
/// one guest can take from a worker, and the length of one chain.
pub(crate) const SEGMENTS_MAX: usize = 1024;

/// The most segments that software cuts frames into for one port and burst, give or take one frame:
/// as many as a burst of 64 KiB frames has at an MTU of 1500. Smaller segments are no way for a
/// guest to take more time from a worker.
const CUTS_MAX: u64 = 64 * 44;

/// A piece of a frame's body in memory that somebody else may write to.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    address: *const u8,
    bytes: u32,
}

// SAFETY: whoever made the segment vouched that it may be read until the source's release, from
// the worker that holds the burst, on whichever thread that worker runs.
unsafe impl Send for Segment {}

impl Segment {
    /// A segment of `bytes` bytes at `address`.
    ///
    /// # Safety
    /// The memory must be readable until the [`Source`] that puts this segment into a [`Burst`]
    /// is told to release it. It may change meanwhile.
    #[inline(always)]
    pub unsafe fn new(address: *const u8, bytes: u32) -> Self {
        Self { address, bytes }
    }
}

/// What became of frames that were given to a port's transmit side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that were handed over.
    pub frames: u64,
    /// Their bytes, from the MAC addresses on, without the frame check sequence.
    pub bytes: u64,
    /// Frames dropped since the port's ring was full.
    pub full: u64,
    /// Frames dropped since no buffer of the port could hold them.
    pub too_big: u64,
    /// Frames dropped since the port's ring is not running.
    pub down: u64,
    /// Frames dropped since another thread held the ring for too long.
    pub busy: u64,
    /// Frames dropped since the pool had no buffer to copy them to.
    pub no_buffer: u64,
    /// Frames dropped since nobody could do what their senders left undone.
    pub unfinished: u64,
    /// Checksums computed in software for frames that were sent.
    pub checksums: u64,
    /// Segments that frames were cut into in software.
    pub segments: u64,
}

impl Sent {
    /// Counts what software did of an `offload` for one frame that was sent.
    #[inline]
    pub fn completed(&mut self, offload: Offload) {
        self.checksums += 1;
        self.segments += u64::from(offload.is_segmented());
    }

    /// Whether a frame may still be cut into segments in software, or has to count as one that
    /// found no room.
    #[inline]
    pub fn may_cut(&self) -> bool {
        self.segments < CUTS_MAX
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.full += other.full;
        self.too_big += other.too_big;
        self.down += other.down;
        self.busy += other.busy;
        self.no_buffer += other.no_buffer;
        self.unfinished += other.unfinished;
        self.checksums += other.checksums;
        self.segments += other.segments;
    }
}

/// Where frames come from: the receive side of a port.
pub trait Source: Send {
    /// Puts waiting frames into an empty burst. Returns at once.
    fn fill(&mut self, burst: &mut Burst);

    /// Takes back what the frames of `burst` lie in. Called once after each `fill` that gave any.
    fn release(&mut self, burst: &mut Burst);
}

/// See the [module's head](self).
pub struct Burst {
    frames: Box<[Frame; BURST_MAX]>,
    len: usize,
    /// Bytes of all frames but those that are not settled.
    bytes: u64,
    segments: Vec<Segment>,
    /// Frames that were staged and not settled: a bit for each.
    unsettled: u64,
}

// The bits must suffice.
const _: () = assert!(BURST_MAX <= u64::BITS as usize);

impl Default for Burst {
    fn default() -> Self {
        Self {
            frames: Box::new(std::array::from_fn(|_| Frame::default())),
            len: 0,
            bytes: 0,
            segments: Vec::with_capacity(SEGMENTS_MAX),
            unsettled: 0,
        }
    }
}

/// For sources: filling a burst.
impl Burst {
    /// Frames in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all its frames.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether no frame can be added.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.len == BURST_MAX
    }

    /// How many segments it still has room for.
    #[inline(always)]
    pub(crate) fn segments_free(&self) -> usize {
        SEGMENTS_MAX - self.segments.len()
    }

    /// Adds frames each of which lies in one buffer, behind what stands before it, as long as there is room
    /// for them. Returns how many were added.
    #[inline(always)]
    pub(crate) fn push_singles(
        &mut self,
        buffers: impl Iterator<Item = Segment>,
        lead: Lead,
    ) -> usize {
        let Self { frames, len, segments, .. } = self;
        let (mut pushed, mut pushed_bytes) = (0, 0);
        for (frame, buffer) in frames[*len..].iter_mut().zip(buffers) {
            if segments.len() == SEGMENTS_MAX {
                break;
            }
            frame.token.set(0);
            frame.first = segments.len() as u16;
            let rest = frame.settle_single(buffer, lead);
            frame.count = u16::from(rest.bytes > 0);
            if rest.bytes > 0 {
                segments.push(rest);
            }
            pushed += 1;
            pushed_bytes += u64::from(frame.bytes);
        }
        *len += pushed;
        self.bytes += pushed_bytes;
        pushed
    }

    /// Adds a segment to the frame that the next [`stage`](Self::stage) makes, if there is room.
    #[inline(always)]
    pub(crate) fn append(&mut self, segment: Segment) {
        // Room for all was reserved; a worker never allocates.
        if self.segments.len() < SEGMENTS_MAX {
            self.segments.push(segment);
        }
    }

    /// Makes a frame of all segments from the `first` on, and asks for its head to be fetched.
    /// It becomes readable by [`settle`](Self::settle).
    #[inline(always)]
    pub(crate) fn stage(&mut self, first: usize, bytes: u32) {
        let count = self.segments.len() - first;
        if let Some(segment) = self.segments.get(first) {
            prefetch(segment.address);
            prefetch(segment.address.wrapping_add(64));
        }
        let frame = &mut self.frames[self.len];
        frame.bytes = bytes;
        frame.first = first as u16;
        frame.count = count as u16;
        self.unsettled |= 1 << self.len;
        self.len += 1;
    }

    /// Index that the next segment gets, to be given to [`stage`](Self::stage).
    #[inline(always)]
    pub(crate) fn mark(&self) -> usize {
        self.segments.len()
    }

    /// Takes back all segments from `mark` on.
    #[inline(always)]
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.segments.truncate(mark);
    }

    /// Copies the heads of all staged frames to private memory, and reads what stands before them,
    /// which each of them must have.
    #[inline(always)]
    pub(crate) fn settle(&mut self, lead: Lead) {
        while self.unsettled != 0 {
            let frame = &mut self.frames[self.unsettled.trailing_zeros() as usize];
            frame.settle(&mut self.segments, lead);
            self.bytes += u64::from(frame.bytes);
            self.unsettled &= self.unsettled - 1;
        }
    }

    /// Adds a frame that lies in somebody's buffers, with a token that identifies them.
    ///
    /// Returns `false`, and adds nothing, if the burst is full.
    ///
    /// # Safety
    /// Transmit sides of the source's kind take `token` for what that kind says it is (an mbuf's
    /// address): it must be that.
    pub unsafe fn push_owned(
        &mut self,
        token: usize,
        segments: impl IntoIterator<Item = Segment>,
    ) -> bool {
        if self.len == BURST_MAX {
            return false;
        }
        let first = self.segments.len();
        let mut bytes = 0_u32;
        for segment in segments {
            if self.segments.len() == SEGMENTS_MAX {
                self.segments.truncate(first);
                return false;
            }
            bytes = bytes.saturating_add(segment.bytes);
            self.segments.push(segment);
        }
        self.stage(first, bytes);
        self.settle(Lead::Frame);
        self.frames[self.len - 1].token.set(token);
        true
    }

    /// Adds a frame of at most [`HEAD_MAX`] bytes that lies in private memory altogether.
    ///
    /// Returns `false`, and adds nothing, if the burst is full or the frame too long.
    pub fn push_private(&mut self, bytes: &[u8]) -> bool {
        if self.len == BURST_MAX || bytes.len() > HEAD_MAX {
            return false;
        }
        let frame = &mut self.frames[self.len];
        frame.head[..bytes.len()].copy_from_slice(bytes);
        (frame.bytes, frame.head_bytes) = (bytes.len() as u32, bytes.len() as u16);
        (frame.first, frame.count) = (0, 0);
        frame.offload = Offload::NONE;
        frame.token.set(0);
        self.len += 1;
        self.bytes += bytes.len() as u64;
        true
    }

    /// The tokens that nobody took, for a source's release.
    pub fn tokens(&self) -> impl Iterator<Item = usize> {
        self.frames[..self.len].iter().map(|frame| frame.token.get()).filter(|token| *token != 0)
    }

    /// The first bytes of a frame in it, for a source that looks at what it has received.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline(always)]
    pub fn head(&self, index: usize) -> &[u8] {
        let frame = &self.frames[..self.len][index];
        &frame.head[..usize::from(frame.head_bytes)]
    }

    /// Moves a frame to another burst, for a source that keeps what is not to be switched; the order
    /// of those that stay is kept. The body stays behind: what the other burst is good for is that
    /// the source releases by it what the frame lies in. It must not be full.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len), or the other burst is full.
    pub fn withdraw(&mut self, index: usize, into: &mut Burst) {
        assert!(into.len < BURST_MAX, "a burst has room for all of another");
        self.frames[index..self.len].rotate_left(1);
        self.len -= 1;
        let frame = &mut into.frames[into.len];
        std::mem::swap(&mut self.frames[self.len], frame);
        frame.count = 0;
        into.len += 1;
        into.bytes += u64::from(frame.bytes);
        self.bytes -= u64::from(frame.bytes);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Whether nothing is left in it of frames either: then it needs no clearing, which a worker
    /// spares itself before each of its many looks at quiet sources.
    fn is_clear(&self) -> bool {
        self.is_empty() && self.bytes == 0 && self.unsettled == 0 && self.segments.is_empty()
    }

    /// Empties it. Whoever filled it has released what its frames lie in before, or never does.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.len = 0;
        self.bytes = 0;
        self.unsettled = 0;
        self.segments.clear();
    }
}

/// Frames that were received and not yet released. Releases when dropped.
pub struct Received<'a> {
    burst: &'a mut Burst,
    source: &'a mut dyn Source,
}

impl<'a> Received<'a> {
    /// Asks `source` for what is waiting.
    #[inline]
    pub fn take(source: &'a mut dyn Source, burst: &'a mut Burst) -> Self {
        if !burst.is_empty() {
            burst.clear();
        }
        debug_assert!(burst.is_clear(), "who empties a burst clears it");
        source.fill(burst);
        debug_assert_eq!(
            burst.bytes,
            burst.frames[..burst.len].iter().map(|frame| u64::from(frame.bytes)).sum::<u64>(),
            "who adds or withdraws frames adds up their bytes"
        );
        Self { burst, source }
    }

    /// The frames, readable as long as this is not dropped.
    #[inline]
    pub fn frames(&self) -> Frames<'_> {
        Frames { burst: self.burst }
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.burst.is_empty() {
            self.source.release(self.burst);
            self.burst.clear();
        }
    }
}

/// The frames of a [`Received`].
#[derive(Clone, Copy)]
pub struct Frames<'a> {
    burst: &'a Burst,
}

impl<'a> Frames<'a> {
    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.burst.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.burst.len == 0
    }

    /// All of them, a bit for each by its index.
    #[inline(always)]
    pub fn all(&self) -> u64 {
        u64::MAX.checked_shr(u64::BITS - self.burst.len as u32).unwrap_or(0)
    }

    /// One of them.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline(always)]
    pub fn frame(&self, index: usize) -> FrameRef<'a> {
        FrameRef {
            frame: &self.burst.frames[..self.burst.len][index],
            segments: &self.burst.segments,
        }
    }

    /// Bytes of all of them.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.burst.bytes()
    }

    /// All of them, in the order in which they were received.
    pub fn iter(&self) -> impl Iterator<Item = FrameRef<'a>> + use<'a> {
        let burst = self.burst;
        burst.frames[..burst.len].iter().map(|frame| FrameRef { frame, segments: &burst.segments })
    }
}
