//! The file in which a daemon keeps what it read last of a store on the network.
//!
//! It is read only where the store does not answer at the start, and only if it was written for the
//! same store and host. It is not a second store: what is in it is forgotten as soon as the store
//! answers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::Listing;
use crate::key::Key;
use crate::model::{HostName, RawValue};
use crate::problem::Problem;

/// Where what was read is kept, and of which store it is.
#[derive(Clone)]
pub(super) struct Cache {
    path: PathBuf,
    location: String,
    host: HostName,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    store: String,
    host: HostName,
    /// The values as text. One that is no text is bad, and worth nothing after a start.
    values: BTreeMap<String, String>,
}

impl Cache {
    pub(super) fn new(path: &Path, location: String, host: &HostName) -> Cache {
        Cache { path: path.to_owned(), location, host: host.clone() }
    }

    /// What an earlier process kept of this store for this host.
    pub(super) async fn read(&self) -> Result<Option<Listing>, Problem> {
        let cache = self.clone();
        blocking(move || cache.load()).await
    }

    /// Keeps what was read: all of it or nothing.
    pub(super) async fn write(&self, listing: Arc<Listing>) -> Result<(), Problem> {
        let cache = self.clone();
        blocking(move || cache.save(&listing)).await
    }

    fn load(&self) -> Result<Option<Listing>, Problem> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.problem(format!("cannot be read: {error}"))),
        };
        let kept: Kept = serde_json::from_slice(&text)
            .map_err(|error| self.problem(format!("is not what a daemon keeps: {error}")))?;
        if kept.store != self.location || kept.host != self.host {
            return Ok(None);
        }
        // A key of another version of the program is none of this one.
        let values = kept.values.into_iter().filter_map(|(key, text)| {
            Some((key.parse::<Key>().ok()?, RawValue::Json(text.into_bytes().into())))
        });
        Ok(Some(Listing { values: values.collect(), ..Listing::default() }))
    }

    fn save(&self, listing: &Listing) -> Result<(), Problem> {
        let text = |value: &RawValue| match value {
            RawValue::Json(text) => std::str::from_utf8(text).ok().map(str::to_owned),
            RawValue::Unreadable(_) => None,
        };
        let values = listing.values.iter();
        let kept = Kept {
            store: self.location.clone(),
            host: self.host.clone(),
            values: values.filter_map(|(key, it)| Some((key.to_string(), text(it)?))).collect(),
        };
        let written = serde_json::to_vec(&kept).map_err(io::Error::from).and_then(|bytes| {
            let beside = self.path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        });
        written.map_err(|error| self.problem(format!("cannot be written: {error}")))
    }

    fn problem(&self, what: String) -> Problem {
        let remedy = "see to the file, or set another `store.cache`; without it the daemon cannot \
                      start while the store is away";
        Problem::whole(self.path.display(), what, remedy).warning()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let ended = tokio::task::spawn_blocking(work).await;
    // It ends early only with the runtime.
    ended.unwrap_or_else(|error| Err(Problem::whole("the cache", error.to_string(), "try again")))
}
