//! Stateless access control: what a port's rules say of a packet, at a cost that neither rules nor
//! packets change.
//!
//! Rules are compiled on the control thread ([`compile`]) and never changed; a new set replaces
//! the old one as part of the published plan, so each frame is judged by one or the other. A look-up
//! is two steps, whose lengths are known when the rules are loaded:
//!
//! 1. the remote address is looked up among the bounds of all that rules name, which yields its class:
//!    the same for all addresses of which the rules say the same (`addresses`, `search`);
//! 2. the class and the protocol name a map from the port, or ICMP type and code, to the [`Verdict`]
//!    (`ranges`). For whole TCP and UDP over IPv4, which is what most frames are, they also name a map
//!    from the port to a bit that says whether it is permitted (`permits`): bursts are asked about by
//!    these (`burst`), and only what is counted at a rule needs the verdict.
//!
//! A second map, of source ports, is asked where the first does not permit, for the traffic that
//! answers what a rule of the other direction permits (RFC 9293: TCP segments with ACK or RST; for
//! other protocols with ports only rules that name one port; ICMP by its types). There is no table
//! of connections: what it opens is written in docs/security.md.

mod addresses;
mod burst;
mod compile;
mod entries;
mod known;
mod node;
mod permits;
mod ranges;
mod rule;
mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::packet::{Asked, Ip, Look, Packet, Plane, TCP_ESTABLISHED};
use addresses::{Address, Addresses};
use permits::{Permits, PermitsView};
use ranges::{Maps, MapsView, Root};
use search::SearchView as AddressesView;

pub use compile::{AddressSet, Budget, Compiler, OverBudget, Size};
pub use entries::Entry;
pub use ranges::Verdict;
pub use rule::{Direction, Family, Part, Remote, Rule, RuleLabel};

/// Compiled rules of both directions. See the [module's head](self).
#[derive(Debug)]
pub struct Acl {
    ingress: Side,
    egress: Side,
    size: Size,
}

/// What is compiled of one direction's rules.
#[derive(Debug)]
struct Side {
    v4: Tables<u32>,
    v6: Tables<u128>,
    maps: Maps,
    /// Of IPv4.
    permits: Permits,
    entries: Box<[Entry]>,
    hits: Box<[AtomicU64]>,
    unmatched: AtomicU64,
    /// Whether any rule denies.
    denies: bool,
}

/// What is compiled of one direction's rules for a version of IP.
#[derive(Debug)]
struct Tables<K: Address> {
    addresses: Arc<Addresses<K>>,
    /// What holds for each class of addresses.
    lines: Box<[Line]>,
    /// All of TCP and UDP is permitted, with whomever: as a guest may send by most groups.
    open: bool,
}

/// What the rules say of packets to or from one class of addresses: a map for each [`Plane`], and
/// behind those of destination ports one of source ports, for what answers. A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([Root; Plane::COUNT]);

impl Acl {
    /// What the rules of a direction say of a packet. There is none for what is not IP, or of
    /// [`Plane::Nothing`].
    pub fn judge(&self, direction: Direction, packet: &Packet) -> Verdict {
        let side = self.side(direction);
        match packet {
            Packet::V4(ip) => {
                side.v4.view(&side.maps).judge(remote(direction, ip), &ip.transport.asked())
            }
            Packet::V6(ip) => {
                side.v6.view(&side.maps).judge(remote(direction, ip), &ip.transport.asked())
            }
            Packet::Arp | Packet::Other(_) => Verdict::UNMATCHED,
        }
    }

