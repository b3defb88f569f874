//! Looks again whenever something changed, and every few seconds whatever happened.
//!
//! Events only say *when* to look, never *what* changed: they can be lost, overflow, or come before a
//! folder is watched. Each folder is watched before it is read, and asked to be watched again at every
//! look, which costs one call and heals a watch that went with a folder that was removed and made anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::super::{Listing, QUIET, WAIT_MAX, Watch};
use super::scan::Scanner;
use crate::problem::Problem;

/// How often a directory is looked for that is not there: no event tells that it is back.
const OUTAGE_RESCAN: Duration = Duration::from_millis(250);

/// Begins to watch the directory. The first look comes at once: it finds what changed since `after`.
pub(super) fn start(root: PathBuf, rescan: Duration, after: Arc<Listing>) -> Watch {
    let scanner = Scanner::after(root, &after);
    let (sender, receiver) = watch::channel(after);
    let news = Arc::new(Notify::new());
    let folders = Folders::new(&news, rescan);
    Watch::new(receiver, tokio::spawn(run(scanner, folders, news, rescan, sender)))
}

async fn run(
    mut scanner: Scanner,
    mut folders: Folders,
    news: Arc<Notify>,
    rescan: Duration,
    sender: watch::Sender<Arc<Listing>>,
) {
    let mut watch_problem = None;
    loop {
        let look = tokio::task::spawn_blocking(move || {
            let changed = folders.look(&mut scanner);
            (scanner, folders, changed)
        });
        let changed;
        // A look fails only if the runtime ends; then so does the watch, and its owner is told.
        let Ok(found) = look.await else { return };
        (scanner, folders, changed) = found;
        let problem_changed = watch_problem != folders.problem;
        if changed || problem_changed {
            watch_problem.clone_from(&folders.problem);
            let mut listing = scanner.listing();
            listing.problems.extend(folders.problem.clone());
            sender.send_replace(Arc::new(listing));
        }
        if sender.is_closed() {
            return;
        }
        let rescan = if folders.outage { rescan.min(OUTAGE_RESCAN) } else { rescan };
        if timeout(rescan, news.notified()).await.is_ok() {
            quiet(&news).await;
        }
    }
}

/// Waits until a storm of changes is over, or has lasted long enough.
async fn quiet(news: &Notify) {
    let since = Instant::now();
    while since.elapsed() < WAIT_MAX && timeout(QUIET, news.notified()).await.is_ok() {}
}

/// The folders that are watched.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    rescan: Duration,
    /// Whether the last look failed as a whole.
    outage: bool,
    /// That changes are found only by looking every few seconds, and why.
    problem: Option<Problem>,
}

impl Folders {
    fn new(news: &Arc<Notify>, rescan: Duration) -> Folders {
        let news = Arc::clone(news);
        let tell = move |event: notify::Result<notify::Event>| {
            // An error is a reason to look as well.
            if event.is_ok_and(|event| !is_news(&event)) {
                return;
            }
            // Holds at most one permit: a thousand events are one look.
            news.notify_one();
        };
        let mut folders = Folders {
            watcher: None,
            watched: BTreeSet::new(),
            rescan,
            outage: false,
            problem: None,
        };
        match notify::recommended_watcher(tell) {
            Ok(watcher) => folders.watcher = Some(watcher),
            Err(error) => folders.problem = Some(folders.unwatched("inotify", &error)),
        }
        folders
    }

    /// One look at everything. Returns whether anything is different.
    fn look(&mut self, scanner: &mut Scanner) -> bool {
        let mut seen = BTreeSet::new();
        let mut problem = None;
        let result = scanner.scan(&mut |folder| {
            seen.insert(folder.to_path_buf());
            if let Some(watcher) = &mut self.watcher
                && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
                && !is_gone(&error)
            {
                problem = Some((folder.to_path_buf(), error));
            }
        });
        if let Some(watcher) = &mut self.watcher {
            for folder in self.watched.difference(&seen) {
                // The kernel has dropped the watch of a folder that is gone; this drops its record.
                let _ = watcher.unwatch(folder);
            }
            self.problem = problem.map(|(folder, error)| self.unwatched(folder.display(), &error));
        }
        self.watched = seen;
        self.outage = result.is_err();
        match result {
            Ok(changed) => changed,
            Err(error) => scanner.note_outage(&error),
        }
    }

    fn unwatched(&self, what: impl ToString, error: &notify::Error) -> Problem {
        let seconds = self.rescan.as_secs_f32();
        let what_happens =
            format!("cannot be watched ({error}); changes are seen every {seconds} s");
        let remedy = "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (sysctl)";
        Problem::whole(what, what_happens, remedy).warning()
    }
}

/// Whether an event can mean that a value changed. What our own reading causes must not: a look would
/// cause the next one. Of a file that is being written, its closing is awaited; one that stays open
/// is found by the look every few seconds.
fn is_news(event: &notify::Event) -> bool {
    let hidden = !event.paths.is_empty() && event.paths.iter().all(|path| is_hidden(path));
    match event.kind {
        _ if hidden => false,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

/// Hidden files come and go with every write of ours.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_is_waited_for_but_not_for_ever() {
        let news = Arc::new(Notify::new());
        let since = Instant::now();
        quiet(&news).await;
        assert!(since.elapsed() >= QUIET);

        let storm = tokio::spawn({
            let news = Arc::clone(&news);
            async move {
                loop {
                    news.notify_one();
                    tokio::task::yield_now().await;
                }
            }
        });
        let since = Instant::now();
        timeout(Duration::from_secs(30), quiet(&news)).await.expect("it ends under a storm");
        assert!(since.elapsed() >= WAIT_MAX);
        storm.abort();
    }

    #[tokio::test]
    async fn looking_is_no_reason_to_look() {
        let directory = tempfile::TempDir::new().expect("a directory for the test");
        let networks = directory.path().join("networks");
        let file = networks.join("11111111-1111-4111-8111-111111111111.json");
        std::fs::create_dir(&networks).expect("it can be written");
        std::fs::write(&file, "{}").expect("it can be written");
        let news = Arc::new(Notify::new());
        let mut folders = Folders::new(&news, Duration::from_secs(1));
        let mut scanner = Scanner::new(directory.path().into());
        assert!(folders.look(&mut scanner));
        assert_eq!(folders.problem, None);
        // Just written, the file is read again, hence opened and closed in a folder that is watched.
        assert!(!folders.look(&mut scanner));
        let none = timeout(Duration::from_millis(300), news.notified()).await;
        assert!(none.is_err(), "reading was taken for a change");
        std::fs::write(&file, "[]").expect("it can be written");
        timeout(Duration::from_secs(30), news.notified()).await.expect("writing is one");
    }
}
