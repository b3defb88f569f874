//! One frame: its private head, where its body lies, and how it is read.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::reader::Reader;
use super::{HEAD_MAX, Segment};
use crate::copy::{SHORT_MAX, copy, copy_short};
use crate::flow;
use crate::offload::{Completion, Offload, Offloads, RawHeader};

// Heads are short copies.
const _: () = assert!(HEAD_MAX <= SHORT_MAX);

/// Bytes of the two MAC addresses, behind which a tag stands (802.1Q §9.6).
const TAG_OFFSET: usize = 12;
/// Bytes of a tag: TPID and TCI.
const TAG_BYTES: usize = 4;

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
    /// What its sender left undone.
    pub(super) offload: Offload,
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
            offload: Offload::NONE,
            token: Cell::new(0),
        }
    }
}

/// What stands before a burst's frames in their buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lead {
    /// Nothing.
    Frame,
    /// A net header of 10 or 12 bytes, by which drivers may leave us so much.
    Header(u32, Offloads),
}

impl Lead {
    #[inline(always)]
    fn bytes(self) -> u32 {
        match self {
            Self::Frame => 0,
            Self::Header(bytes, _) => bytes,
        }
    }

    /// How long a head can be. It ends where a cache line does, if what stands before it begins
    /// where one does: the lines behind are touched when the body is copied, and then as a whole.
    #[inline(always)]
    fn head_max(self) -> usize {
        HEAD_MAX - self.bytes() as usize
    }
}

impl Frame {
    /// Copies the head out of the frame's segments, which then are what is left.
    #[inline(always)]
    pub(super) fn settle(&mut self, segments: &mut [Segment], lead: Lead) {
        self.token.set(0);
        let only = segments[usize::from(self.first)];
        if self.count == 1 && only.bytes >= lead.bytes() {
            let rest = self.settle_single(only, lead);
            segments[usize::from(self.first)] = rest;
            self.count = u16::from(rest.bytes > 0);
        } else {
            self.offload.set_none();
            self.settle_pieces(segments, lead);
        }
    }

    /// Copies the head out of a buffer that has what stands before the frame and all of the frame,
    /// by far the most frequent form. Returns what is left of it.
    #[inline(always)]
    pub(super) fn settle_single(&mut self, only: Segment, lead: Lead) -> Segment {
        let skip = lead.bytes();
        debug_assert!(only.bytes >= skip, "what stands before the frame is there");
        self.offload.set_none();
        let bytes = only.bytes - skip;
        let head = (bytes as usize).min(lead.head_max());
        let start = only.address.wrapping_add(skip as usize);
        // SAFETY: the segment is readable for `skip + bytes` bytes, `head <= bytes`, and
        // `head` is not more than the size of the private array.
        unsafe { copy_short(start, self.head.as_mut_ptr(), head) };
        self.bytes = bytes;
        self.head_bytes = head as u16;
        if let Lead::Header(_, left) = lead {
            // SAFETY: both forms of the header have these ten bytes, which are readable. The
            // volatile reads take each of them once.
            let word = unsafe { only.address.cast::<Unaligned<u64>>().read_volatile() };
            let word = u64::from_le(word.0);
            if !RawHeader::is_plain(word) {
                let at = only.address.wrapping_add(8).cast::<Unaligned<u16>>();
                // SAFETY: as above.
                let offset = unsafe { at.read_volatile() };
                let raw = RawHeader { word, offset: u16::from_le(offset.0) };
                self.offload = raw.check(&self.head[..head], bytes as usize, left);
            }
        }
        Segment { address: start.wrapping_add(head), bytes: bytes - head as u32 }
    }

    #[inline(never)]
    fn settle_pieces(&mut self, segments: &mut [Segment], lead: Lead) {
        let mut skip = lead.bytes();
        let mut header = [0; 12];
        let mut header_at = 0;
        let mut head = 0;
        self.bytes = self.bytes.saturating_sub(skip);
        while self.count > 0 {
            let segment = &mut segments[usize::from(self.first)];
            let skipped = skip.min(segment.bytes);
            let take = (lead.head_max() - head).min((segment.bytes - skipped) as usize);
            let of_header = (header.len() - header_at).min(skipped as usize);
            // SAFETY: `of_header <= skipped` bytes of the segment are readable, and they do not
            // pass the private array's end.
            unsafe { copy(segment.address, header.as_mut_ptr().add(header_at), of_header) };
            header_at += of_header;
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
        if let Lead::Header(_, left) = lead {
            let [a, b, c, d, e, f, g, h, offset_low, offset_high, _, _] = header;
            let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            if !RawHeader::is_plain(word) {
                let raw = RawHeader { word, offset: u16::from_le_bytes([offset_low, offset_high]) };
                self.offload = raw.check(&self.head[..head], self.bytes as usize, left);
            }
        }
    }
}

/// A number at any address, which a volatile read takes by one load.
#[repr(C, packed)]
struct Unaligned<T>(T);

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

    /// As [`head`](Self::head), and how many of these bytes are the frame's. What stands behind is left
    /// from others: for who reads at fixed places and looks but once how long the frame is.
    #[inline(always)]
    pub fn fixed_head(&self) -> (&'a [u8; HEAD_MAX], usize) {
        (&self.frame.head, usize::from(self.frame.head_bytes))
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

    /// The number of the flow that it belongs to, by what is in its head: addresses and ports as far
    /// as there are any. Both directions of a conversation have the same, and it is even over all its
    /// bits.
    #[inline]
    pub fn flow(&self) -> u32 {
        flow::hash(self.head())
    }

    /// Whether its sender left nothing undone: so for all frames that don't come from a guest.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        self.frame.offload.is_none()
    }

    /// What its sender left undone.
    #[inline(always)]
    pub fn offload(&self) -> Offload {
        self.frame.offload
    }

    /// The complete frames that it becomes, leaving with `tag`: for ports that cannot do what its
    /// sender left undone. `None` if that is not known to be done.
    pub fn completed(&self, tag: TagEdit) -> Option<Completion<'a>> {
        Completion::new(*self, tag)
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
                copy_short(head.as_ptr(), target, head.len());
                if self.frame.count > 0 {
                    self.copy_body(target.add(head.len()));
                }
            }
        } else {
            // By a copy, as it is asked by its address there: so this one stays in registers.
            let frame = *self;
            // SAFETY: as the caller vouches; the reader gives exactly that many bytes.
            unsafe { frame.reader(tag).read(target, frame.bytes_with(tag)) };
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
        self.reader(tag).read_to_pieces(self.bytes_with(tag), pieces)
    }

    /// Reads the frame, with its tag edited, piece by piece.
    pub(crate) fn reader(&self, tag: TagEdit) -> Reader<'a> {
        let head = self.head();
        let behind = TAG_OFFSET + TAG_BYTES;
        let (start, tag, rest) = match tag {
            TagEdit::Keep => (&head[..0], None, head),
            TagEdit::Pop => (&head[..TAG_OFFSET], None, &head[behind..]),
            TagEdit::Push(tci) => (&head[..TAG_OFFSET], Some(tci), &head[TAG_OFFSET..]),
            TagEdit::Replace(tci) => (&head[..TAG_OFFSET], Some(tci), &head[behind..]),
        };
        Reader::new(start, tag, rest, self.body())
    }
}
