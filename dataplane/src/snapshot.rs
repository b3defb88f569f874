//! Everything configured that a frame's fate depends on, in one immutable value.
//!
//! The control thread builds a [`Plan`] from desired state and publishes it; workers read it. It
//! is never changed, and what is in it decides: the FDB only hints where to look.

use std::num::NonZeroU16;
use std::sync::Arc;

use vhost::{Frames, Sent, Staged, TagEdit};

use crate::fdb::Hash;
use crate::headers::{ETHERNET_BYTES, Mac, TAG_BYTES, Tag};
use crate::policy::Policy;
use crate::port::TxPort;
use crate::watch::{Mirrors, Watch};

mod stations;

pub use stations::Stations;

/// The most ports of one host.
pub const PORTS_MAX: usize = 1024;

/// The most bridge domains of one host.
pub const DOMAINS_MAX: usize = 4096;

/// A port's number on this host, below [`PORTS_MAX`]. Given out by the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(u16);

impl PortId {
    /// The port with this number, if there can be one.
    pub const fn new(number: usize) -> Option<Self> {
        if number < PORTS_MAX { Some(Self(number as u16)) } else { None }
    }

    /// Its number.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A bridge domain's number on this host, below [`DOMAINS_MAX`]. Given out by the control thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainId(NonZeroU16);

impl DomainId {
    /// The domain with this number, if there can be one.
    pub const fn new(number: usize) -> Option<Self> {
        if number >= DOMAINS_MAX {
            return None;
        }
        match NonZeroU16::new(number as u16 + 1) {
            Some(successor) => Some(Self(successor)),
            None => None,
        }
    }

    /// Its number.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// Its number and one more, as which it is kept: so keys made of it are never 0.
    #[inline(always)]
    pub(crate) const fn successor(self) -> u16 {
        self.0.get()
    }
}

impl std::fmt::Debug for DomainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DomainId").field(&self.index()).finish()
    }
}

/// A VLAN's number, 1 to 4094 (802.1Q §9.6, table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vid(u16);

impl Vid {
    /// The VLAN with this number, if there can be one.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= 1 && number <= 4094 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What is published to the workers: the switching tables, and where frames leave.
#[derive(Default)]
pub struct Plan {
    /// The tables.
    pub snapshot: Snapshot,
    /// Each port's transmit side, by its number.
    pub egress: Vec<Option<Arc<dyn TxPort>>>,
    /// What frames are recorded for, [`WATCHES_MAX`](crate::watch::WATCHES_MAX) at most.
    pub watches: Vec<Arc<Watch>>,
    /// What is copied to listeners.
    pub mirrors: Mirrors,
}

impl Plan {
    /// Whether anybody looks on.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        !self.watches.is_empty() || !self.mirrors.is_empty()
    }

    /// Hands frames over to a port, if it has a transmit side. `worker` is who asks.
    #[inline(always)]
    pub(crate) fn send(
        &self,
        worker: usize,
        to: PortId,
        frames: Frames<'_>,
        staged: &Staged<'_>,
        sent: &mut Sent,
    ) {
        match self.egress.get(to.index()) {
            Some(Some(egress)) => egress.send(worker, frames, staged, sent),
            _ => sent.down += staged.len() as u64,
        }
    }
}

/// The switching tables. See the [module's head](self).
#[derive(Debug, Default)]
pub struct Snapshot {
    ports: Vec<Option<Port>>,
    domains: Vec<Option<Domain>>,
    stations: Stations,
    filters: bool,
}

/// A port, as frames see it.
#[derive(Debug)]
pub struct Port {
    /// Whether it takes part in switching.
    pub up: bool,
    /// Where it is attached.
    pub attachment: Attachment,
    /// What it may send and be sent; all, if there is none.
    pub policy: Option<Arc<Policy>>,
    /// Whether the address that its policy knows as its own is known without learning.
    pub settled: bool,
}

/// How a port is attached to bridge domains.
#[derive(Debug)]
pub enum Attachment {
    /// To one domain, untagged: a guest.
    Access(DomainId),
    /// To several, told apart by tag: a physical network.
    Uplink(Uplink),
}

/// Which domain a physical network's frames belong to.
#[derive(Debug, Default)]
pub struct Uplink {
    untagged: Option<DomainId>,
    /// By VLAN; empty as long as there is none.
    tagged: Vec<Option<DomainId>>,
}

/// A bridge domain.
#[derive(Debug)]
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// Largest payload in bytes, without Ethernet header and tag.
    pub mtu: u16,
    /// Whether source addresses are learned.
    pub learning: bool,
    /// Whether frames to unknown unicast addresses are flooded.
    pub flooding: bool,
    /// The port to the physical network, and its VLAN if it has one.
    pub uplink: Option<(PortId, Option<Vid>)>,
    /// Ports that are up, in the order of their numbers.
    pub members: Vec<PortId>,
}

/// What a snapshot is built of.
#[derive(Debug)]
pub struct DomainSpec {
    /// See [`Domain::mtu`].
    pub mtu: u16,
    /// See [`Domain::learning`].
    pub learning: bool,
    /// See [`Domain::flooding`].
    pub flooding: bool,
    /// See [`Domain::uplink`].
    pub uplink: Option<(PortId, Option<Vid>)>,
}

/// Builds a [`Snapshot`].
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
    stations: Vec<(DomainId, Mac, PortId)>,
}

impl SnapshotBuilder {
    /// Adds an uplink, to which domains can then be attached.
    pub fn uplink(&mut self, port: PortId, up: bool) {
        let attachment = Attachment::Uplink(Uplink::default());
        *slot(&mut self.snapshot.ports, port.index()) =
            Some(Port { up, attachment, policy: None, settled: false });
    }

