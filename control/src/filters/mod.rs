//! From groups and addresses in desired state to what each port may send and be sent.
//!
//! Ports with the same groups share one set of compiled rules, and a change to a group compiles each
//! such set once. Sets of which nothing changed stay as they are, in memory too, so that a publication
//! touches nothing that is right. Rules over their budget are refused, and the former ones stay.

mod basis;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::acl::{Acl, Budget, Compiler, Direction, Entry, Verdict};
use dataplane::headers::Mac;
use dataplane::policy::{Guard, Policy, Station};
use ipnet::IpNet;

use crate::config::Acl as Limits;
use crate::model::{Desired, Port, PortUuid, SecurityGroup, SecurityGroupUuid};
use basis::{Basis, Sets};

/// See the [module's head](self).
#[derive(Debug, Default)]
pub(crate) struct Filters {
    compiler: Compiler,
    sets: Sets,
    compiled: BTreeMap<Vec<SecurityGroupUuid>, Compiled>,
    ports: BTreeMap<PortUuid, PortFilter>,
    /// The budget that all of them were held to.
    budget: (u32, u32),
}

/// What becomes of a port's frames.
#[derive(Clone, Debug)]
pub(crate) enum PortFilter {
    /// All pass: port security is off.
    Open,
    /// None passes, for this reason.
    Closed(String),
    /// Those pass that this permits.
    Filtered(Arc<Policy>),
}

/// The rules of some groups.
#[derive(Debug)]
pub(crate) struct Compiled {
    basis: Basis,
    /// Those in force, if any ever were within the budget.
    acl: Option<Arc<Acl>>,
    /// Whose they are, in the order of the entries' labels.
    groups: Vec<(SecurityGroupUuid, Arc<SecurityGroup>)>,
    /// Why the newest rules are not in force.
    pub(crate) refusal: Option<String>,
    /// How long the newest compilation took.
    pub(crate) took: Duration,
}

impl Filters {
    /// Follows desired state. Takes a moment for many rules, in which it needs nothing else.
    pub(crate) fn update(&mut self, desired: &Desired, limits: &Limits) {
        let used: BTreeSet<Vec<SecurityGroupUuid>> = desired
            .ports
            .values()
            .filter(|port| port.port_security)
            .map(|port| port.security_groups.clone())
            .collect();
        self.compiled.retain(|groups, _| used.contains(groups));
        let budget = (limits.rules, limits.memory_mib);
        let same = std::mem::replace(&mut self.budget, budget) == budget;
        self.sets.update(desired, used.iter().flatten().copied());
        for groups in used {
            let basis = Basis::new(&groups, desired, &self.sets);
            let before = self.compiled.remove(&groups);
            let now = match before {
                Some(before) if same && before.basis == basis => before,
                before => self.compile(basis, before, limits),
            };
            self.compiled.insert(groups, now);
        }
        let before = std::mem::take(&mut self.ports);
        for (uuid, port) in &desired.ports {
            let filter = self.filter(port, before.get(uuid), limits);
            self.ports.insert(*uuid, filter);
        }
    }

    fn compile(&mut self, basis: Basis, before: Option<Compiled>, limits: &Limits) -> Compiled {
        let start = Instant::now();
        let budget = Budget { rules: limits.rules as usize, bytes: limits.bytes() };
        let result = basis.compile(&mut self.compiler, budget);
        let took = start.elapsed();
        let groups = basis.groups();
        match result {
            Ok(acl) => {
                if let Some(Compiled { acl: Some(old), groups: of_old, .. }) = &before {
                    carry_hits((old, of_old), (&acl, &groups));
                }
                Compiled { basis, acl: Some(Arc::new(acl)), groups, refusal: None, took }
            }
            Err(refusal) => {
                let (acl, groups) = before.map_or((None, groups), |old| (old.acl, old.groups));
                let refusal = format!(
                    "{refusal}; name fewer rules, or raise acl.rules or acl.memory_mib in the \
                     configuration"
                );
                Compiled { basis, acl, groups, refusal: Some(refusal), took }
            }
        }
    }

