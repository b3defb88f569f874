//! The card that a virtual function hangs on, watched: when a card is reset, its virtual functions
//! hear nothing more, no event says so, and some drivers go on to say that the link is up.
//!
//! The kernel counts how often the carrier of an interface has changed, so that a card that was down
//! and up again between two looks is noticed too.

use std::path::PathBuf;

use super::function::is_up;
use super::{Host, names, read};

/// Watches the card of one virtual function.
#[derive(Debug)]
pub(crate) struct PfWatch {
    host: Host,
    /// Where the card is, by the virtual function's own link.
    card: PathBuf,
    /// How often its carrier had changed when the virtual function was started.
    started_at: Option<u64>,
}

/// How a card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PfState {
    /// It has been as it is since the virtual function was started, or is not the kernel's to tell.
    Well,
    /// Somebody has set its interface down, which is called so.
    Down(String),
    /// Its interface has no carrier.
    NoCarrier(String),
    /// It was down and is up again, or was reset: the virtual function has to be started anew.
    Returned(String),
}

impl PfWatch {
    /// Watches the card of the device with this address; none if that is no virtual function.
    pub(crate) fn of(host: &Host, address: &str) -> Option<PfWatch> {
        let card = host.device(address).join("physfn");
        card.exists().then(|| {
            let mut watch = PfWatch { host: host.clone(), card, started_at: None };
            watch.started();
            watch
        })
    }

    /// Lets the card be well as it is: the virtual function is being started.
    pub(crate) fn started(&mut self) {
        self.started_at = self.interface().and_then(|name| self.changes(&name));
    }

    /// Looks at the card.
    pub(crate) fn look(&self) -> PfState {
        let Some(name) = self.interface() else { return PfState::Well };
        let interface = self.host.interface(&name);
        if !is_up(&interface) {
            return PfState::Down(name);
        }
        if read::<u32>(&interface.join("carrier")) != Some(1) {
            return PfState::NoCarrier(name);
        }
        if self.changes(&name) == self.started_at { PfState::Well } else { PfState::Returned(name) }
    }

    /// The name of the card's interface, if it is here.
    pub(crate) fn interface(&self) -> Option<String> {
        names(&self.card.join("net")).into_iter().next()
    }

    fn changes(&self, name: &str) -> Option<u64> {
        read(&self.host.interface(name).join("carrier_changes"))
    }
}
