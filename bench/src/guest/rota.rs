//! Which of a ring's buffers are with the switch, in the order in which it got them.
//!
//! A ring has as many buffers as descriptors (fewer where a buffer takes several), so the buffers that
//! the switch has and those that the driver has are two arcs of one circle. A switch gives buffers back in the order in which it got
//! them as a rule; then taking one back is one comparison, the circle never changes, and neither do
//! the available ring's entries, whose cache lines stay where they are. A buffer that comes out of
//! turn is looked for among those that the switch has, and changes places with the one whose turn it
//! was; one that is not among them is a violation of the ring's rules.

/// The circle of a ring's buffers.
#[derive(Debug)]
pub struct Rota {
    circle: Box<[u16]>,
    mask: usize,
    /// Buffers lent so far, modulo 2^16.
    lent: u16,
    /// Buffers that have come back so far, modulo 2^16.
    returned: u16,
}

/// A buffer that has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The one whose turn it was.
    InTurn(u16),
    /// Another one, after which the circle's places with these numbers hold other buffers.
    OutOfTurn(u16, [u16; 2]),
    /// Not a buffer that the switch has.
    Unknown,
}

impl Rota {
    /// `count` buffers (a power of two), called 0, `step`, twice that and so on, in this order, all
    /// of them the driver's.
    pub fn new(count: u16, step: u16) -> Self {
        let circle: Box<[u16]> = (0..count).map(|index| index * step).collect();
        Self { mask: circle.len() - 1, circle, lent: 0, returned: 0 }
    }

    /// How many buffers there are.
    pub fn len(&self) -> usize {
        self.circle.len()
    }

    /// How many buffers the switch has.
    #[inline(always)]
    pub fn outstanding(&self) -> usize {
        usize::from(self.lent.wrapping_sub(self.returned))
    }

    /// How many buffers the driver has.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.circle.len() - self.outstanding()
    }

    /// How many buffers were ever lent, modulo 2^16: what the available ring's index says.
    #[inline(always)]
    pub fn lent(&self) -> u16 {
        self.lent
    }

    /// The buffer to lend after `ahead` others.
    #[inline(always)]
    pub fn next(&self, ahead: usize) -> u16 {
        self.circle[(usize::from(self.lent) + ahead) & self.mask]
    }

    /// The buffer at a place of the circle, which is also its entry in the available ring.
    pub fn at(&self, place: u16) -> u16 {
        self.circle[usize::from(place) & self.mask]
    }

    /// Lends the next `count` buffers, of which there must be as many.
    #[inline(always)]
    pub fn lend(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.lent = self.lent.wrapping_add(count as u16);
    }

    /// Takes back what the switch calls `id`.
    #[inline(always)]
    pub fn take_back(&mut self, id: u32) -> Return {
        let turn = self.circle[usize::from(self.returned) & self.mask];
        if u32::from(turn) == id && self.returned != self.lent {
            self.returned = self.returned.wrapping_add(1);
            return Return::InTurn(turn);
        }
        self.take_back_out_of_turn(id)
    }

    #[cold]
    #[inline(never)]
    fn take_back_out_of_turn(&mut self, id: u32) -> Return {
        let first = self.returned;
        for ahead in 0..self.outstanding() as u16 {
            let place = first.wrapping_add(ahead);
            let slot = self.at(place);
            if u32::from(slot) == id {
                let places = [first, place];
                self.circle.swap(usize::from(first) & self.mask, usize::from(place) & self.mask);
                self.returned = first.wrapping_add(1);
                return Return::OutOfTurn(slot, places);
            }
        }
        Return::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_in_turn_leave_the_circle_as_it_was() {
        let mut rota = Rota::new(4, 1);
        for _ in 0..50_000 {
            assert_eq!((rota.room(), rota.next(0)), (4, rota.lent() & 3));
            rota.lend(3);
            for _ in 0..3 {
                let turn = rota.at(rota.returned);
                assert_eq!(rota.take_back(u32::from(turn)), Return::InTurn(turn));
            }
        }
        assert_eq!((0..4).map(|place| rota.at(place)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn buffers_out_of_turn_change_places_and_none_is_lost() {
        let mut rota = Rota::new(4, 1);
        rota.lend(4);
        assert_eq!(rota.take_back(2), Return::OutOfTurn(2, [0, 2]));
        assert_eq!(rota.take_back(3), Return::OutOfTurn(3, [1, 3]));
        assert_eq!(rota.next(0), 2);
        rota.lend(1);
        assert_eq!(rota.take_back(0), Return::InTurn(0));
        assert_eq!(rota.take_back(1), Return::InTurn(1));
        assert_eq!(rota.take_back(2), Return::InTurn(2));
        let mut all: Vec<_> = (0..4).map(|place| rota.at(place)).collect();
        all.sort();
        assert_eq!((all, rota.outstanding()), (vec![0, 1, 2, 3], 0));
    }

    #[test]
    fn buffers_of_several_descriptors_are_known_by_their_first() {
        let mut rota = Rota::new(2, 17);
        rota.lend(2);
        assert_eq!(rota.take_back(1), Return::Unknown);
        assert_eq!(rota.take_back(17), Return::OutOfTurn(17, [0, 1]));
        assert_eq!(rota.take_back(0), Return::InTurn(0));
        assert_eq!((rota.next(0), rota.next(1), rota.room()), (17, 0, 2));
    }

    #[test]
    fn what_the_switch_does_not_have_is_unknown() {
        let mut rota = Rota::new(4, 1);
        assert_eq!(rota.take_back(0), Return::Unknown);
        rota.lend(2);
        assert_eq!(rota.take_back(2), Return::Unknown);
        assert_eq!(rota.take_back(4), Return::Unknown);
        assert_eq!(rota.take_back(u32::MAX), Return::Unknown);
        assert_eq!(rota.take_back(0), Return::InTurn(0));
        assert_eq!(rota.take_back(0), Return::Unknown);
        assert_eq!(rota.outstanding(), 1);
    }
}
