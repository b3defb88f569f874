//! Desired state and what is attached, made into the tables that workers switch by. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::fdb::Hash;
use dataplane::headers::Mac;
use dataplane::snapshot::{DomainId, DomainSpec, PortId, Snapshot, SnapshotBuilder, Vid};

use crate::filters::{Filters, PortFilter};
use crate::model::{Desired, Network, NetworkUuid, PhysnetName, PortUuid, Segment};

/// Which numbers the attached parts have. What is not in here is not in the tables.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// The domains.
    pub(crate) domains: BTreeMap<NetworkUuid, DomainId>,
    /// The ports whose queues exist.
    pub(crate) ports: BTreeMap<PortUuid, PortId>,
    /// The physnets whose device is open, or is to be opened as soon as DPDK runs.
    pub(crate) uplinks: BTreeMap<PhysnetName, PortId>,
    /// The ports that pass nothing, since VFs beside the switch would not reach them.
    pub(crate) shut: BTreeSet<PortUuid>,
}

/// The networks that this host needs a domain for: those with a port here. A domain is made with
/// its first port and goes with its last.
pub(crate) fn used_networks(desired: &Desired) -> impl Iterator<Item = (NetworkUuid, &Network)> {
    let used: BTreeSet<_> =
        desired.ports.values().filter(|port| port.is_switched()).map(|port| port.network).collect();
    used.into_iter().filter_map(|uuid| Some((uuid, desired.networks.get(&uuid)?)))
}

/// The tables. `hash` is that of the FDB that is used with them.
pub(crate) fn compile(
    desired: &Desired,
    attached: &Attached,
    filters: &Filters,
    hash: Hash,
) -> Snapshot {
    let mut builder = SnapshotBuilder::default();
    for port in attached.uplinks.values() {
        builder.uplink(*port, true);
    }
    for (uuid, network) in used_networks(desired) {
        let Some(&id) = attached.domains.get(&uuid) else { continue };
        builder.domain(
            id,
            DomainSpec {
                mtu: network.mtu,
                learning: network.learning,
                flooding: network.flooding,
                uplink: uplink(network, attached),
            },
        );
    }
    for (uuid, port) in &desired.ports {
        let (Some(&id), Some(&domain)) =
            (attached.ports.get(uuid), attached.domains.get(&port.network))
        else {
            continue;
        };
        let addresses: Vec<_> = port.mac().map(|mac| Mac::new(mac.octets())).into_iter().collect();
        // A port of which it is not known what may pass is closed, whatever else is known of it.
        let shut = attached.shut.contains(uuid);
        let (open, policy) = match filters.port(*uuid) {
            Some(PortFilter::Open) => (true, None),
            Some(PortFilter::Filtered(policy)) => (true, Some(Arc::clone(policy))),
            Some(PortFilter::Closed(_)) | None => (false, None),
        };
        builder.access(id, port.admin_up && open && !shut, domain, &addresses, policy);
    }
    builder.build(hash)
}

/// The network's way to the wire. Without it, while its device is not open, the network's guests
/// still reach each other.
fn uplink(network: &Network, attached: &Attached) -> Option<(PortId, Option<Vid>)> {
    let port = |physnet: &PhysnetName| attached.uplinks.get(physnet).copied();
    match &network.segment {
        Segment::Vlan { physnet, vlan } => {
            let vid = Vid::new(vlan.number()).expect("the model's VLANs are 1 to 4094");
            Some((port(physnet)?, Some(vid)))
        }
        Segment::Flat { physnet } => Some((port(physnet)?, None)),
        Segment::Local => None,
    }
}
