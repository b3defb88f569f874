//! What should be in force on this host: the good part of what a store holds, and what is wrong with
//! the rest.
//!
//! Pure: the same raw values, configuration and former result give the same result. A bad value is
//! reported at its key and changes nothing else; it does not even change its own object, if that was in
//! force before: [`Desired::rebuild`] keeps the former value until the new one is corrected. Where two
//! objects want one thing, who has it keeps it, and of two newcomers the one with the smaller UUID gets
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clash::{Claims, NetworkClaims, NoClaims, PortClaims};
use super::reading::Readings;
use super::{
    AddressGroup, AddressGroupUuid, GroupMember, HostName, Network, NetworkUuid, PhysnetName, Port,
    PortUuid, SecurityGroup, SecurityGroupUuid, waits,
};
use crate::config::{Config, Physnet, Vhost};
use crate::key::Key;
use crate::problem::{Fault, Misfit, Problem};

/// The objects that should be in force on one host, and the problems of those that should not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The networks in force, whether or not a port of this host is on them.
    pub networks: BTreeMap<NetworkUuid, Network>,
    /// The ports in force on this host; the network of each is in force.
    pub ports: BTreeMap<PortUuid, Port>,
    /// The security groups in force, whether or not a port of this host has them. One that did not
    /// change is the same in memory from one result to the next.
    pub security_groups: BTreeMap<SecurityGroupUuid, Arc<SecurityGroup>>,
    /// The address groups in force; the same holds for them.
    pub address_groups: BTreeMap<AddressGroupUuid, Arc<AddressGroup>>,
    /// The members of security groups that the store names, of this host or another. That a port of
    /// this host is a member of the groups that it has is not among them. The group need not be there.
    pub group_members: BTreeMap<SecurityGroupUuid, BTreeMap<PortUuid, Arc<GroupMember>>>,
    /// What is wrong, by key. A port of this host that stands here and not in `ports` is refused; one
    /// that stands in both has its former value.
    pub problems: BTreeMap<Key, Vec<Problem>>,
    /// What objects in force wait for, by key: groups that they name and that are not in force.
    pub warnings: BTreeMap<Key, Vec<Problem>>,
    read: Read,
}

/// What was read of the objects that are large or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    security_groups: Readings<SecurityGroupUuid, SecurityGroup>,
    address_groups: Readings<AddressGroupUuid, AddressGroup>,
    group_members: Readings<(SecurityGroupUuid, PortUuid), GroupMember>,
}

/// A value as a store has it, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawValue {
    /// What was read: JSON, if all is well.
    Json(Arc<[u8]>),
    /// The store could not read it: no permission, too large, not a file.
    Unreadable(Misfit),
}

/// What a host is, as far as desired state depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Whose ports count.
    pub host: &'a HostName,
    /// The wires, or `None` when they are not known (a check without a configuration): then nothing is
    /// refused for its physnet.
    pub physnets: Option<&'a BTreeMap<PhysnetName, Physnet>>,
    /// Where sockets are, and how many queues a port may have.
    pub vhost: &'a Vhost,
    /// Where workers run; none if that is not known, and then nothing is refused for it.
    pub cores: &'a [u32],
}

impl<'a> From<&'a Config> for Site<'a> {
    fn from(config: &'a Config) -> Site<'a> {
        Site {
            host: &config.host,
            physnets: Some(&config.physnets),
            vhost: &config.vhost,
            cores: &config.workers.cores,
        }
    }
}

