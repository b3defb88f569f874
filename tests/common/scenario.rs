//! Scenarios: rows of "this frame in, those frames out, exactly these counters moved".
//!
//! A scenario runs a real worker on real ports: guests are vhost-user devices with a mock driver,
//! wires are DPDK `net_ring` devices with real mbufs. After each row *all* counters of all ports
//! are compared, not only those that the row speaks of, and at the end the pool must be full again
//! and every guest must have all its buffers back.
//!
//! ```text
//! domain red: a b c                 guests a, b and c on a local network
//! domain blue vlan 100 on w: d      guest d, and VLAN 100 on the wire w
//! domain grey flat on w, mtu 900: e untagged frames on the wire w
//! domain pink: f nic1               a NIC as a port like a guest's: names that begin with nic
//! station b 2                       address 2 is b's by desired state
//! a < 1>2 = b                       from a, source 1, destination 2: goes to b
//! a < 1>* =* b c                    is flooded to b and c (in the order of ports)
//! d < 7>8/0.5+1400 =* w/100.5       priority-tagged, 1400 bytes of payload; leaves with a tag
//! a < 1>1 = drop:hairpin            is dropped, counted at a
//! a < 1>3 = c drop:ring-full        is sent to c, whose guest has no buffers
//! down c / up c / detach c / attach c / starve c / feed c
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dataplane::clock::Clock;
use dataplane::counters::{DropReason, PortTotals, Side, WorkerCounters};
use dataplane::dpdk::{EthConfig, EthDev, Mempool};
use dataplane::fdb::{Fdb, FdbOptions, Hash};
use dataplane::headers::Mac;
use dataplane::mailbox::{Mail, Postman, Returned, mailbox};
use dataplane::port::eth::{EthPort, EthSource};
use dataplane::port::{Rxq, TxPort};
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder, Vid};
use dataplane::worker::Worker;
use vhost::mock::Guest;
use vhost::{Burst, Device, Received, Segment, Sent, Source, Staged, TagEdit};

use super::eal;

const GUEST_RING: u16 = 64;
const POOL_FRAMES: u32 = 1023;
/// Ethernet header and payload of a frame that says nothing else.
const PAYLOAD: usize = 46;

/// Runs a scenario; panics with the row that failed.
pub fn run(text: &str) {
    let mut scenario = Scenario::new();
    for (number, line) in text.lines().enumerate() {
        let row = line.split('#').next().unwrap_or("").trim();
        if !row.is_empty() {
            scenario.row(row, &format!("row {}: {row}", number + 1));
        }
    }
    scenario.finish();
}

struct Scenario {
    ports: BTreeMap<String, Port>,
    domains: Vec<Domain>,
    stations: Vec<(String, Mac)>,
    publisher: Publisher<Plan>,
    postman: Postman,
    worker: Worker,
    hash: Hash,
    counters: Arc<WorkerCounters>,
    pool: Mempool,
    totals: BTreeMap<String, PortTotals>,
}

struct Domain {
    mtu: u16,
    learning: bool,
    flooding: bool,
    uplink: Option<(String, Option<Vid>)>,
    members: Vec<String>,
}

struct Port {
    id: PortId,
    up: bool,
    attached: bool,
    egress: Arc<dyn TxPort>,
    end: End,
}

/// The far end of a port.
enum End {
    Guest { device: Arc<Device>, rx: Guest, tx: Guest, fed: bool, at: u16 },
    Wire { wire: Arc<Mutex<Wire>>, port: Arc<EthPort> },
}

/// One frame, as it is written in a row.
struct Written {
    bytes: Vec<u8>,
}