    /// The tables for plain packets of a direction, to be asked for many packets in turn.
    #[inline(always)]
    pub fn plain(&self, direction: Direction) -> Plain<'_> {
        let side = self.side(direction);
        let (tables, permits) = (side.v4.view(&side.maps), side.permits.view());
        Plain { direction, open: side.v4.open, denies: side.denies, tables, permits }
    }

    /// The rule, as compiled, that a verdict speaks of.
    pub fn entry(&self, direction: Direction, verdict: Verdict) -> Option<&Entry> {
        self.side(direction).entries.get(verdict.rule()?)
    }

    /// The rules of a direction in the order in which they hold.
    pub fn entries(&self, direction: Direction) -> &[Entry] {
        &self.side(direction).entries
    }

    /// Counts frames of which the rules said `verdict`.
    #[inline(always)]
    pub fn hit(&self, direction: Direction, verdict: Verdict, frames: u64) {
        let side = self.side(direction);
        let counter = match verdict.rule() {
            Some(rule) => side.hits.get(rule).unwrap_or(&side.unmatched),
            None => &side.unmatched,
        };
        counter.fetch_add(frames, Ordering::Relaxed);
    }

    /// Counts frames at a rule, by its place among the [`entries`](Self::entries).
    pub fn hit_rule(&self, direction: Direction, rule: usize, frames: u64) {
        if let Some(counter) = self.side(direction).hits.get(rule) {
            counter.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// How often each rule of a direction was counted, in the order of [`entries`](Self::entries),
    /// and how often none was.
    pub fn hits(&self, direction: Direction) -> (impl Iterator<Item = u64> + '_, u64) {
        let side = self.side(direction);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (side.hits.iter().map(read), read(&side.unmatched))
    }

    /// What it takes.
    pub fn size(&self) -> Size {
        self.size
    }

    #[inline(always)]
    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// Whose address the rules of a direction ask for.
#[inline(always)]
fn remote<A: Copy>(direction: Direction, ip: &Ip<A>) -> A {
    match direction {
        Direction::Ingress => ip.source,
        Direction::Egress => ip.destination,
    }
}

/// See [`Acl::plain`].
pub struct Plain<'a> {
    direction: Direction,
    open: bool,
    denies: bool,
    tables: View<'a, u32>,
    permits: PermitsView<'a>,
}

impl Plain<'_> {
    /// Whether the rules permit all plain packets, which are of TCP or UDP.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// What the rules say of a packet.
    #[inline(always)]
    pub fn judge(&self, look: &Look) -> Verdict {
        let remote = match self.direction {
            Direction::Ingress => look.source,
            Direction::Egress => look.destination,
        };
        self.tables.judge(remote, &look.asked)
    }
}

/// [`Tables`] and maps with all their places at hand: what is the same for all packets that they are
/// asked about is then looked up once.
struct View<'a, K: Address> {
    addresses: AddressesView<'a, K>,
    lines: &'a [Line],
    maps: MapsView<'a>,
}

impl<K: Address> Tables<K> {
    fn new(addresses: &Arc<Addresses<K>>, lines: Vec<Line>) -> Self {
        let planes = [Plane::Tcp, Plane::Udp].map(|plane| plane as usize);
        let mut lived_in =
            lines.iter().zip(addresses.inhabited()).filter(|(_, lived_in)| **lived_in);
        let open = lived_in.all(|(line, _)| planes.iter().all(|at| line.0[*at].permits_all()));
        Self { addresses: Arc::clone(addresses), lines: lines.into(), open }
    }

    #[inline(always)]
    fn view<'a>(&'a self, maps: &'a Maps) -> View<'a, K> {
        View { addresses: self.addresses.view(), lines: &self.lines, maps: maps.view() }
    }
}

impl<K: Address> View<'_, K> {
    #[inline(always)]
    fn judge(&self, remote: K, asked: &Asked) -> Verdict {
        let line = &self.lines[self.addresses.find(remote) as usize];
        let plane = asked.plane as usize;
        let verdict = self.maps.find(line.0[plane], asked.selector);
        if verdict.permits() {
            return verdict;
        }
        self.judge_answer(line, verdict, asked)
    }

    /// What the rules say where they do not permit it as such.
    #[inline(never)]
    fn judge_answer(&self, line: &Line, verdict: Verdict, asked: &Asked) -> Verdict {
        // All but the first segment of a dialogue have one of these flags; others have none to see.
        let first = asked.plane == Plane::Tcp && asked.flags & TCP_ESTABLISHED == 0;
        if !asked.plane.has_ports() || first {
            return verdict;
        }
        verdict.min(self.maps.find(line.0[asked.plane as usize + 1], asked.source_port))
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
