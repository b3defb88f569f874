//! The split virtqueue in guest memory, as virtio 1.2 §2.7 lays it out.
//!
//! Only the structure: the driver's use of it is in `transmit` and `receive`, the device's in the
//! in-process copy loop. Events by index (§2.7.10) are not negotiated, so the words behind each
//! ring stay zero.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::memory::{GuestMemory, Plain, Table, Word};
use super::rota::Rota;

/// The descriptor continues in the one that `next` names.
pub const NEXT: u16 = 1;
/// The device writes to the descriptor's memory, else it reads.
pub const WRITE: u16 = 2;
/// In the available ring's flags: the driver polls and wants no call.
pub const NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: the device polls and wants no kick.
pub const NO_NOTIFY: u16 = 1;

/// A piece of guest memory (§2.7.5).
///
/// In shared memory it is two words, so that it is read and written with two accesses, not four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// A guest address.
    pub address: u64,
    /// In bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`].
    pub flags: u16,
    /// The chain's next descriptor, with [`NEXT`].
    pub next: u16,
}

impl Descriptor {
    /// As it lies in memory.
    #[inline(always)]
    pub fn words(self) -> [u64; 2] {
        let (flags, next) = (u64::from(self.flags), u64::from(self.next));
        [self.address, u64::from(self.length) | flags << 32 | next << 48]
    }

    /// From how it lies in memory.
    #[inline(always)]
    pub fn from_words([address, rest]: [u64; 2]) -> Self {
        Self { address, length: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }
}

/// A chain that the device is done with (§2.7.8).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's first descriptor.
    pub id: u32,
    /// Bytes that the device wrote.
    pub length: u32,
}

// SAFETY: `repr(C)`, two integers of 4 bytes: no padding.
unsafe impl Plain for Used {}

/// Where a ring's three parts lie, as offsets into guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: usize,
    /// The available ring.
    pub available: usize,
    /// The used ring.
    pub used: usize,
    /// The first byte behind the ring.
    pub end: usize,
}

impl Layout {
    /// A ring of `size` descriptors from `offset` on, each part on cache lines of its own.
    pub fn at(offset: usize, size: u16) -> Self {
        let entries = usize::from(size);
        let descriptors = offset.next_multiple_of(4096);
        let available = descriptors + entries * size_of::<[u64; 2]>();
        // Flags and index in front, the event word behind: three words.
        let used = (available + 6 + entries * 2).next_multiple_of(4096);
        let end = used + 6 + entries * size_of::<Used>();
        Self { size, descriptors, available, used, end }
    }
}

/// A split virtqueue.
#[derive(Debug)]
pub struct Ring {
    /// Number of descriptors.
    pub size: u16,
    /// The descriptor table; see [`Descriptor::words`].
    pub descriptors: Table<[u64; 2]>,
    /// [`NO_INTERRUPT`]; the driver writes it.
    pub available_flags: Word,
    /// How many chains the driver has ever offered, modulo 2^16.
    pub available_index: Word,
    /// The chains offered.
    pub available: Table<u16>,
    /// [`NO_NOTIFY`]; the device writes it.
    pub used_flags: Word,
    /// How many chains the device has ever used, modulo 2^16.
    pub used_index: Word,
    /// The chains used.
    pub used: Table<Used>,
}

impl Ring {
    /// The ring at a layout. Nothing is written.
    pub fn new(memory: &Arc<GuestMemory>, layout: Layout) -> Result<Self> {
        let size = layout.size;
        ensure!(size.is_power_of_two() && size >= 2, "a ring of {size} is not a power of two");
        let entries = usize::from(size);
        Ok(Self {
            size,
            descriptors: Table::new(memory, layout.descriptors, entries)?,
            available_flags: Word::new(memory, layout.available)?,
            available_index: Word::new(memory, layout.available + 2)?,
            available: Table::new(memory, layout.available + 4, entries)?,
            used_flags: Word::new(memory, layout.used)?,
            used_index: Word::new(memory, layout.used + 2)?,
            used: Table::new(memory, layout.used + 4, entries)?,
        })
    }

    /// Writes the available ring's entries for a circle of buffers, which may be shorter than the
    /// ring and is then repeated.
    pub fn prepare(&self, rota: &Rota) {
        for place in 0..self.size {
            self.available.store(usize::from(place), rota.at(place));
        }
    }

    /// Writes the available ring's entries at two places of the circle that have changed. The
    /// device has read both entries, as it has used a buffer from the later one.
    #[cold]
    #[inline(never)]
    pub fn offer_again(&self, rota: &Rota, places: [u16; 2]) {
        for place in places {
            for entry in (usize::from(place)..).step_by(rota.len()).take(self.rounds(rota)) {
                self.available.store(entry, rota.at(place));
            }
        }
    }

    /// How often a circle of buffers fits into the ring.
    fn rounds(&self, rota: &Rota) -> usize {
        usize::from(self.size) / rota.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_lie_in_memory_as_the_specification_says() {
        let whole =
            Descriptor { address: 0x0102_0304_0506_0708, length: 76, flags: 3, next: 0xabcd };
        let bytes: Vec<u8> = whole.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1, 76, 0, 0, 0, 3, 0, 0xcd, 0xab]);
        assert_eq!(Descriptor::from_words(whole.words()), whole);
    }

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for size in [2, 256, 1024, 32_768] {
            let layout = Layout::at(4096 + 1, size);
            let entries = usize::from(size);
            assert!(layout.descriptors > 4096 && layout.descriptors.is_multiple_of(16));
            assert!(layout.available >= layout.descriptors + 16 * entries);
            assert!(layout.used >= layout.available + 6 + 2 * entries);
            assert!(layout.used.is_multiple_of(4));
            assert_eq!(layout.end, layout.used + 6 + 8 * entries);
        }
    }
}
