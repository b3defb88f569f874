//! Guests whose port is not known yet: they are connected and answered, and that is all.
//!
//! Orchestrators start a guest before they write its port, and with `wait=on` QEMU does not go on until
//! somebody has connected. So where the configuration says so, each socket in the socket directory that
//! is named like a port, and belongs to no port of desired state, is connected to. The session goes as
//! far as it likes, but its device is nobody's: no worker polls its queues, and it is in no plan, so
//! nothing is sent there. What the guest sends stays in its rings. When its port comes, session and
//! device become the port's as they are, under the port's policy from the first frame on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use vhost::Device;
use vhost::socket::Connection;

use crate::config::Vhost;
use crate::guest::{GuestHandle, GuestOptions, GuestSocket};
use crate::model::{Desired, PortUuid};

/// Most guests that may wait for their ports at a time.
pub(crate) const EARLY_MAX: usize = 256;

/// How often the directory is looked at though nothing seems to have changed in it.
const RESCAN: Duration = Duration::from_secs(2);

/// Changes of one moment are looked at together.
const QUIET: Duration = Duration::from_millis(10);

/// How long a socket on which nobody listens is left alone.
const PAUSE: Duration = Duration::from_millis(250);

/// The sockets of the directory that are named like ports, with the numbers of their files.
type Sockets = BTreeMap<PortUuid, u64>;

/// The guests that wait. See the [module's head](self).
pub(crate) struct EarlySockets {
    directory: PathBuf,
    found: watch::Receiver<Sockets>,
    looking: JoinHandle<()>,
    waiting: BTreeMap<PortUuid, Early>,
    /// Sockets that are left alone since as many guests wait as may.
    beyond: usize,
    /// When sockets on which nobody listened are tried again.
    again: Instant,
}

/// A guest that waits for its port.
pub(crate) struct Early {
    pub(crate) device: Arc<Device>,
    pub(crate) socket: GuestHandle,
    /// The socket's file: another one of the same name is another guest's.
    file: u64,
}

impl EarlySockets {
    /// Begins to look at the directory, if the configuration wants it.
    pub(crate) fn start(vhost: &Vhost) -> Option<EarlySockets> {
        if !vhost.connect_early {
            return None;
        }
        let directory = vhost.socket_directory.clone();
        let (sender, found) = watch::channel(Sockets::new());
        let looking = tokio::spawn(look(directory.clone(), sender));
        let (waiting, again) = (BTreeMap::new(), Instant::now());
        Some(EarlySockets { directory, found, looking, waiting, beyond: 0, again })
    }

    /// Lets those go that are gone or belong to a port, and connects to those that are new.
    pub(crate) async fn update(&mut self, desired: &Desired, vhost: &Vhost) {
        let changed = self.found.has_changed().unwrap_or(false);
        let found = self.found.borrow_and_update().clone();
        let claimed: BTreeSet<PathBuf> = if found.is_empty() {
            BTreeSet::new()
        } else {
            desired.ports.values().filter_map(|port| port.socket_path(&self.directory)).collect()
        };
        let path = |uuid: PortUuid| self.directory.join(uuid.to_string());
        let waits =
            |uuid: PortUuid| !desired.ports.contains_key(&uuid) && !claimed.contains(&path(uuid));
        let over = self.waiting.iter().filter(|(uuid, early)| {
            early.socket.is_over() || found.get(uuid) != Some(&early.file) || !waits(**uuid)
        });
        for uuid in over.map(|(uuid, _)| *uuid).collect::<Vec<_>>() {
            self.let_go(uuid).await;
        }
        if !changed && Instant::now() < self.again {
            return;
        }
        self.again = Instant::now() + PAUSE;
        let path = |uuid: PortUuid| self.directory.join(uuid.to_string());
        let new = found.into_iter().filter(|(uuid, _)| {
            let claimed = desired.ports.contains_key(uuid) || claimed.contains(&path(*uuid));
            !claimed && !self.waiting.contains_key(uuid)
        });
        let new: Vec<_> = new.map(|(uuid, file)| (uuid, file, path(uuid))).collect();
        let beyond_before = std::mem::take(&mut self.beyond);
        for (port, file, path) in new {
            if self.waiting.len() >= EARLY_MAX {
                self.beyond += 1;
                continue;
            }
            // What nobody listens on is a guest's that begins or has ended; it is tried again.
            let Ok(connection) = Connection::connect(&path) else { continue };
            tracing::info!(%port, "a guest waits for its port");
            // QEMU does not start if it has more pairs of queues than are offered.
            let device = Device::new(vhost.queues_max);
            let options = GuestOptions { port, path, server: false, mtu: None };
            let socket = GuestSocket::spawn_early(options, vhost, Arc::clone(&device), connection);
            self.waiting.insert(port, Early { device, socket, file });
        }
        if self.beyond > 0 && beyond_before == 0 {
            tracing::error!("{EARLY_MAX} guests wait for their ports; more are not connected");
        }
    }

