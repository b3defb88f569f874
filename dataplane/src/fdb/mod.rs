//! The forwarding database: where addresses were last seen.
//!
//! A fixed number of entries in buckets of one cache line each; an address has two buckets that it
//! may be in. Looking up and refreshing take no lock. An entry is two words that are written one
//! after the other, so a reader may see the key of one and the port of another for an instant:
//! that is harmless, since the FDB only hints and the caller checks the port's membership.
//!
//! Nothing that traffic does makes a lookup slower or the table larger. New addresses are admitted
//! under a lock that is never waited for (whoever finds it taken learns next time), a few per
//! burst, within a quota per port and per domain. A full table gives a place to a newcomer at the
//! expense of the port that has the most.

mod hash;
mod learner;
mod memory;

#[cfg(test)]
mod tests;

pub(crate) use hash::domain_of;
pub use hash::{Hash, Place};
pub use learner::Learner;

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use vhost::SpinLock;

use crate::headers::Mac;
use crate::snapshot::{DOMAINS_MAX, DomainId, PORTS_MAX, PortId};
use memory::{Table, Zeroed};

/// Entries in a bucket: keys and values fill one cache line.
const WAYS: usize = 4;

/// New addresses that one burst may bring.
const INSERTS_PER_BURST: u32 = 16;

/// Moves of an address within a second after which it stays where it is for the rest of it.
const MOVES_PER_SECOND: u8 = 5;

/// Addresses whose lines begin to crowd out all else in a nearest cache of 32 KiB.
const LARGE: usize = 128;

/// Buckets that a sweep looks at between two chances for workers to learn.
const SWEEP_CHUNK: usize = 256;

/// How large the FDB is and how it forgets.
#[derive(Clone, Copy, Debug)]
pub struct FdbOptions {
    /// Places for addresses; rounded up to a power of two.
    pub entries: usize,
    /// Seconds after which an address that was not heard is forgotten.
    pub ageing_seconds: u32,
    /// The most addresses behind one port.
    pub port_quota: u32,
    /// The most addresses in one domain.
    pub domain_quota: u32,
    /// Makes the places of addresses unpredictable to guests.
    pub seed: u64,
}

/// The forwarding database. See the [module's head](self).
#[derive(Debug)]
pub struct Fdb {
    buckets: Table<Bucket>,
    /// Their number less one.
    mask: usize,
    hash: Hash,
    limits: Limits,
    ledger: SpinLock<Ledger>,
    /// Addresses in the table, as the ledger has it; readable without its lock.
    entries: AtomicUsize,
    counters: FdbCounters,
}

/// What of [`FdbOptions`] may change while the table is in use.
#[derive(Debug)]
struct Limits {
    ageing_seconds: AtomicU32,
    port_quota: AtomicU32,
    domain_quota: AtomicU32,
}

impl Limits {
    #[inline(always)]
    fn ageing_seconds(&self) -> u32 {
        self.ageing_seconds.load(Ordering::Relaxed)
    }

    fn port_quota(&self) -> u32 {
        self.port_quota.load(Ordering::Relaxed)
    }

    fn domain_quota(&self) -> u32 {
        self.domain_quota.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket {
    keys: [AtomicU64; WAYS],
    values: [AtomicU64; WAYS],
}

impl Bucket {
    #[inline(always)]
    fn find(&self, key: u64) -> Option<&AtomicU64> {
        let way = self.keys.iter().position(|held| held.load(Ordering::Relaxed) == key)?;
        Some(&self.values[way])
    }
}

// SAFETY: atomics of zero are values, and they need no drop.
#[allow(unsafe_code)]
unsafe impl Zeroed for Bucket {}

/// How many addresses each port and domain has.
#[derive(Debug)]
struct Ledger {
    ports: Box<[u32]>,
    /// By the upper 16 bits of keys.
    domains: Box<[u32]>,
    entries: usize,
}

#[derive(Debug, Default)]
struct FdbCounters {
    learned: AtomicU64,
    moved: AtomicU64,
    evicted: AtomicU64,
    aged: AtomicU64,
    over_quota: AtomicU64,
    no_room: AtomicU64,
    deferred: AtomicU64,
    damped: AtomicU64,
}

/// Counts since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbStatistics {
    /// Addresses in the table now.
    pub entries: usize,
    /// Places for addresses.
    pub capacity: usize,
    /// Whether the table lies on huge pages.
    pub huge_pages: bool,
    /// Addresses admitted.
    pub learned: u64,
    /// Addresses that were heard on another port than before.
    pub moved: u64,
    /// Addresses that had to make room.
    pub evicted: u64,
    /// Addresses forgotten after their time.
    pub aged: u64,
    /// Addresses not admitted since their port or domain has its quota.
    pub over_quota: u64,
    /// Addresses not admitted since no other port had more.
    pub no_room: u64,
    /// Addresses put off to a later frame: the burst had brought enough, or the lock was taken.
    pub deferred: u64,
    /// Moves refused since the address moves too often.
    pub damped: u64,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The domain.
    pub domain: DomainId,
    /// The address.
    pub mac: Mac,
    /// The port it was last heard on.
    pub port: PortId,
    /// When that was, in the workers' seconds, to within an eighth of the ageing time.
    pub seen_seconds: u32,
}

/// A value: last seen in the upper 32 bits, then the second of the last move (8 bits), moves in
/// that second (8 bits), and the port (16 bits).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Value(u64);

impl Value {
    #[inline(always)]
    fn new(port: PortId, seen: u32) -> Self {
        Self(u64::from(seen) << 32 | port.index() as u64)
    }

