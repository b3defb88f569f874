//! The switch as the control thread holds it: what is attached, and how desired state changes that.
//!
//! [`Switch::apply`] takes desired state and applies the difference to what is there. Its order is
//! always safe: what goes is unpublished, then its queues are taken from the workers, then it is
//! closed; what comes is opened and published, then its queues are given to workers. What did
//! not change is not touched.

mod acl;
mod ahead;
mod bonds;
mod devices;
mod explain;
mod guests;
mod handover;
mod keep;
mod memory;
mod mirrors;
mod nics;
mod ports;
mod report;
mod trial;
mod uplinks;
pub(crate) mod views;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::clock::{Clock, Stopwatch, cycles};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::idle::IdlePolicy;
use dataplane::port::TxPort;
use dataplane::snapshot::{DOMAINS_MAX, DomainId, PORTS_MAX, Plan, PortId};
use vhost::Device;

use crate::bond::Monitor;
use crate::compile::{Attached, compile, used_networks};
use crate::config::Config;
use crate::crew::{Crew, CrewError, Pins};
use crate::early::EarlySockets;
use crate::engine::{Engine, EngineError, Ignition};
use crate::filters::Filters;
use crate::guest::GuestHandle;
use crate::learned::Learned;
use crate::model::{Desired, NetworkUuid, PhysnetName, PortUuid};
use crate::nic::VfKeeper;
use crate::notify::Heart;
use crate::numbers::Numbers;
pub(crate) use ahead::Ahead;
pub(crate) use handover::Given;
use keep::{Keeping, keep_last};
use ports::LivePort;
use uplinks::Uplink;
pub(crate) use watch::WatchOrder;
use watch::Watches;

/// How long to wait before a device that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often addresses that were not heard are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// See the [module's head](self).
pub(crate) struct Switch {
    config: Config,
    /// DPDK, as soon as it runs. Until then devices wait, and guests do not.
    engine: Option<Engine>,
    fdb: Arc<Fdb>,
    clock: Clock,
    crew: Crew,
    started: Instant,
    swept: Instant,
    desired: Desired,
    filters: Filters,
    attached: Attached,
    port_numbers: Numbers,
    domain_numbers: Numbers,
    ports: BTreeMap<PortUuid, LivePort>,
    uplinks: BTreeMap<PhysnetName, Uplink>,
    /// What looks at the uplinks' links.
    monitor: Monitor,
    /// Guests whose ports are not known yet, if they are to be connected.
    early: Option<EarlySockets>,
    watches: Watches,
    /// Keeps VFs and PFs set, if there is anything to be kept.
    nics: Option<VfKeeper>,
    /// Learned addresses that are kept over a restart, if they are.
    keeping: Option<Keeping>,
    /// Desired state was read once.
    applied: bool,
    /// Another process still has the workers' cores, the guests and the devices: all is prepared and
    /// nothing begins.
    held: bool,
    /// Guests that are there already, until their ports are opened: handed over by another process, or
    /// connected while DPDK started.
    handed: BTreeMap<PortUuid, (Arc<Device>, GuestHandle)>,
    /// Addresses that it has learned.
    told: Option<Learned>,
}

/// Why the switch could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// DPDK.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The workers.
    #[error(transparent)]
    Crew(#[from] CrewError),
    /// The thread that looks at links.
    #[error("starting the thread that looks at links: {0}")]
    Monitor(std::io::Error),
}

impl Switch {
    /// Starts the workers. Nothing is switched yet, and devices wait for [`ignite`](Self::ignite).
    pub(crate) async fn start(
        config: Config,
        stopwatch: Stopwatch,
        ahead: Ahead,
    ) -> Result<Self, StartError> {
        Self::begin_with(config, stopwatch, None, ahead, false).await
    }

    /// Waits until DPDK runs, and opens devices. Guests are served meanwhile.
    pub(crate) async fn ignite(&mut self, ignition: Ignition) -> Result<(), StartError> {
        let engine = ignition.done().await?;
        self.crew.register(engine.eal).await?;
        self.engine = Some(engine);
        self.open_and_publish(false).await;
        self.tell_guests();
        Ok(())
    }

