//! Rules that are replaced while frames flow: each frame is judged by one set or the other, and none
//! is lost.
//!
//! A real worker runs in a thread of its own, and the guests' sides are driven from here.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::acl::{Acl, Budget, Compiler, Direction, Family, Part, Remote, Rule, RuleLabel};
use dataplane::clock::Clock;
use dataplane::counters::{DropReason, WorkerCounters};
use dataplane::fdb::{Fdb, FdbOptions, Hash};
use dataplane::headers::Mac;
use dataplane::idle::{IdlePolicy, Orders};
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::policy::{Guard, Policy, Station};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::worker::Worker;
use ipnet::{IpNet, Ipv4Net};
use vhost::Device;
use vhost::mock::Guest;

/// Entries of each ring.
const RING: u16 = 256;

/// Times that the rules are replaced in each test.
const SWAPS: usize = 2000;

fn mac(number: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, number])
}

/// UDP from 10.0.0.1 to 10.0.0.2, with a number.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = [mac(2).bytes(), mac(1).bytes()].concat();
    frame.extend([0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0x13, 0x89, 0, 26, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

fn rule(direction: Direction, permit: bool, label: u32) -> Rule {
    Rule {
        protocol: Some(17),
        part: Part::Ports(5001, 5001),
        permit,
        label: RuleLabel { group: 0, rule: label },
        ..Rule::any(direction, Family::V4)
    }
}

fn compile(rules: &[Rule]) -> Arc<Acl> {
    let budget = Budget { rules: 100_000, bytes: 64 << 20 };
    Arc::new(Compiler::default().compile(rules, &BTreeMap::new(), budget).unwrap())
}

/// Two guests, of which the first sends, and a worker in a thread of its own.
struct Bed {
    devices: Vec<Arc<Device>>,
    from: Guest,
    to: Guest,
    publisher: Publisher<Plan>,
    hash: Hash,
    counters: Arc<WorkerCounters>,
    orders: Arc<Orders>,
    worker: Option<std::thread::JoinHandle<()>>,
    _postman: Postman,
}

impl Bed {
    fn new(acl: &Arc<Acl>) -> Self {
        let (publisher, mut readers) = Publisher::new(Plan::default(), 1);
        let (postman, mailbox) = mailbox();
        let counters = Arc::new(WorkerCounters::default());
        let fdb = Fdb::new(FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 1,
        });
        let hash = fdb.hash();
        let (from, mut to) = (Guest::new(RING), Guest::new(RING));
        let devices: Vec<_> = (0..2).map(|_| Device::new(1)).collect();
        devices[0].start_ring(1, from.ring());
        (0..RING).for_each(|index| to.supply(index, 2048));
        devices[1].start_ring(0, to.ring());
        let rxq = Rxq::new(PortId::new(1).unwrap(), 0, Box::new(devices[0].rxq(0)));
        postman.send(Mail::Attach(rxq)).unwrap();
        let (its, clock) = (Arc::clone(&counters), Clock::calibrate());
        let worker = Worker::new(0, readers.remove(0), mailbox, Arc::new(fdb), clock, its);
        let orders = Arc::new(Orders::new(IdlePolicy::Poll));
        let mut bed = Self {
            devices,
            from,
            to,
            publisher,
            hash,
            counters,
            orders: Arc::clone(&orders),
            worker: None,
            _postman: postman,
        };
        bed.publish(acl);
        bed.worker = Some(std::thread::spawn(move || worker.run(&orders)));
        bed
    }

    /// Both ports have the rules, as ports of the same groups do.
    fn publish(&mut self, acl: &Arc<Acl>) {
        let domain = DomainId::new(1).unwrap();
        let mut builder = SnapshotBuilder::default();
        let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None };
        builder.domain(domain, spec);
        let mut plan = Plan { egress: vec![None], ..Plan::default() };
        for (number, device) in (1..).zip(&self.devices) {
            let own = IpNet::V4(Ipv4Net::from(std::net::Ipv4Addr::new(10, 0, 0, number)));
            let guard = Guard::new(vec![Station::new(mac(number), [&own])], &[]);
            let policy = Some(Arc::new(Policy { guard, acl: Arc::clone(acl) }));
            let id = PortId::new(number.into()).unwrap();
            builder.access(id, true, domain, &[mac(number)], policy);
            plan.egress.push(Some(Arc::clone(device) as _));
        }
        plan.snapshot = builder.build(self.hash);
        self.publisher.publish(plan);
    }

    /// Has frames flow, in bursts that the receiver's ring has room for, while `swap` is called again
    /// and again. Returns what arrived, and how many were sent.
    fn flow(&mut self, mut swap: impl FnMut(&mut Self, usize)) -> (Vec<u32>, u32) {
        let mut sent = 0_u32;
        let mut arrived = Vec::new();
        let port = PortId::new(1).unwrap();
        let mut supplied = 0_u16;
        for turn in 0..SWAPS {
            for _ in 0..RING / 4 {
                self.from.transmit((sent % u32::from(RING)) as u16, &frame(sent));
                sent += 1;
            }
            swap(self, turn);
            // Until the worker has taken all of them, so that no ring overflows.
            while self.counters.port(port).received_frames < u64::from(sent) {
                std::thread::yield_now();
            }
            for frame in self.to.received() {
                arrived.push(u32::from_be_bytes(frame[42..46].try_into().unwrap()));
                self.to.supply(supplied % RING, 2048);
                supplied = supplied.wrapping_add(1);
            }
        }
        self.orders.stop();
        self.worker.take().unwrap().join().unwrap();
        arrived.extend(
            self.to.received().iter().map(|it| u32::from_be_bytes(it[42..46].try_into().unwrap())),
        );
        (arrived, sent)
    }

    fn dropped(&self, port: usize, reason: DropReason) -> u64 {
        self.counters.port(PortId::new(port).unwrap()).dropped(reason)
    }
}

