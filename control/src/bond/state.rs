//! Which members of a bond can carry frames, and which do: a state machine of links and time.
//!
//! It is told what the links are at a moment, and says what comes of it. It knows neither devices nor
//! clocks, so that each course of events can be tested.

use std::time::{Duration, Instant};

use dataplane::port::bond::{Carriers, MEMBERS_MAX};

use crate::config::BondMode;

/// What a bond is to do, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) mode: BondMode,
    /// The member that carries whenever it can.
    pub(crate) primary: Option<usize>,
    /// How long a link has to be up before its member carries anything, unless no other does.
    pub(crate) up_delay: Duration,
}

/// A member at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Its device is not open.
    Absent,
    /// Frames cannot pass.
    Down,
    /// Frames can pass.
    Up,
}

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(crate) struct BondState {
    rules: Rules,
    members: Vec<Member>,
    carriers: Carriers,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Its link, once it was looked at.
    pub(crate) link: Option<Link>,
    /// When that changed last.
    pub(crate) since: Instant,
    /// Its link has been up for long enough.
    pub(crate) usable: bool,
}

impl BondState {
    /// A bond of which nothing is known.
    pub(crate) fn new(rules: Rules, members: usize, now: Instant) -> BondState {
        let member = Member { link: None, since: now, usable: false };
        let members = vec![member; members.min(MEMBERS_MAX)];
        BondState { rules, members, carriers: Carriers::Nobody }
    }

    /// Lets other rules hold, from the next look on.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Its members.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Who carries frames.
    pub(crate) fn carriers(&self) -> Carriers {
        self.carriers
    }

    /// Takes note of the links at `now`, in the order of the members. Returns who is to carry.
    /// With LACP that is who would carry without it, and [`agree`](Self::agree) says who does.
    pub(crate) fn look(&mut self, now: Instant, links: &[Link]) -> Carriers {
        for (member, &link) in self.members.iter_mut().zip(links) {
            if member.link != Some(link) {
                (member.link, member.since) = (Some(link), now);
            }
            member.usable &= link == Link::Up;
        }
        let waited = |member: &Member| now.duration_since(member.since) >= self.rules.up_delay;
        // To wait is to keep what carries; where nothing does there is nothing to wait for.
        let alone = !self.members.iter().any(|member| member.usable);
        let usable: Vec<bool> = self
            .members
            .iter()
            .map(|it| it.usable || it.link == Some(Link::Up) && (alone || waited(it)))
            .collect();
        for (member, usable) in self.members.iter_mut().zip(usable) {
            member.usable = usable;
        }
        self.carriers = match self.rules.mode {
            BondMode::ActiveBackup | BondMode::Lacp => {
                self.elect().map_or(Carriers::Nobody, Carriers::One)
            }
            BondMode::Balance => {
                let bits = self.members.iter().enumerate().filter(|(_, member)| member.usable);
                match bits.fold(0, |mask, (at, _)| mask | 1 << at) {
                    0 => Carriers::Nobody,
                    mask => Carriers::Shared(mask),
                }
            }
        };
        self.carriers
    }

    /// Says who carries, as it was agreed to.
    pub(crate) fn agree(&mut self, carriers: Carriers) {
        self.carriers = carriers;
    }

    /// The member that carries everything: the primary if it can, else the one that did.
    fn elect(&self) -> Option<usize> {
        let usable = |at: &usize| self.members.get(*at).is_some_and(|member| member.usable);
        let present = match self.carriers {
            Carriers::One(member) => Some(member),
            Carriers::Nobody | Carriers::Shared(_) | Carriers::Agreed { .. } => None,
        };
        let primary = self.rules.primary.filter(usable);
        primary.or(present.filter(usable)).or_else(|| (0..self.members.len()).find(usable))
    }
}

#[cfg(test)]
mod tests {
    use super::Link::{Absent, Down, Up};
    use super::*;

    const DELAY: Duration = Duration::from_millis(500);

    /// What becomes of a bond: at each millisecond the links, and who carries then.
    #[track_caller]
    fn play(mode: BondMode, primary: Option<usize>, course: &[(u64, &[Link], Carriers)]) {
        let begin = Instant::now();
        let rules = Rules { mode, primary, up_delay: DELAY };
        let mut state = BondState::new(rules, course[0].1.len(), begin);
        for (at, links, expected) in course {
            let now = begin + Duration::from_millis(*at);
            assert_eq!(state.look(now, links), *expected, "at {at} ms with {links:?}");
        }
    }

    use BondMode::{ActiveBackup, Balance};
    use Carriers::{Nobody, One, Shared};

    #[test]
    fn a_lost_link_is_left_at_once_and_not_returned_to() {
        play(
            ActiveBackup,
            None,
            &[
                (0, &[Down, Down], Nobody),
                (10, &[Up, Up], One(0)),
                (20, &[Down, Up], One(1)),
                (30, &[Up, Up], One(1)),
                (9_000, &[Up, Up], One(1)),
                (9_010, &[Up, Down], One(0)),
            ],
        );
    }

    #[test]
    fn a_primary_carries_again_once_its_link_has_been_up_for_long_enough() {
        play(
            ActiveBackup,
            Some(1),
            &[
                (0, &[Up, Up], One(1)),
                (10, &[Up, Down], One(0)),
                (20, &[Up, Up], One(0)),
                (519, &[Up, Up], One(0)),
                (520, &[Up, Up], One(1)),
            ],
        );
        // A link that comes and goes is not one that is up.
        play(
            ActiveBackup,
            Some(1),
            &[
                (0, &[Up, Down], One(0)),
                (100, &[Up, Up], One(0)),
                (400, &[Up, Down], One(0)),
                (500, &[Up, Up], One(0)),
                (999, &[Up, Up], One(0)),
                (1_000, &[Up, Up], One(1)),
            ],
        );
    }

    #[test]
    fn nothing_is_waited_for_where_nothing_carries() {
        play(
            ActiveBackup,
            Some(0),
            &[
                (0, &[Up, Up], One(0)),
                (10, &[Down, Down], Nobody),
                (20, &[Down, Up], One(1)),
                (30, &[Up, Down], One(0)),
            ],
        );
        play(
            Balance,
            None,
            &[
                (0, &[Up, Up, Down], Shared(0b011)),
                (10, &[Down, Down, Down], Nobody),
                (20, &[Down, Down, Up], Shared(0b100)),
            ],
        );
    }

    #[test]
    fn a_share_is_given_to_who_has_been_up_for_long_enough() {
        play(
            Balance,
            None,
            &[
                (0, &[Up, Absent], Shared(0b01)),
                (10, &[Up, Up], Shared(0b01)),
                (510, &[Up, Up], Shared(0b11)),
                (520, &[Absent, Up], Shared(0b10)),
            ],
        );
    }

    #[test]
    fn rules_change_while_it_runs() {
        let now = Instant::now();
        let rules = Rules { mode: ActiveBackup, primary: None, up_delay: DELAY };
        let mut state = BondState::new(rules, 2, now);
        assert_eq!(state.look(now, &[Up, Up]), One(0));
        state.set_rules(Rules { mode: Balance, ..rules });
        assert_eq!(state.look(now, &[Up, Up]), Shared(0b11));
        state.set_rules(Rules { primary: Some(1), ..rules });
        assert_eq!(state.look(now, &[Up, Up]), One(1));
        assert!(state.members().iter().all(|member| member.usable));
    }
}
