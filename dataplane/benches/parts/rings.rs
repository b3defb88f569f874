//! Parts that move frames between a guest's rings and a burst.

use std::hint::black_box;

use vhost::mock::Guest;
use vhost::{Burst, Device, Received, Sent, Source, Staged};

use crate::bed::{BURST, GuestBed, RING, frame, mac};
use crate::part::{Meter, Part, Run};

/// Where the lower byte of the UDP source port stands.
const UDP_SOURCE_AT: usize = 35;

/// Looks into an empty ring in a run.
const LOOKS: u64 = 64;

pub fn parts() -> Vec<Part> {
    let part = |name, build| Part { name, unit: "frame", units: BURST, build };
    vec![
        part("dequeue-64", || dequeue(64)),
        part("dequeue-1500", || dequeue(1500)),
        part("enqueue-64", || enqueue(64)),
        part("enqueue-1500", || enqueue(1500)),
        part("enqueue-64-queues", enqueue_to_queues),
        Part { name: "dequeue-nothing", unit: "look", units: LOOKS, build: dequeue_nothing },
    ]
}

/// Takes a burst from a guest, and gives the guest its buffers back.
fn dequeue(bytes: usize) -> Box<dyn Run> {
    let mut guest = GuestBed::new();
    let mut rxq = guest.rxq();
    let mut burst = Burst::default();
    let frame = frame(mac(1), mac(2), bytes);
    Box::new(move |meter: &mut Meter| {
        guest.transmit(&frame, BURST);
        meter.measure(|| {
            let received = Received::take(&mut rxq, &mut burst);
            assert_eq!(black_box(received.frames()).len() as u64, BURST);
        });
    })
}

/// Copies a burst to a guest.
fn enqueue(bytes: usize) -> Box<dyn Run> {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let mut rxq = from.rxq();
    let mut burst = Burst::default();
    let frame = frame(mac(1), mac(2), bytes);
    let staged = Staged::new(u64::MAX);
    Box::new(move |meter: &mut Meter| {
        from.transmit(&frame, BURST);
        to.supply(BURST);
        let received = Received::take(&mut rxq, &mut burst);
        meter.measure(|| {
            let mut sent = Sent::default();
            to.device.send(received.frames(), black_box(&staged), &mut sent);
            assert_eq!(sent.frames, BURST);
        });
        drop(received);
        assert!(to.received().iter().all(|got| *got == frame), "frames arrive as they were");
    })
}

/// Copies a burst of 64 flows to a guest that spreads them over four queues.
fn enqueue_to_queues() -> Box<dyn Run> {
    let mut from = GuestBed::new();
    let device = Device::new(4);
    let mut queues: Vec<_> = (0..4).map(|_| Guest::new(RING)).collect();
    for (pair, queue) in queues.iter().enumerate() {
        device.start_ring(2 * pair, queue.ring());
    }
    let mut rxq = from.rxq();
    let mut burst = Burst::default();
    let mut frames = vec![frame(mac(1), mac(2), 64); BURST as usize];
    for (frame, flow) in frames.iter_mut().zip(0..) {
        frame[UDP_SOURCE_AT] = flow;
    }
    let staged = Staged::new(u64::MAX);
    let mut supplied = [0; 4];
    Box::new(move |meter: &mut Meter| {
        frames.iter().for_each(|frame| from.transmit(frame, 1));
        for (queue, supplied) in queues.iter_mut().zip(&mut supplied) {
            // All buffers at first, then those that came back.
            let wanted = if *supplied == 0 { RING } else { queue.received().len() as u16 };
            for _ in 0..wanted {
                queue.supply(*supplied % RING, 2048);
                *supplied = supplied.wrapping_add(1);
            }
        }
        let received = Received::take(&mut rxq, &mut burst);
        meter.measure(|| {
            let mut sent = Sent::default();
            device.send(received.frames(), black_box(&staged), &mut sent);
            assert_eq!(sent.frames, BURST);
        });
    })
}

/// Looks into a ring in which nothing waits, as a worker sees it: behind a `dyn Source`.
fn dequeue_nothing() -> Box<dyn Run> {
    let guest = GuestBed::new();
    let mut rxq: Box<dyn Source> = Box::new(guest.rxq());
    let mut burst = Burst::default();
    Box::new(move |meter: &mut Meter| {
        meter.measure(|| {
            for _ in 0..LOOKS {
                let received = Received::take(black_box(rxq.as_mut()), &mut burst);
                assert!(received.frames().is_empty());
            }
        });
    })
}
