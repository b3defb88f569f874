//! Devices: probing, configuring, bursts, taking apart; on net_ring and net_null.

use std::thread;
use std::time::{Duration, Instant};

use dataplane::dpdk::{
    EthConfig, EthDev, EthError, Mbuf, Mempool, ProbeError, RxQueue, Started, TxQueue, free_bulk,
};
use dataplane::port::eth::EthPort;
use dataplane::port::{TxPort, own};
use tracing::Level;

use crate::{Turn, bytes, eal, frame, numbered, record};

/// Probes and starts a device with one queue pair.
fn start(turn: &Turn, devargs: &str, pool: &Mempool) -> (EthDev, RxQueue, TxQueue) {
    let mut device = EthDev::probe(&turn.eal, devargs).expect(devargs);
    let Started { mut rxqs, mut txqs, applied } =
        device.configure_and_start(&EthConfig::default(), pool).expect(devargs);
    assert_eq!((applied.rxqs, applied.txqs, applied.mtu), (1, 1, 1500), "{applied:?}");
    (device, rxqs.remove(0), txqs.remove(0))
}

#[test]
fn frames_go_round_through_net_ring() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "ring", 1023, 512, None).expect("a pool");
    let (device, mut rx, mut tx) = start(&turn, "net_ring0", &pool);
    assert_eq!((device.name(), device.driver_name()), ("net_ring0", "net_ring"));
    assert_eq!(
        (rx.device(), rx.index(), tx.device(), tx.index()),
        ("net_ring0", 0, "net_ring0", 0)
    );
    assert!(device.link().expect("a link").up);
    assert_eq!(device.mac().expect("a MAC"), [0; 6], "net_ring has none");

    let mut frames: Vec<Mbuf> = Vec::with_capacity(64);
    assert_eq!(rx.rx_burst(&mut frames), 0, "nothing was sent");
    let mut expected = Vec::new();
    for number in 0..600 {
        let mut one = frame(&pool, &numbered(number));
        if number % 10 == 0 {
            one.chain(frame(&pool, &[number as u8; 100])).expect("two segments");
        }
        expected.push(bytes(&one));
        frames.push(one);
        if frames.len() == 48 || number == 599 {
            tx.tx_burst(&mut frames);
            assert!(frames.is_empty(), "the ring has room for 1023");
        }
    }
    assert_eq!(pool.available(), 1023 - 660);

    let mut received = Vec::new();
    while rx.rx_burst(&mut frames) > 0 {
        assert!(frames.len() <= 64, "no more than there was capacity for");
        received.extend(frames.drain(..).map(|one| bytes(&one)));
    }
    assert_eq!(received, expected);
    let stats = device.stats().expect("counters");
    assert_eq!((stats.rx_frames, stats.tx_frames), (600, 600));
    assert_eq!(pool.available(), 1023);
    drop((rx, tx, device));
    assert_eq!(pool.available(), 1023);
}

#[test]
fn what_a_full_queue_does_not_take_stays_in_order() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "full", 2047, 128, None).expect("a pool");
    let (_device, mut rx, mut tx) = start(&turn, "net_ring_full", &pool);
    let mut frames: Vec<Mbuf> = (0..1100).map(|n| frame(&pool, &numbered(n))).collect();
    let sent = tx.tx_burst(&mut frames);
    assert!((1000..1100).contains(&sent), "a ring of 1024: {sent}");
    let left: Vec<_> = frames.iter().map(bytes).collect();
    assert_eq!(left, (sent as u16..1100).map(numbered).collect::<Vec<_>>());
    free_bulk(&mut frames);
    assert_eq!(tx.tx_burst(&mut frames), 0, "nothing to send");

    let mut full = Vec::new();
    assert_eq!(rx.rx_burst(&mut full), 0, "no capacity, no frames");
    let mut frames = Vec::with_capacity(2000);
    while rx.rx_burst(&mut frames) > 0 {}
    assert_eq!(frames.len(), sent);
    free_bulk(&mut frames);
    assert_eq!(pool.available(), 2047);
}

