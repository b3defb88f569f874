//! A running ring of either layout: what dequeue and enqueue share.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::areas::Areas;
use super::layout::Layout;
use super::resume::give_back_marked;
use super::seat::Bell;
use super::slots::Slots;
use super::{Call, RingCounters, VringConfig, VringError, count};
use crate::memory::GuestMemory;
use crate::offload::Offloads;

/// A ring that runs, and the guest's memory, which it keeps mapped.
#[derive(Debug)]
pub(super) struct Ring<L> {
    pub(super) layout: L,
    pub(super) memory: Arc<GuestMemory>,
    call: Option<Arc<Call>>,
    pub(super) header_bytes: u32,
    pub(super) mergeable: bool,
    /// What the driver may leave to us, and we to it.
    pub(super) left: Offloads,
    pub(super) accepted: Offloads,
    pub(super) enabled: bool,
    /// Chains that the driver had made available before the ring was disabled.
    pub(super) waiting: u16,
    /// The driver broke the rules; nothing of the ring is touched any more.
    pub(super) broken: bool,
    /// Which memory region the last address was in.
    pub(super) hint: usize,
    pub(super) slots: Box<Slots>,
}

// SAFETY: the slots' pointers lead into mappings that `memory` keeps alive; they are bound to no
// thread.
unsafe impl<L: Send> Send for Ring<L> {}

impl<L: Layout> Ring<L> {
    /// A ring in the layout that `layout` finds in `memory`.
    pub(super) fn new(
        memory: Arc<GuestMemory>,
        config: &VringConfig,
        layout: impl FnOnce(Areas<'_>, &VringConfig) -> Result<L, VringError>,
    ) -> Result<Self, VringError> {
        let mut layout = layout(Areas::of(&memory), config)?;
        give_back_marked(&mut layout);
        Ok(Self {
            waiting: if config.enabled { 0 } else { layout.waiting() },
            layout,
            memory,
            call: config.call.clone(),
            header_bytes: if config.mergeable || config.version_1 { 12 } else { 10 },
            mergeable: config.mergeable,
            left: config.left,
            accepted: config.accepted,
            enabled: config.enabled,
            broken: false,
            hint: 0,
            slots: Box::new(Slots::new()),
        })
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled && !self.broken
    }

    /// What tells a look that something waits. A broken ring is silent.
    #[inline(always)]
    pub(super) fn bell(&self) -> Bell {
        if self.broken { Bell::SILENT } else { self.layout.bell() }
    }

    /// Publishes what was used since the last time and interrupts the driver if it wants that.
    #[inline(always)]
    pub(super) fn publish(&mut self, counters: &RingCounters) {
        let Some(from) = self.layout.publish() else { return };
        let Some(call) = &self.call else { return };
        // The driver writes its wish and then looks at what is used; we wrote that and now read
        // the wish. One of us must see the other's (virtio 1.2 §2.7.7.2).
        fence(Ordering::SeqCst);
        if self.layout.wants_call(from) {
            call.ring();
            count(&counters.kicks, 1);
        }
    }
}
