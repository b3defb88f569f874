//! What is particular to packed rings, and what both layouts do alike.

use super::*;
use crate::mock::GUEST_BASE;
use proptest::prelude::*;

/// The wrap counter of a place.
const WRAP: u16 = 1 << 15;
/// A place for both halves of a base.
fn base(place: u16) -> u32 {
    u32::from(place) | u32::from(place) << 16
}

fn packed(size: u16) -> Guest {
    Guest::with_layout(RingLayout::Packed, size)
}

fn ring_at(guest: &Guest, base: u32) -> Vring {
    let config = VringConfig { base, ..guest.config() };
    Vring::new(guest.memory(), &config).unwrap()
}

#[test]
fn laps_of_rings_of_any_size() {
    for size in [1, 2, 3, 7, 61, 64, 100] {
        let (mut sender, mut receiver) = (packed(size), packed(size));
        let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
        let mut number = 0_u32;
        for round in 0..2000_u32 {
            let frames = (round * 7 % u32::from(size) + 1).min(BURST_MAX as u32) as u16;
            let mut wanted = Vec::new();
            for id in 0..frames {
                wanted.push(number.to_le_bytes().repeat(20));
                sender.transmit(id, &wanted[usize::from(id)]);
                receiver.supply(id, 200);
                number += 1;
            }
            let sent = relay(&mut source, &mut target, TagEdit::Keep);
            assert_eq!(sent.frames, u64::from(frames), "size {size}, round {round}");
            assert_eq!(receiver.received(), wanted, "size {size}, round {round}");
            let completed = sender.completed();
            assert!(completed.iter().map(|used| used.head).eq(0..u32::from(frames)));
        }
    }
}

#[test]
fn the_largest_ring() {
    let mut guest = packed(32768);
    let last = 32767 | WRAP;
    guest.move_to_place(last);
    let mut source = bare(ring_at(&guest, base(last)));
    let at = [guest.buffer(0), guest.buffer(1), guest.buffer(2)];
    guest.write(at[1], &frame(100));
    guest.post(9, &[(at[0], 12, 0), (at[1], 60, 0), (at[1] + 60, 40, 0)]);
    assert_eq!(take(&mut source), [frame(100)], "a chain across the end");
    assert_eq!(guest.completed()[0].head, 9);
    assert_eq!(stands(&source), (2, 2), "the wrap counter has changed");
}

#[test]
fn indirect_tables_are_read_from_front_to_end() {
    let mut guest = packed(16);
    let mut source = bare(guest.ring());
    let table = guest.buffer(8);
    guest.write(guest.buffer(0), &[0; 12]);
    guest.write(guest.buffer(1), &frame(300));
    // Ids and all flags but WRITE mean nothing in a table (virtio 1.2 §2.8.7).
    guest.describe_at(table, guest.buffer(0), 12, 7, 0);
    guest.describe_at(table + 16, guest.buffer(1), 100, 7, flags::NEXT | 0x8080);
    guest.describe_at(table + 32, guest.buffer(1) + 100, 200, 7, flags::NEXT);
    guest.post(5, &[(table, 48, flags::INDIRECT)]);
    assert_eq!(take(&mut source), [frame(300)]);
    assert_eq!(guest.completed()[0].head, 5);
}

#[test]
fn buffers_in_several_descriptors_are_filled() {
    for mergeable in [true, false] {
        let (mut sender, mut receiver) = (packed(16), packed(13));
        let config = VringConfig { mergeable, ..receiver.config() };
        let mut source = bare(sender.ring());
        let mut target = bare(Vring::new(receiver.memory(), &config).unwrap());
        let table = receiver.buffer(12);
        for lap in 0..20_u16 {
            let at = [receiver.buffer(0), receiver.buffer(1), receiver.buffer(2)];
            let write = flags::WRITE;
            receiver.post(1, &[(at[0], 12, write), (at[0] + 12, 200, write)]);
            receiver.post(2, &[(at[1], 212, write)]);
            receiver.describe_at(table, at[2], 112, 0, write);
            receiver.describe_at(table + 16, at[2] + 112, 100, 0, write);
            receiver.post(3, &[(table, 32, flags::INDIRECT)]);
            for id in 0..3 {
                sender.transmit(id, &frame(150 + usize::from(id)));
            }
            let sent = relay(&mut source, &mut target, TagEdit::Keep);
            assert_eq!((target.outcome, sent.frames), (Ok(()), 3), "lap {lap}");
            let used: Vec<_> = receiver.completed().iter().map(|it| (it.head, it.bytes)).collect();
            assert_eq!(used, [(1, 162), (2, 163), (3, 164)]);
            for (at, bytes) in at.into_iter().zip([150, 151, 152]) {
                assert_eq!(receiver.read(at + 12, bytes), frame(bytes));
            }
        }
    }
}

