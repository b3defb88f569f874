//! From a 16-bit number (a port, an ICMP type and code, a protocol) to what the rules say of it.
//!
//! A map is a tree of up to four levels of 16 children, one for each four bits, in which whatever
//! has few bounds is a leaf: one cache line with up to eight bounds and what is said between them. Where
//! all that is said is one thing, that stands where the leaf's number would. Equal parts of maps are one
//! part, however many maps they are in: so a class of addresses that differs from another in one port
//! costs five lines at most. Most look-ups read one line, none more than four.
//!
//! Maps are made whole and level by level (`MapBuilder`), never changed, only put together: the lesser
//! of both at each number. What is then made of them (`Maps`) is for reading.

use std::collections::HashMap;

use super::addresses::NoRoom;
use crate::lanes::first_above;

/// Children of a node.
pub(super) const WIDTH: usize = 16;

/// Levels of a map.
pub(super) const LEVELS: u32 = 4;

/// What rules say of something: an index into the list of rules, and whether it permits.
///
/// The lesser of two is the one that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Verdict(u32);

impl Verdict {
    /// No rule says anything: deny.
    pub const UNMATCHED: Self = Self((1 << 30) - 2);

    /// The most rules that verdicts can tell apart.
    pub const RULES_MAX: usize = (1 << 29) - 1;

    pub(super) const fn new(index: u32, permit: bool) -> Self {
        Self(index << 1 | permit as u32)
    }

    /// What is below the last level of a map under construction.
    pub(super) const fn of(part: Root) -> Self {
        Self(part.0)
    }

    /// Whether frames pass.
    #[inline(always)]
    pub const fn permits(self) -> bool {
        self.0 & 1 == 1
    }

    /// Which rule says so: its place in the compiled order. `None` if none does.
    #[inline(always)]
    pub const fn rule(self) -> Option<usize> {
        if self.0 == Self::UNMATCHED.0 { None } else { Some((self.0 >> 1) as usize) }
    }
}

/// A map's root: a [`Verdict`] as it is, or the number of a leaf or of an inner node, told apart by
/// the two highest bits. While maps are built, the number of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Root(pub u32);

impl Root {
    /// What the map says of every number, if that is the same and permits.
    pub(super) const fn permits_all(self) -> bool {
        self.0 & (LEAF | INNER) == 0 && Verdict(self.0).permits()
    }
}

const LEAF: u32 = 1 << 30;
const INNER: u32 = 1 << 31;
const NUMBER: u32 = LEAF - 1;

/// Bounds in a leaf.
const BOUNDS: usize = 8;

/// A few bounds and what is said between them. The bounds are what the levels above leave of a number,
/// shifted left to fill 16 bits, with the first bit turned: that makes them signed numbers of the same
/// order, which the processor compares in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(64))]
struct Leaf {
    bounds: [i16; BOUNDS],
    verdicts: [Verdict; BOUNDS + 1],
}

/// Maps that share what they have in common.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    leaves: Box<[Leaf]>,
    inner: Box<[Node]>,
}

impl Maps {
    /// The most lines that a look-up reads.
    pub const LINES_READ: usize = LEVELS as usize;

    /// The tables, with all their places at hand.
    #[inline(always)]
    pub fn view(&self) -> MapsView<'_> {
        MapsView { leaves: &self.leaves, inner: &self.inner }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.leaves) + size_of_val(&*self.inner)
    }
}

/// See [`Maps::view`].
#[derive(Clone, Copy)]
pub(super) struct MapsView<'a> {
    leaves: &'a [Leaf],
    inner: &'a [Node],
}

impl MapsView<'_> {
    /// What `root`'s map has at `number`.
    #[inline(always)]
    pub fn find(&self, root: Root, number: u16) -> Verdict {
        let (mut place, mut number) = (root.0, number);
        while place & INNER != 0 {
            place = self.inner[(place & NUMBER) as usize].0[usize::from(number >> 12)];
            number <<= 4;
        }
        if place & LEAF == 0 {
            return Verdict(place);
        }
        let leaf = &self.leaves[(place & NUMBER) as usize];
        leaf.verdicts[first_above(&leaf.bounds, (number ^ SIGN) as i16).min(BOUNDS)]
    }
}

const SIGN: u16 = 1 << 15;

/// A node of a map under construction: numbers of nodes, or [`Verdict`]s on the last level. Of a
/// finished one: [`Root`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(align(64))]
struct Node([u32; WIDTH]);

/// Maps under construction.
pub(super) struct MapBuilder {
    nodes: Vec<Node>,
    by_node: HashMap<Node, u32>,
    merged: HashMap<(u32, u32, u32), u32>,
    /// How many nodes there may be.
    room: usize,
    /// For each number of levels, the subtree in which no rule says anything.
    empty: [u32; LEVELS as usize + 1],
}

