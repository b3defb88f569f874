//! The store in etcd, against real servers: what it reads, watches and reports, and through what.
//!
//! Each test has a cluster of its own on the loopback interface. Where a test has to know what the
//! store does not get to see, a proxy stands between the two.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod access;
mod claiming;
#[path = "../../../tests/common/etcd.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod etcd;
mod faults;
mod following;
mod listing;
#[path = "../../../tests/common/process.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod process;
mod proxy;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use control::config::{Prefix, Servers};
use control::key::Key;
use control::model::{HostName, RawValue};
use control::store::etcd::EtcdStore;
use control::store::{Listing, Store, Watch};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::etcd::Etcd;

/// Time for anything that should happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ROOT: &str = "/viaduct/v1/";
const NET: &str = "11111111-1111-4111-8111-111111111111";
const A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const B: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
const C: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";

/// A cluster with these members, unless that cannot be had here.
#[track_caller]
fn cluster(members: usize) -> Option<Etcd> {
    runs_here().then(|| Etcd::start(members))
}

/// Whether etcd can run here. In CI it must.
#[track_caller]
fn runs_here() -> bool {
    let Err(missing) = etcd::requirements() else { return true };
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "{missing}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(std::io::stderr(), "SKIPPED {test}: {missing}").expect("standard error is open");
    false
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A configuration for these servers.
fn config(endpoints: &[String]) -> control::config::Etcd {
    let endpoints = endpoints.iter().map(|it| it.parse().expect("an endpoint")).collect();
    let servers = Servers {
        endpoints,
        ca: None,
        certificate: None,
        key: None,
        user: None,
        password_file: None,
        timeout_ms: 1_000,
    };
    control::config::Etcd { servers, prefix: Prefix::default(), lease_seconds: 3 }
}

fn store(endpoints: &[String]) -> EtcdStore {
    EtcdStore::new(config(endpoints))
}

fn host(name: &str) -> HostName {
    name.parse().expect("a host name")
}

fn key(text: &str) -> Key {
    text.parse().expect(text)
}

/// The value of a port with these groups.
fn port(groups: &[&str]) -> String {
    format!(
        r#"{{"network":"{NET}","kind":"vhost-user","socket":"a","mac":"52:54:00:00:00:01",
            "security_groups":{groups:?}}}"#
    )
}

/// The value of a group with these rules.
fn group(rules: &[String]) -> String {
    format!(r#"{{"rules":[{}]}}"#, rules.join(","))
}

fn from_members(group: &str) -> String {
    format!(r#"{{"direction":"ingress","remote_group":"{group}"}}"#)
}

fn from_addresses(group: &str) -> String {
    format!(r#"{{"direction":"ingress","remote_address_group":"{group}"}}"#)
}

/// The values as text, by key.
fn texts(listing: &Listing) -> BTreeMap<String, String> {
    let text = |raw: &RawValue| match raw {
        RawValue::Json(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        RawValue::Unreadable(misfit) => format!("unreadable: {misfit}"),
    };
    listing.values.iter().map(|(key, raw)| (key.to_string(), text(raw))).collect()
}

fn keys(listing: &Listing) -> Vec<String> {
    listing.values.keys().map(ToString::to_string).collect()
}

/// Sorted, as keys are not sorted as text.
fn same_keys(listing: &Listing, expected: &[&str]) -> bool {
    let mut keys = keys(listing);
    keys.sort();
    let mut expected: Vec<_> = expected.iter().map(|key| (*key).to_owned()).collect();
    expected.sort();
    keys == expected
}

/// Follows host `h`. What there is at first has come.
async fn follow(store: &EtcdStore) -> (Watch, Arc<Listing>) {
    let host = host("h");
    let mut watch = store.follow(&host).await.expect("etcd answers");
    let first =
        timeout(PATIENCE, watch.next()).await.expect("it comes at once").expect("it is there");
    (watch, first)
}

/// Waits until what is listed is as it should be; fails with what it is instead.
async fn until(watch: &mut Watch, mut good: impl FnMut(&Listing) -> bool) -> Arc<Listing> {
    let mut last = None;
    let seen = timeout(PATIENCE, async {
        loop {
            let listing = watch.next().await.expect("the watch goes on");
            if good(&listing) {
                return listing;
            }
            last = Some(listing);
        }
    });
    let seen = seen.await;
    seen.unwrap_or_else(|_| panic!("in vain; the last seen was {last:?}"))
}
