//! From rules to tables, within a budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses::{Address, Addresses, Class, NoRoom, Span};
use super::entries::{Entry, entries};
use super::permits::Permits;
use super::ranges::{MapBuilder, Maps, Verdict};
use super::rule::{Direction, Family, Part, Remote, Rule};
use super::search::BOUND_BYTES;
use super::{Acl, Line, Side, Tables};
use crate::packet::{Plane, protocol};

/// Addresses that rules name as a whole: a security group's members, an address group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    /// The prefixes, of both versions of IP.
    pub prefixes: Vec<IpNet>,
}

/// What compiled rules may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rules of one direction, with the traffic that answers those of the other.
    pub rules: usize,
    /// Memory, in bytes.
    pub bytes: usize,
}

/// What compiled rules take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rules of both directions, with the traffic that answers them.
    pub rules: usize,
    /// Memory, in bytes.
    pub bytes: usize,
    /// The most cache lines that a look-up reads.
    pub lines_read: usize,
}

/// Why rules are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// Too many.
    #[error("{rules} rules in one direction, of {most} that may be")]
    Rules {
        /// How many there are, with the traffic that answers.
        rules: usize,
        /// How many there may be.
        most: usize,
    },
    /// Too much memory, or it would be if the compilation had not been given up.
    #[error("the compiled rules need more than the {most} bytes that they may have")]
    Memory {
        /// How many bytes there may be.
        most: usize,
    },
}

/// Compiles rules, and shares between all that it compiles the tables of those that name the same
/// addresses.
#[derive(Debug, Default)]
pub struct Compiler {
    v4: Shared<u32>,
    v6: Shared<u128>,
}

/// Tables of addresses by what they were made of.
type Shared<K> = HashMap<Vec<Atom>, std::sync::Weak<Addresses<K>>>;

/// A prefix or a set, with its contents: what a table of addresses is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Atom {
    Prefix(IpNet),
    Set(Vec<IpNet>),
}

impl Compiler {
    /// Compiles rules, or says which budget they exceed. `sets` are those that rules name by number.
    pub fn compile(
        &mut self,
        rules: &[Rule],
        sets: &BTreeMap<u32, AddressSet>,
        budget: Budget,
    ) -> Result<Acl, OverBudget> {
        let both = [Direction::Ingress, Direction::Egress].map(|way| entries(rules, way));
        let most = budget.rules.min(Verdict::RULES_MAX);
        if let Some(over) = both.iter().map(Vec::len).find(|rules| *rules > most) {
            return Err(OverBudget::Rules { rules: over, most });
        }
        self.tables(both, sets, budget).map_err(|NoRoom| OverBudget::Memory { most: budget.bytes })
    }

    fn tables(
        &mut self,
        [ingress, egress]: [Vec<Entry>; 2],
        sets: &BTreeMap<u32, AddressSet>,
        budget: Budget,
    ) -> Result<Acl, NoRoom> {
        let named = |family| {
            let all = ingress.iter().chain(&egress).filter(|entry| entry.rule.family == family);
            let mut remotes: Vec<&Remote> = all.map(|entry| &entry.rule.remote).collect();
            remotes.sort_unstable();
            remotes.dedup();
            remotes.into_iter().cloned().collect::<Vec<Remote>>()
        };
        let (named4, named6) = (named(Family::V4), named(Family::V6));
        let v4 = shared(&mut self.v4, &named4, sets, budget, span4)?;
        let v6 = shared(&mut self.v6, &named6, sets, budget, span6)?;
        let side = |entries: Vec<Entry>| {
            let mut builder = MapBuilder::new(budget.bytes / 64);
            let mut lines4 = lines(&mut builder, &v4, &named4, &entries, Family::V4, budget)?;
            let mut lines6 = lines(&mut builder, &v6, &named6, &entries, Family::V6, budget)?;
            // What `Plain::class` relies on.
            assert_eq!(lines4.len(), v4.classes().len(), "a line for each class");
            let permits = Permits::new(&builder, &lines4, budget.bytes)?;
            let all = lines4.iter_mut().chain(&mut lines6).flat_map(|line| &mut line.0);
            let maps = builder.finish(all);
            let hits = entries.iter().map(|_| Default::default()).collect();
            Ok(Side {
                v4: Tables::new(&v4, lines4),
                v6: Tables::new(&v6, lines6),
                maps,
                permits,
                denies: entries.iter().any(|entry| !entry.rule.permit),
                entries: entries.into(),
                hits,
                unmatched: Default::default(),
            })
        };
        let (ingress, egress) = (side(ingress)?, side(egress)?);
        let bytes = v4.bytes() + v6.bytes() + ingress.bytes() + egress.bytes();
        if bytes > budget.bytes {
            return Err(NoRoom);
        }
        // The search, and what it leads to. What a burst is asked about reads fewer lines; but what answers
        // where rules deny is looked up in both ways.
        let found = 1 + 2 * Maps::LINES_READ;
        let denies = ingress.denies || egress.denies;
        let after = if denies { Permits::LINES_READ + found } else { found };
        let lines_read = v4.steps().max(v6.steps()) + after;
        let rules = ingress.entries.len() + egress.entries.len();
        Ok(Acl { ingress, egress, size: Size { rules, bytes, lines_read } })
    }
}