impl Scenario {
    fn new() -> Self {
        let eal = eal();
        static POOLS: Mutex<u32> = Mutex::new(0);
        let mut pools = POOLS.lock().unwrap();
        *pools += 1;
        let pool = Mempool::create(eal, &format!("scenario{pools}"), POOL_FRAMES, 2048, None);
        drop(pools);
        let (publisher, mut readers) = Publisher::new(Plan::default(), 1);
        let (postman, mailbox) = mailbox();
        let counters = Arc::new(WorkerCounters::default());
        let fdb = Fdb::new(FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 42,
        });
        let hash = fdb.hash();
        let worker = Worker::new(
            0,
            readers.remove(0),
            mailbox,
            Arc::new(fdb),
            Clock::calibrate(),
            Arc::clone(&counters),
        );
        Self {
            ports: BTreeMap::new(),
            domains: Vec::new(),
            stations: Vec::new(),
            publisher,
            postman,
            worker,
            hash,
            counters,
            pool: pool.unwrap(),
            totals: BTreeMap::new(),
        }
    }

    fn row(&mut self, row: &str, what: &str) {
        let words: Vec<_> = row.split_whitespace().collect();
        match words[..] {
            ["domain", ..] => self.declare(row),
            ["station", port, mac] => {
                self.stations.push((port.to_owned(), address(mac)));
                self.publish();
            }
            ["down", port] => self.set_up(port, false),
            ["up", port] => self.set_up(port, true),
            ["detach", port] => self.detach(port),
            ["attach", port] => self.attach(port),
            ["starve", port] => self.feed(port, false),
            ["feed", port] => self.feed(port, true),
            [from, "<", frame, how @ ("=" | "=*"), ref expected @ ..] => {
                self.frame(from, &written(frame), how == "=*", expected, what);
            }
            _ => panic!("cannot read {what}"),
        }
    }

    fn declare(&mut self, row: &str) {
        let (head, members) = row.split_once(':').expect("a domain has members");
        let mut domain = Domain {
            mtu: 1500,
            learning: true,
            flooding: true,
            uplink: None,
            members: members.split_whitespace().map(str::to_owned).collect(),
        };
        for part in head.split(',') {
            let words: Vec<_> = part.split_whitespace().collect();
            match words[..] {
                ["domain", _] => {}
                ["domain", _, "vlan", vid, "on", wire] => {
                    let vid = Vid::new(vid.parse().expect("a number")).expect("a VLAN");
                    domain.uplink = Some((wire.to_owned(), Some(vid)));
                }
                ["domain", _, "flat", "on", wire] => domain.uplink = Some((wire.to_owned(), None)),
                ["mtu", mtu] => domain.mtu = mtu.parse().expect("a number"),
                ["deaf"] => domain.learning = false,
                ["quiet"] => domain.flooding = false,
                _ => panic!("cannot read {part:?}"),
            }
        }
        if let Some((wire, _)) = domain.uplink.clone() {
            self.add_port(&wire, true);
        }
        for member in domain.members.clone() {
            self.add_port(&member, member.starts_with("nic"));
        }
        self.domains.push(domain);
        self.publish();
    }

    fn add_port(&mut self, name: &str, wire: bool) {
        if self.ports.contains_key(name) {
            return;
        }
        let id = PortId::new(self.ports.len() + 1).expect("few ports");
        let (end, egress): (_, Arc<dyn TxPort>) = if wire {
            let (source, port) = self.open_wire();
            let port = Arc::new(port);
            let wire = Arc::new(Mutex::new(Wire { source, incoming: false }));
            (End::Wire { wire, port: Arc::clone(&port) }, port)
        } else {
            let device = Device::new(1);
            let (rx, tx) = (Guest::new(GUEST_RING), Guest::new(GUEST_RING));
            device.start_ring(0, rx.ring());
            device.start_ring(1, tx.ring());
            let egress = Arc::clone(&device);
            (End::Guest { device, rx, tx, fed: false, at: 0 }, egress)
        };
        let port = Port { id, up: true, attached: false, egress, end };
        self.ports.insert(name.to_owned(), port);
        self.totals.insert(name.to_owned(), PortTotals::default());
        self.attach(name);
        self.feed(name, true);
    }

    fn open_wire(&self) -> (EthSource, EthPort) {
        static RINGS: Mutex<u32> = Mutex::new(0);
        let mut rings = RINGS.lock().unwrap();
        *rings += 1;
        let mut device = EthDev::probe(eal(), &format!("net_ring{rings}")).unwrap();
        let config = EthConfig {
            rxqs: 1,
            txqs: 1,
            rx_descriptors: 0,
            tx_descriptors: 0,
            mtu: 1500,
            promiscuous: true,
            vlan_filter: false,
        };
        let mut started = device.configure_and_start(&config, &self.pool).unwrap();
        let multi_segment = started.applied.multi_segment_tx;
        let source = EthSource::new(started.rxqs.remove(0));
        (source, EthPort::new(started.txqs, self.pool.clone(), multi_segment))
    }

    fn attach(&mut self, name: &str) {
        let port = self.ports.get_mut(name).expect("a port");
        let source: Box<dyn Source> = match &port.end {
            End::Guest { device, .. } => Box::new(device.rxq(0)),
            End::Wire { wire, .. } => Box::new(Shared(Arc::clone(wire))),
        };
        self.postman.send(Mail::Attach(Rxq::new(port.id, 0, source))).expect("room for a letter");
        port.attached = true;
        self.publish();
    }

    fn detach(&mut self, name: &str) {
        let port = self.ports.get_mut(name).expect("a port");
        port.attached = false;
        let id = port.id;
        self.publish();
        self.postman.send(Mail::Detach { port: id, queue: None }).expect("room for a letter");
        self.worker.poll();
        let back: Vec<_> = std::iter::from_fn(|| self.postman.collect()).collect();
        assert!(matches!(back[..], [Returned::Queue(_), Returned::Detached(port)] if port == id));
    }

    fn set_up(&mut self, name: &str, up: bool) {
        self.ports.get_mut(name).expect("a port").up = up;
        self.publish();
    }

    fn feed(&mut self, name: &str, feed: bool) {
        if let End::Guest { device, rx, fed, .. } = &mut self.ports.get_mut(name).unwrap().end {
            if feed && !*fed {
                *rx = Guest::new(GUEST_RING);
                (0..GUEST_RING).for_each(|index| rx.supply(index, 2048));
            } else if !feed && *fed {
                *rx = Guest::new(GUEST_RING);
            }
            device.start_ring(0, rx.ring());
            *fed = feed;
        }
    }

    /// What desired state would compile to.
    fn publish(&mut self) {
        let mut builder = SnapshotBuilder::default();
        let mut plan = Plan::default();
        let mut uplinks = Vec::new();
        for (wire, _) in self.domains.iter().filter_map(|domain| domain.uplink.as_ref()) {
            let port = &self.ports[wire];
            if !uplinks.contains(&port.id) {
                uplinks.push(port.id);
                builder.uplink(port.id, port.up && port.attached);
            }
        }
        for (number, domain) in self.domains.iter().enumerate() {
            let id = DomainId::new(number).expect("few domains");
            let spec = DomainSpec {
                mtu: domain.mtu,
                learning: domain.learning,
                flooding: domain.flooding,
                uplink: domain.uplink.as_ref().map(|(wire, vid)| (self.ports[wire].id, *vid)),
            };
            builder.domain(id, spec);
            for name in &domain.members {
                let Some(port) = self.ports.get(name).filter(|port| port.attached) else {
                    continue;
                };
                let known: Vec<_> = self
                    .stations
                    .iter()
                    .filter(|(of, _)| of == name)
                    .map(|(_, mac)| *mac)
                    .collect();
                builder.access(port.id, port.up, id, &known, None);
            }
        }
        plan.snapshot = builder.build(self.hash);
        for port in self.ports.values().filter(|port| port.attached) {
            plan.egress.resize_with(plan.egress.len().max(port.id.index() + 1), || None);
            plan.egress[port.id.index()] = Some(Arc::clone(&port.egress));
        }
        self.publisher.publish(plan);
        self.worker.poll();
        assert!(self.publisher.settle(), "the worker took the plan");
    }

    fn frame(&mut self, from: &str, frame: &Written, flood: bool, expected: &[&str], what: &str) {
        self.inject(from, &frame.bytes);
        assert_eq!(self.worker.poll(), 1, "one frame was received: {what}");

        let mut expected_totals = BTreeMap::<String, PortTotals>::new();
        let ingress = expected_totals.entry(from.to_owned()).or_default();
        ingress.received_frames = 1;
        ingress.received_bytes = frame.bytes.len() as u64;
        ingress.flooded = u64::from(flood);
        let mut expected_out = Vec::new();
        let mut egress = from;
        for word in expected {
            if let Some(name) = word.strip_prefix("drop:") {
                let reason = *DropReason::ALL
                    .iter()
                    .find(|reason| reason.name() == name)
                    .unwrap_or_else(|| panic!("no reason {name:?}: {what}"));
                let at = if reason.side() == Side::Ingress { from } else { egress };
                expected_totals.entry(at.to_owned()).or_default().drops[reason as usize] += 1;
                if reason.side() == Side::Egress {
                    let (port, bytes) = expected_out.pop().expect("a port before the reason");
                    let totals = expected_totals.entry(port).or_default();
                    totals.sent_frames -= 1;
                    totals.sent_bytes -= Vec::len(&bytes) as u64;
                }
                continue;
            }
            let (name, tag) = word.split_once('/').map_or((*word, None), |(n, t)| (n, Some(t)));
            egress = name;
            let bytes = retagged(&frame.bytes, tag);
            let totals = expected_totals.entry(name.to_owned()).or_default();
            totals.sent_frames += 1;
            totals.sent_bytes += bytes.len() as u64;
            expected_out.push((name.to_owned(), bytes));
        }
        expected_out.sort();

        let mut out = Vec::new();
        for (name, port) in &mut self.ports {
            out.extend(port.drain().into_iter().map(|bytes| (name.clone(), bytes)));
        }
        assert_eq!(names(&out), names(&expected_out), "ports that got it: {what}");
        assert_eq!(out, expected_out, "the frames' bytes: {what}");

        for (name, port) in &self.ports {
            let now = self.counters.port(port.id);
            let moved = now.since(&self.totals[name]);
            let expected = expected_totals.remove(name).unwrap_or_default();
            assert_eq!(moved, expected, "counters of {name}: {what}");
            self.totals.insert(name.clone(), now);
        }
        assert!(expected_totals.is_empty(), "unknown ports: {what}");
    }

    fn inject(&mut self, name: &str, bytes: &[u8]) {
        match &mut self.ports.get_mut(name).expect("a port").end {
            End::Guest { tx, at, .. } => {
                tx.transmit(*at, bytes);
                *at = (*at + 1) % GUEST_RING;
            }
            End::Wire { wire, port } => {
                wire.lock().unwrap().incoming = true;
                let mut source = Bytes(bytes.to_vec());
                let mut burst = Burst::default();
                let received = Received::take(&mut source, &mut burst);
                let mut sent = Sent::default();
                port.send(0, received.frames(), &Staged::new(1), &mut sent);
                assert_eq!(sent.frames, 1, "the wire takes it");
            }
        }
    }

    fn finish(mut self) {
        for (name, port) in &mut self.ports {
            if let End::Guest { tx, at, .. } = &mut port.end {
                // Frames were completed one by one; `at` went round with them.
                let completed = tx.completed().len();
                assert!(completed % usize::from(GUEST_RING) == usize::from(*at), "{name}");
            }
        }
        for name in self.ports.keys().cloned().collect::<Vec<_>>() {
            self.detach(&name);
        }
        let Self { ports, publisher, postman, worker, pool, .. } = self;
        drop((ports, publisher, postman, worker));
        assert_eq!(pool.available(), pool.capacity(), "every mbuf is back in the pool");
    }
}

