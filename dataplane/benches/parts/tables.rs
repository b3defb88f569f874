//! Parts that look things up: parse, addresses of desired state, the FDB, the decision.

use std::hint::black_box;

use dataplane::decide::{Egress, decide};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::headers::{Headers, Mac};
use dataplane::snapshot::{DomainId, DomainSpec, PortId, Snapshot, SnapshotBuilder};

use crate::bed::{BURST, frame, mac};
use crate::part::{Meter, Part, Run};

/// Addresses in the FDB, on each of two ports.
const ADDRESSES: u64 = 10_000;

/// New addresses that a burst may bring.
const INSERTS: u64 = 16;

pub fn parts() -> Vec<Part> {
    let part = |name, build| Part { name, unit: "frame", units: BURST, build };
    vec![
        part("parse", parse),
        part("station-find", station_find),
        part("fdb-lookup", fdb_lookup),
        part("fdb-refresh", fdb_refresh),
        Part { name: "fdb-insert", unit: "address", units: INSERTS, build: fdb_insert },
        part("decide-stations", || deciding(true)),
        part("decide-learned", || deciding(false)),
    ]
}

fn port(number: usize) -> PortId {
    PortId::new(number).expect("few ports")
}

fn domain() -> DomainId {
    DomainId::new(1).expect("few domains")
}

/// Port 0 has the even addresses, port 1 the odd ones, in the FDB or by desired state.
fn tables(stations: bool) -> (Snapshot, Fdb) {
    let fdb = Fdb::new(FdbOptions {
        entries: 65_536,
        ageing_seconds: 300,
        port_quota: 65_536,
        domain_quota: 65_536,
        seed: 1,
    });
    let addresses = |of: u64| (0..ADDRESSES).map(move |at| mac(2 * at + of));
    let mut builder = SnapshotBuilder::default();
    builder
        .domain(domain(), DomainSpec { mtu: 1500, learning: true, flooding: true, uplink: None });
    for number in 0..2 {
        let known: Vec<_> = if stations { addresses(number).collect() } else { Vec::new() };
        builder.access(port(number as usize), true, domain(), &known, None);
        if !stations {
            for address in addresses(number) {
                let mut learner = fdb.learner(1);
                learner.learn(learner.place(domain(), address), port(number as usize));
            }
        }
    }
    (builder.build(fdb.hash()), fdb)
}

/// Walks through the addresses of a port in an order that no prefetcher foresees.
struct Walk(u64);

impl Walk {
    fn next(&mut self, of: u64) -> Mac {
        self.0 = (self.0 + 7_919) % ADDRESSES;
        mac(2 * self.0 + of)
    }

    fn burst(&mut self, of: u64) -> Vec<Mac> {
        (0..BURST).map(|_| self.next(of)).collect()
    }
}

fn parse() -> Box<dyn Run> {
    let heads: Vec<_> = (0..BURST).map(|at| frame(mac(at), mac(at + 1), 64)).collect();
    Box::new(move |meter: &mut Meter| {
        meter.measure(|| {
            for head in &heads {
                let _ = black_box(Headers::parse_head(black_box(head), 64));
            }
        });
    })
}

fn station_find() -> Box<dyn Run> {
    let (snapshot, fdb) = tables(true);
    let mut walk = Walk(0);
    Box::new(move |meter: &mut Meter| {
        let macs = walk.burst(1);
        meter.measure(|| {
            for mac in &macs {
                let place = fdb.hash().place(domain(), black_box(*mac));
                assert_eq!(snapshot.stations().find(place), Some(port(1)));
            }
        });
    })
}

fn fdb_lookup() -> Box<dyn Run> {
    let (_, fdb) = tables(false);
    let mut walk = Walk(0);
    Box::new(move |meter: &mut Meter| {
        let macs = walk.burst(1);
        meter.measure(|| {
            let learner = fdb.learner(2);
            for mac in &macs {
                let place = learner.place(domain(), black_box(*mac));
                assert_eq!(learner.lookup(place), Some(port(1)));
            }
        });
    })
}

fn fdb_refresh() -> Box<dyn Run> {
    let (_, fdb) = tables(false);
    let mut walk = Walk(0);
    Box::new(move |meter: &mut Meter| {
        let macs = walk.burst(1);
        meter.measure(|| {
            let mut learner = fdb.learner(2);
            for mac in &macs {
                learner.learn(learner.place(domain(), black_box(*mac)), port(1));
            }
        });
    })
}

fn fdb_insert() -> Box<dyn Run> {
    let (_, fdb) = tables(false);
    let mut next = 1 << 32;
    Box::new(move |meter: &mut Meter| {
        let macs: Vec<_> = (next..next + INSERTS).map(mac).collect();
        next += INSERTS;
        meter.measure(|| {
            let mut learner = fdb.learner(2);
            for mac in &macs {
                learner.learn(learner.place(domain(), black_box(*mac)), port(1));
            }
        });
        // A table that fills up does something else than admit, so it is emptied in time.
        if next.is_multiple_of(1 << 14) {
            fdb.flush_port(port(1));
        }
    })
}

fn deciding(stations: bool) -> Box<dyn Run> {
    let (snapshot, fdb) = tables(stations);
    let mut walk = Walk(0);
    Box::new(move |meter: &mut Meter| {
        let heads: Vec<_> = (0..BURST)
            .map(|_| Headers::parse_head(&frame(walk.next(0), walk.next(1), 64), 64))
            .map(|headers| headers.expect("a whole frame"))
            .collect();
        meter.measure(|| {
            let mut learner = fdb.learner(2);
            for headers in &heads {
                let attached = snapshot.port(port(0)).expect("the port is configured");
                let headers = black_box(headers);
                let egress = decide(headers, port(0), attached, &snapshot, &mut learner);
                let Ok(Egress::Port(to, _)) = egress else { panic!("the address is known") };
                assert_eq!(to, port(1));
            }
        });
    })
}
