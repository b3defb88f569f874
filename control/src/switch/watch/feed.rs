//! What is recorded, as the reader of a capture or a trace gets it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dataplane::clock::{Clock, cycles};
use dataplane::snapshot::PortId;
use dataplane::watch::{Record, Step, Watch};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Names;
use crate::show::Feed;
use crate::show::view::{CourseView, EndView, Event, FrameView, LostView, PortRef, Side};

/// Octets after which a reader is given what there is.
const CHUNK: usize = 256 << 10;

/// When it is enough.
pub(super) struct Limits {
    /// How many are still wanted; no end if there is none.
    pub(super) left: Option<u64>,
    pub(super) until: Option<Instant>,
    /// Why the switch has ended it.
    pub(super) over: Arc<OnceLock<String>>,
}

impl Limits {
    /// Why it is to end, if it is.
    fn why(&self, enough: bool) -> Option<String> {
        if self.left == Some(0) {
            return Some("as many as were asked for".to_owned());
        }
        if let Some(why) = self.over.get() {
            return Some(why.clone());
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Some("the time is over".to_owned());
        }
        enough.then(|| "it was asked for".to_owned())
    }

    fn take_one(&mut self) {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
    }
}

/// Feeds a capture, in order of time as far as that is known.
pub(super) struct CaptureFeed {
    watch: Arc<Watch>,
    names: Names,
    clock: Clock,
    limits: Limits,
    given: u64,
    /// The oldest record of each worker, once it was looked at.
    heads: Vec<Option<Record>>,
}

impl CaptureFeed {
    pub(super) fn new(watch: Arc<Watch>, names: Names, clock: Clock, limits: Limits) -> Self {
        let heads = (0..watch.workers()).map(|_| None).collect();
        Self { watch, names, clock, limits, given: 0, heads }
    }

    /// The oldest of all records that there are, and whose it is.
    fn oldest(&mut self) -> Option<(usize, Record)> {
        for (worker, head) in self.heads.iter_mut().enumerate() {
            if head.is_none() {
                *head = self.watch.take(worker);
            }
        }
        let waiting = self.heads.iter().enumerate();
        let waiting = waiting.filter_map(|(worker, head)| Some((head.as_ref()?.cycles, worker)));
        let (_, worker) = waiting.min()?;
        Some((worker, self.heads[worker].take()?))
    }
}

impl Feed for CaptureFeed {
    fn fill(&mut self, octets: &mut Vec<u8>, enough: bool) -> bool {
        let mut why = self.limits.why(enough);
        if why.is_some() {
            self.watch.end();
        }
        let names = Arc::clone(&self.names.lock());
        let stamp = Stamp::now(self.clock);
        while octets.len() < CHUNK && self.limits.left != Some(0) {
            let Some((worker, record)) = self.oldest() else { break };
            if let Some(view) = frame_view(&record, worker, &stamp, |id| names.get(&id).cloned()) {
                line(octets, &Event::Frame(view));
                octets.extend_from_slice(record.data());
                self.given += 1;
                self.limits.take_one();
            }
            self.watch.give_back(worker, record);
        }
        why = why.or_else(|| self.limits.why(false));
        match why {
            // What was recorded before the end is given first.
            Some(why) if octets.len() < CHUNK => {
                end(octets, &self.watch, &self.names, why, self.given, 0);
                false
            }
            _ => true,
        }
    }
}

impl Drop for CaptureFeed {
    fn drop(&mut self) {
        self.watch.end();
    }
}

/// Feeds a trace.
pub(super) struct TraceFeed {
    watch: Arc<Watch>,
    names: Names,
    courses: mpsc::Receiver<CourseView>,
    /// Courses that were not taken in time.
    unread: Arc<AtomicU64>,
    limits: Limits,
    given: u64,
}

impl TraceFeed {
    pub(super) fn new(
        watch: Arc<Watch>,
        names: Names,
        courses: mpsc::Receiver<CourseView>,
        unread: Arc<AtomicU64>,
        limits: Limits,
    ) -> Self {
        Self { watch, names, courses, unread, limits, given: 0 }
    }
}

impl Feed for TraceFeed {
    fn fill(&mut self, octets: &mut Vec<u8>, enough: bool) -> bool {
        while octets.len() < CHUNK && self.limits.left != Some(0) {
            let Ok(course) = self.courses.try_recv() else { break };
            line(octets, &Event::Course(Box::new(course)));
            self.given += 1;
            self.limits.take_one();
        }
        let Some(why) = self.limits.why(enough) else { return true };
        self.watch.end();
        let unread = self.unread.load(Ordering::Relaxed);
        end(octets, &self.watch, &self.names, why, self.given, unread);
        false
    }
}

impl Drop for TraceFeed {
    fn drop(&mut self) {
        self.watch.end();
    }
}

/// Which cycle is when.
pub(super) struct Stamp {
    cycles: u64,
    unix_nanoseconds: u64,
    rate: u64,
}

impl Stamp {
    /// As it is now. One is made for some records at a time, so that the two clocks don't drift apart.
    pub(super) fn now(clock: Clock) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            cycles: cycles(),
            unix_nanoseconds: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            rate: clock.rate(),
        }
    }

    /// When it was that many cycles, in nanoseconds since 1970.
    pub(super) fn of(&self, cycles: u64) -> u64 {
        let ago = u128::from(self.cycles.saturating_sub(cycles)) * 1_000_000_000;
        self.unix_nanoseconds.saturating_sub((ago / u128::from(self.rate)) as u64)
    }
}

fn frame_view(
    record: &Record,
    worker: usize,
    stamp: &Stamp,
    name: impl Fn(PortId) -> Option<PortRef>,
) -> Option<FrameView> {
    let reason = record.dropped();
    Some(FrameView {
        port: name(record.port())?,
        side: match record.step {
            Step::Received { .. } => Side::Ingress,
            Step::Sent { .. } => Side::Egress,
        },
        from: name(record.from)?,
        worker: worker as u16,
        unix_nanoseconds: stamp.of(record.cycles),
        octets: record.bytes,
        kept: record.data().len() as u32,
        reason: reason.map(|reason| reason.name().to_owned()),
        help: reason.map(|reason| reason.help().trim().to_owned()),
    })
}

fn end(octets: &mut Vec<u8>, watch: &Watch, names: &Names, why: String, given: u64, unread: u64) {
    let names = Arc::clone(&names.lock());
    let lost = watch
        .lost()
        .filter_map(|(id, frames)| Some(LostView { port: names.get(&id)?.clone(), frames }));
    line(octets, &Event::End(EndView { why, given, lost: lost.collect(), unread }));
}

fn line(octets: &mut Vec<u8>, value: &impl Serialize) {
    // Names, numbers and texts: nothing of this fails to be JSON.
    if serde_json::to_writer(&mut *octets, value).is_ok() {
        octets.push(b'\n');
    }
}
