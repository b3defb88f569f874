//! Guests with several queues, and bursts: where frames go while queues come and go.

mod looks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::burst::{BURST_MAX, Received};
use crate::mock::Guest;
use crate::vring::{RingLayout, VringConfig, VringError};

/// A source of frames of many flows, numbered within each.
struct Flows {
    flows: u16,
    next: u32,
    /// Frames that a fill gives.
    fill: usize,
}

impl Source for Flows {
    fn fill(&mut self, burst: &mut Burst) {
        for _ in 0..self.fill {
            let (flow, number) = (self.next as u16 % self.flows, self.next / u32::from(self.flows));
            assert!(burst.push_private(&frame(flow, number)));
            self.next += 1;
        }
    }

    fn release(&mut self, _burst: &mut Burst) {}
}

/// A UDP frame: the flow is its source port, the number its payload.
fn frame(flow: u16, number: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(flow.to_be_bytes());
    frame.extend([0, 80, 0, 12, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

/// The flow and the number of a frame that arrived.
fn read(frame: &[u8]) -> (u16, u32) {
    let (port, payload) = (&frame[34..36], &frame[42..46]);
    (u16::from_be_bytes(port.try_into().unwrap()), u32::from_be_bytes(payload.try_into().unwrap()))
}

/// A guest with several receiveqs.
struct Receiver {
    device: Arc<Device>,
    queues: Vec<Guest>,
}

impl Receiver {
    /// All queues run, and have a buffer for each of their entries.
    fn new(pairs: u16, size: u16) -> Self {
        let device = Device::new(pairs);
        let queues: Vec<_> = (0..pairs).map(|_| Guest::new(size)).collect();
        let mut receiver = Self { device, queues };
        for pair in 0..usize::from(pairs) {
            (0..size).for_each(|index| receiver.queues[pair].supply(index, 2048));
            receiver.enable(pair, true);
        }
        receiver
    }

    /// What a session does at `SET_VRING_ENABLE`.
    fn enable(&self, pair: usize, enabled: bool) {
        let guest = &self.queues[pair];
        let built = self.device.rebuild_ring(2 * pair, |position| {
            let base = position.map_or(guest.config().base, RingPosition::base);
            let config = VringConfig { base, enabled, ..guest.config() };
            Vring::new(guest.memory(), &config).map(Some)
        });
        built.unwrap();
    }

    /// What arrived on each queue since the last look.
    fn received(&mut self) -> Vec<Vec<(u16, u32)>> {
        let frames = |guest: &mut Guest| guest.received().iter().map(|it| read(it)).collect();
        self.queues.iter_mut().map(frames).collect()
    }
}

fn send(device: &Device, source: &mut Flows, burst: &mut Burst) -> Sent {
    let received = Received::take(source, burst);
    let mut sent = Sent::default();
    device.send(received.frames(), &Staged::new(received.frames().all()), &mut sent);
    sent
}

/// Sends `bursts` bursts and expects all of their frames to arrive.
fn send_all(receiver: &Receiver, source: &mut Flows, bursts: usize) {
    let mut burst = Burst::default();
    for _ in 0..bursts {
        let sent = send(&receiver.device, source, &mut burst);
        let bytes = source.fill as u64 * frame(0, 0).len() as u64;
        assert_eq!(sent, Sent { frames: source.fill as u64, bytes, ..Sent::default() });
    }
}

/// Panics unless the frames of each flow are in order.
fn assert_in_order(frames: &[(u16, u32)]) {
    let mut last = BTreeMap::new();
    for &(flow, number) in frames {
        let before = last.insert(flow, number);
        assert!(before.is_none_or(|before| before < number), "flow {flow}: {before:?}, {number}");
    }
}

#[test]
fn each_flow_stays_on_one_queue_in_order() {
    let mut receiver = Receiver::new(4, 256);
    let mut source = Flows { flows: 40, next: 0, fill: 64 };
    send_all(&receiver, &mut source, 5);
    let received = receiver.received();
    assert_eq!(received.iter().map(Vec::len).sum::<usize>(), 5 * 64);
    let mut homes = BTreeMap::new();
    for (queue, frames) in received.iter().enumerate() {
        assert!(!frames.is_empty(), "queue {queue} is used");
        assert_in_order(frames);
        for (flow, _) in frames {
            assert_eq!(*homes.entry(*flow).or_insert(queue), queue, "flow {flow} has one queue");
        }
    }
    assert_eq!(homes.len(), 40);
    let by_queue: u64 = (0..4).map(|pair| receiver.device.statistics(2 * pair).frames).sum();
    assert_eq!(by_queue, 5 * 64);
}

#[test]
fn one_enabled_queue_gets_everything_whichever_it_is() {
    for only in 0..3 {
        let mut receiver = Receiver::new(3, 64);
        (0..3).filter(|pair| *pair != only).for_each(|pair| receiver.enable(pair, false));
        send_all(&receiver, &mut Flows { flows: 40, next: 0, fill: 64 }, 1);
        assert_eq!(receiver.received()[only].len(), 64);
    }
}

#[test]
fn flows_of_queues_that_are_disabled_move_to_others_and_back() {
    let mut receiver = Receiver::new(4, 1024);
    let mut source = Flows { flows: 40, next: 0, fill: 60 };
    for enabled in [4, 2, 1, 3, 4] {
        (0..4).for_each(|pair| receiver.enable(pair, pair < enabled));
        send_all(&receiver, &mut source, 3);
        let received = receiver.received();
        assert_eq!(received.iter().map(Vec::len).sum::<usize>(), 180);
        for (queue, frames) in received.iter().enumerate() {
            assert_eq!(frames.is_empty(), queue >= enabled, "{enabled} enabled, queue {queue}");
            assert_in_order(frames);
        }
    }
}

#[test]
fn without_a_queue_frames_are_counted_as_down() {
    let receiver = Receiver::new(2, 64);
    (0..2).for_each(|pair| receiver.enable(pair, false));
    let mut source = Flows { flows: 4, next: 0, fill: 10 };
    let mut burst = Burst::default();
    let down = Sent { down: 10, ..Sent::default() };
    assert_eq!(send(&receiver.device, &mut source, &mut burst), down);
    for pair in 0..2 {
        receiver.device.stop_ring(2 * pair);
    }
    assert_eq!(send(&receiver.device, &mut source, &mut burst), down);
}

#[test]
fn a_sender_that_has_not_heard_of_a_stopped_queue_loses_nothing() {
    let mut receiver = Receiver::new(4, 256);
    receiver.device.stop_ring(2);
    receiver.enable(3, false);
    // As if it had been read just before the two were stopped.
    receiver.device.open.store(0b1111, Ordering::Relaxed);
    send_all(&receiver, &mut Flows { flows: 40, next: 0, fill: 64 }, 1);
    let received = receiver.received();
    assert_eq!(received[0].len() + received[2].len(), 64);
    received.iter().for_each(|frames| assert_in_order(frames));
}

#[test]
fn nothing_is_lost_while_the_guest_changes_the_number() {
    const BURSTS: usize = 120;
    let mut receiver = Receiver::new(3, 8192);
    let device = Arc::clone(&receiver.device);
    let done = Arc::new(AtomicBool::new(false));
    let finished = Arc::clone(&done);
    // Two workers, each with flows of its own: even ones and odd ones.
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let device = Arc::clone(&device);
            std::thread::spawn(move || {
                let mut source = Flows { flows: 20, next: 0, fill: 32 };
                let mut burst = Burst::default();
                let mut sum = Sent::default();
                for _ in 0..BURSTS {
                    sum += send(&device, &mut source, &mut burst);
                    std::thread::yield_now();
                }
                sum
            })
        })
        .collect();
    let waiter = std::thread::spawn(move || {
        let sums = workers.into_iter().map(|worker| worker.join().unwrap());
        let mut sum = Sent::default();
        sums.for_each(|it| sum += it);
        finished.store(true, Ordering::Release);
        sum
    });
    let mut enabled = 1;
    while !done.load(Ordering::Acquire) {
        (1..3).for_each(|pair| receiver.enable(pair, pair < enabled));
        enabled = enabled % 3 + 1;
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
    let sent = waiter.join().unwrap();
    assert_eq!(sent.down + sent.full + sent.too_big, 0, "{sent:?}");
    // Only a thread that lost its core while it held a ring may have cost a frame.
    assert_eq!(sent.frames + sent.busy, 2 * 32 * BURSTS as u64, "{sent:?}");
    let received = receiver.received();
    assert_eq!(received.iter().map(Vec::len).sum::<usize>() as u64, sent.frames);
}

#[test]
fn a_ring_that_cannot_be_rebuilt_is_gone() {
    let receiver = Receiver::new(2, 64);
    let failed = receiver.device.rebuild_ring(2, |position| {
        assert_eq!(position.map(RingPosition::base), Some(0));
        Err(VringError::Size { size: 3, layout: RingLayout::Split })
    });
    assert!(failed.is_err());
    assert_eq!(receiver.device.ring_position(2), None);
    send_all(&receiver, &mut Flows { flows: 40, next: 0, fill: 64 }, 1);
}
