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

use std::cell::Cell;

use crate::copy::{copy, prefetch};

/// The most frames in a burst. Handing cache lines between cores gets cheaper up to about this
/// many, and latency dearer beyond.
pub const BURST_MAX: usize = 64;

/// The most bytes of a frame that are copied to private memory on receipt: room for Ethernet, one
/// tag, IPv6 with extension headers and a transport header.
pub const HEAD_MAX: usize = 128;

/// The most descriptors that the frames of one burst may consist of: what bounds the time that
/// one guest can take from a worker, and the length of one chain.
pub(crate) const SEGMENTS_MAX: usize = 1024;

/// Bytes of the two MAC addresses, behind which a tag stands (802.1Q §9.6).
const TAG_OFFSET: usize = 12;
/// Bytes of a tag: TPID and TCI.
const TAG_BYTES: usize = 4;
/// The customer tag's TPID (802.1Q §9.6, table 9-1).
const TAG_TPID: [u8; 2] = [0x81, 0x00];

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

/// What happens to a frame's 802.1Q tag on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagEdit {
    /// The frame leaves as it came.
    Keep,
    /// Its first tag is taken off.
    Pop,
    /// A tag with this TCI is put in.
    Push(u16),
    /// Its first tag becomes a customer tag with this TCI.
    Replace(u16),
}

/// A frame of a burst that shall go to one port.
#[derive(Clone, Copy, Debug)]
pub struct Staged {
    /// Its index in the burst.
    pub index: u8,
    /// What happens to its tag.
    pub tag: TagEdit,
    /// Whether it goes to this port only, so that what it lies in may be handed on as it is.
    pub sole: bool,
}

/// What became of the frames that were given to a port's transmit side.
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
    segments: Vec<Segment>,
}

#[repr(C, align(64))]
struct Frame {
    head: [u8; HEAD_MAX],
    bytes: u32,
    head_bytes: u16,
    /// The body's place in `segments`.
    first: u16,
    count: u16,
    /// What the source said the frame lies in; 0 for nothing.
    token: Cell<usize>,
}

