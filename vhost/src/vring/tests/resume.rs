//! A ring whose back-end was killed in the middle of a burst.

use super::*;

/// Both layouts, each with and without `IN_ORDER`.
fn guests(size: u16) -> impl Iterator<Item = Guest> {
    let all = [RingLayout::Split, RingLayout::Packed].map(|layout| {
        [Guest::with_layout(layout, size), Guest::with_layout(layout, size).in_order()]
    });
    all.into_iter().flatten()
}

/// Takes a burst as a worker does that is killed before it gives it back. Returns how many frames.
fn die_over_a_burst(mut source: Bare) -> usize {
    let mut burst = Burst::default();
    source.fill(&mut burst);
    burst.len()
}

#[test]
fn what_may_have_been_delivered_is_given_back_and_not_delivered_again() {
    for size in [16, 64] {
        for mut guest in guests(size) {
            let config = guest.config();
            let mut source = bare(guest.ring());
            // Some way into the ring, so that places and indexes differ.
            for id in 0..5 {
                guest.transmit(id, &[id as u8; 60]);
            }
            assert_eq!(take(&mut source).len(), 5);
            assert_eq!(guest.completed().len(), 5);

            for id in 5..8 {
                guest.transmit(id, &[id as u8; 60]);
            }
            assert_eq!(die_over_a_burst(source), 3);
            // What is sent while nobody is there waits, and what the front-end says is old.
            guest.transmit(8, &[8; 60]);
            let mut source = bare(guest.ring());
            assert_eq!(take(&mut source), [[8; 60]], "{config:?}");
            assert_eq!(guest.completed().len(), 4, "{config:?}");

            // A mark is good once.
            drop(source);
            let mut source = bare(guest.ring());
            assert_eq!(take(&mut source), Vec::<Vec<u8>>::new());
            guest.transmit(9, &[9; 60]);
            assert_eq!(take(&mut source), [[9; 60]], "{config:?}");
        }
    }
}

#[test]
fn whole_bursts_and_chains_are_given_back() {
    for parts in [1, 3] {
        for mut guest in guests(256) {
            let config = guest.config();
            for id in 0..80 {
                let address = guest.buffer(id * parts);
                guest.write(address, &[0; 12]);
                let header = if parts == 1 { (address, 72, 0) } else { (address, 12, 0) };
                let rest = [(address + 12, 20, 0), (address + 32, 40, 0)];
                let chain: Vec<_> = [header].into_iter().chain(rest).take(parts.into()).collect();
                guest.post(id * parts, &chain);
            }
            let taken = die_over_a_burst(bare(guest.ring()));
            assert!(taken > 1, "{config:?}");
            let mut source = bare(guest.ring());
            let mut left = 0;
            loop {
                match take(&mut source).len() {
                    0 => break,
                    frames => left += frames,
                }
            }
            assert_eq!(source.outcome, Ok(()));
            assert_eq!(taken + left, 80, "{config:?}");
            assert_eq!(guest.completed().len(), 80, "{config:?}");
        }
    }
}

/// Whatever stands in a ring, starting it is safe, and costs that guest frames at most.
#[test]
fn forged_marks_harm_nobody_else() {
    for mut guest in guests(16) {
        for id in 0..4 {
            guest.transmit(id, &[id as u8; 60]);
        }
        die_over_a_burst(bare(guest.ring()));
        // The marked chains are not what they were: they lead around the ring and out of it.
        for id in 0..4 {
            let next = if guest.config().layout == RingLayout::Split { 0xffff } else { id };
            guest.describe_at(
                crate::mock::GUEST_BASE + 16 * u64::from(id),
                u64::MAX,
                u32::MAX,
                flags::NEXT | flags::INDIRECT,
                next,
            );
        }
        let mut source = bare(guest.ring());
        take(&mut source);
    }
}