fn names(out: &[(String, Vec<u8>)]) -> Vec<&str> {
    out.iter().map(|(name, _)| name.as_str()).collect()
}

impl Port {
    /// What came out at the far end since the last time.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        match &mut self.end {
            End::Guest { device, rx, fed, .. } => {
                let frames = rx.received();
                if !frames.is_empty() && *fed {
                    *rx = Guest::new(GUEST_RING);
                    (0..GUEST_RING).for_each(|index| rx.supply(index, 2048));
                    device.start_ring(0, rx.ring());
                }
                frames
            }
            End::Wire { wire, .. } => {
                let mut wire = wire.lock().unwrap();
                let mut burst = Burst::default();
                let received = Received::take(&mut wire.source, &mut burst);
                received
                    .frames()
                    .iter()
                    .map(|frame| {
                        let mut bytes = vec![0; frame.bytes()];
                        frame.copy_to_pieces(TagEdit::Keep, [&mut bytes[..]]);
                        bytes
                    })
                    .collect()
            }
        }
    }
}

/// A `net_ring` device hears what it says. So its receive side is the worker's for one burst after
/// a frame was put on the wire, and the harness's the rest of the time.
struct Wire {
    source: EthSource,
    incoming: bool,
}

struct Shared(Arc<Mutex<Wire>>);

