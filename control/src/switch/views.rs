//! What `viaduct show` gets to see of the switch.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use dataplane::clock::cycles;
use dataplane::counters::{DropReason, PortTotals, Side};
use dataplane::snapshot::{DomainId, PortId};

use super::Switch;
use super::ports::LivePort;
use super::uplinks::Uplink;
use crate::crew::{Assigned, Rota};
use crate::model::{Attachment, Mac, Network, NetworkUuid, PortUuid, Status};
use crate::show::view::{
    BalanceView, Counts, DomainView, DropView, FdbEntryView, FdbOrigin, FdbStatisticsView, FdbView,
    MoveView, NetworkRef, PortKind, PortRef, PortSecurity, PortView, RebalanceView, RxqView, Work,
    WorkerView,
};
use crate::show::{rounded, view};

impl Switch {
    /// Seconds since the start.
    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// All ports, uplinks first.
    pub(crate) fn port_views(&self) -> Vec<PortView> {
        let pollers = self.pollers();
        let uplinks = self.uplinks.iter().map(|(name, uplink)| {
            let (status, reason) = uplink.status();
            let id = uplink.id();
            let wire = uplink.wire();
            let view = PortView {
                number: Some(id.index() as u16),
                mac: wire.and_then(|wire| wire.mac()),
                reason,
                admin_up: true,
                device: Some(uplink.device()),
                queues: uplink.members().len() as u16,
                filters: self.filter_state(name),
                restarts: uplink.restarts(),
                ..bare_view(PortRef::Uplink { physnet: name.clone() }, PortKind::Uplink, status)
            };
            self.with_counts(view, id, &pollers)
        });
        let ports = self.desired.ports.iter().map(|(uuid, port)| {
            let live = self.ports.get(uuid);
            let (status, reason) = self.port_status(*uuid, port, live);
            let directory = &self.config.vhost.socket_directory;
            let (queues, device) = match &port.attachment {
                Attachment::VhostUser { queues, .. } => (*queues, None),
                Attachment::Ethdev { device, .. } => (1, Some(device.to_string())),
                Attachment::Tap { .. } => (1, None),
                Attachment::VfDirect(_) => (0, None),
            };
            let vf = match &port.attachment {
                Attachment::VfDirect(vf) => Some(self.vf_state(*uuid, vf)),
                _ => None,
            };
            let interface = match &port.attachment {
                Attachment::Tap { interface, .. } => Some(interface.clone()),
                _ => None,
            };
            let view = PortView {
                number: live.map(|live| live.id().index() as u16),
                network: Some(self.network_ref(port.network)),
                mac: port.mac(),
                reason,
                admin_up: port.admin_up,
                port_security: match vf {
                    Some(_) => None,
                    None => self.filters.port(*uuid).map(PortSecurity::from),
                },
                socket: port.socket_path(directory),
                device,
                interface,
                mirror: self.mirror_view(port),
                vf,
                queues,
                restarts: live.map_or(0, LivePort::restarts),
                ..bare_view(self.port_ref(*uuid), PortKind::from(&port.attachment), status)
            };
            match live {
                Some(live) => self.with_counts(view, live.id(), &pollers),
                None => view,
            }
        });
        let refused = self
            .desired
            .refused_ports(&self.config.host)
            .map(|(uuid, problems)| refused_view(uuid, super::report::join(problems)));
        uplinks.chain(ports).chain(refused).collect()
    }

    /// The bridge domains: networks with a port here.
    pub(crate) fn domain_views(&self) -> Vec<DomainView> {
        let mut learned = BTreeMap::<DomainId, u32>::new();
        for entry in self.fdb.entries(self.now()) {
            *learned.entry(entry.domain).or_default() += 1;
        }
        let view = |(uuid, network): (NetworkUuid, &Network)| {
            let number = self.attached.domains.get(&uuid).copied();
            let physnet = network.segment.physnet().filter(|name| self.uplinks.contains_key(*name));
            let uplink = physnet.map(|name| PortRef::Uplink { physnet: name.clone() });
            let ports = self.desired.ports.iter();
            let ports = ports.filter(|(_, port)| port.network == uuid && port.is_switched());
            DomainView {
                network: self.network_ref(uuid),
                number: number.map(|id| id.index() as u16),
                segment: (&network.segment).into(),
                mtu: network.mtu,
                learning: network.learning,
                flooding: network.flooding,
                members: uplink
                    .into_iter()
                    .chain(ports.map(|(uuid, _)| self.port_ref(*uuid)))
                    .collect(),
                learned: number.and_then(|id| learned.get(&id).copied()).unwrap_or(0),
            }
        };
        crate::compile::used_networks(&self.desired).map(view).collect()
    }