    #[inline(always)]
    fn port(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline(always)]
    fn seen(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn refreshed(self, seen: u32) -> Self {
        Self(self.0 & 0xffff_ffff | u64::from(seen) << 32)
    }

    fn moves_in(self, second: u32) -> u8 {
        let same = (self.0 >> 24) as u8 == second as u8 && second.wrapping_sub(self.seen()) < 256;
        if same { (self.0 >> 16) as u8 } else { 0 }
    }

    fn moved_to(self, port: PortId, second: u32) -> Self {
        let moves = self.moves_in(second).saturating_add(1);
        Self(
            u64::from(second) << 32
                | u64::from(second as u8) << 24
                | u64::from(moves) << 16
                | port.index() as u64,
        )
    }
}

impl Fdb {
    /// An empty FDB.
    pub fn new(options: FdbOptions) -> Self {
        let buckets = options.entries.div_ceil(WAYS).next_power_of_two();
        Self {
            buckets: Table::new(buckets),
            mask: buckets - 1,
            hash: Hash::new(options.seed),
            limits: Limits {
                ageing_seconds: AtomicU32::new(options.ageing_seconds),
                port_quota: AtomicU32::new(options.port_quota),
                domain_quota: AtomicU32::new(options.domain_quota),
            },
            ledger: SpinLock::new(Ledger {
                ports: vec![0; PORTS_MAX].into_boxed_slice(),
                domains: vec![0; DOMAINS_MAX + 1].into_boxed_slice(),
                entries: 0,
            }),
            entries: AtomicUsize::new(0),
            counters: FdbCounters::default(),
        }
    }

    /// Changes how it forgets and what may be learned, from the next burst on. What is above a quota
    /// already stays until it ages.
    pub fn limit(&self, ageing_seconds: u32, port_quota: u32, domain_quota: u32) {
        let limits = &self.limits;
        limits.ageing_seconds.store(ageing_seconds, Ordering::Relaxed);
        limits.port_quota.store(port_quota, Ordering::Relaxed);
        limits.domain_quota.store(domain_quota, Ordering::Relaxed);
    }

    /// Learning and looking up for the time of one burst. `now` is in the workers' seconds.
    #[inline(always)]
    pub fn learner(&self, now: u32) -> Learner<'_> {
        Learner::new(self, now)
    }

    /// The hash that its places come from. Tables that share it share the work.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether it has so many addresses that they are not in a core's nearest cache, so that it
    /// pays to fetch them ahead of their use.
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.entries.load(Ordering::Relaxed) > LARGE
    }

    #[inline(always)]
    fn first(&self, place: Place) -> &Bucket {
        &self.buckets[place.hash as usize & self.mask]
    }

    #[inline(always)]
    fn second(&self, place: Place) -> &Bucket {
        // It differs from the first whatever the upper half says, if there are two.
        let distance = ((place.hash >> 32) as usize & self.mask).max(1);
        &self.buckets[(place.hash as usize ^ distance) & self.mask]
    }

    #[inline(always)]
    fn find(&self, place: Place) -> Option<&AtomicU64> {
        self.first(place).find(place.key).or_else(|| self.second(place).find(place.key))
    }

