//! Work that is left to a device: virtio-user's driver, whose device is our own vhost-user
//! back-end, so that what the driver made of our wishes can be read from its net headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::dpdk::{EthConfig, EthDev, Mempool};
use dataplane::port::TxPort;
use dataplane::port::eth::EthPort;
use vhost::features::device::{CSUM, HOST_TSO4, HOST_TSO6};
use vhost::mock::Guest;
use vhost::session::{Session, SessionOptions};
use vhost::socket::{Access, Listener};
use vhost::{
    BURST_MAX, Burst, Device, Offload, Offloads, Received, RxQueue, Sent, Staged, TagEdit, Vring,
    VringConfig,
};

use crate::eal;

/// A guest that sends to us, and may leave everything to us.
struct Sender {
    guest: Guest,
    queue: RxQueue,
}

impl Sender {
    fn new() -> Self {
        let (guest, device) = (Guest::new(64), Device::new(1));
        let left = Offloads::left_by(CSUM | HOST_TSO4 | HOST_TSO6);
        let config = VringConfig { left, ..guest.config() };
        device.start_ring(1, Vring::new(guest.memory(), &config).expect("a ring"));
        Self { guest, queue: device.rxq(0) }
    }

    /// Sends one frame by `port`; says what was left undone of it.
    fn send(&mut self, port: &EthPort, header: [u8; 12], frame: &[u8], tag: TagEdit) -> Offload {
        self.guest.transmit_pieces(0, &header, frame, &[]);
        let mut burst = Burst::default();
        let received = Received::take(&mut self.queue, &mut burst);
        let frames = received.frames();
        let offload = frames.frame(0).offload();
        assert!(!offload.is_impossible() && !frames.frame(0).is_complete());
        let edits = [tag; BURST_MAX];
        let mut sent = Sent::default();
        port.send(0, frames, &Staged::new(1).with_edits(1, &edits), &mut sent);
        let bytes = frames.frame(0).bytes_with(tag) as u64;
        assert_eq!(sent, Sent { frames: 1, bytes, ..Sent::default() }, "nothing is done to it");
        offload
    }
}

/// Serves the first front-end that connects, until told to stop.
fn serve(listener: &Listener, device: &Arc<Device>, stop: &AtomicBool) {
    let mut session = Session::new(Arc::clone(device), SessionOptions::default());
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(connection) = &mut connection else {
            connection = listener.try_accept().expect("a connection");
            continue;
        };
        match connection.try_receive() {
            Ok(Some(message)) => {
                if let Some(reply) = session.handle(message).expect("it keeps the rules") {
                    connection.send(&reply.encode()).expect("it reads the reply");
                }
            }
            Ok(None) => thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
}

/// The next frame that arrives, and what is left undone of it.
fn arrives(queue: &mut RxQueue) -> (Vec<u8>, Offload) {
    let begin = Instant::now();
    let mut burst = Burst::default();
    loop {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing arrives");
        let received = Received::take(queue, &mut burst);
        if received.frames().is_empty() {
            continue;
        }
        assert_eq!(received.frames().len(), 1);
        let frame = received.frames().frame(0);
        let mut bytes = vec![0; frame.bytes()];
        frame.copy_to_pieces(TagEdit::Keep, [&mut bytes[..]]);
        return (bytes, frame.offload());
    }
}

/// One's complement sum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame of TCP or UDP, and its net header with this kind of segmentation.
fn frame(ipv6: bool, udp: bool, payload: usize, segment: u16) -> ([u8; 12], Vec<u8>) {
    let start = if ipv6 { 54 } else { 34 };
    let (protocol, headers, field) = if udp { (17, 8, 6) } else { (6, 20, 16) };
    let length = headers + payload;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(if ipv6 { [0x86, 0xdd] } else { [8, 0] });
    frame.resize(start, 0);
    let bytes = (length + if ipv6 { 0 } else { 20 }) as u16;
    let addresses = if ipv6 {
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&bytes.to_be_bytes());
        frame[20] = protocol;
        frame[22..54].iter_mut().zip(1..).for_each(|(to, by)| *to = by);
        22..54
    } else {
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&bytes.to_be_bytes());
        (frame[22], frame[23]) = (64, protocol);
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let checksum = !sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        26..34
    };
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend([(length >> 8) as u8, length as u8, 0, protocol]);
    frame.extend([1, 2, 3, 4]);
    frame.resize(start + headers, 0);
    if udp {
        frame[start + 4..start + 6].copy_from_slice(&(length as u16).to_be_bytes());
    } else {
        frame[start + 12] = 0x50;
    }
    frame[start + field..start + field + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
    frame.extend((0..payload).map(|at| (at % 251) as u8));
    let gso = if segment == 0 { 0 } else { if ipv6 { 4 } else { 1 } };
    let [low, high] = segment.to_le_bytes();
    ([1, gso, 0, 0, low, high, start as u8, 0, field as u8, 0, 0, 0], frame)
}

#[test]
fn a_device_is_told_what_it_has_to_do() {
    let turn = eal();
    let folder = tempfile::tempdir().expect("a folder in /tmp");
    let listener =
        Listener::bind(&folder.path().join("sock"), Access::default()).expect("a socket");
    let far = Device::new(1);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &far, &stop));
        let pool = Mempool::create(&turn.eal, "left", 511, 2048, None).expect("a pool");
        let devargs = format!("net_virtio_user0,path={},queues=1", listener.path().display());
        let mut device = EthDev::probe(&turn.eal, &devargs).expect("a device");
        let started = device.configure_and_start(&EthConfig::default(), &pool).expect("it starts");
        let port = EthPort::new(started.txqs, pool.clone(), started.applied.multi_segment_tx)
            .with_offloads(started.applied.tx_offloads);
        let mut sender = Sender::new();
        let mut queue = far.rxq(0);
        for (ipv6, udp, payload, segment) in [
            (false, false, 100, 0),
            (true, false, 1000, 0),
            (false, true, 5, 0),
            (true, true, 900, 0),
            (false, false, 40_000, 1448),
            (true, false, 30_001, 1400),
        ] {
            let (header, frame) = frame(ipv6, udp, payload, segment);
            let offload = sender.send(&port, header, &frame, TagEdit::Keep);
            let (arrived, left) = arrives(&mut queue);
            assert_eq!(left, offload, "IPv6 {ipv6}, UDP {udp}, {payload} bytes");
            assert!(arrived == frame, "IPv6 {ipv6}, UDP {udp}, {payload} bytes have changed");

            sender.send(&port, header, &frame, TagEdit::Push(7));
            let (mut arrived, left) = arrives(&mut queue);
            assert_eq!(arrived.drain(12..16).collect::<Vec<_>>(), [0x81, 0, 0, 7]);
            assert!(arrived == frame, "tagged it has changed");
            assert_eq!(left.wire_bytes(frame.len() + 4), offload.wire_bytes(frame.len()) + 4);
        }
        drop((port, started.rxqs, device));
        stop.store(true, Ordering::Relaxed);
    });
}
