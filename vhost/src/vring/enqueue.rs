//! Us → guest: frames into a receiveq (virtio 1.2 §5.1.6.3).

use super::chain::{Chain, Head, WRITE, Walked};
use super::layout::Layout;
use super::ring::Ring;
use super::slots::Slot;
use super::{RingCounters, Violation, count};
use crate::burst::{BURST_MAX, FrameRef, Frames, Reader, Sent, Staged, TagEdit};
use crate::copy::copy;
use crate::offload::NetHeader;

/// The most buffers that one frame is spread over (`num_buffers` is 16 bits wide; a 64 KiB frame
/// in 1500-byte buffers needs 44).
const MERGED_MAX: usize = BURST_MAX;

/// How many buffers for one frame are looked up at once when no more are known: those of 9000 bytes
/// in the usual buffers, and some.
const MERGED_AHEAD: usize = 8;

/// Chains of a receiveq's driver without mergeable buffers have at most this many pieces: the
/// header, a 64 KiB frame in 4 KiB pages, and the last page's rest.
const PIECES_MAX: usize = 64;

impl<L: Layout> Ring<L> {
    /// See [`Vring::enqueue`](super::Vring::enqueue).
    #[inline]
    pub(super) fn enqueue(
        &mut self,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        sent: &mut Sent,
        counters: &RingCounters,
    ) -> Result<(), Violation> {
        if self.broken || !self.enabled {
            sent.down += staged.len() as u64;
            return Ok(());
        }
        let before = *sent;
        let wanted = staged.len();
        let mut rest = staged.frames();
        let mut outcome = self.enqueue_all(frames, staged, wanted, &mut rest, sent);
        if outcome.is_err() {
            sent.down += u64::from(rest.count_ones());
        }
        self.publish(counters);
        if outcome.is_ok() {
            // The next burst is likely as long. While it is received and decided on, the descriptors of
            // its buffers come over.
            outcome = self.look_up(wanted, WRITE);
        }
        self.broken = outcome.is_err();
        count(&counters.frames, sent.frames - before.frames);
        count(&counters.bytes, sent.bytes - before.bytes);
        count(&counters.full, sent.full - before.full);
        count(&counters.too_big, sent.too_big - before.too_big);
        outcome
    }

    /// Sends the frames that are staged, which are as many as `wanted`. Those of them are the `rest` of
    /// which it is not yet known what became of them.
    fn enqueue_all(
        &mut self,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        wanted: usize,
        rest: &mut u64,
        sent: &mut Sent,
    ) -> Result<(), Violation> {
        self.look_up(wanted, WRITE)?;
        let claimed = self.slots.claim(wanted);
        self.layout.prepare(claimed, WRITE);
        loop {
            *rest = if staged.is_edited() {
                self.fill_singles(frames, *rest, |index| staged.tag(index), sent)
            } else {
                self.fill_singles(frames, *rest, |_| TagEdit::Keep, sent)
            };
            if *rest == 0 {
                return Ok(());
            }
            let index = rest.trailing_zeros() as u8;
            self.fill_any(frames.frame(usize::from(index)), staged.tag(index), sent)?;
            *rest &= *rest - 1;
        }
    }

    /// Sends the frames of `rest` as long as each fits a buffer that is known and in one piece, and its
    /// driver takes it as it is. Returns which are left.
    ///
    /// What nearly all frames pass: it keeps in registers what it counts.
    #[inline(always)]
    fn fill_singles(
        &mut self,
        frames: Frames<'_>,
        mut rest: u64,
        tag: impl Fn(u8) -> TagEdit,
        sent: &mut Sent,
    ) -> u64 {
        let Self { layout, slots, accepted, .. } = self;
        let header_bytes = self.header_bytes;
        let (mut run, mut run_bytes) = (0, 0);
        for slot in slots.iter() {
            if rest == 0 {
                break;
            }
            let index = rest.trailing_zeros() as u8;
            let (frame, tag) = (frames.frame(usize::from(index)), tag(index));
            let bytes = frame.bytes_with(tag);
            let needed = bytes as u32 + header_bytes;
            if slot.bytes < needed {
                break;
            }
            // SAFETY: the slot's buffer is `slot.bytes >= needed` bytes of guest memory that the
            // ring keeps mapped.
            unsafe {
                // Written at two places, as it is a constant at the usual one.
                if frame.is_complete() {
                    write_header(slot.host, header_bytes, NetHeader::PLAIN, 1);
                } else if accepted.take(frame.offload()) {
                    let header = NetHeader::passing(frame.offload(), tag);
                    write_header(slot.host, header_bytes, header, 1);
                } else {
                    break;
                }
                frame.copy_to(tag, slot.host.add(header_bytes as usize));
            }
            layout.use_single(run, slot.id, needed);
            rest &= rest - 1;
            run += 1;
            run_bytes += bytes as u64;
        }
        self.layout.pass(run);
        self.slots.pass(run);
        sent.frames += run as u64;
        sent.bytes += run_bytes;
        rest
    }

