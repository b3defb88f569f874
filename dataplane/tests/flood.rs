//! Ten million flows through one port: others do not notice, and nothing grows.
//!
//! There is no table of flows that could fill, so this shows what isn't there: in this process
//! everything that the data plane keeps would show in its memory. Alone in its file, as other tests
//! would take memory meanwhile.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::acl::{Budget, Compiler, Direction, Family, Part, Remote, Rule, RuleLabel};
use dataplane::clock::Clock;
use dataplane::counters::{DropReason, PortTotals, WorkerCounters};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::headers::Mac;
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::packet::protocol;
use dataplane::policy::{Guard, Policy, Station};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::worker::Worker;
use vhost::Device;
use vhost::mock::Guest;

/// Entries of each ring.
const RING: u16 = 256;

/// Segments of the flood, each of a flow of its own.
const FLOWS: u64 = 10_000_000;
/// How many of them come between two rounds of the others' frames: a burst.
const BURST: u64 = 64;
/// Every so many, one comes from a MAC address that nobody has.
const ALIENS: u64 = 16;

/// Frames that the others send each other in a round, each way.
const CALM: usize = 4;

/// What the process's memory may grow by, in bytes. A byte for each flow would be forty times this.
const NOISE: usize = 256 * 1024;

/// Ports, and stations: who floods, who is flooded, and two others.
const FLOODER: usize = 1;
const VICTIM: usize = 2;
const OTHERS: [usize; 2] = [3, 4];

/// A guest with one queue pair, which is port, MAC and IP address *n* of its switch.
struct Seat {
    number: usize,
    device: Arc<Device>,
    rx: Guest,
    tx: Guest,
    transmitted: u16,
    received: u16,
}

struct Switch {
    worker: Worker,
    fdb: Arc<Fdb>,
    counters: Arc<WorkerCounters>,
    seats: BTreeMap<usize, Seat>,
    _publisher: Publisher<Plan>,
    _postman: Postman,
}

fn port(number: usize) -> PortId {
    PortId::new(number).unwrap()
}

fn mac(number: usize) -> Mac {
    Mac::from_bits(0x0200_0000_0000 + number as u64)
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0xc0a8_0000 + number as u32)
}

/// A TCP segment in a frame.
struct Segment {
    macs: [Mac; 2],
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    flags: u8,
    sequence: u32,
}

impl Segment {
    const SYN: u8 = 2;
    const ACK: u8 = 0x10;

    fn frame(&self) -> [u8; 60] {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&self.macs[1].bytes());
        frame[6..12].copy_from_slice(&self.macs[0].bytes());
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol::TCP]);
        frame[26..30].copy_from_slice(&self.addresses[0].octets());
        frame[30..34].copy_from_slice(&self.addresses[1].octets());
        frame[34..36].copy_from_slice(&self.ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&self.ports[1].to_be_bytes());
        frame[38..42].copy_from_slice(&self.sequence.to_be_bytes());
        frame[46] = 0x50;
        frame[47] = self.flags;
        frame
    }
}

/// Random numbers (splitmix64), each of which comes once in 2^64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The next segment of the flood: any address and port to any other, within what port security
/// lets the flooder use.
fn flood(random: &mut Random, number: u64) -> [u8; 60] {
    let (addresses, ports) = (random.next(), random.next());
    let [source, destination] =
        [addresses, addresses >> 32].map(|it| Ipv4Addr::from(0x0a00_0000 | it as u32 & 0xff_ffff));
    let alien = Mac::from_bits(0x0600_0000_0000 | ports >> 32);
    let from = if number.is_multiple_of(ALIENS) { alien } else { mac(FLOODER) };
    let macs = [from, mac(VICTIM)];
    let (ports, sequence) = ([ports as u16, (ports >> 16) as u16], number as u32);
    let (addresses, flags) = ([source, destination], Segment::SYN);
    Segment { macs, addresses, ports, flags, sequence }.frame()
}

