//! A guest that is not to be connected for now, so that its link is down.

use super::{GuestHandle, GuestSocket, Shared};

/// Why nobody is connected where that tells the guest that its link is down.
pub(crate) const HELD: &str = "nothing can leave by its network's physnet: its link is down too";

impl Shared {
    /// Waits until nobody is to be connected any more.
    pub(super) async fn held(&self) {
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| *held).await;
    }
}

impl GuestSocket {
    /// Waits until somebody may be connected.
    pub(super) async fn released(&self) {
        let mut held = self.shared.held.subscribe();
        if *held.borrow() {
            self.note_unconnected(HELD.to_owned());
        }
        // The sender is shared with this very task.
        let _ = held.wait_for(|held| !held).await;
    }
}

impl GuestHandle {
    /// Ends the session and lets nobody connect, or lets them again. A front-end tells its guest that
    /// the link is down as long as nobody is connected (QEMU does).
    pub(crate) fn hold(&self, held: bool) {
        self.shared.held.send_if_modified(|now| std::mem::replace(now, held) != held);
    }
}
