//! From ring to ring: what is passed on, what is completed, and what a receiver finds.

use super::*;
use crate::burst::{BURST_MAX, Sent, Staged};
use crate::vring::Violation;

const TAKES_ALL: u64 =
    device::GUEST_CSUM | device::GUEST_TSO4 | device::GUEST_TSO6 | device::GUEST_ECN;

/// A net header and the frame behind it.
type Got = (Vec<u8>, Vec<u8>);

/// A guest that receives, with `buffers` buffers of `bytes` bytes, and a driver that accepted
/// these features.
struct Receiver {
    guest: Guest,
    ring: Vring,
}

impl Receiver {
    fn new(accepted: u64, buffers: u16, bytes: u32) -> Self {
        let mut guest = Guest::new(128);
        let accepted = Offloads::accepted_by(accepted);
        let ring = Vring::new(guest.memory(), &VringConfig { accepted, ..guest.config() });
        for index in 0..buffers {
            guest.supply(index, bytes);
        }
        Self { guest, ring: ring.unwrap() }
    }

    /// What it got of the frames that wait in `sender`, as net headers and frames.
    fn relay(&mut self, sender: &mut Sender, tag: TagEdit) -> (Sent, Vec<Got>) {
        let mut burst = Burst::default();
        let received = Received::take(sender, &mut burst);
        let frames = received.frames();
        let edits = [tag; BURST_MAX];
        let edited = if tag == TagEdit::Keep { 0 } else { u64::MAX };
        let staged = Staged::new(frames.all()).with_edits(edited, &edits);
        let mut sent = Sent::default();
        let outcome = self.ring.enqueue(frames, &staged, &mut sent, &RingCounters::default());
        assert_eq!(outcome, Ok::<(), Violation>(()));
        (sent, self.guest.received_with_headers())
    }
}

fn sender(plan: &Plan, gso: u8) -> Sender {
    Sender::new(plan.raw(gso, 1448), &plan.frame(), &[300, 5000])
}

#[test]
fn a_segment_of_64_kib_crosses_in_one_piece() {
    let plan = Plan { payload: 65_535 - 52, ..PLAIN };
    let mut receiver = Receiver::new(TAKES_ALL, 128, 1536);
    let (sent, got) = receiver.relay(&mut sender(&plan, 1), TagEdit::Keep);
    let frame = plan.frame();
    let bytes = frame.len() as u64;
    assert_eq!(sent, Sent { frames: 1, bytes, ..Sent::default() }, "nothing is done to it");
    assert_eq!(got.len(), 1);
    let (header, whole) = &got[0];
    assert!(*whole == frame, "it has changed on its way");
    let buffers = (frame.len() + 12).div_ceil(1536) as u8;
    let headers = plan.headers() as u8;
    assert_eq!(header[..], [1, 1, headers, 0, 168, 5, 34, 0, 16, 0, buffers, 0]);
}

#[test]
fn a_checksum_is_left_to_who_takes_it_in_one_buffer_or_several() {
    for (buffer, payload) in [(2000, 20), (2000, 1400), (600, 1400)] {
        let plan = Plan { payload, ..PLAIN };
        let mut receiver = Receiver::new(device::GUEST_CSUM, 8, buffer);
        let (sent, got) = receiver.relay(&mut sender(&plan, 0), TagEdit::Push(5));
        assert_eq!((sent.frames, sent.checksums), (1, 0));
        let (header, frame) = &got[0];
        assert_eq!(header[..10], [1, 0, 0, 0, 0, 0, 38, 0, 16, 0], "it moved with the tag");
        assert_eq!(frame[16..], plan.frame()[12..], "the sum is as the sender left it");
    }
}