impl Default for Burst {
    fn default() -> Self {
        let frame = || Frame {
            head: [0; HEAD_MAX],
            bytes: 0,
            head_bytes: 0,
            first: 0,
            count: 0,
            token: Cell::new(0),
        };
        Self {
            frames: Box::new(std::array::from_fn(|_| frame())),
            len: 0,
            segments: Vec::with_capacity(SEGMENTS_MAX),
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
        self.frames[..self.len].iter().map(|frame| u64::from(frame.bytes)).sum()
    }

    /// How many segments it still has room for.
    #[inline(always)]
    pub(crate) fn segments_free(&self) -> usize {
        SEGMENTS_MAX - self.segments.len()
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

    /// Copies the heads of all staged frames to private memory. Their first `skip` bytes, which
    /// each of them must have, do not belong to the frames.
    #[inline(always)]
    pub(crate) fn settle(&mut self, skip: u32) {
        let Self { frames, len, segments } = self;
        for frame in &mut frames[..*len] {
            frame.settle(segments, skip);
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
        let Self { frames, len, segments } = self;
        let frame = &mut frames[*len - 1];
        frame.settle(segments, 0);
        frame.token.set(token);
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
        frame.token.set(0);
        self.len += 1;
        true
    }

    /// The tokens that nobody took, for a source's release.
    pub fn tokens(&self) -> impl Iterator<Item = usize> {
        self.frames[..self.len].iter().map(|frame| frame.token.get()).filter(|token| *token != 0)
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.segments.clear();
    }
}

impl Frame {
    #[inline(always)]
    fn settle(&mut self, segments: &mut [Segment], skip: u32) {
        self.token.set(0);
        let only = segments[usize::from(self.first)];
        if self.count == 1 && only.bytes >= skip {
            // By far the most frequent form: header and frame in one piece.
            let bytes = only.bytes - skip;
            let head = (bytes as usize).min(HEAD_MAX);
            let start = only.address.wrapping_add(skip as usize);
            // SAFETY: the segment is readable for `skip + bytes` bytes, `head <= bytes`, and
            // `head <= HEAD_MAX`, the size of the private array.
            unsafe { copy(start, self.head.as_mut_ptr(), head) };
            self.bytes = bytes;
            self.head_bytes = head as u16;
            segments[usize::from(self.first)] = Segment {
                address: start.wrapping_add(head),
                bytes: bytes - head as u32,
            };
            self.count = u16::from(bytes as usize > head);
        } else {
            self.settle_pieces(segments, skip);
        }
    }

    #[cold]
    fn settle_pieces(&mut self, segments: &mut [Segment], skip: u32) {
        let mut skip = skip;
        let mut head = 0;
        self.bytes = self.bytes.saturating_sub(skip);
        while self.count > 0 {
            let segment = &mut segments[usize::from(self.first)];
            let skipped = skip.min(segment.bytes);
            let take = (HEAD_MAX - head).min((segment.bytes - skipped) as usize);
            let start = segment.address.wrapping_add(skipped as usize);
            // SAFETY: `skipped + take` bytes of the segment are readable, and `head + take` does
            // not pass the private array's end.
            unsafe { copy(start, self.head.as_mut_ptr().add(head), take) };
            skip -= skipped;
            head += take;
            segment.address = start.wrapping_add(take);
            segment.bytes -= skipped + take as u32;
            if segment.bytes > 0 {
                break;
            }
            self.first += 1;
            self.count -= 1;
        }
        self.head_bytes = head as u16;
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
        burst.clear();
        source.fill(burst);
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

    /// One of them.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline(always)]
    pub fn frame(&self, index: usize) -> FrameRef<'a> {
        FrameRef { frame: &self.burst.frames[..self.burst.len][index], segments: &self.burst.segments }
    }

    /// All of them, in the order in which they were received.
    pub fn iter(&self) -> impl Iterator<Item = FrameRef<'a>> + use<'a> {
        let burst = self.burst;
        burst.frames[..burst.len].iter().map(|frame| FrameRef { frame, segments: &burst.segments })
    }
}

/// One received frame.
#[derive(Clone, Copy)]
pub struct FrameRef<'a> {
    frame: &'a Frame,
    segments: &'a [Segment],
}

impl<'a> FrameRef<'a> {
    /// Its first bytes, up to [`HEAD_MAX`], in memory that nobody else can write to.
    #[inline(always)]
    pub fn head(&self) -> &'a [u8] {
        &self.frame.head[..usize::from(self.frame.head_bytes)]
    }

    /// Its length in bytes, from the MAC addresses on, without the frame check sequence.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.frame.bytes as usize
    }

    /// Its length once `tag` has been done.
    #[inline(always)]
    pub fn bytes_with(&self, tag: TagEdit) -> usize {
        match tag {
            TagEdit::Keep | TagEdit::Replace(_) => self.bytes(),
            TagEdit::Pop => self.bytes() - TAG_BYTES,
            TagEdit::Push(_) => self.bytes() + TAG_BYTES,
        }
    }

    /// Takes what the source said the frame lies in, or 0 if that was nothing or was taken.
    /// Whoever takes it must give it back to its owner instead of the source.
    pub fn take_token(&self) -> usize {
        self.frame.token.replace(0)
    }

    /// What [`take_token`](Self::take_token) would take.
    pub fn token(&self) -> usize {
        self.frame.token.get()
    }

    /// Copies the whole frame, with its tag edited, to `target`.
    ///
    /// # Safety
    /// `target` must be valid for writes of `self.bytes_with(tag)` bytes and must not overlap the
    /// frame's own buffers. Somebody else may write there meanwhile.
    #[inline(always)]
    pub unsafe fn copy_to(&self, tag: TagEdit, target: *mut u8) {
        if tag == TagEdit::Keep {
            let head = self.head();
            // SAFETY: head and body together are `self.bytes()` bytes, for which the caller
            // vouches.
            unsafe {
                copy(head.as_ptr(), target, head.len());
                if self.frame.count > 0 {
                    self.copy_body(target.add(head.len()));
                }
            }
        } else {
            let mut reader = self.reader(tag);
            // SAFETY: as the caller vouches; the reader gives exactly that many bytes.
            unsafe { reader.read(target, self.bytes_with(tag)) };
        }
    }