    /// Adds a domain and attaches it to its uplink, which must have been added before.
    ///
    /// # Panics
    /// If the uplink was not added, or carries another domain under the same VLAN.
    pub fn domain(&mut self, id: DomainId, spec: DomainSpec) {
        let mut members = Vec::new();
        if let Some((port, vid)) = spec.uplink {
            let Some(Port { up, attachment: Attachment::Uplink(uplink), .. }) =
                slot(&mut self.snapshot.ports, port.index())
            else {
                panic!("domain {id:?} names the uplink {port:?}, which is none");
            };
            let place = match vid {
                None => &mut uplink.untagged,
                Some(vid) => slot(&mut uplink.tagged, usize::from(vid.number())),
            };
            assert!(place.is_none(), "{place:?} and {id:?} share a VLAN on {port:?}");
            *place = Some(id);
            if *up {
                members.push(port);
            }
        }
        let DomainSpec { mtu, learning, flooding, uplink } = spec;
        let domain = Domain { id, mtu, learning, flooding, uplink, members };
        *slot(&mut self.snapshot.domains, id.index()) = Some(domain);
    }

    /// Attaches a port to a domain, which must have been added before, and makes the addresses
    /// that are known to be behind it findable without learning.
    /// `policy` is what it may send and be sent; all, if there is none.
    ///
    /// # Panics
    /// If the domain was not added.
    pub fn access(
        &mut self,
        port: PortId,
        up: bool,
        domain: DomainId,
        addresses: &[Mac],
        policy: Option<Arc<Policy>>,
    ) {
        let attachment = Attachment::Access(domain);
        self.snapshot.filters |= policy.is_some();
        let own = policy.as_ref().and_then(|policy| policy.guard.own());
        let settled = own.is_some_and(|own| addresses.contains(&own));
        let it = Port { up, attachment, policy, settled };
        *slot(&mut self.snapshot.ports, port.index()) = Some(it);
        let Some(domain) = slot(&mut self.snapshot.domains, domain.index()) else {
            panic!("port {port:?} names the domain {domain:?}, which was not added");
        };
        if up {
            domain.members.push(port);
            self.stations.extend(addresses.iter().map(|mac| (domain.id, *mac, port)));
        }
    }

    /// The finished tables. `hash` is that of the [`Fdb`](crate::fdb::Fdb) that is used with them.
    pub fn build(mut self, hash: Hash) -> Snapshot {
        for domain in self.snapshot.domains.iter_mut().flatten() {
            domain.members.sort_unstable();
        }
        self.snapshot.stations = Stations::build(&self.stations, hash);
        self.snapshot
    }
}

/// The place of `index` in a table that grows to hold it.
fn slot<T>(table: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    &mut table[index]
}

impl Snapshot {
    /// A port, if it is configured.
    #[inline(always)]
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port.index())?.as_ref()
    }

    /// A domain, if it is configured.
    #[inline(always)]
    pub fn domain(&self, domain: DomainId) -> Option<&Domain> {
        self.domains.get(domain.index())?.as_ref()
    }

    /// Whether any port has a policy, so that packets have to be looked into.
    #[inline(always)]
    pub fn filters(&self) -> bool {
        self.filters
    }

    /// What `port` may send and be sent; all, if there is none.
    #[inline(always)]
    pub fn policy(&self, port: PortId) -> Option<&Policy> {
        self.port(port)?.policy.as_deref()
    }

    /// Addresses that are known without learning.
    #[inline(always)]
    pub fn stations(&self) -> &Stations {
        &self.stations
    }

    /// Whether `port` is up and a member of `domain`: the check that makes a stale answer of the
    /// FDB harmless.
    #[inline(always)]
    pub fn is_member(&self, port: PortId, domain: &Domain) -> bool {
        match self.port(port) {
            Some(Port { up: true, attachment: Attachment::Access(of), .. }) => *of == domain.id,
            Some(Port { up: true, attachment: Attachment::Uplink(_), .. }) => {
                domain.uplink.is_some_and(|(uplink, _)| uplink == port)
            }
            _ => false,
        }
    }
}

impl Uplink {
    /// The domain of untagged frames: the flat network's.
    #[inline(always)]
    pub fn untagged(&self) -> Option<DomainId> {
        self.untagged
    }

    /// The domain of frames with this VLAN.
    #[inline(always)]
    pub fn tagged(&self, vid: u16) -> Option<DomainId> {
        self.tagged.get(usize::from(vid)).copied().flatten()
    }
}

impl Domain {
    /// The longest frame, with a tag if it has one.
    #[inline(always)]
    pub fn frame_bytes_max(&self, tagged: bool) -> usize {
        usize::from(self.mtu) + ETHERNET_BYTES + if tagged { TAG_BYTES } else { 0 }
    }

    /// What has to happen to a frame's tag for it to leave by `port`. The priority that a tag
    /// carried is kept where a tag leaves.
    #[inline(always)]
    pub fn tag_edit(&self, tag: Option<Tag>, port: PortId) -> TagEdit {
        let vid = match self.uplink {
            Some((uplink, vid)) if uplink == port => vid,
            _ => None,
        };
        match (tag, vid) {
            (None, None) => TagEdit::Keep,
            (None, Some(vid)) => TagEdit::Push(vid.number()),
            (Some(_), None) => TagEdit::Pop,
            (Some(tag), Some(vid)) if tag.vid() == vid.number() => TagEdit::Keep,
            (Some(tag), Some(vid)) => TagEdit::Replace(tag.tci & 0xf000 | vid.number()),
        }
    }
}