    async fn begin_with(
        config: Config,
        stopwatch: Stopwatch,
        engine: Option<Engine>,
        ahead: Ahead,
        held: bool,
    ) -> Result<Self, StartError> {
        let eal = engine.as_ref().map(|engine| engine.eal);
        let fdb = Arc::new(Fdb::new(FdbOptions {
            entries: config.fdb.entries as usize,
            ageing_seconds: config.fdb.ageing_seconds,
            port_quota: config.fdb.port_quota,
            domain_quota: config.fdb.domain_quota,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
        }));
        // What an earlier daemon learned was heard before this clock began.
        let clock = stopwatch.clock().set_on(config.fdb.ageing_seconds);
        let crew = Crew::start(eal, &config.workers.cores, idle(&config), &fdb, clock, held)?;
        let now = Instant::now();
        let monitor = Monitor::start().map_err(StartError::Monitor)?;
        let early = EarlySockets::start(&config.vhost);
        let keeping = Keeping::of(&config);
        let mut switch = Self {
            config,
            engine,
            fdb,
            clock,
            crew,
            started: now,
            swept: now,
            desired: Desired::default(),
            filters: ahead.filters,
            attached: Attached::default(),
            port_numbers: Numbers::below(PORTS_MAX),
            domain_numbers: Numbers::below(DOMAINS_MAX),
            ports: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            monitor,
            early,
            watches: Watches::default(),
            nics: None,
            keeping,
            applied: false,
            held,
            handed: ahead.guests,
            told: None,
        };
        switch.add_uplinks();
        if !switch.held {
            switch.want_of_nics();
        }
        switch.crew.keep(switch.pins()).await;
        // Frames that come in before there is any network are told from those of a port that is down.
        switch.open_and_publish(true).await;
        Ok(switch)
    }

    /// Lets another configuration hold, of which nothing needs a restart; desired state is to be
    /// applied after it. An error changes nothing.
    pub(crate) async fn reconfigure(&mut self, config: Config) -> Result<(), CrewError> {
        let has = |cores: &[u32], of: &[u32]| -> Vec<u32> {
            cores.iter().copied().filter(|core| !of.contains(core)).collect()
        };
        let (before, now) = (&self.config.workers.cores, &config.workers.cores);
        let (leaving, coming) = (has(before, now), has(now, before));
        self.crew.idle(idle(&config));
        if let Err(error) = self.crew.enlist(&coming) {
            self.crew.idle(idle(&self.config));
            return Err(error);
        }
        self.crew.dismiss(&leaving).await;
        let fdb = &config.fdb;
        self.fdb.limit(fdb.ageing_seconds, fdb.port_quota, fdb.domain_quota);
        self.config = config;
        self.add_uplinks();
        Ok(())
    }

