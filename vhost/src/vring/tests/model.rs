//! Both layouts do the same: whatever guests send and supply, frames, counts and used lengths are
//! equal in a split ring and in a packed one, each with and without `IN_ORDER`.

use std::collections::HashMap;

use super::*;
use proptest::prelude::*;

/// Chains that a ring can hold at a time, of up to four descriptors each.
const CHAINS: u16 = 15;

#[derive(Clone, Debug)]
enum Step {
    /// The sender makes a frame available, cut into descriptors of these sizes and the rest.
    Send { bytes: usize, cuts: Vec<usize>, indirect: bool },
    /// The receiver makes a buffer available, of these pieces.
    Supply { pieces: Vec<u32>, indirect: bool },
    /// The switch moves a burst.
    Relay { tag: TagEdit },
}

fn step() -> impl Strategy<Value = Step> {
    let send = (18_usize..4000, prop::collection::vec(1_usize..2000, 0..3), any::<bool>())
        .prop_map(|(bytes, cuts, indirect)| Step::Send { bytes, cuts, indirect });
    let supply = (prop::collection::vec(1_u32..2400, 1..4), any::<bool>())
        .prop_map(|(pieces, indirect)| Step::Supply { pieces, indirect });
    let tag = prop_oneof![
        Just(TagEdit::Keep),
        Just(TagEdit::Pop),
        any::<u16>().prop_map(TagEdit::Push),
        any::<u16>().prop_map(TagEdit::Replace)
    ];
    prop_oneof![4 => send, 6 => supply, 2 => tag.prop_map(|tag| Step::Relay { tag })]
}

/// A guest and what it knows of its chains.
struct Side {
    guest: Guest,
    ring: Bare,
    /// Pieces of the chains that are with the device, by id.
    pieces: HashMap<u16, Vec<(u64, u32)>>,
    /// The next chain's id; the one that it had before must be back.
    next: u16,
}

impl Side {
    fn new(layout: RingLayout, in_order: bool, mergeable: bool) -> Self {
        let size = if layout == RingLayout::Split { 64 } else { 61 };
        let guest = Guest::with_layout(layout, size);
        let guest = if in_order { guest.in_order() } else { guest };
        let config = VringConfig { mergeable, ..guest.config() };
        let ring = bare(Vring::new(guest.memory(), &config).unwrap());
        Self { guest, ring, pieces: HashMap::new(), next: 0 }
    }

    /// The id of the next chain, if there is room for one. It owns the four buffers from there on.
    fn id(&self) -> Option<u16> {
        (!self.pieces.contains_key(&self.next)).then_some(self.next)
    }

    fn post(&mut self, pieces: Vec<(u64, u32)>, flags: u16, indirect: bool) {
        let id = self.next;
        let parts: Vec<_> = pieces.iter().map(|&(at, bytes)| (at, bytes, flags)).collect();
        if indirect {
            let table = self.guest.buffer(60) + u64::from(id) * 16;
            for (at, &(address, bytes, flags)) in parts.iter().enumerate() {
                let entry = table + 16 * at as u64;
                let more = if at + 1 < parts.len() { flags::NEXT } else { 0 };
                if self.ring.ring.position().layout == RingLayout::Split {
                    self.guest.describe_at(entry, address, bytes, flags | more, at as u16 + 1);
                } else {
                    self.guest.describe_at(entry, address, bytes, 0, flags);
                }
            }
            self.guest.post(id, &[(table, 16 * parts.len() as u32, flags::INDIRECT)]);
        } else {
            self.guest.post(id, &parts);
        }
        self.pieces.insert(id, pieces);
        self.next = (id + 4) % (4 * CHAINS);
    }

    fn send(&mut self, frame: &[u8], cuts: &[usize], indirect: bool) {
        let Some(id) = self.id() else { return };
        let mut message = vec![0; 12];
        message.extend(frame);
        let mut rest: &[u8] = &message;
        let mut pieces = Vec::new();
        for (at, &cut) in cuts.iter().chain([&message.len()]).enumerate() {
            let piece = rest.split_off(..cut.min(rest.len()).min(2400)).unwrap();
            if !piece.is_empty() {
                let address = self.guest.buffer(id + at as u16);
                self.guest.write(address, piece);
                pieces.push((address, piece.len() as u32));
            }
        }
        self.post(pieces, 0, indirect);
    }

    fn supply(&mut self, pieces: &[u32], indirect: bool) {
        let Some(id) = self.id() else { return };
        let address = |at: usize| self.guest.buffer(id + at as u16);
        let pieces = pieces.iter().enumerate().map(|(at, &bytes)| (address(at), bytes)).collect();
        self.post(pieces, flags::WRITE, indirect);
    }

    /// What came back: each chain's written bytes.
    fn reclaim(&mut self) -> Vec<Vec<u8>> {
        let reclaimed = self.guest.completed();
        // In order, a split ring's driver is told of a whole burst by its last chain; which ones
        // came before it the driver knows.
        let mut oldest = self.oldest();
        let chains = reclaimed.into_iter().map(|used| {
            let id = oldest;
            oldest = (oldest + 4) % (4 * CHAINS);
            let pieces = self.pieces.remove(&id).expect("it was with the device");
            let mut left = used.bytes as usize;
            let mut bytes = Vec::new();
            for (address, room) in pieces {
                let take = left.min(room as usize);
                bytes.extend(self.guest.read(address, take));
                left -= take;
            }
            assert_eq!(left, 0, "more was written than the chain holds");
            bytes
        });
        chains.collect()
    }

    fn oldest(&self) -> u16 {
        let outstanding = self.pieces.len() as u16;
        (self.next + 4 * CHAINS - 4 * outstanding) % (4 * CHAINS)
    }
}

/// What is the same for all.
type Trace = Vec<(Sent, Vec<Vec<u8>>, usize, Result<(), Violation>)>;

fn run(layout: RingLayout, in_order: bool, mergeable: bool, steps: &[Step]) -> Trace {
    let mut sender = Side::new(layout, in_order, true);
    let mut receiver = Side::new(layout, in_order, mergeable);
    let mut trace = Trace::new();
    let mut number = 0_u8;
    for step in steps {
        match step {
            Step::Send { bytes, cuts, indirect } => {
                number = number.wrapping_add(1);
                let frame: Vec<u8> = (0..*bytes).map(|at| (at as u8) ^ number).collect();
                sender.send(&frame, cuts, *indirect);
            }
            Step::Supply { pieces, indirect } => receiver.supply(pieces, *indirect),
            Step::Relay { tag } => {
                let sent = relay(&mut sender.ring, &mut receiver.ring, *tag);
                assert_eq!(sender.ring.outcome, Ok(()));
                let sent_back = sender.reclaim().len();
                trace.push((sent, receiver.reclaim(), sent_back, receiver.ring.outcome));
            }
        }
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn layouts_differ_in_nothing_that_counts(
        steps in prop::collection::vec(step(), 1..300),
        mergeable: bool,
    ) {
        let wanted = run(RingLayout::Split, false, mergeable, &steps);
        for (layout, in_order) in
            [(RingLayout::Split, true), (RingLayout::Packed, false), (RingLayout::Packed, true)]
        {
            let got = run(layout, in_order, mergeable, &steps);
            prop_assert_eq!(&got, &wanted, "{:?}, in order: {}", layout, in_order);
        }
    }
}