    /// What waits for a port whose socket is at `path`, which it is handed over to; a guest that waits
    /// there for another port is let go.
    pub(crate) async fn take(&mut self, port: PortUuid, path: &Path) -> Option<Early> {
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<PortUuid>().ok());
        let at_path = name.filter(|name| self.directory.join(name.to_string()) == path);
        if at_path == Some(port) {
            let early = self.waiting.remove(&port)?;
            if early.socket.keep() {
                return Some(early);
            }
            early.socket.close().await;
            return None;
        }
        self.let_go(port).await;
        if let Some(other) = at_path {
            self.let_go(other).await;
        }
        None
    }

    /// The guests that wait, by the ports that they wait for.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (PortUuid, PathBuf, &Early)> {
        let path = |uuid: &PortUuid| self.directory.join(uuid.to_string());
        self.waiting.iter().map(move |(uuid, early)| (*uuid, path(uuid), early))
    }

    /// Sockets that are left alone since [`EARLY_MAX`] guests wait.
    pub(crate) fn beyond(&self) -> usize {
        self.beyond
    }

    /// Lets all go.
    pub(crate) async fn stop(mut self) {
        self.looking.abort();
        for early in std::mem::take(&mut self.waiting).into_values() {
            early.socket.close().await;
        }
    }

    async fn let_go(&mut self, port: PortUuid) {
        if let Some(early) = self.waiting.remove(&port) {
            early.socket.close().await;
        }
    }
}

/// Looks at the directory when something changes in it, and now and then in any case: events can be
/// lost, and end with a directory that is removed and made anew.
async fn look(directory: PathBuf, sender: watch::Sender<Sockets>) {
    let news = Arc::new(Notify::new());
    let mut watcher = watcher(&news);
    let mut failed = false;
    loop {
        let path = directory.clone();
        let looked = spawn_blocking(move || {
            // Watched before it is read; watching it again costs nothing and heals.
            if let Some(watcher) = &mut watcher {
                let _ = watcher.watch(&path, RecursiveMode::NonRecursive);
            }
            (watcher, sockets(&path))
        });
        let found;
        // It fails only if the runtime ends.
        let Ok(done) = looked.await else { return };
        (watcher, found) = done;
        match found {
            Ok(found) => {
                failed = false;
                sender.send_if_modified(|before| {
                    let changed = *before != found;
                    *before = found;
                    changed
                });
            }
            // A directory that cannot be read says nothing of the guests that wait.
            Err(error) if !failed => {
                failed = true;
                tracing::error!("looking for sockets in {}: {error}", directory.display());
            }
            Err(_) => {}
        }
        if sender.is_closed() {
            return;
        }
        if timeout(RESCAN, news.notified()).await.is_ok() {
            sleep(QUIET).await;
        }
    }
}

/// Tells of files that come and go. None if the kernel has no watcher left for us.
fn watcher(news: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let news = Arc::clone(news);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Looking itself causes events, which must not be a reason to look.
        let silent = event.is_ok_and(|event| {
            let kind = event.kind;
            matches!(kind, EventKind::Access(_))
                || matches!(kind, EventKind::Modify(what) if !matches!(what, ModifyKind::Name(_)))
        });
        if !silent {
            news.notify_one();
        }
    });
    watcher
        .inspect_err(|error| tracing::warn!("sockets are looked for every {RESCAN:?}: {error}"))
        .ok()
}

/// The sockets in a directory that are named like ports. What a symbolic link leads to is not looked
/// at: a guest's process makes its socket itself.
fn sockets(directory: &Path) -> io::Result<Sockets> {
    let mut sockets = Sockets::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let named = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(port) = named
            && entry.file_type().is_ok_and(|kind| kind.is_socket())
        {
            sockets.insert(port, entry.ino());
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_that_are_named_like_ports_count() {
        let folder = tempfile::TempDir::new().expect("a directory for the test");
        let at = |name: &str| folder.path().join(name);
        let uuids: Vec<_> = (0..5).map(|_| PortUuid::random()).collect();
        let _sockets = [
            UnixListener::bind(at(&uuids[0].to_string())).expect("a socket"),
            UnixListener::bind(at("guest.sock")).expect("a socket"),
            UnixListener::bind(at(&uuids[1].to_string().to_uppercase())).expect("a socket"),
            UnixListener::bind(at(&format!("{}.sock", uuids[1]))).expect("a socket"),
        ];
        std::fs::write(at(&uuids[2].to_string()), "").expect("a file");
        symlink(at("guest.sock"), at(&uuids[3].to_string())).expect("a link");
        std::fs::create_dir(at(&uuids[4].to_string())).expect("a directory");
        let found = sockets(folder.path()).expect("it can be read");
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [uuids[0]]);
        assert!(sockets(&at("missing")).is_err());
    }
}
