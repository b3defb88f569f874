//! The ring against a guest that keeps the rules and one that does not.

mod model;
mod packed;
mod resume;

use super::*;
use crate::burst::{BURST_MAX, Burst, Received, Sent, Source, Staged, TagEdit};
use crate::memory::RegionSpec;
use crate::mock::{Guest, USER_BASE, flags};

/// A ring's receive side without a device around it.
struct Bare {
    ring: Vring,
    counters: RingCounters,
    outcome: Result<(), Violation>,
}

impl Source for Bare {
    fn fill(&mut self, burst: &mut Burst) {
        self.outcome = self.ring.dequeue(burst, &self.counters);
    }

    fn release(&mut self, _burst: &mut Burst) {
        self.ring.complete(&self.counters);
    }
}

fn bare(ring: Vring) -> Bare {
    Bare { ring, counters: RingCounters::default(), outcome: Ok(()) }
}

/// The next entries of the available and the used ring, or places of a packed ring.
fn stands(source: &Bare) -> (u16, u16) {
    let position = source.ring.position();
    (position.next_available, position.next_used)
}

/// All bytes of each waiting frame, by way of a copy to another place.
fn take(source: &mut Bare) -> Vec<Vec<u8>> {
    take_with(source, TagEdit::Keep)
}

fn take_with(source: &mut Bare, tag: TagEdit) -> Vec<Vec<u8>> {
    let mut burst = Burst::default();
    let received = Received::take(source, &mut burst);
    let frames = received.frames();
    frames
        .iter()
        .map(|frame| {
            let mut bytes = vec![0; frame.bytes_with(tag)];
            // SAFETY: the vector has exactly that many bytes.
            unsafe { frame.copy_to(tag, bytes.as_mut_ptr()) };
            bytes
        })
        .collect()
}

fn violation(source: &mut Bare) -> Violation {
    take(source);
    source.outcome.unwrap_err()
}

fn frame(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Sends frames that wait in `source` to `target`.
fn relay(source: &mut Bare, target: &mut Bare, tag: TagEdit) -> Sent {
    let mut burst = Burst::default();
    let received = Received::take(source, &mut burst);
    let frames = received.frames();
    let edits = [tag; BURST_MAX];
    let edited = if tag == TagEdit::Keep { 0 } else { u64::MAX };
    let staged = Staged::new(frames.all()).with_edits(edited, &edits);
    let mut sent = Sent::default();
    target.outcome = target.ring.enqueue(frames, &staged, &mut sent, &target.counters);
    sent
}

#[test]
fn frames_of_every_size_come_out_whole() {
    let mut guest = Guest::new(16);
    let mut source = bare(guest.ring());
    for bytes in [0, 1, 14, 42, 60, 64, 127, 128, 129, 200, 1514, 2400] {
        guest.transmit(3, &frame(bytes));
        assert_eq!(take(&mut source), [frame(bytes)], "{bytes}");
        let completed = guest.completed();
        assert_eq!(completed.len(), 1);
        assert_eq!((completed[0].head, completed[0].bytes), (3, 0));
    }
    assert_eq!(source.outcome, Ok(()));
}

#[test]
fn a_burst_is_bounded_and_the_rest_waits() {
    let mut guest = Guest::new(256);
    let mut source = bare(guest.ring());
    for index in 0..100 {
        guest.transmit(index, &[index as u8; 64]);
    }
    let first = take(&mut source);
    assert_eq!(first.len(), BURST_MAX);
    assert_eq!(guest.completed().len(), BURST_MAX);
    let second = take(&mut source);
    assert_eq!(second.len(), 100 - BURST_MAX);
    assert_eq!(second[0], [64; 64]);
    assert!(take(&mut source).is_empty());
}

#[test]
fn what_the_driver_has_yet_to_read_stays() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let (mut from, mut to) = (Guest::new(64), Guest::with_layout(layout, 32));
        let (mut source, mut target) = (bare(from.ring()), bare(to.ring()));
        for index in 0..32 {
            to.supply(index, 200);
        }
        let mut sent = 0;
        let mut send = |from: &mut Guest, target: &mut Bare, frames: u16| {
            for _ in 0..frames {
                from.transmit(sent % 64, &[sent as u8; 60]);
                sent += 1;
            }
            let relayed = relay(&mut source, target, TagEdit::Keep);
            from.completed();
            (relayed.frames, relayed.full)
        };
        assert_eq!(send(&mut from, &mut target, 32), (32, 0), "{layout:?}");
        let received = to.received();
        assert_eq!(received.len(), 32);
        // The driver has seen all, and gives back fewer buffers than frames come.
        for index in 0..32 {
            to.supply(index, 200);
        }
        assert_eq!(send(&mut from, &mut target, 30), (30, 0));
        assert_eq!(send(&mut from, &mut target, 20), (2, 18));
        let firsts: Vec<_> = to.received().iter().map(|frame| frame[0]).collect();
        assert_eq!(firsts, (32..64).collect::<Vec<_>>(), "{layout:?}");
    }
}

