//! Which of many intervals a number lies in, and what is said of it there.
//!
//! The numbers between the first and the last bound are cut in slots of equal width, as many as make
//! for a few bounds in each. A slot has the answer at once if no bound is in it, or leads to a tree
//! whose nodes hold bounds and answers together: a cache line for IPv4, two for IPv6. So a search
//! usually reads a slot and a node; where bounds crowd in one slot, whatever their number, it is one
//! node more for each factor of eight (seven): the depth is known when the tables are built.

use super::lanes::first_above32;

/// A number that intervals are made of.
pub(super) trait Number: Copy + Ord + std::fmt::Debug {
    /// See [`Node`].
    type Node: Node<Self>;
    /// The least.
    const ZERO: Self;
    /// How many bits it has.
    const BITS: u32;
    /// The difference to a number that is not greater, shifted right and cut to what an index holds:
    /// greater differences than an index can be are the greatest index.
    fn slot(self, from: Self, shift: u32) -> usize;
    /// The least number of a slot above the first one, if there is one so great.
    fn slot_start(from: Self, shift: u32, slot: usize) -> Option<Self>;
    /// Bits that the difference to a number that is not greater takes.
    fn bits_above(self, from: Self) -> u32;
}

/// A node: bounds, and what is said between them.
pub(super) trait Node<K>: Clone + std::fmt::Debug {
    /// Bounds in a node.
    const KEYS: usize;
    /// With these bounds, at most [`KEYS`](Self::KEYS), in ascending order, and one answer more.
    fn new(keys: &[K], answers: &[Answer]) -> Self;
    /// The answer for a number.
    fn find(&self, sought: K) -> Answer;
}

/// What a slot or node says: a value below 2^31, or the number of the node to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer(u32);

const NODE: u32 = 1 << 31;

/// IPv4's nodes, a cache line. The keys' first bit is turned, which makes them signed numbers of the
/// same order, as the processor compares these in one step. The last key of eight is always greater
/// than what is sought, or the same as the greatest number.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Node32 {
    keys: [i32; 8],
    answers: [Answer; 8],
}

/// IPv6's nodes: two cache lines.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
pub(super) struct Node128 {
    keys: [u128; 6],
    answers: [Answer; 8],
}

const SIGN: u32 = 1 << 31;

impl Node<u32> for Node32 {
    const KEYS: usize = 7;

    fn new(keys: &[u32], answers: &[Answer]) -> Self {
        let mut node = Self { keys: [i32::MAX; 8], answers: [answers[answers.len() - 1]; 8] };
        for (place, key) in node.keys.iter_mut().zip(keys) {
            *place = (key ^ SIGN) as i32;
        }
        node.answers[..answers.len()].copy_from_slice(answers);
        node
    }

    #[inline(always)]
    fn find(&self, sought: u32) -> Answer {
        // Keys that are missing are not above the greatest number only, for which the last answer,
        // which fills the places behind, is right.
        self.answers[first_above32(&self.keys, (sought ^ SIGN) as i32).min(7)]
    }
}

impl Node<u128> for Node128 {
    const KEYS: usize = 6;

    fn new(keys: &[u128], answers: &[Answer]) -> Self {
        let mut node = Self { keys: [u128::MAX; 6], answers: [answers[answers.len() - 1]; 8] };
        node.keys[..keys.len()].copy_from_slice(keys);
        node.answers[..answers.len()].copy_from_slice(answers);
        node
    }

    #[inline(always)]
    fn find(&self, sought: u128) -> Answer {
        let not_above: u32 = self.keys.iter().map(|key| u32::from(*key <= sought)).sum();
        self.answers[not_above as usize & 7]
    }
}

impl Number for u32 {
    type Node = Node32;
    const ZERO: Self = 0;
    const BITS: u32 = Self::BITS;

    #[inline(always)]
    fn slot(self, from: Self, shift: u32) -> usize {
        ((self - from) >> shift) as usize
    }

    fn slot_start(from: Self, shift: u32, slot: usize) -> Option<Self> {
        let above = u64::try_from(slot).ok()? << shift;
        from.checked_add(above.try_into().ok()?)
    }

