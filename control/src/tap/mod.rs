//! What belongs to a port's tap interface beside the interface itself: the Linux bridge that connects
//! it to another interface of this host, and an eye on what others do to all of them.
//!
//! The interface is made by DPDK's driver and lives as long as the device. The bridge is made here,
//! by a task for each port: it looks at the host's interfaces when something happens to one, and
//! every few seconds in any case, and does what is missing. The bridge's other interface may come
//! long after the port, and go and come again; the port does not wait for it.

pub(crate) mod links;

use std::sync::Arc;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::model::{InterfaceName, PortUuid, TapBridge};
use links::{Event, Found, Links};

/// How often all is looked at if nothing seems to happen, and tried again if it failed.
const LOOK: Duration = Duration::from_secs(3);

/// Events of one change come together.
const QUIET: Duration = Duration::from_millis(10);

/// How long taking things apart may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// What there is to know of a tap interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TapStatus {
    /// Why the port does not work as it should, and what to do.
    pub(crate) trouble: Option<String>,
    /// What has not come yet; the port is ready nevertheless.
    pub(crate) missing: Option<String>,
    /// Somebody has set the interface down.
    pub(crate) down: bool,
    /// Its carrier is off, since nothing can leave by its network's physnet.
    pub(crate) cut: bool,
    /// Somebody has removed the interface. The device is of no use any more.
    pub(crate) removed: bool,
}

/// The interfaces of this host, watched since before the tap interface was made.
pub(crate) struct TapWatch {
    links: Links,
    interface: InterfaceName,
}

/// A tap interface that is looked after.
pub(crate) struct TapHandle {
    status: Arc<Mutex<TapStatus>>,
    /// Whether the carrier is to be off.
    cut: watch::Sender<bool>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Tap {
    port: PortUuid,
    interface: InterfaceName,
    /// Its index when it was seen last.
    index: u32,
    bridge: Option<TapBridge>,
    /// The bridge was made here.
    made: bool,
    /// Whether the carrier is to be off.
    cut: watch::Receiver<bool>,
    links: Links,
    status: Arc<Mutex<TapStatus>>,
}

impl TapWatch {
    /// Begins to watch, before the interface is made.
    ///
    /// The error is a sentence: the name is taken, or the kernel does not answer.
    pub(crate) fn begin(interface: &InterfaceName) -> Result<TapWatch, String> {
        // The driver would take a tap interface of somebody else's for its own.
        if if_nametoindex(interface.as_str()).is_ok() {
            return Err(format!(
                "interface `{interface}` is there already, and the switch has not made it; remove or \
                 rename it, or choose another name"
            ));
        }
        let links = Links::connect()
            .map_err(|error| format!("asking the kernel for its interfaces: {error}"))?;
        Ok(TapWatch { links, interface: interface.clone() })
    }

    /// Looks after the interface, which was made meanwhile.
    pub(crate) fn follow(self, port: PortUuid, bridge: Option<TapBridge>) -> TapHandle {
        let TapWatch { links, interface } = self;
        // No interface has the index 0: if it is gone already, an event will tell.
        let index = if_nametoindex(interface.as_str()).unwrap_or(0);
        let status = Arc::<Mutex<TapStatus>>::default();
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&status);
        let (cut, to_cut) = watch::channel(false);
        let made = false;
        let tap = Tap { port, interface, index, bridge, made, cut: to_cut, links, status: shared };
        TapHandle { status, cut, end, task: tokio::spawn(tap.run(ended)) }
    }
}

impl TapHandle {
    /// How the interface is.
    pub(crate) fn status(&self) -> TapStatus {
        self.status.lock().clone()
    }

    /// Switches the interface's carrier off, or on again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_if_modified(|now| std::mem::replace(now, cut) != cut);
    }

    /// Leaves the bridge as it is, for the next process.
    pub(crate) fn leave(self) {
        self.task.abort();
    }

    /// Takes the bridge apart. The interface itself goes with its device.
    pub(crate) async fn close(mut self) {
        // An error here says that the task has ended, which is what is waited for.
        let _ = self.end.send(());
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::error!("taking a bridge apart takes too long; it is left as it is");
            self.task.abort();
        }
    }
}

impl Tap {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        loop {
            let outcome = self.look().await;
            self.note(outcome);
            tokio::select! {
                _ = &mut ended => break,
                () = self.wait() => {}
            }
        }
        if let Some(bridge) = self.bridge.take()
            && let Err(reason) = self.dismantle(&bridge).await
        {
            tracing::error!(port = %self.port, "{reason}");
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) {
        let event = tokio::select! {
            event = timeout(LOOK, self.links.event()) => event,
            // The other end goes only with the port.
            Ok(()) = self.cut.changed() => return,
        };
        let Ok(event) = event else { return };
        self.hear(event).await;
        // Others that come at once are of the same change.
        while let Ok(event) = timeout(QUIET, self.links.event()).await {
            self.hear(event).await;
        }
    }

