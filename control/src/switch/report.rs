//! Actual state: what this host reports of its ports and physnets, with a reason for what is not
//! ready.

use super::Switch;
use super::ports::{Link, LivePort};
use crate::filters::PortFilter;
use crate::guest::{GuestState, HELD};
use crate::model::{ActualState, Attachment, PhysnetState, Port, PortState, PortUuid, Status};
use crate::problem::Problem;
use crate::tap::TapHandle;
use crate::wire::Wire;

impl Switch {
    /// What there is to report.
    pub(crate) fn actual_state(&self) -> ActualState {
        let host = &self.config.host;
        let mut state = ActualState::default();
        for (&uuid, port) in &self.desired.ports {
            let mut report = self.port_state(uuid, port);
            let key = crate::key::Key::Port { host: host.clone(), port: uuid };
            let refused = self.filters.of(port).and_then(|rules| rules.refusal.clone());
            report.rejected = match self.desired.problems.get(&key) {
                Some(problems) => Some(join(problems)),
                None => refused.map(|refusal| format!("security_groups: {refusal}")),
            };
            state.ports.insert(uuid, report);
        }
        for (uuid, problems) in self.desired.refused_ports(host) {
            state.ports.insert(uuid, PortState::new(Status::Refused, Some(join(problems))));
        }
        for (name, uplink) in &self.uplinks {
            let physnet = &self.config.physnets[name];
            let (status, reason) = uplink.status();
            let wire = uplink.wire();
            let speeds = uplink.links().members.into_iter().filter(|it| it.carries);
            let speeds: Vec<u32> = speeds.filter_map(|it| it.speed_mbps).collect();
            let report = PhysnetState {
                status,
                reason,
                device: uplink.device(),
                mac: wire.and_then(|wire| wire.mac()),
                mtu: wire.map_or(physnet.mtu, |wire| wire.mtu()),
                link_mbps: (!speeds.is_empty()).then(|| speeds.iter().sum()),
                filters: self.filter_state(name),
                since: jiff::Timestamp::now(),
            };
            state.physnets.insert(name.clone(), report);
        }
        state
    }

    /// What could not be carried out of desired state and configuration, for `show errors`.
    pub(crate) fn failures(&self) -> Vec<Problem> {
        let host = &self.config.host;
        let remedy = "it is tried again every few seconds";
        let mut failures = Vec::from_iter(self.early_failure());
        failures.extend(self.keeping.iter().filter_map(|keeping| keeping.problem().cloned()));
        for (name, uplink) in &self.uplinks {
            for (at, member) in uplink.members().iter().enumerate() {
                let Err(reason) = member.wire() else { continue };
                let mut problem = Problem::whole(format!("physnets.{name}"), reason, remedy);
                problem.field = match uplink.bond() {
                    Some(_) => format!("bond.members[{at}]"),
                    None => "device".to_owned(),
                };
                failures.push(problem);
            }
        }
        for (&uuid, port) in &self.desired.ports {
            if let Some(refusal) = self.filters.of(port).and_then(|rules| rules.refusal.clone()) {
                let key = crate::key::Key::Port { host: host.clone(), port: uuid };
                let (what, remedy) = refusal.split_once("; ").unwrap_or((&refusal, ""));
                let mut problem = Problem::whole(key, what, remedy);
                problem.field = "security_groups".to_owned();
                failures.push(problem);
            }
            let (status, reason) = self.port_status(uuid, port, self.ports.get(&uuid));
            if let (Status::Failed, Some(reason)) = (status, reason) {
                let key = crate::key::Key::Port { host: host.clone(), port: uuid };
                let mut problem = Problem::whole(key, reason, remedy);
                problem.field = match &port.attachment {
                    Attachment::VhostUser { .. } => "socket".to_owned(),
                    Attachment::Ethdev { .. } => "device".to_owned(),
                    Attachment::Tap { .. } => "interface".to_owned(),
                    Attachment::VfDirect(_) => "vf".to_owned(),
                };
                failures.push(problem);
            }
        }
        failures
    }

