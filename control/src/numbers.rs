//! The small numbers that workers know ports and domains by.
//!
//! A number that was given back is given out again as late as possible: an FDB entry or a frame in
//! flight that still means its former owner has long gone by then.

use std::collections::VecDeque;

/// Gives out the numbers below a bound.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: usize,
    bound: usize,
    returned: VecDeque<usize>,
}

impl Numbers {
    /// All numbers below `bound` are free.
    pub(crate) fn below(bound: usize) -> Self {
        Self { next: 0, bound, returned: VecDeque::new() }
    }

    /// A number that nobody has, if there is one.
    pub(crate) fn take(&mut self) -> Option<usize> {
        if self.next < self.bound {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.returned.pop_front()
    }

    /// Takes a number back.
    pub(crate) fn give_back(&mut self, number: usize) {
        debug_assert!(number < self.next && !self.returned.contains(&number), "was given out once");
        self.returned.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_as_late_as_possible() {
        let mut numbers = Numbers::below(3);
        assert_eq!(numbers.take(), Some(0));
        numbers.give_back(0);
        assert_eq!((numbers.take(), numbers.take()), (Some(1), Some(2)));
        assert_eq!(numbers.take(), Some(0));
        assert_eq!(numbers.take(), None);
        numbers.give_back(2);
        numbers.give_back(1);
        assert_eq!((numbers.take(), numbers.take()), (Some(2), Some(1)));
    }
}
