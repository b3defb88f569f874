//! One member as an aggregation port: the receive, periodic, mux and transmit machines
//! (802.1AX-2020 §6.4.12 to §6.4.16), with independent control of collecting and distributing.
//!
//! It is told the time and never asks for it. What a machine of the standard does at once when
//! something changes is done by [`LacpPort::turn`], which goes on until nothing changes any more.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pdu::{Information, Lacpdu, State, System};

/// The time between two LACPDUs to a partner that wants them fast, or slow (§6.4.4).
pub(crate) const FAST_PERIOD: Duration = Duration::from_secs(1);
pub(crate) const SLOW_PERIOD: Duration = Duration::from_secs(30);

/// For so many periods nothing is heard of a partner before it counts as silent.
const PERIODS: u32 = 3;

/// LACPDUs in a [`FAST_PERIOD`] at most (§6.4.16).
const BURST: usize = 3;

/// Which of the bits of a state an end must have right of the other for an LACPDU not to be answered
/// (§6.4.9, update_NTT).
const SEEN: State =
    State(State::ACTIVITY.0 | State::TIMEOUT.0 | State::SYNCHRONIZATION.0 | State::AGGREGATION.0);

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(crate) struct LacpPort {
    number: u16,
    pub(super) receive: Receive,
    /// What is known of the partner. `SYNCHRONIZATION` is set where the partner is in sync with *us*.
    pub(super) partner: Information,
    /// Nothing is known but what is assumed.
    pub(super) defaulted: bool,
    /// When an LACPDU came last.
    pub(super) heard: Option<Instant>,
    pub(super) mux: Mux,
    /// It is in the bond's aggregation.
    pub(super) selected: bool,
    /// When it is to be looked at whether the partner has become silent.
    deadline: Instant,
    /// When the next LACPDU is to be sent, whatever happens.
    periodic: Option<Instant>,
    /// Something has changed that the partner is to be told (NTT).
    owes: bool,
    /// When the last LACPDUs were sent, the oldest first.
    sent: [Option<Instant>; BURST],
    /// How it stood in the process before this one, until its link is seen here.
    former: Option<Former>,
}

/// How a port stood in another process.
#[derive(Clone, Copy, Debug)]
struct Former {
    partner: Information,
    mux: Mux,
    heard: Instant,
    deadline: Instant,
}

/// The states of the receive machine (§6.4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// The link is down.
    Disabled,
    /// The link has come up, or the partner has become silent: it may still be there.
    Expired,
    /// There is no partner that speaks.
    Defaulted,
    /// The partner speaks.
    Current,
}

/// The states of the mux machine (§6.4.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mux {
    Detached,
    /// It is to be attached as soon as its link is trusted.
    Waiting,
    Attached,
    /// What comes by it is taken.
    Collecting,
    /// It carries frames both ways.
    Distributing,
}

impl Mux {
    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Mux::Detached => "detached",
            Mux::Waiting => "waiting",
            Mux::Attached => "attached",
            Mux::Collecting => "collecting",
            Mux::Distributing => "distributing",
        }
    }
}

/// What our end says of all ports of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) system: System,
    pub(crate) key: u16,
    pub(crate) fast: bool,
}

/// The priority of our ports, as the standard has it (§6.3.4).
const PORT_PRIORITY: u16 = 0x8000;

impl LacpPort {
    /// A port whose link is down, by its number from 1 on.
    pub(super) fn new(number: u16, now: Instant) -> LacpPort {
        LacpPort {
            number,
            receive: Receive::Disabled,
            partner: ASSUMED,
            defaulted: true,
            heard: None,
            mux: Mux::Detached,
            selected: false,
            deadline: now,
            periodic: None,
            owes: false,
            sent: [None; BURST],
            former: None,
        }
    }

