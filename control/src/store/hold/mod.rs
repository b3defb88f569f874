//! Desired state as a daemon follows it: held while its store is away, and when it was wiped.
//!
//! A store says what it reads. Between it and the daemon stands this: it asks again and again a store
//! that fails, starts with what was read last by an earlier process if a store on the network does not
//! answer, and keeps in force what a store lost all at once, which no orchestrator means.

mod cache;
#[cfg(test)]
mod tests;
mod wiped;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::cache::Cache;
use self::wiped::Wiped;
use super::{AbortOnDrop, Listing, Store, StoreError, Watch};
use crate::config::StoreConfig;
use crate::key::Key;
use crate::model::HostName;
use crate::problem::Problem;

/// How long a store on the network may take before what was read last is used in its place. One that
/// is well answers within a fraction of it.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait before a store that failed is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long changes are gathered before they are written to the cache.
const CACHE_DELAY: Duration = Duration::from_millis(500);

/// Desired state, followed for as long as this is kept.
pub(crate) struct Hold {
    news: watch::Receiver<News>,
    orders: mpsc::Sender<Accept>,
    _task: AbortOnDrop,
}

/// The order to take a store that was wiped at its word.
struct Accept;

/// What there is to know of desired state.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    /// What should be in force; none until anything is known.
    pub listing: Option<Arc<Listing>>,
    /// Where that is from.
    pub source: Source,
    /// Whether the store cannot be read at present. Why, is among the problems, here or there.
    pub away: bool,
    /// What is wrong with the store as such.
    pub problems: Vec<Problem>,
    /// The values that are kept although the store lost them.
    pub held: Vec<Key>,
    /// How often the store was read from the beginning.
    pub readings: u64,
}

/// Where what should be in force was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the store.
    #[default]
    Store,
    /// In the file that an earlier process left.
    Cache,
}

impl Hold {
    /// Follows a store for a host, on the current runtime.
    pub(crate) fn follow(store: Arc<dyn Store>, config: &StoreConfig, host: &HostName) -> Hold {
        let remote = config.etcd.is_some() || config.networking_vpp.is_some();
        let cache = remote.then(|| Cache::new(&config.cache, store.location(), host));
        Hold::with_cache(store, cache, host)
    }

    fn with_cache(store: Arc<dyn Store>, cache: Option<Cache>, host: &HostName) -> Hold {
        let (sender, news) = watch::channel(News::default());
        let (orders, accepts) = mpsc::channel(1);
        let follower = Follower {
            store,
            host: host.clone(),
            cache,
            wiped: Wiped::default(),
            outage: None,
            cache_problem: None,
            unwritten: None,
            news: News::default(),
            sender,
            accepts,
        };
        Hold { news, orders, _task: AbortOnDrop(tokio::spawn(follower.run())) }
    }

    /// Waits for something new, and returns all there is to know then. Nothing is lost if the waiting
    /// is given up.
    pub(crate) async fn next(&mut self) -> News {
        if self.news.changed().await.is_err() {
            // The follower ends only with the runtime.
            std::future::pending::<()>().await;
        }
        self.news.borrow_and_update().clone()
    }

    /// Takes a store that was wiped at its word: nothing is held any more. Returns whether anything is.
    pub(crate) fn accept(&self) -> bool {
        let held = !self.news.borrow().held.is_empty();
        if held {
            // If an order waits already, it is the same one.
            let _ = self.orders.try_send(Accept);
        }
        held
    }
}

/// The task behind a [`Hold`].
struct Follower {
    store: Arc<dyn Store>,
    host: HostName,
    cache: Option<Cache>,
    wiped: Wiped,
    /// Why the store cannot be read at present.
    outage: Option<Problem>,
    /// Why what was read cannot be kept.
    cache_problem: Option<Problem>,
    /// When what was read is to be written to the cache.
    unwritten: Option<Instant>,
    /// What was told last.
    news: News,
    sender: watch::Sender<News>,
    accepts: mpsc::Receiver<Accept>,
}

