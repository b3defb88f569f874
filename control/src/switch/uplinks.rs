//! Physnets: the devices by which networks leave this host. Opened at start, and tried again as
//! long as they cannot be.
//!
//! A physnet has one device, or several in a bond, which are one port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::port::bond::{Bond, BondPort, BondSource};
use dataplane::port::{Rxq, TxPort};
use dataplane::snapshot::PortId;
use tokio::task::yield_now;

use super::{RETRY, Switch};
use crate::bond::{Hinterland, LacpRecord, Reach, Rules, Settings, Station, Watched, WireStatus};
use crate::config::{BondMode, MONITOR_ALONE_MS, Physnet};
use crate::model::{Devargs, PhysnetName, Status};
use crate::wire::{Ailment, News, Opened, Wire};

/// A physnet's uplink.
pub(super) struct Uplink {
    id: PortId,
    members: Vec<Member>,
    /// What makes one port of the members, if there are several.
    bond: Option<Arc<Bond>>,
    /// Its links, looked at.
    watched: Arc<Watched>,
}

/// A device of an uplink.
pub(super) struct Member {
    device: Devargs,
    state: State,
    /// Times that it was stopped and started again.
    restarts: u64,
}

enum State {
    Open { wire: Arc<Wire>, egress: Arc<dyn TxPort> },
    Waiting { reason: String, again: Instant },
}

impl Uplink {
    pub(super) fn id(&self) -> PortId {
        self.id
    }

    pub(super) fn egress(&self) -> Option<Arc<dyn TxPort>> {
        match self.bond_port() {
            Some(port) => Some(port as Arc<dyn TxPort>),
            None => self.members.first().and_then(Member::egress),
        }
    }

    fn bond_port(&self) -> Option<Arc<BondPort>> {
        let bond = Arc::clone(self.bond.as_ref()?);
        Some(Arc::new(BondPort::new(bond, self.members.iter().map(Member::egress).collect())))
    }

    /// Has its links looked at of the devices that are open now, which are published.
    pub(super) fn published(&self) {
        let wire = |member: &Member| match &member.state {
            State::Open { wire, .. } => Some(Arc::clone(wire)),
            State::Waiting { .. } => None,
        };
        self.watched.published(self.members.iter().map(wire).collect(), self.bond_port());
    }

    /// Takes out the devices that have to be seen to, by the members' numbers. When this is published,
    /// nobody else has them.
    pub(super) fn take_ailing(&mut self, news: &News) -> Vec<(usize, Arc<Wire>, Ailment)> {
        let members = self.members.iter_mut().enumerate();
        let taken = members.filter_map(|(at, member)| {
            let ailment = member.wire().ok()?.ailment(news)?;
            let (reason, again) = (ailment.to_string(), Instant::now() + RETRY);
            match std::mem::replace(&mut member.state, State::Waiting { reason, again }) {
                State::Open { wire, .. } => Some((at, wire, ailment)),
                State::Waiting { .. } => None,
            }
        });
        taken.collect()
    }

    /// Puts a member's device back that was seen to. Returns its queues as those of the uplink.
    pub(super) fn put_back(
        &mut self,
        at: usize,
        wire: Wire,
        egress: Arc<dyn TxPort>,
        rxqs: Vec<Rxq>,
    ) -> Vec<Rxq> {
        self.members[at].state = State::Open { wire: Arc::new(wire), egress };
        self.members[at].restarts += 1;
        rxqs.into_iter().map(|rxq| self.of_member(at, rxq)).collect()
    }

    /// What a member receives, as what the uplink does. The queue's number in a bond is the member's.
    fn of_member(&self, at: usize, rxq: Rxq) -> Rxq {
        match &self.bond {
            Some(bond) => {
                let source = BondSource::new(Arc::clone(bond), at, rxq.source);
                Rxq::new(rxq.port, at as u16, Box::new(source))
            }
            None => rxq,
        }
    }

    /// What makes one port of several devices, if there are several.
    pub(super) fn bond(&self) -> Option<&Arc<Bond>> {
        self.bond.as_ref()
    }

    /// Its devices.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The device, or the first of a bond's that is open.
    pub(super) fn wire(&self) -> Option<&Wire> {
        self.members.iter().find_map(|member| member.wire().ok())
    }

    /// Its links, as they were when they were looked at last.
    pub(super) fn links(&self) -> WireStatus {
        self.watched.status()
    }

