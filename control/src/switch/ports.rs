//! Ports of this host: opened when desired state names them, closed when it no longer does.

use std::sync::Arc;
use std::time::Instant;

use dataplane::port::eth::EthPort;
use dataplane::port::{Rxq, TxPort};
use dataplane::snapshot::PortId;
use vhost::Device;

use super::{RETRY, Switch};
use crate::guest::{GuestHandle, GuestOptions, GuestSocket};
use crate::model::{Attachment, Desired, Port, PortUuid, SocketMode};
use crate::tap::{TapHandle, TapWatch};
use crate::wire::{Ailment, News, Opened, Wire};

/// Why a device cannot be opened yet.
const NO_DPDK: &str = "DPDK does not run yet";

/// A port that exists, in whatever state.
pub(super) struct LivePort {
    id: PortId,
    /// As it was attached; what can change without reopening is read from desired state.
    attachment: Attachment,
    link: Link,
    /// Times that its device was stopped and started again.
    restarts: u64,
}

/// What is behind a port.
pub(super) enum Link {
    /// A guest's vhost-user socket.
    Guest {
        device: Arc<Device>,
        socket: GuestHandle,
        /// Pairs of queues that workers poll, or would poll if the guest used them.
        pairs: u16,
    },
    /// A DPDK device.
    Wire { wire: Wire, egress: Arc<dyn TxPort> },
    /// A tap interface of this host.
    Tap { wire: Wire, egress: Arc<dyn TxPort>, tap: TapHandle },
    /// Nothing, since it could not be opened.
    Waiting { reason: String, again: Instant },
}

impl LivePort {
    pub(super) fn id(&self) -> PortId {
        self.id
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Its device, if that is one of DPDK's own.
    pub(super) fn wire(&self) -> Option<&Wire> {
        match &self.link {
            Link::Wire { wire, .. } => Some(wire),
            _ => None,
        }
    }

    /// Takes its device out, if that has to be seen to.
    pub(super) fn take_ailing(&mut self, news: &News) -> Option<(Wire, Ailment)> {
        let Link::Wire { wire, .. } = &mut self.link else { return None };
        let ailment = wire.ailment(news)?;
        let waiting = Link::Waiting { reason: ailment.to_string(), again: Instant::now() + RETRY };
        match std::mem::replace(&mut self.link, waiting) {
            Link::Wire { wire, .. } => Some((wire, ailment)),
            _ => None,
        }
    }

    /// Puts a device back that was seen to.
    pub(super) fn put_back(&mut self, wire: Wire, egress: Arc<EthPort>) {
        self.link = Link::Wire { wire, egress };
        self.restarts += 1;
    }

    /// Times that its device was stopped and started again.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Closes its device, which the next process opens; its guest is that process's already.
    pub(super) fn leave(self) {
        match self.link {
            Link::Guest { socket, .. } => socket.leave(),
            Link::Tap { tap, .. } => tap.leave(),
            Link::Wire { wire, .. } => wire.leave(),
            Link::Waiting { .. } => {}
        }
    }

    /// Takes it apart. No worker polls it any more.
    pub(super) async fn close(self) {
        self.link.close().await;
    }

    pub(super) fn egress(&self) -> Option<Arc<dyn TxPort>> {
        match &self.link {
            Link::Guest { device, .. } => Some(Arc::clone(device) as Arc<dyn TxPort>),
            Link::Wire { egress, .. } | Link::Tap { egress, .. } => Some(Arc::clone(egress)),
            Link::Waiting { .. } => None,
        }
    }
}

impl Link {
    /// Takes apart what no worker polls and nobody sends to any more.
    async fn close(self) {
        match self {
            Link::Guest { socket, .. } => socket.close().await,
            Link::Tap { tap, .. } => tap.close().await,
            Link::Wire { .. } | Link::Waiting { .. } => {}
        }
    }
}

impl Switch {
    /// Ports that go to another network. What was learned of them is not true any more.
    pub(super) fn moved_ports(&self, desired: &Desired) -> impl Iterator<Item = PortId> {
        self.ports.iter().filter_map(|(uuid, live)| {
            let (old, new) = (self.desired.ports.get(uuid)?, desired.ports.get(uuid)?);
            (old.network != new.network).then_some(live.id)
        })
    }