impl MapBuilder {
    /// Without maps but the one in which no rule says anything.
    pub fn new(room: usize) -> Self {
        let mut empty = [Verdict::UNMATCHED.0; LEVELS as usize + 1];
        let mut nodes = Vec::new();
        for levels in 1..empty.len() {
            empty[levels] = nodes.len() as u32;
            nodes.push(Node([empty[levels - 1]; WIDTH]));
        }
        let by_node = nodes.iter().copied().zip(0..).collect();
        Self { nodes, by_node, merged: HashMap::new(), room, empty }
    }

    fn intern(&mut self, node: Node) -> Result<u32, NoRoom> {
        if let Some(known) = self.by_node.get(&node) {
            return Ok(*known);
        }
        if self.nodes.len() >= self.room {
            return Err(NoRoom);
        }
        let number = self.nodes.len() as u32;
        self.nodes.push(node);
        self.by_node.insert(node, number);
        Ok(number)
    }

    /// A subtree of `levels` that says the same everywhere.
    fn uniform(&mut self, levels: u32, verdict: Verdict) -> Result<u32, NoRoom> {
        let mut at = verdict.0;
        for _ in 0..levels {
            at = self.intern(Node([at; WIDTH]))?;
        }
        Ok(at)
    }

    /// The map in which no rule says anything.
    pub fn empty(&self) -> Root {
        Root(self.empty[LEVELS as usize])
    }

    /// The map that has `verdict` from `first` to `last`, the last included.
    pub fn range(&mut self, first: u16, last: u16, verdict: Verdict) -> Result<Root, NoRoom> {
        self.part(LEVELS, 0, first.into(), last.into(), verdict).map(Root)
    }

    fn part(
        &mut self,
        levels: u32,
        base: u32,
        first: u32,
        last: u32,
        verdict: Verdict,
    ) -> Result<u32, NoRoom> {
        let end = base + (1 << (4 * levels)) - 1;
        if last < base || end < first {
            return Ok(self.empty[levels as usize]);
        }
        if first <= base && end <= last {
            return self.uniform(levels, verdict);
        }
        let mut node = Node([0; WIDTH]);
        for (child, place) in (0..).zip(&mut node.0) {
            let base = base + (child << (4 * (levels - 1)));
            *place = self.part(levels - 1, base, first, last, verdict)?;
        }
        self.intern(node)
    }

    /// The map that has the lesser of both at each number.
    pub fn merge(&mut self, one: Root, other: Root) -> Result<Root, NoRoom> {
        self.merge_nodes(LEVELS, one.0, other.0).map(Root)
    }

    fn merge_nodes(&mut self, levels: u32, one: u32, other: u32) -> Result<u32, NoRoom> {
        if levels == 0 {
            return Ok(one.min(other));
        }
        let empty = self.empty[levels as usize];
        if one == other || other == empty {
            return Ok(one);
        }
        if one == empty {
            return Ok(other);
        }
        let pair = (levels, one.min(other), one.max(other));
        if let Some(known) = self.merged.get(&pair) {
            return Ok(*known);
        }
        let (left, right) = (self.nodes[one as usize], self.nodes[other as usize]);
        let mut node = Node([0; WIDTH]);
        for (place, (one, other)) in node.0.iter_mut().zip(left.0.into_iter().zip(right.0)) {
            *place = self.merge_nodes(levels - 1, one, other)?;
        }
        let number = self.intern(node)?;
        self.merged.insert(pair, number);
        Ok(number)
    }

    /// The parts below one of so many levels, the least first: roots, or [`Verdict`]s below the last level.
    pub fn below(&self, part: Root) -> [Root; WIDTH] {
        self.nodes[part.0 as usize].0.map(Root)
    }

    /// The maps of these roots, to be read; the roots are renamed.
    pub fn finish<'a>(self, roots: impl Iterator<Item = &'a mut Root>) -> Maps {
        let mut written = Written { from: &self.nodes, ..Written::default() };
        for root in roots {
            let runs = written.runs(LEVELS, root.0);
            root.0 = written.write(&runs, LEVELS);
        }
        Maps { leaves: written.leaves.into(), inner: written.inner.into() }
    }
}

/// What a part of a map is, before it is known where it stands: verdicts, each with the first number
/// that has it, or an inner node if these are too many for a leaf.
#[derive(Clone, Debug)]
enum Runs {
    Few(Vec<(u32, Verdict)>),
    Inner(u32),
}

/// Finished maps, while they are written.
#[derive(Default)]
struct Written<'a> {
    from: &'a [Node],
    leaves: Vec<Leaf>,
    inner: Vec<Node>,
    by_leaf: HashMap<Leaf, u32>,
    by_inner: HashMap<Node, u32>,
    known: HashMap<(u32, u32), Runs>,
}