    /// DPDK, if devices may be opened: it runs, and no other process has them.
    fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref().filter(|_| !self.held)
    }

    /// Whether devices may be opened, and not guests alone.
    pub(crate) fn is_complete(&self) -> bool {
        self.engine().is_some()
    }

    /// The machine's configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What shows that the workers live.
    pub(crate) fn hearts(&self) -> Vec<Heart> {
        self.crew.hearts()
    }

    /// What is in force.
    pub(crate) fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Puts desired state in force. See the [module's head](self) for the order.
    pub(crate) async fn apply(&mut self, desired: Desired) {
        // First of all, what ports may send and be sent: none is published before it is known.
        let desired = self.compile_filters(desired).await;
        let moved: Vec<_> = self.moved_ports(&desired).collect();
        let closing = self.take_closing(&desired);
        let departing = self.renumber_domains(&desired);
        self.desired = desired;
        self.applied = true;
        self.add_ports();
        if !self.held {
            self.want_of_nics();
        }
        self.recall();
        self.limit_mtus();

        // Whatever goes is gone from the workers' view before anything of it is taken apart.
        if !closing.is_empty() || !departing.is_empty() || !moved.is_empty() {
            self.publish().await;
        }
        for port in moved {
            self.fdb.flush_port(port);
        }
        for (uuid, port) in closing {
            self.close(uuid, port).await;
        }
        for domain in departing {
            self.fdb.flush_domain(domain);
            self.domain_numbers.give_back(domain.index());
        }
        self.crew.keep(self.pins()).await;
        self.open_and_publish(true).await;
        self.tell_guests();
        if !self.held {
            // Whose ports have gone meanwhile.
            self.handed.clear();
        }
    }

    /// Compiles the rules of desired state, beside this thread, which has guests to serve.
    async fn compile_filters(&mut self, desired: Desired) -> Desired {
        let mut filters = std::mem::take(&mut self.filters);
        let limits = self.config.acl.clone();
        let compiling = tokio::task::spawn_blocking(move || {
            filters.update(&desired, &limits);
            (desired, filters)
        });
        let (desired, filters) = compiling.await.expect("compiling ends");
        self.filters = filters;
        desired
    }

    /// What is due now and then: devices that failed are tried again, old addresses forgotten.
    pub(crate) async fn tick(&mut self) {
        self.tend_devices().await;
        self.close_removed().await;
        self.update_early().await;
        self.attach_late_queues().await;
        self.tend_vfs();
        self.shut_unreachable().await;
        self.open_and_publish(false).await;
        self.survey();
        self.tell_guests();
        self.tick_watches().await;
        self.crew.observe(cycles(), self.clock.rate());
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            self.fdb.sweep(self.clock.seconds(cycles()));
        }
        self.keep_learned().await;
    }

    /// Takes everything apart, the workers first: each sends all that it has received and ends. What
    /// guests send from then on waits in their rings for the next daemon, and nothing is dropped
    /// because its receiver went before its sender.
    pub(crate) async fn stop(mut self) {
        let learned = self.last_learned().await;
        let Self { crew, ports, uplinks, monitor, early, .. } = self;
        crew.stop();
        for port in ports.into_values() {
            port.close().await;
        }
        monitor.stop();
        drop(uplinks);
        if let Some(early) = early {
            early.stop().await;
        }
        keep_last(learned);
    }

    /// Gives numbers to the networks that came into use, and returns those that went out of it.
    fn renumber_domains(&mut self, desired: &Desired) -> Vec<DomainId> {
        let used: Vec<NetworkUuid> = used_networks(desired).map(|(uuid, _)| uuid).collect();
        let departing: Vec<_> = self.attached.domains.keys().copied().collect();
        let departing = departing.into_iter().filter(|uuid| used.binary_search(uuid).is_err());
        let departing = departing.filter_map(|uuid| self.attached.domains.remove(&uuid)).collect();
        for uuid in used {
            if self.attached.domains.contains_key(&uuid) {
                continue;
            }
            match self.domain_numbers.take().and_then(DomainId::new) {
                Some(id) => drop(self.attached.domains.insert(uuid, id)),
                None => tracing::error!(network = %uuid, "more than {DOMAINS_MAX} networks in use"),
            }
        }
        departing
    }

    /// The cores that ports and uplinks are kept to.
    fn pins(&self) -> Pins {
        let ports = self
            .ports
            .iter()
            .filter_map(|(uuid, live)| Some((live.id(), &self.desired.ports.get(uuid)?.cores)));
        let uplinks = self.uplinks.iter().filter_map(|(name, uplink)| {
            Some((uplink.id(), &self.config.physnets.get(name)?.cores))
        });
        let kept = ports.chain(uplinks).filter(|(_, cores)| !cores.is_empty());
        kept.map(|(port, cores)| (port, cores.clone())).collect()
    }

    async fn publish(&mut self) {
        self.tell_vlans();
        let snapshot = compile(&self.desired, &self.attached, &self.filters, self.fdb.hash());
        let mut egress: Vec<Option<Arc<dyn TxPort>>> = Vec::new();
        let mut set = |id: PortId, port: Option<Arc<dyn TxPort>>| {
            egress.resize_with(egress.len().max(id.index() + 1), || None);
            egress[id.index()] = port;
        };
        for port in self.ports.values() {
            set(port.id(), port.egress());
        }
        for uplink in self.uplinks.values() {
            set(uplink.id(), uplink.egress());
        }
        self.watches.rename(self.port_refs());
        let (watches, mirrors) = (self.watches.published(), self.mirrors());
        self.crew.publish(Plan { snapshot, egress, watches, mirrors }).await;
        self.uplinks.values().for_each(Uplink::published);
    }
}

/// How idle workers are.
fn idle(config: &Config) -> IdlePolicy {
    config.workers.sleep_max().map_or(IdlePolicy::Poll, |max| IdlePolicy::Sleep { max })
}
