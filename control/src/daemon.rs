//! The daemon: one thread that watches desired state, keeps the switch to it, reports what became
//! of it, and answers questions.

mod hand_over;
mod reload;
mod start;
mod take_over;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::watch::Wanted;
use nix::sched::CpuSet;
use nix::sys::mman::{MlockAllFlags, mlockall};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::beat::beat;
use crate::config::Config;
use crate::cores;
use crate::handover::Predecessor;
use crate::metrics::{self, Figures, Metrics, Scrape};
use crate::model::ActualState;
use crate::notify::Notify;
use crate::problem::Problem;
use crate::reports::{Reports, Standing};
use crate::show::view::{AcceptView, ErrorView, SourceView, StoreView, Summary, TakenOverView};
use crate::show::{Answer, BindError, Query, Request, Server};
use crate::store::hold::{Hold, News, Source};
use crate::store::{Listing, Store, StoreError};
use crate::switch::{StartError, Switch, WatchOrder};

use hand_over::{Handing, next_word};
use reload::Reloads;
pub use reload::{ChangeLog, Origin};

/// How often actual state is looked at; a change is reported within this time.
const TICK: Duration = Duration::from_millis(100);

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The switch.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another daemon reports for this host, or the store is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket for commands.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The socket for metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::BindError),
    /// Another process goes on with what it has, as this one cannot.
    #[error("nothing is taken over: {0}")]
    Handover(String),
    /// The operating system.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// Runs until SIGTERM or SIGINT, or until another process has taken over. SIGHUP has the configuration
