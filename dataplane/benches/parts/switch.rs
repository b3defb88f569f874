//! A worker, and guests on one network.

use std::sync::Arc;

use dataplane::clock::Clock;
use dataplane::counters::WorkerCounters;
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::policy::Policy;
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::worker::Worker;
use vhost::Device;

use crate::bed::mac;

/// A worker with guests on its ports 1, 2, …, all on one network. Guest *n*'s address is *n*.
pub struct Switch {
    /// The worker.
    pub worker: Worker,
    _postman: Postman,
    _publisher: Publisher<Plan>,
}

impl Switch {
    /// With the guests' addresses known to desired state, or not.
    pub fn new(devices: &[Arc<Device>], stations: bool) -> Self {
        Self::with_policies(devices, stations, |_| None)
    }

    /// As [`new`](Self::new), the ports with policies that are made for their numbers.
    pub fn with_policies(
        devices: &[Arc<Device>],
        stations: bool,
        policy: impl Fn(u64) -> Option<Arc<Policy>>,
    ) -> Self {
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
            builder.access(port, true, domain, &known, policy(number as u64));
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
