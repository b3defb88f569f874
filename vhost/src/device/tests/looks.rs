//! What a worker's looks find while its ring is quiet, comes, goes and is rebuilt.

use std::time::{Duration, Instant};

use super::*;
use crate::rarp;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// A guest that sends by one transmitq of a device, and the worker's side of it.
struct Sender {
    guest: Guest,
    device: Arc<Device>,
    rxq: RxQueue,
}

impl Sender {
    fn new(guest: Guest) -> Self {
        let device = Device::new(2);
        device.start_ring(1, guest.ring());
        let rxq = device.rxq(0);
        Self { guest, device, rxq }
    }

    fn look(&mut self) -> Vec<Vec<u8>> {
        look(&mut self.rxq)
    }
}

/// The heads of the frames that one look finds.
fn look(rxq: &mut RxQueue) -> Vec<Vec<u8>> {
    let mut burst = Burst::default();
    let received = Received::take(rxq, &mut burst);
    received.frames().iter().map(|frame| frame.head().to_vec()).collect()
}

fn is_quiet(device: &Device, queue: usize) -> bool {
    device.rings[queue].seat.lock().is_quiet()
}

#[test]
fn a_ring_is_quiet_between_frames_in_every_lap() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        for in_order in [false, true] {
            let guest = Guest::with_layout(layout, 8);
            let mut sender = Sender::new(if in_order { guest.in_order() } else { guest });
            for round in 0..100_u16 {
                assert!(is_quiet(&sender.device, 1), "{layout:?}, in order {in_order}, {round}");
                assert!(sender.look().is_empty());
                let frames: Vec<_> = (0..1 + round % 2).map(|at| frame(at, 0)).collect();
                for (at, frame) in frames.iter().enumerate() {
                    // Two descriptors each.
                    sender.guest.transmit_pieces(4 * at as u16, &[0; 12], frame, &[20]);
                }
                assert!(!is_quiet(&sender.device, 1), "{layout:?}, in order {in_order}, {round}");
                assert_eq!(sender.look(), frames);
                sender.guest.completed();
            }
        }
    }
}

#[test]
fn what_did_not_fit_into_a_burst_is_found_by_the_next_look() {
    let mut sender = Sender::new(Guest::new(128));
    (0..100).for_each(|index| sender.guest.transmit(index, &frame(index, 0)));
    assert_eq!(sender.look().len(), BURST_MAX);
    assert!(!is_quiet(&sender.device, 1));
    assert_eq!(sender.look().len(), 100 - BURST_MAX);
    assert!(is_quiet(&sender.device, 1));
}

#[test]
fn a_ring_that_broke_the_rules_is_not_looked_at_for_long() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let mut sender = Sender::new(Guest::with_layout(layout, 8));
        // The first piece is good, and is in the burst when the second turns out not to be.
        let good = sender.guest.buffer(0);
        sender.guest.post(0, &[(good, 64, 0), (0, 64, 0)]);
        let mut burst = Burst::default();
        assert!(Received::take(&mut sender.rxq, &mut burst).frames().is_empty());
        assert!(sender.device.take_violation().is_some());
        sender.guest.transmit(1, &frame(0, 0));
        assert!(is_quiet(&sender.device, 1), "{layout:?}");
        assert!(Received::take(&mut sender.rxq, &mut burst).frames().is_empty());
    }
}

#[test]
fn a_ring_that_comes_back_is_found_and_the_memory_of_the_last_is_let_go() {
    let mut sender = Sender::new(Guest::new(8));
    assert!(sender.look().is_empty());
    for round in 0..4_u16 {
        // Quiet, stopped, and away.
        let before = std::mem::replace(&mut sender.guest, Guest::new(8));
        if round % 2 == 0 {
            sender.device.stop_ring(1);
            assert!(is_quiet(&sender.device, 1));
            assert!(sender.look().is_empty());
        }
        sender.guest.transmit(0, &frame(round, 0));
        sender.device.start_ring(1, sender.guest.ring());
        let memory = before.memory();
        drop(before);
        assert_eq!(Arc::strong_count(&memory), 1, "nobody but this test has it");
        drop(memory);
        assert_eq!(sender.look(), [frame(round, 0)]);
        assert!(sender.look().is_empty());
    }
}

#[test]
fn a_ring_that_is_rebuilt_while_its_worker_looks_is_found() {
    const ROUNDS: u32 = 200;
    let Sender { guest, device, mut rxq } = Sender::new(Guest::new(8));
    let worker = std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(60);
        let mut found = Vec::new();
        while found.len() < ROUNDS as usize && Instant::now() < end {
            found.extend(look(&mut rxq));
            std::thread::yield_now();
        }
        found
    });
    let mut before = guest;
    for round in 0..ROUNDS {
        // New memory, which the worker has never seen; that of the last ring is unmapped.
        let mut guest = Guest::with_layout(
            if round % 2 == 0 { RingLayout::Packed } else { RingLayout::Split },
            8,
        );
        let ring = guest.ring();
        if round % 3 == 0 {
            device.stop_ring(1);
        }
        device.start_ring(1, ring);
        drop(std::mem::replace(&mut before, Guest::new(8)));
        guest.transmit(0, &frame(0, round));
        while guest.completed().is_empty() && !worker.is_finished() {
            std::thread::yield_now();
        }
        before = guest;
    }
    let found: Vec<_> = worker.join().unwrap().iter().map(|frame| read(frame)).collect();
    assert_eq!(found, (0..ROUNDS).map(|round| (0, round)).collect::<Vec<_>>());
}

#[test]
fn a_quiet_ring_announces_once() {
    let mut sender = Sender::new(Guest::new(8));
    assert!(sender.look().is_empty());
    for _ in 0..2 {
        sender.device.announce(MAC);
        assert_eq!(sender.look(), [rarp::request(MAC)]);
        assert!(is_quiet(&sender.device, 1));
        assert!(sender.look().is_empty());
    }
}

#[test]
fn an_announcement_goes_behind_what_fills_a_burst() {
    let mut sender = Sender::new(Guest::new(128));
    (0..BURST_MAX as u16).for_each(|index| sender.guest.transmit(index, &frame(index, 0)));
    sender.device.announce(MAC);
    assert_eq!(sender.look().len(), BURST_MAX);
    assert_eq!(sender.look(), [rarp::request(MAC)]);
    assert!(sender.look().is_empty());
}

#[test]
fn one_of_a_guests_queues_announces() {
    let mut sender = Sender::new(Guest::new(8));
    let second = Guest::new(8);
    sender.device.start_ring(3, second.ring());
    let mut other = sender.device.rxq(1);
    sender.device.announce(MAC);
    assert_eq!(look(&mut other), [rarp::request(MAC)]);
    assert!(sender.look().is_empty());
    assert!(is_quiet(&sender.device, 1) && is_quiet(&sender.device, 3));
}

#[test]
fn an_announcement_waits_for_a_ring() {
    let mut sender = Sender::new(Guest::new(8));
    sender.device.stop_ring(1);
    sender.device.announce(MAC);
    assert!(is_quiet(&sender.device, 1));
    assert!(sender.look().is_empty());
    sender.device.start_ring(1, sender.guest.ring());
    assert_eq!(sender.look(), [rarp::request(MAC)]);
}
