//! Doing in software what a frame's sender left undone, on the frame's way to where it goes.
//!
//! The headers of each frame that is made stand in private memory; the payload stays in the
//! sender's buffers, is read once for the checksum and once for the copy, and nothing is
//! allocated. A sender that changes its payload between the two gets a wrong checksum, as it would
//! from a NIC.

use super::checksum::Sum;
use super::{Offload, need};
use crate::burst::{FrameRef, Reader, TagEdit};

/// The most bytes before the end of a checksum that can be completed: headers of a tunnel and of
/// what it carries.
const HEADERS_MAX: usize = 256;

/// Flags of a TCP header (RFC 9293 §3.1), which are in its 14th byte: those that only the last
/// segment keeps, and the one that only the first keeps.
const TCP_FLAGS: usize = 13;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The complete frames that one frame becomes. See the [module's head](self).
#[derive(Debug)]
pub struct Completion<'a> {
    /// The headers of the next frame that is made.
    head: [u8; HEADERS_MAX],
    head_bytes: usize,
    /// What is behind them and not yet in a frame.
    rest: Reader<'a>,
    left: usize,
    /// Where things are, with the tag edited.
    offload: Offload,
    /// The sum over TCP's pseudo header without the length, which differs between segments.
    pseudo: u16,
    /// The first frame's TCP flags.
    flags: u8,
    made: usize,
}

/// One complete frame.
#[derive(Debug)]
pub struct Part<'a> {
    head: &'a [u8],
    rest: Reader<'a>,
    bytes: usize,
}

impl<'a> Completion<'a> {
    /// Of a frame that leaves with `tag`. `None` if its checksum is too far behind its beginning,
    /// or what is left undone makes no sense.
    pub fn new(frame: FrameRef<'a>, tag: TagEdit) -> Option<Self> {
        let bytes = frame.bytes_with(tag);
        let offload = frame.offload().with(tag);
        if offload.is_impossible() {
            return None;
        }
        let head_bytes =
            if offload.is_segmented() { usize::from(offload.headers) } else { offload.field() + 2 };
        let mut head = [0; HEADERS_MAX];
        let mut rest = frame.reader(tag);
        rest.read_to(head.get_mut(..head_bytes)?);
        let mut completion = Self {
            head,
            head_bytes,
            rest,
            left: bytes - head_bytes,
            offload,
            pseudo: 0,
            flags: 0,
            made: 0,
        };
        if offload.is_segmented() {
            completion.begin(bytes);
        }
        Some(completion)
    }

    /// The next frame.
    #[expect(clippy::should_implement_trait, reason = "what it lends is overwritten by the next")]
    pub fn next(&mut self) -> Option<Part<'_>> {
        if self.left == 0 && (self.made > 0 || self.offload.is_segmented()) {
            return None;
        }
        let payload = if self.offload.is_segmented() {
            let payload = self.left.min(usize::from(self.offload.segment));
            self.segment(payload);
            payload
        } else {
            self.left
        };
        let rest = self.rest;
        let mut sum = Sum::default();
        sum.bytes(&self.head[usize::from(self.offload.start)..self.head_bytes]);
        self.rest.each(payload, |piece| sum.bytes(piece));
        self.finish(!sum.fold());
        self.left -= payload;
        self.made += 1;
        let head = &self.head[..self.head_bytes];
        Some(Part { head, rest, bytes: self.head_bytes + payload })
    }

    /// Reads what differs between the segments of a frame of `bytes` bytes.
    fn begin(&mut self, bytes: usize) {
        // The driver has put the sum over the pseudo header where the checksum goes (virtio 1.2
        // §5.1.6.2), with the length of the whole: that is taken off again.
        let mut pseudo = Sum::default();
        pseudo.word(u16::from_be_bytes(self.word(self.offload.field())));
        pseudo.word(!((bytes - usize::from(self.offload.start)) as u16));
        self.pseudo = pseudo.fold();
        self.flags = self.head[usize::from(self.offload.start) + TCP_FLAGS];
    }

    /// Makes the headers those of the next segment.
    fn segment(&mut self, payload: usize) {
        let Offload { network, start, segment, .. } = self.offload;
        let (network, start) = (usize::from(network), usize::from(start));
        let ip_bytes = (self.head_bytes - network + payload) as u16;
        if self.offload.needs & need::TCP4 != 0 {
            self.put(network + 2, ip_bytes);
            if self.made > 0 {
                let identification = u16::from_be_bytes(self.word(network + 4));
                self.put(network + 4, identification.wrapping_add(1));
            }
            self.put(network + 10, 0);
            let mut sum = Sum::default();
            sum.bytes(&self.head[network..start]);
            self.put(network + 10, !sum.fold());
        } else {
            self.put(network + 4, ip_bytes - 40);
        }
        if self.made > 0 {
            let [high, low] = [self.word(start + 4), self.word(start + 6)];
            let sequence = u32::from_be_bytes([high[0], high[1], low[0], low[1]]);
            let sequence = sequence.wrapping_add(u32::from(segment));
            self.put(start + 4, (sequence >> 16) as u16);
            self.put(start + 6, sequence as u16);
        }
        let last = payload == self.left;
        let gone = if last { 0 } else { FIN_PSH } | if self.made > 0 { CWR } else { 0 };
        self.head[start + TCP_FLAGS] = self.flags & !gone;
        let mut pseudo = Sum::default();
        pseudo.word(self.pseudo);
        pseudo.word((self.head_bytes - start + payload) as u16);
        self.put(self.offload.field(), pseudo.fold());
    }

    /// Puts the checksum in.
    fn finish(&mut self, checksum: u16) {
        // To UDP a 0 says that there is none (RFC 768); the other zero says the same to all else.
        let checksum = if checksum == 0 && !self.offload.is_segmented() { !0 } else { checksum };
        self.put(self.offload.field(), checksum);
    }

    fn word(&self, at: usize) -> [u8; 2] {
        [self.head[at], self.head[at + 1]]
    }

    fn put(&mut self, at: usize, word: u16) {
        self.head[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }
}

impl<'a> Part<'a> {
    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies it into the pieces, each of them filled before the next. Returns how many bytes it
    /// has beyond what the pieces hold.
    pub fn copy_to_pieces<'b>(&self, pieces: impl IntoIterator<Item = &'b mut [u8]>) -> usize {
        self.reader().read_to_pieces(self.bytes, pieces)
    }

    /// Reads it piece by piece.
    pub(crate) fn reader(&self) -> Reader<'a> {
        self.rest.behind(self.head)
    }
}