impl Source for Shared {
    fn fill(&mut self, burst: &mut Burst) {
        let mut wire = self.0.lock().unwrap();
        if std::mem::take(&mut wire.incoming) {
            wire.source.fill(burst);
        }
    }

    fn release(&mut self, burst: &mut Burst) {
        self.0.lock().unwrap().source.release(burst);
    }
}

/// One frame in ordinary memory.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn fill(&mut self, burst: &mut Burst) {
        // SAFETY: the vector lives as long as this source, and is not written to; no token.
        unsafe {
            let segment = Segment::new(self.0.as_ptr(), self.0.len() as u32);
            assert!(burst.push_owned(0, [segment]));
        }
    }

    fn release(&mut self, _burst: &mut Burst) {}
}

/// `*` is broadcast, `~` a link-local group address, `^n` a group address, `0` zero, and any other
/// number a station.
fn address(text: &str) -> Mac {
    match text {
        "*" => Mac::new([0xff; 6]),
        "~" => Mac::new([1, 0x80, 0xc2, 0, 0, 0xe]),
        "0" => Mac::from_bits(0),
        _ => match text.strip_prefix('^') {
            Some(group) => Mac::from_bits(0x0100_5e00_0000 + group.parse::<u64>().expect("number")),
            None => Mac::from_bits(0x0200_0000_0000 + text.parse::<u64>().expect("a number")),
        },
    }
}

