//! The whole way of a frame: a worker's poll, with guests at both ends.

use std::sync::Arc;

use dataplane::clock::Clock;
use dataplane::counters::WorkerCounters;
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::worker::Worker;
use vhost::Device;

use crate::bed::{BURST, GuestBed, frame, mac};
use crate::part::{Meter, Part, Run};

/// Ports of which nobody sends, in the parts of that name.
const IDLE_PORTS: u64 = 64;

pub fn parts() -> Vec<Part> {
    let part = |name, build| Part { name, unit: "frame", units: BURST, build };
    vec![
        part("poll-64", || one_way(64, BURST, true)),
        part("poll-64-learned", || one_way(64, BURST, false)),
        part("poll-512", || one_way(512, BURST, true)),
        part("poll-1500", || one_way(1500, BURST, true)),
        Part { name: "poll-64-single", unit: "frame", units: 1, build: || one_way(64, 1, true) },
        part("poll-64-flood", flood),
        Part { name: "poll-idle-64", unit: "queue", units: IDLE_PORTS, build: || idle(true) },
        Part { name: "poll-absent-64", unit: "queue", units: IDLE_PORTS, build: || idle(false) },
    ]
}

/// A worker with guests on its ports 1, 2, …, all on one network. Guest *n*'s address is *n*.
struct Switch {
    worker: Worker,
    _postman: Postman,
    _publisher: Publisher<Plan>,
}

impl Switch {
    fn new(devices: &[Arc<Device>], stations: bool) -> Self {
        let (mut publisher, mut readers) = Publisher::new(Plan::default(), 1);
        let (postman, mailbox) = mailbox();
        let fdb = Fdb::new(FdbOptions {
            entries: 65_536,
            ageing_seconds: 300,
            port_quota: 4096,
            domain_quota: 65_536,
            seed: 1,
        });
        let counters = Arc::new(WorkerCounters::default());
        let clock = Clock::calibrate();
        let reader = readers.remove(0);
        let hash = fdb.hash();
        let mut worker = Worker::new(0, reader, mailbox, Arc::new(fdb), clock, counters);

        let domain = DomainId::new(1).expect("few domains");
        let mut builder = SnapshotBuilder::default();
        builder
            .domain(domain, DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None });
        let mut plan = Plan { egress: vec![None], ..Plan::default() };
        for (device, number) in devices.iter().zip(1..) {
            let port = PortId::new(number).expect("few ports");
            let known = if stations { vec![mac(number as u64)] } else { Vec::new() };
            builder.access(port, true, domain, &known);
            plan.egress.push(Some(Arc::clone(device) as _));
            let rxq = Rxq::new(port, 0, Box::new(device.rxq(0)));
            postman.send(Mail::Attach(rxq)).expect("room for a letter");
        }
        plan.snapshot = builder.build(hash);
        publisher.publish(plan);
        assert_eq!(worker.poll(), 0, "the worker takes queues and plan; nothing waits");
        Self { worker, _postman: postman, _publisher: publisher }
    }
}

/// Frames from the first to the second of two guests, in bursts of `frames`.
fn one_way(bytes: usize, frames: u64, stations: bool) -> Box<dyn Run> {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let mut switch = Switch::new(&[Arc::clone(&from.device), Arc::clone(&to.device)], stations);
    if !stations {
        // Both are heard once, so that what follows is known and not flooded.
        to.transmit(&frame(mac(2), mac(1), 64), 1);
        from.supply(1);
        switch.worker.poll();
    }
    let frame = frame(mac(1), mac(2), bytes);
    Box::new(move |meter: &mut Meter| {
        from.transmit(&frame, frames);
        to.supply(frames);
        meter.measure(|| assert_eq!(switch.worker.poll() as u64, frames));
        let received = to.received();
        assert!(received.len() as u64 == frames && received.iter().all(|got| *got == frame));
    })
}

/// Broadcast frames from one guest to three.
fn flood() -> Box<dyn Run> {
    let mut guests: Vec<_> = (0..4).map(|_| GuestBed::new()).collect();
    let devices: Vec<_> = guests.iter().map(|guest| Arc::clone(&guest.device)).collect();
    let mut switch = Switch::new(&devices, true);
    let frame = frame(mac(1), dataplane::headers::Mac::new([0xff; 6]), 64);
    Box::new(move |meter: &mut Meter| {
        guests[0].transmit(&frame, BURST);
        guests[1..].iter_mut().for_each(|guest| guest.supply(BURST));
        meter.measure(|| assert_eq!(switch.worker.poll() as u64, BURST));
        for guest in &mut guests[1..] {
            assert_eq!(guest.received().len() as u64, BURST);
        }
    })
}

/// A poll of many ports that have nothing to say: guests that are silent, or none at all.
fn idle(running: bool) -> Box<dyn Run> {
    let guests: Vec<_> = (0..IDLE_PORTS).map(|_| GuestBed::new()).collect();
    let devices: Vec<_> = guests.iter().map(|guest| Arc::clone(&guest.device)).collect();
    let mut switch = Switch::new(&devices, true);
    if !running {
        for device in &devices {
            device.stop_ring(0);
            device.stop_ring(1);
        }
    }
    Box::new(move |meter: &mut Meter| meter.measure(|| assert_eq!(switch.worker.poll(), 0)))
}
