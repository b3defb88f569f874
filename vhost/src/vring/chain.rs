//! Walking a descriptor chain without trusting it (virtio 1.2 §2.7.5, §2.8.6).

use super::Violation;
use super::layout::Layout;
use super::ring::Ring;
use crate::burst::SEGMENTS_MAX;
use crate::memory::GuestMemory;

/// Buffer continues in another descriptor.
pub(super) const NEXT: u16 = 1;
/// Buffer is for the device to write.
pub(super) const WRITE: u16 = 2;
/// Buffer is a table of descriptors.
pub(super) const INDIRECT: u16 = 4;

/// The most bytes that a chain may hold: a 64 KiB segment with all headers fits several times.
pub(super) const CHAIN_BYTES_MAX: u64 = 1 << 20;

/// A private copy of one descriptor (virtio 1.2 §2.7.5, §2.8.13).
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) flags: u16,
    /// Split: where the chain continues. Packed: the buffer's id, good in a chain's last one.
    pub(super) link: u16,
}

/// The beginning of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Split: the first descriptor's index. Packed: nothing, it stands in the last one.
    pub(super) id: u16,
    pub(super) first: Descriptor,
}

/// What it takes to use a chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    /// By which the driver knows it.
    pub(super) id: u16,
    /// How far behind its place the next chain's is.
    pub(super) places: u16,
}

/// The 16 bytes of a descriptor, read once, as two words of 8.
///
/// # Safety
/// 16 bytes at `address` must be readable, and aligned to 8.
#[inline(always)]
pub(super) unsafe fn read(address: *const u8) -> [u64; 2] {
    let words: *const u64 = address.cast();
    // SAFETY: as the caller vouches. The compiler takes the values from volatile reads and never
    // again from the guest.
    unsafe { [words.read_volatile(), words.add(1).read_volatile()] }.map(u64::from_le)
}

/// As [`read`], for tables that a driver may put anywhere.
///
/// # Safety
/// 16 bytes at `address` must be readable.
unsafe fn read_unaligned(address: *const u8) -> [u64; 2] {
    let mut words = [0_u64; 2];
    // SAFETY: the caller vouches for the source; the target is 16 private bytes. The volatile
    // read makes the compiler take the values from there and never again from the guest.
    let words = unsafe {
        std::ptr::copy_nonoverlapping(address, words.as_mut_ptr().cast(), 16);
        (&raw const words).read_volatile()
    };
    words.map(u64::from_le)
}

impl<L: Layout> Ring<L> {
    /// Walks the chain at `place` that begins with `head`, whose flags say that it is not a single
    /// buffer or whose buffer is not in one region. Gives each piece to `piece`. All buffers must
    /// have `direction` ([`WRITE`] or 0).
    #[inline(never)]
    pub(super) fn walk(
        &mut self,
        place: u16,
        head: Head,
        direction: u16,
        mut piece: impl FnMut(*mut u8, u32),
    ) -> Result<Walked, Violation> {
        let limit = self.layout.size().min(SEGMENTS_MAX as u16);
        let mut table: Option<Table> = None;
        let mut descriptor = head.first;
        // What the ring itself holds of the chain: its end, and how long it is.
        let (mut last, mut in_ring) = (descriptor, 1);
        let mut steps = 0;
        let (mut bytes, mut pieces) = (0, 0);
        loop {
            if descriptor.flags & INDIRECT != 0 {
                let alone = !L::POSITIONAL || steps == 0;
                if descriptor.flags & NEXT != 0 || table.is_some() || !alone {
                    return Err(Violation::IndirectNested);
                }
                let indirect = Table::new(descriptor, limit)?;
                descriptor = indirect.descriptor(self, 0)?;
                table = Some(indirect);
                continue;
            }
            steps += 1;
            if steps > limit {
                return Err(Violation::ChainLength { limit });
            }
            if descriptor.flags & WRITE != direction {
                let wrong = if direction == 0 { Violation::Writable } else { Violation::Readable };
                return Err(wrong);
            }
            bytes += u64::from(descriptor.bytes);
            if bytes > CHAIN_BYTES_MAX {
                return Err(Violation::ChainBytes { bytes });
            }
            buffer(&self.memory, &mut self.hint, descriptor, |host, bytes| {
                pieces += 1;
                piece(host, bytes);
            })?;
            let more = match table {
                Some(table) if L::POSITIONAL => steps < table.size,
                _ => descriptor.flags & NEXT != 0,
            };
            if !more {
                return Ok(Walked { bytes, pieces, chain: L::chain(head, last, in_ring) });
            }
            if let Some(table) = table {
                let index = if L::POSITIONAL { steps } else { descriptor.link };
                descriptor = table.descriptor(self, index)?;
            } else {
                descriptor = self.layout.linked(place, steps, descriptor)?;
                (last, in_ring) = (descriptor, in_ring + 1);
            }
        }
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub(super) bytes: u64,
    /// Pieces given out: a buffer that crosses from one memory region to the next makes two.
    pub(super) pieces: usize,
    pub(super) chain: Chain,
}

/// An indirect table (virtio 1.2 §2.7.5.3, §2.8.7).
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    size: u16,
}

impl Table {
    fn new(descriptor: Descriptor, limit: u16) -> Result<Self, Violation> {
        let bytes = descriptor.bytes;
        let size = bytes / 16;
        if bytes == 0 || !bytes.is_multiple_of(16) || size > u32::from(limit) {
            return Err(Violation::IndirectTable { bytes });
        }
        Ok(Self { address: descriptor.address, size: size as u16 })
    }

    fn descriptor<L: Layout>(
        self,
        ring: &mut Ring<L>,
        index: u16,
    ) -> Result<Descriptor, Violation> {
        let Self { address, size } = self;
        if index >= size {
            return Err(Violation::DescriptorIndex { index, size });
        }
        let outside = Violation::Address { address, bytes: u32::from(size) * 16 };
        let at = address.checked_add(16 * u64::from(index)).ok_or(outside)?;
        let host = ring.memory.translate(at, 16, &mut ring.hint).ok_or(outside)?;
        // SAFETY: `translate` found 16 bytes there, in memory that the ring keeps mapped.
        Ok(L::descriptor(unsafe { read_unaligned(host) }))
    }
}

/// Translates one buffer, in one piece if it lies in one region.
fn buffer(
    memory: &GuestMemory,
    hint: &mut usize,
    descriptor: Descriptor,
    mut piece: impl FnMut(*mut u8, u32),
) -> Result<(), Violation> {
    let Descriptor { address, bytes, .. } = descriptor;
    if bytes == 0 {
        return Ok(());
    }
    if let Some(host) = memory.translate(address, u64::from(bytes), hint) {
        piece(host, bytes);
        return Ok(());
    }
    // A piece is never longer than its buffer, whose length is 32 bits wide.
    let inside = memory.pieces(address, u64::from(bytes), |host, bytes| piece(host, bytes as u32));
    if inside { Ok(()) } else { Err(Violation::Address { address, bytes }) }
}
