//! The store that networking-vpp's driver writes, against a real etcd: what a Neutron wrote is played
//! back, and what is listed and reported is looked at.
//!
//! That each single value is translated right is tested beside that code; here it is the way from etcd
//! and back, and what becomes of it when etcd fails.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod desired;
#[path = "../../../tests/common/etcd_v2.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod etcd_v2;
mod faults;
#[path = "../../../tests/common/process.rs"]
#[allow(dead_code, reason = "each suite uses its part")]
mod process;
mod reports;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use control::config::Config;
use control::model::{Desired, HostName};
use control::problem::Problem;
use control::store::networking_vpp::{Neutron, Pace};
use control::store::{Listing, Store, Watch};
use etcd_v2::EtcdV2;
use serde_json::Value;
use tempfile::TempDir;

/// Time for what takes well under a second, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The host of the recordings.
const HOST: &str = "compute1";

/// An etcd, and the store in it, as a host's daemon has it.
struct Bed {
    etcd: EtcdV2,
    config: Config,
    store: Neutron,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(EtcdV2::start(), "")
    }

    /// With these lines in `[store.networking_vpp]`.
    fn with(etcd: EtcdV2, lines: &str) -> Bed {
        let config = Bed::with_url(&etcd.url(), lines);
        let store = open(&config);
        Bed { etcd, config, store }
    }

    /// A configuration with this server, unless `lines` have other endpoints.
    fn with_url(url: &str, lines: &str) -> Config {
        let folder = TempDir::new().expect("a directory for the test");
        let file = folder.path().join("viaduct.toml");
        let endpoints = match lines.contains("endpoints") {
            true => String::new(),
            false => format!("endpoints = ['{url}']\n"),
        };
        let text = format!(
            "host = '{HOST}'\nvhost.socket_directory = '/var/run/vpp-vhost'\n\
             dpdk = {{ frame_bytes = 9216, pool_frames = 8191 }}\n\
             [physnets.physnet1]\ndevice = 'net_ring0'\nmtu = 9000\n\
             [physnets.physnet2]\ndevice = 'net_ring1'\n\
             [store.networking_vpp]\n{endpoints}timeout_ms = 2000\n{lines}\n"
        );
        fs::write(&file, text).expect("the directory is ours");
        Config::read(&file).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn host(&self) -> &HostName {
        &self.config.host
    }

    async fn follow(&self) -> Follow<'_> {
        let watch = self.store.follow(self.host()).await.expect("etcd runs");
        let mut follow = Follow { bed: self, watch, listing: Arc::default() };
        follow.next().await;
        follow
    }

    /// Writes what was recorded of one time.
    fn write_recorded(&self) {
        let values: BTreeMap<String, String> =
            serde_json::from_str(include_str!("recordings/desired.json")).expect("JSON");
        for (key, value) in values {
            self.etcd.set(&key, &value);
        }
    }

    /// Does what was recorded of one step.
    fn play(&self, step: &Value) {
        for event in step["events"].as_array().expect("a list") {
            let key = event["key"].as_str().expect("a key");
            match (event["action"].as_str(), event["dir"] == true) {
                (Some("set"), false) => self.etcd.set_json(key, &event["value"]),
                (Some("delete"), false) => self.etcd.delete(key),
                (Some("delete"), true) => self.etcd.delete_folder(key),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The store of a configuration, hurried.
fn open(config: &Config) -> Neutron {
    let settings = config.store.networking_vpp.as_ref().expect("it is configured");
    let pace = Pace {
        beat: Duration::from_millis(300),
        grace: Duration::from_millis(100),
        step: Duration::from_millis(1),
        ..Pace::USUAL
    };
    Neutron::new(settings).unwrap_or_else(|error| panic!("{error}")).at_pace(pace)
}

/// What the store tells its host.
struct Follow<'a> {
    bed: &'a Bed,
    watch: Watch,
    listing: Arc<Listing>,
}

impl Follow<'_> {
    async fn next(&mut self) {
        let next = tokio::time::timeout(SOON, self.watch.next()).await;
        self.listing = next.expect("something new in time").expect("the watch goes on");
    }

    /// Waits until the listing is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, good: impl Fn(&Listing) -> bool) -> impl Future<Output = ()> {
        let what = what.to_owned();
        async move {
            let wait = async {
                while !good(&self.listing) {
                    self.listing = self.watch.next().await.expect("the watch goes on");
                }
            };
            if tokio::time::timeout(SOON, wait).await.is_err() {
                panic!("not in time: {what}: {:#?}", self.listing);
            }
        }
    }

    /// The keys that are listed, without those of networks, whose UUIDs are our own.
    fn keys(&self) -> Vec<String> {
        keys(&self.listing)
    }

    /// What should be in force.
    fn desired(&self) -> Desired {
        Desired::build(&self.listing.values, &self.bed.config)
    }

    /// What is wrong with keys of the driver's: the last part of each, and what.
    fn problems(&self) -> Vec<(String, String)> {
        let said = |problem: &Problem| {
            let last = problem.object.rsplit('/').next().unwrap_or_default();
            (last.to_owned(), problem.what.clone())
        };
        self.listing.problems.iter().map(said).collect()
    }
}

fn keys(listing: &Listing) -> Vec<String> {
    let keys = listing.values.keys().map(ToString::to_string);
    keys.filter(|key| !key.starts_with("networks/")).collect()
}

fn recorded(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("JSON")
}

/// Waits until a condition holds, letting other tasks run meanwhile.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "not in time: {what}");
}