#[test]
fn no_frame_is_judged_by_a_mix_of_two_sets() {
    // Each set stops the frames, one as they leave the sender, the other as they reach the receiver.
    // Who asked one set about the way out and the other about the way in would let them pass.
    let sets = [Direction::Egress, Direction::Ingress]
        .map(|stops| compile(&[rule(stops, false, 0), rule(stops.reverse(), true, 1)]));
    let mut bed = Bed::new(&sets[0]);
    let (arrived, sent) = bed.flow(|bed, turn| bed.publish(&sets[turn % 2]));
    assert_eq!(arrived, [], "frames were judged by a mix");
    let left = bed.dropped(1, DropReason::AclOut);
    let reached = bed.dropped(2, DropReason::AclIn);
    assert_eq!(left + reached, u64::from(sent), "each was stopped once");
    assert!(left > 0 && reached > 0, "both sets were in force: {left}, {reached}");
}

#[test]
fn ten_thousand_rules_are_replaced_without_losing_a_frame() {
    // Two sets that have nothing in common but that they permit the frames.
    let sets = [0, 1].map(|number: u32| {
        let other = |direction, at: u32| Rule {
            part: Part::Ports(6000 + at as u16, 6000 + at as u16),
            remote: Remote::Prefix(IpNet::V4(Ipv4Net::from(std::net::Ipv4Addr::from(
                (at << 12) + number,
            )))),
            ..rule(direction, true, at)
        };
        let both = [Direction::Ingress, Direction::Egress];
        let rules: Vec<_> = both
            .into_iter()
            .flat_map(|way| {
                (0..10_000).map(move |at| other(way, at)).chain([rule(way, true, 10_000)])
            })
            .collect();
        compile(&rules)
    });
    let mut bed = Bed::new(&sets[0]);
    let (arrived, sent) = bed.flow(|bed, turn| bed.publish(&sets[turn % 2]));
    assert!(arrived.into_iter().eq(0..sent), "all arrive, in order");
    // Each set was asked: what was counted at its rule (a frame of one in eight bursts) shows it.
    let label = RuleLabel { group: 0, rule: 10_000 };
    for acl in &sets {
        let entries = acl.entries(Direction::Egress);
        let asked: u64 = entries
            .iter()
            .zip(acl.hits(Direction::Egress).0)
            .filter_map(|(entry, hits)| (entry.rule.label == label).then_some(hits))
            .sum();
        assert!(asked > 0, "a set was never in force");
    }
}
