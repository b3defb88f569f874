//! The rules asked about a burst of plain packets: first for the classes of all addresses, then for all
//! ports.
//!
//! A look-up is a chain of loads of which each needs the one before. In short loops without jumps but
//! the loop's own, the processor has those of many packets under way. What is computed for a packet that
//! is not asked about is thrown away, which costs less than a jump that is foretold wrong.

use vhost::BURST_MAX;

use super::{Direction, Plain};
use crate::acl::search::SearchView;
use crate::packet::{Look, Plane, TCP_ESTABLISHED};

impl Plain<'_> {
    /// Which of the `wanted` packets the rules permit, a bit for each by its index.
    #[inline(never)]
    pub fn permit_each(&self, looks: &[Look; BURST_MAX], wanted: u64) -> u64 {
        let looks = &looks[..BURST_MAX - wanted.leading_zeros() as usize];
        match self.direction {
            Direction::Ingress => self.permit_with(looks, wanted, |look| look.source),
            Direction::Egress => self.permit_with(looks, wanted, |look| look.destination),
        }
    }

    #[inline(always)]
    fn permit_with(&self, looks: &[Look], wanted: u64, remote: impl Fn(&Look) -> u32) -> u64 {
        let (addresses, permits) = (&self.tables.addresses, &self.permits);
        let mut classes = [0; BURST_MAX];
        let classes = &mut classes[..looks.len()];
        let mut answers = 0;
        for (class, look) in classes.iter_mut().zip(looks) {
            *class = addresses.begin(remote(look));
            answers |= *class;
        }
        if SearchView::<u32>::goes_on(answers) {
            for (class, look) in classes.iter_mut().zip(looks) {
                *class = addresses.finish(*class, remote(look));
            }
        }
        let mut permitted = 0;
        for (class, look) in classes.iter().zip(looks).rev() {
            let permit = permits.permit(*class, look.asked.plane, look.asked.selector);
            permitted = permitted << 1 | u64::from(permit);
        }
        permitted &= wanted;
        let mut rest = wanted & !permitted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            permitted |= u64::from(self.permit_answer(classes[index], &looks[index])) << index;
        }
        permitted
    }

    /// Whether what is not permitted as such is so as it answers.
    #[inline(always)]
    fn permit_answer(&self, class: u32, look: &Look) -> bool {
        let asked = &look.asked;
        // All but the first segment of a dialogue have one of these flags; others have none to see.
        let first = asked.plane == Plane::Tcp && asked.flags & TCP_ESTABLISHED == 0;
        !first
            && self.permits.permit_answer(class, asked.plane, asked.source_port)
            && (!self.denies || self.judge(look).permits())
    }
}
