//! Frame buffers at a fixed distance in guest memory: virtio-net header, then the frame.
//!
//! The distance is an odd number of cache lines. With a power of two all frames' first lines fall
//! into a few sets of the caches, and results differ by half from run to run.

use std::sync::Arc;

use super::memory::GuestMemory;
use crate::frame::Head;
use crate::segment::Offload;

/// The virtio-net header with `num_buffers`, as VERSION_1 always has it (virtio 1.2 §5.1.6).
pub const HEADER_BYTES: usize = 12;

/// Distance of buffers that hold a frame of the usual MTU: 39 lines, as in a DPDK mempool.
pub const ORDINARY_STRIDE: usize = 2496;

/// What a page of a guest's kernel holds.
pub const PAGE_BYTES: usize = 4096;

const LINE_BYTES: usize = 64;

/// The distance for buffers of at least `bytes`.
pub fn stride_for(bytes: usize) -> usize {
    let lines = bytes.div_ceil(LINE_BYTES) | 1;
    (lines * LINE_BYTES).max(ORDINARY_STRIDE)
}

/// The virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is left to do with the frame.
    pub offload: Offload,
    /// Over how many buffers a received frame is spread.
    pub num_buffers: u16,
}

/// An array of buffers.
#[derive(Debug)]
pub struct Slots {
    memory: Arc<GuestMemory>,
    start: usize,
    stride: usize,
}

impl Slots {
    /// Buffers from offset `start` of the memory on.
    pub fn new(memory: &Arc<GuestMemory>, start: usize, stride: usize) -> Self {
        Self { memory: Arc::clone(memory), start, stride }
    }

    /// Bytes of one buffer.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// What the guest calls a buffer's first byte.
    #[inline(always)]
    pub fn guest_address(&self, slot: u16) -> u64 {
        self.memory.guest_address(self.offset(slot))
    }

    /// Writes the virtio-net header and the frame's first 64 bytes.
    #[inline(always)]
    pub fn write_head(&self, slot: u16, offload: Offload, head: &Head) {
        let offset = self.offset(slot);
        let mut header = [0_u8; HEADER_BYTES];
        header[..8].copy_from_slice(&offload.words.to_le_bytes());
        header[8..10].copy_from_slice(&offload.checksum_offset.to_le_bytes());
        self.memory.write_value(offset, header);
        self.memory.write_value(offset + HEADER_BYTES, head.map(u64::to_le));
    }

    /// Reads the virtio-net header and the 64 bytes behind it.
    #[inline(always)]
    pub fn read_head(&self, slot: u16) -> (Header, Head) {
        let offset = self.offset(slot);
        let header: [u8; HEADER_BYTES] = self.memory.read_value(offset);
        let [h0, h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11] = header;
        let head: Head = self.memory.read_value(offset + HEADER_BYTES);
        let words = u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]);
        let offload = Offload { words, checksum_offset: u16::from_le_bytes([h8, h9]) };
        let header = Header { offload, num_buffers: u16::from_le_bytes([h10, h11]) };
        (header, head.map(u64::from_le))
    }

    /// Writes bytes at `within` of a buffer.
    pub fn write(&self, slot: u16, within: usize, bytes: &[u8]) {
        self.memory.write(self.offset(slot) + within, bytes);
    }

    /// Reads bytes from `within` of a buffer.
    pub fn read(&self, slot: u16, within: usize, into: &mut [u8]) {
        self.memory.read(self.offset(slot) + within, into);
    }

    /// Fetches the lines that [`Self::read_head`] reads.
    #[inline(always)]
    pub fn prefetch(&self, slot: u16) {
        let offset = self.offset(slot);
        self.memory.prefetch(offset);
        self.memory.prefetch(offset + LINE_BYTES);
    }

    /// Claims the lines that [`Self::write_head`] writes, see [`GuestMemory::claim`].
    #[inline(always)]
    pub fn claim(&self, slot: u16) {
        let offset = self.offset(slot);
        self.memory.claim(offset);
        self.memory.claim(offset + LINE_BYTES);
    }

    #[inline(always)]
    fn offset(&self, slot: u16) -> usize {
        self.start + usize::from(slot) * self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_odd_numbers_of_lines_and_large_enough() {
        for bytes in [1, 76, 2496, 2497, 9012, 65_012] {
            let stride = stride_for(bytes);
            assert!(stride >= bytes && stride.is_multiple_of(64) && !stride.is_multiple_of(128));
        }
        assert_eq!(stride_for(1512), ORDINARY_STRIDE);
    }
}
