//! The store in etcd v3, for many hosts.
//!
//! One JSON value each under `<prefix><key>`. A host reads and watches only what concerns it
//! ([`follow`]), reports under a lease ([`report`]), and goes on with what it has while the cluster is
//! away. etcd is older than any one of us: servers of version 3.4 are what this is tried with.
//!
//! ```text
//! connect  one server at a time, logged in, another when it fails     trouble  what errors mean
//! list     pages at one revision                                      refer    what values name
//! follow   the watch: closure (what is known), stream (what comes)
//! report   actual state under a lease: claim (whose it is), keeper (makes good what is lost)
//! ```

mod connect;
mod follow;
mod list;
mod refer;
mod report;
mod trouble;

use std::sync::Arc;

use serde_json::Value;

use self::connect::Connection;
use self::list::Span;
use super::{Listing, Pending, Reporter, Store, StoreError, VALUE_OCTETS_MAX, Watch, too_large};
use crate::config::{Etcd, Prefix};
use crate::key::{Key, KeyError};
use crate::model::{HostName, RawValue};
use crate::problem::Problem;

/// A prefix in a cluster of etcd.
pub struct EtcdStore {
    connection: Arc<Connection>,
    prefix: Prefix,
    lease_seconds: u32,
}

impl EtcdStore {
    /// The store that is so configured. Nothing is sent before something is asked.
    pub fn new(config: Etcd) -> EtcdStore {
        let Etcd { servers, prefix, lease_seconds } = config;
        EtcdStore { connection: Arc::new(Connection::new(servers)), prefix, lease_seconds }
    }
}

impl Store for EtcdStore {
    fn location(&self) -> String {
        format!("{} under {}", self.connection.location(), self.prefix)
    }

    fn list(&self) -> Pending<'_, Listing> {
        Box::pin(async move {
            let state = format!("{}{}", self.prefix, Key::state_of_all());
            let spans = Span::of_prefix(self.prefix.as_str()).without(&state);
            let doing = format!("reading {}", self.prefix);
            let read = list::spans(&self.connection, &spans, &doing).await?;
            let mut listing = Listing { revision: 1, ..Listing::default() };
            for found in read.found {
                match key_of(found.key(), &self.prefix) {
                    Ok(key) => drop(listing.values.insert(key, raw_value(found.value()))),
                    Err(problem) => listing.problems.push(problem),
                }
            }
            Ok(listing)
        })
    }

    fn follow<'a>(&'a self, host: &'a HostName) -> Pending<'a, Watch> {
        let (connection, prefix) = (Arc::clone(&self.connection), self.prefix.clone());
        Box::pin(async move { Ok(follow::start(connection, prefix, host.clone()).await?) })
    }

    fn put<'a>(&'a self, key: &'a Key, value: &'a Value) -> Pending<'a, ()> {
        Box::pin(async move {
            if !key.is_desired() {
                return Err(StoreError::NotDesired(key.clone()));
            }
            let text = value.to_string();
            let (octets, most) = (text.len(), VALUE_OCTETS_MAX);
            if octets > most {
                return Err(StoreError::TooLarge { key: key.clone(), octets, most });
            }
            let place = key.in_etcd(&self.prefix);
            let doing = format!("writing {place} ({octets} octets)");
            let put = self.connection.call(&doing, |mut link| {
                let (place, text) = (place.clone(), text.clone());
                async move { link.kv.put(place, text, None).await }
            });
            put.await?;
            Ok(())
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, bool> {
        Box::pin(async move {
            if !key.is_desired() {
                return Err(StoreError::NotDesired(key.clone()));
            }
            let place = key.in_etcd(&self.prefix);
            let doing = format!("deleting {place}");
            let deleted = self.connection.call(&doing, |mut link| {
                let place = place.clone();
                async move { link.kv.delete(place, None).await }
            });
            Ok(deleted.await?.deleted() > 0)
        })
    }

    fn claim<'a>(&'a self, host: &'a HostName) -> Pending<'a, Box<dyn Reporter>> {
        Box::pin(async move {
            let connection = Arc::clone(&self.connection);
            let seconds = self.lease_seconds;
            let claim = report::Claim::take(connection, &self.prefix, host, seconds).await?;
            Ok(Box::new(claim) as Box<dyn Reporter>)
        })
    }
}

/// The desired object at a place in etcd, or what is wrong with the place.
fn key_of(place: &[u8], prefix: &Prefix) -> Result<Key, Problem> {
    let text = String::from_utf8_lossy(place);
    let key = Key::from_etcd(&text, prefix).map_err(|KeyError { misfit, .. }| misfit);
    // A name that is not UTF-8 has become another by now, and is no key either way.
    key.map_err(|misfit| Problem::whole(&text, misfit.what, misfit.remedy))
}

/// A value as etcd has it.
fn raw_value(value: &[u8]) -> RawValue {
    if value.len() > VALUE_OCTETS_MAX {
        RawValue::Unreadable(too_large())
    } else {
        RawValue::Json(Arc::from(value))
    }
}