#[test]
fn a_driver_that_takes_less_gets_what_is_complete() {
    let four = Plan { flags: 0x90, ..PLAIN };
    let six = Plan { ipv6: true, ..four.clone() };
    let without = |bit: u64| TAKES_ALL & !bit;
    for (plan, accepted, cut) in [
        (&four, 0, true),
        (&four, without(device::GUEST_CSUM), true),
        (&four, without(device::GUEST_TSO4), true),
        (&four, without(device::GUEST_ECN), true),
        (&four, without(device::GUEST_TSO6), false),
        (&six, without(device::GUEST_TSO6), true),
        (&six, without(device::GUEST_TSO4), false),
    ] {
        let mut receiver = Receiver::new(accepted, 16, 2000);
        let (sent, got) = receiver.relay(&mut sender(plan, plan.gso()), TagEdit::Keep);
        assert_eq!((sent.frames, got.len()), (1, if cut { 3 } else { 1 }), "{accepted:#x}");
        assert_eq!(sent.bytes, got.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>());
        if !cut {
            continue;
        }
        assert_eq!((sent.checksums, sent.segments), (3, 3));
        let mut payload = Vec::new();
        for (header, frame) in &got {
            assert_eq!(header[..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "nothing is left to do");
            payload.extend_from_slice(receive(plan, frame));
        }
        assert_eq!(payload, plan.frame()[plan.headers()..]);
    }
}

#[test]
fn segments_that_find_no_room_make_one_lost_frame() {
    let mut receiver = Receiver::new(0, 2, 2000);
    let (sent, got) = receiver.relay(&mut sender(&PLAIN, 1), TagEdit::Keep);
    assert_eq!((sent.frames, sent.full, got.len()), (0, 1, 2), "what TCP sends again is the rest");
    let mut receiver = Receiver::new(TAKES_ALL, 1, 2000);
    let (sent, got) = receiver.relay(&mut sender(&PLAIN, 1), TagEdit::Keep);
    assert_eq!((sent.frames, sent.full, got.len()), (0, 1, 0), "a whole frame goes whole or not");
}

#[test]
fn without_mergeable_buffers_a_large_frame_needs_a_large_buffer() {
    let mut guest = Guest::new(64);
    let config = VringConfig {
        mergeable: false,
        version_1: false,
        accepted: Offloads::accepted_by(TAKES_ALL),
        ..guest.config()
    };
    let mut ring = Vring::new(guest.memory(), &config).unwrap();
    // The short header, and a buffer in pieces as old drivers of large frames lay it out.
    let last = 20;
    guest.describe(0, guest.buffer(0), 10, 3, 1);
    for index in 1..=last {
        let flags = if index == last { 2 } else { 3 };
        guest.describe(index, guest.buffer(index), 2000, flags, index + 1);
    }
    guest.offer(0);
    let plan = Plan { payload: 30_000, ..PLAIN };
    let mut sender = sender(&plan, 1);
    let mut burst = Burst::default();
    let received = Received::take(&mut sender, &mut burst);
    let (mut sent, counters) = (Sent::default(), RingCounters::default());
    ring.enqueue(received.frames(), &Staged::new(1), &mut sent, &counters).unwrap();
    assert_eq!(sent.frames, 1);
    let frame = plan.frame();
    assert_eq!(guest.completed()[0].bytes as usize, 10 + frame.len());
    assert_eq!(guest.read(guest.buffer(0), 10), [1, 1, 66, 0, 168, 5, 34, 0, 16, 0]);
    assert_eq!(guest.read(guest.buffer(1), 2000), frame[..2000]);
}

#[test]
fn small_segments_take_no_more_of_a_workers_time() {
    // Each of these becomes 1365 segments, of which a receiver with room for all gets some.
    let plan = Plan { payload: 65_490, options: 0, ..PLAIN };
    let mut receiver = Receiver::new(0, 0, 0);
    let mut target = Guest::new(16384);
    receiver.ring = Vring::new(target.memory(), &target.config()).unwrap();
    (0..16384).for_each(|index| target.supply(index, 200));
    let mut guest = Guest::new(256);
    let config = VringConfig { left: Offloads::left_by(ALL), ..guest.config() };
    let raw = plan.raw(1, 48);
    let mut header = raw.word.to_le_bytes().to_vec();
    header.extend([16, 0, 0, 0]);
    for frame in 0..8 {
        guest.transmit_pieces(32 * frame, &header, &plan.frame(), &[]);
    }
    let mut sender = Sender(Vring::new(guest.memory(), &config).unwrap());
    let (sent, _) = receiver.relay(&mut sender, TagEdit::Keep);
    assert_eq!((sent.frames, sent.full, sent.segments), (3, 5, 3 * 1365));
    assert_eq!(target.completed().len(), 3 * 1365);
}