#[test]
fn a_long_frame_is_merged_and_its_head_appears_last() {
    let (mut sender, mut receiver) = (packed(16), packed(16));
    let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
    let body = frame(2300);
    sender.transmit(0, &body);
    sender.transmit(1, &body);
    for id in 0..3 {
        receiver.supply(id, 1200);
    }
    let sent = relay(&mut source, &mut target, TagEdit::Keep);
    assert_eq!((sent.frames, sent.full), (1, 1), "no room for the second, which takes nothing");
    assert_eq!(receiver.received(), [body]);
    let used = |index: u64| receiver.read(GUEST_BASE + 16 * index + 14, 2);
    assert_eq!(used(0), 0x8082_u16.to_le_bytes(), "used in the first lap, and written to");
    assert_eq!(used(2), 0x0082_u16.to_le_bytes(), "still available");
}

#[test]
fn in_order_one_entry_stands_for_a_burst() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let mut guest = Guest::with_layout(layout, 16).in_order();
        let mut source = bare(guest.ring());
        for _ in 0..10 {
            for id in 0..5 {
                guest.transmit(id, &[id as u8; 60]);
            }
            assert_eq!(take(&mut source).len(), 5);
            if layout == RingLayout::Split {
                let position = stands(&source);
                assert_eq!(position.0, position.1, "the index counts them all");
                // The element of the burst's first chain names its last one.
                let first = guest.completed()[0];
                assert_eq!((first.head, first.bytes), (4, 0));
            } else {
                let heads: Vec<_> = guest.completed().iter().map(|used| used.head).collect();
                assert_eq!(heads, [0, 1, 2, 3, 4]);
            }
        }
    }
    let mut guest = packed(16).in_order();
    let mut source = bare(guest.ring());
    for id in 0..5 {
        guest.transmit(id, &[0; 60]);
    }
    take(&mut source);
    let field = |index: u64, at| guest.read(GUEST_BASE + 16 * index + at, 2);
    assert_eq!(field(0, 12), 4_u16.to_le_bytes(), "the id of the last");
    assert_eq!(field(0, 14), 0x8080_u16.to_le_bytes());
    assert_eq!(field(1, 14), 0x0080_u16.to_le_bytes(), "not touched");
}

#[test]
fn in_order_every_written_buffer_has_its_length() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let mut sender = Guest::with_layout(layout, 16).in_order();
        let mut receiver = Guest::with_layout(layout, 16).in_order();
        let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
        for id in 0..5 {
            sender.transmit(id, &frame(60 + usize::from(id)));
            receiver.supply(id, 200);
        }
        assert_eq!(relay(&mut source, &mut target, TagEdit::Keep).frames, 5);
        let lengths: Vec<_> = receiver.completed().iter().map(|used| used.bytes).collect();
        assert_eq!(lengths, [72, 73, 74, 75, 76]);
    }
}

#[test]
fn interrupts_when_the_driver_wants_them() {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use std::os::fd::AsFd;
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let call = Arc::new(Call::new(event.as_fd().try_clone_to_owned().unwrap()).unwrap());
    let mut guest = packed(7);
    for event_idx in [false, true] {
        let position = base(guest.next_place());
        let config = VringConfig {
            event_idx,
            call: Some(Arc::clone(&call)),
            base: position,
            ..guest.config()
        };
        let mut source = bare(Vring::new(guest.memory(), &config).unwrap());
        assert_eq!(guest.device_event_flags(), 1, "we poll");
        let mut rung = |guest: &mut Guest, frames: u16| {
            for id in 0..frames {
                guest.transmit(id, &frame(64));
            }
            assert_eq!(take(&mut source).len(), usize::from(frames));
            assert_eq!(guest.completed().len(), usize::from(frames));
            event.read().unwrap_or(0)
        };
        guest.write_driver_event(0, 0);
        assert_eq!(rung(&mut guest, 3), 1, "one for a burst");
        guest.write_driver_event(0, 1);
        assert_eq!(rung(&mut guest, 3), 0);
        for _ in 0..30 {
            // The place is in the burst, behind it, or one before it.
            let place = guest.next_place();
            let later = |by| {
                let index = (place & !WRAP) + by;
                if index < 7 { index | place & WRAP } else { (index - 7) | (place ^ WRAP) & WRAP }
            };
            for (by, comes) in [(0, 1), (2, 1), (3, 0), (6, 0)] {
                guest.write_driver_event(later(by), 2);
                let comes = if event_idx { comes } else { 1 };
                assert_eq!(rung(&mut guest, 3), comes, "{by} from {place:#x}");
                guest.write_driver_event(0, 1);
                // Back to a place as far from the ring's end.
                assert_eq!(rung(&mut guest, 4), 0);
                let lap = guest.next_place();
                assert_eq!(lap & !WRAP, place & !WRAP);
                assert_eq!(rung(&mut guest, 7), 0, "and in the same lap");
            }
            rung(&mut guest, 1);
        }
        assert_eq!(rung(&mut guest, 0), 0, "nothing used, nothing to tell");
    }
}

