//! Which metrics there are. docs/metrics.md lists them for people; a test holds it to this.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::page::{Labels, Page};
use crate::model::VfState;
use crate::show::view::{
    AclView, BondView, ConfigView, DomainView, DropView, FdbStatisticsView, MemoryView, PortKind,
    PortRef, PortView, ReloadOutcome, Side, SourceView, StoreView, Summary, VhostState, VhostView,
    WorkerView,
};

/// What is known at the time of a scrape: the same views as `viaduct show --json` prints.
#[derive(Debug)]
pub struct Figures {
    /// The daemon at a glance.
    pub summary: Summary,
    /// The configuration, and how it was reloaded.
    pub config: ConfigView,
    /// The store.
    pub store: StoreView,
    /// Ports and uplinks.
    pub ports: Vec<PortView>,
    /// Bonds of uplinks.
    pub bonds: Vec<BondView>,
    /// The vhost-user side of ports.
    pub vhost: Vec<VhostView>,
    /// Drops that happened.
    pub drops: Vec<DropView>,
    /// Workers.
    pub workers: Vec<WorkerView>,
    /// Bridge domains.
    pub domains: Vec<DomainView>,
    /// Counts of the forwarding database.
    pub fdb: FdbStatisticsView,
    /// Compiled rules.
    pub acl: Vec<AclView>,
    /// What memory is used for.
    pub memory: MemoryView,
    /// Cycles of the time-stamp counter in a second.
    pub cycles_per_second: u64,
}

impl Figures {
    /// The figures as OpenMetrics text.
    pub(super) fn encode(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail, and no encoding of ours does.
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("figures can be written as text");
        text
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        self.daemon(&mut page)?;
        self.ports(&mut page)?;
        self.bonds(&mut page)?;
        self.guests(&mut page)?;
        self.workers(&mut page)?;
        self.tables(&mut page)?;
        self.memory(&mut page)
    }
}

/// A figure without labels.
fn one<T>(value: T) -> [(Labels, T); 1] {
    [(Labels::new(), value)]
}

/// What tells a port: its UUID, or the physnet of an uplink, and its name.
fn port(port: &PortRef) -> Labels {
    let (id, name) = match port {
        PortRef::Port { uuid, name } => (uuid.to_string(), name.as_ref().map(ToString::to_string)),
        PortRef::Uplink { physnet } => (physnet.to_string(), Some(physnet.to_string())),
    };
    vec![("port", id), ("name", name.unwrap_or_default())]
}

pub(super) fn with(mut labels: Labels, name: &'static str, value: impl ToString) -> Labels {
    labels.push((name, value.to_string()));
    labels
}

pub(super) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