#[test]
fn indexes_wrap() {
    let mut guest = Guest::new(4);
    let mut source = bare(guest.ring());
    for round in 0..70_000_u32 {
        guest.transmit((round % 4) as u16, &round.to_le_bytes());
        if round % 3 == 0 {
            continue;
        }
        let last = take(&mut source).pop().unwrap();
        assert_eq!(last, round.to_le_bytes());
    }
}

#[test]
fn any_layout_of_header_and_frame() {
    // virtio 1.2 §2.7.4.1: the device makes no assumption about how descriptors frame the data.
    let body = frame(400);
    let mut message = vec![0; 12];
    message.extend(&body);
    for cuts in [vec![12], vec![5], vec![5, 12], vec![12, 13, 14], vec![4, 8, 100, 300], vec![411]]
    {
        let mut guest = Guest::new(16);
        let mut source = bare(guest.ring());
        let mut from = 0;
        let mut ends = cuts.clone();
        ends.push(message.len());
        for (index, end) in ends.iter().enumerate() {
            let index = index as u16;
            guest.write(guest.buffer(index), &message[from..*end]);
            let last = *end == message.len();
            let next = if last { 0 } else { flags::NEXT };
            guest.describe(index, guest.buffer(index), (end - from) as u32, next, index + 1);
            from = *end;
        }
        guest.offer(0);
        assert_eq!(take(&mut source), std::slice::from_ref(&body), "{cuts:?}");
    }
}

#[test]
fn indirect_tables() {
    let mut guest = Guest::new(16);
    let mut source = bare(guest.ring());
    let body = frame(300);
    let table = guest.buffer(8);
    guest.write(guest.buffer(0), &[0; 12]);
    guest.write(guest.buffer(1), &body);
    guest.describe_at(table, guest.buffer(0), 12, flags::NEXT, 1);
    guest.describe_at(table + 16, guest.buffer(1), 300, 0, 0);
    guest.describe(5, table, 32, flags::INDIRECT, 0);
    guest.offer(5);
    assert_eq!(take(&mut source), [body]);
    assert_eq!(guest.completed()[0].head, 5);
}

#[test]
fn the_head_is_private_and_the_tag_is_edited_on_the_way_out() {
    let mut guest = Guest::new(16);
    for bytes in [18, 64, 130, 1000] {
        let mut tagged = frame(bytes);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0x60, 0x64]);
        let mut plain = tagged.clone();
        plain.drain(12..16);
        let mut source = bare(guest.ring_at_position());
        guest.transmit(0, &tagged);
        assert_eq!(take_with(&mut source, TagEdit::Pop), std::slice::from_ref(&plain));
        guest.transmit(0, &plain);
        assert_eq!(take_with(&mut source, TagEdit::Push(0x6064)), [tagged]);
    }

    guest.transmit(0, &[7; 64]);
    let mut source = bare(guest.ring_at_position());
    let mut burst = Burst::default();
    let received = Received::take(&mut source, &mut burst);
    guest.write(guest.buffer(0), &[9; 100]);
    assert_eq!(received.frames().frame(0).head(), [7; 64], "what was checked is what is sent");
}

#[test]
fn one_copy_from_ring_to_ring() {
    for bytes in [60, 64, 128, 129, 1514] {
        for tag in [TagEdit::Keep, TagEdit::Push(5)] {
            let (mut sender, mut receiver) = (Guest::new(16), Guest::new(16));
            let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
            for index in 0..4 {
                sender.transmit(index, &frame(bytes));
                receiver.supply(index, 2000);
            }
            let sent = relay(&mut source, &mut target, tag);
            let out = bytes as u64 + if tag == TagEdit::Keep { 0 } else { 4 };
            assert_eq!(sent, Sent { frames: 4, bytes: 4 * out, ..Sent::default() });
            let got = receiver.received();
            assert_eq!(got.len(), 4);
            assert!(got.iter().all(|got| got.len() as u64 == out));
            if tag == TagEdit::Keep {
                assert_eq!(got[3], frame(bytes));
            }
            assert_eq!(sender.completed().len(), 4);
        }
    }
}