impl Desired {
    /// What should be in force, when nothing was before.
    pub fn build<'a>(raw: &BTreeMap<Key, RawValue>, site: impl Into<Site<'a>>) -> Desired {
        Desired::default().rebuild(raw, site)
    }

    /// What should be in force now, when `self` was before.
    pub fn rebuild<'a>(&self, raw: &BTreeMap<Key, RawValue>, site: impl Into<Site<'a>>) -> Desired {
        let site = site.into();
        let (mut networks, mut ports) = (Vec::new(), Vec::new());
        let (mut groups, mut address_groups, mut members) = (Vec::new(), Vec::new(), Vec::new());
        let mut read = Read::default();
        let before = &self.read;
        for (key, value) in raw {
            match key {
                Key::Network(network) => {
                    networks.push(Candidate::new(key, *network, value, Network::from_json));
                }
                Key::Port { host, port } if host == site.host => {
                    ports.push(Candidate::new(key, *port, value, Port::from_json));
                }
                Key::SecurityGroup(id) => {
                    groups.push(Candidate::known(key, *id, value, |text| {
                        let (now, before) = (&mut read.security_groups, &before.security_groups);
                        now.read(before, *id, text, SecurityGroup::from_json)
                    }));
                }
                Key::AddressGroup(id) => {
                    address_groups.push(Candidate::known(key, *id, value, |text| {
                        let (now, before) = (&mut read.address_groups, &before.address_groups);
                        now.read(before, *id, text, AddressGroup::from_json)
                    }));
                }
                Key::GroupMember { group, port } => {
                    let id = (*group, *port);
                    members.push(Candidate::known(key, id, value, |text| {
                        let (now, before) = (&mut read.group_members, &before.group_members);
                        now.read(before, id, text, GroupMember::from_json)
                    }));
                }
                // Other hosts' ports are theirs to judge; reports are not wishes.
                Key::Port { .. }
                | Key::Alive { .. }
                | Key::PortState { .. }
                | Key::PhysnetState { .. } => {}
            }
        }
        let used: BTreeSet<NetworkUuid> = ports
            .iter()
            .filter_map(|port| port.value.as_ref().ok())
            .chain(self.ports.values())
            .map(|port| port.network)
            .collect();

        let mut problems = BTreeMap::new();
        let networks =
            settle(networks, &self.networks, NetworkClaims::new(site, &used), &mut problems);
        let claims = PortClaims::new(site, &networks, raw);
        let ports = settle(ports, &self.ports, claims, &mut problems);
        let security_groups =
            settle(groups, &self.security_groups, NoClaims::default(), &mut problems);
        let address_groups =
            settle(address_groups, &self.address_groups, NoClaims::default(), &mut problems);
        let former_members: BTreeMap<_, _> = (self.group_members.iter())
            .flat_map(|(group, members)| members.iter().map(|(port, it)| ((*group, *port), it)))
            .map(|(id, member)| (id, Arc::clone(member)))
            .collect();
        let members = settle(members, &former_members, NoClaims::default(), &mut problems);
        let mut group_members: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((group, port), member) in members {
            group_members.entry(group).or_default().insert(port, member);
        }
        let mut desired = Desired {
            networks,
            ports,
            security_groups,
            address_groups,
            group_members,
            problems,
            warnings: BTreeMap::new(),
            read,
        };
        desired.warnings = waits::warnings(&desired, site.host, raw);
        desired
    }

    /// Nothing in force, but with memory of what was read: for judging the same values for another
    /// host.
    pub fn cleared(self) -> Desired {
        Desired { read: self.read, ..Desired::default() }
    }

    /// The ports of `host` that are refused, with the problems for which they are.
    pub fn refused_ports<'a>(
        &'a self,
        host: &'a HostName,
    ) -> impl Iterator<Item = (PortUuid, &'a [Problem])> {
        self.problems.iter().filter_map(move |(key, problems)| match key {
            Key::Port { host: its, port } if its == host && !self.ports.contains_key(port) => {
                Some((*port, problems.as_slice()))
            }
            _ => None,
        })
    }
}

/// An object that wants to be in force.
struct Candidate<'a, I, T> {
    key: &'a Key,
    id: I,
    value: Result<T, Vec<Fault>>,
}

impl<'a, I, T> Candidate<'a, I, T> {
    fn new(key: &'a Key, id: I, raw: &RawValue, read: fn(&[u8]) -> Result<T, Vec<Fault>>) -> Self {
        Self::known(key, id, raw, |text| read(text))
    }

    /// An object that may have been read before.
    fn known(
        key: &'a Key,
        id: I,
        raw: &RawValue,
        read: impl FnOnce(&Arc<[u8]>) -> Result<T, Vec<Fault>>,
    ) -> Self {
        let value = match raw {
            RawValue::Json(text) => read(text),
            RawValue::Unreadable(misfit) => Err(vec![Fault::misfit("", misfit.clone())]),
        };
        Candidate { key, id, value }
    }
}

/// Lets the candidates claim what they need, one after the other, and returns who may be in force.
///
/// What is in force and unchanged, or keeps its value because the new one cannot be read, comes first,
/// so that no newcomer takes anything from it; then what changed, then what is new; by UUID among
/// equals.
fn settle<I: Ord + Copy, T: Clone + PartialEq>(
    mut candidates: Vec<Candidate<'_, I, T>>,
    former: &BTreeMap<I, T>,
    mut claims: impl Claims<Id = I, Object = T>,
    problems: &mut BTreeMap<Key, Vec<Problem>>,
) -> BTreeMap<I, T> {
    candidates.sort_by_key(|candidate| {
        let rank = match former.get(&candidate.id) {
            Some(object) if candidate.value.as_ref().ok().is_none_or(|new| new == object) => 0,
            Some(_) => 1,
            None => 2,
        };
        (rank, candidate.id)
    });
    let mut settled = BTreeMap::new();
    for Candidate { key, id, value } in candidates {
        let (value, faults) = match value {
            Ok(object) => {
                let faults = claims.faults(id, &object);
                (Some(object), faults)
            }
            Err(faults) => (None, faults),
        };
        if let (Some(object), true) = (&value, faults.is_empty()) {
            claims.claim(id, object);
            settled.insert(id, object.clone());
            continue;
        }
        let kept = former
            .get(&id)
            .filter(|object| value.as_ref() != Some(object))
            .filter(|object| claims.faults(id, object).is_empty());
        let mut found: Vec<Problem> = faults.into_iter().map(|fault| fault.at(key)).collect();
        if let Some(object) = kept {
            claims.claim(id, object);
            settled.insert(id, object.clone());
            for problem in &mut found {
                problem.remedy.push_str(" (the value read before stays in force)");
            }
        }
        problems.insert(key.clone(), found);
    }
    settled
}
