//! The embedded store: a directory of files, one JSON value each, under `<directory>/<key>.json`.
//!
//! It needs no server and is edited with any editor. Desired values are watched by inotify, with a
//! look at everything every few seconds as a net, since events can be lost. Actual state is written
//! beside them under `state/`. The directory itself is never made here: one that is not there is an
//! outage, which changes nothing; one that was made empty is the wish that nothing be.

mod report;
mod scan;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::scan::Scanner;
use super::{Listing, Pending, Reporter, Store, StoreError, VALUE_OCTETS_MAX, Watch};
use crate::key::Key;
use crate::model::HostName;

/// A directory of desired and actual state.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    rescan: Duration,
}

impl Directory {
    /// How often everything is looked at, whatever events say.
    const RESCAN: Duration = Duration::from_secs(3);

    /// The store in this directory, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into(), rescan: Directory::RESCAN }
    }

    /// The same, with another time between looks at everything.
    pub fn rescan_every(self, rescan: Duration) -> Directory {
        Directory { rescan, ..self }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All desired values, read while the caller waits: for a check, where nothing else runs.
    pub fn read(&self) -> Result<Listing, StoreError> {
        let mut scanner = Scanner::new(self.path.clone());
        scanner.scan(&mut |_| {})?;
        Ok(scanner.listing())
    }

    /// What the desired values are from `after` on: nothing in between is lost.
    fn watch(&self, after: Arc<Listing>) -> Watch {
        watch::start(self.path.clone(), self.rescan, after)
    }
}

impl Store for Directory {
    fn location(&self) -> String {
        format!("directory {}", self.path.display())
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn list(&self) -> Pending<'_, Listing> {
        let directory = self.clone();
        blocking(move || directory.read())
    }

    // All is read, whomever it concerns: it costs next to nothing here, and the names of other hosts
    // tell of mistakes.
    fn follow<'a>(&'a self, _: &'a HostName) -> Pending<'a, Watch> {
        Box::pin(async move { Ok(self.watch(Arc::new(self.list().await?))) })
    }

    fn put<'a>(&'a self, key: &'a Key, value: &'a Value) -> Pending<'a, ()> {
        let (root, key) = (self.path.clone(), key.clone());
        let bytes = write::pretty(value);
        blocking(move || {
            if !key.is_desired() {
                return Err(StoreError::NotDesired(key));
            }
            if bytes.len() > VALUE_OCTETS_MAX {
                let (octets, most) = (bytes.len(), VALUE_OCTETS_MAX);
                return Err(StoreError::TooLarge { key, octets, most });
            }
            write::put(&root, &key, &bytes, write::Durable::Yes)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, bool> {
        let (root, key) = (self.path.clone(), key.clone());
        blocking(move || {
            if !key.is_desired() {
                return Err(StoreError::NotDesired(key));
            }
            write::delete(&root, &key, write::Durable::Yes)
        })
    }

    fn claim<'a>(&'a self, host: &'a HostName) -> Pending<'a, Box<dyn Reporter>> {
        let (root, host) = (self.path.clone(), host.clone());
        blocking(move || Ok(Box::new(report::Claim::take(root, host)?) as Box<dyn Reporter>))
    }
}

/// Runs file work where it may block. It is carried through even if nobody waits for it any more.
fn blocking<'a, T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Pending<'a, T> {
    Box::pin(async move { tokio::task::spawn_blocking(work).await? })
}