#[test]
fn a_long_frame_is_merged_over_buffers() {
    let (mut sender, mut receiver) = (Guest::new(64), Guest::new(64));
    let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
    // 9014 bytes in four chained buffers there, in buffers of 1526 here.
    let body = frame(9014);
    let mut message = vec![0; 12];
    message.extend(&body);
    let parts: Vec<_> = message.chunks(2400).collect();
    for (index, part) in parts.iter().enumerate() {
        let at = index as u16;
        sender.write(sender.buffer(at), part);
        let next = if index + 1 < parts.len() { flags::NEXT } else { 0 };
        sender.describe(at, sender.buffer(at), part.len() as u32, next, at + 1);
    }
    sender.offer(0);
    sender.transmit(10, &frame(64));
    for index in 0..5 {
        receiver.supply(index, 1526);
    }
    let sent = relay(&mut source, &mut target, TagEdit::Keep);
    assert_eq!((sent.frames, sent.full), (1, 1), "five buffers hold neither; the small one fits");
    assert_eq!(receiver.received(), [frame(64)], "a frame without room takes no buffer");

    sender.offer(0);
    for index in 5..15 {
        receiver.supply(index, 1526);
    }
    assert_eq!(relay(&mut source, &mut target, TagEdit::Keep).frames, 1);
    assert_eq!(receiver.received(), [body]);
}

#[test]
fn without_mergeable_buffers_a_frame_needs_one_chain() {
    let (mut sender, mut receiver) = (Guest::new(16), Guest::new(16));
    let mut config = receiver.config();
    (config.mergeable, config.version_1) = (false, false);
    let mut source = bare(sender.ring());
    let mut target = bare(Vring::new(receiver.memory(), &config).unwrap());
    // The short header of 10 bytes, in a descriptor of its own, as old drivers lay it out.
    receiver.describe(0, receiver.buffer(0), 10, flags::WRITE | flags::NEXT, 1);
    receiver.describe(1, receiver.buffer(1), 100, flags::WRITE | flags::NEXT, 2);
    receiver.describe(2, receiver.buffer(2), 100, flags::WRITE, 0);
    receiver.offer(0);
    sender.transmit(0, &frame(150));
    sender.transmit(1, &frame(250));
    let sent = relay(&mut source, &mut target, TagEdit::Keep);
    assert_eq!((sent.frames, sent.full), (1, 1));
    let used = receiver.completed();
    assert_eq!((used[0].head, used[0].bytes), (0, 160));
    let mut got = receiver.read(receiver.buffer(1), 100);
    got.extend(receiver.read(receiver.buffer(2), 50));
    assert_eq!(got, frame(150));
    receiver.offer(0);
    sender.transmit(1, &frame(250));
    assert_eq!(relay(&mut source, &mut target, TagEdit::Keep).too_big, 1);
}

#[test]
fn what_waits_in_a_ring_that_is_disabled_is_sent() {
    let mut sender = Guest::new(128);
    for index in 0..70 {
        sender.transmit(index, &frame(64));
    }
    let config = VringConfig { enabled: false, ..sender.config() };
    let mut disabled = bare(Vring::new(sender.memory(), &config).unwrap());
    assert_eq!(take(&mut disabled).len(), 64);
    assert_eq!(take(&mut disabled).len(), 6);
    sender.transmit(70, &frame(64));
    assert!(take(&mut disabled).is_empty());
    assert_eq!(sender.completed().len(), 71);
    assert_eq!(disabled.counters.discarded.load(Ordering::Relaxed), 1);
}

#[test]
fn a_disabled_ring_supplies_nothing_and_discards() {
    let (mut sender, mut receiver) = (Guest::new(16), Guest::new(16));
    let mut config = sender.config();
    config.enabled = false;
    let mut discarding = bare(Vring::new(sender.memory(), &config).unwrap());
    let mut silent = bare(Vring::new(receiver.memory(), &config).unwrap());
    sender.transmit(0, &frame(64));
    assert!(take(&mut discarding).is_empty());
    assert_eq!(sender.completed().len(), 1);
    assert_eq!(discarding.counters.discarded.load(Ordering::Relaxed), 1);

    let mut source = bare(sender.ring_at_position());
    sender.transmit(1, &frame(64));
    receiver.supply(0, 2000);
    assert_eq!(relay(&mut source, &mut silent, TagEdit::Keep).down, 1);
    assert!(receiver.completed().is_empty());
}

