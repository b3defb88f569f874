//! Captures and traces: what workers record, on its way to whoever asked for it.
//!
//! A capture's records are read by the task of its connection. A trace's are few, and need what only the
//! switch knows to be told in words, by the code that tells it of frames that nobody sent: they are read
//! here, now and then. Nobody who stops reading stays: a watch ends with its connection.

mod courses;
mod feed;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dataplane::snapshot::PortId;
use dataplane::watch::{WATCHES_MAX, Wanted, Watch};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Switch;
use crate::show::Feed;
use crate::show::view::{PortRef, WatchView};
use courses::Tracing;
use feed::{CaptureFeed, Limits, TraceFeed};

/// Octets that are kept of a frame that is traced: its head, as workers have it.
const HEAD_OCTETS: usize = vhost::HEAD_MAX;

/// Courses that wait for their reader.
const COURSES_MAX: usize = 64;

/// What ports are called, those that are gone too.
type Names = Arc<Mutex<Arc<BTreeMap<PortId, PortRef>>>>;

/// Captures and traces under way.
#[derive(Default)]
pub(super) struct Watches {
    live: Vec<Live>,
    names: Names,
}

struct Live {
    watch: Arc<Watch>,
    ports: Vec<(PortId, PortRef)>,
    /// Why it is over, once it is.
    over: Arc<OnceLock<String>>,
    tracing: Option<Tracing>,
}

/// What is asked for.
pub(crate) struct WatchOrder<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) ports: &'a [PortRef],
    pub(crate) filter: &'a str,
    pub(crate) snaplen: u32,
    pub(crate) count: Option<u64>,
    pub(crate) seconds: Option<u64>,
}

impl Watches {
    /// For the plan that is published.
    pub(super) fn published(&self) -> Vec<Arc<Watch>> {
        self.live.iter().map(|live| Arc::clone(&live.watch)).collect()
    }

    /// Takes note of what ports there are. A number may be another port's from now on: who watches the
    /// former one is to see nothing of it.
    pub(super) fn rename(&mut self, refs: BTreeMap<PortId, PortRef>) {
        for live in &self.live {
            let gone = live
                .ports
                .iter()
                .find(|(id, port)| !refs.get(id).is_some_and(|it| is_same(it, port)));
            if gone.is_some() {
                live.watch.end();
                live.over.get_or_init(|| "the port was taken away".to_owned());
            }
        }
        let mut names = self.names.lock();
        let mut known = BTreeMap::clone(&names);
        known.extend(refs);
        *names = Arc::new(known);
    }
}

/// Whether both are the same port, whatever it is called.
fn is_same(a: &PortRef, b: &PortRef) -> bool {
    match (a, b) {
        (PortRef::Port { uuid: a, .. }, PortRef::Port { uuid: b, .. }) => a == b,
        (PortRef::Uplink { physnet: a }, PortRef::Uplink { physnet: b }) => a == b,
        _ => false,
    }
}

impl Switch {
    /// Has workers record frames from now on, and returns what gives them to the reader.
    pub(crate) async fn watch(
        &mut self,
        order: WatchOrder<'_>,
    ) -> Result<(WatchView, Box<dyn Feed>), String> {
        self.end_watches().await;
        if self.watches.live.len() >= WATCHES_MAX {
            return Err(format!(
                "{WATCHES_MAX} captures and traces are under way, which is the most: end one of them"
            ));
        }
        let filter =
            crate::frame::filter(order.filter).map_err(|misfit| format!("the filter: {misfit}"))?;
        let numbered = |port: &PortRef| Ok((self.id_of(port)?, port.clone()));
        let ports = order.ports.iter().map(numbered).collect::<Result<Vec<_>, String>>()?;
        let ids: Vec<_> = ports.iter().map(|(id, _)| *id).collect();
        let kept = match order.wanted {
            Wanted::Courses => HEAD_OCTETS,
            Wanted::All | Wanted::Drops => order.snaplen as usize,
        };
        let workers = self.crew.workers().count();
        let watch = Arc::new(Watch::new(order.wanted, &ids, filter, kept, workers));
        let over = Arc::new(OnceLock::new());
        let until =
            order.seconds.and_then(|it| Instant::now().checked_add(Duration::from_secs(it)));
        let limits = Limits { left: order.count, until, over: Arc::clone(&over) };
        let names = Arc::clone(&self.watches.names);
        let mut live = Live { watch: Arc::clone(&watch), ports, over, tracing: None };
        let feed: Box<dyn Feed> = match order.wanted {
            Wanted::All | Wanted::Drops => {
                Box::new(CaptureFeed::new(watch, names, self.clock, limits))
            }
            Wanted::Courses => {
                let (sender, courses) = mpsc::channel(COURSES_MAX);
                let tracing = Tracing::new(sender);
                let feed = TraceFeed::new(watch, names, courses, tracing.unread(), limits);
                live.tracing = Some(tracing);
                Box::new(feed)
            }
        };
        self.watches.live.push(live);
        self.publish().await;
        Ok((WatchView { ports: order.ports.to_vec() }, feed))
    }

    /// What is due now and then: what was traced is told, and what has ended is taken away.
    pub(super) async fn tick_watches(&mut self) {
        if self.watches.live.is_empty() {
            return;
        }
        self.end_watches().await;
        let mut watches = std::mem::take(&mut self.watches.live);
        for live in &mut watches {
            if let Some(tracing) = &mut live.tracing {
                self.tell_courses(&live.watch, tracing);
            }
        }
        self.watches.live = watches;
    }

    async fn end_watches(&mut self) {
        let before = self.watches.live.len();
        self.watches.live.retain(|live| !live.watch.is_ended());
        if self.watches.live.len() < before {
            self.publish().await;
        }
    }
}
