//! The watch of what concerns a host, through whatever happens to the cluster.
//!
//! [`Closure`] is what is known; [`Stream`] is what comes. A session reads what is missing, watches
//! from the revision after, and ends with the first thing that goes wrong; the next one goes on where
//! it ended. So nothing has to be repaired in a stream that may be broken in ways that nobody sees,
//! and an outage costs the cluster no listing by a thousand hosts.
//!
//! A cluster restored from a backup is the one that it was, some revisions ago: a watch from where we
//! were would wait for ever. It is known by a revision or a term that went back, for which every
//! answer is looked at, and an answer is asked for every few seconds. Of a restored cluster that has
//! gone past our revision again before we came back, only its identity or its term can tell.

mod closure;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{ResponseHeader, WatchResponse};
use jiff::{Timestamp, Unit};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use self::closure::Closure;
use self::stream::Stream;
use super::super::{Listing, QUIET, WAIT_MAX, Watch};
use super::connect::{Connection, random};
use super::list;
use super::trouble::{Kind, Trouble};
use crate::config::Prefix;
use crate::key::Key;
use crate::model::{HostName, RawValue};
use crate::problem::Problem;

/// How often a sign of life is asked for.
const PROBE: Duration = Duration::from_secs(3);

/// The first pause after a session that ended; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A session that lasted so long was a good one: the next pause is a short one again.
const GOOD: Duration = Duration::from_secs(5);

/// Reads all that concerns a host, and watches it from then on.
pub(super) async fn start(
    connection: Arc<Connection>,
    prefix: Prefix,
    host: HostName,
) -> Result<Watch, Trouble> {
    let closure = Closure::new(prefix.clone(), host);
    let (sender, receiver) = watch::channel(Arc::default());
    let mut engine = Engine {
        connection,
        prefix,
        closure,
        cluster: None,
        void: false,
        odd: Vec::new(),
        revision: 0,
        outage: None,
        sender,
    };
    let root = engine.closure.root().clone();
    let header = list::probe(&engine.connection, &engine.prefix, &root).await?;
    engine.cluster = header.header().map(Place::of);
    engine.complete().await?;
    engine.publish();
    Ok(Watch::new(receiver, tokio::spawn(engine.run())))
}

struct Engine {
    connection: Arc<Connection>,
    prefix: Prefix,
    closure: Closure,
    /// Where the cluster was seen to be.
    cluster: Option<Place>,
    /// Whether nothing was left under the prefix when the host's ports were gone.
    void: bool,
    /// What is wrong with keys, as told last.
    odd: Vec<Problem>,
    revision: u64,
    outage: Option<Outage>,
    sender: watch::Sender<Arc<Listing>>,
}

/// That the cluster cannot be read. Told in the words of its first sign until it is over or another
/// kind of trouble takes its place, as the words of each attempt may differ.
struct Outage {
    kind: Kind,
    since: Timestamp,
    problem: Problem,
}

/// How far a cluster is: its identity, and what never goes back in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    cluster: u64,
    term: u64,
    revision: i64,
}

impl Place {
    fn of(header: &ResponseHeader) -> Place {
        Place {
            cluster: header.cluster_id(),
            term: header.raft_term(),
            revision: header.revision(),
        }
    }

    /// Whether a cluster that was here cannot have come from `before`.
    fn contradicts(self, before: Place) -> bool {
        self.cluster != before.cluster || self.revision < before.revision || self.term < before.term
    }
}

/// Why a session ended.
enum End {
    /// Nobody looks any more.
    Unwatched,
    /// The stream broke; another may be as good as new.
    Broken,
    /// Nothing can be read.
    Trouble(Trouble),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> End {
        End::Trouble(trouble)
    }
}

