//! LACP (802.1AX-2020 §6): which members of a bond the other side has agreed to use.
//!
//! [`Lacp`] is all of our end: a [`LacpPort`] a member, and the choice of those that are one
//! aggregation, whose partners must all be ports of one system with one key. It knows neither devices
//! nor clocks: it is told links, frames and the time, and says what is to be sent and who carries. What
//! two of them say to each other over a bad link can so be tested.

mod pdu;
mod port;
mod status;

use std::time::{Duration, Instant};

use dataplane::port::bond::{Carriers, MEMBERS_MAX};
use serde::{Deserialize, Serialize};

use pdu::{Lacpdu, State, System};
pub(crate) use pdu::{Malformed, SlowPdu};
use port::{LacpPort, Mux, Ours, PortRecord, Receive};
pub(crate) use status::{LacpStatus, PortStatus, Why, mac};

/// The key of a bond's ports. A bond is a system of its own, so one number does for all.
const KEY: u16 = 1;

/// The longest time between two [`Lacp::run`]s in which a machine is not late for anybody.
pub(crate) const BEAT: Duration = Duration::from_millis(50);

/// What can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LacpRules {
    /// The partner is to send every second, and not every 30.
    pub(crate) fast: bool,
    pub(crate) system_priority: u16,
    /// One member carries where no partner speaks.
    pub(crate) fallback: bool,
}

/// A member at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Its link is up.
    pub(crate) up: bool,
    /// Its link has been up for long enough to carry frames.
    pub(crate) trusted: bool,
}

/// See the [module's head](self).
#[derive(Clone, Debug)]
pub(crate) struct Lacp {
    rules: LacpRules,
    /// The bond's own address, once a device of it was open: before that, nothing is said.
    mac: Option<[u8; 6]>,
    ports: Vec<LacpPort>,
    /// The partner whose links are used.
    group: Option<Group>,
}

/// Ports that can be one aggregation: what their partners have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    system: System,
    key: u16,
    /// Where the partner's port cannot be aggregated, it is one by itself.
    alone: Option<u16>,
}

impl Lacp {
    /// As many members, of none of which anything is known.
    pub(crate) fn new(rules: LacpRules, members: usize, now: Instant) -> Lacp {
        let numbers = 1..=members.min(MEMBERS_MAX) as u16;
        let ports = numbers.map(|number| LacpPort::new(number, now)).collect();
        Lacp { rules, mac: None, ports, group: None }
    }

    /// Lets other rules hold.
    pub(crate) fn set_rules(&mut self, rules: LacpRules) {
        let before = std::mem::replace(&mut self.rules, rules);
        if before.system_priority != rules.system_priority {
            self.ports.iter_mut().for_each(LacpPort::detach);
        }
        if before != rules {
            self.ports.iter_mut().for_each(LacpPort::owe);
        }
    }

    /// Lets the bond have this address, if it has none yet: it stays the same whichever devices come
    /// and go, as to a partner another one is another system.
    pub(crate) fn identify(&mut self, mac: [u8; 6]) {
        self.mac.get_or_insert(mac);
    }

    /// The bond's own address.
    pub(crate) fn mac(&self) -> Option<[u8; 6]> {
        self.mac
    }

    fn ours(&self) -> Option<Ours> {
        let LacpRules { fast, system_priority: priority, .. } = self.rules;
        Some(Ours { system: System { priority, mac: self.mac? }, key: KEY, fast })
    }

    /// Takes an LACPDU that came by a member.
    pub(crate) fn hear(&mut self, member: usize, pdu: &Lacpdu, now: Instant) {
        let Some(ours) = self.ours() else { return };
        if let Some(port) = self.ports.get_mut(member) {
            port.hear(pdu, &ours, now);
        }
    }

    /// Does what follows of the links, of time, and of what was heard.
    pub(crate) fn run(&mut self, now: Instant, looks: &[Look]) {
        let speaks = self.mac.is_some();
        for (port, look) in self.ports.iter_mut().zip(looks) {
            port.tick(now, look.up && speaks);
        }
        self.group = self.elect();
        for at in 0..self.ports.len() {
            let selected = self.group.is_some() && self.group_of(at) == self.group;
            let trusted = looks.get(at).is_some_and(|look| look.trusted);
            let port = &mut self.ports[at];
            port.selected = selected;
            port.turn(trusted);
        }
    }

