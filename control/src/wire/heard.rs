//! What the card of a virtual function was asked to give it: VLANs, and frames to addresses behind the
//! switch.
//!
//! A card says no by its driver alone, and asking costs a message to it. So what it has refused is not
//! asked for again before something has changed that may change the answer.

use std::collections::BTreeSet;

use crate::model::Mac;

/// What was asked for, by what it was.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The VLANs, if these have to be asked for.
    pub(super) vlans: Option<BTreeSet<u16>>,
    /// The addresses.
    pub(super) macs: Macs,
}

/// Addresses that a virtual function is to receive frames for, besides its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Macs {
    /// Those that it has a filter for.
    pub(crate) present: BTreeSet<Mac>,
    /// Those for which it was refused one.
    pub(crate) refused: BTreeSet<Mac>,
    /// What its driver said when it refused one last.
    pub(crate) why: String,
    /// Whether its card trusted it then.
    trusted: bool,
}

impl Heard {
    /// It was stopped and started: it may have forgotten all.
    pub(super) fn forget(&mut self) {
        self.vlans = self.vlans.as_ref().map(|_| BTreeSet::new());
        self.macs = Macs::default();
    }
}

impl Macs {
    /// Has it receive frames for the addresses that are `wanted`, and no others: `ask` adds one (true) or
    /// removes it. Returns whether any was refused that was not before.
    pub(super) fn keep(
        &mut self,
        wanted: &BTreeSet<Mac>,
        trusted: bool,
        mut ask: impl FnMut(Mac, bool) -> Result<(), String>,
    ) -> bool {
        let leaving: Vec<Mac> = self.present.difference(wanted).copied().collect();
        // A card that trusts it now, or has room again, may give what it refused.
        if self.trusted != trusted || !leaving.is_empty() {
            self.refused.clear();
        }
        self.trusted = trusted;
        for mac in leaving {
            match ask(mac, false) {
                Ok(()) => {}
                Err(why) => tracing::warn!("{why}"),
            }
            self.present.remove(&mac);
        }
        self.refused.retain(|mac| wanted.contains(mac));
        let mut any = false;
        for mac in wanted {
            if self.present.contains(mac) || self.refused.contains(mac) {
                continue;
            }
            match ask(*mac, true) {
                Ok(()) => drop(self.present.insert(*mac)),
                Err(why) => {
                    any = true;
                    self.why = why;
                    self.refused.insert(*mac);
                }
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macs(last: &[u8]) -> BTreeSet<Mac> {
        let mac = |last: &u8| format!("52:54:00:00:00:{last:02x}").parse().expect("a MAC");
        last.iter().map(mac).collect()
    }

    /// A card with room for so many, and what it was asked.
    struct Card {
        room: usize,
        has: BTreeSet<Mac>,
        asked: usize,
    }

    impl Card {
        fn keep(&mut self, macs: &mut Macs, wanted: &[u8], trusted: bool) -> bool {
            self.asked = 0;
            macs.keep(&self::macs(wanted), trusted, |mac, add| {
                self.asked += 1;
                match add {
                    false => assert!(self.has.remove(&mac), "it has {mac}"),
                    true if self.has.len() == self.room => return Err("no room".to_owned()),
                    true => assert!(self.has.insert(mac), "it has no {mac} yet"),
                }
                Ok(())
            })
        }
    }

    #[test]
    fn what_was_refused_is_asked_for_again_when_something_has_changed() {
        let (mut asked, mut card) =
            (Macs::default(), Card { room: 2, has: BTreeSet::new(), asked: 0 });
        assert!(card.keep(&mut asked, &[1, 2, 3], false), "one is refused");
        assert_eq!((&asked.present, &asked.refused), (&macs(&[1, 2]), &macs(&[3])));
        assert_eq!((asked.why.as_str(), card.asked), ("no room", 3));
        assert!(!card.keep(&mut asked, &[1, 2, 3], false));
        assert_eq!(card.asked, 0, "nothing has changed");
        assert!(card.keep(&mut asked, &[1, 2, 3, 4], false), "another one");
        assert_eq!((card.asked, &asked.refused), (1, &macs(&[3, 4])));

        assert!(card.keep(&mut asked, &[2, 3, 4], false), "there is room for one");
        assert_eq!((&asked.present, &asked.refused), (&macs(&[2, 3]), &macs(&[4])));
        card.room = 3;
        assert!(!card.keep(&mut asked, &[2, 3, 4], true), "it is trusted now");
        assert_eq!((&asked.present, &asked.refused), (&macs(&[2, 3, 4]), &macs(&[])));
        assert!(!card.keep(&mut asked, &[], true));
        assert_eq!((card.has.len(), &asked.present), (0, &macs(&[])));
    }
}
