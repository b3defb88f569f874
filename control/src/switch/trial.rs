//! What would become of a frame: asked by people, answered by the steps that a worker takes.

use std::net::IpAddr;

use dataplane::acl::Direction;
use dataplane::counters::DropReason;
use dataplane::packet::{Packet, Plane};
use dataplane::policy::{is_basic_in, is_basic_out};
use dataplane::snapshot::{Domain, PortId};
use dataplane::trial::Trial;
use vhost::TagEdit;

use super::Switch;
use crate::compile::compile;
use crate::filters::PortFilter;
use crate::frame::{MacBytes, Sketch};
use crate::model::{NetworkUuid, Port};
use crate::show::view::{DeliveryView, JudgementView, PortRef, TrialView};

/// A station that does not matter: what is asked does not depend on it.
const ANYBODY: MacBytes = [2, 0, 0, 0, 0, 1];

impl Switch {
    /// Judges a frame as one that comes from a port, or else as one that is to go to one. Nothing is
    /// sent, learned or counted. Fails with what is to be told if the frame cannot be made.
    pub(crate) fn trial(
        &self,
        from: Option<&PortRef>,
        to: Option<&PortRef>,
        frame: &str,
    ) -> Result<TrialView, String> {
        let sketch: Sketch = frame.parse().map_err(|misfit| format!("the frame: {misfit}"))?;
        let port = from.or(to).ok_or("name a port")?;
        let id = self.id_of(port)?;
        let (source, destination) = match from {
            Some(from) => self.ends(from, &sketch)?,
            None => (ANYBODY, self.mac_of(port).unwrap_or(ANYBODY)),
        };
        let octets = sketch.bytes(source, destination);
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let mut view = TrialView {
            frame: frame.to_owned(),
            octets: hex,
            from: from.cloned(),
            network: None,
            leave: None,
            flooded: false,
            to: Vec::new(),
            passes: false,
        };
        match from {
            Some(from) => self.run(&octets, from, id, &mut view),
            None => {
                let entered = Trial::new(&octets).map(|trial| {
                    let entered = trial.enter(id, &self.snapshot());
                    self.judgement(port, Direction::Ingress, trial.packet(), entered)
                });
                let judgement = entered.unwrap_or_else(dropped);
                view.to = vec![DeliveryView { port: port.clone(), vlan: None, judgement }];
            }
        }
        view.passes = view.to.iter().any(|to| to.judgement.passes);
        Ok(view)
    }

    fn run(&self, octets: &[u8], from: &PortRef, ingress: PortId, view: &mut TrialView) {
        let trial = match Trial::new(octets) {
            Ok(trial) => trial,
            Err(reason) => return view.leave = Some(dropped(reason)),
        };
        let (snapshot, fdb) = (self.snapshot(), self.fdb.learner(self.now()));
        let course = trial.run(ingress, &snapshot, &fdb);
        let left = course.as_ref().map(|_| ()).map_err(|reason| *reason);
        view.leave = Some(self.judgement(from, Direction::Egress, trial.packet(), left));
        let Ok(course) = course else { return };
        let network = self.attached.domains.iter().find(|(_, id)| **id == course.domain.id);
        view.network = network.map(|(uuid, _)| self.network_ref(*uuid));
        view.flooded = course.flooded;
        let ports = self.port_refs();
        let packet = trial.packet();
        view.to = course
            .to
            .into_iter()
            .filter_map(|(to, entered)| {
                let port = ports.get(&to)?.clone();
                let to = (to, port);
                Some(self.delivery(course.domain, to, packet, entered))
            })
            .collect();
    }

    /// What became of a packet at a port that it was to go to.
    pub(super) fn delivery(
        &self,
        domain: &Domain,
        (to, port): (PortId, PortRef),
        packet: &Packet,
        entered: Result<TagEdit, DropReason>,
    ) -> DeliveryView {
        let vlan = match entered {
            Ok(TagEdit::Push(vid)) => Some(vid),
            Ok(TagEdit::Replace(tci)) => Some(tci & 0xfff),
            Ok(TagEdit::Keep) => domain
                .uplink
                .and_then(|(uplink, vid)| vid.filter(|_| uplink == to).map(|vid| vid.number())),
            Ok(TagEdit::Pop) | Err(_) => None,
        };
        let judgement = self.judgement(&port, Direction::Ingress, packet, entered.map(|_| ()));
        DeliveryView { port, vlan, judgement }
    }

