//! Frames of slow protocols (802.3 annex 57A) on their way from workers to who speaks them.
//!
//! They are for this link alone, so a bond takes LACP and marker frames out of what its members
//! receive, before a worker sees them, and puts copies into a box a member. A full box is a counted
//! loss: a partner that floods harms its own link, and holds nobody up.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use vhost::HEAD_MAX;

/// Frames that a box holds. A partner sends five a second at most (802.3 57A.3, ten for all slow
/// protocols), and the box is emptied many times a second.
pub const FRAMES_MAX: usize = 16;

/// Where they are sent to: 01-80-C2-00-00-02 (802.3 table 57A-1).
pub const GROUP: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 2];

/// Their ethertype (802.3 57A.4).
pub const ETHERTYPE: u16 = 0x8809;

/// The subtypes of LACP and of the marker protocol (802.3 table 57A-2).
const SUBTYPES: [u8; 2] = [1, 2];

/// Ethernet's header, and the subtype.
const LEAST: usize = 15;

/// Such a frame, as far as any of its fields goes.
#[derive(Clone, Copy)]
pub struct SlowFrame {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl SlowFrame {
    fn of(head: &[u8]) -> SlowFrame {
        let mut bytes = [0; HEAD_MAX];
        let len = head.len().min(HEAD_MAX);
        bytes[..len].copy_from_slice(&head[..len]);
        SlowFrame { bytes, len: len as u8 }
    }

    /// Its bytes from the MAC addresses on, [`HEAD_MAX`] at most.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The frames of a member that nobody has read.
pub(super) struct SlowBox {
    frames: ArrayQueue<SlowFrame>,
    lost: AtomicU64,
}

impl Default for SlowBox {
    fn default() -> Self {
        Self { frames: ArrayQueue::new(FRAMES_MAX), lost: AtomicU64::new(0) }
    }
}

impl SlowBox {
    /// Puts a copy of a frame in, or counts it as lost.
    pub(super) fn put(&self, head: &[u8]) {
        if self.frames.push(SlowFrame::of(head)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn take(&self) -> Option<SlowFrame> {
        self.frames.pop()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Whether a frame that begins so is LACP or a marker.
#[inline(always)]
pub(super) fn is_slow(head: &[u8]) -> bool {
    // The destination in one load, which nearly every frame is told by.
    let Some((first, _)) = head.split_first_chunk::<LEAST>() else { return false };
    let [a, b, c, d, e, f, g, h, ..] = *first;
    let destination = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 16;
    destination == GROUP_BITS
        && first[12..14] == ETHERTYPE.to_be_bytes()
        && SUBTYPES.contains(&first[14])
}

/// [`GROUP`] as a number.
const GROUP_BITS: u64 = {
    let [a, b, c, d, e, f] = GROUP;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
};
