//! A worker's way to the FDB: looking up and learning during one burst.
//!
//! What is done for every frame takes no lock. What happens once per new or moved address does, is
//! never waited for, and is held small per burst.

use std::sync::atomic::Ordering;

use vhost::prefetch;

use super::{Bucket, Fdb, INSERTS_PER_BURST, Ledger, MOVES_PER_SECOND, Place, Value, WAYS};
use crate::headers::Mac;
use crate::snapshot::{DomainId, PortId};

/// The FDB during one burst, see [`Fdb::learner`].
pub struct Learner<'a> {
    fdb: &'a Fdb,
    now: u32,
    inserts_left: u32,
}

impl<'a> Learner<'a> {
    #[inline(always)]
    pub(super) fn new(fdb: &'a Fdb, now: u32) -> Self {
        Self { fdb, now, inserts_left: INSERTS_PER_BURST }
    }
}

impl Learner<'_> {
    /// Where to look for an address, here and in all tables that share the FDB's hash.
    #[inline(always)]
    pub fn place(&self, domain: DomainId, mac: Mac) -> Place {
        self.fdb.hash.place(domain, mac)
    }

    /// See [`Fdb::is_large`].
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.fdb.is_large()
    }

    /// Has fetched what is known of a place. Most addresses are in their first bucket.
    #[inline(always)]
    pub fn prefetch(&self, place: Place) {
        prefetch(std::ptr::from_ref(self.fdb.first(place)).cast());
    }

    /// The port that the address was last heard on, if that is not too long ago.
    #[inline(always)]
    pub fn lookup(&self, place: Place) -> Option<PortId> {
        let value = self.fdb.find(place)?;
        let value = Value(value.load(Ordering::Relaxed));
        if self.fdb.is_old(value, self.now) { None } else { PortId::new(value.port()) }
    }

    /// Takes note that the address was heard on `port`. An address that is known there already is
    /// refreshed at most eight times in its ageing time, so that its line stays shared.
    #[inline(always)]
    pub fn learn(&mut self, place: Place, port: PortId) {
        let Some(known) = self.fdb.find(place) else { return self.admit(place, port) };
        let value = Value(known.load(Ordering::Relaxed));
        if value.port() != port.index() {
            return self.relocate(place, port);
        }
        let age = self.now.wrapping_sub(value.seen());
        if age > self.fdb.limits.ageing_seconds() / 8 {
            // If somebody else changed the entry meanwhile, theirs is as new.
            let _ = known.compare_exchange(
                value.0,
                value.refreshed(self.now).0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Takes an address over that an earlier program had learned, unless it was heard since.
    pub(super) fn restore(&mut self, place: Place, port: PortId) -> bool {
        let known = |fdb: &Fdb| fdb.find(place).is_some();
        let heard = known(self.fdb);
        if !heard {
            self.admit(place, port);
        }
        !heard && known(self.fdb)
    }

    #[cold]
    fn relocate(&mut self, place: Place, port: PortId) {
        let counters = &self.fdb.counters;
        let Some(mut ledger) = self.fdb.ledger.try_lock() else {
            counters.deferred.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(known) = self.fdb.find(place) else { return };
        let old = Value(known.load(Ordering::Relaxed));
        if old.moves_in(self.now) >= MOVES_PER_SECOND {
            counters.damped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if ledger.ports[port.index()] >= self.fdb.limits.port_quota() {
            counters.over_quota.fetch_add(1, Ordering::Relaxed);
            return;
        }
        ledger.remove(place.key, old);
        ledger.add(place.key, port);
        known.store(old.moved_to(port, self.now).0, Ordering::Relaxed);
        counters.moved.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn admit(&mut self, place: Place, port: PortId) {
        let key = place.key;
        let counters = &self.fdb.counters;
        if self.inserts_left == 0 {
            counters.deferred.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.inserts_left -= 1;
        let Some(mut ledger) = self.fdb.ledger.try_lock() else {
            counters.deferred.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if self.fdb.find(place).is_some() {
            return;
        }
        let domain = (key >> 48) as usize;
        let limits = &self.fdb.limits;
        let port_full = ledger.ports[port.index()] >= limits.port_quota();
        let domain_full = ledger.domains[domain] >= limits.domain_quota();
        let Some((bucket, way)) = self.choose(place, port, port_full, domain_full, &ledger) else {
            let refused =
                if port_full || domain_full { &counters.over_quota } else { &counters.no_room };
            refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let old = bucket.keys[way].load(Ordering::Relaxed);
        if old != 0 {
            ledger.remove(old, Value(bucket.values[way].load(Ordering::Relaxed)));
            counters.evicted.fetch_add(1, Ordering::Relaxed);
        }
        ledger.add(key, port);
        self.fdb.entries.store(ledger.entries, Ordering::Relaxed);
        bucket.values[way].store(Value::new(port, self.now).0, Ordering::Relaxed);
        bucket.keys[way].store(key, Ordering::Release);
        counters.learned.fetch_add(1, Ordering::Relaxed);
    }

    /// The place that a newcomer gets: a free one, an old one, or that of the port that has the
    /// most. Who has its quota may only replace its own.
    fn choose(
        &self,
        place: Place,
        port: PortId,
        port_full: bool,
        domain_full: bool,
        ledger: &Ledger,
    ) -> Option<(&Bucket, usize)> {
        let mut best: Option<(u64, &Bucket, usize)> = None;
        for bucket in [self.fdb.first(place), self.fdb.second(place)] {
            for way in 0..WAYS {
                let held = bucket.keys[way].load(Ordering::Relaxed);
                let value = Value(bucket.values[way].load(Ordering::Relaxed));
                let own = held != 0
                    && (!port_full || value.port() == port.index())
                    && (!domain_full || held >> 48 == place.key >> 48);
                let may_take_any = !port_full && !domain_full;
                let worth = if held == 0 && may_take_any {
                    u64::MAX
                } else if held != 0 && self.fdb.is_old(value, self.now) && (may_take_any || own) {
                    u64::MAX - 1
                } else if own {
                    u64::from(ledger.ports[value.port()])
                } else {
                    0
                };
                if worth > best.map_or(0, |(most, ..)| most) {
                    best = Some((worth, bucket, way));
                }
            }
        }
        let (worth, bucket, way) = best?;
        let mine = u64::from(ledger.ports[port.index()]);
        let replaces_own = bucket.keys[way].load(Ordering::Relaxed) != 0
            && Value(bucket.values[way].load(Ordering::Relaxed)).port() == port.index();
        // Nobody makes room for a port that has more than they have.
        (worth > mine || replaces_own).then_some((bucket, way))
    }
}
