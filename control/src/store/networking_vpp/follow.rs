//! Keeps what was read up to date, by watches, and tells it as listings.
//!
//! Two watches are open at all times: one on all nodes, as a port of this host may turn up at another,
//! and one on what is the same for all. etcd remembers its last thousand changes. A watch that fell
//! behind that is no failure: all is read anew, and what is the same is no change. In an outage the
//! watches are tried again and again from where they were, so that it loses nothing either.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::mirror::Mirror;
use super::place::{self, Place};
use super::translate::Translator;
use super::v2::{Client, Event, Refusal};
use super::{Backoff, Desired, Neutron, Pace, tree};
use crate::model::{HostName, PortUuid};
use crate::problem::Problem;
use crate::store::{Listing, QUIET, StoreError, WAIT_MAX, Watch};

/// A watch that ends sooner than this without a change is not made anew before.
const POLL_MIN: Duration = Duration::from_millis(100);

/// Reads all that concerns the host, and begins to follow it.
pub(super) async fn start(store: &Neutron, host: &HostName) -> Result<Watch, StoreError> {
    let mut follower = Follower {
        client: Arc::clone(&store.client),
        host: host.clone(),
        pace: store.pace,
        mirror: Mirror::default(),
        translator: Translator::new(store.settings.clone()),
        desired: Arc::clone(&store.desired),
        outages: [None, None],
        listing: Arc::default(),
    };
    let next = follower.read().await?;
    let void = follower.is_void().await;
    follower.translate(void);
    let (sender, receiver) = watch::channel(Arc::clone(&follower.listing));
    Ok(Watch::new(receiver, tokio::spawn(follower.run(next, sender))))
}

struct Follower {
    client: Arc<Client>,
    host: HostName,
    pace: Pace,
    mirror: Mirror,
    translator: Translator,
    desired: Desired,
    /// Why each watch cannot be had at present.
    outages: [Option<Problem>; 2],
    /// What was told last.
    listing: Arc<Listing>,
}

/// The keys that are watched.
const WATCHED: [&str; 2] = [place::NODES, place::GLOBAL];

/// What the watches tell.
enum News {
    /// Something changed.
    Event(Event),
    /// A port of this host is also under another one, written at this index.
    Elsewhere(PortUuid, String, u64),
    /// This watch is open.
    Open(usize),
    /// This watch cannot be had.
    Failed(usize, StoreError),
    /// A watch cannot be had from where it was.
    Outdated,
}

impl Follower {
    /// Reads all that concerns the host. Returns from which index each key is to be watched. A failure
    /// changes nothing.
    async fn read(&mut self) -> Result<[u64; 2], StoreError> {
        let node = place::node(self.host.as_str());
        let (of_host, nodes_next) = tree(&self.client, &node).await?;
        let (of_all, global_next) = tree(&self.client, place::GLOBAL).await?;
        self.mirror.replace(&node, of_host);
        self.mirror.replace(place::GLOBAL, of_all);
        Ok([nodes_next, global_next])
    }

    async fn run(mut self, mut next: [u64; 2], sender: watch::Sender<Arc<Listing>>) {
        loop {
            let (tell, news) = mpsc::channel(64);
            // Dropped, hence ended, before all is read anew.
            let mut watches = JoinSet::new();
            for (which, next) in next.into_iter().enumerate() {
                let (client, tell) = (Arc::clone(&self.client), tell.clone());
                watches.spawn(keep_watching(client, which, next, self.pace.poll, tell));
            }
            watches.spawn(look_elsewhere(
                Arc::clone(&self.client),
                self.host.clone(),
                self.ports(),
                self.pace.step,
                tell,
            ));
            self.follow(news, &sender).await;
            drop(watches);
            tracing::debug!("reading all of etcd anew");
            let mut backoff = Backoff::default();
            next = loop {
                match self.read().await {
                    Ok(next) => break next,
                    Err(error) => self.note(0, Some(&error)),
                }
                self.publish(&sender).await;
                backoff.wait().await;
            };
            self.outages = [None, None];
            self.publish(&sender).await;
        }
    }

    /// Applies news and tells what comes of it, until all has to be read anew.
    async fn follow(
        &mut self,
        mut news: mpsc::Receiver<News>,
        sender: &watch::Sender<Arc<Listing>>,
    ) {
        // Since when a change has been waiting, and until when.
        let mut waiting: Option<(Instant, Instant)> = None;
        loop {
            let told = match waiting {
                None => news.recv().await,
                Some((_, until)) => match timeout_at(until, news.recv()).await {
                    Ok(told) => told,
                    Err(_) => {
                        waiting = None;
                        self.publish(sender).await;
                        continue;
                    }
                },
            };
            let changed = match told {
                // The watches end only when they are outdated.
                None | Some(News::Outdated) => return,
                Some(News::Event(event)) => self.mirror.apply(&event, &self.host),
                Some(News::Elsewhere(port, host, index)) => {
                    self.mirror.saw_elsewhere(&self.host, port, host, index)
                }
                Some(News::Open(which)) => self.outages[which].take().is_some(),
                Some(News::Failed(which, error)) => {
                    let before = self.outages[which].clone();
                    self.note(which, Some(&error));
                    before != self.outages[which]
                }
            };
            let now = Instant::now();
            waiting = match (waiting, changed) {
                (waiting, false) => waiting,
                (Some((since, _)), true) => Some((since, (now + QUIET).min(since + WAIT_MAX))),
                (None, true) => Some((now, now + QUIET)),
            };
        }
    }

