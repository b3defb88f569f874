//! What a bond that speaks LACP tells of itself: states in words, and why a member does not carry.

use std::fmt;
use std::time::{Duration, Instant};

use super::pdu::{Information, State, System};
use super::port::{Mux, Receive};
use super::{Group, Lacp};

/// Our end as a whole.
#[derive(Clone, Debug)]
pub(crate) struct LacpStatus {
    /// Our system, once a device was open.
    pub(crate) system: Option<System>,
    pub(crate) system_priority: u16,
    pub(crate) fast: bool,
    /// Nobody speaks LACP, and one member carries.
    pub(crate) fallback: bool,
    pub(crate) ports: Vec<PortStatus>,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct PortStatus {
    /// What we say of it.
    pub(crate) actor: Information,
    /// What the partner has said of its own, if one has.
    pub(crate) partner: Option<Information>,
    /// How long ago it spoke.
    pub(crate) heard: Option<Duration>,
    pub(crate) mux: Mux,
    /// Why it carries nothing though its link is up.
    pub(crate) why: Option<Why>,
}

/// Why a member carries nothing though its link is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// No device of the bond has an address of its own.
    Nameless,
    /// It was not listened for long enough.
    Unheard,
    Mute,
    Silent,
    Loop,
    /// The partner, and that of the others.
    OtherSystem(System, System),
    /// The partner's key, and that of the others.
    OtherKey(u16, u16),
    Alone,
    Fresh,
    Standby,
    Deaf,
}

impl Why {
    /// Whether it passes by itself within moments.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Why::Unheard | Why::Fresh | Why::Deaf)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Nameless => {
                f.write_str("no device of the bond has an address of its own to speak LACP by")
            }
            Why::Unheard => f.write_str("its partner has not spoken LACP yet"),
            Why::Mute => f.write_str(
                "its partner does not speak LACP: set the switch's ports to LACP, active or passive",
            ),
            Why::Silent => f.write_str("its partner has spoken LACP and fallen silent"),
            Why::Loop => f.write_str("it is linked to a member of the same bond: a loop"),
            Why::OtherSystem(its, others) => write!(
                f,
                "its partner is another system ({}) than that of the others ({}): cable them to one \
                 switch, or to switches that are one to LACP",
                mac(its.mac),
                mac(others.mac)
            ),
            Why::OtherKey(its, others) => write!(
                f,
                "its partner has it in another aggregation (key {its}) than the others (key {others}): \
                 put the switch's ports into one"
            ),
            Why::Alone => {
                f.write_str("its partner does not aggregate it with others: put the switch's ports into one")
            }
            Why::Fresh => f.write_str("its link was not up for long enough"),
            Why::Standby => f.write_str("its partner keeps it on standby"),
            Why::Deaf => f.write_str("its partner does not take frames by it yet"),
        }
    }
}

impl Lacp {
    /// See [`LacpStatus`].
    pub(crate) fn status(&self, now: Instant) -> LacpStatus {
        let ours = self.ours();
        let port = |at: usize| {
            let port = &self.ports[at];
            PortStatus {
                actor: ours.map(|ours| port.actor(&ours)).unwrap_or_default(),
                partner: (!port.defaulted).then_some(port.partner),
                heard: port.heard.map(|heard| now.duration_since(heard)),
                mux: port.mux,
                why: if ours.is_some() { self.why(at) } else { Some(Why::Nameless) },
            }
        };
        LacpStatus {
            system: ours.map(|ours| ours.system),
            system_priority: self.rules.system_priority,
            fast: self.rules.fast,
            fallback: self.falls_back(),
            ports: (0..self.ports.len()).map(port).collect(),
        }
    }

    /// Why a member whose link is up carries nothing.
    pub(crate) fn why(&self, member: usize) -> Option<Why> {
        let port = self.ports.get(member)?;
        match port.receive {
            Receive::Disabled => return None,
            Receive::Expired if port.defaulted => return Some(Why::Unheard),
            Receive::Defaulted if port.heard.is_none() => return Some(Why::Mute),
            Receive::Expired | Receive::Defaulted => return Some(Why::Silent),
            Receive::Current => {}
        }
        let partner = &port.partner;
        if Some(partner.system.mac) == self.mac {
            return Some(Why::Loop);
        }
        match port.mux {
            Mux::Detached => match self.group {
                Some(Group { system, .. }) if system != partner.system => {
                    Some(Why::OtherSystem(partner.system, system))
                }
                Some(Group { key, .. }) if key != partner.key => {
                    Some(Why::OtherKey(partner.key, key))
                }
                _ if !partner.state.has(State::AGGREGATION) => Some(Why::Alone),
                // The others are by themselves, and this one could be with more.
                _ => Some(Why::Standby),
            },
            Mux::Waiting => Some(Why::Fresh),
            Mux::Attached => Some(Why::Standby),
            Mux::Collecting => Some(Why::Deaf),
            Mux::Distributing => None,
        }
    }
}

/// An address as it is written.
pub(crate) fn mac(mac: [u8; 6]) -> String {
    dataplane::headers::Mac::new(mac).to_string()
}