    /// What a verdict rests on.
    pub(super) fn judgement(
        &self,
        port: &PortRef,
        direction: Direction,
        packet: &Packet,
        verdict: Result<(), DropReason>,
    ) -> JudgementView {
        let (uuid, desired) = match port {
            PortRef::Port { uuid, .. } => (uuid, self.desired.ports.get(uuid)),
            PortRef::Uplink { .. } => {
                return verdict.map_or_else(dropped, |()| passed("an uplink has no port security"));
            }
        };
        let filter = self.filters.port(*uuid);
        let mut view = match (verdict, filter) {
            (Ok(()), Some(PortFilter::Filtered(_))) => passed(without_rule(direction, packet)),
            (Ok(()), _) => passed("port security is off"),
            (Err(reason), _) => dropped(reason),
        };
        // A closed port is down for a reason of its own.
        if let (Err(DropReason::PortDown), Some(PortFilter::Closed(why))) = (verdict, filter) {
            view.help = Some(format!("The port is closed: {why}."));
        }
        let about_rules = matches!(
            verdict,
            Ok(())
                | Err(DropReason::AclOut | DropReason::AclIn)
                | Err(DropReason::FragmentOut | DropReason::FragmentIn)
        );
        if let (true, Some(PortFilter::Filtered(policy)), Some(compiled)) =
            (about_rules, filter, desired.and_then(|port| self.filters.of(port)))
        {
            let said = policy.acl.judge(direction, packet);
            // What a rule denies may pass all the same: DHCP and neighbour discovery need no rule.
            if let Some(entry) = policy.acl.entry(direction, said)
                && said.permits() == verdict.is_ok()
            {
                view.rule = Some(self.named_rule(compiled, entry));
                view.without_rule = None;
            }
        }
        view
    }

    /// The tables that are published now: they follow from what is in force and attached.
    pub(super) fn snapshot(&self) -> dataplane::snapshot::Snapshot {
        compile(&self.desired, &self.attached, &self.filters, self.fdb.hash())
    }

    pub(super) fn id_of(&self, port: &PortRef) -> Result<PortId, String> {
        let id = match port {
            PortRef::Port { uuid, .. } => self.ports.get(uuid).map(|live| live.id()),
            PortRef::Uplink { physnet } => self.uplinks.get(physnet).map(|uplink| uplink.id()),
        };
        id.ok_or_else(|| "the port is not in force; see `viaduct show errors`".to_owned())
    }

    fn mac_of(&self, port: &PortRef) -> Option<MacBytes> {
        match port {
            PortRef::Port { uuid, .. } => {
                self.desired.ports.get(uuid)?.mac().map(|mac| mac.octets())
            }
            PortRef::Uplink { .. } => None,
        }
    }

    /// The stations that a frame is between.
    fn ends(&self, from: &PortRef, sketch: &Sketch) -> Result<(MacBytes, MacBytes), String> {
        let source = sketch.source_mac().or(self.mac_of(from)).ok_or(
            "the port has no MAC address of its own; write the frame's: `mac 52:54:00:00:00:01`",
        )?;
        if let Some(destination) = sketch.destination_mac() {
            return Ok((source, destination));
        }
        let wanted = sketch.destination();
        let ours = |port: &&Port| self.shares_network(from, port.network);
        let found = wanted.and_then(|wanted| {
            self.desired.ports.values().filter(ours).find_map(|port| station(port, wanted))
        });
        let wanted = wanted.map(|address| address.to_string()).unwrap_or_default();
        let found = found.ok_or_else(|| {
            format!(
                "no port of this host has {wanted} on that network; write the MAC address of the \
                 station or router that the frame is for: `mac > 52:54:00:00:00:02`"
            )
        });
        found.map(|destination| (source, destination))
    }

    fn shares_network(&self, port: &PortRef, network: NetworkUuid) -> bool {
        match port {
            PortRef::Port { uuid, .. } => {
                self.desired.ports.get(uuid).is_some_and(|port| port.network == network)
            }
            PortRef::Uplink { physnet } => {
                let network = self.desired.networks.get(&network);
                network.is_some_and(|network| network.segment.physnet() == Some(physnet))
            }
        }
    }
}

/// The MAC address with which a port has an address.
fn station(port: &Port, wanted: IpAddr) -> Option<MacBytes> {
    let own = port.mac()?;
    if port.fixed_ips.iter().any(|ip| ip.address() == wanted) {
        return Some(own.octets());
    }
    let pair = port.allowed_address_pairs.iter().find(|pair| pair.ip.net().contains(&wanted))?;
    Some(pair.mac.unwrap_or(own).octets())
}

fn passed(without_rule: &str) -> JudgementView {
    let without_rule = Some(without_rule.to_owned());
    JudgementView { passes: true, without_rule, ..JudgementView::default() }
}

pub(super) fn dropped(reason: DropReason) -> JudgementView {
    JudgementView {
        reason: Some(reason.name().to_owned()),
        help: Some(reason.help().trim().to_owned()),
        ..JudgementView::default()
    }
}

/// Why a packet needs no rule.
fn without_rule(direction: Direction, packet: &Packet) -> &'static str {
    let basic = match direction {
        Direction::Egress => is_basic_out(packet),
        Direction::Ingress => is_basic_in(packet),
    };
    match packet {
        Packet::Arp => "ARP needs no rule",
        Packet::Other(_) => "its ethertype is among acl.permitted_ethertypes",
        Packet::V4(_) if basic => "DHCP needs no rule",
        Packet::V6(ip) if basic && ip.transport.plane == Plane::Udp => "DHCPv6 needs no rule",
        Packet::V6(_) if basic => "neighbour and listener discovery need no rule",
        Packet::V4(_) | Packet::V6(_) => "it needs no rule",
    }
}