impl Side {
    /// Memory of what is not shared, in bytes.
    fn bytes(&self) -> usize {
        self.maps.bytes()
            + self.permits.bytes()
            + size_of_val(&*self.v4.lines)
            + size_of_val(&*self.v6.lines)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.hits)
    }
}

/// The table of the addresses that rules name, a new one only if none like it is in use.
fn shared<K: Address>(
    tables: &mut Shared<K>,
    named: &[Remote],
    sets: &BTreeMap<u32, AddressSet>,
    budget: Budget,
    span: fn(&IpNet) -> Option<Span<K>>,
) -> Result<Arc<Addresses<K>>, NoRoom> {
    let atoms: Vec<Atom> = named
        .iter()
        .filter_map(|remote| match remote {
            Remote::Any => None,
            Remote::Prefix(prefix) => Some(Atom::Prefix(*prefix)),
            Remote::Set(number) => {
                let all = sets.get(number).into_iter().flat_map(|set| &set.prefixes);
                Some(Atom::Set(all.filter(|prefix| span(prefix).is_some()).copied().collect()))
            }
        })
        .collect();
    if let Some(table) = tables.get(&atoms).and_then(std::sync::Weak::upgrade) {
        return Ok(table);
    }
    let mut spans = Vec::new();
    for (number, atom) in (0..).zip(&atoms) {
        let prefixes = match atom {
            Atom::Prefix(prefix) => std::slice::from_ref(prefix),
            Atom::Set(prefixes) => prefixes,
        };
        spans.extend(prefixes.iter().filter_map(span).map(|span| (span, number)));
    }
    // Prefixes that are apart make two bounds each; so many are not even put in order.
    if spans.len() > budget.bytes / BOUND_BYTES {
        return Err(NoRoom);
    }
    let table = Arc::new(Addresses::new(spans, budget.bytes)?);
    tables.retain(|_, table| table.strong_count() > 0);
    tables.insert(atoms, Arc::downgrade(&table));
    Ok(table)
}

fn span4(prefix: &IpNet) -> Option<Span<u32>> {
    let IpNet::V4(prefix) = prefix else { return None };
    Some(Span { first: prefix.network().into(), last: prefix.broadcast().into() })
}

fn span6(prefix: &IpNet) -> Option<Span<u128>> {
    let IpNet::V6(prefix) = prefix else { return None };
    Some(Span { first: prefix.network().into(), last: prefix.broadcast().into() })
}