    /// Why a member carries nothing of what LACP has others carry, though its link is up.
    fn disagreement(&self, links: &WireStatus) -> Option<String> {
        let ports = self.members.iter().zip(&links.lacp.as_ref()?.ports);
        let mut whys = ports.filter_map(|(member, port)| Some((member, port.why.as_ref()?)));
        let (member, why) = whys.next()?;
        Some(format!("`{}` does not carry by LACP: {why}", member.device))
    }

    /// What the next process has to know to go on with LACP as if it were this one.
    pub(super) fn lacp_record(&self) -> Option<LacpRecord> {
        self.watched.record()
    }

    /// Goes on with LACP as another process did.
    pub(super) fn resume_lacp(&self, record: LacpRecord) {
        self.watched.resume(record);
    }

    /// How it is named where a device is.
    pub(super) fn device(&self) -> String {
        let devices = self.members.iter().map(|member| member.device.to_string());
        devices.collect::<Vec<_>>().join(" ")
    }

    /// Frames that came by members of a bond that were not to be heard.
    pub(super) fn ignored(&self) -> u64 {
        let members = 0..self.members.len();
        self.bond.as_ref().map_or(0, |bond| members.map(|member| bond.ignored(member)).sum())
    }

    /// Times that its devices were stopped and started again.
    pub(super) fn restarts(&self) -> u64 {
        self.members.iter().map(|member| member.restarts).sum()
    }

    /// Whether nothing can leave by it.
    pub(super) fn is_dead(&self) -> bool {
        self.wire().is_none() || self.links().dead
    }

    pub(super) fn status(&self) -> (Status, Option<String>) {
        let failed: Vec<&str> =
            self.members.iter().filter_map(|member| member.wire().err()).collect();
        if failed.len() == self.members.len() {
            return (Status::Failed, Some(failed.join(". ")));
        }
        let links = self.links();
        let down = self.members.iter().zip(&links.members);
        let down = down.filter(|(_, its)| its.link == Some(crate::bond::Link::Down));
        let down: Vec<_> = down.map(|(member, _)| format!("`{}`", member.device)).collect();
        let mut troubles = self.members.iter().filter_map(|member| member.wire().ok()?.trouble());
        let trouble = troubles.next();
        // Before the link was looked at the next time, its card may be known to be down.
        let dead = links.dead || self.bond.is_none() && trouble.is_some();
        let reason = trouble.or_else(|| match (&self.bond, &down[..]) {
            (None, []) => None,
            (None, _) => Some("its link is down".to_owned()),
            (Some(_), []) => failed
                .first()
                .map(|reason| (*reason).to_owned())
                .or_else(|| self.disagreement(&links)),
            (Some(_), [one]) => Some(format!("the link of {one} is down")),
            (Some(_), many) => Some(format!("the links of {} are down", many.join(" and "))),
        });
        let limits = || self.wire().and_then(Wire::limits);
        (if dead { Status::Down } else { Status::Ready }, reason.or_else(limits))
    }
}

impl Member {
    pub(super) fn device(&self) -> &Devargs {
        &self.device
    }

    /// The open device, or why it is not open.
    pub(super) fn wire(&self) -> Result<&Wire, &str> {
        match &self.state {
            State::Open { wire, .. } => Ok(wire),
            State::Waiting { reason, .. } => Err(reason),
        }
    }

    fn egress(&self) -> Option<Arc<dyn TxPort>> {
        match &self.state {
            State::Open { egress, .. } => Some(Arc::clone(egress)),
            State::Waiting { .. } => None,
        }
    }
}

impl Switch {
    /// Gives each configured physnet a number that has none yet, and the others their settings.
    pub(super) fn add_uplinks(&mut self) {
        for (name, physnet) in &self.config.physnets {
            if let Some(uplink) = self.uplinks.get(name) {
                uplink.watched.set(settings(physnet));
                continue;
            }
            let Some(id) = self.port_numbers.take().and_then(PortId::new) else {
                tracing::error!(physnet = %name, "no port number is left for the physnet");
                continue;
            };
            let devices = physnet.devices().to_vec();
            let bond = physnet.bond.as_ref().map(|_| Bond::new(devices.len()));
            let reach = bond.as_ref().map(|bond| Reach {
                bond: Arc::clone(bond),
                port: id,
                lane: self.config.workers.cores.len(),
                fdb: Arc::clone(&self.fdb),
                clock: self.clock,
            });
            let watched = Watched::new(name.clone(), devices.clone(), reach, settings(physnet));
            self.monitor.follow(Arc::clone(&watched));
            let waiting = || State::Waiting { reason: String::new(), again: Instant::now() };
            let member = |device| Member { device, state: waiting(), restarts: 0 };
            let members = devices.into_iter().map(member).collect();
            self.uplinks.insert(name.clone(), Uplink { id, members, bond, watched });
            if self.engine.is_none() {
                // It will be opened in a moment. What is known to be behind it must not be flooded to
                // the guests of its networks until then.
                self.attached.uplinks.insert(name.clone(), id);
            }
        }
    }