impl Follower {
    async fn run(mut self) {
        let grace = Instant::now() + GRACE;
        loop {
            let (store, host) = (Arc::clone(&self.store), self.host.clone());
            let mut following = store.follow(&host);
            let followed = match timeout_at(grace, &mut following).await {
                Ok(followed) => followed,
                Err(_) => {
                    self.use_cache().await;
                    following.await
                }
            };
            let error = match followed {
                Ok(watch) => {
                    self.news.readings += 1;
                    self.attend(watch).await
                }
                Err(error) => {
                    self.use_cache().await;
                    error
                }
            };
            self.outage = Some(error.problem());
            self.tell();
            let again = Instant::now() + AGAIN;
            while let Some(()) = self.order_until(again).await {}
        }
    }

    /// Passes on what the store says, until it has no more to say.
    async fn attend(&mut self, mut watch: Watch) -> StoreError {
        loop {
            let due = self.unwritten.unwrap_or_else(|| Instant::now() + CACHE_DELAY);
            tokio::select! {
                listing = watch.next() => match listing {
                    Ok(listing) => self.take(listing).await,
                    Err(error) => return error,
                },
                Some(Accept) = self.accepts.recv() => self.accept(),
                () = sleep_until(due), if self.unwritten.is_some() => self.write_cache().await,
            }
        }
    }

    /// Waits for an order until a time. Returns none when that has come.
    async fn order_until(&mut self, time: Instant) -> Option<()> {
        match timeout_at(time, self.accepts.recv()).await {
            Ok(Some(Accept)) => {
                self.accept();
                Some(())
            }
            Ok(None) | Err(_) => {
                // Without orders to come there is still the time to wait for.
                sleep_until(time).await;
                None
            }
        }
    }

    async fn take(&mut self, listing: Arc<Listing>) {
        self.outage = None;
        let mut before = self.news.listing.take();
        if let (None, true, Some(cache)) = (&before, listing.void, &self.cache) {
            // It may have been wiped while no process ran here.
            before = cache.read().await.ok().flatten().map(Arc::new);
        }
        let now = self.wiped.fill(before.as_deref(), listing, &self.host);
        let changed = before.is_none_or(|before| before.values != now.values);
        if self.cache.is_some() && changed {
            self.unwritten.get_or_insert_with(|| Instant::now() + CACHE_DELAY);
        }
        self.news.listing = Some(now);
        self.news.source = Source::Store;
        self.tell();
    }

    fn accept(&mut self) {
        let kept = self.wiped.accept();
        let Some(listing) = self.news.listing.take() else { return };
        let mut values = listing.values.clone();
        values.retain(|key, _| !kept.contains_key(key));
        let now = Listing { values, ..Listing::clone(&listing) };
        self.news.listing = Some(Arc::new(now));
        self.unwritten = self.cache.is_some().then(Instant::now);
        self.tell();
    }

    /// Uses what an earlier process read last, unless more is known already.
    async fn use_cache(&mut self) {
        let Some(cache) = self.cache.as_ref().filter(|_| self.news.listing.is_none()) else {
            return;
        };
        match cache.read().await {
            Ok(Some(listing)) => {
                tracing::warn!(
                    values = listing.values.len(),
                    "the store does not answer; what was read of it last is in force"
                );
                self.news.listing = Some(Arc::new(listing));
                self.news.source = Source::Cache;
            }
            Ok(None) => {}
            Err(problem) => self.cache_problem = Some(problem),
        }
        self.tell();
    }

    async fn write_cache(&mut self) {
        self.unwritten = None;
        let (Some(cache), Some(listing)) = (&self.cache, &self.news.listing) else { return };
        let problem = cache.write(Arc::clone(listing)).await.err();
        if problem != self.cache_problem {
            self.cache_problem = problem;
            self.tell();
        }
    }

    fn tell(&mut self) {
        let wiped = self.wiped.problem(&self.store.location());
        let problems = self.outage.iter().chain(&wiped).chain(&self.cache_problem);
        self.news.problems = problems.cloned().collect();
        let unread = self.news.listing.as_ref().is_some_and(|listing| listing.away);
        self.news.away = unread || self.outage.is_some();
        self.news.held = self.wiped.keys().cloned().collect();
        self.sender.send_replace(self.news.clone());
    }
}
