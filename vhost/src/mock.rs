//! The guest's side of one ring: memory, a ring of either layout in it, and a driver that can also
//! misbehave.
//!
//! For tests and benches. It lays a ring and its buffers out in a memory file, as a guest with one
//! memory region would, and lets a test write any descriptor it likes.
#![allow(unsafe_code)]

mod packed;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::memory::{GuestMemory, RegionSpec};
use crate::offload::Offloads;
use crate::vring::{RingLayout, Vring, VringConfig};

/// Where the guest sees its memory.
pub const GUEST_BASE: u64 = 0x4000_0000;
/// Where the front-end sees it.
pub const USER_BASE: u64 = 0x7f00_0000_0000;
/// Distance between buffers. Not a power of two, so that they do not share cache sets.
pub const BUFFER_STRIDE: u64 = 2496;

/// The flags of a descriptor (virtio 1.2 §2.7.5).
pub mod flags {
    /// Continues in `next`.
    pub const NEXT: u16 = 1;
    /// For the device to write.
    pub const WRITE: u16 = 2;
    /// A table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// A guest with one ring. See the [module's head](self).
#[derive(Debug)]
pub struct Guest {
    memory: Arc<GuestMemory>,
    size: u16,
    layout: RingLayout,
    in_order: bool,
    next_available: u16,
    next_used: u16,
    packed: packed::Driver,
}

/// A completed chain, as the driver sees it in the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain.
    pub head: u32,
    /// Bytes that the device wrote.
    pub bytes: u32,
}

impl Guest {
    /// A guest with a split ring of `size` entries and a buffer for each.
    ///
    /// # Panics
    /// If the machine has no memory for it.
    pub fn new(size: u16) -> Self {
        Self::with_layout(RingLayout::Split, size)
    }

    /// As [`new`](Self::new), with a ring of that layout.
    ///
    /// # Panics
    /// If the machine has no memory for it.
    pub fn with_layout(layout: RingLayout, size: u16) -> Self {
        let bytes = Self::buffers_at(size) + u64::from(size) * BUFFER_STRIDE + 0x4_0000;
        let bytes = bytes.next_multiple_of(4096);
        let file = memfd_create(c"mock-guest", MFdFlags::MFD_CLOEXEC).expect("memfd");
        nix::unistd::ftruncate(&file, i64::try_from(bytes).expect("small")).expect("memory");
        let spec = RegionSpec {
            guest_address: GUEST_BASE,
            bytes,
            user_address: USER_BASE,
            mmap_offset: 0,
        };
        let memory = GuestMemory::map(vec![(spec, file as OwnedFd)]).expect("mapping");
        Self {
            memory: Arc::new(memory),
            size,
            layout,
            in_order: false,
            next_available: 0,
            next_used: 0,
            packed: packed::Driver::new(size),
        }
    }

    /// Negotiates `VIRTIO_F_IN_ORDER`.
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    /// Lets this guest write to the memory of another one with a ring of the same size.
    pub fn replace_memory(&mut self, memory: Arc<GuestMemory>) {
        self.memory = memory;
    }

    fn available_at(size: u16) -> u64 {
        16 * u64::from(size)
    }

    fn used_at(size: u16) -> u64 {
        (Self::available_at(size) + 6 + 2 * u64::from(size)).next_multiple_of(64)
    }

    fn buffers_at(size: u16) -> u64 {
        (Self::used_at(size) + 6 + 8 * u64::from(size)).next_multiple_of(4096)
    }