/// read anew. If there is a predecessor, all is taken over from that.
pub fn run(
    config: Config,
    origin: Origin,
    predecessor: Option<Predecessor>,
) -> Result<(), DaemonError> {
    let system = |doing| move |source| DaemonError::System { doing, source };
    leave_worker_cores(&config.workers.cores, &origin.machine.allowed);
    lock_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the control thread's event loop"))?;
    runtime.block_on(async {
        let mut ends = Ends {
            terminate: signal(SignalKind::terminate()).map_err(system("catching SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(system("catching SIGINT"))?,
        };
        let mut hangup = signal(SignalKind::hangup()).map_err(system("catching SIGHUP"))?;
        let daemon = match predecessor {
            None => Some(Daemon::start(config, origin).await?),
            Some(predecessor) => Daemon::take_over(config, origin, predecessor).await?,
        };
        let Some(mut daemon) = daemon else { return Ok(()) };
        match daemon.serve(&mut ends, &mut hangup).await {
            None => daemon.stop().await,
            Some(handing) => daemon.leave(handing).await,
        }
        Ok(())
    })
}

struct Daemon {
    origin: Origin,
    reloads: Reloads,
    switch: Switch,
    store: Arc<dyn Store>,
    hold: Hold,
    reports: Reports,
    server: Server,
    metrics: Option<Metrics>,
    /// What is known of desired state.
    news: News,
    /// What should be reported, once it is known what should be in force.
    state: Option<ActualState>,
    changed: Option<Instant>,
    notify: Notify,
    /// A handover to another process, while there is one under way.
    handing: Option<Handing>,
    /// What this process took over, if it did.
    taken_over: Option<TakenOverView>,
}

struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Daemon {
    /// With a switch that runs. From here on systemd hears of its workers.
    fn new(
        origin: Origin,
        switch: Switch,
        store: Arc<dyn Store>,
        hold: Hold,
        reports: Reports,
        server: Server,
        metrics: Option<Metrics>,
    ) -> Self {
        let notify = Notify::begin(switch.hearts());
        Self {
            origin,
            reloads: Reloads::default(),
            switch,
            store,
            hold,
            reports,
            server,
            metrics,
            news: News::default(),
            state: None,
            changed: None,
            notify,
            handing: None,
            taken_over: None,
        }
    }

    /// Follows desired state until a signal comes, or another process has all. A store that fails changes
    /// nothing: what is in force stays in force until it can be read again.
    async fn serve(&mut self, ends: &mut Ends, hangup: &mut Signal) -> Option<Handing> {
        let mut tick = beat(TICK);
        loop {
            tokio::select! {
                news = self.hold.next() => self.hear(news).await,
                request = self.server.next() => self.answer(request).await,
                scrape = next_scrape(&mut self.metrics) => scrape.answer(self.figures()),
                _ = tick.tick() => self.tick().await,
                _ = hangup.recv() => drop(self.reload(false, false).await),
                word = next_word(&mut self.handing) => {
                    if let Some(handing) = self.hand_on(word).await {
                        return Some(handing);
                    }
                }
                () = ends.wait() => return None,
            }
        }
    }

    /// Puts in force what is new of desired state, if anything is, and logs what is wrong with it.
    async fn hear(&mut self, news: News) {
        let problems = |news: &News| -> BTreeSet<Problem> {
            let of_listing = news.listing.iter().flat_map(|listing| &listing.problems);
            news.problems.iter().chain(of_listing).cloned().collect()
        };
        let (before, now) = (problems(&self.news), problems(&news));
        for problem in now.difference(&before) {
            match problem.is_error() {
                true => tracing::error!("{problem}"),
                false => tracing::warn!("{problem}"),
            }
        }
        if self.news.away && !news.away {
            tracing::info!(store = self.store.location(), "the store can be read again");
        }
        let before = std::mem::replace(&mut self.news, news).listing;
        let Some(now) = self.news.listing.clone() else { return };
        if before.is_none_or(|before| before.values != now.values) {
            self.apply(&now).await;
        }
    }

    async fn apply(&mut self, listing: &Listing) {
        let former = self.switch.desired();
        let desired = former.rebuild(&listing.values, self.switch.config());
        let changed = desired != *former;
        for problem in new_problems(former.problems.values(), desired.problems.values()) {
            tracing::error!("{problem}");
        }
        for problem in new_problems(former.warnings.values(), desired.warnings.values()) {
            tracing::warn!("{problem}");
        }
        if changed {
            self.changed = Some(Instant::now());
            self.switch.apply(desired).await;
        }
        self.report();
    }

    async fn tick(&mut self) {
        self.switch.tick().await;
        self.report();
        self.notify.tell(self.state.as_ref(), self.news.away);
    }

    fn report(&mut self) {
        // A device that waits for DPDK to start is not worth a word.
        if self.news.listing.is_none() || !self.switch.is_complete() {
            return;
        }
        let state = self.switch.actual_state();
        let state = match &self.state {
            Some(before) => state.since(before),
            None => state,
        };
        if self.state.as_ref() != Some(&state) {
            self.reports.report(state.clone());
            self.state = Some(state);
        }
    }

    async fn answer(&mut self, request: Request) {
        if let Query::Rebalance { dry_run } = *request.query() {
            let view = self.switch.rebalance(dry_run).await;
            return request.answer(Answer::Rebalance(view));
        }
        if let Query::Handover { dry_run } = *request.query() {
            return self.begin_handover(request, dry_run);
        }
        if let Some(order) = order(request.query()) {
            return match self.switch.watch(order).await {
                Ok((view, feed)) => {
                    let answer = match request.query() {
                        Query::Trace { .. } => Answer::Trace(view),
                        _ => Answer::Capture(view),
                    };
                    request.follow(answer, feed);
                }
                Err(why) => request.refuse(why),
            };
        }
        if let Query::Reload { dry_run, partly } = *request.query() {
            let view = self.reload(dry_run, partly).await;
            return request.answer(Answer::Reload(view));
        }
        let switch = &self.switch;
        let answer = match request.query().clone() {
            Query::Summary {} => Answer::Summary(Box::new(self.summary())),
            Query::Ports {} => Answer::Ports(switch.port_views()),
            Query::Bonds {} => Answer::Bonds(switch.bond_views()),
            Query::Domains {} => Answer::Domains(switch.domain_views()),
            Query::Fdb { network } => Answer::Fdb(switch.fdb_view(network)),
            Query::Vhost { port } => Answer::Vhost(switch.vhost_views(port)),
            Query::Workers {} => Answer::Workers(switch.worker_views()),
            Query::Rebalance { .. }
            | Query::Reload { .. }
            | Query::Handover { .. }
            | Query::Capture { .. }
            | Query::Trace { .. } => unreachable!("answered above"),
            Query::Config {} => Answer::Config(self.config_view()),
            Query::Acl { port, rules } => Answer::Acl(switch.acl_views(port, rules)),
            Query::Explain { port } => match switch.explain_view(port) {
                Some(view) => Answer::Explain(Box::new(view)),
                None => return request.refuse("the port is not in force: `viaduct show errors`"),
            },
            Query::Trial { from, to, frame } => {
                match switch.trial(from.as_ref(), to.as_ref(), &frame) {
                    Ok(view) => Answer::Trial(Box::new(view)),
                    Err(why) => return request.refuse(why),
                }
            }
            Query::Memory {} => Answer::Memory(switch.memory_view()),
            Query::Store {} => Answer::Store(Box::new(self.store_view())),
            Query::Accept {} => match self.hold.accept() {
                true => Answer::Accept(AcceptView { let_go: self.news.held.clone() }),
                false => {
                    return request.refuse("nothing is held: what is in force is in the store");
                }
            },
            Query::Drops {} => Answer::Drops(switch.drop_views()),
            Query::Errors {} => {
                Answer::Errors(self.problems().iter().map(ErrorView::from).collect())
            }
        };
        request.answer(answer);
    }

    /// All that is wrong: with the store, with what is in it, with carrying it out.
    fn problems(&self) -> Vec<Problem> {
        let desired = self.switch.desired();
        let of_objects = desired.problems.values().chain(desired.warnings.values()).flatten();
        let of_store = self.news.listing.iter().flat_map(|listing| &listing.problems);
        let written = self.news.problems.iter().chain(of_store).chain(of_objects);
        let written = written.chain(&self.switch.config().warnings).cloned();
        let reporting = self.reports.standing().failure;
        written.chain(reporting).chain(self.switch.failures()).collect()
    }

    fn figures(&self) -> Figures {
        let switch = &self.switch;
        Figures {
            summary: self.summary(),
            config: self.config_view(),
            store: self.store_view(),
            ports: switch.port_views(),
            bonds: switch.bond_views(),
            vhost: switch.vhost_views(None),
            drops: switch.drop_views(),
            workers: switch.worker_views(),
            domains: switch.domain_views(),
            fdb: switch.fdb_statistics(),
            acl: switch.acl_views(None, false),
            memory: switch.memory_view(),
            cycles_per_second: switch.cycles_per_second(),
        }
    }

    fn store_view(&self) -> StoreView {
        let News { listing, source, away, problems, held, readings } = &self.news;
        let Standing { claimed, failure, written } = self.reports.standing();
        let listing = listing.as_deref();
        StoreView {
            location: self.store.location(),
            away: *away,
            source: match source {
                _ if listing.is_none() => SourceView::Unknown,
                Source::Store => SourceView::Store,
                Source::Cache => SourceView::Cache,
            },
            revision: listing.map_or(0, |listing| listing.revision),
            values: listing.map_or(0, |listing| listing.values.len() as u64),
            held: held.clone(),
            readings: *readings,
            changed_seconds: self.changed.map(|at| at.elapsed().as_secs()),
            claimed,
            reported: written,
            report_failure: failure.as_ref().map(ToString::to_string),
            problems: problems.iter().map(ErrorView::from).collect(),
        }
    }

    fn summary(&self) -> Summary {
        let config = self.switch.config();
        let (ports, uplinks) = self.switch.counts();
        let problems = self.problems();
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        Summary {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: config.host.clone(),
            uptime_seconds: self.switch.uptime_seconds(),
            taken_over: self.taken_over.clone(),
            store: self.store.location(),
            changed_seconds: self.changed.map(|at| at.elapsed().as_secs()),
            cores: config.workers.cores.clone(),
            domains: self.switch.domain_views().len() as u32,
            uplinks,
            ports,
            errors: errors as u32,
            warnings: (problems.len() - errors) as u32,
        }
    }

    async fn stop(self) {
        tracing::info!("stopping");
        self.notify.stopping();
        self.switch.stop().await;
        self.reports.withdraw().await;
    }
}

/// The next scrape; never, where metrics are not served.
async fn next_scrape(metrics: &mut Option<Metrics>) -> Scrape {
    match metrics {
        Some(metrics) => metrics.next().await,
        None => std::future::pending().await,
    }
}

/// What is to be watched, where that is asked for.
fn order(query: &Query) -> Option<WatchOrder<'_>> {
    match query {
        Query::Capture { ports, drops, filter, snaplen, count, seconds } => Some(WatchOrder {
            wanted: if *drops { Wanted::Drops } else { Wanted::All },
            ports,
            filter,
            snaplen: *snaplen,
            count: *count,
            seconds: *seconds,
        }),
        Query::Trace { ports, filter, count, seconds } => Some(WatchOrder {
            wanted: Wanted::Courses,
            ports,
            filter,
            snaplen: 0,
            count: Some(*count),
            seconds: *seconds,
        }),
        _ => None,
    }
}

/// Problems that were not there before.
fn new_problems<'a>(
    before: impl Iterator<Item = &'a Vec<Problem>>,
    now: impl Iterator<Item = &'a Vec<Problem>>,
) -> impl Iterator<Item = &'a Problem> {
    let before: std::collections::BTreeSet<_> = before.flatten().collect();
    now.flatten().filter(move |problem| !before.contains(problem))
}

/// Keeps all threads but the workers off the workers' cores, if others are `allowed`; and off cores that
/// the kernel keeps for somebody else, if there are any more.
fn leave_worker_cores(workers: &[u32], allowed: &BTreeSet<u32>) {
    let free: BTreeSet<u32> = allowed.iter().copied().filter(|it| !workers.contains(it)).collect();
    let isolated = cores::isolated();
    let ordinary: BTreeSet<u32> = free.difference(&isolated).copied().collect();
    let chosen = if ordinary.is_empty() { free } else { ordinary };
    let mut set = CpuSet::new();
    let any = chosen.iter().filter(|cpu| set.set(**cpu as usize).is_ok()).count() > 0;
    if any {
        reload::confine(&set);
    }
}

/// Keeps the program in memory, and of the guests' what it has touched: a worker that waits for a page
/// to be read from a disk keeps all its ports waiting.
fn lock_memory() {
    // Pages are locked when they are first used: DPDK reserves far more addresses than it uses.
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
    if let Err(errno) = mlockall(flags) {
        tracing::warn!(
            "the memory is not locked ({}): raise the limit (LimitMEMLOCK=infinity in the unit, \
             `ulimit -l unlimited` in a shell)",
            errno.desc()
        );
    }
}
