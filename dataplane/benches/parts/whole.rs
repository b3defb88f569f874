//! The whole way of a frame: a worker's poll, with guests at both ends.

use std::sync::Arc;

use crate::bed::{BURST, GuestBed, frame, mac};
use crate::filters;
use crate::part::{Meter, Part, Run};
use crate::switch::Switch;

/// Ports of which nobody sends, in the parts of that name.
const IDLE_PORTS: u64 = 64;

pub fn parts() -> Vec<Part> {
    let part = |name, build| Part { name, unit: "frame", units: BURST, build };
    vec![
        part("poll-64", || one_way(64, BURST, true)),
        part("poll-64-learned", || one_way(64, BURST, false)),
        part("poll-64-guarded", || filtered(None)),
        part("poll-64-acl-1k", || filtered(Some(1_000))),
        part("poll-64-acl-10k", || filtered(Some(10_000))),
        part("poll-512", || one_way(512, BURST, true)),
        part("poll-1500", || one_way(1500, BURST, true)),
        Part { name: "poll-64-single", unit: "frame", units: 1, build: || one_way(64, 1, true) },
        part("poll-64-flood", flood),
        Part { name: "poll-idle-64", unit: "queue", units: IDLE_PORTS, build: || idle(true) },
        Part { name: "poll-absent-64", unit: "queue", units: IDLE_PORTS, build: || idle(false) },
    ]
}

/// Frames from the first to the second of two guests, in bursts of `frames`.
fn one_way(bytes: usize, frames: u64, stations: bool) -> Box<dyn Run> {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let mut switch = Switch::new(&[Arc::clone(&from.device), Arc::clone(&to.device)], stations);
    if !stations {
        // Both are heard once, so that what follows is known and not flooded.
        to.transmit(&frame(mac(2), mac(1), 64), 1);
        from.supply(1);
        switch.worker.poll();
    }
    let frame = frame(mac(1), mac(2), bytes);
    Box::new(move |meter: &mut Meter| {
        from.transmit(&frame, frames);
        to.supply(frames);
        meter.measure(|| assert_eq!(switch.worker.poll() as u64, frames));
        let received = to.received();
        assert!(received.len() as u64 == frames && received.iter().all(|got| *got == frame));
    })
}

/// Frames between two guests with port security and one rule that permits all, or so many rules in
/// each direction of which one does.
fn filtered(rules: Option<u32>) -> Box<dyn Run> {
    let (mut from, mut to) = (GuestBed::new(), GuestBed::new());
    let devices = [Arc::clone(&from.device), Arc::clone(&to.device)];
    let acl = filters::permitting(rules);
    let policy = |number| Some(filters::policy(number, &acl));
    let mut switch = Switch::with_policies(&devices, true, policy);
    let frame = frame(mac(1), mac(2), 64);
    Box::new(move |meter: &mut Meter| {
        from.transmit(&frame, BURST);
        to.supply(BURST);
        meter.measure(|| assert_eq!(switch.worker.poll() as u64, BURST));
        assert_eq!(to.received().len() as u64, BURST);
    })
}

/// Broadcast frames from one guest to three.
fn flood() -> Box<dyn Run> {
    let mut guests: Vec<_> = (0..4).map(|_| GuestBed::new()).collect();
    let devices: Vec<_> = guests.iter().map(|guest| Arc::clone(&guest.device)).collect();
    let mut switch = Switch::new(&devices, true);
    let frame = frame(mac(1), dataplane::headers::Mac::new([0xff; 6]), 64);
    Box::new(move |meter: &mut Meter| {
        guests[0].transmit(&frame, BURST);
        guests[1..].iter_mut().for_each(|guest| guest.supply(BURST));
        meter.measure(|| assert_eq!(switch.worker.poll() as u64, BURST));
        for guest in &mut guests[1..] {
            assert_eq!(guest.received().len() as u64, BURST);
        }
    })
}

/// A poll of many ports that have nothing to say: guests that are silent, or none at all.
fn idle(running: bool) -> Box<dyn Run> {
    let guests: Vec<_> = (0..IDLE_PORTS).map(|_| GuestBed::new()).collect();
    let devices: Vec<_> = guests.iter().map(|guest| Arc::clone(&guest.device)).collect();
    let mut switch = Switch::new(&devices, true);
    if !running {
        for device in &devices {
            device.stop_ring(0);
            device.stop_ring(1);
        }
    }
    Box::new(move |meter: &mut Meter| meter.measure(|| assert_eq!(switch.worker.poll(), 0)))
}
