//! Workers with guests at all ends: bursts, and receive queues that go from one worker to another.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::clock::Clock;
use dataplane::counters::{DropReason, WorkerCounters};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::headers::Mac;
use dataplane::mailbox::{Mail, Postman, Returned, mailbox};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::watch::{Filter, Mirror, Mirrors, Record, Step, Wanted, Watch};
use dataplane::worker::Worker;
use vhost::mock::Guest;
use vhost::{BURST_MAX, Device};

/// Entries of each ring.
const RING: u16 = 1024;

/// A guest with one queue pair, which its test drives. It is port and address *n* of its switch.
struct Station {
    number: usize,
    device: Arc<Device>,
    rx: Guest,
    tx: Guest,
    transmitted: u16,
}

/// Some workers, and guests on one network.
struct Switch {
    workers: Vec<(Worker, Postman, Arc<WorkerCounters>)>,
    stations: Vec<Station>,
    _publisher: Publisher<Plan>,
}

fn port(number: usize) -> PortId {
    PortId::new(number).unwrap()
}

fn mac(number: usize) -> Mac {
    Mac::from_bits(0x0200_0000_0000 + number as u64)
}

fn frame(from: usize, to: usize, number: u32) -> Vec<u8> {
    let mut frame = [mac(to).bytes(), mac(from).bytes()].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// The sender and the number of a frame.
fn read(frame: &[u8]) -> (usize, u32) {
    let number = u32::from_be_bytes(frame[14..18].try_into().unwrap());
    (usize::from(frame[11]), number)
}

impl Station {
    fn new(number: usize) -> Self {
        let device = Device::new(1);
        let (mut rx, tx) = (Guest::new(RING), Guest::new(RING));
        (0..RING).for_each(|index| rx.supply(index, 2048));
        device.start_ring(0, rx.ring());
        device.start_ring(1, tx.ring());
        Self { number, device, rx, tx, transmitted: 0 }
    }

    fn transmit(&mut self, to: usize, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.tx.transmit(self.transmitted % RING, &frame(self.number, to, number));
            self.transmitted = self.transmitted.wrapping_add(1);
        }
    }

    fn received(&mut self) -> Vec<(usize, u32)> {
        self.rx.received().iter().map(|frame| read(frame)).collect()
    }
}

impl Switch {
    /// Guests 1, 2, …, all polled by the first worker.
    fn new(workers: usize, stations: usize) -> Self {
        Self::under(workers, stations, Plan::default())
    }

    /// The same, with somebody who looks on.
    fn under(workers: usize, stations: usize, mut plan: Plan) -> Self {
        let (mut publisher, readers) = Publisher::new(Plan::default(), workers);
        let options = FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 1,
        };
        let (fdb, clock) = (Arc::new(Fdb::new(options)), Clock::calibrate());
        let hash = fdb.hash();
        let workers = readers.into_iter().enumerate().map(|(number, reader)| {
            let (postman, mailbox) = mailbox();
            let counters = Arc::new(WorkerCounters::default());
            let (fdb, its) = (Arc::clone(&fdb), Arc::clone(&counters));
            (Worker::new(number, reader, mailbox, fdb, clock, its), postman, counters)
        });
        let mut workers: Vec<_> = workers.collect();
        let stations: Vec<_> = (1..=stations).map(Station::new).collect();