    /// Sends a frame of any kind to buffers of any form.
    #[inline(never)]
    fn fill_any(
        &mut self,
        frame: FrameRef<'_>,
        tag: TagEdit,
        sent: &mut Sent,
    ) -> Result<(), Violation> {
        let header = if frame.is_complete() {
            NetHeader::PLAIN
        } else if self.accepted.take(frame.offload()) {
            NetHeader::passing(frame.offload(), tag)
        } else {
            return self.complete_frame(frame, tag, sent);
        };
        let bytes = frame.bytes_with(tag);
        match self.fill_pieces(bytes, frame.reader(tag), header)? {
            Filled::Whole => {
                sent.frames += 1;
                sent.bytes += bytes as u64;
            }
            Filled::Full => sent.full += 1,
            Filled::TooBig => sent.too_big += 1,
        }
        Ok(())
    }

    /// Sends a frame whose sender left more undone than this driver takes. A frame of which a
    /// segment finds no room counts as one that found none.
    #[cold]
    fn complete_frame(
        &mut self,
        frame: FrameRef<'_>,
        tag: TagEdit,
        sent: &mut Sent,
    ) -> Result<(), Violation> {
        let Some(mut completion) = frame.completed(tag) else {
            sent.unfinished += 1;
            return Ok(());
        };
        if !sent.may_cut() {
            sent.full += 1;
            return Ok(());
        }
        while let Some(part) = completion.next() {
            match self.fill_pieces(part.bytes(), part.reader(), NetHeader::PLAIN)? {
                Filled::Whole => {}
                Filled::Full => {
                    sent.full += 1;
                    return Ok(());
                }
                Filled::TooBig => {
                    sent.too_big += 1;
                    return Ok(());
                }
            }
            sent.bytes += part.bytes() as u64;
            sent.completed(frame.offload());
        }
        sent.frames += 1;
        Ok(())
    }

    /// Spreads the header and the next `bytes` bytes of `reader`, which must have as many, over as
    /// many buffers, and pieces of buffers, as it takes.
    #[inline(never)]
    fn fill_pieces(
        &mut self,
        bytes: usize,
        reader: Reader<'_>,
        header: NetHeader,
    ) -> Result<Filled, Violation> {
        let needed = bytes as u64 + u64::from(self.header_bytes);
        let mut gathered = Gathered::default();
        while gathered.bytes < needed {
            if gathered.chains == MERGED_MAX || (gathered.chains == 1 && !self.mergeable) {
                return Ok(Filled::TooBig);
            }
            if gathered.chains == self.slots.len() {
                self.look_up((gathered.chains + MERGED_AHEAD).min(BURST_MAX), WRITE)?;
            }
            if gathered.chains < self.slots.len() {
                let slot = self.slots.at(gathered.chains);
                if slot.bytes > 0 && gathered.add_single(slot) {
                    continue;
                }
            }
            let place = self.layout.after(self.layout.next(), gathered.places);
            let Some(head) = self.layout.head(place, gathered.chains as u16)? else {
                return Ok(Filled::Full);
            };
            if !self.gather(place, head, &mut gathered)? {
                return Ok(Filled::TooBig);
            }
        }
        self.slots.claim(gathered.chains);
        let header = header.bytes(gathered.chains as u16);
        // SAFETY: every piece was translated, and together they have `needed` bytes or more.
        unsafe { scatter(&header[..self.header_bytes as usize], reader, bytes, &gathered) };

        let mut left = needed;
        for at in 0..gathered.chains {
            let written = left.min(gathered.chain_bytes[at]);
            left -= written;
            self.layout.use_next(gathered.chain[at], written as u32);
        }
        self.slots.pass(gathered.chains);
        Ok(Filled::Whole)
    }