    /// Opens devices of uplinks whose time has come. Returns whether any was opened.
    pub(super) async fn open_uplinks(&mut self) -> bool {
        let mut left = self.left();
        let Some(engine) = self.engine.as_ref().filter(|_| !self.held) else { return false };
        let mut any = false;
        for (name, uplink) in &mut self.uplinks {
            let physnet = &self.config.physnets[name];
            for at in 0..uplink.members.len() {
                let Member { device, state, .. } = &mut uplink.members[at];
                let State::Waiting { reason: before, again } = state else { continue };
                if *again > Instant::now() {
                    continue;
                }
                // Control sends by a bond too, and had better not wait for a worker, or one for it.
                let senders = self.config.workers.cores.len() + usize::from(uplink.bond.is_some());
                let (id, mtu) = (uplink.id, physnet.mtu);
                // A card takes seconds, of which the watchdog has to hear that they are not lost.
                yield_now().await;
                match Wire::open(engine, device, id, mtu, senders, &mut left) {
                    Ok(Opened { wire, rxqs, egress }) => {
                        tracing::info!(physnet = %name, device = %device, driver = wire.driver(), "opened the uplink");
                        for shortfall in wire.shortfalls() {
                            tracing::warn!(physnet = %name, "{shortfall}");
                        }
                        *state = State::Open { wire: Arc::new(wire), egress };
                        for rxq in rxqs {
                            self.crew.attach(uplink.of_member(at, rxq)).await;
                        }
                        self.attached.uplinks.insert(name.clone(), id);
                        any = true;
                    }
                    Err(reason) => {
                        if *before != reason {
                            tracing::error!(physnet = %name, "{reason}");
                        }
                        *state = State::Waiting { reason, again: Instant::now() + RETRY };
                        if uplink.wire().is_none() {
                            any |= self.attached.uplinks.remove(name).is_some();
                        }
                    }
                }
            }
        }
        any
    }

    /// Lets each bond know what is behind it, as it is to be announced when another member carries.
    pub(super) fn survey(&self) {
        let bonds = || self.uplinks.iter().filter(|(_, uplink)| uplink.bond.is_some());
        if bonds().next().is_none() {
            return;
        }
        let mut lands: BTreeMap<&PhysnetName, Hinterland> =
            bonds().map(|(name, _)| (name, Hinterland::default())).collect();
        for (uuid, id) in &self.attached.domains {
            let Some(segment) = self.desired.networks.get(uuid).map(|it| &it.segment) else {
                continue;
            };
            if let Some(land) = segment.physnet().and_then(|name| lands.get_mut(name)) {
                land.domains.insert(*id, segment.vlan().map(|vlan| vlan.number()));
            }
        }
        for (uuid, port) in &self.desired.ports {
            let segment = self.desired.networks.get(&port.network).map(|it| &it.segment);
            let Some(segment) = segment else { continue };
            let land = segment.physnet().and_then(|name| lands.get_mut(name));
            let (Some(land), Some(mac)) = (land, port.mac()) else { continue };
            // The guest of a port that is not ready may be elsewhere still, and reached there.
            if self.port_status(*uuid, port, self.ports.get(uuid)).0 != Status::Ready {
                continue;
            }
            let vlan = segment.vlan().map(|vlan| vlan.number());
            let ip = port.fixed_ips.iter().find_map(|ip| v4(ip.address()));
            land.stations.insert(Station { vlan, mac: mac.octets(), ip });
        }
        for (name, land) in lands {
            if let Some(uplink) = self.uplinks.get(name) {
                uplink.watched.know(land);
            }
        }
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// How a physnet's links are to be looked at, and what is to follow.
fn settings(physnet: &Physnet) -> Settings {
    let millis = |millis: u32| Duration::from_millis(millis.into());
    match &physnet.bond {
        Some(bond) => Settings {
            rules: Rules {
                mode: bond.mode,
                primary: bond.primary_at(),
                up_delay: millis(bond.up_delay_ms),
            },
            lacp: bond.lacp(),
            interval: millis(bond.monitor_ms),
        },
        None => Settings {
            rules: Rules { mode: BondMode::ActiveBackup, primary: None, up_delay: Duration::ZERO },
            lacp: None,
            interval: millis(MONITOR_ALONE_MS),
        },
    }
}
