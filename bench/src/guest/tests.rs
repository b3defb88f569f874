//! Does the bench notice? A device that does things wrong on purpose, one at a time.

use std::sync::Arc;

use super::ring::{Descriptor, Used};
use super::*;
use crate::scenario::{Guests, Scenario};

/// The device's side of one guest, slow and plain.
pub(crate) struct Device {
    memory: Arc<GuestMemory>,
    receive: Ring,
    transmit: Ring,
    taken: u16,
    filled: u16,
}

impl Device {
    pub(crate) fn of(guest: &Guest) -> Self {
        let (memory, layouts) = (Arc::clone(guest.memory()), guest.layouts());
        let ring =
            |queue: usize| Ring::new(&memory, layouts[queue]).expect("the guest's own layout");
        let (receive, transmit) = (ring(RECEIVE_QUEUE), ring(TRANSMIT_QUEUE));
        Self { memory, receive, transmit, taken: 0, filled: 0 }
    }

    /// The next frame that the guest sent, with its virtio-net header.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        if self.transmit.available_index.acquire() == self.taken {
            return None;
        }
        let id = self.transmit.available.load(usize::from(self.taken));
        let (mut bytes, mut next) = (Vec::new(), id);
        loop {
            let source = Descriptor::from_words(self.transmit.descriptors.load(usize::from(next)));
            let offset = self.memory.offset_of(source.address, source.length as usize);
            let begin = bytes.len();
            bytes.resize(begin + source.length as usize, 0);
            self.memory.read(offset.expect("a buffer in guest memory"), &mut bytes[begin..]);
            if source.flags & NEXT == 0 {
                break;
            }
            next = source.next;
        }
        self.finish(u32::from(id));
        Some(bytes)
    }

    /// Gives a transmit buffer back.
    fn finish(&mut self, id: u32) {
        self.transmit.used.store(usize::from(self.taken), Used { id, length: 0 });
        self.taken = self.taken.wrapping_add(1);
        self.transmit.used_index.release(self.taken);
    }

    /// Whether the guest offers a buffer.
    pub(crate) fn has_room(&self) -> bool {
        self.receive.available_index.acquire() != self.filled
    }

    /// Puts a frame, with its header, into as many buffers as it needs.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let first = self.receive.available.load(usize::from(self.filled));
        let first = Descriptor::from_words(self.receive.descriptors.load(usize::from(first)));
        let length = first.length as usize;
        let buffers = bytes.len().div_ceil(length) as u16;
        for (index, piece) in bytes.chunks(length).enumerate() {
            let id = self.receive.available.load(usize::from(self.filled));
            let target = Descriptor::from_words(self.receive.descriptors.load(usize::from(id)));
            let offset = self.memory.offset_of(target.address, piece.len());
            let offset = offset.expect("a buffer in guest memory");
            self.memory.write(offset, piece);
            if index == 0 && bytes[10..12] == [0, 0] {
                self.memory.write(offset + 10, &buffers.to_le_bytes());
            }
            self.use_buffer(u32::from(id), piece.len() as u32);
        }
        self.receive.used_index.release(self.filled);
    }

    /// Marks a receive buffer used, not visible yet.
    fn use_buffer(&mut self, id: u32, length: u32) {
        self.receive.used.store(usize::from(self.filled), Used { id, length });
        self.filled = self.filled.wrapping_add(1);
    }
}

