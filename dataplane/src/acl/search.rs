//! Which of many intervals a number lies in, and what is said of it there.
//!
//! The numbers between the first and the last bound are cut in slots of equal width, as many as make
//! for a few bounds in each. A slot has the answer at once if no bound is in it, or leads to a node that
//! holds bounds and answers together: a cache line for IPv4, two for IPv6. So a search usually reads a
//! slot and a node. Where bounds crowd in one slot, as those of a data centre's own addresses among
//! prefixes of the world, the slot leads to a table of slots of its own, if that leaves a node's worth of
//! bounds in each, or else to a tree of nodes: one node more for each factor of eight (seven). How many
//! steps a search takes at most is known when the tables are built.

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

/// What a slot or node says: a value below 2^30, or the number of the node or, a slot only, of the table
/// to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer(u32);

const NODE: u32 = 1 << 31;
const TABLE: u32 = 1 << 30;

/// What is to be asked next.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    Node = NODE,
    Table = TABLE,
}

impl Kind {
    /// Whether an answer names such.
    #[inline(always)]
    pub fn is(self, answer: u32) -> bool {
        answer & self as u32 != 0
    }
}

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

/// See the [module's head](self). The first table is asked first.
#[derive(Clone, Debug)]
pub(super) struct Search<K: Number> {
    parts: Parts<K>,
    /// Pieces of memory on the longest way.
    steps: usize,
}

#[derive(Clone, Debug)]
struct Parts<K: Number> {
    tables: Vec<Table<K>>,
    slots: Vec<Answer>,
    nodes: Vec<K::Node>,
}

/// Slots of equal width.
#[derive(Clone, Copy, Debug)]
struct Table<K> {
    /// Where the first slot begins: at the first bound.
    first: K,
    /// What is said of what is before.
    before: Answer,
    /// A slot is as wide as 2 to this power.
    shift: u32,
    /// Where its slots are among all.
    start: u32,
    /// How many there are behind the first. The last one is for all that is behind, too.
    last: u32,
}

/// See [`Search::view`].
pub(super) struct SearchView<'a, K: Number> {
    top: Table<K>,
    tables: &'a [Table<K>],
    slots: &'a [Answer],
    nodes: &'a [K::Node],
}

impl<K: Number> Table<K> {
    /// For these bounds, which are above 0 and ascend. Its place and what is before are not known yet.
    fn layout(bounds: &[K]) -> Self {
        let (before, start) = (Answer(0), 0);
        let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else {
            return Self { first: K::ZERO, before, shift: 0, start, last: 0 };
        };
        let wanted = bounds.len().div_ceil(BOUNDS_IN_SLOT).next_power_of_two().ilog2();
        let wanted = wanted.min(SLOT_BITS_MAX);
        let shift = last.bits_above(*first).saturating_sub(wanted).min(K::BITS - 1);
        Self { first: *first, before, shift, start, last: last.slot(*first, shift) as u32 }
    }

    /// How many of the bounds are in front of the end of each slot.
    fn ends<'b>(&self, bounds: &'b [K]) -> impl Iterator<Item = usize> + use<'b, K> {
        let Self { first, shift, last, .. } = *self;
        (0..=last).map(move |slot| {
            match K::slot_start(first, shift, slot as usize + 1).filter(|_| slot < last) {
                Some(end) => bounds.partition_point(|bound| *bound < end),
                None => bounds.len(),
            }
        })
    }

    /// What the slot says that a number is in.
    #[inline(always)]
    fn ask(&self, sought: K, slots: &[Answer]) -> Answer {
        let slot = sought.max(self.first).slot(self.first, self.shift).min(self.last as usize);
        let answer = slots[self.start as usize + slot];
        if sought < self.first { self.before } else { answer }
    }
}

impl<K: Number> SearchView<'_, K> {
    /// What is said of a number.
    #[inline(always)]
    pub fn find(&self, sought: K) -> u32 {
        let mut place = self.begin(sought);
        while Kind::Table.is(place) {
            place = self.ask_table(place, sought);
        }
        while Kind::Node.is(place) {
            place = self.ask_node(place, sought);
        }
        place
    }
}