#[test]
fn a_frame_of_our_own_goes_before_all_that_a_full_device_is_given() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "first", 2047, 256, None).expect("a pool");
    let (_device, mut rx, tx) = start(&turn, "net_ring_first", &pool);
    let port = EthPort::new(vec![tx], pool.clone(), true);
    let data: Vec<Vec<u8>> = (0..64).map(numbered).collect();
    let mut queued = 0;
    while own::send(&port, 0, &data) == 64 {
        queued += 64;
    }
    // The flood has filled it. What is sent first waits, the newest of it, and is all that does.
    for number in [1000, 1001] {
        assert!(!port.send_first(7, &numbered(number)), "there is no room");
    }
    assert_eq!(own::send(&port, 0, &data[..1]), 0);
    let mut frames: Vec<Mbuf> = Vec::with_capacity(32);
    let mut received = Vec::new();
    let mut receive = |received: &mut Vec<Vec<u8>>| {
        let count = rx.rx_burst(&mut frames);
        received.extend(frames.drain(..).map(|one| bytes(&one)));
        count
    };
    // Room for a few: the next of the flood goes behind it.
    receive(&mut received);
    assert_eq!(own::send(&port, 0, &data[..2]), 2);
    assert!(port.send_first(0, &numbered(1002)), "there is room");
    while receive(&mut received) > 0 {}
    assert!(received.len() > queued, "{} of {queued}", received.len());
    let last: Vec<_> = received[received.len() - 4..].to_vec();
    assert_eq!(last, [1001, 0, 1, 1002].map(numbered));
    assert!(!received.contains(&numbered(1000)), "what is newer has taken its place");
    drop((port, frames));
    assert_eq!(pool.available(), 2047);
}

#[test]
fn frames_that_nobody_received_go_home() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "waiting", 1023, 128, None).expect("a pool");
    let (mut device, rx, mut tx) = start(&turn, "net_ring_waiting", &pool);
    let send = |tx: &mut TxQueue, count| {
        let mut frames: Vec<Mbuf> = (0..count).map(|n| frame(&pool, &numbered(n))).collect();
        tx.tx_burst(&mut frames);
        assert!(frames.is_empty());
        assert_eq!(pool.available(), 1023 - u32::from(count));
    };
    send(&mut tx, 1000);
    drop((rx, tx));
    device.stop().expect("no queue is held");
    assert_eq!(pool.available(), 1023);

    let mut started =
        device.configure_and_start(&EthConfig::default(), &pool).expect("it starts again");
    send(&mut started.txqs[0], 10);
    drop((started, device));
    assert_eq!(pool.available(), 1023);
}

#[test]
fn net_null_gives_and_takes_on_a_worker() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "null", 4095, 2048, None).expect("a pool");
    let (device, mut rx, mut tx) = start(&turn, "net_null0,size=200", &pool);
    let eal = turn.eal;
    let worker = thread::spawn(move || {
        let _registered = eal.register_thread().expect("a free place");
        let mut frames = Vec::with_capacity(32);
        for _ in 0..1000 {
            assert_eq!(rx.rx_burst(&mut frames), 32);
            assert!(frames.iter().all(|frame| frame.len() == 200));
            tx.tx_burst(&mut frames);
            assert!(frames.is_empty());
        }
        (rx, tx)
    });
    let queues = worker.join().expect("the worker ends well");
    let stats = device.stats().expect("counters");
    assert_eq!((stats.rx_frames, stats.tx_frames), (32_000, 32_000));
    assert_eq!(pool.available(), 4095);
    drop((queues, device));
}