    /// What we say of it.
    pub(super) fn actor(&self, ours: &Ours) -> Information {
        let state = State::default()
            .with(State::ACTIVITY, true)
            .with(State::TIMEOUT, ours.fast)
            .with(State::AGGREGATION, true)
            .with(State::SYNCHRONIZATION, self.mux >= Mux::Attached)
            .with(State::COLLECTING, self.mux >= Mux::Collecting)
            .with(State::DISTRIBUTING, self.mux >= Mux::Distributing)
            .with(State::DEFAULTED, self.defaulted)
            .with(State::EXPIRED, self.receive == Receive::Expired);
        let Ours { system, key, .. } = *ours;
        Information { system, key, port_priority: PORT_PRIORITY, port: self.number, state }
    }

    /// Whether its link is up.
    pub(super) fn is_enabled(&self) -> bool {
        self.receive != Receive::Disabled
    }

    /// Takes note of its link, and of what time has brought.
    pub(super) fn tick(&mut self, now: Instant, enabled: bool) {
        if !enabled {
            // The partner is still known, if it is the same when the link is back.
            self.receive = Receive::Disabled;
            self.lose_sync();
            self.periodic = None;
            self.owes = false;
            return;
        }
        if !self.is_enabled() {
            match self.former.take().filter(|former| now < former.deadline) {
                Some(former) => self.go_on(&former),
                None => self.expire(now),
            }
            self.owes = true;
        }
        if now >= self.deadline {
            match self.receive {
                Receive::Current => self.expire(now),
                Receive::Expired => {
                    self.receive = Receive::Defaulted;
                    self.set_partner(ASSUMED);
                    self.defaulted = true;
                }
                Receive::Defaulted | Receive::Disabled => {}
            }
        }
        self.beat(now);
    }

    /// Asks for an LACPDU whenever the partner wants one again. What has to wait for less long than it
    /// did is sent at once (§6.4.13).
    fn beat(&mut self, now: Instant) {
        let fast = self.partner.state.has(State::TIMEOUT);
        let period = if fast { FAST_PERIOD } else { SLOW_PERIOD };
        match self.periodic {
            Some(next) if now < next && next - now <= period => {}
            Some(_) => {
                self.owes = true;
                self.periodic = Some(now + period);
            }
            None => self.periodic = Some(now + period),
        }
    }

    /// Takes an LACPDU that came by its link.
    pub(super) fn hear(&mut self, pdu: &Lacpdu, ours: &Ours, now: Instant) {
        if !self.is_enabled() {
            return;
        }
        let actor = self.actor(ours);
        let told = &pdu.partner;
        let knows_us = is_same(told, &actor);
        let aggregatable =
            told.state.only(State::AGGREGATION) == actor.state.only(State::AGGREGATION);
        // What the partner does not know of us it is told (update_NTT).
        self.owes |= !knows_us || told.state.only(SEEN) != actor.state.only(SEEN);
        // It is in sync with us, or it can be in sync with nobody (recordPDU). That it keeps the link
        // alive is sure, since we send unasked.
        let theirs = pdu.actor.state;
        let synchronous = theirs.has(State::SYNCHRONIZATION)
            && (knows_us && aggregatable || !theirs.has(State::AGGREGATION));
        self.set_partner(Information {
            state: theirs.with(State::SYNCHRONIZATION, synchronous),
            ..pdu.actor
        });
        self.defaulted = false;
        self.receive = Receive::Current;
        self.heard = Some(now);
        self.deadline = now + silence(ours.fast);
    }

    /// Runs the mux machine until nothing changes. `ready` says that its link has been up for long
    /// enough to carry frames.
    pub(super) fn turn(&mut self, ready: bool) {
        loop {
            let synchronous = self.selected && self.partner.state.has(State::SYNCHRONIZATION);
            let collects = synchronous && self.partner.state.has(State::COLLECTING);
            let next = match self.mux {
                Mux::Detached if self.selected => Mux::Waiting,
                Mux::Waiting if !self.selected => Mux::Detached,
                Mux::Waiting if ready => Mux::Attached,
                Mux::Attached if !self.selected => Mux::Detached,
                Mux::Attached if synchronous => Mux::Collecting,
                Mux::Collecting if !synchronous => Mux::Attached,
                Mux::Collecting if collects => Mux::Distributing,
                Mux::Distributing if !collects => Mux::Collecting,
                settled => settled,
            };
            if next == self.mux {
                return;
            }
            // Between detached and waiting, what the partner is told is the same.
            self.owes |= self.mux.max(next) >= Mux::Attached && self.is_enabled();
            self.mux = next;
        }
    }

