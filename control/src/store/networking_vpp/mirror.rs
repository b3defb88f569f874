//! What was read of etcd, kept up to date by what it tells: keys and values as they stand there.
//!
//! Of other hosts' ports only that is kept which concerns this host: that one of its own has appeared
//! there. The driver writes a port under the host that it moves to and, in one way of migrating, never
//! deletes it where it was, so that whichever was written last is where the port is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::place::{self, Place};
use super::v2::{Event, Node};
use crate::model::{HostName, PortUuid};
use crate::problem::Misfit;

/// See the [module's head](self).
#[derive(Debug, Default)]
pub struct Mirror {
    /// Of this host and of all, by key.
    values: BTreeMap<String, Stored>,
    /// Where a port of this host was written later than here.
    moved: BTreeMap<PortUuid, Elsewhere>,
}

/// A value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What its key is of.
    pub place: Result<Place, Misfit>,
    /// As it stands there: JSON, if all is well.
    pub text: Arc<str>,
    /// The index of the change that wrote it.
    pub modified: u64,
}

/// A port under another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which host.
    pub host: String,
    /// The index of the change that wrote it there.
    pub modified: u64,
}

impl Mirror {
    /// The values by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.values.iter().map(|(key, stored)| (key.as_str(), stored))
    }

    /// Where a port of this host is now, if it is not here any more.
    pub fn moved_to(&self, port: PortUuid) -> Option<&str> {
        self.moved.get(&port).map(|elsewhere| elsewhere.host.as_str())
    }

    /// Puts a tree that was read in the place of all that is known below `key`. Returns whether
    /// anything is different.
    pub fn replace(&mut self, key: &str, tree: Node) -> bool {
        let mut new = BTreeMap::new();
        tree.each(&mut |key, text, modified| {
            let place = Place::of(&key);
            new.insert(key, Stored { place, text: text.into(), modified });
        });
        let old = self.take_below(key);
        let changed = old.len() != new.len()
            || !old.iter().zip(&new).all(|((a, old), (b, new))| a == b && old.text == new.text);
        self.values.append(&mut new);
        self.forget_returned();
        changed
    }

    /// Applies a change. Returns whether anything is different, to this host.
    pub fn apply(&mut self, event: &Event, host: &HostName) -> bool {
        let Node { key, dir, value, modified, .. } = &event.node;
        if event.is_removal() {
            // A directory above takes all with it, and is all that is told.
            let gone = self.take_below(key).len();
            return self.values.remove(key).is_some() || gone > 0;
        }
        let Some(text) = value.as_ref().filter(|_| !dir) else {
            // A directory was made, if need be in the place of a value.
            return self.values.remove(key).is_some();
        };
        if place::below(key, place::NODES).is_some() && !Place::is_of_host(key, host) {
            let Ok(Place::Port { host: other, port }) = Place::of(key) else { return false };
            return self.saw_elsewhere(host, port, other, *modified);
        }
        let new = Stored { place: Place::of(key), text: text.as_str().into(), modified: *modified };
        let old = self.values.insert(key.clone(), new);
        let returned = self.forget_returned();
        returned || old.is_none_or(|old| *old.text != **text)
    }

    /// Notes that a port stands under another host. Returns whether it is thereby gone from here.
    pub fn saw_elsewhere(
        &mut self,
        host: &HostName,
        port: PortUuid,
        other: String,
        modified: u64,
    ) -> bool {
        let here = self.values.get(&place::port(host.as_str(), port));
        let known = self.moved.get(&port).map(|elsewhere| elsewhere.modified);
        if here.is_none_or(|here| here.modified >= modified) || known >= Some(modified) {
            return false;
        }
        let elsewhere = Elsewhere { host: other, modified };
        self.moved.insert(port, elsewhere.clone()).is_none_or(|old| old.host != elsewhere.host)
    }

    /// Forgets ports that moved away and were then deleted or written here. Returns whether any did.
    fn forget_returned(&mut self) -> bool {
        let before = self.moved.len();
        if before > 0 {
            let mut here = BTreeMap::new();
            for stored in self.values.values() {
                if let Ok(Place::Port { port, .. }) = &stored.place {
                    here.insert(*port, stored.modified);
                }
            }
            self.moved
                .retain(|port, there| here.get(port).is_some_and(|here| *here < there.modified));
        }
        self.moved.len() != before
    }

    fn take_below(&mut self, key: &str) -> BTreeMap<String, Stored> {
        // `0` follows `/`: all keys between the two are below.
        let mut from = self.values.split_off(&format!("{key}/"));
        let mut rest = from.split_off(&format!("{key}0"));
        self.values.append(&mut rest);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: &str = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";

    fn event(action: &str, key: &str, value: Option<&str>, index: u64) -> Event {
        let node = serde_json::json!({"key": key, "dir": value.is_none() && action == "set",
                                      "value": value, "modifiedIndex": index});
        serde_json::from_value(serde_json::json!({"action": action, "node": node}))
            .expect("an event")
    }

    fn keys(mirror: &Mirror) -> Vec<&str> {
        mirror.values().map(|(key, _)| key.rsplit_once('/').expect("parts").1).collect()
    }

    #[test]
    fn removal_of_a_directory_takes_all_below_it_and_nothing_beside() {
        let host: HostName = "h".parse().expect("a name");
        let full = || {
            let mut mirror = Mirror::default();
            for (index, key) in ["a/x", "a/b/y", "a0", "a-", "b"].into_iter().enumerate() {
                let key = format!("/networking-vpp/global/{key}");
                assert!(mirror.apply(&event("set", &key, Some("1"), index as u64), &host));
                assert!(!mirror.apply(&event("update", &key, Some("1"), index as u64), &host));
            }
            mirror
        };
        for (removed, left) in [
            ("/networking-vpp/global/a", vec!["a-", "a0", "b"]),
            ("/networking-vpp/global/a/b", vec!["a-", "x", "a0", "b"]),
            ("/networking-vpp/global/b", vec!["a-", "y", "x", "a0"]),
            ("/networking-vpp", vec![]),
            ("/networking-vpp/global", vec![]),
            ("/networking-vpp/globa", vec!["a-", "y", "x", "a0", "b"]),
        ] {
            for action in ["delete", "expire", "compareAndDelete"] {
                let mut mirror = full();
                let changed = mirror.apply(&event(action, removed, None, 9), &host);
                assert_eq!((keys(&mirror), changed), (left.clone(), left.len() < 5), "{removed}");
            }
        }
        let mut mirror = full();
        assert!(mirror.apply(&event("set", "/networking-vpp/global/b", None, 9), &host));
        assert_eq!(keys(&mirror), ["a-", "y", "x", "a0"], "a directory in the place of a value");
    }

    #[test]
    fn a_port_is_where_it_was_written_last() {
        let (host, port): (HostName, PortUuid) =
            ("h".parse().expect("a name"), PORT.parse().expect("a UUID"));
        let mut mirror = Mirror::default();
        let (here, there) = (place::port("h", port), place::port("other", port));
        assert!(!mirror.apply(&event("set", &there, Some("1"), 3), &host), "not of this host");
        assert!(mirror.apply(&event("set", &here, Some("1"), 5), &host));
        assert!(!mirror.saw_elsewhere(&host, port, "other".into(), 3), "it came from there");
        assert_eq!(mirror.moved_to(port), None);

        assert!(mirror.apply(&event("set", &there, Some("1"), 7), &host));
        assert_eq!(mirror.moved_to(port), Some("other"));
        assert!(!mirror.apply(&event("set", &there, Some("2"), 8), &host), "it is there still");
        // What the driver leaves behind is no sign of a return.
        assert!(!mirror.apply(&event("delete", &there, None, 9), &host));
        assert_eq!(mirror.moved_to(port), Some("other"));

        assert!(mirror.apply(&event("set", &here, Some("1"), 10), &host), "it is back");
        assert_eq!(mirror.moved_to(port), None);
        assert!(mirror.apply(&event("set", &there, Some("1"), 11), &host));
        assert!(mirror.apply(&event("delete", &here, None, 12), &host));
        assert!(mirror.apply(&event("set", &here, Some("1"), 13), &host), "and once more");
        assert_eq!(mirror.moved_to(port), None);
    }
}
