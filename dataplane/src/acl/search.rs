//! Which of many intervals a number lies in, and what is said of it there.
//!
//! Numbers are cut by their highest bits in equal parts. Each part is a [`Table`] of slots of equal width,
//! from the first to the last bound in that part, and one more slot for all that is outside of these. A
//! slot is a node, which holds bounds and answers together: half a cache line for IPv4, two lines for IPv6.
//! So a search usually reads the part's head and a node, whatever is sought. Both cuts are chosen for the
//! bounds that there are, such that a node holds all in its slot, if that takes no more memory than
//! [`slot_bytes`] says. Where bounds crowd even so, the node leads to a tree of nodes: one more for each factor
//! of four (seven). How many lines a search reads at most is known when the tables are built.

#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use super::known;
use super::node::{Answer, NODE, Node, Number};

/// The least memory that a bound takes, in bytes.
pub(super) const BOUND_BYTES: usize = 32;

/// Memory that slots may take for each of so many bounds: more of it, and fewer slots have more bounds than a
/// node holds. Of so many that no near cache keeps them, memory is worth more.
fn slot_bytes(bounds: usize) -> usize {
    BOUND_BYTES * ((1 << 16) / bounds.max(1)).clamp(1, 4)
}

/// Into how many parts numbers may be cut, by the logarithm. With four at least, what is in front of a part's
/// first slot is never taken for one of its slots: see [`Table::slot`].
const PARTS: [u32; 5] = [2, 6, 10, 13, 16];

/// Parts that there may be for each bound.
const PARTS_PER_BOUND: usize = 4;

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(super) struct Search<K: Number> {
    /// Shifted right so far, a number tells its part.
    shift: u32,
    parts: Box<[Table<K>]>,
    nodes: Box<[K::Node]>,
    /// Cache lines on the longest way.
    steps: usize,
}

/// Slots of equal width. Aligned so that one of IPv4 lies in one line.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Table<K> {
    /// Where the first slot begins: at the first bound.
    first: K,
    /// A slot is as wide as 2 to this power.
    shift: u32,
    /// Which of the nodes is the first slot.
    start: u32,
    /// How many slots there are. One more follows, for what is outside of them.
    slots: u32,
}

/// See [`Search::view`].
pub(super) struct SearchView<'a, K: Number> {
    shift: u32,
    parts: &'a [Table<K>],
    nodes: &'a [K::Node],
}

impl<K: Number> Table<K> {
    /// For these bounds, which ascend, and the memory that slots may take for each. Returns how many of the
    /// bounds crowd, too. Where the table starts is not known yet.
    fn layout(bounds: &[K], slot_bytes: usize) -> (Self, usize) {
        let (Some(first), Some(last)) = (bounds.first(), bounds.last()) else {
            return (Self { first: K::ZERO, shift: 0, start: 0, slots: 0 }, 0);
        };
        let most = (bounds.len() * slot_bytes / size_of::<K::Node>()).max(1);
        let width = last.beyond(*first);
        // Shifted so far, there is one slot.
        let widest = (0..K::BITS - 1).find(|shift| width.index(*shift) == 0);
        let tables = (0..=widest.unwrap_or(K::BITS - 1)).rev().map_while(|shift| {
            let slots = width.index(shift).checked_add(1).filter(|slots| *slots <= most)?;
            Some(Self { first: *first, shift, start: 0, slots: u32::try_from(slots).ok()? })
        });
        // The fewest slots of those tables in which the fewest bounds crowd.
        let mut best: Option<(Self, usize)> = None;
        for table in tables {
            let crowded = table.crowded(bounds);
            if best.as_ref().is_none_or(|(_, least)| crowded < *least) {
                best = Some((table, crowded));
            }
            if crowded == 0 {
                break;
            }
        }
        best.expect("one slot is never too many")
    }

    /// Which of the bounds are within each slot, and not where it begins.
    fn cuts(&self, bounds: &[K]) -> impl Iterator<Item = Range<usize>> {
        let edge = |slot| self.first.plus(K::with_index(slot, self.shift)?);
        (0..self.slots as usize).map(move |slot| within(bounds, edge(slot), edge(slot + 1)))
    }

    /// How many bounds are in slots that have more of them than a node holds.
    fn crowded(&self, bounds: &[K]) -> usize {
        let (mut slot, mut inside, mut crowded) = (0, 0, 0);
        for bound in bounds {
            let above = bound.beyond(self.first);
            if above.index(self.shift) != slot {
                (slot, inside) = (above.index(self.shift), 0);
            }
            inside += usize::from(K::with_index(slot, self.shift) != Some(above));
            crowded += match inside.cmp(&(K::Node::KEYS + 1)) {
                Ordering::Less => 0,
                Ordering::Equal => inside,
                Ordering::Greater => 1,
            };
        }
        crowded
    }