    fn note(&mut self, which: usize, error: Option<&StoreError>) {
        self.outages[which] = error.map(|error| {
            let mut problem = error.problem();
            problem.what.push_str("; what was read last stays in force");
            problem
        });
    }

    /// Tells what there is, if it is not what was told last.
    async fn publish(&mut self, sender: &watch::Sender<Arc<Listing>>) {
        let void = self.is_void().await;
        if self.translate(void) {
            sender.send_replace(Arc::clone(&self.listing));
        }
    }

    /// Whether etcd holds nothing that the driver wrote, for whatever host. It is asked for that only
    /// when there is nothing for this one.
    async fn is_void(&mut self) -> bool {
        if self.mirror.values().next().is_some() {
            return false;
        }
        match tree(&self.client, place::NODES).await {
            Ok((nodes, _)) => {
                let mut any = false;
                nodes.each(&mut |_, _, _| any = true);
                !any
            }
            // Nothing is known; what was last is as good as ever.
            Err(_) => self.listing.void,
        }
    }

    /// Makes the listing of what there is. Returns whether it is another.
    fn translate(&mut self, void: bool) -> bool {
        let found = self.translator.translate(&self.mirror, Some(&self.host));
        // One outage is one problem, whichever watch found it first.
        let outage = self.outages.iter().flatten().next().cloned();
        let away = outage.is_some();
        let problems: Vec<Problem> = outage.into_iter().chain(found.problems).collect();
        self.desired.send_if_modified(|ports| {
            let changed = ports.as_ref() != Some(&found.ports);
            *ports = Some(found.ports);
            changed
        });
        let revision = self.listing.revision;
        let now = Listing { revision, values: found.values, problems, void, away };
        if now == *self.listing {
            return false;
        }
        self.listing = Arc::new(Listing { revision: revision + 1, ..now });
        true
    }

    /// The ports of this host.
    fn ports(&self) -> BTreeSet<PortUuid> {
        let places = self.mirror.values().map(|(_, stored)| &stored.place);
        places
            .filter_map(|place| match place {
                Ok(Place::Port { port, .. }) => Some(*port),
                _ => None,
            })
            .collect()
    }
}

/// Watches a key from an index on, one change after the other, for as long as that goes.
async fn keep_watching(
    client: Arc<Client>,
    which: usize,
    mut next: u64,
    poll: Duration,
    tell: mpsc::Sender<News>,
) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let failure = match client.wait(WATCHED[which], next).await {
            // An index that went back is another store, or one that was restored: what it will tell
            // from here on says nothing about what is known.
            Ok(waiting) if waiting.index() + 1 < next => {
                return drop(tell.send(News::Outdated).await);
            }
            Ok(waiting) => {
                backoff = Backoff::default();
                let accepted = waiting.index();
                if tell.send(News::Open(which)).await.is_err() {
                    return;
                }
                match waiting.event(poll).await {
                    Ok(Some(event)) => {
                        next = event.node.modified + 1;
                        if tell.send(News::Event(event)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Ok(None) => {
                        next = next.max(accepted + 1);
                        tokio::time::sleep_until(began + POLL_MIN).await;
                        continue;
                    }
                    Err(what) => StoreError::Remote {
                        location: client.location().to_owned(),
                        what,
                        remedy: "look at what is between here and etcd",
                    },
                }
            }
            Err(failure) if failure.code() == Some(Refusal::OUTDATED) => {
                return drop(tell.send(News::Outdated).await);
            }
            Err(failure) => failure.into_error(&client),
        };
        if tell.send(News::Failed(which, failure)).await.is_err() {
            return;
        }
        backoff.wait().await;
    }
}

/// Looks once, at leisure, whether ports of this host are also under another: one that moved away while
/// nobody watched is left under both. One host after the other is asked for its ports, since all of
/// them in one answer would be most of what etcd holds.
async fn look_elsewhere(
    client: Arc<Client>,
    host: HostName,
    ports: BTreeSet<PortUuid>,
    step: Duration,
    tell: mpsc::Sender<News>,
) {
    if ports.is_empty() {
        return;
    }
    let hosts = children(&client, place::NODES).await;
    for (node, _) in hosts {
        let other = node.rsplit('/').next().unwrap_or_default();
        if other == host.as_str() {
            continue;
        }
        sleep(step).await;
        for (key, index) in children(&client, &format!("{node}/ports")).await {
            let Ok(Place::Port { host, port }) = Place::of(&key) else { continue };
            if ports.contains(&port) && tell.send(News::Elsewhere(port, host, index)).await.is_err()
            {
                return;
            }
        }
    }
}

/// The keys in a directory, each with its index, however long that takes.
async fn children(client: &Client, key: &str) -> Vec<(String, u64)> {
    let mut backoff = Backoff::default();
    loop {
        match client.folder(key).await {
            Ok(answer) => {
                let nodes = answer.event.node.nodes.into_iter();
                return nodes.map(|node| (node.key, node.modified)).collect();
            }
            // It is not there, or not ours to see.
            Err(failure) if failure.code().is_some() => return Vec::new(),
            Err(_) => backoff.wait().await,
        }
    }
}