/// Sends `frames` frames from A through `fault` to B. `fault` gets all of them in order and returns
/// what is delivered.
fn deliver(
    scenario: &Scenario,
    frames: usize,
    fault: impl Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>,
) -> (u64, Faults) {
    let mut guests = Guests::new(scenario, 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    let mut sent = Vec::new();
    while sent.len() < frames {
        let burst = guests.a.send(frames - sent.len());
        sent.extend(std::iter::from_fn(|| a.take()));
        assert_eq!(guests.a.transmit.reclaim(), burst);
    }
    for frame in fault(sent) {
        b.put(&frame);
        guests.b.receive(1);
    }
    (guests.b.judge.arrived(), guests.b.faults())
}

fn small() -> Scenario {
    Scenario::one_way("test", 64)
}

fn one(faults: Faults) -> Faults {
    assert_eq!(faults.total(), 1, "{faults:?}");
    faults
}

#[test]
fn right_frames_are_right_at_every_size() {
    for frame_bytes in [64, 65, 512, 1500, 2484, 2485, 9000, 65_000] {
        for addresses in [1, 100] {
            let flows = 200;
            let port_security = addresses == 1;
            let scenario = Scenario { frame_bytes, flows, addresses, port_security, ..small() };
            let (arrived, faults) = deliver(&scenario, 600, |frames| frames);
            assert_eq!((arrived, faults.total()), (600, 0), "{frame_bytes} B: {faults:?}");
        }
    }
}

#[test]
fn random_flows_arrive_like_others() {
    let scenario = Scenario { flows: 200, random: true, ..small() };
    let (arrived, faults) = deliver(&scenario, 600, |frames| frames);
    assert_eq!((arrived, faults.total()), (600, 0), "{faults:?}");
}

/// Where rules are replaced under way, the third guest's frames to A are counted by when they come.
#[test]
fn probes_are_no_fault_and_show_when_they_were_stopped() {
    let scenario = Scenario { rules: 100, swaps: true, ports: 3, ..small() };
    let mut guests = Guests::new(&scenario, 3, 1, Pages::Normal).expect("three guests");
    assert!(guests.probes && !guests.floods);
    let (mut a, mut prober) = (Device::of(&guests.a), Device::of(&guests.bystanders[0]));
    for probe in 0..30 {
        crate::generator::probe(&mut guests);
        let frame = prober.take().expect("a probe");
        if probe < 10 || (15..20).contains(&probe) || probe > 25 {
            a.put(&frame);
        }
    }
    guests.a.receive(64);
    assert_eq!((guests.a.judge.probe_stops(), guests.a.judge.arrived()), (2, 0));
    assert_eq!(guests.faults().total(), 0);
}

#[test]
fn a_flood_that_arrives_is_a_fault_wherever_it_does() {
    let scenario = Scenario { rules: 100, flood: true, ports: 4, ..small() };
    for reached in 0..3 {
        let mut guests = Guests::new(&scenario, 4, 1, Pages::Normal).expect("four guests");
        let mut flooder = Device::of(&guests.bystanders[0]);
        crate::generator::flood(&mut guests, 8);
        let frame = flooder.take().expect("a frame");
        let guest = match reached {
            0 => &mut guests.a,
            1 => &mut guests.b,
            _ => &mut guests.bystanders[1],
        };
        Device::of(guest).put(&frame);
        guest.receive(64);
        assert_eq!(one(guests.faults()).misdelivered, 1);
    }
}

fn segments() -> Scenario {
    let standard = Scenario::standard().into_iter().find(|one| one.name == "64k-tso");
    standard.expect("a standard scenario")
}

#[test]
fn segments_go_in_chains_and_come_in_one_piece() {
    for (flows, addresses) in [(1, 1), (200, 100)] {
        let port_security = addresses == 1;
        let scenario = Scenario { flows, addresses, port_security, ..segments() };
        let (arrived, faults) = deliver(&scenario, 600, |frames| {
            assert!(frames.iter().all(|frame| frame.len() == 12 + 64_294));
            frames
        });
        assert_eq!((arrived, faults.total()), (600, 0), "{faults:?}");
    }
    let guests = Guests::new(&segments(), 2, 1, Pages::Normal).expect("two guests");
    let mut a = Device::of(&guests.a);
    let mut sender = guests.a;
    assert_eq!(sender.send(1000), 32, "as many as chains of 17 fit into 1024, by powers of two");
    let chain: Vec<_> = (0..17)
        .map(|slot| Descriptor::from_words(a.transmit.descriptors.load(slot)))
        .map(|piece| (piece.length, piece.flags & NEXT != 0))
        .collect();
    assert_eq!((chain[0], chain[1]), ((76, true), (4096, true)));
    assert_eq!((chain[15].1, chain[16]), (true, (64_230 - 15 * 4096, false)));
    assert_eq!(std::iter::from_fn(|| a.take()).count(), 32);
}

#[test]
fn a_segment_that_lost_its_offload_or_a_byte_is_corrupt() {
    // Every field of the virtio-net header, headers, checksum, and the first and last byte.
    for byte in [0, 1, 2, 4, 6, 8, 35, 50, 62, 66, 76, 12 + 64_293] {
        let (arrived, faults) = deliver(&segments(), 10, |mut frames| {
            frames[0][byte] ^= 0x40;
            frames
        });
        assert_eq!((arrived, one(faults).corrupt), (9, 1), "byte {byte}");
    }
    // Cut into pieces.
    let (arrived, faults) = deliver(&segments(), 10, |mut frames| {
        let rest = frames[0].split_off(12 + 54 + 1460);
        let piece = [&frames[0][..12 + 54], &rest[..1460]].concat();
        frames.insert(1, piece);
        frames
    });
    assert_eq!((arrived, faults.corrupt), (9, 2), "{faults:?}");
}

#[test]
fn chains_may_come_back_out_of_turn() {
    let mut guests = Guests::new(&segments(), 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    for _ in 0..200 {
        assert_eq!(guests.a.send(20), 20);
        let first = a.taken;
        for _ in 0..20 {
            b.put(&a.take().expect("it was sent"));
        }
        // All come back, the last first.
        let ids: Vec<_> =
            (0..20).map(|place| a.transmit.available.load(usize::from(first) + place)).collect();
        a.taken = first;
        ids.into_iter().rev().for_each(|id| a.finish(u32::from(id)));
        assert_eq!((guests.b.receive(64), guests.a.transmit.reclaim()), (20, 20));
    }
    assert_eq!((guests.b.judge.arrived(), guests.a.faults().total()), (4000, 0));
    assert_eq!(guests.b.faults().total(), 0);
}

#[test]
fn a_mix_of_lengths_is_judged_by_each_frames_own() {
    let scenario = Scenario { imix: true, flows: 7, ..small() };
    let (arrived, faults) = deliver(&scenario, 1000, |frames| frames);
    assert_eq!((arrived, faults.total()), (1000, 0), "{faults:?}");
    let (arrived, faults) = deliver(&scenario, 12, |mut frames| {
        frames[1].truncate(76);
        frames
    });
    assert_eq!((arrived, one(faults).corrupt), (11, 1));
}

#[test]
fn buffers_may_come_back_out_of_turn() {
    let mut guests = Guests::new(&small(), 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    for _ in 0..200 {
        assert_eq!(guests.a.send(64), 64);
        let mut ids = Vec::new();
        for place in 0..64 {
            let id = a.transmit.available.load(usize::from(a.taken) + place);
            ids.push(id);
            let source = Descriptor::from_words(a.transmit.descriptors.load(usize::from(id)));
            let offset = a.memory.offset_of(source.address, 76).expect("in guest memory");
            let mut bytes = [0; 76];
            a.memory.read(offset, &mut bytes);
            b.put(&bytes);
        }
        // All buffers come back, the last first.
        ids.into_iter().rev().for_each(|id| a.finish(u32::from(id)));
        assert_eq!((guests.b.receive(64), guests.a.transmit.reclaim()), (64, 64));
    }
    assert_eq!((guests.b.judge.arrived(), guests.a.faults().total()), (12_800, 0));
    assert_eq!(guests.b.faults().total(), 0);
}

#[test]
fn rings_go_round() {
    let mut guests = Guests::new(&small(), 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    for _ in 0..200_000 / 32 {
        guests.a.transmit.reclaim();
        assert_eq!(guests.a.send(32), 32);
        while let Some(frame) = a.take() {
            b.put(&frame);
        }
        assert_eq!(guests.b.receive(64), 32);
    }
    assert_eq!((guests.b.judge.arrived(), guests.b.faults().total()), (200_000, 0));
}

#[test]
fn a_lost_frame_is_missing() {
    let (arrived, faults) = deliver(&small(), 100, |mut frames| {
        frames.remove(17);
        frames
    });
    assert_eq!((arrived, faults.total()), (99, 0));
}

#[test]
fn a_frame_delivered_twice_is_a_duplicate() {
    let (arrived, faults) = deliver(&small(), 100, |mut frames| {
        frames.insert(20, frames[3].clone());
        frames
    });
    assert_eq!((arrived, one(faults).duplicated), (100, 1));
}

#[test]
fn an_exchange_of_frames_is_a_reordering_within_a_flow_only() {
    let swap = |mut frames: Vec<Vec<u8>>| {
        frames.swap(10, 11);
        frames
    };
    let (arrived, faults) = deliver(&small(), 100, swap);
    assert_eq!((arrived, one(faults).reordered), (100, 1));
    let (arrived, faults) = deliver(&Scenario { flows: 7, ..small() }, 100, swap);
    assert_eq!((arrived, faults.total()), (100, 0));
}

#[test]
fn a_changed_bit_is_corruption_wherever_it_is() {
    // The header's flags and GSO type, every part of the first 64 bytes, and, as the first frame is
    // compared whole, the first and the last byte behind them.
    for byte in [0, 1, 12, 20, 26, 36, 40, 50, 56, 60, 68, 75, 76, 1511] {
        let scenario = Scenario { frame_bytes: 1500, ..small() };
        let (arrived, faults) = deliver(&scenario, 10, |mut frames| {
            frames[0][byte] ^= 0x40;
            frames
        });
        assert_eq!((arrived, one(faults).corrupt), (9, 1), "byte {byte}");
    }
}

#[test]
fn a_body_under_another_frames_head_is_corruption() {
    let scenario = Scenario { frame_bytes: 9000, ..small() };
    let (arrived, faults) = deliver(&scenario, 10, |mut frames| {
        let other = frames[1][5000..].to_vec();
        frames[0][5000..].copy_from_slice(&other);
        frames
    });
    assert_eq!((arrived, one(faults).corrupt), (9, 1));
}

#[test]
fn a_wrong_length_is_corruption() {
    for change in [|frame: &mut Vec<u8>| frame.truncate(75), |frame: &mut Vec<u8>| frame.push(0)] {
        let (arrived, faults) = deliver(&small(), 10, |mut frames| {
            change(&mut frames[4]);
            frames
        });
        assert_eq!((arrived, one(faults).corrupt), (9, 1));
    }
}

#[test]
fn a_frame_sent_back_is_misdelivered() {
    let mut guests = Guests::new(&small(), 3, 1, Pages::Normal).expect("three guests");
    let mut a = Device::of(&guests.a);
    assert_eq!(guests.a.send(2), 2);
    let frame = a.take().expect("the first");
    a.put(&frame);
    assert_eq!(guests.a.receive(1), 1);
    assert_eq!(one(guests.a.faults()).misdelivered, 1);
    let mut bystander = Device::of(&guests.bystanders[0]);
    bystander.put(&frame);
    assert_eq!(guests.bystanders[0].receive(1), 1);
    assert_eq!(one(guests.bystanders[0].faults()).misdelivered, 1);
}

#[test]
fn a_receive_ring_used_wrongly_is_noticed() {
    type Fault = fn(&mut Device);
    let wrong: [Fault; 4] = [
        // A buffer that does not exist.
        |device| device.use_buffer(1024, 76),
        // More bytes than the buffer has.
        |device| device.use_buffer(0, ORDINARY_STRIDE as u32 + 1),
        // The same buffer twice, the first time right.
        |device| {
            device.put(&[0; 76]);
            device.use_buffer(0, 76);
        },
        // An index that jumps by more than the ring has.
        |device| device.filled = device.filled.wrapping_add(1025),
    ];
    for (number, fault) in wrong.into_iter().enumerate() {
        let mut guests = Guests::new(&small(), 2, 1, Pages::Normal).expect("two guests");
        let mut b = Device::of(&guests.b);
        fault(&mut b);
        b.receive.used_index.release(b.filled);
        guests.b.receive(64);
        assert_eq!(guests.b.faults().ring, 1, "fault {number}");
    }
}

#[test]
fn buffers_of_one_frame_that_come_apart_or_half_full_are_noticed() {
    let scenario = Scenario { frame_bytes: 9000, ..small() };
    let mut guests = Guests::new(&scenario, 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    assert_eq!(guests.a.send(1), 1);
    let mut frame = a.take().expect("it was sent");
    // Says that there is one more buffer than there is.
    frame[10] = 5;
    b.put(&frame);
    guests.b.receive(1);
    assert_eq!(guests.b.faults(), Faults { ring: 1, ..Faults::default() });
    // The first buffer could have held more.
    frame.truncate(2000);
    frame[10] = 2;
    b.put(&frame);
    b.use_buffer(5, 100);
    b.receive.used_index.release(b.filled);
    guests.b.receive(1);
    assert_eq!(guests.b.faults(), Faults { ring: 2, corrupt: 1, ..Faults::default() });
}

#[test]
fn a_transmit_ring_used_wrongly_is_noticed() {
    for id in [1024, 900] {
        let mut guests = Guests::new(&small(), 2, 1, Pages::Normal).expect("two guests");
        let mut a = Device::of(&guests.a);
        assert_eq!(guests.a.send(10), 10);
        a.finish(id);
        guests.a.transmit.reclaim();
        assert_eq!(one(guests.a.faults()).ring, 1, "buffer {id}");
    }
    let mut guests = Guests::new(&small(), 2, 1, Pages::Normal).expect("two guests");
    let a = Device::of(&guests.a);
    a.transmit.used_index.release(1);
    assert_eq!(guests.a.transmit.reclaim(), 0);
    assert_eq!(one(guests.a.faults()).ring, 1);
}