#[test]
fn areas_and_positions_are_checked() {
    let guest = packed(100);
    let refused = |change: fn(&mut VringConfig)| {
        let mut config = guest.config();
        change(&mut config);
        Vring::new(guest.memory(), &config).unwrap_err().to_string()
    };
    assert_eq!(refused(|config| config.size = 0), "a ring cannot have 0 entries, only 1 to 32768");
    assert!(refused(|config| config.size = 32769).contains("cannot have 32769 entries"));
    assert!(refused(|config| config.descriptors += 8).contains("not aligned to 16"));
    assert!(refused(|config| config.used += 2).starts_with("device event suppression area"));
    assert!(refused(|config| config.available = 0).starts_with("driver event suppression area"));
    assert!(
        refused(|config| config.descriptors = 0).starts_with("descriptor ring at user address")
    );
    assert_eq!(
        refused(|config| config.base = base(100)),
        "a ring of 100 entries cannot begin at 0x640064"
    );
}

#[test]
fn every_violation_is_found_named_and_final() {
    type Malice = fn(&mut Guest);
    let cases: &[(&str, Malice)] = &[
        ("descriptor chain is longer than 16", |guest| {
            let part = (guest.buffer(0), 1, 0);
            guest.post(0, &[part; 17]);
        }),
        ("descriptor chain is longer than 16", |guest| {
            let part = (guest.buffer(0), 0, 0);
            guest.post(0, &[part; 40]);
        }),
        ("indirect descriptor inside an indirect table or with NEXT set", |guest| {
            let table = guest.buffer(1);
            guest.describe_at(table, table, 16, 0, flags::INDIRECT);
            guest.post(0, &[(table, 16, flags::INDIRECT)]);
        }),
        ("indirect descriptor inside an indirect table or with NEXT set", |guest| {
            let table = guest.buffer(1);
            guest.post(0, &[(table, 16, flags::INDIRECT), (table, 16, 0)]);
        }),
        ("indirect descriptor inside an indirect table or with NEXT set", |guest| {
            let table = guest.buffer(1);
            guest.describe_at(table, guest.buffer(2), 16, 0, 0);
            guest.post(0, &[(table, 16, 0), (table, 16, flags::INDIRECT)]);
        }),
        ("indirect table of 17 bytes is empty, not a multiple of 16, or too long", |guest| {
            guest.post(0, &[(guest.buffer(1), 17, flags::INDIRECT)]);
        }),
        ("indirect table of 272 bytes is empty, not a multiple of 16, or too long", |guest| {
            guest.post(0, &[(guest.buffer(1), 272, flags::INDIRECT)]);
        }),
        ("indirect table of 4294967280 bytes is empty, not a multiple of 16, or too long", |it| {
            it.post(0, &[(it.buffer(1), u32::MAX - 15, flags::INDIRECT)]);
        }),
        ("address 0xffffffffffffffff with 64 bytes is outside of the guest's memory", |guest| {
            guest.post(0, &[(u64::MAX, 64, 0)]);
        }),
        ("address 0x0 with 32 bytes is outside of the guest's memory", |guest| {
            guest.post(0, &[(0, 32, flags::INDIRECT)]);
        }),
        ("chain of 4294967295 bytes is longer than any frame", |guest| {
            guest.post(0, &[(guest.buffer(0), u32::MAX, 0)]);
        }),
        ("device-writable buffer in a transmit queue", |guest| guest.supply(0, 64)),
        ("device-writable buffer in a transmit queue", |guest| {
            guest.describe_at(guest.buffer(1), guest.buffer(0), 64, 0, flags::WRITE);
            guest.post(0, &[(guest.buffer(1), 16, flags::INDIRECT)]);
        }),
        ("chain of 11 bytes is shorter than the net header of 12", |guest| {
            guest.post(0, &[(guest.buffer(0), 11, 0)]);
        }),
    ];
    for (reason, malice) in cases {
        let mut guest = packed(16);
        let mut source = bare(guest.ring());
        malice(&mut guest);
        assert_eq!(violation(&mut source).to_string(), *reason);
        let before = guest.read(GUEST_BASE, 256);
        guest.transmit(1, &frame(64));
        assert!(take(&mut source).is_empty(), "a broken ring is not touched again: {reason}");
        assert_eq!(guest.read(GUEST_BASE, 16), before[..16], "{reason}");
    }
}

