//! Frames with work left undone, through a worker to ports that can do different things.
//!
//! Three guests and a wire (`net_ring`, which computes and cuts nothing) are on one network: `all`
//! accepts every offload, `none` accepts none, and both and the wire get what the sender sends.
#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

mod common;

use std::sync::Arc;

use common::eal;
use dataplane::clock::Clock;
use dataplane::counters::{DropReason, PortTotals, WorkerCounters};
use dataplane::dpdk::{EthConfig, EthDev, Mempool};
use dataplane::fdb::{Fdb, FdbOptions};
use dataplane::mailbox::{Mail, mailbox};
use dataplane::port::eth::{EthPort, EthSource};
use dataplane::port::{Rxq, TxPort};
use dataplane::publish::Publisher;
use dataplane::snapshot::{DomainId, DomainSpec, Plan, PortId, SnapshotBuilder, Vid};
use dataplane::worker::Worker;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use vhost::features::device::{
    CSUM, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, HOST_ECN, HOST_TSO4, HOST_TSO6,
};
use vhost::mock::Guest;
use vhost::{Burst, Device, Offloads, Received, TagEdit, Vring, VringConfig};

const RING: u16 = 128;
const BUFFER_BYTES: u32 = 2048;
const POOL_FRAMES: u32 = 1023;
const VLAN: u16 = 100;

/// Ethernet, IPv4 and TCP without options.
const START: u16 = 34;
const HEADERS: usize = 54;

/// A guest as its driver sees it.
struct Far {
    receives: Guest,
    sends: Guest,
}

struct Bed {
    worker: Worker,
    counters: Arc<WorkerCounters>,
    sender: Far,
    all: Far,
    none: Far,
    wire: EthSource,
    pool: Mempool,
    _publisher: Publisher<Plan>,
}

const SENDER: usize = 1;
const ALL: usize = 2;
const NONE: usize = 3;
const WIRE: usize = 4;

fn id(number: usize) -> PortId {
    PortId::new(number).unwrap()
}

fn guest(left: u64, accepted: u64) -> (Arc<Device>, Far) {
    let device = Device::new(1);
    let mut far = Far { receives: Guest::new(RING), sends: Guest::new(RING) };
    let (left, accepted) = (Offloads::left_by(left), Offloads::accepted_by(accepted));
    for (queue, guest) in [(0, &far.receives), (1, &far.sends)] {
        let config = VringConfig { left, accepted, ..guest.config() };
        device.start_ring(queue, Vring::new(guest.memory(), &config).unwrap());
    }
    (0..RING).for_each(|index| far.receives.supply(index, BUFFER_BYTES));
    (device, far)
}

impl Bed {
    fn new(name: &str) -> Self {
        let eal = eal();
        let pool = Mempool::create(eal, name, POOL_FRAMES, 2048, None).unwrap();
        let mut device = EthDev::probe(eal, &format!("net_ring_{name}")).unwrap();
        let mut started = device.configure_and_start(&EthConfig::default(), &pool).unwrap();
        let wire = EthSource::new(started.rxqs.remove(0));
        let multi_segment = started.applied.multi_segment_tx;
        let uplink = EthPort::new(started.txqs, pool.clone(), multi_segment)
            .with_offloads(started.applied.tx_offloads);

        let (sender, sends) = guest(CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN, 0);
        let (all, takes) = guest(0, GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN);
        let (none, plain) = guest(0, 0);
        let rxq = Rxq::new(id(SENDER), 0, Box::new(sender.rxq(0)));
        let egress: [Arc<dyn TxPort>; 4] = [sender, all, none, Arc::new(uplink)];

        let fdb = Fdb::new(FdbOptions {
            entries: 1024,
            ageing_seconds: 300,
            port_quota: 100,
            domain_quota: 1000,
            seed: 42,
        });
        let mut builder = SnapshotBuilder::default();
        builder.uplink(id(WIRE), true);
        let domain = DomainId::new(0).unwrap();
        let uplink = Some((id(WIRE), Vid::new(VLAN)));
        builder.domain(domain, DomainSpec { mtu: 1500, learning: true, flooding: true, uplink });
        for port in [SENDER, ALL, NONE] {
            builder.access(id(port), true, domain, &[], None);
        }
        let mut plan =
            Plan { snapshot: builder.build(fdb.hash()), egress: vec![None], ..Plan::default() };
        plan.egress.extend(egress.map(Some));

        let (publisher, mut readers) = Publisher::new(plan, 1);
        let (postman, mailbox) = mailbox();
        let counters = Arc::new(WorkerCounters::default());
        let (reader, clock) = (readers.remove(0), Clock::calibrate());
        let mut worker =
            Worker::new(0, reader, mailbox, Arc::new(fdb), clock, Arc::clone(&counters));
        postman.send(Mail::Attach(rxq)).unwrap();
        worker.poll();
        let (sender, all, none) = (sends, takes, plain);
        Self { worker, counters, sender, all, none, wire, pool, _publisher: publisher }
    }