    fn bits_above(self, from: Self) -> u32 {
        Self::BITS - (self - from).leading_zeros()
    }
}

impl Number for u128 {
    type Node = Node128;
    const ZERO: Self = 0;
    const BITS: u32 = Self::BITS;

    #[inline(always)]
    fn slot(self, from: Self, shift: u32) -> usize {
        usize::try_from((self - from) >> shift).unwrap_or(usize::MAX)
    }

    fn slot_start(from: Self, shift: u32, slot: usize) -> Option<Self> {
        from.checked_add((slot as u128).checked_mul(1u128.checked_shl(shift)?)?)
    }

    fn bits_above(self, from: Self) -> u32 {
        Self::BITS - (self - from).leading_zeros()
    }
}

/// Bounds that a slot has on average, at most, while there are slots enough.
const BOUNDS_IN_SLOT: usize = 2;

/// The most slots, by their logarithm.
const SLOT_BITS_MAX: u32 = 16;

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(super) struct Search<K: Number> {
    /// Where the first slot begins: at the first bound. What is before has the first answer.
    first: K,
    /// A slot is as wide as 2 to this power.
    shift: u32,
    before: u32,
    /// The last one is for all that is behind.
    slots: Box<[Answer]>,
    nodes: Box<[K::Node]>,
    /// Nodes on the longest way.
    depth: usize,
}

/// See [`Search::view`].
pub(super) struct SearchView<'a, K: Number> {
    first: K,
    shift: u32,
    before: u32,
    behind: Answer,
    slots: &'a [Answer],
    nodes: &'a [K::Node],
}

impl<K: Number> SearchView<'_, K> {
    /// What is said of a number.
    #[inline(always)]
    pub fn find(&self, sought: K) -> u32 {
        if sought < self.first {
            return self.before;
        }
        let slot = sought.slot(self.first, self.shift);
        let mut answer = self.slots.get(slot).copied().unwrap_or(self.behind);
        while answer.0 & NODE != 0 {
            answer = self.nodes[(answer.0 & !NODE) as usize].find(sought);
        }
        answer.0
    }
}

impl<K: Number> Search<K> {
    /// Of the intervals that begin at 0 and at each of `bounds`, which are above 0 and ascend. There
    /// is one value more than bounds, each below 2^31.
    pub fn new(bounds: &[K], values: &[u32]) -> Self {
        debug_assert!(bounds.is_sorted_by(|a, b| a < b), "bounds ascend");
        debug_assert_eq!(bounds.len() + 1, values.len());
        let before = values[0];
        let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else {
            let slots = Box::new([Answer(before)]);
            let nodes = Box::default();
            return Self { first: K::ZERO, shift: 0, before, slots, nodes, depth: 0 };
        };
        let wanted = bounds.len().div_ceil(BOUNDS_IN_SLOT).next_power_of_two().ilog2();
        let wanted = wanted.min(SLOT_BITS_MAX);
        let shift = last.bits_above(*first).saturating_sub(wanted).min(K::BITS - 1);
        let count = last.slot(*first, shift) + 1;
        let mut nodes = Vec::new();
        let mut depth = 0;
        let mut from = 0;
        let mut slots = Vec::with_capacity(count);
        for slot in 0..count {
            let end = K::slot_start(*first, shift, slot + 1).filter(|_| slot + 1 < count);
            let until = match end {
                Some(end) => bounds.partition_point(|bound| *bound < end),
                None => bounds.len(),
            };
            let (answer, way) = tree(&bounds[from..until], &values[from..=until], &mut nodes);
            slots.push(answer);
            depth = depth.max(way);
            from = until;
        }
        Self { first: *first, shift, before, slots: slots.into(), nodes: nodes.into(), depth }
    }

    /// What is said of a number.
    #[cfg(test)]
    pub fn find(&self, sought: K) -> u32 {
        self.view().find(sought)
    }

    /// The tables, with all their places at hand.
    #[inline(always)]
    pub fn view(&self) -> SearchView<'_, K> {
        let Self { first, shift, before, .. } = *self;
        let behind = *self.slots.last().expect("there is a slot at least");
        SearchView { first, shift, before, behind, slots: &self.slots, nodes: &self.nodes }
    }

    /// Pieces of memory that a search looks at, at most.
    pub fn steps(&self) -> usize {
        1 + self.depth
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.slots)
    }
}