    /// The forwarding database, of one network or all.
    pub(crate) fn fdb_view(&self, network: Option<NetworkUuid>) -> FdbView {
        let now = self.now();
        let networks: BTreeMap<DomainId, NetworkUuid> =
            self.attached.domains.iter().map(|(uuid, id)| (*id, *uuid)).collect();
        let ports = self.port_refs();
        let learned = self.fdb.entries(now).into_iter().filter_map(|entry| {
            Some(FdbEntryView {
                network: self.network_ref(*networks.get(&entry.domain)?),
                mac: Mac::new(entry.mac.bytes()).ok()?,
                port: ports.get(&entry.port)?.clone(),
                age_seconds: Some(now.saturating_sub(entry.seen_seconds)),
                origin: FdbOrigin::Learned,
            })
        });
        let switched = self.desired.ports.iter().filter(|(_, port)| port.is_switched());
        let fixed = switched.filter_map(|(uuid, port)| {
            Some(FdbEntryView {
                network: self.network_ref(port.network),
                mac: port.mac()?,
                port: self.port_ref(*uuid),
                age_seconds: None,
                origin: FdbOrigin::Static,
            })
        });
        let mut entries: Vec<_> = fixed
            .chain(learned)
            .filter(|entry| network.is_none_or(|uuid| entry.network.uuid == uuid))
            .collect();
        entries.sort_by(|a, b| (&a.network, a.mac).cmp(&(&b.network, b.mac)));
        FdbView { statistics: self.fdb_statistics(), entries }
    }

    /// Counts of the forwarding database.
    pub(crate) fn fdb_statistics(&self) -> FdbStatisticsView {
        let statistics = self.fdb.statistics();
        FdbStatisticsView {
            entries: statistics.entries as u64,
            capacity: statistics.capacity as u64,
            huge_pages: statistics.huge_pages,
            learned: statistics.learned,
            moved: statistics.moved,
            evicted: statistics.evicted,
            aged: statistics.aged,
            over_quota: statistics.over_quota,
            no_room: statistics.no_room,
            deferred: statistics.deferred,
            damped: statistics.damped,
        }
    }

    /// Cycles of the time-stamp counter in a second.
    pub(crate) fn cycles_per_second(&self) -> u64 {
        self.clock.rate()
    }

    /// The workers.
    pub(crate) fn worker_views(&self) -> Vec<WorkerView> {
        let refs = self.port_refs();
        let sleep = self.config.workers.sleep_max().map(|max| max.as_micros() as u32);
        let elapsed = self.started.elapsed().as_secs_f64() * self.clock.rate() as f64;
        let now = cycles();
        let rxq = |assigned: &Assigned| {
            let recent = assigned.load.recent(now);
            let ratio =
                |part: u64, whole: u64| (whole > 0).then(|| rounded(part as f64 / whole as f64));
            Some(RxqView {
                port: refs.get(&assigned.port)?.clone(),
                queue: assigned.queue,
                cores: self.crew.kept_to(assigned.port).to_vec(),
                frames: assigned.load.frames(),
                seconds: self.seconds(recent.passed),
                load_percent: rounded(recent.share() * 100.0),
                cycles_per_frame: ratio(recent.cycles, recent.frames),
                burst_mean: ratio(recent.frames, recent.bursts),
            })
        };
        let view = |(number, core, counters, queues): (usize, u32, &_, &[Assigned])| {
            let counters: &dataplane::counters::WorkerCounters = counters;
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let work = Work {
                cycles: elapsed as u64,
                busy_cycles: read(&counters.busy_cycles),
                polls: read(&counters.polls),
                busy_polls: read(&counters.busy_polls),
                frames: read(&counters.frames),
                rests: read(&counters.rests),
                bursts: std::array::from_fn(|class| read(&counters.bursts[class])),
            };
            let rxqs = queues.iter().filter_map(rxq).collect();
            WorkerView::new(number as u16, core, sleep, rxqs, work)
        };
        self.crew.workers().map(view).collect()
    }

    /// Gives receive queues to workers by what they cost lately, unless it is only to be told how.
    pub(crate) async fn rebalance(&mut self, dry_run: bool) -> RebalanceView {
        let now = cycles();
        let seconds = self.crew.workers().flat_map(|(_, _, _, queues)| queues);
        let seconds = seconds.map(|it| it.load.recent(now).passed).max().unwrap_or(0);
        let Rota { before, after, transfers } = self.crew.plan(now);
        let refs = self.port_refs();
        let percent = |share: f64| rounded(share * 100.0);
        let numbers: Vec<u16> = self.crew.workers().map(|(number, ..)| number as u16).collect();
        let workers = self.crew.workers().enumerate().map(|(at, (number, core, ..))| BalanceView {
            number: number as u16,
            core,
            before_percent: percent(before[at]),
            after_percent: percent(after[at]),
        });
        let moves = transfers.iter().filter_map(|it| {
            Some(MoveView {
                port: refs.get(&it.port)?.clone(),
                queue: it.queue,
                from: numbers[it.from],
                to: numbers[it.to],
                load_percent: percent(it.share),
            })
        });
        let view = RebalanceView {
            done: !dry_run,
            seconds: self.seconds(seconds),
            workers: workers.collect(),
            moves: moves.collect(),
        };
        if !dry_run {
            for transfer in transfers {
                self.crew.transfer(transfer).await;
            }
            tracing::info!(moved = view.moves.len(), "rebalanced the receive queues");
        }
        view
    }