#[test]
fn a_receive_queue_with_bad_buffers_breaks_and_harms_nobody() {
    type Malice = fn(&mut Guest);
    let cases: &[(&str, Malice)] = &[
        ("device-readable buffer in a receive queue", |guest| guest.transmit(0, &frame(64))),
        ("descriptor chain is longer than 16", |guest| {
            let part = (guest.buffer(0), 1, flags::WRITE);
            guest.post(0, &[part; 17]);
        }),
        ("address 0x10 with 2000 bytes is outside of the guest's memory", |guest| {
            guest.post(0, &[(0x10, 2000, flags::WRITE)]);
        }),
        ("device-readable buffer in a receive queue", |guest| {
            let at = guest.buffer(0);
            guest.post(0, &[(at, 100, flags::WRITE), (at, 100, 0)]);
        }),
    ];
    for (reason, malice) in cases {
        let (mut sender, mut receiver) = (packed(16), packed(16));
        let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
        for id in 0..3 {
            sender.transmit(id, &frame(64));
        }
        malice(&mut receiver);
        let sent = relay(&mut source, &mut target, TagEdit::Keep);
        assert_eq!(target.outcome.unwrap_err().to_string(), *reason);
        assert_eq!(sent.frames + sent.full + sent.too_big + sent.down, 3, "each counted once");
        assert_eq!(sender.completed().len(), 3, "the sender is not hurt");
    }
}

#[test]
fn buffers_that_merge_around_the_whole_ring_are_refused() {
    // Each descriptor is available in both laps, as far as a single look can tell: the chain of 8
    // in a ring of 12 is seen a second time, and its end lies in its own beginning.
    let (mut sender, receiver) = (packed(16), packed(12));
    let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
    sender.transmit(0, &frame(200));
    for index in 0..12 {
        let available = if index < 8 { 0x80 } else { 0x8000 };
        let more = if index % 8 == 7 { 0 } else { flags::NEXT };
        let flags = available | more | flags::WRITE;
        receiver.describe_packed(index, receiver.buffer(index), 10, index, flags);
    }
    receiver.describe_packed(8, receiver.buffer(8), 10, 8, 0x80 | flags::NEXT | flags::WRITE);
    relay(&mut source, &mut target, TagEdit::Keep);
    assert_eq!(target.outcome, Err(Violation::Lapped { size: 12 }));
}

#[test]
fn chains_that_lap_the_ring_in_one_burst_are_not_taken_twice() {
    let mut guest = packed(8);
    let mut source = bare(guest.ring());
    for id in 0..8 {
        guest.transmit(id, &frame(64));
    }
    assert_eq!(take(&mut source).len(), 8);
    // The next lap, all of it with flags of the wrong lap.
    for index in 0..8 {
        guest.describe_packed(index, guest.buffer(index), 76, index, 0x0080);
    }
    assert!(take(&mut source).is_empty());
    assert_eq!(source.outcome, Ok(()));
}

