//! Reading the configuration anew while the switch runs.
//!
//! All or nothing: the file is read, judged and compared first; what can fail is tried before anything
//! of it holds; and a configuration that is wrong, or that has something for which the daemon must be
//! restarted, changes nothing unless the rest of it is asked for.

use std::path::PathBuf;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{Daemon, leave_worker_cores};
use crate::config::{Change, Config, ConfigErrors, ConfigFile, Machine, Reload, leaves};
use crate::handover::CommandLine;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::show::view::{
    ChangeView, ConfigView, ErrorView, LastReloadView, ReloadOutcome, ReloadView,
};

/// Changes what is logged from now on; the error says why not.
pub type ChangeLog = Box<dyn Fn(&str) -> Result<(), String>>;

/// Where the daemon's configuration is from, and how its log is told what to write.
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// The program and its arguments, by which the next process is started.
    pub line: CommandLine,
    /// The machine, as the daemon was given it.
    pub machine: Machine,
    /// How the log is told.
    pub log: ChangeLog,
    /// The command line says what is logged, so the configuration does not.
    pub log_is_fixed: bool,
}

/// What reloads came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Reloads {
    pub applied: u64,
    pub refused: u64,
    pub last: Option<LastReloadView>,
}

impl Daemon {
    /// Reads the configuration anew and puts it in force, as far as asked for.
    pub(super) async fn reload(&mut self, dry_run: bool, partly: bool) -> ReloadView {
        let mut view = ReloadView {
            file: self.origin.path.clone(),
            outcome: ReloadOutcome::Refused,
            changes: Vec::new(),
            problems: Vec::new(),
        };
        match ConfigFile::load(&self.origin.path, &self.origin.machine) {
            Err(ConfigErrors { problems }) => {
                view.problems = problems.iter().map(ErrorView::from).collect();
            }
            Ok(file) => {
                let running = self.switch.config();
                let reload = Reload::new(running, &file, self.origin.log_is_fixed);
                view.problems = file.config.warnings.iter().map(ErrorView::from).collect();
                view.changes = reload.changes.iter().map(ChangeView::from).collect();
                let left = reload.needs_restart();
                let moves = reload.changes.iter().any(|change| change.restart.is_none());
                view.outcome = match () {
                    () if left && !partly => ReloadOutcome::Refused,
                    () if dry_run => ReloadOutcome::Possible,
                    () if !moves => ReloadOutcome::Unchanged,
                    () => match self.put_in_force(reload.config, &file).await {
                        Ok(()) if left => ReloadOutcome::Partly,
                        Ok(()) => ReloadOutcome::Applied,
                        Err(problem) => {
                            view.problems.push(ErrorView::from(&problem));
                            ReloadOutcome::Refused
                        }
                    },
                };
            }
        }
        if !dry_run {
            self.note(&view);
        }
        view
    }

    /// Lets this configuration hold. If something of it cannot be, nothing of it holds.
    async fn put_in_force(&mut self, config: Config, file: &ConfigFile) -> Result<(), Problem> {
        let problem = |key: &str, what: String, remedy: &str| {
            let mut problem = Problem::whole(file.path.display(), what, remedy);
            problem.line = file.line(key);
            problem.field = key.to_owned();
            problem
        };
        let running = self.switch.config().clone();
        let metrics = match &config.metrics.listen {
            _ if config.metrics == running.metrics => None,
            None => Some(None),
            Some(listen) => match Metrics::serve(listen) {
                Ok(metrics) => Some(Some(metrics)),
                Err(error) => {
                    let error = error.to_string();
                    let what = error.strip_prefix("metrics.listen: ").unwrap_or(&error);
                    let (what, remedy) = what.split_once("; ").unwrap_or((what, "set another one"));
                    return Err(problem("metrics.listen", what.to_owned(), remedy));
                }
            },
        };
        if config.log != running.log {
            (self.origin.log)(&config.log.level.to_string()).map_err(|why| {
                problem("log.level", why, "write error, warn, info, debug or trace, or PART=LEVEL")
            })?;
        }
        let (cores, log) = (config.workers.cores.clone(), running.log.level.to_string());
        leave_worker_cores(&cores, &self.origin.machine.allowed);
        if let Err(error) = self.switch.reconfigure(config).await {
            leave_worker_cores(&running.workers.cores, &self.origin.machine.allowed);
            // What was in force before can be again.
            let _ = (self.origin.log)(&log);
            let remedy = "leave out that core, or see why it cannot be used";
            return Err(problem("workers.cores", error.to_string(), remedy));
        }
        if let Some(metrics) = metrics {
            self.metrics = metrics;
        }
        if cores != running.workers.cores {
            self.notify.watch(self.switch.hearts());
        }
        // What the former configuration had against desired state may be right now.
        let former = self.switch.desired();
        let desired = match &self.news.listing {
            Some(listing) => former.rebuild(&listing.values, self.switch.config()),
            None => former.clone(),
        };
        self.switch.apply(desired).await;
        self.report();
        Ok(())
    }

    /// Takes note of what came of a reload, and logs it.
    fn note(&mut self, view: &ReloadView) {
        let file = view.file.display();
        let keys = |restart: bool| {
            let changes = view.changes.iter().filter(|it| it.restart.is_some() == restart);
            changes.map(|it| it.key.clone()).collect::<Vec<_>>().join(", ")
        };
        match view.outcome {
            ReloadOutcome::Applied | ReloadOutcome::Partly => {
                tracing::info!(%file, changed = keys(false), "the configuration is reloaded");
            }
            ReloadOutcome::Unchanged => tracing::info!(%file, "the configuration is as it was"),
            ReloadOutcome::Refused | ReloadOutcome::Possible => {
                for ErrorView { line, field, what, remedy, .. } in &view.problems {
                    let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                    tracing::error!("{file}{line}: {field}: {what}; {remedy}");
                }
                tracing::error!(%file, "the configuration is not reloaded: the former stays in force");
            }
        }
        if !keys(true).is_empty() {
            tracing::warn!(%file, needed_for = keys(true), "a restart is needed");
        }
        match view.outcome {
            ReloadOutcome::Refused => self.reloads.refused += 1,
            _ => self.reloads.applied += 1,
        }
        let at = jiff::Timestamp::now();
        self.reloads.last = Some(LastReloadView { at, outcome: view.outcome });
    }

    /// The configuration in force.
    pub(super) fn config_view(&self) -> ConfigView {
        let Reloads { applied, refused, last } = self.reloads.clone();
        let values = leaves(self.switch.config());
        ConfigView { file: self.origin.path.clone(), values, applied, refused, last }
    }
}

impl From<&Change> for ChangeView {
    fn from(change: &Change) -> ChangeView {
        let Change { key, line, from, to, restart } = change.clone();
        ChangeView { key, line, from, to, restart: restart.map(str::to_owned) }
    }
}

/// Puts all threads of this process but the workers on these CPUs.
pub(super) fn confine(cpus: &CpuSet) {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let id = task.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(id) = id.filter(|_| !name.starts_with("worker-"))
            // A thread may have ended since it was listed.
            && let Err(errno) = sched_setaffinity(Pid::from_raw(id), cpus)
        {
            tracing::warn!(thread = name.trim(), "keeping it off the workers' cores: {errno}");
        }
    }
}
