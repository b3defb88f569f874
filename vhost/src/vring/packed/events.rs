//! The event suppression areas of a packed ring: four bytes in which each side says when it wants
//! to be notified (virtio 1.2 §2.8.10, §2.8.14).

use std::sync::atomic::{AtomicU32, Ordering};

/// Notifications are not wanted.
const DISABLE: u16 = 1;
/// One is wanted when a certain descriptor is used; only with `VIRTIO_F_RING_EVENT_IDX`.
const DESC: u16 = 2;
/// The bits that say which; the others are reserved.
const MODE: u16 = 3;

/// Both areas. In each, a place stands below the flags.
#[derive(Debug)]
pub(super) struct Events {
    /// What the driver wants.
    driver: *mut u32,
    /// What we want.
    device: *mut u32,
    event_idx: bool,
}

impl Events {
    /// # Safety
    /// Both must be 4 bytes, aligned, in memory that outlives this value.
    pub(super) unsafe fn new(driver: *mut u8, device: *mut u8, event_idx: bool) -> Self {
        Self { driver: driver.cast(), device: device.cast(), event_idx }
    }

    /// Whether the driver wants to be interrupted, given whether it was its `event` that came.
    #[inline(always)]
    pub(super) fn wants_call(&self, came: impl FnOnce(u16) -> bool) -> bool {
        // SAFETY: as `new` was told. The area is read whole, so place and flags belong together.
        let area = unsafe { AtomicU32::from_ptr(self.driver) }.load(Ordering::Relaxed);
        let [place, flags] = halves(area);
        match flags & MODE {
            DISABLE => false,
            DESC if self.event_idx => came(place),
            // Whatever else is there: an interrupt too many does no harm.
            _ => true,
        }
    }

    /// Asks the driver for no notification. The place has no meaning for the driver then, so it
    /// serves as a note of ours.
    pub(super) fn want_none(&self, note: u16) {
        let area = u32::from(note) | u32::from(DISABLE) << 16;
        // SAFETY: as `new` was told.
        unsafe { AtomicU32::from_ptr(self.device) }.store(area.to_le(), Ordering::Release);
    }

    /// The note that stands beside a wish for no notification.
    pub(super) fn note(&self) -> Option<u16> {
        // SAFETY: as `new` was told.
        let area = unsafe { AtomicU32::from_ptr(self.device) }.load(Ordering::Acquire);
        let [note, flags] = halves(area);
        (flags == DISABLE).then_some(note)
    }
}

fn halves(area: u32) -> [u16; 2] {
    let area = u32::from_le(area);
    [area as u16, (area >> 16) as u16]
}
