//! From the records of a frame to what became of it, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::acl::Direction;
use dataplane::counters::DropReason;
use dataplane::decide::accept;
use dataplane::headers::Headers;
use dataplane::packet::Packet;
use dataplane::snapshot::{PortId, Snapshot};
use dataplane::watch::{Record, Step, Watch};
use tokio::sync::mpsc;
use vhost::TagEdit;

use super::super::Switch;
use super::super::trial::dropped;
use super::feed::Stamp;
use crate::show::view::{CourseView, PortRef, StationOrigin, TrialView};

/// A trace, as far as it is put together here.
pub(super) struct Tracing {
    sender: mpsc::Sender<CourseView>,
    unread: Arc<AtomicU64>,
    /// Frames of which more may be known soon, by worker and serial number.
    begun: BTreeMap<(usize, u64), Begun>,
}

/// A frame that came in.
struct Begun {
    cycles: u64,
    from: PortId,
    bytes: u32,
    head: Vec<u8>,
    dropped: Option<DropReason>,
    ports: u16,
    flooded: bool,
    sent: BTreeMap<PortId, Result<TagEdit, DropReason>>,
    /// It was looked at before.
    waited: bool,
}

impl Tracing {
    pub(super) fn new(sender: mpsc::Sender<CourseView>) -> Self {
        Self { sender, unread: Arc::default(), begun: BTreeMap::new() }
    }

    /// How many courses its reader did not take in time.
    pub(super) fn unread(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unread)
    }

    fn add(&mut self, worker: usize, record: &Record) {
        let key = (worker, record.serial);
        match record.step {
            Step::Received { dropped, ports, flooded } => {
                let begun = Begun {
                    cycles: record.cycles,
                    from: record.from,
                    bytes: record.bytes,
                    head: record.data().to_vec(),
                    dropped,
                    ports,
                    flooded,
                    sent: BTreeMap::new(),
                    waited: false,
                };
                self.begun.insert(key, begun);
            }
            Step::Sent { to, tag, dropped } => {
                if let Some(begun) = self.begun.get_mut(&key) {
                    begun.sent.insert(to, dropped.map_or(Ok(tag), Err));
                }
            }
        }
    }

    /// Frames of which all is known, or no more will be.
    fn finished(&mut self) -> Vec<(usize, Begun)> {
        let done = |begun: &mut Begun| {
            std::mem::replace(&mut begun.waited, true)
                || begun.sent.len() >= usize::from(begun.ports)
        };
        let (mut finished, mut begun) = (Vec::new(), BTreeMap::new());
        for (key, mut frame) in std::mem::take(&mut self.begun) {
            if done(&mut frame) {
                finished.push((key.0, frame));
            } else {
                begun.insert(key, frame);
            }
        }
        self.begun = begun;
        finished
    }
}

impl Switch {
    /// Tells what became of the frames that were recorded.
    pub(super) fn tell_courses(&self, watch: &Watch, tracing: &mut Tracing) {
        for worker in 0..watch.workers() {
            while let Some(record) = watch.take(worker) {
                tracing.add(worker, &record);
                watch.give_back(worker, record);
                // More than can wait would only be lost.
                if tracing.begun.len() >= 2 * super::COURSES_MAX {
                    break;
                }
            }
        }
        let finished = tracing.finished();
        if finished.is_empty() {
            return;
        }
        let (snapshot, stamp) = (self.snapshot(), Stamp::now(self.clock));
        let ports = self.port_refs();
        for (worker, begun) in finished {
            let Some(from) = ports.get(&begun.from) else { continue };
            let view = self.course_view(worker, &begun, from, &ports, &snapshot, &stamp);
            if tracing.sender.try_send(view).is_err() {
                tracing.unread.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn course_view(
        &self,
        worker: usize,
        begun: &Begun,
        from: &PortRef,
        ports: &BTreeMap<PortId, PortRef>,
        snapshot: &Snapshot,
        stamp: &Stamp,
    ) -> CourseView {
        let mut trial = TrialView {
            frame: crate::frame::describe(&begun.head),
            octets: begun.head.iter().map(|octet| format!("{octet:02x}")).collect(),
            from: Some(from.clone()),
            network: None,
            leave: begun.dropped.map(dropped),
            flooded: begun.flooded,
            to: Vec::new(),
            passes: false,
        };
        let mut destination = None;
        if let Ok(headers) = Headers::parse_head(&begun.head, begun.head.len()) {
            let packet = Packet::parse(&begun.head, &headers);
            let left = begun.dropped.map_or(Ok(()), Err);
            trial.leave = Some(self.judgement(from, Direction::Egress, &packet, left));
            let port = snapshot.port(begun.from);
            let domain = port.and_then(|port| accept(&headers, port, snapshot).ok());
            if let (None, Some(domain)) = (begun.dropped, domain) {
                let network = self.attached.domains.iter().find(|(_, id)| **id == domain.id);
                trial.network = network.map(|(uuid, _)| self.network_ref(*uuid));
                let place = self.fdb.hash().place(domain.id, headers.destination);
                destination = Some(match begun.flooded {
                    true if headers.destination.is_group() => StationOrigin::Group,
                    true => StationOrigin::Unknown,
                    false if snapshot.stations().find(place).is_some() => StationOrigin::Static,
                    false => StationOrigin::Learned,
                });
                let deliveries = begun.sent.iter().filter_map(|(to, outcome)| {
                    let to = (*to, ports.get(to)?.clone());
                    Some(self.delivery(domain, to, &packet, *outcome))
                });
                trial.to = deliveries.collect();
            }
        }
        trial.passes = trial.to.iter().any(|to| to.judgement.passes);
        CourseView {
            unix_nanoseconds: stamp.of(begun.cycles),
            worker: worker as u16,
            length: begun.bytes,
            destination,
            missing: u32::from(begun.ports).saturating_sub(begun.sent.len() as u32),
            trial,
        }
    }
}
