//! What is known of what concerns a host: the values of its ports, of what these name, and of what
//! those name.
//!
//! Pure: it is told what was read and what came, and says what is to be read and watched. What nothing
//! names any more is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Event, EventType, KeyValue};

use super::super::list::Read;
use super::super::refer::Referral;
use super::super::{key_of, raw_value};
use crate::config::Prefix;
use crate::key::{Key, KeyRange};
use crate::model::{HostName, RawValue};
use crate::problem::Problem;

/// See the [module's head](self).
pub(super) struct Closure {
    prefix: Prefix,
    root: KeyRange,
    ranges: BTreeMap<KeyRange, Known>,
    /// The range of each watch.
    watches: BTreeMap<i64, KeyRange>,
    next_watch: i64,
}

/// What is known of a range.
#[derive(Default)]
struct Known {
    /// By key in etcd.
    found: BTreeMap<Vec<u8>, Found>,
    /// The first revision of which it is not known whether all of it was seen; `None` if the range has
    /// to be read anew.
    from: Option<i64>,
    watch: Option<i64>,
}

/// What stands at a key.
struct Found {
    key: Result<Key, Problem>,
    value: RawValue,
    referral: Referral,
}

/// A watch to be begun.
pub(super) struct Begin {
    pub id: i64,
    pub range: KeyRange,
    pub from: i64,
}

impl Closure {
    /// Nothing is known yet.
    pub fn new(prefix: Prefix, host: HostName) -> Closure {
        Closure {
            prefix,
            root: KeyRange::PortsOf(host),
            ranges: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 1,
        }
    }

    /// What concerns the host whatever it holds.
    pub fn root(&self) -> &KeyRange {
        &self.root
    }

    /// All that is needed, by what is known.
    fn needed(&self) -> BTreeSet<KeyRange> {
        let mut needed = BTreeSet::from([self.root.clone()]);
        let mut new = vec![self.root.clone()];
        while let Some(range) = new.pop() {
            let found = self.ranges.get(&range).into_iter().flat_map(|known| known.found.values());
            for named in found.flat_map(|found| found.referral.ranges()) {
                if needed.insert(named.clone()) {
                    new.push(named.clone());
                }
            }
        }
        needed
    }

    /// What has to be read.
    pub fn missing(&self) -> Vec<KeyRange> {
        let known = |range: &KeyRange| self.ranges.get(range).is_some_and(|it| it.from.is_some());
        self.needed().into_iter().filter(|range| !known(range)).collect()
    }

    /// Whether the host has nothing at all.
    pub fn is_bare(&self) -> bool {
        self.ranges.get(&self.root).is_some_and(|known| known.found.is_empty())
    }

    /// Nothing that was seen may be true any more: all has to be read again.
    pub fn doubt_all(&mut self) {
        self.ranges.values_mut().for_each(|known| known.from = None);
    }

    /// Takes in what was read.
    pub fn load(&mut self, range: &KeyRange, read: &Read) {
        let prefix = &self.prefix;
        let known = self.ranges.entry(range.clone()).or_default();
        let mut before = std::mem::take(&mut known.found);
        for kv in &read.found {
            let found = Found::after(before.remove(kv.key()), kv, prefix);
            known.found.insert(kv.key().to_vec(), found);
        }
        known.from = Some(read.revision + 1);
    }

    /// Takes in an event. Returns whether it was one of a watch that goes on.
    pub fn apply(&mut self, watch: i64, event: &Event) -> bool {
        let (Some(kv), Some(range)) = (event.kv(), self.watches.get(&watch)) else { return false };
        let Some(known) = self.ranges.get_mut(range) else { return false };
        // A revision may come in several messages: until the next one, it may not be over.
        if let Some(from) = &mut known.from {
            *from = (*from).max(kv.mod_revision());
        }
        let before = known.found.remove(kv.key());
        if event.event_type() == EventType::Put {
            known.found.insert(kv.key().to_vec(), Found::after(before, kv, &self.prefix));
        }
        true
    }

    /// That a watch has seen all up to this revision.
    pub fn progressed(&mut self, watch: i64, revision: i64) {
        let known = self.watches.get(&watch).and_then(|range| self.ranges.get_mut(range));
        if let Some(from) = known.and_then(|known| known.from.as_mut()) {
            *from = (*from).max(revision + 1);
        }
    }

    /// That the server has ended a watch: its range has to be read anew. Returns whether it was one
    /// that should go on.
    pub fn cancelled(&mut self, watch: i64) -> bool {
        let Some(range) = self.watches.remove(&watch) else { return false };
        let Some(known) = self.ranges.get_mut(&range) else { return false };
        known.from = None;
        known.watch = None;
        true
    }

    /// Forgets what is not needed any more. Returns its watches.
    pub fn forget(&mut self) -> Vec<i64> {
        let needed = self.needed();
        self.ranges.retain(|range, _| needed.contains(range));
        let (kept, gone) = std::mem::take(&mut self.watches)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, range)| needed.contains(range));
        self.watches = kept;
        gone.into_keys().collect()
    }

    /// That there are no watches, as the stream is a new one.
    pub fn unwatched(&mut self) {
        self.watches.clear();
        self.ranges.values_mut().for_each(|known| known.watch = None);
    }

    /// The watches to be begun: one of each range that has none.
    pub fn begin(&mut self) -> Vec<Begin> {
        let mut begin = Vec::new();
        for (range, known) in &mut self.ranges {
            if let (None, Some(from)) = (known.watch, known.from) {
                let id = self.next_watch;
                self.next_watch += 1;
                known.watch = Some(id);
                self.watches.insert(id, range.clone());
                begin.push(Begin { id, range: range.clone(), from });
            }
        }
        begin
    }

    /// The values by key, and what is wrong with keys.
    pub fn listing(&self) -> (BTreeMap<Key, RawValue>, Vec<Problem>) {
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for found in self.ranges.values().flat_map(|known| known.found.values()) {
            match &found.key {
                Ok(key) => drop(values.insert(key.clone(), found.value.clone())),
                Err(problem) => problems.push(problem.clone()),
            }
        }
        (values, problems)
    }
}

impl Found {
    /// What stands at a key now.
    fn after(before: Option<Found>, kv: &KeyValue, prefix: &Prefix) -> Found {
        let value = raw_value(kv.value());
        match before {
            Some(before) if before.value == value => before,
            Some(Found { key, referral, .. }) => {
                let referral = match &key {
                    Ok(key) => referral.then(key, &value),
                    Err(_) => referral,
                };
                Found { key, value, referral }
            }
            None => {
                let key = key_of(kv.key(), prefix);
                let referral =
                    key.as_ref().map(|key| Referral::new(key, &value)).unwrap_or_default();
                Found { key, value, referral }
            }
        }
    }
}