        let domain = DomainId::new(1).unwrap();
        let mut builder = SnapshotBuilder::default();
        let spec = DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None };
        builder.domain(domain, spec);
        plan.egress.push(None);
        for station in &stations {
            let id = port(station.number);
            builder.access(id, true, domain, &[mac(station.number)], None);
            plan.egress.push(Some(Arc::clone(&station.device) as _));
            let rxq = Rxq::new(id, 0, Box::new(station.device.rxq(0)));
            workers[0].1.send(Mail::Attach(rxq)).unwrap();
        }
        plan.snapshot = builder.build(hash);
        publisher.publish(plan);
        workers.iter_mut().for_each(|(worker, ..)| assert_eq!(worker.poll(), 0));
        Self { workers, stations, _publisher: publisher }
    }

    fn poll(&mut self, worker: usize) -> usize {
        self.workers[worker].0.poll()
    }

    /// Gives a guest's receive queue to another worker, as the control thread does. `polls` are made
    /// by the one that loses it before it looks into its mail.
    fn transfer(&mut self, station: usize, from: usize, to: usize) {
        let port = port(station);
        self.workers[from].1.send(Mail::Detach { port, queue: Some(0) }).unwrap();
        self.poll(from);
        let Some(Returned::Queue(rxq)) = self.workers[from].1.collect() else { panic!("no queue") };
        assert!(
            matches!(self.workers[from].1.collect(), Some(Returned::Detached(it)) if it == port)
        );
        self.workers[to].1.send(Mail::Attach(rxq)).unwrap();
    }

    /// Frames that were dropped at any port.
    fn drops(&self) -> u64 {
        let stations = self.stations.iter().map(|station| port(station.number));
        let of = |port| {
            self.workers.iter().map(move |(_, _, it)| it.port(port).drops.iter().sum::<u64>())
        };
        stations.flat_map(of).sum()
    }
}

#[test]
fn a_guest_takes_thousands_of_frames_at_once() {
    let mut switch = Switch::new(1, 2);
    // More than 15 bursts wait, and the receiver has just as many buffers.
    switch.stations[0].transmit(2, 0..RING.into());
    let polls = (0..).find(|_| switch.poll(0) == 0).unwrap();
    assert_eq!(polls, usize::from(RING) / BURST_MAX);
    let received = switch.stations[1].received();
    assert!(received.into_iter().eq((0..RING.into()).map(|number| (1, number))));
    assert_eq!(switch.drops(), 0);
    // One more finds the ring full, and that is all that is lost.
    switch.stations[0].transmit(2, 0..1);
    assert_eq!(switch.poll(0), 1);
    let totals = switch.workers[0].2.port(port(2));
    assert_eq!((totals.dropped(DropReason::RingFull), switch.drops()), (1, 1));
}

/// All records of the first worker, which may write them again.
fn records(watch: &Watch, mut see: impl FnMut(&Record)) {
    while let Some(record) = watch.take(0) {
        see(&record);
        watch.give_back(0, record);
    }
}

#[test]
fn who_watches_sees_what_became_of_each_frame() {
    let watch = |wanted, ports: &[_]| Arc::new(Watch::new(wanted, ports, Filter::default(), 40, 1));
    let (all, drops) = (watch(Wanted::All, &[port(2)]), watch(Wanted::Drops, &[]));
    let courses = watch(Wanted::Courses, &[port(1)]);
    let other = watch(Wanted::All, &[port(3)]);
    let watches = [&all, &drops, &courses, &other].map(Arc::clone).to_vec();
    let mut switch = Switch::under(1, 3, Plan { watches, ..Plan::default() });
    let sent = u32::from(RING);
    switch.stations[0].transmit(2, 0..sent);
    while switch.poll(0) > 0 {}
    // The receiver has no buffer left for these.
    switch.stations[0].transmit(2, sent..sent + 10);
    assert_eq!(switch.poll(0), 10);
    assert_eq!(switch.workers[0].2.port(port(2)).dropped(DropReason::RingFull), 10);
    let received = switch.stations[1].received();
    assert!(received.into_iter().eq((0..sent).map(|number| (1, number))), "in their order");

    // There is room for 1024 records: the ten frames that came last are told as lost.
    let mut numbers = Vec::new();
    records(&all, |record| {
        let Step::Sent { to, dropped: None, .. } = record.step else { panic!("{record:?}") };
        assert_eq!((to, record.from, record.bytes), (port(2), port(1), 60));
        assert_eq!(record.data().len(), 40);
        numbers.push(read(record.data()).1);
    });
    assert!(numbers.iter().copied().eq(0..1024));
    assert!(all.lost().eq([(port(2), 10)]));
    let mut dropped = Vec::new();
    records(&drops, |record| {
        assert_eq!(record.dropped(), Some(DropReason::RingFull));
        dropped.push(read(record.data()).1);
    });
    assert!(dropped.into_iter().eq(sent..sent + 10), "those that pass need no record for long");
    assert_eq!(drops.lost().count(), 0);
    // One of each burst, and the two steps of it.
    let (mut bursts, mut steps) = (0, 0);
    records(&courses, |record| match record.step {
        Step::Received { dropped: None, ports: 1, flooded: false } => {
            bursts += 1;
            steps = record.serial;
        }
        Step::Sent { to, .. } => assert_eq!((to, record.serial), (port(2), steps)),
        step => panic!("{step:?}"),
    });
    assert_eq!(bursts, usize::from(RING) / BURST_MAX + 1);
    assert!(other.take(0).is_none(), "it is about another port");

    all.end();
    switch.stations[0].transmit(2, 0..1);
    assert_eq!(switch.poll(0), 1);
    assert!(all.take(0).is_none(), "it has ended");
}