    /// Sends one frame behind a net header.
    fn send(&mut self, header: [u8; 12], frame: &[u8]) {
        self.sender.sends.transmit_pieces(0, &header, frame, &[12, 200]);
        assert_eq!(self.worker.poll(), 1);
        assert_eq!(self.sender.sends.completed().len(), 1, "the sender has its buffers back");
    }

    /// What is on the wire.
    fn on_wire(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut burst = Burst::default();
        loop {
            let received = Received::take(&mut self.wire, &mut burst);
            if received.frames().is_empty() {
                return frames;
            }
            for frame in received.frames().iter() {
                let mut bytes = vec![0; frame.bytes()];
                frame.copy_to_pieces(TagEdit::Keep, [&mut bytes[..]]);
                frames.push(bytes);
            }
        }
    }

    fn totals(&self, port: usize) -> PortTotals {
        self.counters.port(id(port))
    }
}

/// The net header of a frame of TCP over IPv4.
fn header(gso: u8, segment: u16) -> [u8; 12] {
    let ([low, high], start) = (segment.to_le_bytes(), START.to_le_bytes());
    [1, gso, 0, 0, low, high, start[0], start[1], 16, 0, 0, 0]
}

/// A frame of TCP to everybody, with what a driver leaves where the checksum goes: the sum over the
/// pseudo header.
fn frame(payload: usize) -> Vec<u8> {
    let payload: Vec<_> = (0..payload).map(|at| (at % 241) as u8).collect();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(5001, 5002, 77_000, 4000)
        .psh()
        .ack(1);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).unwrap();
    let length = (frame.len() - usize::from(START)) as u32;
    let mut sum = 0x0a00 + 1 + 0x0a00 + 2 + 6 + length;
    sum = (sum & 0xffff) + (sum >> 16);
    frame[50..52].copy_from_slice(&(sum as u16).to_be_bytes());
    frame
}

/// Takes a complete frame apart: its payload, if lengths and checksums are right.
fn complete(frame: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4: {packet:?}") };
    let ip = ip.header();
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("no TCP: {packet:?}") };
    let expected = tcp.calc_checksum_ipv4(ip.source(), ip.destination()).unwrap();
    assert_eq!(tcp.checksum(), expected);
    tcp.payload().to_vec()
}

