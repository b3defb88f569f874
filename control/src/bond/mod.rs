//! The links of the wires, and what a bond does when one of them is lost.
//!
//! A thread of its own looks at all links every few milliseconds, whatever else control is busy with
//! (a large change, a device that takes a second to open), and steers the bonds. What it found, others
//! ask here: nobody else reads the link of an uplink, since not every driver can be asked by two. LACP
//! is spoken here too, for the same reason: a partner that is not answered in time takes the link for
//! dead.

mod announce;
mod lacp;
mod speaker;
mod state;
mod watched;

use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::signal::SigSet;
use tokio::sync::mpsc;

pub(crate) use announce::{Hinterland, Station};
pub(crate) use lacp::{LacpRecord, LacpRules, LacpStatus, PortStatus, mac};
pub(crate) use speaker::Counts;
pub(crate) use state::{Link, Rules};
pub(crate) use watched::{Reach, Settings, Watched, WireStatus};

/// The thread that looks at links. See the [module's head](self).
pub(crate) struct Monitor {
    wires: mpsc::UnboundedSender<Arc<Watched>>,
    thread: JoinHandle<()>,
}

impl Monitor {
    /// Starts it, with nothing to look at.
    pub(crate) fn start() -> std::io::Result<Monitor> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (wires, mut followed) = mpsc::unbounded_channel::<Arc<Watched>>();
        let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
            // Signals are for the control thread. A mask that covers what the kernel never masks is
            // no error.
            let _ = SigSet::all().thread_block();
            runtime.block_on(async {
                while let Some(watched) = followed.recv().await {
                    tokio::spawn(watched.run());
                }
            });
            // The tasks go with the runtime, and what they hold of devices with them.
        })?;
        Ok(Monitor { wires, thread })
    }

    /// Looks at the links of a wire from now on.
    pub(crate) fn follow(&self, watched: Arc<Watched>) {
        // The thread ends only when this value does.
        let _ = self.wires.send(watched);
    }

    /// Ends it. Afterwards nobody here holds a device.
    pub(crate) fn stop(self) {
        drop(self.wires);
        if self.thread.join().is_err() {
            tracing::error!("the thread that looks at links has panicked");
        }
    }
}