#[test]
fn queues_hold_their_device() {
    let turn = eal();
    let pool = Mempool::create(&turn.eal, "hold", 511, 2048, None).expect("a pool");
    let (mut device, rx, tx) = start(&turn, "net_null_hold", &pool);
    match device.stop() {
        Err(EthError::QueuesHeld { queues: 2, .. }) => {}
        other => panic!("stopped under its queues: {other:?}"),
    }
    match device.configure_and_start(&EthConfig::default(), &pool) {
        Err(EthError::QueuesHeld { queues: 2, .. }) => {}
        other => panic!("configured under its queues: {other:?}"),
    }
    drop((rx, tx));
    device.stop().expect("all queues are back");
    device.stop().expect("stopping what is stopped is nothing");

    let wish = EthConfig { rxqs: 3, txqs: 2, mtu: 2000, ..EthConfig::default() };
    let mut started = device.configure_and_start(&wish, &pool).expect("another configuration");
    assert_eq!((started.rxqs.len(), started.txqs.len()), (3, 2));
    assert_eq!(started.applied.shortfalls, [""; 0]);
    let mut rx = started.rxqs.remove(2);
    let name = device.name().to_owned();
    drop((device, started, pool));

    let mut frames = Vec::with_capacity(8);
    assert_eq!(rx.rx_burst(&mut frames), 8, "the last queue keeps device and pool");
    assert!(matches!(EthDev::probe(&turn.eal, &name), Err(ProbeError::InUse { .. })));
    drop(rx);
    drop(EthDev::probe(&turn.eal, &name).expect("the device went with its last queue"));
    assert_eq!(frames.len(), 8, "frames outlive the device");
}

#[test]
fn the_33rd_device_is_refused_clearly() {
    let turn = eal();
    let probe = |number: usize| EthDev::probe(&turn.eal, &format!("net_null{}", 100 + number));
    let devices: Vec<_> = (0..32).map(|number| probe(number).expect("one of 32")).collect();
    match probe(32) {
        Err(error @ ProbeError::TooMany { limit: 32, .. }) => {
            let text = error.to_string();
            assert!(text.contains("`net_null132`") && text.contains("32 Ethernet"), "{text}");
        }
        other => panic!("a 33rd device: {other:?}"),
    }
    drop(devices);
    probe(32).expect("there is room again");
}

#[test]
fn what_cannot_be_probed_is_told_why() {
    let turn = eal();
    let error = |devargs: &str| match EthDev::probe(&turn.eal, devargs) {
        Err(error) => error,
        Ok(device) => panic!("{devargs} was probed: {device:?}"),
    };
    assert!(matches!(error("eth0"), ProbeError::Devargs { .. }));
    assert!(matches!(error("net_tap0,iface"), ProbeError::Devargs { .. }));

    let text = error("net_nosuch0").to_string();
    assert!(text.contains("no driver `net_nosuch` is loaded"), "{text}");
    assert!(text.contains("librte-net-nosuch23"), "{text}");
    assert!(record::heard(Level::ERROR, "failed to parse device \"net_nosuch0\""));

    // The bus is there, the device is not; and without the bus the answer is the same.
    let text = error("0000:fe:1f.7").to_string();
    assert!(text.contains("`0000:fe:1f.7`") && text.contains("lspci"), "{text}");

    match error("net_af_packet0,iface=no-such-if") {
        ProbeError::Refused { device, said, .. } => {
            assert_eq!(device, "net_af_packet0");
            assert!(!said.is_empty() && !said.contains("cannot attach"), "not the cause: {said}");
        }
        other => panic!("{other:?}"),
    }
    match error("net_null0,nosuchkey=1") {
        ProbeError::Refused { .. } => {}
        other => panic!("{other:?}"),
    }

    let _first = EthDev::probe(&turn.eal, "net_null7").expect("the name is free");
    assert!(matches!(error("net_null7"), ProbeError::InUse { .. }));
    assert!(matches!(error("net_null7,size=100"), ProbeError::InUse { .. }));
}

#[test]
fn a_device_can_be_probed_after_it_failed_and_after_it_went() {
    let turn = eal();
    assert!(EthDev::probe(&turn.eal, "net_null9,nosuchkey=1").is_err());
    let begin = Instant::now();
    for _ in 0..20 {
        drop(EthDev::probe(&turn.eal, "net_null9,size=64").expect("right this time"));
    }
    assert!(begin.elapsed() < Duration::from_secs(30));
}
