//! The store that OpenStack's Neutron writes by the ML2 driver networking-vpp: etcd's v2 API, in that
//! driver's layout.
//!
//! The driver is unmodified, and this is in the place of the agent that it was written for: ports,
//! groups and members are read from where the driver writes them and reported on where it looks.
//! Everything is turned into the values of our own model, which judges, compiles and reports as with
//! any other store. What the driver writes is Neutron's: our own commands do not edit it.
//!
//! `v2` speaks to etcd, `place` has the grammar of keys, `mirror` holds what was read, `translate`
//! turns it into our model, `follow` keeps it up to date, `claim` and `report` write what we are.

mod claim;
mod follow;
mod mirror;
mod place;
mod report;
mod translate;
mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use self::mirror::Mirror;
use self::translate::{Placement, Translator};
use self::v2::{Client, Failure, Node, Refusal};
use super::{Listing, Pending, Reporter, Store, StoreError, Watch};
use crate::config::NetworkingVpp;
use crate::key::Key;
use crate::model::{HostName, PortUuid};

/// See the [module's head](self).
#[derive(Debug)]
pub struct Neutron {
    client: Arc<Client>,
    settings: NetworkingVpp,
    pace: Pace,
    desired: Desired,
}

/// The ports that can be in force on the followed host, once they were read: reports name their
/// networks in the driver's words, and nothing is reported before.
type Desired = Arc<watch::Sender<Option<Ports>>>;

/// Where each port is.
type Ports = BTreeMap<PortUuid, Placement>;

/// How often things are done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A watch is made anew after this time without a change, from the index that the server told when
    /// it accepted. So that all of etcd's last thousand changes would have to fall into it for
    /// one to be missed.
    pub poll: Duration,
    /// What is reported is looked at, and the host's being alive renewed: well within its lifetime, of
    /// 180 s, and seldom enough for a thousand hosts.
    pub beat: Duration,
    /// After this time from the start, what an earlier process reported of ports counts no more.
    pub grace: Duration,
    /// Between two looks at other hosts' ports.
    pub step: Duration,
}

impl Pace {
    /// That of a daemon.
    pub const USUAL: Pace = Pace {
        poll: Duration::from_secs(20),
        beat: Duration::from_secs(45),
        grace: Duration::from_secs(30),
        step: Duration::from_millis(50),
    };
}

impl Neutron {
    /// The store at these servers, which need not be there yet.
    pub fn new(settings: &NetworkingVpp) -> Result<Neutron, StoreError> {
        let client = Arc::new(Client::new(&settings.servers)?);
        let desired = Arc::new(watch::channel(None).0);
        Ok(Neutron { client, settings: settings.clone(), pace: Pace::USUAL, desired })
    }

    /// The same, at another pace.
    pub fn at_pace(self, pace: Pace) -> Neutron {
        Neutron { pace, ..self }
    }

    fn refuse<T>(&self, key: &Key) -> Result<T, StoreError> {
        if !key.is_desired() {
            return Err(StoreError::NotDesired(key.clone()));
        }
        Err(StoreError::Remote {
            location: self.location(),
            what: format!("{key} belongs to Neutron, whose driver writes this store"),
            remedy: "change it in Neutron",
        })
    }
}

impl Store for Neutron {
    fn location(&self) -> String {
        self.client.location().to_owned()
    }

    fn list(&self) -> Pending<'_, Listing> {
        Box::pin(async move {
            let mut mirror = Mirror::default();
            for key in [place::NODES, place::GLOBAL] {
                let (tree, _) = tree(&self.client, key).await?;
                mirror.replace(key, tree);
            }
            let found = Translator::new(self.settings.clone()).translate(&mirror, None);
            let void = mirror.values().next().is_none();
            let (values, problems) = (found.values, found.problems);
            Ok(Listing { revision: 1, values, problems, void, away: false })
        })
    }

    fn follow<'a>(&'a self, host: &'a HostName) -> Pending<'a, Watch> {
        Box::pin(follow::start(self, host))
    }

    fn put<'a>(&'a self, key: &'a Key, _: &'a Value) -> Pending<'a, ()> {
        Box::pin(async move { self.refuse(key) })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, bool> {
        Box::pin(async move { self.refuse(key) })
    }

    fn claim<'a>(&'a self, host: &'a HostName) -> Pending<'a, Box<dyn Reporter>> {
        Box::pin(async move {
            let reports = report::Reports::begin(self, host).await?;
            Ok(Box::new(reports) as Box<dyn Reporter>)
        })
    }
}

/// All that is below a key, nothing of which need be there, and the index of the first change that is
/// not in it.
async fn tree(client: &Client, key: &str) -> Result<(Node, u64), StoreError> {
    match client.tree(key).await {
        Ok(answer) => Ok((answer.event.node, answer.index + 1)),
        Err(Failure::Refused(Refusal { code: Refusal::NOT_FOUND, index, .. })) => {
            Ok((Node::default(), index + 1))
        }
        Err(failure) => Err(failure.into_error(client)),
    }
}

/// A wait that grows from one failure to the next, and is of no even length: of a thousand hosts that
/// lost one etcd, no two shall return at the same time.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const LEAST: Duration = Duration::from_millis(250);
    const DOUBLINGS_MAX: u32 = 5;

    /// Waits after one more failure: between half and all of 0.25 s, 0.5 s, … 8 s.
    async fn wait(&mut self) {
        let longest = Backoff::LEAST * (1 << self.failures.min(Backoff::DOUBLINGS_MAX));
        self.failures += 1;
        let share = f64::from(uuid::Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX);
        tokio::time::sleep(longest.mul_f64(0.5 + share / 2.0)).await;
    }
}