    /// The node of a number, which must be in the table's part. A part is a quarter of all numbers at most,
    /// so its slots are half of them at most, with what the last one juts out; what is in front of the
    /// first bound is more than half of all numbers away, going round.
    #[inline(always)]
    fn slot(&self, sought: K) -> usize {
        let slot = sought.beyond(self.first).index(self.shift).min(self.slots as usize);
        self.start as usize + slot
    }
}

impl<K: Number> SearchView<'_, K> {
    /// What is said of a number.
    #[inline(always)]
    pub fn find(&self, sought: K) -> u32 {
        self.finish(self.begin(sought), sought)
    }

    /// What the first node says of a number, which may be that another one is to be asked. For who has
    /// many searches under way.
    #[inline(always)]
    pub fn begin(&self, sought: K) -> u32 {
        // SAFETY: `Search::new` has seen that there is a part for whatever a number begins with, and a node
        // for each of a part's slots and the one behind them.
        let node = unsafe {
            let part = known::at(self.parts, sought.index(self.shift));
            known::at(self.nodes, part.slot(sought))
        };
        node.find(sought).0
    }

    /// Whether what nodes have said is that others are to be asked: of one answer, or of the union of
    /// many.
    #[inline(always)]
    pub fn goes_on(answer: u32) -> bool {
        answer & NODE != 0
    }

    /// What is said of a number after all, when `answer` is what the first node said.
    #[inline(always)]
    pub fn finish(&self, mut answer: u32, sought: K) -> u32 {
        while Self::goes_on(answer) {
            answer = self.nodes[(answer & !NODE) as usize].find(sought).0;
        }
        answer
    }
}

impl<K: Number> Search<K> {
    /// Of the intervals that begin at 0 and at each of `bounds`, which are above 0 and ascend. There
    /// is one value more than bounds, each below 2^31.
    pub fn new(bounds: &[K], values: &[u32]) -> Self {
        debug_assert!(bounds.is_sorted_by(|a, b| a < b), "bounds ascend");
        debug_assert_eq!(bounds.len() + 1, values.len());
        debug_assert!(values.iter().all(|value| *value < NODE), "values are told from places");
        let slot_bytes = slot_bytes(bounds.len());
        // The fewest parts in which the fewest bounds crowd.
        let mut best = (PARTS[0], usize::MAX);
        for bits in PARTS {
            let worth = 1 << bits <= (bounds.len() * PARTS_PER_BOUND).max(1 << PARTS[0]);
            if !worth || best.1 == 0 {
                break;
            }
            let parts = cut(bounds, bits).map(|part| Table::layout(&bounds[part], slot_bytes).1);
            let crowded = parts.sum();
            if crowded < best.1 {
                best = (bits, crowded);
            }
        }
        let (bits, _) = best;

        let mut making = Making { slot_bytes, nodes: Vec::new(), depth: 0 };
        let mut without_bounds = HashMap::new();
        let parts = cut(bounds, bits).map(|part| {
            let (bounds, values) = (&bounds[part.clone()], &values[part.start..=part.end]);
            match bounds {
                [] => {
                    let make = || making.table(bounds, values);
                    *without_bounds.entry(values[0]).or_insert_with(make)
                }
                _ => making.table(bounds, values),
            }
        });
        let parts: Box<[Table<K>]> = parts.collect();
        let Making { nodes, depth, .. } = making;
        // What `SearchView::begin` relies on.
        assert_eq!(parts.len(), 1 << bits, "a part for each number of so many bits");
        let ends = parts.iter().map(|part| part.start as usize + part.slots as usize);
        assert!(ends.max() < Some(nodes.len()), "a node for each slot");
        let head = if size_of::<Table<K>>() > align_of::<Table<K>>() { 2 } else { 1 };
        Self {
            shift: K::BITS - bits,
            parts,
            nodes: nodes.into(),
            steps: head + size_of::<K::Node>().div_ceil(64) * depth,
        }
    }

    /// What is said of a number.
    #[cfg(test)]
    pub fn find(&self, sought: K) -> u32 {
        self.view().find(sought)
    }

    /// The tables, with all their places at hand.
    #[inline(always)]
    pub fn view(&self) -> SearchView<'_, K> {
        let Self { shift, parts, nodes, .. } = self;
        SearchView { shift: *shift, parts, nodes }
    }

    /// Cache lines that a search reads, at most.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.parts) + size_of_val(&*self.nodes)
    }
}

/// Which of the bounds are within each of 2 to the power of `parts` equal parts of all numbers, and not
/// where it begins.
fn cut<K: Number>(bounds: &[K], parts: u32) -> impl Iterator<Item = Range<usize>> {
    let edge = move |part| K::with_index(part, K::BITS - parts);
    (0..1 << parts).map(move |part| within(bounds, edge(part), edge(part + 1)))
}

