//! The rules asked about a burst of plain packets, one step for all of them before the next.
//!
//! A look-up is a chain of loads of which each needs the one before, some 60 cycles long. A processor
//! that is told one chain after the other has two or three of them under way; here it finds those of
//! all packets side by side. Nothing is skipped for a packet that has no further step or is not asked
//! about: what is computed for it is thrown away, which costs less than a jump that is foretold wrong.

use vhost::BURST_MAX;

use super::ranges::Verdict;
use super::search::Kind;
use super::{Direction, Line, Plain, View};
use crate::packet::Look;

impl Plain<'_> {
    /// Which of the `wanted` packets the rules permit, a bit for each by its index.
    #[inline(never)]
    pub fn permit_each(&self, looks: &[Look; BURST_MAX], wanted: u64) -> u64 {
        let looks = &looks[..BURST_MAX - wanted.leading_zeros() as usize];
        match self.direction {
            Direction::Ingress => self.tables.permit_each(looks, wanted, |look| look.source),
            Direction::Egress => self.tables.permit_each(looks, wanted, |look| look.destination),
        }
    }
}

impl View<'_, u32> {
    #[inline(always)]
    fn permit_each(&self, looks: &[Look], wanted: u64, remote: impl Fn(&Look) -> u32) -> u64 {
        let Self { addresses, lines, maps } = self;
        let (mut places, mut classes, mut numbers) =
            ([0; BURST_MAX], [0; BURST_MAX], [0; BURST_MAX]);
        let (places, numbers) = (&mut places[..looks.len()], &mut numbers[..looks.len()]);

        let mut next = 0;
        for (place, look) in places.iter_mut().zip(looks) {
            *place = addresses.begin(remote(look));
            next |= *place;
        }
        while Kind::Table.is(next) {
            next &= !(Kind::Table as u32);
            for (place, look) in places.iter_mut().zip(looks) {
                *place = addresses.step_by_table(*place, remote(look));
                next |= *place;
            }
        }
        while Kind::Node.is(next) {
            next = 0;
            for (place, look) in places.iter_mut().zip(looks) {
                *place = addresses.step_by_node(*place, remote(look));
                next |= *place;
            }
        }
        let mut goes_on = false;
        let of_looks = places.iter_mut().zip(&mut classes).zip(&mut *numbers).zip(looks);
        for (((place, class), number), look) in of_looks {
            *class = *place;
            let Line(roots) = &lines[*class as usize];
            (*place, *number) = (roots[look.asked.plane as usize].0, look.asked.selector);
            goes_on |= maps.goes_on(*place);
        }
        while goes_on {
            goes_on = false;
            for (place, number) in places.iter_mut().zip(&mut *numbers) {
                (*place, *number) = maps.step(*place, *number);
                goes_on |= maps.goes_on(*place);
            }
        }
        let mut permitted = 0;
        for (index, (place, number)) in places.iter_mut().zip(&*numbers).enumerate() {
            let verdict = maps.end(*place, *number);
            *place = verdict.number();
            permitted |= u64::from(verdict.permits()) << index;
        }
        permitted &= wanted;
        let mut rest = wanted & !permitted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let (line, verdict) = (&lines[classes[index] as usize], Verdict::of(places[index]));
            let verdict = self.judge_answer(line, verdict, &looks[index].asked);
            permitted |= u64::from(verdict.permits()) << index;
        }
        permitted
    }
}