    /// Takes out the ports that are to be closed: gone, or attached in another way.
    pub(super) fn take_closing(&mut self, desired: &Desired) -> Vec<(PortUuid, LivePort)> {
        let closing: Vec<_> = self
            .ports
            .iter()
            .filter(|(uuid, live)| {
                let wanted = desired.ports.get(uuid).map(|port| &port.attachment);
                !wanted.is_some_and(|wanted| same_link(wanted, &live.attachment))
            })
            .map(|(uuid, _)| *uuid)
            .collect();
        let take = |uuid: PortUuid| {
            self.attached.ports.remove(&uuid);
            Some((uuid, self.ports.remove(&uuid)?))
        };
        closing.into_iter().filter_map(take).collect()
    }

    /// Takes a port apart that is no longer published.
    pub(super) async fn close(&mut self, uuid: PortUuid, port: LivePort) {
        self.crew.detach(port.id).await;
        self.fdb.flush_port(port.id);
        let id = port.id;
        port.close().await;
        self.port_numbers.give_back(id.index());
        tracing::info!(port = %uuid, "closed the port");
    }

    /// Makes a place for each port that desired state names and that does not exist yet.
    pub(super) fn add_ports(&mut self) {
        for (uuid, port) in &self.desired.ports {
            if self.ports.contains_key(uuid) || !port.is_switched() {
                continue;
            }
            let Some(id) = self.port_numbers.take().and_then(PortId::new) else {
                tracing::error!(port = %uuid, "this host has as many ports as it can have");
                continue;
            };
            let link = Link::Waiting { reason: String::new(), again: Instant::now() };
            let attachment = port.attachment.clone();
            self.ports.insert(*uuid, LivePort { id, attachment, link, restarts: 0 });
        }
    }

    /// Lets guests be told the MTU that their networks have now, and gives it to tap interfaces.
    pub(super) fn limit_mtus(&mut self) {
        for (uuid, live) in &mut self.ports {
            let network = self.desired.ports.get(uuid).map(|port| port.network);
            let network = network.and_then(|network| self.desired.networks.get(&network));
            let mtu = network.map(|network| network.mtu);
            match (&mut live.link, mtu) {
                (Link::Guest { socket, .. }, _) => socket.limit_mtu(mtu),
                (Link::Tap { wire, .. }, Some(mtu)) => wire.limit_tap(mtu),
                _ => {}
            }
        }
    }

    /// Opens whatever waits for it and whose time has come, and publishes: if anything was opened, or
    /// in any case. Only then do workers take frames from what was opened: a guest may have some in its
    /// rings already, which would be dropped as those of a port that is not there.
    pub(super) async fn open_and_publish(&mut self, in_any_case: bool) {
        let (any, rxqs) = self.open_waiting().await;
        if any || in_any_case {
            self.publish().await;
        }
        for rxq in rxqs {
            self.crew.attach(rxq).await;
        }
    }

    /// Opens whatever waits for it. Returns whether anything was opened, and the queues of it that no
    /// worker polls yet.
    async fn open_waiting(&mut self) -> (bool, Vec<Rxq>) {
        let mut any = self.open_uplinks().await;
        let mut opened = Vec::new();
        let devices_wait = self.engine().is_none();
        let due = |live: &LivePort| match &live.link {
            Link::Waiting { .. } if devices_wait && !is_guests(&live.attachment) => false,
            Link::Waiting { again, .. } => *again <= Instant::now(),
            _ => false,
        };
        let due: Vec<_> =
            self.ports.iter().filter(|(_, live)| due(live)).map(|(uuid, _)| *uuid).collect();
        for uuid in due {
            let early = self.take_early(uuid).await;
            let (Some(port), Some(live)) = (self.desired.ports.get(&uuid), self.ports.get(&uuid))
            else {
                continue;
            };
            let (id, before) = (live.id, &live.link);
            let link = match self.open(uuid, id, port, early) {
                Ok((link, rxqs)) => {
                    tracing::info!(port = %uuid, kind = port.attachment.kind(), "opened the port");
                    opened.extend(rxqs);
                    self.attached.ports.insert(uuid, id);
                    any = true;
                    link
                }
                Err(reason) => {
                    if !matches!(before, Link::Waiting { reason: before, .. } if *before == reason)
                    {
                        tracing::error!(port = %uuid, "{reason}");
                    }
                    Link::Waiting { reason, again: Instant::now() + RETRY }
                }
            };
            if let Some(live) = self.ports.get_mut(&uuid) {
                live.link = link;
            }
        }
        (any, opened)
    }