/// A rule about TCP.
fn tcp(direction: Direction, part: Part, remote: &str) -> Rule {
    Rule {
        direction,
        family: Family::V4,
        protocol: Some(protocol::TCP),
        part,
        remote: Remote::Prefix(remote.parse().unwrap()),
        permit: true,
        priority: 0,
        returns: true,
        label: RuleLabel { group: 0, rule: 0 },
    }
}

fn policy(number: usize, own: &str, rules: &[Rule]) -> Option<Arc<Policy>> {
    let budget = Budget { rules: 100, bytes: 1 << 20 };
    let acl = Compiler::default().compile(rules, &BTreeMap::new(), budget).unwrap();
    let guard = Guard::new(vec![Station::new(mac(number), [&own.parse().unwrap()])], &[]);
    Some(Arc::new(Policy { guard, acl: Arc::new(acl) }))
}

impl Seat {
    fn new(number: usize) -> Self {
        let device = Device::new(1);
        let (mut rx, tx) = (Guest::new(RING), Guest::new(RING));
        (0..RING).for_each(|index| rx.supply(index, 2048));
        device.start_ring(0, rx.ring());
        device.start_ring(1, tx.ring());
        Self { number, device, rx, tx, transmitted: 0, received: 0 }
    }

    fn transmit(&mut self, frame: &[u8]) {
        self.tx.transmit(self.transmitted % RING, frame);
        self.transmitted = self.transmitted.wrapping_add(1);
    }

    /// What came, whose buffers are given back.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let frames = self.rx.received();
        for _ in &frames {
            self.rx.supply(self.received % RING, 2048);
            self.received = self.received.wrapping_add(1);
        }
        frames
    }
}

impl Switch {
    /// All ports have port security. `victim` is what the flooded one permits.
    fn new(victim: &[Rule]) -> Self {
        let any = "0.0.0.0/0";
        let send = tcp(Direction::Egress, Part::All, any);
        let serve = tcp(Direction::Ingress, Part::Ports(80, 80), "192.168.0.0/24");
        let policies = [
            // A router of ours: all of 10.0.0.0/8 is its own, as an allowed address pair.
            (FLOODER, policy(FLOODER, "10.0.0.0/8", std::slice::from_ref(&send))),
            (VICTIM, policy(VICTIM, "10.0.0.0/8", victim)),
            (OTHERS[0], policy(OTHERS[0], "192.168.0.0/24", std::slice::from_ref(&send))),
            (OTHERS[1], policy(OTHERS[1], "192.168.0.0/24", &[serve])),
        ];

        let options = FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 1,
        };
        let fdb = Arc::new(Fdb::new(options));
        let (mut publisher, mut readers) = Publisher::new(Plan::default(), 1);
        let (postman, mailbox) = mailbox();
        let counters = Arc::new(WorkerCounters::default());
        let (reader, its) = (readers.remove(0), Arc::clone(&counters));
        let mut worker = Worker::new(0, reader, mailbox, Arc::clone(&fdb), Clock::calibrate(), its);