    /// Takes it out of the aggregation, so that it comes in anew if it is to.
    pub(super) fn detach(&mut self) {
        self.selected = false;
        self.turn(false);
    }

    /// Has the partner told, since what we say of us has changed.
    pub(super) fn owe(&mut self) {
        self.owes = self.is_enabled();
    }

    /// What is to be sent now, if anything is. [`sent`](Self::sent) says that it was.
    pub(super) fn due(&self, ours: &Ours, now: Instant) -> Option<Lacpdu> {
        let [oldest, ..] = self.sent;
        let may = oldest.is_none_or(|oldest| now.duration_since(oldest) >= FAST_PERIOD);
        (self.owes && may).then(|| Lacpdu { actor: self.actor(ours), partner: self.partner })
    }

    /// What was due was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.owes = false;
        self.sent.rotate_left(1);
        self.sent[BURST - 1] = Some(now);
    }

    /// The partner is to speak within the shortest time, or it is gone.
    fn expire(&mut self, now: Instant) {
        self.receive = Receive::Expired;
        self.lose_sync();
        self.partner.state = self.partner.state.with(State::TIMEOUT, true);
        self.deadline = now + silence(true);
    }

    fn lose_sync(&mut self) {
        self.partner.state = self.partner.state.with(State::SYNCHRONIZATION, false);
    }

    /// Another partner than before is another aggregation (update_Selected).
    fn set_partner(&mut self, partner: Information) {
        let can = |of: &Information| of.state.only(State::AGGREGATION);
        if !is_same(&partner, &self.partner) || can(&partner) != can(&self.partner) {
            self.detach();
        }
        self.partner = partner;
    }

    /// What the next process has to know to go on as if it were this one.
    pub(super) fn record(&self, now: Instant) -> PortRecord {
        PortRecord {
            partner: (self.receive == Receive::Current).then_some(self.partner),
            mux: self.mux,
            heard_ms_ago: self
                .heard
                .map_or(0, |heard| u64::try_from((now - heard).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Lets it go on as it stood in another process, once its link is seen.
    pub(super) fn resume(&mut self, record: &PortRecord, now: Instant, fast: bool) {
        let Some(partner) = record.partner else { return };
        let heard = now.checked_sub(Duration::from_millis(record.heard_ms_ago)).unwrap_or(now);
        let deadline = heard + silence(fast);
        self.former = Some(Former { partner, mux: record.mux, heard, deadline });
    }

    fn go_on(&mut self, former: &Former) {
        let Former { partner, mux, heard, deadline } = *former;
        self.receive = Receive::Current;
        (self.partner, self.defaulted) = (partner, false);
        (self.heard, self.deadline, self.mux) = (Some(heard), deadline, mux);
    }
}

/// A port, for the process that goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortRecord {
    /// The partner, if it speaks.
    pub(crate) partner: Option<Information>,
    pub(crate) mux: Mux,
    pub(crate) heard_ms_ago: u64,
}

/// For how long a partner that was to speak fast, or slowly, may be silent.
fn silence(fast: bool) -> Duration {
    (if fast { FAST_PERIOD } else { SLOW_PERIOD }) * PERIODS
}

/// A partner of which nothing is known. That it wants to hear us fast costs a frame a second, and one
/// that begins to listen has not to be waited for.
const ASSUMED: Information = Information {
    system: System { priority: 0, mac: [0; 6] },
    key: 0,
    port_priority: 0,
    port: 0,
    state: State::TIMEOUT,
};

/// Whether it is the same port of the same system, with the same key.
fn is_same(one: &Information, other: &Information) -> bool {
    let name = |it: &Information| (it.system, it.key, it.port_priority, it.port);
    name(one) == name(other)
}
