//! Where desired state comes from and actual state goes to.
//!
//! One model, several stores: [`directory`] is the embedded one, a directory of files; [`etcd`] is one
//! for many hosts. In all of them values are listed at a revision and watched from the next one, an outage is not a change, and what
//! a host reports lives as long as the claim under which it does (a lease in etcd, a lock in a
//! directory). A store knows keys, not objects: whether a value is good is the model's to say.

pub mod directory;
pub mod etcd;
pub(crate) mod hold;
mod holder;
pub mod networking_vpp;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use self::directory::Directory;
use self::etcd::EtcdStore;
use self::networking_vpp::Neutron;
use crate::config::StoreConfig;
use crate::key::Key;
use crate::model::{ActualState, HostName, RawValue};
use crate::problem::{Misfit, Problem};

/// What a store's answer is while it is awaited. Boxed, so that a store can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store that is configured.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match (&config.etcd, &config.networking_vpp) {
        (Some(etcd), _) => Arc::new(EtcdStore::new(etcd.clone())),
        (None, Some(settings)) => Arc::new(Neutron::new(settings)?),
        (None, None) => Arc::new(Directory::new(&config.directory)),
    })
}

/// Octets that a value may have. A bound on memory, far above any object.
pub const VALUE_OCTETS_MAX: usize = 4 << 20;

/// A change is told when nothing more has come for this long, …
const QUIET: Duration = Duration::from_millis(20);

/// … or when it has waited this long.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Why a value beyond the bound is not read.
fn too_large() -> Misfit {
    let what = format!("is larger than {VALUE_OCTETS_MAX} octets");
    Misfit::new(what, "no object is that large; replace or delete it")
}

/// A place that holds desired and actual state under the keys of [`Key`].
pub trait Store: Send + Sync {
    /// Where it is, for people: `directory /var/lib/viaduct`.
    fn location(&self) -> String;

    /// Whether many hosts share it. In one that is not shared, ports of another host are likely
    /// written under a wrong name.
    fn is_shared(&self) -> bool {
        true
    }

    /// All desired values of all hosts, at one revision: for commands.
    fn list(&self) -> Pending<'_, Listing>;

    /// What concerns a host, now and from now on: for its daemon. A store may leave out what cannot
    /// concern the host, and does where fetching it would cost.
    ///
    /// An error says that nothing is known; try again. Once there is a watch, an outage is a problem
    /// in its listings beside the values that were read last, or the end of the watch.
    fn follow<'a>(&'a self, host: &'a HostName) -> Pending<'a, Watch>;

    /// Writes a desired value: all of it or nothing, and durably once this returns.
    fn put<'a>(&'a self, key: &'a Key, value: &'a Value) -> Pending<'a, ()>;

    /// Deletes a desired value. Returns whether there was one.
    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, bool>;

    /// Claims to be the one that reports for this host. Fails while another process does.
    fn claim<'a>(&'a self, host: &'a HostName) -> Pending<'a, Box<dyn Reporter>>;
}

/// The right to report what a host is. It is given back by [`Reporter::withdraw`], or by the end of
/// the process, however that comes.
pub trait Reporter: Send {
    /// Makes this what the host reports: writes what changed, deletes what is no longer in it. Returns
    /// how many values that took. After a failure, the next call makes good what this one left.
    fn report<'a>(&'a mut self, state: &'a ActualState) -> Pending<'a, usize>;

    /// Deletes all that was reported, and gives up the claim.
    fn withdraw(self: Box<Self>) -> Pending<'static, ()>;
}

/// All desired values of a store at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Grows with every change, within one store and one process.
    pub revision: u64,
    /// The values by key, judged by nobody yet. While a store cannot be read, those read last.
    pub values: BTreeMap<Key, RawValue>,
    /// What is wrong with the store itself and with what lies in it under no key.
    pub problems: Vec<Problem>,
    /// That a store which many hosts share holds no desired value at all, of whatever host.
    pub void: bool,
    /// That the store cannot be read at present; what is here was read before. Why, is a problem.
    pub away: bool,
}