    #[inline(always)]
    unsafe fn copy_body(&self, target: *mut u8) {
        let mut target = target;
        for segment in self.body() {
            // SAFETY: the segment is readable until release, which `self` outlives not; `target`
            // has room for the body by the caller's word.
            unsafe {
                copy(segment.address, target, segment.bytes as usize);
                target = target.add(segment.bytes as usize);
            }
        }
    }

    #[inline(always)]
    fn body(&self) -> &'a [Segment] {
        &self.segments[usize::from(self.frame.first)..][..usize::from(self.frame.count)]
    }

    /// Copies the whole frame, with its tag edited, into the pieces, each of them filled before
    /// the next. Returns how many bytes the frame has beyond what the pieces hold.
    pub fn copy_to_pieces<'b>(
        &self,
        tag: TagEdit,
        pieces: impl IntoIterator<Item = &'b mut [u8]>,
    ) -> usize {
        let mut left = self.bytes_with(tag);
        let mut reader = self.reader(tag);
        for piece in pieces {
            let take = left.min(piece.len());
            // SAFETY: the piece is ours alone for `take` bytes, and `left` counts what the reader
            // still has.
            unsafe { reader.read(piece.as_mut_ptr(), take) };
            left -= take;
        }
        left
    }

    /// Reads the frame, with its tag edited, piece by piece.
    pub(crate) fn reader(&self, tag: TagEdit) -> Reader<'a> {
        let head = self.head();
        let behind = TAG_OFFSET + TAG_BYTES;
        let (start, tag, rest) = match tag {
            TagEdit::Keep => (head, None, &head[head.len()..]),
            TagEdit::Pop => (&head[..TAG_OFFSET], None, &head[behind..]),
            TagEdit::Push(tci) => (&head[..TAG_OFFSET], Some(tci), &head[TAG_OFFSET..]),
            TagEdit::Replace(tci) => (&head[..TAG_OFFSET], Some(tci), &head[behind..]),
        };
        let tag_left = if tag.is_some() { TAG_BYTES } else { 0 };
        let [high, low] = tag.unwrap_or(0).to_be_bytes();
        let tag = [TAG_TPID[0], TAG_TPID[1], high, low];
        Reader { start, tag, tag_left, rest, body: self.body(), body_at: 0 }
    }
}

/// A frame as a stream of bytes, see [`FrameRef::reader`].
pub(crate) struct Reader<'a> {
    start: &'a [u8],
    tag: [u8; TAG_BYTES],
    /// Bytes of `tag` that are still to be read; 0 if none is put in.
    tag_left: usize,
    rest: &'a [u8],
    body: &'a [Segment],
    /// Bytes already read of the body's first segment.
    body_at: usize,
}

impl Reader<'_> {
    /// Copies the next `bytes` bytes to `target`.
    ///
    /// # Safety
    /// `target` must be valid for writes of `bytes` bytes that do not overlap the frame's own
    /// buffers, and no more bytes may be asked for in all than the frame has.
    pub(crate) unsafe fn read(&mut self, target: *mut u8, bytes: usize) {
        let mut target = target;
        let mut bytes = bytes;
        while bytes > 0 {
            let (address, available) = if !self.start.is_empty() {
                (self.start.as_ptr(), self.start.len())
            } else if self.tag_left > 0 {
                (self.tag[TAG_BYTES - self.tag_left..].as_ptr(), self.tag_left)
            } else if !self.rest.is_empty() {
                (self.rest.as_ptr(), self.rest.len())
            } else {
                let segment = self.body[0];
                (segment.address.wrapping_add(self.body_at), segment.bytes as usize - self.body_at)
            };
            let take = available.min(bytes);
            // SAFETY: `take` bytes are readable there (private memory, or a segment before its
            // release) and writable at `target` by the caller's word.
            unsafe {
                copy(address, target, take);
                target = target.add(take);
            }
            bytes -= take;
            self.advance(take);
        }
    }

    fn advance(&mut self, bytes: usize) {
        if !self.start.is_empty() {
            self.start = &self.start[bytes..];
        } else if self.tag_left > 0 {
            self.tag_left -= bytes;
        } else if !self.rest.is_empty() {
            self.rest = &self.rest[bytes..];
        } else {
            self.body_at += bytes;
            if self.body_at == self.body[0].bytes as usize {
                self.body = &self.body[1..];
                self.body_at = 0;
            }
        }
    }
}