/// A search in steps, for who has many under way: [`begin`](Self::begin), then tables as long as one is
/// to be asked, then nodes as long as one is.
impl<K: Number> SearchView<'_, K> {
    /// What the first table says of a number.
    #[inline(always)]
    pub fn begin(&self, sought: K) -> u32 {
        self.top.ask(sought, self.slots).0
    }

    /// What the table that `place` names says of a number.
    #[inline(always)]
    pub fn ask_table(&self, place: u32, sought: K) -> u32 {
        self.tables[(place & !TABLE) as usize].ask(sought, self.slots).0
    }

    /// What the node that `place` names says of a number.
    #[inline(always)]
    pub fn ask_node(&self, place: u32, sought: K) -> u32 {
        self.nodes[(place & !NODE) as usize].find(sought).0
    }

    /// What the table that `place` names says of a number, or the same again, if it names none. There
    /// must be a table.
    #[inline(always)]
    pub fn step_by_table(&self, place: u32, sought: K) -> u32 {
        let names = Kind::Table.is(place);
        let answer = self.ask_table(if names { place } else { TABLE }, sought);
        if names { answer } else { place }
    }

    /// The same for a node.
    #[inline(always)]
    pub fn step_by_node(&self, place: u32, sought: K) -> u32 {
        let names = Kind::Node.is(place);
        let answer = self.ask_node(if names { place } else { NODE }, sought);
        if names { answer } else { place }
    }
}

impl<K: Number> Search<K> {
    /// Of the intervals that begin at 0 and at each of `bounds`, which are above 0 and ascend. There
    /// is one value more than bounds, each below 2^30.
    pub fn new(bounds: &[K], values: &[u32]) -> Self {
        debug_assert!(bounds.is_sorted_by(|a, b| a < b), "bounds ascend");
        debug_assert_eq!(bounds.len() + 1, values.len());
        debug_assert!(values.iter().all(|value| *value < TABLE), "values are told from places");
        let mut parts = Parts { tables: Vec::new(), slots: Vec::new(), nodes: Vec::new() };
        let (_, steps) = parts.table(Table::layout(bounds), bounds, values);
        // The first table is at hand, its slot is not.
        Self { parts, steps: steps - 1 }
    }

    /// What is said of a number.
    #[cfg(test)]
    pub fn find(&self, sought: K) -> u32 {
        self.view().find(sought)
    }

    /// The tables, with all their places at hand.
    #[inline(always)]
    pub fn view(&self) -> SearchView<'_, K> {
        let Parts { tables, slots, nodes } = &self.parts;
        SearchView { top: tables[0], tables, slots, nodes }
    }

    /// Pieces of memory that a search looks at, at most.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        let Parts { tables, slots, nodes } = &self.parts;
        size_of_val(&**tables) + size_of_val(&**slots) + size_of_val(&**nodes)
    }
}

impl<K: Number> Parts<K> {
    /// Adds a table of this layout. Returns it, and how many pieces of memory the way to the answers has.
    fn table(&mut self, layout: Table<K>, bounds: &[K], values: &[u32]) -> (Answer, usize) {
        let (number, start) = (self.tables.len(), self.slots.len());
        self.tables.push(Table { before: Answer(values[0]), start: start as u32, ..layout });
        self.slots.resize(start + layout.last as usize + 1, Answer(0));
        let (mut from, mut steps) = (0, 0);
        for (slot, until) in layout.ends(bounds).enumerate() {
            let (answer, way) = self.crowd(&bounds[from..until], &values[from..=until]);
            self.slots[start + slot] = answer;
            steps = steps.max(way);
            from = until;
        }
        (Answer(TABLE | number as u32), 2 + steps)
    }

    /// Adds what is best for the bounds in a slot.
    fn crowd(&mut self, bounds: &[K], values: &[u32]) -> (Answer, usize) {
        let keys = K::Node::KEYS;
        // A table takes as long as two nodes do, one of which follows it.
        if bounds.len() >= (keys + 1).pow(2) {
            let layout = Table::layout(bounds);
            let starts = std::iter::once(0).chain(layout.ends(bounds));
            if layout.ends(bounds).zip(starts).all(|(end, start)| end - start <= keys) {
                return self.table(layout, bounds, values);
            }
        }
        tree(bounds, values, &mut self.nodes)
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
    fn bounds_that_crowd_cost_a_step_for_each_factor_of_eight() {
        let spread: Vec<u32> = (1..20_000).map(|at| at * 200_000).collect();
        assert!(agree(&spread, spread.clone()).steps() <= 2);
        // All but one in one slot.
        let crowd: Vec<u32> = (1..20_000).chain([u32::MAX]).collect();
        assert_eq!(agree(&crowd, crowd.clone()).steps(), 4);
        // The same again and again, each a 256th of what is around it.
        let nested = |level: u32| (1..250).map(move |at: u32| at << (8 * level));
        let nested: Vec<u32> = (0..4).flat_map(nested).collect();
        assert!(agree(&nested, nested.clone()).steps() <= 8);
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