    /// What is to be sent by a member now.
    pub(crate) fn due(&self, member: usize, now: Instant) -> Option<Lacpdu> {
        self.ports.get(member)?.due(&self.ours()?, now)
    }

    /// What was due was sent.
    pub(crate) fn sent(&mut self, member: usize, now: Instant) {
        if let Some(port) = self.ports.get_mut(member) {
            port.sent(now);
        }
    }

    /// Who carries frames. Where no partner speaks at all, that is who would do so without LACP, if that
    /// is wanted.
    pub(crate) fn carriers(&self, without: Carriers) -> Carriers {
        let mask = |least: Mux| {
            let ports = self.ports.iter().enumerate().filter(|(_, port)| port.mux >= least);
            ports.fold(0_u8, |mask, (at, _)| mask | 1 << at)
        };
        match (mask(Mux::Distributing), mask(Mux::Collecting)) {
            (0, 0) if self.falls_back() => without,
            (0, 0) => Carriers::Nobody,
            (send, hear) => Carriers::Agreed { send, hear },
        }
    }

    /// Whether nobody on any link speaks LACP, and one member is to carry then.
    fn falls_back(&self) -> bool {
        let mut up = self.ports.iter().filter(|port| port.is_enabled()).peekable();
        self.rules.fallback
            && up.peek().is_some()
            && up.all(|port| port.receive == Receive::Defaulted)
    }

    /// What a member's partner would be aggregated as.
    fn group_of(&self, member: usize) -> Option<Group> {
        let port = &self.ports[member];
        let partner = &port.partner;
        if !port.is_enabled() || port.defaulted || Some(partner.system.mac) == self.mac {
            return None;
        }
        let alone = (!partner.state.has(State::AGGREGATION)).then_some(member as u16);
        Some(Group { system: partner.system, key: partner.key, alone })
    }

    /// The partner whose links are to be used: the one that is, as long as one of them carries. Else the
    /// one that is ready by the most links; of those that are alike the one that was, or the first.
    fn elect(&self) -> Option<Group> {
        let members = |group: Group| {
            let all = self.ports.iter().enumerate();
            all.filter(move |(at, _)| self.group_of(*at) == Some(group)).map(|(_, port)| port)
        };
        let speaks = |port: &&LacpPort| port.receive == Receive::Current;
        let in_sync = |port: &&LacpPort| port.partner.state.has(State::SYNCHRONIZATION);
        if let Some(group) = self.group
            && members(group).any(|port| in_sync(&port) && port.mux == Mux::Distributing)
        {
            return Some(group);
        }
        let merit = |group: Group| {
            let count = |one: &dyn Fn(&&LacpPort) -> bool| members(group).filter(one).count();
            (count(&in_sync), count(&speaks), self.group == Some(group))
        };
        let groups = (0..self.ports.len()).filter_map(|at| self.group_of(at));
        // Of equals the last is taken, and the first is meant.
        groups.rev().max_by_key(|group| merit(*group))
    }

    /// All that the next process has to know to go on unnoticed.
    pub(crate) fn record(&self, now: Instant) -> Option<LacpRecord> {
        let ports = self.ports.iter().map(|port| port.record(now)).collect();
        Some(LacpRecord { mac: self.mac?, ports })
    }

    /// Goes on as another process did a moment ago, with each member once its link is seen.
    pub(crate) fn resume(&mut self, record: &LacpRecord, now: Instant) {
        self.mac = Some(record.mac);
        for (port, record) in self.ports.iter_mut().zip(&record.ports) {
            port.resume(record, now, self.rules.fast);
        }
    }
}

/// A bond that speaks LACP, for the process that goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LacpRecord {
    mac: [u8; 6],
    ports: Vec<PortRecord>,
}

#[cfg(test)]
mod tests;
