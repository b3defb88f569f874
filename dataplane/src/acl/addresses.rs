//! From an address to its class: which of the prefixes and sets that rules name it is in.
//!
//! Every prefix cuts the addresses in at most three intervals; on each interval the same *atoms*
//! (prefixes and sets) hold. Intervals with the same atoms are one class. As prefixes are either
//! nested or apart, one pass over them in order with a stack finds all intervals, and each class
//! is another with one atom more: who knows what the rules say of that one need only add the atom.

use std::collections::HashMap;

use super::node::Number;
use super::search::{BOUND_BYTES, Search, SearchView};

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(super) struct Addresses<K: Number> {
    /// From each interval to its class.
    search: Search<K>,
    /// How each class came to be; those it came from stand before it.
    classes: Box<[Class]>,
    /// See [`inhabited`](Self::inhabited).
    inhabited: Box<[bool]>,
}

/// A class of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Without any atom: the first class.
    Root,
    /// Those of another class, and this one.
    With {
        /// The other class.
        parent: u32,
        /// The number of the atom.
        atom: u32,
    },
}

/// Addresses from one to another, the last included: a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span<K> {
    pub first: K,
    pub last: K,
}

/// Rules need more room than they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// An address as a number with a successor.
pub(super) trait Address: Number + std::hash::Hash {
    /// The next one, if this is not the last.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// Classes under construction.
struct Interner {
    classes: Vec<Class>,
    /// Each class's atoms, in ascending order.
    atoms: Vec<Box<[u32]>>,
    by_atoms: HashMap<Box<[u32]>, u32>,
    with: HashMap<(u32, u32), u32>,
    /// How many more atoms may be noted, over all classes.
    room: usize,
}

impl Interner {
    fn new(room: usize) -> Self {
        let root: Box<[u32]> = Box::default();
        Self {
            classes: vec![Class::Root],
            atoms: vec![root.clone()],
            by_atoms: HashMap::from([(root, 0)]),
            with: HashMap::new(),
            room,
        }
    }

    /// The class of those in `parent` that are in `atom` as well.
    fn with(&mut self, parent: u32, atom: u32) -> Result<u32, NoRoom> {
        if let Some(known) = self.with.get(&(parent, atom)) {
            return Ok(*known);
        }
        let mut sum = self.atoms[parent as usize].to_vec();
        let class = match sum.binary_search(&atom) {
            Ok(_) => parent,
            Err(place) => {
                self.room = self.room.checked_sub(sum.len() + 1).ok_or(NoRoom)?;
                sum.insert(place, atom);
                let sum: Box<[u32]> = sum.into();
                *self.by_atoms.entry(sum.clone()).or_insert_with(|| {
                    self.classes.push(Class::With { parent, atom });
                    self.atoms.push(sum);
                    self.classes.len() as u32 - 1
                })
            }
        };
        self.with.insert((parent, atom), class);
        Ok(class)
    }
}

impl<K: Address> Addresses<K> {
    /// Of prefixes, each with the number of the atom that it belongs to. Neither what is noted meanwhile, the
    /// atoms of each class, over all classes, nor what is searched may take more than `bytes_max`.
    pub fn new(mut spans: Vec<(Span<K>, u32)>, bytes_max: usize) -> Result<Self, NoRoom> {
        // Outer prefixes before inner ones.
        spans
            .sort_unstable_by_key(|(span, atom)| (span.first, std::cmp::Reverse(span.last), *atom));
        spans.dedup();
        let mut interner = Interner::new(bytes_max / size_of::<u32>());
        let mut intervals: Vec<(K, u32)> = vec![(K::ZERO, 0)];
        let mut open: Vec<(K, u32)> = Vec::new();
        let begin = |intervals: &mut Vec<(K, u32)>, at: K, class: u32| match intervals.last_mut() {
            Some((first, of)) if *first == at => *of = class,
            _ => intervals.push((at, class)),
        };
        let close = |open: &mut Vec<(K, u32)>, intervals: &mut Vec<(K, u32)>| {
            let Some((last, _)) = open.pop() else { return };
            if let Some(after) = last.next() {
                begin(intervals, after, open.last().map_or(0, |(_, class)| *class));
            }
        };
        for (span, atom) in spans {
            while open.last().is_some_and(|(last, _)| *last < span.first) {
                close(&mut open, &mut intervals);
            }
            let class = interner.with(open.last().map_or(0, |(_, class)| *class), atom)?;
            begin(&mut intervals, span.first, class);
            open.push((span.last, class));
        }
        while !open.is_empty() {
            close(&mut open, &mut intervals);
        }
        intervals.dedup_by_key(|(_, class)| *class);
        let values: Vec<u32> = intervals.iter().map(|(_, class)| *class).collect();
        let keys: Vec<K> = intervals.iter().skip(1).map(|(first, _)| *first).collect();
        if keys.len() > bytes_max / BOUND_BYTES {
            return Err(NoRoom);
        }
        let mut inhabited = vec![false; interner.classes.len()];
        values.iter().for_each(|class| inhabited[*class as usize] = true);
        let classes = interner.classes.into();
        Ok(Self { search: Search::new(&keys, &values), classes, inhabited: inhabited.into() })
    }

