//! What a store lost all at once.
//!
//! Objects are deleted one by one, or a few together; a store from which everything vanishes, that of
//! all other hosts too, was wiped, or its keys were moved, or it is the wrong one. Forwarding goes on
//! then as it was. Each value is held until it is written again, and the rest until somebody accepts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Listing;
use crate::key::Key;
use crate::model::{HostName, RawValue};
use crate::problem::Problem;

/// The values that are held.
#[derive(Default)]
pub(super) struct Wiped {
    held: BTreeMap<Key, RawValue>,
}

impl Wiped {
    /// What should be in force, when a store says `now` and `before` was in force on the host.
    pub(super) fn fill(
        &mut self,
        before: Option<&Listing>,
        now: Arc<Listing>,
        host: &HostName,
    ) -> Arc<Listing> {
        let of_host = |key: &Key| matches!(key, Key::Port { host: its, .. } if its == host);
        if now.void
            && self.held.is_empty()
            && let Some(before) = before.filter(|before| before.values.keys().any(of_host))
        {
            self.held.clone_from(&before.values);
        }
        self.held.retain(|key, _| !now.values.contains_key(key));
        if self.held.is_empty() {
            return now;
        }
        let mut filled = Listing::clone(&now);
        filled.values.extend(self.held.iter().map(|(key, value)| (key.clone(), value.clone())));
        Arc::new(filled)
    }

    /// The keys of what is held.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.held.keys()
    }

    /// Holds nothing any more. Returns what was held.
    pub(super) fn accept(&mut self) -> BTreeMap<Key, RawValue> {
        std::mem::take(&mut self.held)
    }

    /// That values are held, if any are.
    pub(super) fn problem(&self, location: &str) -> Option<Problem> {
        let count = self.held.len();
        let values = if count == 1 { "value that it had is" } else { "values that it had are" };
        (count > 0).then(|| {
            Problem::whole(
                location,
                format!("all desired values were gone at once; {count} {values} still in force"),
                "write them again, or let them go by `viaduct store accept`",
            )
        })
    }
}