    /// Closes tap ports whose interface somebody has removed; they are opened again in their turn.
    pub(super) async fn close_removed(&mut self) {
        let removed = |live: &LivePort| match &live.link {
            Link::Tap { tap, .. } => tap.status().removed,
            _ => false,
        };
        let removed: Vec<_> =
            self.ports.iter().filter(|(_, live)| removed(live)).map(|(uuid, _)| *uuid).collect();
        for uuid in removed {
            let Some(live) = self.ports.get_mut(&uuid) else { continue };
            let reason = "somebody has removed its interface; it is made again".to_owned();
            tracing::warn!(port = %uuid, "{reason}");
            let waiting = Link::Waiting { reason, again: Instant::now() + RETRY };
            let (id, link) = (live.id, std::mem::replace(&mut live.link, waiting));
            self.attached.ports.remove(&uuid);
            self.publish().await;
            self.crew.detach(id).await;
            self.fdb.flush_port(id);
            link.close().await;
        }
    }

    /// Opens a port; a guest's by what there is of it already, if it came early.
    fn open(
        &self,
        uuid: PortUuid,
        id: PortId,
        port: &Port,
        early: Option<(Arc<Device>, GuestHandle)>,
    ) -> Result<(Link, Vec<Rxq>), String> {
        let mtu = self.desired.networks.get(&port.network).map(|network| network.mtu);
        match &port.attachment {
            Attachment::VhostUser { socket, mode, queues, .. } => {
                let vhost = &self.config.vhost;
                let options = GuestOptions {
                    port: uuid,
                    path: socket.path(&vhost.socket_directory),
                    server: *mode == SocketMode::Server,
                    mtu,
                };
                let (device, socket) = early.unwrap_or_else(|| {
                    let device = Device::new(*queues);
                    let socket = GuestSocket::spawn(options, vhost, Arc::clone(&device), self.held);
                    (device, socket)
                });
                socket.limit_mtu(mtu);
                let rxq = |pair| Rxq::new(id, pair, Box::new(device.rxq(pair)));
                let rxqs = (0..*queues).map(rxq).collect();
                Ok((Link::Guest { device, socket, pairs: *queues }, rxqs))
            }
            Attachment::Ethdev { device, .. } => {
                let workers = self.config.workers.cores.len();
                let mtu = mtu.unwrap_or(crate::model::Network::MTU);
                let Opened { wire, rxqs, egress } = Wire::open(
                    self.engine().ok_or(NO_DPDK)?,
                    device,
                    id,
                    mtu,
                    workers,
                    &mut self.left(),
                )?;
                for shortfall in wire.shortfalls() {
                    tracing::warn!(port = %uuid, "{shortfall}");
                }
                Ok((Link::Wire { wire, egress }, rxqs))
            }
            Attachment::Tap { interface, mac, bridge } => {
                let mtu = mtu.unwrap_or(crate::model::Network::MTU);
                // In a bridge, frames to the interface's own address would go no further.
                let mac = mac.filter(|_| bridge.is_none());
                let watch = TapWatch::begin(interface)?;
                let Opened { wire, rxqs, egress } = Wire::open_tap(
                    self.engine().ok_or(NO_DPDK)?,
                    interface,
                    mac,
                    id,
                    mtu,
                    &mut self.left(),
                )?;
                let tap = watch.follow(uuid, bridge.clone());
                Ok((Link::Tap { wire, egress, tap }, rxqs))
            }
            Attachment::VfDirect(vf) => {
                Err(format!("VF `{}` is its guest's, and nothing that the switch opens", vf.vf))
            }
        }
    }
}

fn is_guests(attachment: &Attachment) -> bool {
    matches!(attachment, Attachment::VhostUser { .. })
}

/// Whether one attachment can become the other without reopening: all but the address is alike.
fn same_link(one: &Attachment, other: &Attachment) -> bool {
    match (one, other) {
        (
            Attachment::VhostUser { socket: a, mode: b, queues: c, .. },
            Attachment::VhostUser { socket: d, mode: e, queues: f, .. },
        ) => (a, b, c) == (d, e, f),
        (Attachment::Ethdev { device: a, .. }, Attachment::Ethdev { device: b, .. }) => a == b,
        (
            Attachment::Tap { interface: a, bridge: b, .. },
            Attachment::Tap { interface: c, bridge: d, .. },
        ) => (a, b) == (c, d),
        _ => false,
    }
}