#[test]
fn a_segment_floods_whole_and_in_pieces() {
    let mut bed = Bed::new("flood");
    for payload in [64_000, 1460, 3] {
        let sent = frame(payload);
        let before = [ALL, NONE, WIRE].map(|port| bed.totals(port));
        bed.send(header(1, 1448), &sent);

        let whole = bed.all.receives.received_with_headers();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].0[..2], [1, 1], "what is left to do");
        assert!(whole[0].1 == sent, "a frame of {payload} bytes has changed");

        let segments = payload.div_ceil(1448);
        let plain = bed.none.receives.received();
        let tagged = bed.on_wire();
        assert_eq!((plain.len(), tagged.len()), (segments, segments));
        for (plain, tagged) in plain.iter().zip(&tagged) {
            assert_eq!(tagged[12..16], [0x81, 0, 0, VLAN as u8]);
            let mut untagged = tagged.clone();
            untagged.drain(12..16);
            assert!(untagged == *plain, "the two were completed differently");
            assert!(plain.len() <= 1514);
        }
        for received in [plain, tagged] {
            let payload: Vec<u8> = received.iter().flat_map(|frame| complete(frame)).collect();
            assert!(payload == sent[HEADERS..], "payload was lost");
        }

        let [all, none, wire] = [ALL, NONE, WIRE].map(|port| bed.totals(port));
        assert_eq!(all.since(&before[0]).segments, 0);
        for moved in [none.since(&before[1]), wire.since(&before[2])] {
            assert_eq!(moved.sent_frames, 1, "one frame, however many segments");
            assert_eq!((moved.segments, moved.checksums), (segments as u64, segments as u64));
            assert_eq!(moved.drops.iter().sum::<u64>(), 0);
        }
    }
    assert_eq!(bed.pool.available(), POOL_FRAMES, "every mbuf is back in the pool");
}

#[test]
fn a_checksum_alone_is_left_or_computed() {
    let mut bed = Bed::new("checksum");
    let sent = frame(900);
    bed.send(header(0, 0), &sent);
    let left = bed.all.receives.received_with_headers();
    assert_eq!((left[0].0[0], left[0].1 == sent), (1, true));
    let plain = bed.none.receives.received();
    let tagged = bed.on_wire();
    for frame in [&plain[0], &tagged[0]] {
        assert_eq!(complete(frame), sent[HEADERS..]);
    }
    for port in [NONE, WIRE] {
        assert_eq!((bed.totals(port).checksums, bed.totals(port).segments), (1, 0));
    }
}

#[test]
fn the_mtu_is_held_against_segments() {
    let mut bed = Bed::new("mtu");
    // 1500 bytes behind Ethernet: 40 of headers, 1460 of payload.
    bed.send(header(1, 1460), &frame(9000));
    assert_eq!(bed.all.receives.received().len(), 1);
    bed.send(header(1, 1461), &frame(9000));
    assert_eq!(bed.totals(SENDER).dropped(DropReason::OverMtu), 1);
    bed.send(header(1, 1461), &frame(1460));
    assert_eq!(bed.all.receives.received().len(), 1, "it becomes no longer than it is");
    bed.send(header(0, 0), &frame(1461));
    assert_eq!(bed.totals(SENDER).dropped(DropReason::OverMtu), 2);
}

#[test]
fn a_lying_header_costs_its_frame_and_nothing_else() {
    let mut bed = Bed::new("lies");
    let good = frame(3000);
    let mut lies = vec![header(4, 1448), header(2, 1448), header(1, 0), header(0x80, 0)];
    for (at, byte) in [(0, 0), (6, 20), (7, 0xff), (8, 2), (9, 0xff)] {
        let mut lie = header(1, 1448);
        lie[at] = byte;
        lies.push(lie);
    }
    for (number, lie) in lies.iter().enumerate() {
        bed.send(*lie, &good);
        assert_eq!(
            bed.totals(SENDER).dropped(DropReason::BadOffload),
            1 + number as u64,
            "{lie:?}"
        );
    }
    assert!(bed.all.receives.completed().is_empty() && bed.on_wire().is_empty());
    // What a device must not look at, and the driver's idea of the headers' length, are ignored.
    let mut odd = header(1, 1448);
    (odd[0], odd[2], odd[3]) = (0xff, 0xff, 0xff);
    bed.send(odd, &good);
    assert_eq!(bed.all.receives.received(), [good]);
    assert_eq!(bed.none.receives.received().len(), 3);
}
