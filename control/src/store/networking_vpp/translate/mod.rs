//! What networking-vpp's driver wrote, as the values of our own model.
//!
//! Only the form is changed here: whether an object can be in force is the model's to judge, as of
//! every store. What cannot be given our form is unreadable at our key, so that the model keeps the
//! value that it had; what this switch cannot do is a problem at the driver's key, and nothing else.
//!
//! The driver writes all groups for all hosts. Only those are translated that a port of this host has,
//! and the members of those that their rules name.

mod group;
mod port;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::group::Group;
pub use self::port::Placement;
use self::port::Port;
use super::mirror::{Mirror, Stored};
use super::place::Place;
use crate::config::NetworkingVpp;
use crate::fields::Fields;
use crate::key::Key;
use crate::model::{HostName, PortUuid, RawValue, SecurityGroupUuid};
use crate::problem::{Fault, Misfit, Problem, quoted};
use crate::store::{VALUE_OCTETS_MAX, too_large};

/// Translates, and remembers what it translated: most values are the same the next time.
#[derive(Debug)]
pub struct Translator {
    settings: NetworkingVpp,
    ports: Memory<Port>,
    groups: Memory<Group>,
    members: Memory<Arc<[u8]>>,
}

/// What there is, in our form.
#[derive(Debug, Default)]
pub struct Translation {
    /// Values of our model, by key.
    pub values: BTreeMap<Key, RawValue>,
    /// What is wrong with what has no key in our model.
    pub problems: Vec<Problem>,
    /// Where each port is that can be in force.
    pub ports: BTreeMap<PortUuid, Placement>,
}

/// What became of values that were translated before.
type Memory<T> = BTreeMap<Key, Known<T>>;

#[derive(Debug)]
struct Known<T> {
    text: Arc<str>,
    now: Verdict<T>,
    /// The last good translation of the same key, if there ever was one. While the value is bad, the
    /// model keeps the object, and what the object names must not go.
    good: Option<Arc<T>>,
}

#[derive(Debug)]
enum Verdict<T> {
    Good(Arc<T>),
    /// It is well-formed, and this switch cannot do it.
    Unsupported(Misfit),
    /// It is not what the driver writes.
    Bad(Misfit),
}

impl Translator {
    /// A translator with these settings.
    pub fn new(settings: NetworkingVpp) -> Translator {
        let (ports, groups, members) = (Memory::new(), Memory::new(), Memory::new());
        Translator { settings, ports, groups, members }
    }

    /// Translates what concerns `host`, or all hosts without one.
    pub fn translate(&mut self, mirror: &Mirror, host: Option<&HostName>) -> Translation {
        let mut new = Translation::default();
        let (mut groups, mut members) = (Vec::new(), Vec::new());
        let mut named = BTreeSet::new();
        let mut former = std::mem::take(&mut self.ports);
        for (key, stored) in mirror.values() {
            match &stored.place {
                Ok(Place::Port { host, port }) => match mirror.moved_to(*port) {
                    Some(there) => new.problems.push(moved(key, there)),
                    None => self.port(&mut former, key, stored, host, *port, &mut new, &mut named),
                },
                Ok(Place::Group(group)) => groups.push((*group, key, stored)),
                Ok(Place::Member(group, port)) => members.push((*group, *port, key, stored)),
                Ok(Place::Unsupported(what)) => new.problems.push(unsupported(key, what)),
                Ok(Place::Foreign) => {}
                Err(misfit) => new.problems.push(problem(key, misfit)),
            }
        }

        let mut remote = BTreeSet::new();
        let mut former = std::mem::take(&mut self.groups);
        groups.retain(|(group, ..)| host.is_none() || named.contains(group));
        for (id, key, stored) in groups {
            let read = |text: &str| group::read(text, &self.settings);
            let our = Key::SecurityGroup(id);
            let known = recall(&mut former, &mut self.groups, our.clone(), stored, read);
            remote.extend(known.standing().into_iter().flat_map(|group| &group.remote).copied());
            new.insert(our, key, &known.now, |group| Arc::clone(&group.value));
        }

        let mut former = std::mem::take(&mut self.members);
        members.retain(|(group, ..)| host.is_none() || remote.contains(group));
        for (group, port, key, stored) in members {
            let our = Key::GroupMember { group, port };
            let known =
                recall(&mut former, &mut self.members, our.clone(), stored, group::read_member);
            new.insert(our, key, &known.now, Arc::clone);
        }
        new.problems.sort();
        new
    }

