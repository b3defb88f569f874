//! A frame as a stream of bytes, through its private head and the pieces of its body.
#![allow(unsafe_code)]

use super::Segment;
use crate::copy::copy;

/// The customer tag's TPID (802.1Q §9.6, table 9-1).
const TAG_TPID: [u8; 2] = [0x81, 0x00];
/// Bytes of a tag: TPID and TCI.
const TAG_BYTES: usize = 4;

/// Bytes that are looked at in one go: few enough to stay in the nearest cache.
const WINDOW: usize = 1024;

/// See the [module's head](self). A copy reads on independently from the same place.
#[derive(Clone, Copy, Debug)]
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

impl<'a> Reader<'a> {
    /// Reads `start`, then a tag with the given TCI if one is put in, `rest` and `body`.
    pub(super) fn new(
        start: &'a [u8],
        tag: Option<u16>,
        rest: &'a [u8],
        body: &'a [Segment],
    ) -> Self {
        let tag_left = if tag.is_some() { TAG_BYTES } else { 0 };
        let [high, low] = tag.unwrap_or(0).to_be_bytes();
        let tag = [TAG_TPID[0], TAG_TPID[1], high, low];
        Self { start, tag, tag_left, rest, body, body_at: 0 }
    }

    /// What is still to be read of this one, behind `head`. The tag must have been read.
    pub(crate) fn behind<'b>(self, head: &'b [u8]) -> Reader<'b>
    where
        'a: 'b,
    {
        debug_assert!(self.start.is_empty() && self.tag_left == 0, "the tag was read");
        Reader { start: head, ..self }
    }

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

    /// Fills `target` with what comes next, of which there must be as much.
    pub(crate) fn read_to(&mut self, target: &mut [u8]) {
        // SAFETY: the slice is ours alone; `read` stops with a panic at the frame's end.
        unsafe { self.read(target.as_mut_ptr(), target.len()) };
    }

    /// Copies the next `bytes` bytes into the pieces, each of them filled before the next. Returns
    /// how many bytes there are beyond what the pieces hold.
    pub(crate) fn read_to_pieces<'b>(
        mut self,
        bytes: usize,
        pieces: impl IntoIterator<Item = &'b mut [u8]>,
    ) -> usize {
        let mut left = bytes;
        for piece in pieces {
            let take = left.min(piece.len());
            self.read_to(&mut piece[..take]);
            left -= take;
        }
        left
    }

    /// Gives the next `bytes` bytes to `look`, in private copies: what they are made of may change
    /// meanwhile.
    pub(crate) fn each(&mut self, bytes: usize, mut look: impl FnMut(&[u8])) {
        let mut window = [0; WINDOW];
        let mut left = bytes;
        while left > 0 {
            let piece = &mut window[..left.min(WINDOW)];
            self.read_to(piece);
            look(piece);
            left -= piece.len();
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