/// `source>destination[/vid[.priority][s]][+payload][!cut]`
fn written(text: &str) -> Written {
    let (text, cut) = text.split_once('!').map_or((text, None), |(t, cut)| (t, Some(cut)));
    let (text, payload) = text.split_once('+').map_or((text, PAYLOAD), |(text, payload)| {
        (text, payload.parse().expect("bytes of payload"))
    });
    let (text, tag) = text.split_once('/').map_or((text, None), |(text, tag)| (text, Some(tag)));
    let (source, destination) = text.split_once('>').expect("source>destination");
    let mut bytes = address(destination).bytes().to_vec();
    bytes.extend(address(source).bytes());
    bytes.extend([0x08, 0x00]);
    bytes.extend((0..payload).map(|at| (at * 7) as u8));
    let mut bytes = retagged(&bytes, tag);
    if let Some(cut) = cut {
        bytes.truncate(cut.parse().expect("bytes"));
    }
    Written { bytes }
}

/// The frame with this tag (`vid[.priority][s]`) in place of the one that it has, if any.
fn retagged(frame: &[u8], tag: Option<&str>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if bytes.len() >= 16 && (bytes[12..14] == [0x81, 0] || bytes[12..14] == [0x88, 0xa8]) {
        bytes.drain(12..16);
    }
    if let Some(tag) = tag {
        let (tag, service) = tag.strip_suffix('s').map_or((tag, false), |tag| (tag, true));
        let (vid, priority) = tag.split_once('.').unwrap_or((tag, "0"));
        let tci =
            priority.parse::<u16>().expect("0 to 7") << 13 | vid.parse::<u16>().expect("a VLAN");
        let tpid: u16 = if service { 0x88a8 } else { 0x8100 };
        let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
        bytes.splice(12..12, tag);
    }
    bytes
}
