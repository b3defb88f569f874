//! A worker, and guests on one network.

use std::sync::Arc;

use dataplane::clock::Clock;
use dataplane::counters::WorkerCounters;
use dataplane::fdb::{Fdb, FdbOptions, Hash};
use dataplane::mailbox::{Mail, Postman, mailbox};
use dataplane::policy::Policy;
use dataplane::port::Rxq;
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder};
use dataplane::worker::Worker;
use vhost::Device;

use crate::bed::mac;

/// A worker with guests on its ports 1, 2, …, all on one network. Guest *n*'s address is *n*.
#[allow(dead_code, reason = "one bench alone replaces plans")]
pub struct Switch {
    /// The worker.
    pub worker: Worker,
    /// What the worker follows.
    pub publisher: Publisher<Plan>,
    /// By which its tables find addresses.
    pub hash: Hash,
    _postman: Postman,
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

        for (device, number) in devices.iter().zip(1..) {
            let rxq = Rxq::new(port(number), 0, Box::new(device.rxq(0)));
            postman.send(Mail::Attach(rxq)).expect("room for a letter");
        }
        publisher.publish(plan(hash, devices, stations, policy));
        assert_eq!(worker.poll(), 0, "the worker takes queues and plan; nothing waits");
        Self { worker, publisher, hash, _postman: postman }
    }
}

/// A plan for guests on the ports 1, 2, …, see [`Switch`].
pub fn plan(
    hash: Hash,
    devices: &[Arc<Device>],
    stations: bool,
    policy: impl Fn(u64) -> Option<Arc<Policy>>,
) -> Plan {
    let domain = DomainId::new(1).expect("few domains");
    let mut builder = SnapshotBuilder::default();
    builder.domain(domain, DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None });
    let mut plan = Plan { egress: vec![None], ..Plan::default() };
    for (device, number) in devices.iter().zip(1..) {
        let known = if stations { vec![mac(number)] } else { Vec::new() };
        builder.access(port(number), true, domain, &known, policy(number));
        plan.egress.push(Some(Arc::clone(device) as _));
    }
    plan.snapshot = builder.build(hash);
    plan
}

fn port(number: u64) -> PortId {
    PortId::new(number as usize).expect("few ports")
}