#[test]
fn a_mirror_copies_both_ways_and_loses_what_its_listener_cannot_take() {
    let mut mirrors = Mirrors::default();
    let mirror = Mirror { to: port(3), received: true, sent: true, filter: Filter::default() };
    mirrors.set(port(1), mirror);
    let mut switch = Switch::under(1, 4, Plan { mirrors, ..Plan::default() });
    let sent = u32::from(RING);
    // Frames between others are not its business.
    switch.stations[1].transmit(4, 0..5);
    switch.poll(0);
    assert_eq!(switch.stations[2].received(), []);
    // A third of what the listener has room for, each way, then more than it has.
    switch.stations[0].transmit(2, 0..sent / 3);
    switch.stations[1].transmit(1, 0..sent / 3);
    while switch.poll(0) > 0 {}
    let copies = switch.stations[2].received();
    let of = |from| move |copy: &&(usize, u32)| copy.0 == from;
    assert!(copies.iter().filter(of(1)).map(|copy| copy.1).eq(0..sent / 3), "in their order");
    assert!(copies.iter().filter(of(2)).map(|copy| copy.1).eq(0..sent / 3), "in their order");
    assert_eq!(copies.len(), 2 * (sent as usize / 3));
    assert_eq!(switch.drops(), 0);

    switch.stations[0].transmit(2, 0..sent / 2);
    while switch.poll(0) > 0 {}
    let room = sent - 2 * (sent / 3);
    assert_eq!(switch.stations[2].received().len(), room as usize);
    let received = switch.stations[1].received();
    assert_eq!(received.len(), (sent / 3 + sent / 2) as usize, "the receiver gets all");
    let lost = u64::from(sent / 2 - room);
    assert_eq!(switch.workers[0].2.port(port(3)).dropped(DropReason::RingFull), lost);
    assert_eq!(switch.drops(), lost, "nobody else loses any");
}

#[test]
fn bursts_of_many_to_one_guest_fill_its_ring_to_the_last_buffer() {
    let mut switch = Switch::new(1, 9);
    // Eight senders have 128 frames each for one receiver.
    for station in 0..8 {
        switch.stations[station].transmit(9, 0..128);
    }
    while switch.poll(0) > 0 {}
    let mut by_sender = BTreeMap::<_, Vec<_>>::new();
    for (sender, number) in switch.stations[8].received() {
        by_sender.entry(sender).or_default().push(number);
    }
    assert_eq!(by_sender.len(), 8);
    assert!(by_sender.values().all(|numbers| numbers.iter().copied().eq(0..128)));
    assert_eq!(switch.drops(), 0);
}

#[test]
fn a_burst_delays_others_by_no_more_than_one_iteration() {
    let mut switch = Switch::new(1, 4);
    // The first three could go on for long.
    for station in 0..3 {
        switch.stations[station].transmit(3 - station, 0..1000);
    }
    switch.stations[3].transmit(1, 0..1);
    assert_eq!(switch.poll(0), 3 * BURST_MAX + 1, "a burst of each");
    let from_last = switch.stations[0].received().into_iter().filter(|(sender, _)| *sender == 4);
    assert_eq!(from_last.count(), 1, "it was served in the first iteration");
}

