//! Mirrors: copies of a port's frames, for whoever listens at another port.
//!
//! They are part of the published [`Plan`](crate::snapshot::Plan), and with none in it a burst pays
//! the one branch that it pays for watches. A copy goes out before the frame itself does, since of a
//! frame that has one receiver the buffer is handed on. What the listener cannot take is lost to it
//! alone, and counted at its port like anything else that it is sent.

use vhost::{Sent, Staged};

use super::{Filter, WatchedBurst};
use crate::snapshot::PortId;

/// Which frames of a port are copied, and to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The port that is sent the copies, whatever its policy says.
    pub to: PortId,
    /// Whether frames that the port sends are copied, as they come in: what is dropped on its way too.
    pub received: bool,
    /// Whether frames that the port is sent are copied, if its policy permits them.
    pub sent: bool,
    /// Which of them.
    pub filter: Filter,
}

/// The mirrors of ports, by their numbers.
#[derive(Debug, Default)]
pub struct Mirrors(Vec<Option<Mirror>>);

impl Mirrors {
    /// Sets a port's mirror.
    pub fn set(&mut self, port: PortId, mirror: Mirror) {
        if self.0.len() <= port.index() {
            self.0.resize(port.index() + 1, None);
        }
        self.0[port.index()] = Some(mirror);
    }

    /// Whether no port has any.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn of(&self, port: PortId) -> Option<&Mirror> {
        self.0.get(port.index())?.as_ref()
    }
}

impl WatchedBurst<'_> {
    /// Copies the whole burst, as it came in.
    pub(super) fn mirror_received(&self) {
        let Some(mirror) = self.plan.mirrors.of(self.from).filter(|mirror| mirror.received) else {
            return;
        };
        self.copy(mirror, Staged::new(self.frames.all()));
    }

    /// Copies what is about to go to a port, as that port is sent it.
    pub(super) fn mirror_sent(&self, to: PortId, staged: Staged<'_>) {
        if let Some(mirror) = self.plan.mirrors.of(to).filter(|mirror| mirror.sent) {
            self.copy(mirror, staged);
        }
    }

    fn copy(&self, mirror: &Mirror, staged: Staged<'_>) {
        let matches = |index| mirror.filter.matches(self.frames.frame(usize::from(index)).head());
        let indexes = staged.iter().map(|frame| frame.index);
        let matched =
            indexes.filter(|index| matches(*index)).fold(0, |all, index| all | 1 << index);
        let copies = staged.only(matched).with_shared(matched);
        if !copies.is_empty() {
            let mut sent = Sent::default();
            self.plan.send(self.worker, mirror.to, self.frames, &copies, &mut sent);
            self.counters.of(mirror.to).sent(copies.len() as u64, &sent);
        }
    }
}