/// Which of the bounds are above `from` and below `to`, which is greater than all numbers if there is
/// none.
fn within<K: Number>(bounds: &[K], from: Option<K>, to: Option<K>) -> Range<usize> {
    let begin = from.map_or(bounds.len(), |from| bounds.partition_point(|bound| *bound <= from));
    let end = to.map_or(bounds.len(), |to| bounds.partition_point(|bound| *bound < to));
    begin..end.max(begin)
}

/// A search that is being made.
struct Making<K: Number> {
    slot_bytes: usize,
    nodes: Vec<K::Node>,
    /// Nodes on the longest way.
    depth: usize,
}

impl<K: Number> Making<K> {
    /// Makes the table of a part.
    fn table(&mut self, bounds: &[K], values: &[u32]) -> Table<K> {
        let start = self.nodes.len();
        let (table, _) = Table::layout(bounds, self.slot_bytes);
        let table = Table { start: start as u32, ..table };
        // What is outside: in front of the first bound, and behind the last.
        let ends = [Answer(values[0]), Answer(values[bounds.len()])];
        let outside = match bounds.first() {
            Some(first) => K::Node::new(&[*first], &ends),
            None => K::Node::new(&[], &ends[..1]),
        };
        self.nodes.resize(start + table.slots as usize + 1, outside);
        self.depth = self.depth.max(1);
        for (slot, cut) in table.cuts(bounds).enumerate() {
            let (bounds, values) = (&bounds[cut.clone()], &values[cut.start..=cut.end]);
            let (node, depth) = tree(bounds, values, &mut self.nodes);
            self.nodes[start + slot] = node;
            self.depth = self.depth.max(depth);
        }
        table
    }
}

/// Builds the tree of some bounds. Returns its root, and how many nodes the longest way has.
fn tree<K: Number>(bounds: &[K], values: &[u32], nodes: &mut Vec<K::Node>) -> (K::Node, usize) {
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
        if at == end {
            answers.push(Answer(values[at]));
        } else {
            let (node, way) = tree(&bounds[at..end], &values[at..=end], nodes);
            answers.push(Answer(NODE | nodes.len() as u32));
            nodes.push(node);
            depth = depth.max(way);
        }
        let Some(bound) = bounds.get(end) else { break };
        own.push(*bound);
        at = end + 1;
    }
    (K::Node::new(&own, &answers), depth + 1)
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
        // A part's slot for what is outside, nodes of trees, parts.
        let rest = 2 * size_of::<K::Node>() + PARTS_PER_BOUND * size_of::<Table<K>>();
        let most = bounds.len() * (slot_bytes(bounds.len()) + rest) + 1000;
        assert!(search.bytes() <= most, "{} bytes, {} bounds", search.bytes(), bounds.len());
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
    fn what_is_before_the_first_slot_of_a_part_is_in_none() {
        for quarter in 0..4u32 {
            let start = quarter << 30;
            let (first, last) = (start + (1 << 29) + 1, start + ((1 << 30) - 1));
            for bounds in [vec![first, last], vec![first], vec![last], vec![start + 1, last]] {
                let near = bounds.iter().flat_map(|bound| [bound - 1, *bound]);
                let ends = [start, start + 1, start + (1 << 28), last, 0, u32::MAX];
                agree(&bounds, near.chain(ends));
                let wide: Vec<u128> = bounds.iter().map(|bound| u128::from(*bound) << 96).collect();
                let near = wide.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
                agree(&wide, near.chain(ends.map(|end| u128::from(end) << 96)));
            }
        }
    }

    #[test]
    fn bounds_that_crowd_cost_a_step_for_each_factor_of_four() {
        let spread: Vec<u32> = (1..20_000).map(|at| at * 200_000).collect();
        assert_eq!(agree(&spread, spread.clone()).steps(), 2);
        let wide: Vec<u128> = spread.iter().map(|at| u128::from(*at) << 96).collect();
        assert_eq!(agree(&wide, wide.clone()).steps(), 4);
        // All but one in one place.
        let crowd: Vec<u32> = (1..20_000).chain([u32::MAX]).collect();
        assert_eq!(agree(&crowd, crowd.clone()).steps(), 2);
        // The same again and again, each a 256th of what is around it.
        let nested = |level: u32| (1..250).map(move |at: u32| at << (8 * level));
        let nested: Vec<u32> = (0..4).flat_map(nested).collect();
        assert!(agree(&nested, nested.clone()).steps() <= 6);
        // Each half as far as the one before.
        let halves: Vec<u128> = (0..128).map(|bit| 1 << bit).collect();
        assert!(agree(&halves, halves.clone()).steps() <= 8);
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