    async fn hear(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Removed { index }) if index == self.index => {
                self.status.lock().removed = true;
            }
            Some(Event::Moved { index }) if index == self.index => self.index = 0,
            Some(_) => {}
            None => {
                // The kernel has closed the connection: nothing is known that would make it do so.
                sleep(LOOK).await;
                if let Ok(links) = Links::connect() {
                    self.links = links;
                }
            }
        }
    }

    /// Looks at the interfaces and does what is missing. Says what has not come yet.
    async fn look(&mut self) -> Result<Option<String>, String> {
        let own = self.links.find(&self.interface).await?;
        self.status.lock().down = own.is_some_and(|own| !own.up) && self.bridge.is_none();
        let cut = *self.cut.borrow();
        // In another namespace it is its new owner's.
        let Some(own) = own else {
            let words =
                "nothing can leave by its network's physnet, and its interface cannot be told";
            return Ok(cut.then(|| format!("{words}: it is in another namespace")));
        };
        self.index = own.index;
        if self.status.lock().cut != cut {
            self.links.set_carrier(&self.interface, own.index, !cut).await?;
            self.status.lock().cut = cut;
        }
        let Some(bridge) = self.bridge.clone() else { return Ok(None) };
        let own_bridge = self.bridge_itself(&bridge.name).await?;
        if own.master != Some(own_bridge) {
            without_ipv6(&self.interface).await;
            self.links.put(&self.interface, own.index, Some(own_bridge)).await?;
        }
        if !own.up {
            self.links.set_up(&self.interface, own.index).await?;
        }
        let TapBridge { name, member } = &bridge;
        match self.links.find(member).await? {
            None => Ok(Some(format!(
                "interface `{member}` is not there yet; it is put into bridge `{name}` when it comes"
            ))),
            Some(Found { master: Some(other), .. }) if other != own_bridge => Err(format!(
                "interface `{member}` is in another bridge than `{name}`; take it out of that one"
            )),
            Some(found) => {
                if found.master.is_none() {
                    self.links.put(member, found.index, Some(own_bridge)).await?;
                    tracing::info!(port = %self.port, %member, bridge = %name, "connected");
                }
                if !found.up {
                    self.links.set_up(member, found.index).await?;
                }
                Ok(None)
            }
        }
    }

    /// The index of the bridge, which is made if it is not there, and up.
    async fn bridge_itself(&mut self, name: &InterfaceName) -> Result<u32, String> {
        let mut found = self.links.find(name).await?;
        if found.is_none() {
            self.links.add_bridge(name).await?;
            self.made = true;
            without_ipv6(name).await;
            found = self.links.find(name).await?;
        }
        let Some(found) = found else {
            return Err(format!("the bridge `{name}` went as soon as it was made"));
        };
        if !found.is_bridge {
            return Err(format!(
                "interface `{name}` is there already, and is no bridge; remove or rename it, or \
                 choose another name"
            ));
        }
        if !found.up {
            self.links.set_up(name, found.index).await?;
        }
        Ok(found.index)
    }

    /// Takes the interfaces out of the bridge, and removes it unless it is somebody else's.
    async fn dismantle(&mut self, bridge: &TapBridge) -> Result<(), String> {
        let TapBridge { name, member } = bridge;
        let Some(found) = self.links.find(name).await?.filter(|found| found.is_bridge) else {
            return Ok(());
        };
        for ours in [member, &self.interface] {
            if let Some(ours_found) = self.links.find(ours).await?
                && ours_found.master == Some(found.index)
            {
                self.links.put(ours, ours_found.index, None).await?;
            }
        }
        if self.made || self.links.members(found.index).await?.is_empty() {
            self.links.remove(name, found.index).await?;
        }
        Ok(())
    }

    fn note(&self, outcome: Result<Option<String>, String>) {
        let mut status = self.status.lock();
        let (missing, trouble) = match outcome {
            Ok(missing) => (missing, None),
            Err(trouble) => (None, Some(trouble)),
        };
        if let Some(trouble) = trouble.as_ref().filter(|now| status.trouble.as_ref() != Some(now)) {
            tracing::error!(port = %self.port, "{trouble}");
        }
        (status.missing, status.trouble) = (missing, trouble);
    }
}

/// Keeps the kernel from having addresses on an interface that only passes frames on, and from
/// sending anything there by itself.
async fn without_ipv6(interface: &InterfaceName) {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // The write waits for the kernel's lock on interfaces. A kernel without IPv6 has no such file,
    // and one whose settings cannot be written forwards all the same.
    let written = tokio::task::spawn_blocking(move || std::fs::write(file, "1")).await;
    if let Ok(Err(error)) = written
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%interface, "switching IPv6 off: {error}");
    }
}
