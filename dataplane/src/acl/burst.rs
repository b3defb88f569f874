//! The rules asked about a burst of plain packets.
//!
//! A look-up is a chain of loads of which each needs the one before. In a short loop without jumps but
//! the loop's own, the processor has those of many packets under way. What is computed for a packet that
//! is not asked about is thrown away, which costs less than a jump that is foretold wrong.
#![allow(unsafe_code)]

use vhost::BURST_MAX;

use super::{Direction, Plain};
use crate::acl::permits::ClassPermits;
use crate::acl::search::SearchView;
use crate::packet::{Look, Plane, TCP_ESTABLISHED};

/// Packets next to each other: so a loop's own instructions are for two.
type Pair = [Look; 2];

impl Plain<'_> {
    /// Which of the `wanted` packets the rules permit, a bit for each by its index. If all of these have
    /// the same remote address, `remote` may say so: it is looked up once then.
    pub fn permit_each(&self, looks: &[Look; BURST_MAX], wanted: u64, remote: Option<u32>) -> u64 {
        let newer = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        if newer {
            // SAFETY: the processor has the instructions that it is compiled to.
            unsafe { self.permit_each_newer(looks, wanted, remote) }
        } else {
            self.permit_each_any(looks, wanted, remote)
        }
    }

    /// For processors that shift by any register and into another, of which look-ups consist.
    #[inline(never)]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn permit_each_newer(
        &self,
        looks: &[Look; BURST_MAX],
        wanted: u64,
        remote: Option<u32>,
    ) -> u64 {
        self.permit_each_any(looks, wanted, remote)
    }

    /// For any processor.
    #[inline(always)]
    pub(super) fn permit_each_any(
        &self,
        looks: &[Look; BURST_MAX],
        wanted: u64,
        remote: Option<u32>,
    ) -> u64 {
        let count = BURST_MAX - wanted.leading_zeros() as usize;
        let (pairs, _) = looks[..count.next_multiple_of(2)].as_chunks();
        match (remote, self.direction) {
            (Some(remote), _) => self.permit_one(pairs, wanted, remote),
            (None, Direction::Ingress) => self.permit_many(pairs, wanted, |look| look.source),
            (None, Direction::Egress) => self.permit_many(pairs, wanted, |look| look.destination),
        }
    }

    /// Those with one remote address.
    #[inline(always)]
    fn permit_one(&self, looks: &[Pair], wanted: u64, remote: u32) -> u64 {
        let class = self.tables.addresses.find(remote);
        // SAFETY: a search ended with it.
        let permits = unsafe { self.class(class) };
        let mut permitted = 0;
        for pair in looks.iter().rev() {
            for Look { asked, .. } in pair.iter().rev() {
                permitted = permits.permit(permitted, asked.plane, asked.selector);
            }
        }
        self.with_answers(looks, wanted, permitted, |_| permits)
    }

    /// Those with many.
    #[inline(always)]
    fn permit_many(&self, looks: &[Pair], wanted: u64, remote: impl Fn(&Look) -> u32) -> u64 {
        let addresses = &self.tables.addresses;
        let mut classes = [[0; 2]; BURST_MAX / 2];
        let classes = &mut classes[..looks.len()];
        let mut answers = 0;
        for (classes, pair) in classes.iter_mut().zip(looks) {
            for (class, look) in classes.iter_mut().zip(pair) {
                *class = addresses.begin(remote(look));
                answers |= *class;
            }
        }
        if SearchView::<u32>::goes_on(answers) {
            for (class, look) in classes.as_flattened_mut().iter_mut().zip(looks.as_flattened()) {
                *class = addresses.finish(*class, remote(look));
            }
        }
        let mut permitted = 0;
        for (classes, pair) in classes.iter().zip(looks).rev() {
            for (class, Look { asked, .. }) in classes.iter().zip(pair).rev() {
                // SAFETY: a search ended with it.
                let permits = unsafe { self.class(*class) };
                permitted = permits.permit(permitted, asked.plane, asked.selector);
            }
        }
        let classes = classes.as_flattened();
        // SAFETY: as above.
        let permits = |index: usize| unsafe { self.class(classes[index]) };
        self.with_answers(looks, wanted, permitted, permits)
    }

    /// What is permitted with a class.
    ///
    /// # Safety
    /// It must be what a search in these tables for an address ended with.
    #[inline(always)]
    unsafe fn class(&self, class: u32) -> ClassPermits<'_> {
        // SAFETY: searches end with classes that there are, which `Addresses::new` marks as inhabited, and
        // permits are made of a line for each class, which the compiler has seen.
        unsafe { self.permits.class(class) }
    }

    /// Of the wanted packets those that are `permitted`, and those that are as they answer.
    #[inline(always)]
    fn with_answers<'a>(
        &self,
        looks: &[Pair],
        wanted: u64,
        permitted: u64,
        permits: impl Fn(usize) -> ClassPermits<'a>,
    ) -> u64 {
        let mut permitted = wanted & permitted;
        let mut rest = wanted & !permitted;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let answers = self.permit_answer(permits(index), &looks.as_flattened()[index]);
            permitted |= u64::from(answers) << index;
        }
        permitted
    }

    /// Whether what is not permitted as such is so as it answers.
    #[inline(always)]
    fn permit_answer(&self, permits: ClassPermits<'_>, look: &Look) -> bool {
        let asked = &look.asked;
        // All but the first segment of a dialogue have one of these flags; others have none to see.
        let first = asked.plane == Plane::Tcp && asked.flags & TCP_ESTABLISHED == 0;
        !first
            && permits.permit_answer(asked.plane, asked.source_port)
            && (!self.denies || self.judge(look).permits())
    }
}
