//! Keeps VFs and PFs set as desired state wants them: a task beside the control thread's other work.
//!
//! What is wanted is handed over whole. The task looks at the PFs concerned when that changes, when
//! something happens to an interface of this host, and every few seconds in any case, and does what is
//! missing. What it set stays when the daemon ends: guests go on meanwhile, and the next daemon finds
//! it as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::filters::Filters;
use super::link::{NicEvents, NicLink, NicLinks};
use super::own::OwnVfs;
use super::settings::VfSettings;
use super::sysfs::{Sysfs, VfPlace};
use super::vfs::Vfs;
use crate::model::{InterfaceName, Mac, PciAddress, PortUuid, VfName};

/// How often all is looked at if nothing seems to happen, and tried again if it failed.
const LOOK: Duration = Duration::from_secs(3);

/// Events of one change come together.
const QUIET: Duration = Duration::from_millis(10);

/// The task, from outside. See the [module's head](self).
pub(crate) struct VfKeeper {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What is wanted of the NICs of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// VFs that are given to guests.
    pub(crate) vfs: BTreeMap<PortUuid, VfOrder>,
    /// Addresses behind the switch, by the PF that is the way to them.
    pub(crate) filters: BTreeMap<InterfaceName, FilterOrder>,
    /// VFs, and other devices of PCI, that the switch has for itself, with what for.
    pub(crate) taken: BTreeMap<VfName, String>,
}

/// A VF that is given to a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VfOrder {
    /// Which.
    pub(crate) vf: VfName,
    /// How it should be set.
    pub(crate) settings: VfSettings,
}

/// Addresses behind the switch that VFs of one PF are to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterOrder {
    /// The addresses.
    pub(crate) macs: BTreeSet<Mac>,
    /// What to do about those for which the NIC has no room.
    pub(crate) overflow: Overflow,
}

/// What is done about addresses for which a NIC's table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// Their ports are refused.
    Refuse,
    /// The PF takes all frames.
    Promiscuous,
}

/// What became of a VF that is given to a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VfStatus {
    /// Why it is not as it should be, and what to do.
    pub(crate) trouble: Option<String>,
    /// What its PF's driver is known not to do of it, though it says nothing.
    pub(crate) doubt: Option<String>,
    /// The interface of its PF, and its number there, where that is known.
    pub(crate) place: Option<(InterfaceName, u32)>,
    /// Its PCI address.
    pub(crate) address: Option<PciAddress>,
    /// How it is set now.
    pub(crate) actual: Option<VfSettings>,
    /// The PF's interface is up, and its wire alive.
    pub(crate) carrier: bool,
    /// Settings of others that were put back.
    pub(crate) restored: u64,
    /// Times that the VF was set since it, or its PF, was made again.
    pub(crate) renewed: u64,
}

/// What became of a PF's unicast filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PfFilters {
    /// Why they are not as they should be, and what to do.
    pub(crate) trouble: Option<String>,
    /// Addresses that have a filter.
    pub(crate) present: BTreeSet<Mac>,
    /// Addresses for which the NIC has no room.
    pub(crate) refused: BTreeSet<Mac>,
    /// All filters that the PF has, of others too.
    pub(crate) total: usize,
    /// The PF takes all frames for the sake of those.
    pub(crate) promiscuous: bool,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Default)]
struct Seen {
    vfs: BTreeMap<PortUuid, VfStatus>,
    filters: BTreeMap<InterfaceName, PfFilters>,
    own: OwnVfs,
}

struct Task {
    shared: Arc<Shared>,
    links: NicLinks,
    events: NicEvents,
    sysfs: Sysfs,
    vfs: Vfs,
    filters: Filters,
}

impl VfKeeper {
    /// Begins to keep what will be wanted.
    ///
    /// The error is a sentence: the kernel has no netlink for us.
    pub(crate) fn start() -> Result<VfKeeper, String> {
        let (links, events) = NicLinks::connect()
            .map_err(|error| format!("asking the kernel for its interfaces: {error}"))?;
        let shared = Arc::<Shared>::default();
        let task = Task {
            shared: Arc::clone(&shared),
            links,
            events,
            sysfs: Sysfs::default(),
            vfs: Vfs::default(),
            filters: Filters::default(),
        };
        Ok(VfKeeper { shared, task: tokio::spawn(task.run()) })
    }

    /// Wants this from now on.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut current = self.shared.wanted.lock();
        if *current != wanted {
            *current = wanted;
            self.shared.news.notify_one();
        }
    }

    /// What became of a port's VF, once it was looked at.
    pub(crate) fn vf(&self, port: PortUuid) -> Option<VfStatus> {
        self.shared.seen.lock().vfs.get(&port).cloned()
    }

    /// What became of the filters of a PF, once it was looked at.
    pub(crate) fn filters(&self, pf: &InterfaceName) -> Option<PfFilters> {
        self.shared.seen.lock().filters.get(pf).cloned()
    }

    /// The VFs that the switch has for itself, as they were seen last.
    pub(crate) fn own(&self) -> OwnVfs {
        self.shared.seen.lock().own.clone()
    }
}

impl Drop for VfKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            self.look().await;
            tokio::select! {
                () = self.shared.news.notified() => {}
                alive = self.events.changed() => match alive {
                    true => self.settle().await,
                    false => self.reconnect().await,
                },
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Waits until others that come at once have come too.
    async fn settle(&mut self) {
        while timeout(QUIET, self.events.changed()).await == Ok(true) {}
    }

    /// The kernel has closed the connection: nothing is known that would make it do so.
    async fn reconnect(&mut self) {
        sleep(LOOK).await;
        if let Ok((links, events)) = NicLinks::connect() {
            (self.links, self.events) = (links, events);
        }
    }

    async fn look(&mut self) {
        let wanted = self.shared.wanted.lock().clone();
        let place = |(name, holder)| Some((self.sysfs.place(name).ok()?, holder));
        let taken: BTreeMap<VfPlace, &String> = wanted.taken.iter().filter_map(place).collect();
        let own = OwnVfs::look(taken.keys(), &self.links, &self.sysfs).await;
        let vfs = self.vfs.keep(&wanted.vfs, &taken, &self.links, &self.sysfs).await;
        let filters = self.filters.keep(&wanted.filters, &self.links, &self.sysfs).await;
        // What is reported as good is good by what was wanted then, and not by what is wanted now.
        if *self.shared.wanted.lock() == wanted {
            *self.shared.seen.lock() = Seen { vfs, filters, own };
        }
    }
}

/// A PF as the kernel has it.
///
/// The error is a sentence with the remedy.
pub(super) async fn find(links: &NicLinks, pf: &InterfaceName) -> Result<NicLink, String> {
    links.find(pf).await?.ok_or_else(|| {
        format!("PF `{pf}` is not there; load its driver, or correct the name of its interface")
    })
}
