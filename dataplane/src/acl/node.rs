//! Nodes of a [search](super::search): a few bounds, and what is said between them; for both versions of IP.

use crate::lanes::greater;

/// A number that intervals are made of.
pub(super) trait Number: Copy + Ord + std::fmt::Debug {
    /// See [`Node`].
    type Node: Node<Self>;
    /// The least.
    const ZERO: Self;
    /// How many bits it has.
    const BITS: u32;
    /// What is left of it when shifted right, cut to what an index holds: greater numbers are the
    /// greatest index.
    fn index(self, shift: u32) -> usize;
    /// The least number that has this index, if there is one so great.
    fn with_index(index: usize, shift: u32) -> Option<Self>;
    /// The difference to another. It goes round the end of all numbers if the other is greater.
    fn beyond(self, other: Self) -> Self;
    /// The sum with another, if there is a number so great.
    fn plus(self, other: Self) -> Option<Self>;
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

/// What a node says: a value below 2^31, or the number of the node to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer(pub u32);

/// The bit that tells a node's number from a value.
pub(super) const NODE: u32 = 1 << 31;

/// IPv4's nodes, half a cache line: bounds and answers between each other.
///
/// Three bounds stand in the second half, the greatest first. A number is below none of them, the greatest,
/// the two greatest, or all: as bits 0, 1, 3 or 7. At these places stand the answers, so to compare the
/// number with all at once gives the place of its answer. The last answer is compared too, behind the bounds,
/// and its bit is ignored.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub(super) struct Node32([u32; 8]);

/// IPv6's nodes: two cache lines.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
pub(super) struct Node128 {
    keys: [u128; 6],
    answers: [Answer; 8],
}

impl Node<u32> for Node32 {
    const KEYS: usize = 3;

    fn new(keys: &[u32], answers: &[Answer]) -> Self {
        // Keys that are missing are not above the greatest number only, for which the last answer,
        // which fills the places behind, is right.
        let mut bounds = [u32::MAX; 3];
        bounds[..keys.len()].copy_from_slice(keys);
        let answer = |at: usize| answers[at.min(answers.len() - 1)].0;
        let [first, second, third] = bounds.map(signed);
        Self([answer(3), answer(2), 0, answer(1), third, second, first, answer(0)])
    }

    #[inline(always)]
    fn find(&self, sought: u32) -> Answer {
        let Self([_, _, _, _, bounds @ ..]) = self;
        Answer(self.0[greater(bounds, signed(sought)) & 7])
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
    fn index(self, shift: u32) -> usize {
        (self >> shift) as usize
    }

    fn with_index(index: usize, shift: u32) -> Option<Self> {
        u64::try_from(index).ok()?.checked_mul(1 << shift)?.try_into().ok()
    }

    #[inline(always)]
    fn beyond(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn plus(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

impl Number for u128 {
    type Node = Node128;
    const ZERO: Self = 0;
    const BITS: u32 = Self::BITS;

    #[inline(always)]
    fn index(self, shift: u32) -> usize {
        usize::try_from(self >> shift).unwrap_or(usize::MAX)
    }

    fn with_index(index: usize, shift: u32) -> Option<Self> {
        (index as Self).checked_mul(1 << shift)
    }

    #[inline(always)]
    fn beyond(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn plus(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

/// A number such that numbers with a sign are in the same order.
#[inline(always)]
fn signed(number: u32) -> u32 {
    number ^ 1 << 31
}
