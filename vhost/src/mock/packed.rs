//! The mock's driver of a packed ring (virtio 1.2 §2.8).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::{GUEST_BASE, Guest, Used, flags};

/// A place's wrap counter, and the flag for the lap in which a descriptor was used.
const WRAP: u16 = 1 << 15;
/// The flag for the lap in which a descriptor was made available.
const AVAIL: u16 = 1 << 7;

/// What a driver remembers of its packed ring.
#[derive(Debug)]
pub(super) struct Driver {
    size: u16,
    /// Where the next descriptor is written.
    next: u16,
    /// Where the next used descriptor is expected.
    used: u16,
    /// Chains that are with the device: id and descriptors.
    outstanding: VecDeque<(u16, u16)>,
}

impl Driver {
    pub(super) fn new(size: u16) -> Self {
        Self { size, next: WRAP, used: WRAP, outstanding: VecDeque::new() }
    }

    fn after(&self, place: u16, places: u16) -> u16 {
        let index = u32::from(place & !WRAP) + u32::from(places);
        let size = u32::from(self.size);
        let wrap = if index < size { place & WRAP } else { !place & WRAP };
        (index % size) as u16 | wrap
    }
}

/// For packed rings only.
impl Guest {
    /// Writes the descriptor in entry `index` of the ring, whatever it says.
    pub fn describe_packed(&self, index: u16, address: u64, bytes: u32, id: u16, flags: u16) {
        self.describe_at(GUEST_BASE + 16 * u64::from(index), address, bytes, id, flags);
    }

    /// The flags that make a descriptor available at a place.
    pub fn available_at_place(place: u16) -> u16 {
        if place & WRAP != 0 { AVAIL } else { WRAP }
    }

    /// Where the driver writes its next descriptor: the index, and the wrap counter in bit 15.
    pub fn next_place(&self) -> u16 {
        self.packed.next
    }

    /// Puts the ring where a driver and a device would have it after any number of laps.
    ///
    /// # Panics
    /// If chains are with the device.
    pub fn move_to_place(&mut self, place: u16) {
        assert!(self.packed.outstanding.is_empty(), "chains are with the device");
        for index in 0..self.size {
            // Before the place all was used in its lap, behind it in the lap before.
            let before = index < place & !WRAP;
            let used = if before == (place & WRAP != 0) { AVAIL | WRAP } else { 0 };
            self.describe_packed(index, 0, 0, index, used);
        }
        (self.packed.next, self.packed.used) = (place, place);
    }

    /// Makes a chain available, its first descriptor's flags last (virtio 1.2 §2.8.21.1).
    pub(super) fn post_packed(&mut self, id: u16, parts: &[(u64, u32, u16)]) {
        let first = self.packed.next;
        for (at, &(address, bytes, flags)) in parts.iter().enumerate().rev() {
            let place = self.packed.after(first, at as u16);
            let more = if at + 1 < parts.len() { flags::NEXT } else { 0 };
            let flags = flags | more | Self::available_at_place(place);
            let entry = GUEST_BASE + 16 * u64::from(place & !WRAP);
            self.write(entry, &address.to_le_bytes());
            self.write(entry + 8, &bytes.to_le_bytes());
            self.write(entry + 12, &id.to_le_bytes());
            self.atomic(entry + 14).store(flags.to_le(), Ordering::Release);
        }
        self.packed.next = self.packed.after(first, parts.len() as u16);
        self.packed.outstanding.push_back((id, parts.len() as u16));
    }

    /// The chains that the device used since the last call. One that stands for chains before it
    /// too (virtio 1.2 §2.8.8) yields them all.
    pub(super) fn completed_packed(&mut self) -> Vec<Used> {
        let mut all = Vec::new();
        loop {
            let place = self.packed.used;
            let entry = GUEST_BASE + 16 * u64::from(place & !WRAP);
            let flags = u16::from_le(self.atomic(entry + 14).load(Ordering::Acquire));
            let wanted = if place & WRAP != 0 { AVAIL | WRAP } else { 0 };
            if self.packed.outstanding.is_empty() || flags & (AVAIL | WRAP) != wanted {
                return all;
            }
            let field = |at| u32::from_le_bytes(self.read(at, 4).try_into().expect("four bytes"));
            let (bytes, used) = (field(entry + 8), field(entry + 12) & 0xffff);
            while let Some((id, places)) = self.packed.outstanding.pop_front() {
                self.packed.used = self.packed.after(self.packed.used, places);
                let last = u32::from(id) == used;
                assert!(last || self.in_order, "{id} should be used before {used}");
                all.push(Used { head: u32::from(id), bytes: if last { bytes } else { 0 } });
                if last {
                    break;
                }
            }
        }
    }

    /// Writes the driver's event suppression area: a place, and 0 (enable), 1 (disable) or 2 (at
    /// that place).
    pub fn write_driver_event(&self, place: u16, flags: u16) {
        let at = GUEST_BASE + Self::available_at(self.size);
        self.atomic(at).store(place.to_le(), Ordering::Release);
        self.atomic(at + 2).store(flags.to_le(), Ordering::Release);
    }

    /// The flags in the device's event suppression area.
    pub fn device_event_flags(&self) -> u16 {
        let at = GUEST_BASE + Self::used_at(self.size) + 2;
        u16::from_le(self.atomic(at).load(Ordering::Acquire))
    }

    /// Forgets what an earlier device left in its event suppression area.
    pub fn clear_device_event(&self) {
        self.write(GUEST_BASE + Self::used_at(self.size), &[0; 4]);
    }
}