    fn is_old(&self, value: Value, now: u32) -> bool {
        now.saturating_sub(value.seen()) > self.limits.ageing_seconds()
    }

    /// Takes an address over that an earlier program had last heard at `seen`, in the workers'
    /// seconds. False if it is known already, or if quotas or the room do not allow it.
    pub fn restore(&self, domain: DomainId, mac: Mac, port: PortId, seen: u32) -> bool {
        let mut learner = self.learner(seen);
        let place = learner.place(domain, mac);
        learner.restore(place, port)
    }

    /// Forgets every address of a domain, before its number is used for another.
    pub fn flush_domain(&self, domain: DomainId) {
        self.forget(|key, _| domain_of(key) == Some(domain));
    }

    /// Forgets every address behind a port.
    pub fn flush_port(&self, port: PortId) {
        self.forget(|_, value| value.port() == port.index());
    }

    /// Forgets what was not heard for the ageing time. To be called every few seconds, so that old
    /// addresses do not count against quotas.
    pub fn sweep(&self, now: u32) {
        let aged = self.forget(|_, value| self.is_old(value, now));
        self.counters.aged.fetch_add(aged, Ordering::Relaxed);
    }

    #[expect(clippy::disallowed_methods, reason = "control thread; workers only try this lock")]
    fn forget(&self, which: impl Fn(u64, Value) -> bool) -> u64 {
        let mut forgotten = 0;
        for chunk in self.buckets.chunks(SWEEP_CHUNK) {
            let mut ledger = self.ledger.lock();
            for bucket in chunk {
                for way in 0..WAYS {
                    let key = bucket.keys[way].load(Ordering::Relaxed);
                    let value = Value(bucket.values[way].load(Ordering::Relaxed));
                    if key != 0 && which(key, value) {
                        ledger.remove(key, value);
                        bucket.keys[way].store(0, Ordering::Relaxed);
                        forgotten += 1;
                    }
                }
            }
            self.entries.store(ledger.entries, Ordering::Relaxed);
        }
        forgotten
    }

    /// All entries that are not too old, in no order.
    pub fn entries(&self, now: u32) -> Vec<FdbEntry> {
        let mut entries = Vec::new();
        for bucket in self.buckets.iter() {
            for way in 0..WAYS {
                let key = bucket.keys[way].load(Ordering::Relaxed);
                let value = Value(bucket.values[way].load(Ordering::Relaxed));
                let domain = domain_of(key);
                let port = PortId::new(value.port());
                if let (false, Some(domain), Some(port)) = (self.is_old(value, now), domain, port) {
                    let mac = Mac::from_bits(key);
                    entries.push(FdbEntry { domain, mac, port, seen_seconds: value.seen() });
                }
            }
        }
        entries
    }

    /// Seconds after which an address that was not heard is forgotten.
    pub fn ageing_seconds(&self) -> u32 {
        self.limits.ageing_seconds()
    }

    /// Addresses behind a port, old ones included until the next sweep.
    #[expect(clippy::disallowed_methods, reason = "control thread; workers only try this lock")]
    pub fn addresses_of(&self, port: PortId) -> u32 {
        self.ledger.lock().ports[port.index()]
    }

    /// Counts since start.
    pub fn statistics(&self) -> FdbStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FdbStatistics {
            entries: self.entries.load(Ordering::Relaxed),
            capacity: self.buckets.len() * WAYS,
            huge_pages: self.buckets.is_huge(),
            learned: read(&self.counters.learned),
            moved: read(&self.counters.moved),
            evicted: read(&self.counters.evicted),
            aged: read(&self.counters.aged),
            over_quota: read(&self.counters.over_quota),
            no_room: read(&self.counters.no_room),
            deferred: read(&self.counters.deferred),
            damped: read(&self.counters.damped),
        }
    }
}

impl Ledger {
    fn add(&mut self, key: u64, port: PortId) {
        self.ports[port.index()] += 1;
        self.domains[(key >> 48) as usize] += 1;
        self.entries += 1;
    }

    fn remove(&mut self, key: u64, value: Value) {
        let port = &mut self.ports[value.port()];
        *port = port.saturating_sub(1);
        let domain = &mut self.domains[(key >> 48) as usize];
        *domain = domain.saturating_sub(1);
        self.entries = self.entries.saturating_sub(1);
    }
}
