//! Guests with mock drivers, and frames, for parts that need them.

use std::sync::Arc;

use dataplane::headers::Mac;
use vhost::mock::Guest;
use vhost::{BURST_MAX, Device, RxQueue};

/// Entries of each ring.
pub const RING: u16 = 256;

/// Bytes that the driver gives for each frame, as Linux does by the page.
const BUFFER_BYTES: u32 = 2048;

/// A burst's worth.
pub const BURST: u64 = BURST_MAX as u64;

/// The address of station `number`.
pub fn mac(number: u64) -> Mac {
    Mac::from_bits(0x0200_0000_0000 + number)
}

/// A UDP frame of `bytes` bytes.
pub fn frame(source: Mac, destination: Mac, bytes: usize) -> Vec<u8> {
    let mut frame = [destination.bytes(), source.bytes()].concat();
    frame.extend([0x08, 0x00, 0x45, 0x00]);
    frame.extend((bytes as u16 - 14).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x13, 0x88, 0x13, 0x89]);
    frame.resize(bytes, 0x5a);
    frame
}

/// A guest with one queue pair, which it drives.
pub struct GuestBed {
    /// What the switch sees of it.
    pub device: Arc<Device>,
    /// Frames to the guest.
    rx: Guest,
    /// Frames from the guest.
    tx: Guest,
    supplied: u16,
    transmitted: u16,
}

impl GuestBed {
    /// Both rings run, and are empty.
    pub fn new() -> Self {
        let device = Device::new(1);
        let (rx, tx) = (Guest::new(RING), Guest::new(RING));
        device.start_ring(0, rx.ring());
        device.start_ring(1, tx.ring());
        Self { device, rx, tx, supplied: 0, transmitted: 0 }
    }

    /// The switch's receive side.
    pub fn rxq(&self) -> RxQueue {
        self.device.rxq(0)
    }

    /// Has the guest send copies of a frame.
    pub fn transmit(&mut self, frame: &[u8], copies: u64) {
        for _ in 0..copies {
            self.tx.transmit(self.transmitted % RING, frame);
            self.transmitted = self.transmitted.wrapping_add(1);
        }
    }

    /// Has the guest make room for frames.
    pub fn supply(&mut self, buffers: u64) {
        for _ in 0..buffers {
            self.rx.supply(self.supplied % RING, BUFFER_BYTES);
            self.supplied = self.supplied.wrapping_add(1);
        }
    }

    /// What the guest received since it last looked.
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        self.rx.received()
    }
}