/// Descriptors that change while they are read: whatever is seen, it is checked or refused.
#[test]
fn a_guest_that_rewrites_its_ring_all_the_time() {
    use std::sync::atomic::AtomicBool;
    let guest = packed(61);
    let receiver = packed(61);
    let stop = Arc::new(AtomicBool::new(false));
    let scribblers: Vec<_> = [guest.memory(), receiver.memory()]
        .into_iter()
        .map(|memory| {
            let stop = Arc::clone(&stop);
            let mut scribbler = packed(61);
            scribbler.replace_memory(memory);
            std::thread::spawn(move || {
                let mut state = 0x9e37_79b9_u64;
                while !stop.load(Ordering::Relaxed) {
                    state =
                        state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let index = (state >> 33) as u16 % 61;
                    let (bytes, id) = ((state >> 20) as u32 % 3000, (state >> 40) as u16);
                    // Any of NEXT, WRITE, INDIRECT, and both laps.
                    let flags = (state >> 60) as u16 & 7 | (state >> 50) as u16 & 0x8080;
                    scribbler.describe_packed(index, scribbler.buffer(index), bytes, id, flags);
                }
            })
        })
        .collect();
    let mut moved = 0;
    for round in 0..4000_u16 {
        let place = (round % 61) | (round % 2 * WRAP);
        let mut source = bare(ring_at(&guest, base(place)));
        let mut target = bare(ring_at(&receiver, base(place)));
        while source.outcome.is_ok() && target.outcome.is_ok() {
            let sent = relay(&mut source, &mut target, TagEdit::Keep);
            moved += sent.frames + sent.full;
            if sent == Sent::default() {
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    scribblers.into_iter().for_each(|scribbler| scribbler.join().unwrap());
    assert!(moved > 0, "nothing was ever available");

    // Once it stops, the ring is like any other.
    let mut guest = guest;
    guest.move_to_place(WRAP);
    guest.clear_device_event();
    let mut source = bare(guest.ring());
    for id in 0..61 {
        guest.transmit(id, &frame(200));
    }
    assert_eq!(take(&mut source).len(), 61);
    assert_eq!(source.outcome, Ok(()));
}

/// How a ring's last life ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It was stopped; its session may have told nobody where.
    Stopped,
    /// The program died.
    Died,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A ring goes on where it stood whatever the front-end says, and with what was made available
    /// meanwhile.
    #[test]
    fn a_ring_is_resumed_where_it_stood(
        size in 16_u16..70,
        bursts in prop::collection::vec((1_u16..12, 1_usize..4), 0..40),
        waiting in prop::collection::vec(1_usize..4, 0..5),
        in_order: bool,
        end in prop_oneof![Just(End::Stopped), Just(End::Died)],
        told in prop_oneof![Just(None), Just(Some(0x8000_8000)), Just(Some(0)), Just(Some(0x8000))],
    ) {
        // Without word of ours, chains of several descriptors hide where they end.
        let most = if matches!(end, End::Died) && !in_order { 1 } else { 3 };
        let mut guest = packed(size);
        if in_order {
            guest = guest.in_order();
        }
        let mut source = bare(guest.ring());
        // In order, a driver hands ids out in turn.
        let (mut id, mut number) = (0_u16, 0_u32);
        let mut post = |guest: &mut Guest, parts: usize| {
            let address = guest.buffer(id % 16);
            let text = number.to_le_bytes();
            guest.write(address, &[0; 12]);
            guest.write(address + 12, &text);
            let parts: &[_] = match parts.min(most) {
                1 => &[(address, 16, 0)],
                2 => &[(address, 12, 0), (address + 12, 4, 0)],
                _ => &[(address, 1, 0), (address + 1, 11, 0), (address + 12, 4, 0)],
            };
            guest.post(id, parts);
            // A driver that is free to choose takes what it got back last.
            id = if in_order { (id + 1) % 64 } else { (id + 1) % 5 };
            number += 1;
            text.to_vec()
        };
        let mut last = 0;
        for (count, parts) in bursts {
            let count = count.min(size / 4).min(5);
            last = usize::from(count) * parts;
            let wanted: Vec<_> = (0..count).map(|_| post(&mut guest, parts)).collect();
            prop_assert_eq!(take(&mut source), wanted);
            guest.completed();
        }
        // No front-end begins a new ring in the second lap.
        prop_assume!(last > 0 || told != Some(0));
        // An overwritten trace of a whole burst is one of the cases that are lost.
        let died = matches!(end, End::Died);
        prop_assume!(!(died && in_order && last + waiting.iter().sum::<usize>() > usize::from(size)));
        let position = source.ring.position();
        let told = told.unwrap_or(position.base());
        match end {
            End::Stopped => assert_eq!(source.ring.stop(), position),
            End::Died => {}
        }
        let wanted: Vec<_> = waiting.into_iter().map(|parts| post(&mut guest, parts)).collect();
        let mut source = bare(ring_at(&guest, told));
        prop_assert_eq!(source.ring.position(), position);
        prop_assert_eq!(take(&mut source), wanted);
        prop_assert_eq!(source.outcome, Ok(()));
    }
}

#[test]
fn a_full_receive_queue_is_resumed() {
    for stands_at in [0, 1, 5, 15] {
        for lap in [0, WRAP] {
            let mut guest = packed(16);
            guest.move_to_place(stands_at | lap);
            for id in 0..16 {
                guest.supply(id, 200);
            }
            for told in [0x8000_8000, 0x8000, 0, 0x7_0007] {
                guest.clear_device_event();
                let ring = ring_at(&guest, told);
                assert_eq!(ring.position().next_used, stands_at | lap, "told {told:#x}");
            }
        }
    }
}
