//! What rules are compiled from: groups, and the sets of addresses that they name, as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::acl::{
    Acl, AddressSet, Budget, Compiler, Direction, Family, OverBudget, Part, Remote, Rule, RuleLabel,
};
use ipnet::IpNet;

use crate::key::Key;
use crate::model::{
    self, Action, AddressGroupUuid, Desired, Ethertype, ReturnTraffic, SecurityGroup,
    SecurityGroupUuid,
};

/// A set of addresses, by who has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Members(SecurityGroupUuid),
    Addresses(AddressGroupUuid),
}

/// The sets that rules of this host name. One that did not change stays the same in memory.
#[derive(Debug, Default)]
pub(super) struct Sets(BTreeMap<Named, Arc<AddressSet>>);

impl Sets {
    /// Follows desired state, for the rules of these groups.
    pub fn update(&mut self, desired: &Desired, groups: impl Iterator<Item = SecurityGroupUuid>) {
        let rules = groups
            .filter_map(|group| desired.security_groups.get(&group))
            .flat_map(|group| &group.rules);
        let named: std::collections::BTreeSet<Named> =
            rules.filter_map(|rule| Named::of(rule.remote?)).collect();
        self.0.retain(|name, _| named.contains(name));
        let mut local: BTreeMap<SecurityGroupUuid, Vec<IpNet>> = BTreeMap::new();
        for port in desired.ports.values() {
            for group in &port.security_groups {
                let addresses = local.entry(*group).or_default();
                addresses.extend(port.fixed_ips.iter().map(|ip| IpNet::from(ip.address())));
                addresses.extend(port.allowed_address_pairs.iter().map(|pair| pair.ip.net()));
            }
        }
        for name in named {
            let mut prefixes: Vec<IpNet> = match name {
                Named::Members(group) => {
                    let members = desired.group_members.get(&group).into_iter().flatten();
                    let members = members.flat_map(|(_, member)| &member.addresses);
                    let own = local.get(&group).into_iter().flatten().copied();
                    members.map(|prefix| prefix.net()).chain(own).collect()
                }
                Named::Addresses(group) => {
                    let group = desired.address_groups.get(&group).into_iter();
                    group.flat_map(|group| &group.addresses).map(|prefix| prefix.net()).collect()
                }
            };
            prefixes.sort_unstable();
            prefixes.dedup();
            let known = self.0.entry(name).or_default();
            if known.prefixes != prefixes {
                *known = Arc::new(AddressSet { prefixes });
            }
        }
    }
}

impl Named {
    fn of(remote: model::Remote) -> Option<Self> {
        match remote {
            model::Remote::Prefix(_) => None,
            model::Remote::Group(group) => Some(Self::Members(group)),
            model::Remote::AddressGroup(group) => Some(Self::Addresses(group)),
        }
    }
}

/// See the [module's head](self). Two that are equal compile to the same.
#[derive(Debug)]
pub(super) struct Basis {
    groups: Vec<(SecurityGroupUuid, Arc<SecurityGroup>)>,
    sets: Vec<(Named, Arc<AddressSet>)>,
    missing: Option<Key>,
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        let same_sets = self.sets.len() == other.sets.len()
            && self
                .sets
                .iter()
                .zip(&other.sets)
                .all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1));
        // Equal groups are one in memory, as long as they do not change.
        let same_groups = self.groups.len() == other.groups.len()
            && self.groups.iter().zip(&other.groups).all(|(one, other)| {
                one.0 == other.0 && (Arc::ptr_eq(&one.1, &other.1) || one.1 == other.1)
            });
        self.missing == other.missing && same_sets && same_groups
    }
}

impl Basis {
    pub fn new(groups: &[SecurityGroupUuid], desired: &Desired, sets: &Sets) -> Self {
        let mut basis = Self { groups: Vec::new(), sets: Vec::new(), missing: None };
        for uuid in groups {
            let Some(group) = desired.security_groups.get(uuid) else {
                basis.missing.get_or_insert(Key::SecurityGroup(*uuid));
                continue;
            };
            for (_, uuid) in group.address_groups() {
                if !desired.address_groups.contains_key(&uuid) {
                    basis.missing.get_or_insert(Key::AddressGroup(uuid));
                }
            }
            basis.groups.push((*uuid, Arc::clone(group)));
        }
        let rules = basis.groups.iter().flat_map(|(_, group)| &group.rules);
        let mut named: Vec<_> = rules.filter_map(|rule| Named::of(rule.remote?)).collect();
        named.sort_unstable();
        named.dedup();
        let set = |name: &Named| sets.0.get(name).map(Arc::clone).unwrap_or_default();
        basis.sets = named.into_iter().map(|name| (name, set(&name))).collect();
        basis
    }

    /// What is not in force and is waited for.
    pub fn missing(&self) -> Option<&Key> {
        self.missing.as_ref()
    }

    pub fn groups(&self) -> Vec<(SecurityGroupUuid, Arc<SecurityGroup>)> {
        self.groups.clone()
    }

    pub fn compile(&self, compiler: &mut Compiler, budget: Budget) -> Result<Acl, OverBudget> {
        let mut rules = Vec::new();
        for (number, (_, group)) in (0..).zip(&self.groups) {
            let returns = group.return_traffic == ReturnTraffic::Established;
            for (index, rule) in (0..).zip(&group.rules) {
                let label = RuleLabel { group: number, rule: index };
                rules.extend(self.rules(rule, returns, label));
            }
        }
        let sets = self.sets.iter().map(|(_, set)| set.as_ref().clone());
        compiler.compile(&rules, &(0..).zip(sets).collect(), budget)
    }

    /// A rule of the model as those that it is for each version of IP.
    fn rules<'a>(
        &'a self,
        rule: &'a model::Rule,
        returns: bool,
        label: RuleLabel,
    ) -> impl Iterator<Item = Rule> + 'a {
        let families = match rule.ethertype {
            Some(Ethertype::Ipv4) => &[Family::V4][..],
            Some(Ethertype::Ipv6) => &[Family::V6],
            None => &[Family::V4, Family::V6],
        };
        let part = match (rule.ports, rule.icmp_type) {
            (Some(ports), _) => Part::Ports(ports.first(), ports.last()),
            (None, Some(kind)) => Part::Icmp(kind, rule.icmp_code),
            (None, None) => Part::All,
        };
        let remote = match rule.remote {
            None => Remote::Any,
            Some(model::Remote::Prefix(prefix)) => Remote::Prefix(prefix.net()),
            Some(remote) => {
                let name = Named::of(remote);
                let place = self.sets.iter().position(|(known, _)| Some(*known) == name);
                Remote::Set(place.unwrap_or(self.sets.len()) as u32)
            }
        };
        families.iter().map(move |family| Rule {
            direction: match rule.direction {
                model::Direction::Ingress => Direction::Ingress,
                model::Direction::Egress => Direction::Egress,
            },
            family: *family,
            protocol: rule.protocol.map(model::Protocol::number),
            part,
            remote: remote.clone(),
            permit: rule.action == Action::Permit,
            priority: rule.priority,
            returns,
            label,
        })
    }
}