    /// The guest's memory table.
    pub fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&self.memory)
    }

    /// What a session would know of the ring: mergeable buffers, VERSION_1, no event index.
    pub fn config(&self) -> VringConfig {
        VringConfig {
            layout: self.layout,
            size: self.size,
            descriptors: USER_BASE,
            available: USER_BASE + Self::available_at(self.size),
            used: USER_BASE + Self::used_at(self.size),
            base: match self.layout {
                RingLayout::Split => 0,
                RingLayout::Packed => 0x8000_8000,
            },
            event_idx: false,
            in_order: self.in_order,
            mergeable: true,
            version_1: true,
            left: Offloads::NONE,
            accepted: Offloads::NONE,
            enabled: true,
            call: None,
        }
    }

    /// The ring, running, as the back-end has it.
    ///
    /// # Panics
    /// If the back-end refuses it.
    pub fn ring(&self) -> Vring {
        Vring::new(self.memory(), &self.config()).expect("the mock's ring is well formed")
    }

    /// Guest address of buffer `index`.
    pub fn buffer(&self, index: u16) -> u64 {
        GUEST_BASE + Self::buffers_at(self.size) + u64::from(index) * BUFFER_STRIDE
    }

    /// Guest address just behind the guest's memory.
    pub fn end(&self) -> u64 {
        let region = self.memory.regions().last().expect("one region");
        region.guest_address + region.bytes
    }

    /// Writes bytes to a guest address.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let host = self.memory.translate(address, bytes.len() as u64, &mut 0).expect("in memory");
        // SAFETY: `translate` found room for them in memory that `self` keeps mapped.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), host, bytes.len()) };
    }

    /// Reads bytes from a guest address.
    ///
    /// # Panics
    /// If they are not there.
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let host = self.memory.translate(address, bytes as u64, &mut 0).expect("in memory");
        let mut copy = vec![0; bytes];
        // SAFETY: `translate` found the bytes in memory that `self` keeps mapped.
        unsafe { std::ptr::copy_nonoverlapping(host, copy.as_mut_ptr(), bytes) };
        copy
    }

    /// Writes descriptor `index` of the ring's table, whatever it says.
    pub fn describe(&self, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        self.describe_at(GUEST_BASE + 16 * u64::from(index), address, bytes, flags, next);
    }

    /// Writes a descriptor anywhere, for indirect tables.
    pub fn describe_at(&self, at: u64, address: u64, bytes: u32, flags: u16, next: u16) {
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &bytes.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let entry = u64::from(self.next_available % self.size);
        let available = GUEST_BASE + Self::available_at(self.size);
        self.write(available + 4 + 2 * entry, &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.write_available_index(self.next_available);
    }

    /// Writes the available index, whatever it says.
    pub fn write_available_index(&self, index: u16) {
        self.atomic(GUEST_BASE + Self::available_at(self.size) + 2).store(index, Ordering::Release);
    }

    /// Writes the available ring's flags.
    pub fn write_available_flags(&self, flags: u16) {
        self.atomic(GUEST_BASE + Self::available_at(self.size)).store(flags, Ordering::Release);
    }

    /// Writes `used_event`.
    pub fn write_used_event(&self, event: u16) {
        let at = Self::available_at(self.size) + 4 + 2 * u64::from(self.size);
        self.atomic(GUEST_BASE + at).store(event, Ordering::Release);
    }

    /// Makes a chain of buffers available: addresses, lengths, and [`flags`] apart from NEXT. In a
    /// split ring it takes the descriptors from `id` on.
    pub fn post(&mut self, id: u16, parts: &[(u64, u32, u16)]) {
        if self.layout == RingLayout::Packed {
            return self.post_packed(id, parts);
        }
        for (at, &(address, bytes, flags)) in parts.iter().enumerate() {
            let index = id + at as u16;
            let more = if at + 1 < parts.len() { flags::NEXT } else { 0 };
            self.describe(index, address, bytes, flags | more, index + 1);
        }
        self.offer(id);
    }

    /// Puts a frame with an empty net header into buffer `index` and makes it available.
    pub fn transmit(&mut self, index: u16, frame: &[u8]) {
        let address = self.buffer(index);
        self.write(address, &[0; 12]);
        self.write(address + 12, frame);
        self.post(index, &[(address, 12 + frame.len() as u32, 0)]);
    }

    /// Puts a net header and a frame into the buffers from `first` on, chained, and makes the chain
    /// available. A new buffer begins at each of `cuts`, which count from the header's first byte
    /// and ascend, and where one is full.
    ///
    /// # Panics
    /// If the buffers of the ring do not hold it.
    pub fn transmit_pieces(&mut self, first: u16, header: &[u8], frame: &[u8], cuts: &[usize]) {
        let message = [header, frame].concat();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([message.len()]) {
            let cut = cut.min(message.len());
            pieces.extend(message[from..cut].chunks(BUFFER_STRIDE as usize));
            from = cut;
        }
        let parts = (first..).zip(&pieces).map(|(index, piece)| {
            self.write(self.buffer(index), piece);
            (self.buffer(index), piece.len() as u32, 0)
        });
        let parts: Vec<_> = parts.collect();
        self.post(first, &parts);
    }

    /// Makes buffer `index` available for the device to write.
    pub fn supply(&mut self, index: u16, bytes: u32) {
        self.post(index, &[(self.buffer(index), bytes, flags::WRITE)]);
    }

    /// The chains that the device completed since the last call.
    pub fn completed(&mut self) -> Vec<Used> {
        if self.layout == RingLayout::Packed {
            return self.completed_packed();
        }
        let used = GUEST_BASE + Self::used_at(self.size);
        let index = self.atomic(used + 2).load(Ordering::Acquire);
        let mut all = Vec::new();
        while self.next_used != index {
            let at = used + 4 + 8 * u64::from(self.next_used % self.size);
            let word = |at| u32::from_le_bytes(self.read(at, 4).try_into().expect("four bytes"));
            all.push(Used { head: word(at), bytes: word(at + 4) });
            self.next_used = self.next_used.wrapping_add(1);
        }
        all
    }

    /// The frames that the device delivered since the last call: merged buffers put together, net
    /// headers taken off. Expects buffers made available by [`supply`](Self::supply).
    ///
    /// # Panics
    /// If a net header says that more buffers were merged than were completed.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        self.received_with_headers().into_iter().map(|(_, frame)| frame).collect()
    }

    /// As [`received`](Self::received), each frame with the net header before it.
    ///
    /// # Panics
    /// As there.
    pub fn received_with_headers(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut chains = self.completed().into_iter();
        let mut frames = Vec::new();
        while let Some(first) = chains.next() {
            let mut header = self.read(self.buffer(first.head as u16), first.bytes as usize);
            let merged = u16::from_le_bytes([header[10], header[11]]);
            assert!(merged >= 1, "num_buffers is never 0");
            for _ in 1..merged {
                let next = chains.next().expect("num_buffers chains were completed");
                header.extend(self.read(self.buffer(next.head as u16), next.bytes as usize));
            }
            let frame = header.split_off(12);
            frames.push((header, frame));
        }
        frames
    }

    /// The device's flags in the used ring.
    pub fn used_flags(&self) -> u16 {
        self.atomic(GUEST_BASE + Self::used_at(self.size)).load(Ordering::Acquire)
    }

    /// Writes the used index, as an earlier back-end may have left it.
    pub fn write_used_index(&self, index: u16) {
        self.atomic(GUEST_BASE + Self::used_at(self.size) + 2).store(index, Ordering::Release);
    }

    fn atomic(&self, address: u64) -> &AtomicU16 {
        let host = self.memory.translate(address, 2, &mut 0).expect("in memory");
        // SAFETY: two bytes that `self` keeps mapped; the layout aligns every index.
        unsafe { AtomicU16::from_ptr(host.cast()) }
    }
}