/// The maps of each class of addresses.
fn lines<K: Address>(
    builder: &mut MapBuilder,
    addresses: &Addresses<K>,
    named: &[Remote],
    entries: &[Entry],
    family: Family,
    budget: Budget,
) -> Result<Vec<Line>, NoRoom> {
    if addresses.classes().len() > budget.bytes / size_of::<Line>() {
        return Err(NoRoom);
    }
    // What the rules say of everybody, and of each atom; in the order in which atoms are numbered.
    let atoms: Vec<&Remote> = named.iter().filter(|remote| **remote != Remote::Any).collect();
    let number_of: HashMap<&Remote, usize> = atoms.iter().copied().zip(0..).collect();
    let empty = builder.empty();
    let mut everybody = Line([empty; Plane::COUNT]);
    let mut said = vec![Line([empty; Plane::COUNT]); atoms.len()];
    for (index, entry) in (0..).zip(entries) {
        if entry.rule.family == family {
            let line = match number_of.get(&entry.rule.remote) {
                Some(atom) => &mut said[*atom],
                None => &mut everybody,
            };
            add(builder, line, entry, Verdict::new(index, entry.rule.permit))?;
        }
    }
    let mut lines: Vec<Line> = Vec::with_capacity(addresses.classes().len());
    for class in addresses.classes() {
        let line = match *class {
            Class::Root => everybody,
            Class::With { parent, atom } => {
                let mut line = lines[parent as usize];
                for (map, more) in line.0.iter_mut().zip(said[atom as usize].0) {
                    *map = builder.merge(*map, more)?;
                }
                line
            }
        };
        lines.push(line);
    }
    Ok(lines)
}

/// Adds to the maps of a line what one entry says.
fn add(
    builder: &mut MapBuilder,
    line: &mut Line,
    entry: &Entry,
    verdict: Verdict,
) -> Result<(), NoRoom> {
    let rule = &entry.rule;
    let mut put = |map: usize, first: u16, last: u16| {
        let range = builder.range(first, last, verdict)?;
        line.0[map] = builder.merge(line.0[map], range)?;
        Ok(())
    };
    let plane = rule.protocol.map(|number| match number {
        protocol::TCP => Plane::Tcp,
        protocol::UDP => Plane::Udp,
        protocol::SCTP => Plane::Sctp,
        protocol::DCCP => Plane::Dccp,
        protocol::UDPLITE => Plane::UdpLite,
        number if number == rule.family.icmp() => Plane::Icmp,
        _ => Plane::Protocol,
    });
    let (first, last) = match rule.part {
        Part::All => (0, u16::MAX),
        Part::Ports(first, last) => (first, last),
        Part::Icmp(kind, None) => (u16::from(kind) << 8, u16::from(kind) << 8 | 0xff),
        Part::Icmp(kind, Some(code)) => {
            let number = u16::from(kind) << 8 | u16::from(code);
            (number, number)
        }
    };
    match (plane, rule.part) {
        (None, _) => {
            for plane in PLANES {
                put(plane as usize, 0, u16::MAX)?;
            }
            return put(Plane::Protocol as usize, 0, u16::MAX);
        }
        (Some(Plane::Icmp), Part::All | Part::Icmp(..)) => put(Plane::Icmp as usize, first, last)?,
        (Some(plane), Part::All | Part::Ports(..)) if plane.has_ports() => {
            put(plane as usize + usize::from(entry.answer), first, last)?;
        }
        (Some(_), Part::All) => {}
        // A part of a protocol that has no such parts: nothing is like that.
        (Some(_), _) => return Ok(()),
    }
    // Of fragments without ports only rules that need none can permit, but all can deny: who cannot
    // tell whether it is denied must not let it pass. TCP's answers are told by flags, which these
    // lack too.
    match rule.protocol {
        Some(number) if (rule.part == Part::All && !entry.answer) || !rule.permit => {
            let number = u16::from(number) << 8;
            put(Plane::Protocol as usize, number, number | 0xff)
        }
        _ => Ok(()),
    }
}

/// Those of which more is asked than the protocol.
const PLANES: [Plane; 6] =
    [Plane::Tcp, Plane::Udp, Plane::Sctp, Plane::Dccp, Plane::UdpLite, Plane::Icmp];