    fn filter(&self, port: &Port, before: Option<&PortFilter>, limits: &Limits) -> PortFilter {
        if !port.port_security {
            return PortFilter::Open;
        }
        let Some(compiled) = self.compiled.get(&port.security_groups) else {
            return PortFilter::Closed("its rules are not known".to_owned());
        };
        if let Some(missing) = compiled.basis.missing() {
            return PortFilter::Closed(format!("waiting for {missing}"));
        }
        let Some(acl) = &compiled.acl else {
            return PortFilter::Closed(compiled.refusal.clone().unwrap_or_default());
        };
        let guard = Guard::new(stations(port), &limits.permitted_ethertypes);
        match before {
            Some(PortFilter::Filtered(old)) if old.guard == guard && Arc::ptr_eq(&old.acl, acl) => {
                PortFilter::Filtered(Arc::clone(old))
            }
            _ => PortFilter::Filtered(Arc::new(Policy { guard, acl: Arc::clone(acl) })),
        }
    }

    /// What becomes of a port's frames.
    pub(crate) fn port(&self, port: PortUuid) -> Option<&PortFilter> {
        self.ports.get(&port)
    }

    /// The compiled rules of a port.
    pub(crate) fn of(&self, port: &Port) -> Option<&Compiled> {
        self.compiled.get(&port.security_groups).filter(|_| port.port_security)
    }

    /// All compiled rules, by the groups that they are of.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&[SecurityGroupUuid], &Compiled)> {
        self.compiled.iter().map(|(groups, compiled)| (groups.as_slice(), compiled))
    }
}

impl Compiled {
    /// Those in force, if any ever were within the budget.
    pub(crate) fn acl(&self) -> Option<&Arc<Acl>> {
        self.acl.as_ref()
    }

    /// The groups whose rules are in force.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (SecurityGroupUuid, &SecurityGroup)> {
        self.groups.iter().map(|(uuid, group)| (*uuid, &**group))
    }

    /// What the rules name and is not in force.
    pub(crate) fn waits_for(&self) -> Option<&crate::key::Key> {
        self.basis.missing()
    }

    /// The group, and the place of the rule in it, that an entry comes from.
    pub(crate) fn origin(&self, entry: &Entry) -> (SecurityGroupUuid, usize, &crate::model::Rule) {
        let (uuid, group) = &self.groups[entry.rule.label.group as usize];
        let index = entry.rule.label.rule as usize;
        (*uuid, index, &group.rules[index])
    }
}

/// The stations of a port: its own MAC address with its fixed IPs and the pairs that name no other,
/// and those that pairs name.
fn stations(port: &Port) -> Vec<Station> {
    let Some(own) = port.mac() else { return Vec::new() };
    let mut prefixes: BTreeMap<Mac, Vec<IpNet>> = BTreeMap::new();
    let mac = |mac: crate::model::Mac| Mac::new(mac.octets());
    let fixed = port.fixed_ips.iter().map(|ip| IpNet::from(ip.address()));
    prefixes.entry(mac(own)).or_default().extend(fixed);
    for pair in &port.allowed_address_pairs {
        prefixes.entry(mac(pair.mac.unwrap_or(own))).or_default().push(pair.ip.net());
    }
    // The port's own is looked for first.
    let own = mac(own);
    let mut all: Vec<_> = prefixes.into_iter().collect();
    all.sort_by_key(|(mac, _)| *mac != own);
    all.iter().map(|(mac, prefixes)| Station::new(*mac, prefixes)).collect()
}

type Groups = [(SecurityGroupUuid, Arc<SecurityGroup>)];

/// Has rules that are the same as before begin with the counts that they had.
fn carry_hits((old, of_old): (&Acl, &Groups), (new, of_new): (&Acl, &Groups)) {
    let key = |groups: &Groups, entry: &Entry| {
        let (uuid, group) = &groups[entry.rule.label.group as usize];
        let rule = group.rules[entry.rule.label.rule as usize].clone();
        (*uuid, rule, entry.rule.family, entry.answer, entry.rule.part)
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        let (hits, unmatched) = old.hits(direction);
        new.hit(direction, Verdict::UNMATCHED, unmatched);
        let counted: HashMap<_, u64> = (old.entries(direction).iter().zip(hits))
            .filter(|(_, hits)| *hits > 0)
            .map(|(entry, hits)| (key(of_old, entry), hits))
            .collect();
        if counted.is_empty() {
            continue;
        }
        for (index, entry) in new.entries(direction).iter().enumerate() {
            if let Some(hits) = counted.get(&key(of_new, entry)) {
                new.hit_rule(direction, index, *hits);
            }
        }
    }
}

#[cfg(test)]
mod tests;