/// Builds the tree of some bounds, and tells how many nodes the way to its leaves has.
fn tree<K: Number>(bounds: &[K], values: &[u32], nodes: &mut Vec<K::Node>) -> (Answer, usize) {
    if bounds.is_empty() {
        return (Answer(values[0]), 0);
    }
    // The least height at which all find room, and all children but the last as full as can be.
    let keys = K::Node::KEYS;
    let mut child = 0;
    let mut capacity = keys;
    while capacity < bounds.len() {
        child = capacity;
        capacity = capacity * (keys + 1) + keys;
    }
    let mut own = Vec::new();
    let mut answers = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    loop {
        let end = (at + child).min(bounds.len());
        let (answer, way) = tree(&bounds[at..end], &values[at..=end], nodes);
        answers.push(answer);
        depth = depth.max(way);
        let Some(bound) = bounds.get(end) else { break };
        own.push(*bound);
        at = end + 1;
    }
    nodes.push(K::Node::new(&own, &answers));
    (Answer(NODE | (nodes.len() as u32 - 1)), depth + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agree<K: Number>(bounds: &[K], sought: impl IntoIterator<Item = K>) -> Search<K> {
        let values: Vec<u32> = (0..=bounds.len() as u32).map(|at| at * 3 + 1).collect();
        let search = Search::new(bounds, &values);
        for number in sought {
            let expected = values[bounds.partition_point(|bound| *bound <= number)];
            assert_eq!(search.find(number), expected, "{number:?} in {} bounds", bounds.len());
        }
        search
    }

    #[test]
    fn every_size_finds_every_bound_and_its_neighbours() {
        for len in (0..80).chain([510, 511, 512, 513, 4095, 4096, 6000]) {
            let bounds: Vec<u32> = (1..=len).map(|at| at * 3).collect();
            agree(&bounds, (0..=len * 3 + 2).chain([u32::MAX - 1, u32::MAX]));
            let bounds: Vec<u128> = (1..=u128::from(len)).map(|at| at << 100 | at).collect();
            let near = bounds.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
            agree(&bounds, near.chain([0, u128::MAX]));
        }
        agree(&[1, u32::MAX], [0, 1, u32::MAX - 1, u32::MAX]);
        agree(&[1, u128::MAX], [0, 1, u128::MAX - 1, u128::MAX]);
        let edge: Vec<u32> = (u32::MAX - 600..=u32::MAX).collect();
        agree(&edge, (u32::MAX - 700..=u32::MAX).chain([0]));
    }

    #[test]
    fn bounds_that_crowd_cost_a_node_for_each_factor_of_eight() {
        let spread: Vec<u32> = (1..20_000).map(|at| at * 200_000).collect();
        assert!(agree(&spread, spread.clone()).steps() <= 2);
        // All but one in one slot.
        let crowd: Vec<u32> = (1..20_000).chain([u32::MAX]).collect();
        assert_eq!(agree(&crowd, crowd.clone()).steps(), 6);
        // Each half as far as the one before.
        let halves: Vec<u128> = (0..128).map(|bit| 1 << bit).collect();
        assert!(agree(&halves, halves.clone()).steps() <= 4);
    }

    proptest! {
        #[test]
        fn finds_what_a_sorted_list_finds(
            bounds in proptest::collection::btree_set(1..=u32::MAX, 0..700),
            wide in proptest::collection::btree_set(1..=u128::MAX, 0..300),
            shift in 0u32..128,
            sought in proptest::collection::vec(any::<u128>(), 50),
        ) {
            agree(&bounds.into_iter().collect::<Vec<_>>(), sought.iter().map(|number| *number as u32));
            let mut wide: Vec<_> = wide.into_iter().map(|bound: u128| (bound >> shift).max(1)).collect();
            wide.dedup();
            agree(&wide, sought.iter().map(|number| number >> shift).chain(wide.clone()));
        }
    }
}