#[test]
fn who_has_much_takes_turns_that_quiet_queues_leave() {
    let mut switch = Switch::new(1, 36);
    switch.stations[7].transmit(1, 0..1000);
    switch.stations[30].transmit(1, 0..1);
    // What 34 quiet queues leave.
    assert_eq!(switch.poll(0), 3 * BURST_MAX + 1);
    switch.stations[20].transmit(2, 0..1000);
    assert_eq!(switch.poll(0), 4 * BURST_MAX, "who comes first has what was left by one iteration");
    assert_eq!(switch.poll(0), 4 * BURST_MAX, "now they share it");
    for (sender, of, bursts) in [(8, 0, 8), (21, 1, 3)] {
        let received = switch.stations[of].received().into_iter();
        let numbers = received.filter(|(from, _)| *from == sender).map(|(_, number)| number);
        assert!(numbers.eq(0..bursts * BURST_MAX as u32), "in order, from {sender}");
    }
    assert_eq!(switch.drops(), 0);
}

#[test]
fn a_queue_goes_to_another_worker_without_loss_or_disorder() {
    let mut switch = Switch::new(2, 3);
    let mut next = 0;
    let mut received = Vec::new();
    for round in 0..60 {
        // Between one and three bursts wait, and part of them when the queue changes hands.
        let count = 40 + 3 * round;
        switch.stations[0].transmit(2, next..next + count);
        next += count;
        let (from, to) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        switch.poll(from);
        switch.transfer(1, from, to);
        // The old worker goes on with what it still has.
        switch.poll(from);
        while switch.poll(to) > 0 {}
        let station = &mut switch.stations[1];
        for (index, frame) in station.rx.received().iter().enumerate() {
            received.push(read(frame));
            let at = (received.len() - 1) % usize::from(RING);
            assert!(index < usize::from(RING));
            station.rx.supply(at as u16, 2048);
        }
    }
    assert!(received.into_iter().eq((0..next).map(|number| (1, number))));
    assert_eq!(switch.drops(), 0);
    let [zero, one] = [0, 1].map(|at| switch.workers[at].2.frames.load(Ordering::Relaxed));
    assert!(zero > 1000 && one > 1000, "both had their part: {zero} and {one}");
}

#[test]
fn what_a_queue_costs_is_counted_wherever_it_is() {
    let mut switch = Switch::new(2, 2);
    let rxq = Rxq::new(port(1), 1, Box::new(switch.stations[0].device.rxq(0)));
    let counters = Arc::clone(&rxq.counters);
    // The first worker gives up the queue that it has, for one of the test's own.
    let detach = Mail::Detach { port: port(1), queue: None };
    switch.workers[0].1.send(detach).unwrap();
    switch.workers[0].1.send(Mail::Attach(rxq)).unwrap();
    switch.stations[0].transmit(2, 0..70);
    while switch.poll(0) > 0 {}
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((read(&counters.frames), read(&counters.bursts)), (70, 2));
    let cycles = read(&counters.cycles);
    assert!(cycles > 0 && cycles <= read(&switch.workers[0].2.busy_cycles));

    // Another queue of that number is not meant.
    switch.workers[0].1.send(Mail::Detach { port: port(1), queue: Some(0) }).unwrap();
    switch.workers[0].1.send(Mail::Detach { port: port(1), queue: Some(1) }).unwrap();
    switch.poll(0);
    let back: Vec<_> = std::iter::from_fn(|| switch.workers[0].1.collect()).collect();
    let mut queues = back.into_iter().filter_map(|it| match it {
        Returned::Queue(rxq) => Some(rxq),
        _ => None,
    });
    let (first, second) = (queues.next().unwrap(), queues.next().unwrap());
    assert_eq!((first.queue, second.queue), (0, 1), "the first was asked for at the beginning");
    assert!(queues.next().is_none());
    switch.workers[1].1.send(Mail::Attach(second)).unwrap();
    switch.stations[0].transmit(2, 0..5);
    assert_eq!(switch.poll(1), 5);
    assert_eq!((read(&counters.frames), read(&counters.bursts)), (75, 3));
    assert!(read(&counters.cycles) > cycles);
}