#[test]
fn interrupts_only_when_wanted() {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use std::os::fd::AsFd;
    for event_idx in [false, true] {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let call = Call::new(event.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let mut guest = Guest::new(16);
        let mut config = guest.config();
        (config.event_idx, config.call) = (event_idx, Some(Arc::new(call)));
        let mut source = bare(Vring::new(guest.memory(), &config).unwrap());
        let mut rung = |guest: &mut Guest, frames: u16| {
            for index in 0..frames {
                guest.transmit(index, &frame(64));
            }
            assert_eq!(take(&mut source).len(), usize::from(frames));
            event.read().unwrap_or(0)
        };
        assert_eq!(guest.used_flags(), u16::from(!event_idx), "we poll");
        if event_idx {
            guest.write_used_event(0);
            assert_eq!(rung(&mut guest, 1), 1, "used index passes 0");
            assert_eq!(rung(&mut guest, 3), 0, "0 is behind");
            guest.write_used_event(5);
            assert_eq!(rung(&mut guest, 1), 0, "used index is 5, not past it");
            assert_eq!(rung(&mut guest, 4), 1, "5..9 passes 5");
        } else {
            assert_eq!(rung(&mut guest, 4), 1, "one for a burst");
            guest.write_available_flags(1);
            assert_eq!(rung(&mut guest, 4), 0);
        }
        assert_eq!(rung(&mut guest, 0), 0, "nothing used, nothing to tell");
    }
}

#[test]
fn a_ring_goes_on_where_it_stood() {
    let mut guest = Guest::new(8);
    let mut source = bare(guest.ring());
    for index in 0..3 {
        guest.transmit(index, &[index as u8; 60]);
    }
    assert_eq!(take(&mut source).len(), 3);
    guest.transmit(3, &[3; 60]);
    // A VMM that lost us knows only the used index, or, at worst, nothing.
    for base in [3, 0] {
        let mut config = guest.config();
        config.base = base;
        let mut resumed = bare(Vring::new(guest.memory(), &config).unwrap());
        assert_eq!(stands(&resumed), (3, 3));
        if base == 0 {
            assert_eq!(take(&mut resumed), [[3; 60]]);
        }
    }
}

impl Guest {
    /// The ring as a session would restart it where it stands.
    fn ring_at_position(&self) -> Vring {
        Vring::new(self.memory(), &self.config()).unwrap()
    }
}

#[test]
fn rings_outside_of_memory_or_misaligned_are_refused() {
    let guest = Guest::new(16);
    let refused = |change: fn(&mut VringConfig)| {
        let mut config = guest.config();
        change(&mut config);
        Vring::new(guest.memory(), &config).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|config| config.size = 3),
        "a ring cannot have 3 entries, only a power of two up to 32768"
    );
    assert!(refused(|config| config.size = 0).contains("cannot have 0 entries"));
    assert!(refused(|config| config.descriptors = USER_BASE + 8).contains("not aligned to 16"));
    assert!(refused(|config| config.used += 2).contains("not aligned to 4"));
    assert!(refused(|config| config.available = 0).contains("available ring at user address 0x0"));
    assert!(refused(|config| config.used = USER_BASE - 4).contains("not inside"));
    assert!(refused(|config| config.used = u64::MAX - 3).contains("not inside"));
}