    /// What finds an address's class.
    #[inline(always)]
    pub fn view(&self) -> SearchView<'_, K> {
        self.search.view()
    }

    /// How each class came to be; those it came from stand before it.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Whether any address is of each class, and not of one that came from it.
    pub fn inhabited(&self) -> &[bool] {
        &self.inhabited
    }

    /// Cache lines that a look-up reads, at most.
    pub fn steps(&self) -> usize {
        self.search.steps()
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.search.bytes() + size_of_val(&*self.classes) + size_of_val(&*self.inhabited)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The atoms of an address, by following its class.
    fn atoms(table: &Addresses<u32>, address: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut class = table.view().find(address) as usize;
        while let Class::With { parent, atom } = table.classes()[class] {
            assert!((parent as usize) < class, "parents stand before their children");
            found.push(atom);
            class = parent as usize;
        }
        found.sort_unstable();
        found
    }

    fn span(address: u32, length: u32) -> Span<u32> {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Span { first: address & mask, last: address | !mask }
    }

    proptest! {
        #[test]
        fn an_address_has_the_atoms_that_hold_it(
            prefixes in proptest::collection::vec((0u32..1 << 10, 0u32..=32, 0u32..6), 0..40),
            sought in proptest::collection::vec(any::<u32>(), 20),
        ) {
            // Few high bits, so that prefixes nest.
            let spans: Vec<_> = prefixes
                .iter()
                .map(|(bits, length, atom)| (span(bits.reverse_bits() | bits & 3, *length), *atom))
                .collect();
            let table = Addresses::new(spans.clone(), usize::MAX).unwrap();
            let edges = spans.iter().flat_map(|(span, _)| {
                [span.first, span.last, span.first.wrapping_sub(1), span.last.wrapping_add(1)]
            });
            for address in edges.chain(sought).chain([0, u32::MAX]) {
                let mut expected: Vec<u32> = spans
                    .iter()
                    .filter(|(span, _)| span.first <= address && address <= span.last)
                    .map(|(_, atom)| *atom)
                    .collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(atoms(&table, address), expected, "{:#x}", address);
            }
        }
    }

    #[test]
    fn members_of_one_set_are_one_class() {
        let spans = (0..1000).map(|at| (span(at * 0x10001, 32), 7)).collect();
        let table = Addresses::new(spans, usize::MAX).unwrap();
        assert_eq!(table.classes().len(), 2);
        assert!(table.steps() <= 2, "{}", table.steps());
    }

    #[test]
    fn addresses_in_ever_other_sets_run_out_of_room() {
        // Address n is in the sets whose bits are in n.
        let spans = |addresses: u32| -> Vec<_> {
            let sets = |at: u32| (0..16).filter(move |set| at >> set & 1 == 1);
            (0..addresses).flat_map(|at| sets(at).map(move |set| (span(at, 32), set))).collect()
        };
        assert!(Addresses::new(spans(64), 40_000).is_ok());
        assert_eq!(Addresses::new(spans(65_536), 40_000).map(|_| ()), Err(NoRoom));
    }
}