    #[expect(clippy::too_many_arguments, reason = "the loop above is split for reading")]
    fn port(
        &mut self,
        former: &mut Memory<Port>,
        key: &str,
        stored: &Stored,
        host: &str,
        port: PortUuid,
        new: &mut Translation,
        groups: &mut BTreeSet<SecurityGroupUuid>,
    ) {
        let host: HostName = match host.parse() {
            Ok(host) => host,
            Err(misfit) => return new.problems.push(problem(key, &misfit)),
        };
        let our = Key::Port { host, port };
        let read = |text: &str| port::read(text, port, &self.settings);
        let known = recall(former, &mut self.ports, our.clone(), stored, read);
        if let Some(standing) = known.standing() {
            let network = RawValue::Json(Arc::clone(&standing.network_value));
            new.values.insert(Key::Network(standing.network), network);
            new.ports.insert(port, standing.placement.clone());
            groups.extend(standing.groups.iter().copied());
        }
        new.insert(our, key, &known.now, |port| Arc::clone(&port.value));
    }
}

impl Translation {
    /// Takes in what became of the value at the driver's key `theirs`.
    fn insert<T>(
        &mut self,
        our: Key,
        theirs: &str,
        verdict: &Verdict<T>,
        value: impl FnOnce(&T) -> Arc<[u8]>,
    ) {
        match verdict {
            Verdict::Good(object) => drop(self.values.insert(our, RawValue::Json(value(object)))),
            Verdict::Bad(misfit) => {
                let misfit = Misfit::new(format!("{theirs}: {}", misfit.what), &misfit.remedy);
                self.values.insert(our, RawValue::Unreadable(misfit));
            }
            Verdict::Unsupported(misfit) => self.problems.push(problem(theirs, misfit)),
        }
    }
}

impl<T> Known<T> {
    /// What is in force of it, if the model has nothing against it.
    fn standing(&self) -> Option<&T> {
        match &self.now {
            Verdict::Unsupported(_) => None,
            Verdict::Good(_) | Verdict::Bad(_) => self.good.as_deref(),
        }
    }
}

/// The translation of a value, out of `former` if the text is the same, and remembered in `memory`.
fn recall<'a, T>(
    former: &mut Memory<T>,
    memory: &'a mut Memory<T>,
    key: Key,
    stored: &Stored,
    read: impl FnOnce(&str) -> Verdict<T>,
) -> &'a Known<T> {
    let text = &stored.text;
    let known = match former.remove(&key) {
        Some(known) if Arc::ptr_eq(&known.text, text) || known.text == *text => known,
        old => {
            let now =
                if text.len() > VALUE_OCTETS_MAX { Verdict::Bad(too_large()) } else { read(text) };
            let good = match &now {
                Verdict::Good(object) => Some(Arc::clone(object)),
                _ => old.and_then(|old| old.good),
            };
            Known { text: Arc::clone(text), now, good }
        }
    };
    // A key is seen once in a translation.
    memory.entry(key).or_insert(known)
}

/// Reads a value of the driver's field by field. Fields that nobody asks for are passed over: other
/// versions of the driver may write more.
fn read<T>(
    text: &str,
    subject: &str,
    read: impl FnOnce(&mut Fields<'_>) -> Option<Verdict<T>>,
) -> Verdict<T> {
    let mut faults = Vec::new();
    let mut verdict = None;
    if let Some(mut fields) = Fields::from_json(text.as_bytes(), subject, &mut faults) {
        if fields.has("jwt") {
            let what = "the value is signed, which is not supported";
            return Verdict::Bad(Misfit::new(what, "set jwt_signing = false for the driver"));
        }
        verdict = read(&mut fields);
    }
    match verdict {
        Some(Verdict::Unsupported(misfit)) => Verdict::Unsupported(misfit),
        Some(verdict) if faults.is_empty() => verdict,
        _ => Verdict::Bad(summed_up(faults)),
    }
}

/// The first of several faults, and how many more there are.
fn summed_up(faults: Vec<Fault>) -> Misfit {
    let more = match faults.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    match faults.into_iter().next() {
        Some(Fault { field, what, remedy, .. }) if field.is_empty() => {
            Misfit::new(what, remedy + &more)
        }
        Some(Fault { field, what, remedy, .. }) => {
            Misfit::new(format!("{field}: {what}"), remedy + &more)
        }
        None => Misfit::new("cannot be read", "write it as the driver does"),
    }
}

fn value(value: &Value) -> Arc<[u8]> {
    value.to_string().into_bytes().into()
}

fn problem(key: &str, misfit: &Misfit) -> Problem {
    Problem::whole(key, &misfit.what, &misfit.remedy)
}

fn unsupported(key: &str, what: &str) -> Problem {
    let what = format!("{what} are not supported, and nothing is done about this key");
    Problem::whole(key, what, "do without, or have Neutron's own agents do it: docs/openstack.md")
}

fn moved(key: &str, there: &str) -> Problem {
    let what = format!("the port is on host {} now, where it was written later", quoted(there));
    Problem::whole(key, what, "delete this key: the driver leaves it after a live migration")
        .warning()
}
