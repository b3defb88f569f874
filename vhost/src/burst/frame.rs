//! One frame: its private head, where its body lies, and how it is read.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::{HEAD_MAX, Segment};
use crate::copy::copy;

/// Bytes of the two MAC addresses, behind which a tag stands (802.1Q §9.6).
const TAG_OFFSET: usize = 12;
/// Bytes of a tag: TPID and TCI.
const TAG_BYTES: usize = 4;
/// The customer tag's TPID (802.1Q §9.6, table 9-1).
const TAG_TPID: [u8; 2] = [0x81, 0x00];

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

#[repr(C, align(64))]
pub(super) struct Frame {
    pub(super) head: [u8; HEAD_MAX],
    pub(super) bytes: u32,
    pub(super) head_bytes: u16,
    /// The body's place in `segments`.
    pub(super) first: u16,
    pub(super) count: u16,
    /// What the source said the frame lies in; 0 for nothing.
    pub(super) token: Cell<usize>,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            head: [0; HEAD_MAX],
            bytes: 0,
            head_bytes: 0,
            first: 0,
            count: 0,
            token: Cell::new(0),
        }
    }
}

impl Frame {
    #[inline(always)]
    pub(super) fn settle(&mut self, segments: &mut [Segment], skip: u32) {
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
            segments[usize::from(self.first)] =
                Segment { address: start.wrapping_add(head), bytes: bytes - head as u32 };
            self.count = u16::from(bytes as usize > head);
        } else {
            self.settle_pieces(segments, skip);
        }
    }

    #[inline(never)]
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

/// One received frame.
#[derive(Clone, Copy)]
pub struct FrameRef<'a> {
    pub(super) frame: &'a Frame,
    pub(super) segments: &'a [Segment],
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
