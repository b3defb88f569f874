//! Devices that have to be seen to while they are open: those that the host takes away, which waits for
//! us, those that have become deaf, and those whose address is another one now.
//!
//! What ails is unpublished first and its queues are taken back, as when it is closed for good. One that
//! is to go is closed then, and tried again in its turn, so that it is back by itself when there is such
//! a device again; any other is stopped and started.

use std::sync::Arc;

use dataplane::dpdk::DeviceEvent;
use dataplane::port::Rxq;
use dataplane::port::eth::EthPort;
use dataplane::snapshot::PortId;

use super::Switch;
use crate::compile::used_networks;
use crate::model::{Network, PhysnetName, PortUuid, Segment};
use crate::wire::{Ailment, News, Wire};

/// Whose device it is.
enum Place {
    /// A physnet's, and the number that it has there.
    Uplink(PhysnetName, usize),
    Port(PortUuid),
}

impl Switch {
    /// Sees to devices, by what they have told since this was called last and by their cards.
    pub(super) async fn tend_devices(&mut self) {
        let Some(engine) = self.engine() else { return };
        let (events, pool) = (engine.eal.take_events(), engine.pool.clone());
        let ailing = self.take_ailing(events);
        if ailing.is_empty() {
            return;
        }
        self.publish().await;
        let mut restarted = Vec::new();
        for (place, id, wire, ailment) in ailing {
            let alone = self.detach_device(&place, id).await;
            let mut wire = Arc::into_inner(wire).expect("it is published no more");
            match wire.restart(&pool, &ailment) {
                Ok((rxqs, egress)) => {
                    tracing::info!(%place, "{ailment}: started the device again");
                    restarted.extend(self.put_back(&place, id, wire, egress, rxqs));
                }
                Err(reason) => {
                    tracing::warn!(%place, "{reason}; let the device go");
                    if alone {
                        self.fdb.flush_port(id);
                    }
                    drop(wire);
                }
            }
        }
        self.publish().await;
        for rxq in restarted {
            self.crew.attach(rxq).await;
        }
    }

    /// Takes a device's queues from the workers. Returns whether it is all that its port has.
    async fn detach_device(&mut self, place: &Place, id: PortId) -> bool {
        let bond = match place {
            Place::Uplink(name, at) => {
                let uplink = self.uplinks.get(name).filter(|uplink| uplink.bond().is_some());
                uplink.map(|uplink| (uplink, *at))
            }
            Place::Port(_) => None,
        };
        let (queue, alone) = match bond {
            Some((uplink, at)) => (Some(at as u16), uplink.wire().is_none()),
            None => (None, true),
        };
        self.crew.detach_queue(id, queue).await;
        alone
    }

    /// Has uplinks receive the VLANs of the networks in use, where these have to be asked for.
    pub(super) fn tell_vlans(&self) {
        for (name, uplink) in &self.uplinks {
            let vlan = |network: &Network| match &network.segment {
                Segment::Vlan { physnet, vlan } if physnet == name => Some(vlan.number()),
                _ => None,
            };
            let vlans = used_networks(&self.desired).filter_map(|(_, network)| vlan(network));
            let vlans = vlans.collect();
            for wire in uplink.members().iter().filter_map(|member| member.wire().ok()) {
                wire.hear_vlans(&vlans);
            }
        }
    }

    /// Takes out the devices that have to be seen to. Their places wait for a device from now on.
    fn take_ailing(
        &mut self,
        events: Vec<DeviceEvent>,
    ) -> Vec<(Place, PortId, Arc<Wire>, Ailment)> {
        let news = News { events, own: self.own_vfs() };
        let mut ailing = Vec::new();
        for (name, uplink) in &mut self.uplinks {
            for (at, wire, ailment) in uplink.take_ailing(&news) {
                ailing.push((Place::Uplink(name.clone(), at), uplink.id(), wire, ailment));
            }
            if uplink.wire().is_none() {
                self.attached.uplinks.remove(name);
            }
        }
        for (uuid, live) in &mut self.ports {
            if let Some((wire, ailment)) = live.take_ailing(&news) {
                self.attached.ports.remove(uuid);
                ailing.push((Place::Port(*uuid), live.id(), Arc::new(wire), ailment));
            }
        }
        ailing
    }

    /// Puts a device back where it was. Returns its queues, which are to be attached when it is published.
    fn put_back(
        &mut self,
        place: &Place,
        id: PortId,
        wire: Wire,
        egress: Arc<EthPort>,
        rxqs: Vec<Rxq>,
    ) -> Vec<Rxq> {
        match place {
            Place::Uplink(name, at) => {
                let Some(uplink) = self.uplinks.get_mut(name) else { return Vec::new() };
                self.attached.uplinks.insert(name.clone(), id);
                uplink.put_back(*at, wire, egress, rxqs)
            }
            Place::Port(uuid) => {
                let Some(live) = self.ports.get_mut(uuid) else { return Vec::new() };
                self.attached.ports.insert(*uuid, id);
                live.put_back(wire, egress);
                rxqs
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Uplink(name, _) => write!(f, "physnet {name}"),
            Place::Port(uuid) => write!(f, "port {uuid}"),
        }
    }
}
