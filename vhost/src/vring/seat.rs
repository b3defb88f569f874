//! A ring's place in its device, and the short look that tells whether anything waits there.
//!
//! A worker looks at each of its rings in every iteration, and most are quiet. So what a look takes
//! is worked out when a ring moves on, which is once a burst: the word of the guest's memory that
//! changes when something is made available, and what it says until then. It is the same for both
//! layouts and for no ring at all, and lies in one line with the lock that the seat is behind.

use std::sync::atomic::{AtomicU16, Ordering};

use super::Vring;

/// The place of a ring that runs, or of none. See the [module's head](self).
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Seat {
    bell: Bell,
    vring: Option<Vring>,
}

/// What a look reads, and what it finds there as long as nothing waits.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Bell {
    /// In the memory of the seat's ring, or for ever there.
    word: *mut u16,
    /// The bits that count.
    mask: u16,
    /// What they are while the ring is quiet.
    quiet: u16,
}

// SAFETY: the word is only read, atomically, and from whichever thread has the seat.
unsafe impl Send for Bell {}

/// What the bells read that do not depend on a guest.
static NOTHING: AtomicU16 = AtomicU16::new(0);

impl Bell {
    /// Says that nothing waits.
    pub(super) const SILENT: Self = Self { word: NOTHING.as_ptr(), mask: 0, quiet: 0 };

    /// Says that something waits.
    const LOUD: Self = Self { word: NOTHING.as_ptr(), mask: 0, quiet: 1 };

    /// Says that something waits once the `word` in a ring's memory differs from `quiet` in a bit of
    /// `mask`. The ring must keep the word mapped, and aligned, for as long as it is in a seat.
    #[inline(always)]
    pub(super) fn new(word: *mut u16, mask: u16, quiet: u16) -> Self {
        Self { word, mask, quiet }
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::SILENT
    }
}

impl Seat {
    /// Whether nothing waits that was not there at the last [`settle`](Self::settle).
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        let Bell { word, mask, quiet } = &self.bell;
        // SAFETY: the word is in memory that the ring in this seat keeps mapped, or a static: the
        // bell is set by `settle`, to what its ring says, and by `take` when there is none.
        let now = unsafe { AtomicU16::from_ptr(*word) }.load(Ordering::Relaxed);
        now & mask == *quiet
    }

    /// The ring. It must not be replaced through this reference, see [`put`](Self::put).
    #[inline(always)]
    pub(crate) fn vring(&mut self) -> Option<&mut Vring> {
        self.vring.as_mut()
    }

    /// Takes the ring out.
    pub(crate) fn take(&mut self) -> Option<Vring> {
        self.bell = Bell::SILENT;
        self.vring.take()
    }

    /// Puts a ring in, and [settles](Self::settle) it.
    pub(crate) fn put(&mut self, vring: Option<Vring>, asked: bool) {
        self.vring = vring;
        self.settle(asked);
    }

    /// Has the next look find what waits now or will come, as the ring was put in or has moved on;
    /// with `asked`, has it find something in any case.
    #[inline(always)]
    pub(crate) fn settle(&mut self, asked: bool) {
        self.bell = match &self.vring {
            None => Bell::SILENT,
            Some(_) if asked => Bell::LOUD,
            Some(vring) => vring.bell(),
        };
    }
}