#[test]
fn every_violation_is_found_named_and_final() {
    type Malice = fn(&mut Guest);
    let cases: &[(&str, Malice)] = &[
        ("available index jumped from 0 to 17 in a ring of 16", |guest| {
            guest.write_available_index(17)
        }),
        ("descriptor 16 is outside of a table of 16", |guest| guest.offer(16)),
        ("descriptor 65535 is outside of a table of 16", |guest| {
            guest.describe(0, guest.buffer(0), 64, flags::NEXT, 0xffff);
            guest.offer(0);
        }),
        ("descriptor chain is longer than 16", |guest| {
            guest.describe(0, guest.buffer(0), 64, flags::NEXT, 0);
            guest.offer(0);
        }),
        ("descriptor chain is longer than 16", |guest| {
            guest.describe(0, guest.buffer(0), 0, flags::NEXT, 1);
            guest.describe(1, guest.buffer(0), 0, flags::NEXT, 0);
            guest.offer(0);
        }),
        ("indirect descriptor inside an indirect table or with NEXT set", |guest| {
            let table = guest.buffer(1);
            guest.describe_at(table, table, 16, flags::INDIRECT, 0);
            guest.describe(0, table, 16, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("indirect descriptor inside an indirect table or with NEXT set", |guest| {
            guest.describe(0, guest.buffer(1), 16, flags::INDIRECT | flags::NEXT, 1);
            guest.offer(0);
        }),
        ("indirect table of 17 bytes is empty, not a multiple of 16, or too long", |guest| {
            guest.describe(0, guest.buffer(1), 17, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("indirect table of 0 bytes is empty, not a multiple of 16, or too long", |guest| {
            guest.describe(0, guest.buffer(1), 0, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("indirect table of 272 bytes is empty, not a multiple of 16, or too long", |guest| {
            guest.describe(0, guest.buffer(1), 17 * 16, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("descriptor 7 is outside of a table of 2", |guest| {
            let table = guest.buffer(1);
            guest.describe_at(table, guest.buffer(2), 64, flags::NEXT, 7);
            guest.describe(0, table, 32, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("address 0xffffffffffffffff with 64 bytes is outside of the guest's memory", |guest| {
            guest.describe(0, u64::MAX, 64, 0, 0);
            guest.offer(0);
        }),
        ("address 0x0 with 32 bytes is outside of the guest's memory", |guest| {
            guest.describe(0, 0, 32, flags::INDIRECT, 0);
            guest.offer(0);
        }),
        ("device-writable buffer in a transmit queue", |guest| guest.supply(0, 64)),
        ("chain of 11 bytes is shorter than the net header of 12", |guest| {
            guest.describe(0, guest.buffer(0), 11, 0, 0);
            guest.offer(0);
        }),
        ("chain of 0 bytes is shorter than the net header of 12", |guest| {
            guest.describe(0, guest.buffer(0), 0, 0, 0);
            guest.offer(0);
        }),
    ];
    for (reason, malice) in cases {
        let mut guest = Guest::new(16);
        let mut source = bare(guest.ring());
        guest.describe(0, 0, 0, 0, 0);
        malice(&mut guest);
        assert_eq!(violation(&mut source).to_string(), *reason);
        guest.write_available_index(1);
        guest.transmit(1, &frame(64));
        assert!(take(&mut source).is_empty(), "a broken ring is not touched again: {reason}");
    }
}

#[test]
fn frames_before_a_violation_are_kept() {
    let mut guest = Guest::new(16);
    let mut source = bare(guest.ring());
    guest.transmit(0, &frame(64));
    guest.offer(99);
    assert_eq!(take(&mut source), [frame(64)]);
    assert_eq!(guest.completed().len(), 1);
    assert!(matches!(violation(&mut source), Violation::DescriptorIndex { index: 99, .. }));
}

#[test]
fn a_buffer_that_ends_one_byte_too_late_is_refused() {
    let mut guest = Guest::new(16);
    let mut source = bare(guest.ring());
    let end = guest.end();
    guest.describe(0, end - 64, 64, 0, 0);
    guest.offer(0);
    assert_eq!(take(&mut source).len(), 1);
    guest.describe(0, end - 63, 64, 0, 0);
    guest.offer(0);
    assert!(matches!(violation(&mut source), Violation::Address { bytes: 64, .. }));
}

#[test]
fn a_receive_queue_with_bad_buffers_breaks_and_harms_nobody() {
    type Malice = fn(&mut Guest);
    let cases: &[(&str, Malice)] = &[
        ("device-readable buffer in a receive queue", |guest| guest.transmit(0, &frame(64))),
        ("available index jumped from 0 to 300 in a ring of 16", |guest| {
            guest.write_available_index(300)
        }),
        ("descriptor 16 is outside of a table of 16", |guest| guest.offer(16)),
        ("descriptor chain is longer than 16", |guest| {
            guest.describe(0, guest.buffer(0), 1, flags::NEXT | flags::WRITE, 0);
            guest.offer(0);
        }),
        ("address 0x10 with 2000 bytes is outside of the guest's memory", |guest| {
            guest.describe(0, 0x10, 2000, flags::WRITE, 0);
            guest.offer(0);
        }),
    ];
    for (reason, malice) in cases {
        let (mut sender, mut receiver) = (Guest::new(16), Guest::new(16));
        let (mut source, mut target) = (bare(sender.ring()), bare(receiver.ring()));
        for index in 0..3 {
            sender.transmit(index, &frame(64));
        }
        malice(&mut receiver);
        let sent = relay(&mut source, &mut target, TagEdit::Keep);
        assert_eq!(target.outcome.unwrap_err().to_string(), *reason);
        assert_eq!(sent.frames + sent.full + sent.too_big + sent.down, 3, "each counted once");
        assert_eq!(sender.completed().len(), 3, "the sender is not hurt");
    }
}

/// A guest's memory, with pages more at 0x1000 and 0x2000, a region each.
fn with_more_regions(guest: &Guest) -> Arc<GuestMemory> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = || {
        let file = memfd_create(c"more", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, 8192).unwrap();
        file
    };
    let spec = |guest_address, user_address| RegionSpec {
        guest_address,
        user_address,
        bytes: 4096,
        mmap_offset: 4096,
    };
    let memory = guest.memory().with_region(spec(0x1000, 0x9000_0000), file()).unwrap();
    Arc::new(memory.with_region(spec(0x2000, 0xa000_0000), file()).unwrap())
}

#[test]
fn frames_in_memory_regions_by_turns() {
    let mut guest = Guest::new(16);
    let memory = with_more_regions(&guest);
    guest.replace_memory(Arc::clone(&memory));
    let mut source = bare(Vring::new(memory, &guest.config()).unwrap());
    let frame = |index: u16| vec![index as u8 + 1; 100 + usize::from(index)];
    for index in 0..12 {
        let frame = frame(index);
        let bytes = 12 + frame.len() as u64;
        // The last one ends where its region does.
        let at = match index {
            0 | 3 | 4 | 9 => guest.buffer(index),
            11 => 0x3000 - bytes,
            _ => 0x1000 * u64::from(1 + index % 2) + 0x100 * u64::from(index),
        };
        guest.write(at, &[0; 12]);
        guest.write(at + 12, &frame);
        guest.describe(index, at, bytes as u32, 0, 0);
        guest.offer(index);
    }
    assert_eq!(take(&mut source), (0..12).map(frame).collect::<Vec<_>>());
}

#[test]
fn a_frame_across_two_memory_regions() {
    let guest = Guest::new(16);
    let memory = with_more_regions(&guest);
    let mut source = bare(Vring::new(Arc::clone(&memory), &guest.config()).unwrap());
    let mut guest = guest;
    guest.describe(0, 0x1ff0, 112, 0, 0);
    guest.offer(0);
    assert_eq!(take(&mut source), [vec![0; 100]]);
}

/// Descriptors that change while they are read: whatever is seen, it is checked or refused.
#[test]
fn a_guest_that_rewrites_its_ring_all_the_time() {
    use std::sync::atomic::AtomicBool;
    let mut guest = Guest::new(64);
    let mut source = bare(guest.ring());
    for index in 0..64 {
        guest.transmit(index, &frame(200));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = Arc::clone(&stop);
        let memory = guest.memory();
        let mut scribbler = Guest::new(64);
        scribbler.replace_memory(memory);
        std::thread::spawn(move || {
            let mut state = 0x9e37_79b9_u64;
            while !stop.load(Ordering::Relaxed) {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let index = (state >> 33) as u16 % 64;
                let (bytes, next) = ((state >> 20) as u32 % 3000, (state >> 40) as u16 % 80);
                scribbler.describe(
                    index,
                    scribbler.buffer(index),
                    bytes,
                    (state >> 60) as u16,
                    next,
                );
                scribbler.describe(index, scribbler.buffer(index), 212, 0, 0);
            }
        })
    };
    for _ in 0..2000 {
        assert!(take(&mut source).len() <= BURST_MAX);
        source = bare(guest.ring_at_position());
        guest.write_available_index(stands(&source).0.wrapping_add(64));
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();

    // Once it stops, the ring is like any other.
    let mut source = bare(guest.ring_at_position());
    guest.write_available_index(stands(&source).0);
    for index in 0..64 {
        guest.describe(index, guest.buffer(index), 212, 0, 0);
    }
    guest.write_available_index(stands(&source).0.wrapping_add(64));
    assert_eq!(take(&mut source).len(), BURST_MAX);
    assert_eq!(source.outcome, Ok(()));
}
