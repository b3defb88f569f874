//! Which frames of a burst go to a port: a bit for each, as a frame goes to a port once at most, and
//! in the order in which it came.

use super::{BURST_MAX, TagEdit};

/// Frames of a burst that shall go to one port. Frames are told by bits, each by its index.
#[derive(Clone, Copy, Debug)]
pub struct Staged<'a> {
    frames: u64,
    /// Frames that go to other ports too; it may be told of others than `frames`.
    shared: u64,
    /// Frames whose tag is edited; likewise.
    edited: u64,
    /// What happens to the tags of those, by their indexes.
    edits: &'a [TagEdit; BURST_MAX],
}

/// One of the frames that are [`Staged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedFrame {
    /// Its index in the burst.
    pub index: u8,
    /// What happens to its tag.
    pub tag: TagEdit,
    /// Whether it goes to this port only, so that what it lies in may be handed on as it is.
    pub sole: bool,
}

impl Staged<'static> {
    /// Frames that leave as they came, and go to no other port.
    #[inline(always)]
    pub const fn new(frames: u64) -> Self {
        Self { frames, shared: 0, edited: 0, edits: &[TagEdit::Keep; BURST_MAX] }
    }
}

impl<'a> Staged<'a> {
    /// The same, but those of `frames` go to other ports too.
    #[inline(always)]
    pub const fn with_shared(self, frames: u64) -> Self {
        Self { shared: frames, ..self }
    }

    /// The same, but the tags of those of `frames` are edited, as `edits` says by their indexes.
    #[inline(always)]
    pub const fn with_edits<'b>(self, frames: u64, edits: &'b [TagEdit; BURST_MAX]) -> Staged<'b> {
        let Self { frames: staged, shared, .. } = self;
        Staged { frames: staged, shared, edited: frames, edits }
    }

    /// Only those of `frames`.
    #[inline(always)]
    pub const fn only(self, frames: u64) -> Self {
        Self { frames: self.frames & frames, ..self }
    }

    /// Which frames they are.
    #[inline(always)]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// How many.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.frames.count_ones() as usize
    }

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether the tag of any of them may be edited.
    #[inline(always)]
    pub(crate) const fn is_edited(&self) -> bool {
        self.edited != 0
    }

    /// What happens to the tag of a frame.
    #[inline(always)]
    pub(crate) const fn tag(&self, index: u8) -> TagEdit {
        if self.edited >> index & 1 == 0 {
            return TagEdit::Keep;
        }
        self.edits[index as usize % BURST_MAX]
    }

    /// One of the frames.
    #[inline(always)]
    pub const fn frame(&self, index: u8) -> StagedFrame {
        StagedFrame { index, tag: self.tag(index), sole: self.shared >> index & 1 == 0 }
    }

    /// All of them, in the order in which they came.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = StagedFrame> + use<'a> {
        let mut rest = self.frames;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as u8;
            rest = rest.checked_sub(1)? & rest;
            Some(self.frame(index))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_order_with_what_is_known_of_each() {
        let mut edits = [TagEdit::Keep; BURST_MAX];
        edits[3] = TagEdit::Push(5);
        edits[63] = TagEdit::Pop;
        let staged = Staged::new(1 << 63 | 0b1010).with_shared(0b10).with_edits(1 << 63, &edits);
        let frame = |index, tag, sole| StagedFrame { index, tag, sole };
        let expected = [
            frame(1, TagEdit::Keep, false),
            frame(3, TagEdit::Keep, true),
            frame(63, TagEdit::Pop, true),
        ];
        assert!(staged.iter().eq(expected));
        assert_eq!((staged.len(), staged.is_empty()), (3, false));
        assert!(staged.only(!0b10).iter().eq(expected[1..].iter().copied()));
        assert!(staged.only(0b100).is_empty());
        assert!(Staged::new(u64::MAX).iter().map(|frame| frame.index).eq(0..64));
    }
}