        let domain = DomainId::new(1).unwrap();
        let mut builder = SnapshotBuilder::default();
        let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None };
        builder.domain(domain, spec);
        let mut plan = Plan { egress: vec![None], ..Plan::default() };
        let mut seats = BTreeMap::new();
        for (number, policy) in policies {
            let seat = Seat::new(number);
            builder.access(port(number), true, domain, &[mac(number)], policy);
            plan.egress.push(Some(Arc::clone(&seat.device) as _));
            let rxq = Rxq::new(port(number), 0, Box::new(seat.device.rxq(0)));
            postman.send(Mail::Attach(rxq)).unwrap();
            seats.insert(seat.number, seat);
        }
        plan.snapshot = builder.build(fdb.hash());
        publisher.publish(plan);
        assert_eq!(worker.poll(), 0);
        Self { worker, fdb, counters, seats, _publisher: publisher, _postman: postman }
    }

    fn seat(&mut self, number: usize) -> &mut Seat {
        self.seats.get_mut(&number).unwrap()
    }

    fn totals(&self, number: usize) -> PortTotals {
        self.counters.port(port(number))
    }

    /// One burst of the flood, and between two others a few segments each way. All of theirs must
    /// arrive in the very iteration, in order. Returns how many the victim was sent.
    fn round(&mut self, random: &mut Random, round: u64) -> u64 {
        for number in 0..BURST {
            let frame = flood(random, round * BURST + number);
            self.seat(FLOODER).transmit(&frame);
        }
        let ports = [40_000, 80];
        let talk = OTHERS.map(|from| {
            let to = OTHERS[0] + OTHERS[1] - from;
            let flags = if from == OTHERS[0] { Segment::SYN } else { Segment::ACK };
            let ports = if from == OTHERS[0] { ports } else { [ports[1], ports[0]] };
            let sequences = (0..CALM).map(|at| round as u32 * CALM as u32 + at as u32);
            let frames = sequences.map(|sequence| {
                let (macs, addresses) = ([mac(from), mac(to)], [address(from), address(to)]);
                Segment { macs, addresses, ports, flags, sequence }.frame()
            });
            let frames: [[u8; 60]; CALM] = frames.collect::<Vec<_>>().try_into().unwrap();
            frames.iter().for_each(|frame| self.seat(from).transmit(frame));
            (to, frames)
        });
        assert_eq!(self.worker.poll(), BURST as usize + 2 * CALM);
        for (to, frames) in talk {
            assert_eq!(self.seat(to).receive(), frames, "round {round}");
        }
        self.seat(VICTIM).receive().len() as u64
    }
}

/// Memory of this process, in bytes.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Floods a victim with these rules. Returns how many segments it was sent, and its counts.
fn run(victim: &[Rule]) -> (u64, PortTotals) {
    let mut switch = Switch::new(victim);
    let mut random = Random(4);
    let rounds = FLOWS / BURST;
    let mut arrived = 0;
    let mut before = 0;
    for round in 0..rounds {
        // What is allocated once has been by then.
        if round == rounds / 100 {
            before = memory();
        }
        arrived += switch.round(&mut random, round);
    }
    let after = memory();
    assert!(after <= before + NOISE, "{before} bytes of memory have become {after}");
    assert_eq!(switch.fdb.statistics().entries, 0, "addresses learned: all are configured");

    let flooder = switch.totals(FLOODER);
    assert_eq!(flooder.received_frames, rounds * BURST);
    assert_eq!(flooder.dropped(DropReason::SpoofMac), rounds * BURST / ALIENS);
    assert_eq!(flooder.drops.iter().sum::<u64>(), rounds * BURST / ALIENS);
    for number in OTHERS {
        let totals = switch.totals(number);
        assert_eq!(totals.sent_frames, rounds * CALM as u64);
        assert_eq!(totals.drops.iter().sum::<u64>(), 0);
    }
    (arrived, switch.totals(VICTIM))
}

#[test]
fn ten_million_flows_cost_others_nothing_and_leave_no_trace() {
    let all = FLOWS / BURST * (BURST - BURST / ALIENS);

    // It may be asked by somebody else only.
    let (arrived, victim) = run(&[tcp(Direction::Ingress, Part::All, "192.168.0.0/24")]);
    assert_eq!((arrived, victim.dropped(DropReason::AclIn)), (0, all));

    // It may be asked by all: every one of them opens a flow that nobody keeps.
    let (arrived, victim) = run(&[tcp(Direction::Ingress, Part::All, "0.0.0.0/0")]);
    assert_eq!((arrived, victim.sent_frames), (all, all));
    assert_eq!(victim.drops.iter().sum::<u64>(), 0);
}
