//! Walking a descriptor chain without trusting it (virtio 1.2 §2.7.5).

use super::{Violation, Vring};
use crate::burst::SEGMENTS_MAX;
use crate::memory::GuestMemory;

/// Buffer continues in `next`.
pub(super) const NEXT: u16 = 1;
/// Buffer is for the device to write.
pub(super) const WRITE: u16 = 2;
/// Buffer is a table of descriptors.
pub(super) const INDIRECT: u16 = 4;

/// The most bytes that a chain may hold: a 64 KiB segment with all headers fits several times.
pub(super) const CHAIN_BYTES_MAX: u64 = 1 << 20;

/// A private copy of one descriptor (virtio 1.2 §2.7.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A receive buffer that was looked up ahead of its use: the private copy of a chain's first
/// descriptor, and where its buffer is if the chain is just that one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) head: u16,
    pub(super) bytes: u32,
    /// Null for anything but a single buffer in one region.
    pub(super) host: *mut u8,
}

impl Default for Slot {
    fn default() -> Self {
        Self { head: 0, bytes: 0, host: std::ptr::null_mut() }
    }
}

impl Descriptor {
    /// Reads the descriptor at `address` once.
    ///
    /// # Safety
    /// 16 bytes at `address` must be readable.
    #[inline(always)]
    unsafe fn read(address: *const u8) -> Self {
        let mut words = [0_u64; 2];
        // SAFETY: the caller vouches for the source; the target is 16 private bytes. The volatile
        // read makes the compiler take the values from there and never again from the guest.
        let [low, high] = unsafe {
            std::ptr::copy_nonoverlapping(address, words.as_mut_ptr().cast(), 16);
            (&raw const words).read_volatile()
        };
        let (low, high) = (u64::from_le(low), u64::from_le(high));
        Self {
            address: low,
            bytes: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }
}

impl Vring {
    /// The descriptor at `index` of the ring's own table.
    #[inline(always)]
    pub(super) fn descriptor(&self, index: u16) -> Result<Descriptor, Violation> {
        if index >= self.size {
            return Err(Violation::DescriptorIndex { index, size: self.size });
        }
        // SAFETY: `new` found `16 * size` bytes there, and `index < size`.
        Ok(unsafe { Descriptor::read(self.descriptors.add(16 * usize::from(index))) })
    }

    /// Where the descriptor at `index` lies, for prefetching. Any index is harmless.
    #[inline(always)]
    pub(super) fn descriptor_address(&self, index: u16) -> *const u8 {
        self.descriptors.wrapping_add(16 * usize::from(index))
    }

    /// Walks the chain that begins with `first`, whose flags say that it is not a single buffer or
    /// whose buffer is not in one region. Gives each piece to `piece`. All buffers must have
    /// `direction` ([`WRITE`] or 0).
    #[inline(never)]
    pub(super) fn walk(
        &mut self,
        first: Descriptor,
        direction: u16,
        mut piece: impl FnMut(*mut u8, u32),
    ) -> Result<Walked, Violation> {
        let limit = self.size.min(SEGMENTS_MAX as u16);
        let mut table = Table::Ring;
        let mut descriptor = first;
        let mut steps = 0;
        let mut walked = Walked { bytes: 0, pieces: 0 };
        loop {
            if descriptor.flags & INDIRECT != 0 {
                if descriptor.flags & NEXT != 0 || !matches!(table, Table::Ring) {
                    return Err(Violation::IndirectNested);
                }
                table = Table::indirect(descriptor, limit)?;
                descriptor = table.descriptor(self, 0)?;
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
            walked.bytes += u64::from(descriptor.bytes);
            if walked.bytes > CHAIN_BYTES_MAX {
                return Err(Violation::ChainBytes { bytes: walked.bytes });
            }
            buffer(&self.memory, &mut self.hint, descriptor, |host, bytes| {
                walked.pieces += 1;
                piece(host, bytes);
            })?;
            if descriptor.flags & NEXT == 0 {
                return Ok(walked);
            }
            descriptor = table.descriptor(self, descriptor.next)?;
        }
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub(super) bytes: u64,
    /// Pieces given out: a buffer that crosses from one memory region to the next makes two.
    pub(super) pieces: usize,
}

/// Which table the `next` fields of a chain refer to.
#[derive(Clone, Copy)]
enum Table {
    Ring,
    Indirect { address: u64, size: u16 },
}

impl Table {
    fn indirect(descriptor: Descriptor, limit: u16) -> Result<Self, Violation> {
        let bytes = descriptor.bytes;
        let size = bytes / 16;
        if bytes == 0 || !bytes.is_multiple_of(16) || size > u32::from(limit) {
            return Err(Violation::IndirectTable { bytes });
        }
        Ok(Self::Indirect { address: descriptor.address, size: size as u16 })
    }

    fn descriptor(&self, ring: &mut Vring, index: u16) -> Result<Descriptor, Violation> {
        let &Self::Indirect { address, size } = self else { return ring.descriptor(index) };
        if index >= size {
            return Err(Violation::DescriptorIndex { index, size });
        }
        let outside = Violation::Address { address, bytes: u32::from(size) * 16 };
        let at = address.checked_add(16 * u64::from(index)).ok_or(outside)?;
        let host = ring.memory.translate(at, 16, &mut ring.hint).ok_or(outside)?;
        // SAFETY: `translate` found 16 bytes there, in memory that the ring keeps mapped.
        Ok(unsafe { Descriptor::read(host) })
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