impl Engine {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let begin = Instant::now();
            match self.session().await {
                End::Unwatched => return,
                End::Broken => {}
                End::Trouble(trouble) => self.note(&trouble),
            }
            pause = if begin.elapsed() > GOOD { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            // Half of it by chance: a thousand hosts do not come back in one moment.
            let pause = pause.mul_f64(0.5 + (random() % 1024) as f64 / 2048.0);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    async fn session(&mut self) -> End {
        match self.watch().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Watches until something goes wrong.
    async fn watch(&mut self) -> Result<std::convert::Infallible, End> {
        let root = self.closure.root().clone();
        let answer = list::probe(&self.connection, &self.prefix, &root).await?;
        if let Some(now) = answer.header().map(Place::of) {
            if self.cluster.is_some_and(|before| now.contradicts(before)) {
                tracing::warn!(
                    store = self.connection.location(),
                    "etcd has gone back in time: it is read anew"
                );
                self.closure.doubt_all();
            }
            self.cluster = Some(now);
        }
        self.complete().await?;
        let mut stream = Stream::open(&self.connection, &self.prefix, &mut self.closure).await?;
        self.outage = None;
        self.publish();

        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: Option<Instant> = None;
        let mut storm: Option<Storm> = None;
        loop {
            let silent = asked.map(|asked| asked + self.connection.patience());
            tokio::select! {
                response = stream.next() => {
                    let response = response.map_err(|_| End::Broken)?;
                    asked = None;
                    if self.take(&response)? {
                        storm = Some(Storm::then(storm));
                    }
                }
                () = due(storm.map(|storm| storm.ends())) => {
                    storm = None;
                    self.complete().await?;
                    stream.update(&mut self.closure);
                    self.publish();
                }
                () = due(silent) => {
                    self.connection.leave_current();
                    return Err(End::Broken);
                }
                _ = probe.tick() => {
                    stream.ask_for_progress();
                    asked.get_or_insert_with(Instant::now);
                }
                () = self.sender.closed() => return Err(End::Unwatched),
            }
        }
    }

    /// Takes in what came. Returns whether something is different.
    fn take(&mut self, response: &WatchResponse) -> Result<bool, End> {
        let id = response.watch_id();
        // What ends a watch has no revision.
        if response.canceled() {
            if id < 0 {
                // A watch that was refused before it had a number (etcd 3.5), whichever it was.
                self.closure.doubt_all();
                return Err(End::Broken);
            }
            let wanted = self.closure.cancelled(id);
            if wanted && response.compact_revision() == 0 {
                // The reading of it in the next session tells why.
                return Err(End::Broken);
            }
            return Ok(wanted);
        }
        let progress = response.events().is_empty() && !response.created();
        if let (Some(now), Some(known)) = (response.header().map(Place::of), self.cluster.as_mut())
        {
            // Events are told with the revision at which they are, which may be long ago. A server
            // that is back may only be behind the others: the next session asks more than half.
            if now.cluster != known.cluster || (progress && now.contradicts(*known)) {
                return Err(End::Broken);
            }
            known.revision = known.revision.max(now.revision);
            known.term = known.term.max(now.term);
        }
        let mut news = false;
        for event in response.events() {
            news |= self.closure.apply(id, event);
        }
        if progress {
            let revision = response.header().map_or(0, ResponseHeader::revision);
            self.closure.progressed(id, revision);
        }
        Ok(news)
    }

    /// Reads until nothing is missing that concerns the host.
    async fn complete(&mut self) -> Result<(), Trouble> {
        loop {
            let missing = self.closure.missing();
            if missing.is_empty() {
                break;
            }
            for (range, read) in list::ranges(&self.connection, &self.prefix, &missing).await? {
                if let Some(place) = &mut self.cluster {
                    place.revision = place.revision.max(read.revision);
                }
                self.closure.load(&range, &read);
            }
        }
        self.void =
            self.closure.is_bare() && !list::anything(&self.connection, &self.prefix).await?;
        Ok(())
    }

    /// Tells that the cluster cannot be read, beside what was told last: what is known by now may lack
    /// what it names.
    fn note(&mut self, trouble: &Trouble) {
        let since = match &self.outage {
            Some(outage) if outage.kind == trouble.kind => return,
            Some(outage) => outage.since,
            None => {
                let now = Timestamp::now();
                now.round(Unit::Second).unwrap_or(now)
            }
        };
        let problem = trouble.outage(&since.to_string());
        self.outage = Some(Outage { kind: trouble.kind, since, problem });
        let last = Arc::clone(&self.sender.borrow());
        self.tell(last.values.clone(), last.void);
    }

    /// Tells what is known, if it is news.
    fn publish(&mut self) {
        let (values, odd) = self.closure.listing();
        self.odd = odd;
        self.tell(values, self.void);
    }

    fn tell(&mut self, values: BTreeMap<Key, RawValue>, void: bool) {
        let outage = self.outage.iter().map(|outage| &outage.problem);
        let problems: Vec<Problem> = self.odd.iter().chain(outage).cloned().collect();
        let last = Arc::clone(&self.sender.borrow());
        let same = last.values == values && last.problems == problems && last.void == void;
        if self.revision != 0 && same {
            return;
        }
        self.revision += 1;
        let away = self.outage.is_some();
        let listing = Listing { revision: self.revision, values, problems, void, away };
        self.sender.send_replace(Arc::new(listing));
    }
}

/// Changes in quick succession.
#[derive(Clone, Copy)]
struct Storm {
    begin: Instant,
    last: Instant,
}

impl Storm {
    /// A change after those before.
    fn then(before: Option<Storm>) -> Storm {
        let last = Instant::now();
        Storm { begin: before.map_or(last, |storm| storm.begin), last }
    }

    /// When to tell of it.
    fn ends(self) -> Instant {
        (self.last + QUIET).min(self.begin + WAIT_MAX)
    }
}

/// Waits for a time, or for ever.
async fn due(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_another_history() {
        let here = Place { cluster: 1, term: 5, revision: 100 };
        for (cluster, term, revision, back) in [
            (1, 5, 100, false),
            (1, 5, 101, false),
            (1, 6, 100, false),
            (1, 5, 99, true),
            (1, 4, 200, true),
            (2, 5, 200, true),
        ] {
            let now = Place { cluster, term, revision };
            assert_eq!(now.contradicts(here), back, "{now:?}");
        }
    }
}