/// The desired values as they change. Changes in quick succession are seen as one.
#[derive(Debug)]
pub struct Watch {
    latest: watch::Receiver<Arc<Listing>>,
    /// Ends the watching when the watch is dropped.
    _task: AbortOnDrop,
}

impl Watch {
    /// A watch on what `task` sends, and on what was sent already.
    pub(crate) fn new(mut latest: watch::Receiver<Arc<Listing>>, task: JoinHandle<()>) -> Watch {
        latest.mark_changed();
        Watch { latest, _task: AbortOnDrop(task) }
    }

    /// Waits until something is different from what was seen last, and returns all of it; what there
    /// is at first comes at once. Nothing is lost if the waiting is given up.
    ///
    /// An error means that nothing will ever come any more; list and watch again.
    pub async fn next(&mut self) -> Result<Arc<Listing>, StoreError> {
        self.latest.changed().await.map_err(|_| StoreError::WatchEnded)?;
        Ok(self.latest.borrow_and_update().clone())
    }
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a store could not do what it was asked. Printed as the [`Problem`] that it is.
#[derive(Debug)]
pub enum StoreError {
    /// The directory of the embedded store is not there.
    Missing(PathBuf),
    /// The operating system refused.
    Io {
        /// What was tried, as a noun.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A value larger than the store takes.
    TooLarge {
        /// Whose value.
        key: Key,
        /// Its size.
        octets: usize,
        /// The bound.
        most: usize,
    },
    /// Reports are written by who has the claim, wishes by everybody else.
    NotDesired(Key),
    /// Another process reports for this host.
    Claimed {
        /// For which host.
        host: HostName,
        /// Who has the claim, as far as it says.
        holder: String,
        /// The lock, or the key that stands for it.
        place: String,
    },
    /// The store is elsewhere, and cannot be reached or does not do what was asked.
    Remote {
        /// Which store, as in [`Store::location`].
        location: String,
        /// What was tried and what came of it, in one sentence.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The task that watched is gone.
    WatchEnded,
    /// The work was cut off by the end of the runtime, or by a defect.
    CutOff(JoinError),
}

impl StoreError {
    /// What is wrong, and what to do about it.
    pub fn problem(&self) -> Problem {
        match self {
            StoreError::Missing(path) => {
                let remedy = format!("make it: mkdir -p {}", path.display());
                Problem::whole(path.display(), "the store's directory is not there", remedy)
            }
            StoreError::Io { doing, path, source, remedy } => {
                Problem::whole(path.display(), format!("{doing} failed: {source}"), *remedy)
            }
            StoreError::TooLarge { key, octets, most } => {
                let remedy = format!("keep it within {most}");
                Problem::whole(key, format!("the value has {octets} octets"), remedy)
            }
            StoreError::NotDesired(key) => Problem::whole(
                key,
                "this is what the daemon reports",
                "leave `state` to the daemon, which writes it",
            ),
            StoreError::Remote { location, what, remedy } => {
                Problem::whole(location, what, *remedy)
            }
            StoreError::Claimed { host, holder, place } => Problem::whole(
                place,
                format!("{holder} already runs for host `{host}` on this store"),
                "stop it, or set another `host` in the configuration",
            ),
            StoreError::WatchEnded => {
                Problem::whole("the store", "the watch has ended", "list it and watch it again")
            }
            StoreError::CutOff(error) => {
                Problem::whole("the store", format!("its work was cut off: {error}"), "try again")
            }
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem().fmt(f)
    }
}

// The words of the source are among our own; as a source they would be printed twice.
impl std::error::Error for StoreError {}

impl From<JoinError> for StoreError {
    fn from(error: JoinError) -> StoreError {
        StoreError::CutOff(error)
    }
}