impl Written<'_> {
    /// The part under a node of so many levels.
    fn runs(&mut self, levels: u32, number: u32) -> Runs {
        if levels == 0 {
            return Runs::Few(vec![(0, Verdict(number))]);
        }
        if let Some(known) = self.known.get(&(levels, number)) {
            return known.clone();
        }
        let children = self.from[number as usize].0.map(|child| self.runs(levels - 1, child));
        let mut all: Option<Vec<(u32, Verdict)>> = Some(Vec::new());
        for (child, runs) in (0..).zip(&children) {
            let start: u32 = child << (4 * (levels - 1));
            all = match (all, runs) {
                (Some(mut all), Runs::Few(few)) => {
                    all.extend(few.iter().map(|(first, verdict)| (start + first, *verdict)));
                    all.dedup_by_key(|(_, verdict)| *verdict);
                    (all.len() <= BOUNDS + 1).then_some(all)
                }
                _ => None,
            };
        }
        let runs = match all {
            Some(few) => Runs::Few(few),
            None => {
                let node = Node(children.map(|runs| self.write(&runs, levels - 1)));
                let next = self.inner.len() as u32;
                let number = *self.by_inner.entry(node).or_insert(next);
                if number == next {
                    self.inner.push(node);
                }
                Runs::Inner(number)
            }
        };
        self.known.insert((levels, number), runs.clone());
        runs
    }

    /// Writes a part of so many levels, and says where it is.
    fn write(&mut self, runs: &Runs, levels: u32) -> u32 {
        let few = match runs {
            Runs::Inner(number) => return INNER | number,
            Runs::Few(few) => few,
        };
        let Some((_, last)) = few.last() else { return Verdict::UNMATCHED.0 };
        if few.len() == 1 {
            return last.0;
        }
        let mut leaf = Leaf { bounds: [i16::MAX; BOUNDS], verdicts: [*last; BOUNDS + 1] };
        for (place, (_, verdict)) in leaf.verdicts.iter_mut().zip(few) {
            *place = *verdict;
        }
        for (place, (first, _)) in leaf.bounds.iter_mut().zip(&few[1..]) {
            *place = ((first << (16 - 4 * levels)) as u16 ^ SIGN) as i16;
        }
        let next = self.leaves.len() as u32;
        let number = *self.by_leaf.entry(leaf).or_insert(next);
        if number == next {
            self.leaves.push(leaf);
        }
        LEAF | number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_has_the_least_of_the_ranges_around_it(
            ranges in proptest::collection::vec((any::<u16>(), 0u16..3000, 0u32..50, any::<bool>()), 0..30),
            sought in proptest::collection::vec(any::<u16>(), 30),
        ) {
            let mut builder = MapBuilder::new(1 << 20);
            let mut root = builder.empty();
            let spans: Vec<_> = ranges
                .iter()
                .map(|(first, more, rule, permit)| {
                    (*first, first.saturating_add(*more), Verdict::new(*rule, *permit))
                })
                .collect();
            for (first, last, verdict) in &spans {
                let range = builder.range(*first, *last, *verdict).unwrap();
                root = builder.merge(root, range).unwrap();
            }
            let maps = builder.finish([&mut root].into_iter());
            let edges = spans.iter().flat_map(|(first, last, _)| {
                [*first, *last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for number in edges.chain(sought) {
                let expected = spans
                    .iter()
                    .filter(|(first, last, _)| (*first..=*last).contains(&number))
                    .map(|(_, _, verdict)| *verdict)
                    .min();
                prop_assert_eq!(maps.view().find(root, number), expected.unwrap_or(Verdict::UNMATCHED));
            }
        }
    }

    #[test]
    fn what_maps_have_in_common_is_there_once() {
        let mut builder = MapBuilder::new(1 << 20);
        let mut common = builder.empty();
        for port in 0..1000 {
            let range = builder.range(port * 60, port * 60 + 7, Verdict::new(5, true)).unwrap();
            common = builder.merge(common, range).unwrap();
        }
        let mut roots = vec![common];
        for at in 0..1000 {
            let own = builder.range(at * 7, at * 7, Verdict::new(1, false)).unwrap();
            roots.push(builder.merge(common, own).unwrap());
        }
        let maps = builder.finish(roots.iter_mut());
        let (leaves, inner) = (maps.leaves.len(), maps.inner.len());
        assert!(leaves + inner < 3500, "{leaves} leaves, {inner} inner nodes");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut builder = MapBuilder::new(100);
        let mut grown = Ok(builder.empty());
        for port in 0..1000 {
            grown = grown.and_then(|map| {
                let range =
                    builder.range(port * 60, port * 60, Verdict::new(u32::from(port), true))?;
                builder.merge(map, range)
            });
        }
        assert_eq!(grown, Err(NoRoom));
    }
}
