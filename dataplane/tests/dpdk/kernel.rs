//! Devices on kernel interfaces: af_packet on both ends of a veth pair, and a tap.
//!
//! Needs root. Each test works in a network namespace of its thread, so nothing of the machine is
//! touched and nothing is left.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::dpdk::{EthConfig, EthDev, Mbuf, Mempool, Started};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::{Turn, bytes, eal, frame, numbered, skip};

/// Runs `body` with EAL on a thread in a network namespace of its own; skips if we are not
/// root, as that takes.
fn in_namespace(test: &str, body: impl FnOnce(&Turn) + Send) {
    if !geteuid().is_root() {
        return skip(test, "making network interfaces needs root");
    }
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may have a network namespace");
            body(&eal());
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// Probes and starts a device with one queue pair.
fn start(turn: &Turn, devargs: &str, pool: &Mempool, config: &EthConfig) -> (EthDev, Started) {
    let mut device = EthDev::probe(&turn.eal, devargs).expect(devargs);
    let started = device.configure_and_start(config, pool).expect(devargs);
    (device, started)
}

/// Sends `frames` from one device and waits until the other has received as many of ours; the
/// kernel adds frames of its own (IPv6 neighbour discovery).
fn pass(from: &mut Started, to: &mut Started, mut frames: Vec<Mbuf>) -> Vec<Vec<u8>> {
    let (wanted, mut received) = (frames.len(), Vec::new());
    let mut burst = Vec::with_capacity(32);
    let begin = Instant::now();
    while received.len() < wanted {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} of {wanted}", received.len());
        from.txqs[0].tx_burst(&mut frames);
        to.rxqs[0].rx_burst(&mut burst);
        received.extend(
            burst
                .drain(..)
                .map(|one| bytes(&one))
                .filter(|one| one.windows(2).take(20).any(|pair| pair == [0x88, 0xb5])),
        );
    }
    received
}

#[test]
fn af_packet_passes_frames_over_a_veth_pair() {
    in_namespace("af_packet_passes_frames_over_a_veth_pair", |turn| {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let pool = Mempool::create(&turn.eal, "veth", 2047, 2048, None).expect("a pool");
        let wish = EthConfig { rxqs: 2, ..EthConfig::default() };
        let (left, mut a) = start(turn, "net_af_packet0,iface=va", &pool, &wish);
        let (right, mut b) = start(turn, "net_af_packet1,iface=vb", &pool, &wish);
        assert_eq!(left.driver_name(), "net_af_packet");
        assert_eq!(a.applied.shortfalls, ["1 receive queues instead of 2, it has no more"]);
        assert!(a.applied.mtu_enforced && a.applied.promiscuous && a.applied.multi_segment_tx);
        assert!(left.link().expect("a link").up);
        assert_ne!(left.mac().expect("a MAC"), right.mac().expect("a MAC"));

        let frames = (0..100).map(|number| frame(&pool, &numbered(number))).collect();
        let expected: Vec<_> = (0..100).map(numbered).collect();
        assert_eq!(pass(&mut a, &mut b, frames), expected);

        // Tags arrive in the frame, whatever the kernel does with them between.
        let mut tagged = frame(&pool, &numbered(200));
        assert!(tagged.push_vlan(0x8100, 0x2064));
        let expected = bytes(&tagged);
        assert_eq!(pass(&mut b, &mut a, vec![tagged]), [expected]);

        // A frame in two segments leaves as one.
        let mut split = frame(&pool, &numbered(300));
        split.chain(frame(&pool, &[0x33; 1000])).expect("two segments");
        let expected = bytes(&split);
        assert_eq!(pass(&mut a, &mut b, vec![split]), [expected]);

        assert!(left.stats().expect("counters").tx_frames >= 101);
        drop((a, b, left, right));
        assert_eq!(pool.available(), 2047);
    });
}

#[test]
fn a_tap_is_an_interface_of_the_kernel() {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skip("a_tap_is_an_interface_of_the_kernel", "no /dev/net/tun");
    }
    in_namespace("a_tap_is_an_interface_of_the_kernel", |turn| {
        let pool = Mempool::create(&turn.eal, "tap", 4095, 2048, None).expect("a pool");
        let config = EthConfig { rx_descriptors: 256, ..EthConfig::default() };
        let (tap, mut ours) = start(turn, "net_tap0,iface=vt0", &pool, &config);
        ip("link set vt0 up");
        let (kernel, mut theirs) = start(turn, "net_af_packet0,iface=vt0", &pool, &config);
        assert_eq!(tap.mac().expect("a MAC"), kernel.mac().expect("a MAC"));

        let expected: Vec<_> = (0..50).map(numbered).collect();
        let frames = (0..50).map(|number| frame(&pool, &numbered(number))).collect();
        assert_eq!(pass(&mut ours, &mut theirs, frames), expected);
        let frames = (0..50).map(|number| frame(&pool, &numbered(number))).collect();
        assert_eq!(pass(&mut theirs, &mut ours, frames), expected);

        drop((ours, theirs, kernel, tap));
        assert_eq!(pool.available(), 4095);
    });
}
