//! Guests' sockets beside their ports: what `viaduct show vhost` tells of them, and those that came
//! before their ports.

use std::path::PathBuf;
use std::sync::Arc;

use dataplane::port::Rxq;
use vhost::Device;

use super::Switch;
use super::ports::Link;
use super::uplinks::Uplink;
use crate::early::EARLY_MAX;
use crate::guest::{GuestHandle, GuestState};
use crate::model::{Attachment, Port, PortUuid};
use crate::problem::Problem;
use crate::show::view::{PortRef, RegionView, RingView, SocketModeView, VhostState, VhostView};

impl Switch {
    /// The vhost-user side of one port or all, and of guests that wait for theirs.
    pub(crate) fn vhost_views(&self, only: Option<PortUuid>) -> Vec<VhostView> {
        let wanted = |uuid: PortUuid| only.is_none_or(|only| only == uuid);
        let of_port = |(uuid, port): (&PortUuid, &Port)| {
            let Attachment::VhostUser { mode, .. } = &port.attachment else { return None };
            let Link::Guest { device, socket, .. } = self.ports.get(uuid)?.link() else {
                return None;
            };
            let path = port.socket_path(&self.config.vhost.socket_directory)?;
            Some(vhost_view(self.port_ref(*uuid), path, (*mode).into(), device, socket))
        };
        let early = self.early.iter().flat_map(|early| early.waiting());
        let of_early = early.filter(|(uuid, ..)| wanted(*uuid)).map(|(uuid, path, early)| {
            let (port, mode) = (self.port_ref(uuid), SocketModeView::Client);
            let reason = format!("waits for its port, nodes/{}/ports/{uuid}", self.config.host);
            VhostView {
                state: VhostState::Early,
                reason: Some(reason),
                ..vhost_view(port, path, mode, &early.device, &early.socket)
            }
        });
        let ports = self.desired.ports.iter().filter(|(uuid, _)| wanted(**uuid));
        ports.filter_map(of_port).chain(of_early).collect()
    }

    /// Lets ports follow the uplinks of their networks, where these ask for it, once these may be open.
    pub(super) fn tell_guests(&self) {
        if self.engine().is_none() {
            return;
        }
        for (uuid, live) in &self.ports {
            let network = self.desired.ports.get(uuid).map(|port| port.network);
            let network = network.and_then(|network| self.desired.networks.get(&network));
            let uplink = network.filter(|network| network.follow_uplink);
            let uplink = uplink.and_then(|network| self.uplinks.get(network.segment.physnet()?));
            let dead = uplink.is_some_and(Uplink::is_dead);
            match live.link() {
                Link::Guest { socket, .. } => socket.hold(dead),
                Link::Tap { tap, .. } => tap.cut(dead),
                Link::Wire { .. } | Link::Waiting { .. } => {}
            }
        }
    }

    /// Looks after guests whose ports are not known yet. Before desired state was read for the first
    /// time, nobody's port is known, and all of them may be.
    pub(super) async fn update_early(&mut self) {
        if let Some(early) = self.early.as_mut().filter(|_| self.applied) {
            early.update(&self.desired, &self.config.vhost).await;
        }
    }

    /// The session and the device of a guest that came before its port, or by another process.
    pub(super) async fn take_early(
        &mut self,
        uuid: PortUuid,
    ) -> Option<(Arc<Device>, GuestHandle)> {
        if let Some(handed) = self.handed.remove(&uuid) {
            return Some(handed);
        }
        let early = self.early.as_mut()?;
        let port = self.desired.ports.get(&uuid)?;
        let path = port.socket_path(&self.config.vhost.socket_directory)?;
        let taken = early.take(uuid, &path).await?;
        Some((taken.device, taken.socket))
    }

    /// Has workers poll queues that a guest began to use which came before its port: it was offered
    /// more than ports have as a rule.
    pub(super) async fn attach_late_queues(&mut self) {
        for live in self.ports.values_mut() {
            let id = live.id();
            let Link::Guest { device, socket, pairs } = live.link_mut() else { continue };
            if *pairs == device.pairs_max() {
                continue;
            }
            while *pairs < socket.pairs_used() {
                self.crew.attach(Rxq::new(id, *pairs, Box::new(device.rxq(*pairs)))).await;
                *pairs += 1;
            }
        }
    }

    /// What is not as it should be with a guest that is connected.
    pub(super) fn guest_note(&self, port: &Port, socket: &GuestHandle) -> Option<String> {
        if let Attachment::VhostUser { queues, .. } = &port.attachment {
            let used = socket.pairs_used();
            if used > *queues {
                return Some(format!(
                    "its guest uses {used} pairs of queues, and the port allows {queues}: raise \
                     `queues`, or the guest will not be able to connect again"
                ));
            }
        }
        let network = self.desired.networks.get(&port.network)?;
        let told = socket.mtu().filter(|told| *told > network.mtu)?;
        Some(format!(
            "its guest was told MTU {told}, and the network's is {}: longer frames are dropped until \
             the guest is started again",
            network.mtu
        ))
    }

    /// That more guests wait for their ports than may.
    pub(super) fn early_failure(&self) -> Option<Problem> {
        let beyond = self.early.as_ref()?.beyond();
        (beyond > 0).then(|| {
            let what = format!(
                "{EARLY_MAX} guests wait for their ports, and {beyond} more sockets are named like \
                 ports that are not there"
            );
            let remedy = "add the ports, or remove the sockets of guests that are gone";
            Problem::whole("vhost.socket_directory", what, remedy)
        })
    }
}

fn vhost_view(
    port: PortRef,
    path: PathBuf,
    mode: SocketModeView,
    device: &Device,
    socket: &GuestHandle,
) -> VhostView {
    let status = socket.status();
    let (state, reason) = match status.state {
        GuestState::Unconnected { reason } | GuestState::Failed { reason } => {
            (VhostState::Unconnected, Some(reason))
        }
        GuestState::Connected { ready: true } => (VhostState::Ready, None),
        GuestState::Connected { ready: false } => {
            let reason = "the guest's driver does not run".to_owned();
            (VhostState::Connected, Some(reason))
        }
    };
    let summary = socket.summary().unwrap_or_default();
    let rings = summary.rings.iter().map(|ring| {
        let counts = device.statistics(ring.queue);
        RingView {
            queue: ring.queue as u16,
            layout: ring.layout.map(Into::into),
            size: ring.size,
            state: ring.state.to_string(),
            enabled: ring.enabled,
            next_available: ring.next_available,
            next_used: ring.next_used,
            frames: counts.frames,
            bytes: counts.bytes,
            full: counts.full,
            too_big: counts.too_big,
            discarded: counts.discarded,
            kicks: counts.kicks,
        }
    });
    let region = |region: &vhost::RegionSpec| RegionView {
        guest_address: region.guest_address,
        bytes: region.bytes,
    };
    VhostView {
        port,
        socket: path,
        mode,
        state,
        reason,
        features: summary.features.clone(),
        protocol_features: summary.protocol_features.clone(),
        driver_status: summary.driver_status,
        mtu: summary.mtu,
        memory: summary.memory.iter().map(region).collect(),
        rings: rings.collect(),
        sessions: status.sessions,
        last_error: status.last_error,
        refusal: summary.refusal,
    }
}