    fn seconds(&self, cycles: u64) -> f64 {
        rounded(cycles as f64 / self.clock.rate() as f64)
    }

    /// Drops, by port and reason.
    pub(crate) fn drop_views(&self) -> Vec<DropView> {
        let mut views = Vec::new();
        for (id, port) in self.port_refs() {
            let totals = self.totals(id);
            for &reason in DropReason::ALL {
                let frames = totals.dropped(reason);
                if frames > 0 {
                    views.push(DropView {
                        port: port.clone(),
                        reason: reason.name().to_owned(),
                        side: match reason.side() {
                            Side::Ingress => view::Side::Ingress,
                            Side::Egress => view::Side::Egress,
                        },
                        frames,
                        help: reason.help().trim().to_owned(),
                    });
                }
            }
        }
        views
    }

    /// Ports and uplinks by status.
    pub(crate) fn counts(&self) -> (Counts, Counts) {
        let (mut ports, mut uplinks) = (Counts::default(), Counts::default());
        for view in self.port_views() {
            let counts = if view.kind == PortKind::Uplink { &mut uplinks } else { &mut ports };
            *match view.status {
                Status::Ready => &mut counts.ready,
                Status::Waiting => &mut counts.waiting,
                Status::Down => &mut counts.down,
                Status::Refused => &mut counts.refused,
                Status::Failed => &mut counts.failed,
            } += 1;
        }
        (ports, uplinks)
    }

    pub(super) fn now(&self) -> u32 {
        self.clock.seconds(cycles())
    }

    fn totals(&self, port: PortId) -> PortTotals {
        let mut totals = PortTotals::default();
        for counters in self.crew.counters() {
            totals.add(&counters.port(port));
        }
        // A bond counts these itself: no worker gets to see them.
        let uplink = self.uplinks.values().find(|uplink| uplink.id() == port);
        totals.drops[DropReason::InactiveMember as usize] += uplink.map_or(0, Uplink::ignored);
        totals
    }

    fn with_counts(
        &self,
        view: PortView,
        id: PortId,
        pollers: &BTreeMap<PortId, Vec<u16>>,
    ) -> PortView {
        let totals = self.totals(id);
        PortView {
            workers: pollers.get(&id).cloned().unwrap_or_default(),
            received_frames: totals.received_frames,
            received_bytes: totals.received_bytes,
            sent_frames: totals.sent_frames,
            sent_bytes: totals.sent_bytes,
            dropped_frames: totals.drops.iter().sum(),
            flooded_frames: totals.flooded,
            software_checksums: totals.checksums,
            software_segments: totals.segments,
            learned: self.fdb.addresses_of(id),
            ..view
        }
    }

    /// Which workers poll each port.
    fn pollers(&self) -> BTreeMap<PortId, Vec<u16>> {
        let mut pollers = BTreeMap::<PortId, Vec<u16>>::new();
        for (number, _, _, queues) in self.crew.workers() {
            for assigned in queues {
                let workers = pollers.entry(assigned.port).or_default();
                if workers.last() != Some(&(number as u16)) {
                    workers.push(number as u16);
                }
            }
        }
        pollers
    }

    pub(super) fn port_ref(&self, uuid: PortUuid) -> PortRef {
        let name = self.desired.ports.get(&uuid).and_then(|port| port.name.clone());
        PortRef::Port { uuid, name }
    }

    pub(super) fn port_refs(&self) -> BTreeMap<PortId, PortRef> {
        let uplinks = self
            .uplinks
            .iter()
            .map(|(name, uplink)| (uplink.id(), PortRef::Uplink { physnet: name.clone() }));
        let ports = self.ports.iter().map(|(uuid, live)| (live.id(), self.port_ref(*uuid)));
        uplinks.chain(ports).collect()
    }

    pub(super) fn network_ref(&self, uuid: NetworkUuid) -> NetworkRef {
        let name = self.desired.networks.get(&uuid).and_then(|network| network.name.clone());
        NetworkRef { uuid, name }
    }
}

/// A port that is in no force: what is wrong with it is all there is to show.
fn refused_view(uuid: PortUuid, reason: String) -> PortView {
    let port = PortRef::Port { uuid, name: None };
    PortView { reason: Some(reason), ..bare_view(port, PortKind::Unknown, Status::Refused) }
}

/// A port of which nothing else is known.
fn bare_view(port: PortRef, kind: PortKind, status: Status) -> PortView {
    PortView {
        port,
        kind,
        number: None,
        network: None,
        mac: None,
        status,
        reason: None,
        admin_up: false,
        port_security: None,
        mirror: None,
        socket: None,
        device: None,
        interface: None,
        vf: None,
        filters: None,
        restarts: 0,
        queues: 0,
        workers: Vec::new(),
        received_frames: 0,
        received_bytes: 0,
        sent_frames: 0,
        sent_bytes: 0,
        dropped_frames: 0,
        flooded_frames: 0,
        software_checksums: 0,
        software_segments: 0,
        learned: 0,
    }
}