    /// Adds the chain at `place`; `false` if there is no room to remember its pieces.
    fn gather(
        &mut self,
        place: u16,
        head: Head,
        gathered: &mut Gathered,
    ) -> Result<bool, Violation> {
        let free = PIECES_MAX - gathered.pieces;
        let Walked { bytes, pieces, chain } = self.walk(place, head, WRITE, |host, bytes| {
            if let Some(piece) = gathered.piece.get_mut(gathered.pieces) {
                *piece = (host, bytes);
                gathered.pieces += 1;
            }
        })?;
        if pieces > free {
            return Ok(false);
        }
        let size = self.layout.size();
        if chain.places > size - gathered.places {
            return Err(Violation::Lapped { size });
        }
        gathered.chain[gathered.chains] = chain;
        gathered.chain_bytes[gathered.chains] = bytes;
        gathered.bytes += bytes;
        gathered.chains += 1;
        gathered.places += chain.places;
        Ok(true)
    }
}

enum Filled {
    Whole,
    Full,
    TooBig,
}

/// The buffers of one frame.
struct Gathered {
    chains: usize,
    /// How far behind them the next chain's place is.
    places: u16,
    bytes: u64,
    chain: [Chain; MERGED_MAX],
    chain_bytes: [u64; MERGED_MAX],
    pieces: usize,
    piece: [(*mut u8, u32); PIECES_MAX],
}

impl Gathered {
    /// Adds a buffer that was looked up; `false` if there is no room to remember it.
    #[inline(always)]
    fn add_single(&mut self, slot: Slot) -> bool {
        let Some(piece) = self.piece.get_mut(self.pieces) else { return false };
        *piece = (slot.host, slot.bytes);
        self.pieces += 1;
        self.chain[self.chains] = Chain { id: slot.id, places: 1 };
        self.chain_bytes[self.chains] = u64::from(slot.bytes);
        self.bytes += u64::from(slot.bytes);
        self.chains += 1;
        self.places += 1;
        true
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            chains: 0,
            places: 0,
            bytes: 0,
            chain: [Chain::default(); MERGED_MAX],
            chain_bytes: [0; MERGED_MAX],
            pieces: 0,
            piece: [(std::ptr::null_mut(), 0); PIECES_MAX],
        }
    }
}

/// Writes the net header of `bytes` bytes (virtio 1.2 §5.1.6) from registers. Read back from private memory in other
/// pieces than it was put there, it would stall every frame until the frame before has left the
/// core.
///
/// # Safety
/// `target` must be valid for writes of `bytes` bytes, which are 10 or 12.
#[inline(always)]
unsafe fn write_header(target: *mut u8, bytes: u32, header: NetHeader, buffers: u16) {
    let (first, last) = header.words(buffers);
    // SAFETY: both forms are as long as `bytes` says, by the caller's word.
    unsafe {
        target.cast::<u64>().write_unaligned(first.to_le());
        if bytes == 12 {
            target.add(8).cast::<u32>().write_unaligned(last.to_le());
        } else {
            target.add(8).cast::<u16>().write_unaligned((last as u16).to_le());
        }
    }
}

/// Writes the header and the next `bytes` bytes of `reader` to the pieces, each of them filled
/// before the next.
///
/// # Safety
/// The pieces must be valid for writes and together hold header and bytes, of which the reader
/// must have as many.
unsafe fn scatter(header: &[u8], reader: Reader<'_>, bytes: usize, gathered: &Gathered) {
    let (mut header, mut reader) = (header, reader);
    let mut left = bytes;
    for &(target, room) in &gathered.piece[..gathered.pieces] {
        let (mut target, mut room) = (target, room as usize);
        let of_header = header.len().min(room);
        // SAFETY: `of_header` bytes fit the piece.
        unsafe {
            copy(header.as_ptr(), target, of_header);
            target = target.add(of_header);
        }
        header = &header[of_header..];
        room -= of_header;
        let of_frame = left.min(room);
        // SAFETY: `of_frame` bytes fit what is left of the piece, and `left` counts what the
        // reader still has.
        unsafe { reader.read(target, of_frame) };
        left -= of_frame;
    }
}