impl Figures {
    fn daemon(&self, page: &mut Page<'_>) -> fmt::Result {
        let Summary { version, host, uptime_seconds, errors, warnings, changed_seconds, .. } =
            &self.summary;
        let labels = vec![("version", version.clone()), ("host", host.to_string())];
        page.gauges("build", "The daemon's version and host; always 1.", [(labels, 1.0)])?;
        page.gauges("uptime_seconds", "Seconds since the start.", one(*uptime_seconds as f64))?;
        let pause = self.summary.taken_over.iter().map(|from| from.pause_us as f64 / 1e6);
        page.gauges(
            "handover_pause_seconds",
            "Seconds in which no frame moved when this process took over from another.",
            pause.map(|pause| (Labels::new(), pause)),
        )?;
        page.gauges(
            "problems",
            "What is wrong, by severity, as `viaduct show errors` tells.",
            [("error", errors), ("warning", warnings)].map(|(severity, count)| {
                (vec![("severity", severity.to_owned())], f64::from(*count))
            }),
        )?;
        let ConfigView { applied, refused, last, .. } = &self.config;
        page.counters(
            "config_reloads",
            "Reloads of the configuration, by what came of them.",
            [("done", applied), ("refused", refused)]
                .map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], *count)),
        )?;
        let refused = last.iter().map(|last| last.outcome == ReloadOutcome::Refused);
        page.gauges(
            "config_last_reload_refused",
            "1 if the last reload was refused, and the former configuration is in force.",
            refused.map(|refused| (Labels::new(), flag(refused))),
        )?;
        page.gauges(
            "config_last_reload_timestamp_seconds",
            "When the configuration was reloaded last, since 1970.",
            last.iter().map(|last| (Labels::new(), last.at.as_second() as f64)),
        )?;
        let store = &self.store;
        page.gauges(
            "store_up",
            "1 if the store is being followed, 0 if it cannot be read.",
            one(flag(!store.away && store.source == SourceView::Store)),
        )?;
        page.gauges(
            "store_revision",
            "The revision of the store that was read last.",
            one(store.revision as f64),
        )?;
        page.gauges(
            "store_values",
            "Desired values that concern this host.",
            one(store.values as f64),
        )?;
        page.gauges(
            "store_held_values",
            "Values that the store lost at once and that are kept in force.",
            one(store.held.len() as f64),
        )?;
        page.counters(
            "store_readings",
            "How often the store was read from the beginning.",
            one(store.readings),
        )?;
        page.gauges(
            "store_reporting",
            "1 if actual state is being reported, 0 if it cannot be.",
            one(flag(store.claimed && store.report_failure.is_none())),
        )?;
        page.counters(
            "store_reported_values",
            "Values of actual state that were written and deleted.",
            one(store.reported),
        )?;
        page.gauges(
            "desired_state_age_seconds",
            "Seconds since desired state last changed here; none before the first change.",
            changed_seconds.iter().map(|seconds| (Labels::new(), *seconds as f64)),
        )
    }

    fn ports(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |value: fn(&PortView) -> u64| {
            self.ports.iter().map(move |view| (port(&view.port), value(view)))
        };
        let ways = |received: fn(&PortView) -> u64, sent: fn(&PortView) -> u64| {
            let ways = [("received", received), ("sent", sent)];
            self.ports.iter().flat_map(move |view| {
                ways.map(|(way, value)| (with(port(&view.port), "direction", way), value(view)))
            })
        };
        page.gauges(
            "port_status",
            "1 for the status that the port is in. The labels tell the port's kind and network too.",
            self.ports.iter().map(|view| {
                let kind = match view.kind {
                    PortKind::Uplink => "uplink",
                    _ if view.device.is_some() => "device",
                    _ => "guest",
                };
                let network = view.network.as_ref().map(|network| network.uuid.to_string());
                let labels = with(port(&view.port), "kind", kind);
                let labels = with(labels, "network", network.unwrap_or_default());
                (with(labels, "status", view.status.word()), 1.0)
            }),
        )?;
        page.counters(
            "port_frames",
            "Frames, received from the port and sent to it.",
            ways(|view| view.received_frames, |view| view.sent_frames),
        )?;
        page.counters(
            "port_bytes",
            "Their bytes, from the MAC addresses on, without the frame check sequence.",
            ways(|view| view.received_bytes, |view| view.sent_bytes),
        )?;
        page.counters(
            "port_drops",
            "Frames dropped at the port, by reason, and whether they came from it (ingress) or were \
             to go to it (egress).",
            self.drops.iter().map(|view| {
                let side = match view.side {
                    Side::Ingress => "ingress",
                    Side::Egress => "egress",
                };
                let labels = with(port(&view.port), "reason", &view.reason);
                (with(labels, "side", side), view.frames)
            }),
        )?;
        page.counters(
            "port_flooded_frames",
            "Frames received from the port that were flooded.",
            each(|view| view.flooded_frames),
        )?;
        page.counters(
            "port_software_checksums",
            "Checksums computed in software for frames sent to the port.",
            each(|view| view.software_checksums),
        )?;
        page.counters(
            "port_software_segments",
            "Segments that frames were cut into in software for the port.",
            each(|view| view.software_segments),
        )?;
        page.counters(
            "port_device_restarts",
            "Times that the port's device was stopped and started again, since its card had been reset \
             or had given it another address.",
            each(|view| view.restarts),
        )?;
        page.gauges(
            "port_learned_addresses",
            "Addresses that are learned behind the port now.",
            self.ports.iter().map(|view| (port(&view.port), f64::from(view.learned))),
        )?;
        self.nics(page)
    }

    fn nics(&self, page: &mut Page<'_>) -> fmt::Result {
        let vfs = |value: fn(&VfState) -> u64| {
            self.ports
                .iter()
                .filter_map(move |view| Some((port(&view.port), value(view.vf.as_ref()?))))
        };
        page.counters(
            "vf_restored_settings",
            "Settings of the port's VF that somebody else changed, and that were put back.",
            vfs(|vf| vf.restored),
        )?;
        page.counters(
            "vf_renewals",
            "Times that the port's VF was set again since it, or its PF, had been made anew.",
            vfs(|vf| vf.renewed),
        )?;
        page.gauges(
            "nic_filters",
            "Addresses behind the switch that VFs of an uplink's NIC are to reach: those that the NIC \
             has a unicast filter for (present), and those for which it has no room (refused).",
            self.ports.iter().flat_map(|view| {
                let filters = view.filters.iter();
                filters.flat_map(|filters| {
                    let counts =
                        [("present", filters.present), ("refused", filters.refused.len() as u32)];
                    counts.map(|(state, count)| {
                        (with(port(&view.port), "state", state), f64::from(count))
                    })
                })
            }),
        )
    }

    fn guests(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauges(
            "guest_connected",
            "1 if a guest's process is connected to the port's socket.",
            self.vhost
                .iter()
                .map(|view| (port(&view.port), flag(view.state != VhostState::Unconnected))),
        )?;
        page.counters(
            "guest_sessions",
            "Sessions of guests' processes since the port was attached.",
            self.vhost.iter().map(|view| (port(&view.port), view.sessions)),
        )?;
        let rings = |value: fn(&crate::show::view::RingView) -> u64| {
            self.vhost.iter().flat_map(move |view| {
                view.rings
                    .iter()
                    .map(move |ring| (with(port(&view.port), "queue", ring.queue), value(ring)))
            })
        };
        page.counters(
            "guest_ring_frames",
            "Frames moved by a ring of the guest; even queues go to it, odd ones come from it.",
            rings(|ring| ring.frames),
        )?;
        page.counters(
            "guest_ring_full",
            "Frames dropped since the guest had made no buffer available.",
            rings(|ring| ring.full),
        )?;
        page.counters(
            "guest_ring_kicks",
            "Interrupts sent to the guest's driver.",
            rings(|ring| ring.kicks),
        )
    }

    fn workers(&self, page: &mut Page<'_>) -> fmt::Result {
        let labels = |view: &WorkerView| {
            vec![("worker", view.number.to_string()), ("core", view.core.to_string())]
        };
        let each = |value: fn(&WorkerView) -> u64| {
            self.workers.iter().map(move |view| (labels(view), value(view)))
        };
        let rate = self.cycles_per_second.max(1) as f64;
        page.fraction_counters(
            "worker_busy_seconds",
            "Seconds that the worker spent on polls that found frames.",
            self.workers.iter().map(|view| (labels(view), view.work.busy_cycles as f64 / rate)),
        )?;
        page.counters(
            "worker_busy_cycles",
            "Cycles of the time-stamp counter spent on polls that found frames.",
            each(|view| view.work.busy_cycles),
        )?;
        page.counters(
            "worker_polls",
            "Iterations of the poll loop.",
            each(|view| view.work.polls),
        )?;
        page.counters("worker_frames", "Frames received.", each(|view| view.work.frames))?;
        page.counters("worker_rests", "Times that it slept.", each(|view| view.work.rests))?;
        page.histograms(
            "worker_burst_frames",
            "Frames in a burst.",
            self.workers.iter().map(|view| {
                // Sizes double from class to class; the last holds the full bursts.
                let bounds = [1.0, 3.0, 7.0, 15.0, 31.0, 63.0, f64::MAX];
                let buckets = bounds.into_iter().zip(view.work.bursts).collect();
                (labels(view), view.work.frames as f64, buckets)
            }),
        )?;
        page.gauges(
            "rxq_load_ratio",
            "What a receive queue took of its worker's core in the last seconds, 0 to 1.",
            self.workers.iter().flat_map(|view| {
                view.rxqs.iter().map(move |rxq| {
                    let labels = with(port(&rxq.port), "queue", rxq.queue);
                    (with(labels, "worker", view.number), rxq.load_percent / 100.0)
                })
            }),
        )
    }

    fn tables(&self, page: &mut Page<'_>) -> fmt::Result {
        let fdb = &self.fdb;
        page.gauges("fdb_entries", "Learned addresses.", one(fdb.entries as f64))?;
        page.gauges("fdb_capacity", "Places for learned addresses.", one(fdb.capacity as f64))?;
        let events = [
            ("learned", fdb.learned),
            ("moved", fdb.moved),
            ("evicted", fdb.evicted),
            ("aged", fdb.aged),
            ("over-quota", fdb.over_quota),
            ("no-room", fdb.no_room),
            ("deferred", fdb.deferred),
            ("damped", fdb.damped),
        ];
        page.counters(
            "fdb_events",
            "What happened to addresses in the forwarding database.",
            events.map(|(event, count)| (vec![("event", event.to_owned())], count)),
        )?;
        page.gauges(
            "domain_learned_addresses",
            "Addresses that are learned in a bridge domain now.",
            self.domains.iter().map(|view| {
                let name = view.network.name.as_ref().map(ToString::to_string);
                let labels = vec![("network", view.network.uuid.to_string())];
                (with(labels, "name", name.unwrap_or_default()), f64::from(view.learned))
            }),
        )?;
        let sum = |value: fn(&AclView) -> f64| self.acl.iter().map(value).sum::<f64>();
        page.gauges(
            "acl_rules",
            "Rules in force as compiled, of all sets of groups.",
            one(sum(|view| view.entries as f64)),
        )?;
        page.gauges(
            "acl_compile_seconds",
            "How long the slowest of the newest compilations took.",
            one(self.acl.iter().map(|view| view.compile_seconds).fold(0.0, f64::max)),
        )?;
        page.gauges(
            "acl_refused_sets",
            "Sets of groups whose newest rules are not in force.",
            one(sum(|view| flag(view.refusal.is_some()))),
        )
    }

    fn memory(&self, page: &mut Page<'_>) -> fmt::Result {
        let MemoryView { resident_bytes, huge_bytes, pool, fdb_bytes, acl_bytes, guests, .. } =
            &self.memory;
        let uses = [
            ("resident", *resident_bytes),
            ("huge-pages", *huge_bytes),
            ("fdb", Some(*fdb_bytes)),
            ("acl", Some(*acl_bytes)),
        ];
        page.gauges(
            "memory_bytes",
            "Memory of the daemon: of its process on ordinary and on huge pages, and within these of \
             tables.",
            uses.into_iter()
                .filter_map(|(what, bytes)| Some((vec![("use", what.to_owned())], bytes? as f64))),
        )?;
        page.gauges("pool_frames", "Buffers for DPDK devices.", one(f64::from(pool.frames)))?;
        page.gauges(
            "pool_free_frames",
            "Those of them that nobody holds.",
            one(f64::from(pool.free_frames)),
        )?;
        page.gauges(
            "pool_unclaimed_frames",
            "Those of them that are set aside for no device and no worker's cache.",
            one(f64::from(pool.unclaimed_frames)),
        )?;
        page.gauges(
            "guest_memory_bytes",
            "Memory of a guest that is mapped.",
            guests.iter().map(|guest| (port(&guest.port), guest.bytes as f64)),
        )
    }
}