    fn port_state(&self, uuid: PortUuid, port: &Port) -> PortState {
        let live = self.ports.get(&uuid);
        let (status, reason) = self.port_status(uuid, port, live);
        let mut report = PortState::new(status, reason);
        report.network = Some(port.network);
        report.mac = port.mac();
        report.port_security = Some(port.port_security);
        match &port.attachment {
            Attachment::VhostUser { socket, queues, .. } => {
                report.socket = Some(socket.path(&self.config.vhost.socket_directory));
                report.queues = *queues;
            }
            Attachment::Ethdev { device, .. } => report.device = Some(device.to_string()),
            Attachment::Tap { interface, .. } => report.interface = Some(interface.clone()),
            Attachment::VfDirect(vf) => {
                report.port_security = None;
                report.vf = Some(self.vf_state(uuid, vf));
            }
        }
        match live.map(LivePort::link) {
            Some(Link::Guest { socket, pairs, .. }) => {
                report.queues = *pairs;
                let summary = socket.summary();
                report.features = summary.and_then(|summary| summary.features).unwrap_or_default();
            }
            Some(Link::Tap { .. }) => report.queues = 1,
            Some(Link::Wire { wire, .. }) => {
                report.mac = report.mac.or(wire.mac());
                report.queues = 1;
            }
            _ => {}
        }
        report
    }

    /// A port is ready when its socket is connected and its network is in force; the guest's
    /// driver may start later, as that of a guest does that is started paused.
    pub(super) fn port_status(
        &self,
        uuid: PortUuid,
        port: &Port,
        live: Option<&LivePort>,
    ) -> (Status, Option<String>) {
        let filter = self.filters.port(uuid);
        if let Attachment::VfDirect(vf) = &port.attachment {
            return self.vf_status(uuid, port, vf);
        }
        if !port.admin_up {
            return (Status::Down, Some("admin_up is false".to_owned()));
        }
        if let Some(PortFilter::Closed(reason)) = filter {
            return (Status::Waiting, Some(reason.clone()));
        }
        if self.attached.shut.contains(&uuid) {
            return (Status::Failed, Some(self.unreachable(port)));
        }
        match live.map(LivePort::link) {
            Some(Link::Guest { socket, .. }) => match socket.status().state {
                GuestState::Connected { .. } => (Status::Ready, self.guest_note(port, socket)),
                GuestState::Unconnected { reason } => (Status::Waiting, Some(reason)),
                GuestState::Failed { reason } => (Status::Failed, Some(reason)),
            },
            Some(Link::Wire { wire, .. }) => wire_status(wire),
            Some(Link::Tap { wire, tap, .. }) => self.tap_status(port, wire, tap),
            Some(Link::Waiting { reason, .. }) => (Status::Failed, Some(reason.clone())),
            None => (Status::Failed, Some("this host has as many ports as it can have".to_owned())),
        }
    }
}

impl Switch {
    /// A tap port is ready as soon as its interface is there. What its bridge waits for, and what its
    /// driver cannot do, is told nevertheless.
    fn tap_status(&self, port: &Port, wire: &Wire, tap: &TapHandle) -> (Status, Option<String>) {
        let status = tap.status();
        if let Some(trouble) = status.trouble {
            return (Status::Failed, Some(trouble));
        }
        if status.down {
            return (Status::Down, Some("its interface is down".to_owned()));
        }
        if status.cut {
            return (Status::Down, Some(HELD.to_owned()));
        }
        let wanted = self.desired.networks.get(&port.network).map(|network| network.mtu);
        let short = wanted.filter(|wanted| *wanted > wire.mtu()).map(|wanted| {
            format!("its MTU is {} and not {wanted}: its driver has no longer frames", wire.mtu())
        });
        (Status::Ready, status.missing.or(short))
    }
}

fn wire_status(wire: &Wire) -> (Status, Option<String>) {
    let down = || wire.link().filter(|link| !link.up).map(|_| "its link is down".to_owned());
    match wire.trouble().or_else(down) {
        Some(trouble) => (Status::Down, Some(trouble)),
        None => (Status::Ready, wire.limits()),
    }
}

/// Problems as sentences, for a state's reason.
pub(super) fn join(problems: &[Problem]) -> String {
    let sentence = |problem: &Problem| {
        let Problem { field, what, remedy, .. } = problem;
        if field.is_empty() {
            format!("{what}; {remedy}")
        } else {
            format!("{field}: {what}; {remedy}")
        }
    };
    problems.iter().map(sentence).collect::<Vec<_>>().join(". ")
}
