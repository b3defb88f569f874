//! What etcd's v2 API answers, as far as it is used here.
//!
//! Fields that nobody asks for are passed over: the API says more, and another version may say more
//! still.

use serde::Deserialize;

/// A key and its value, or a directory and, of a recursive answer, all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// The whole key, from the root: `/networking-vpp/…`. The root itself has none.
    #[serde(default)]
    pub key: String,
    /// Whether it is a directory.
    #[serde(default)]
    pub dir: bool,
    /// The value; absent of directories, and of what was deleted.
    #[serde(default)]
    pub value: Option<String>,
    /// What is in the directory.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// The index of the last change.
    #[serde(default, rename = "modifiedIndex")]
    pub modified: u64,
}

impl Node {
    /// Calls `see` with each value in it, at whatever depth.
    pub fn each(self, see: &mut impl FnMut(String, String, u64)) {
        // A stack and not recursion: how deep it is, others decide.
        let mut waiting = vec![self];
        while let Some(node) = waiting.pop() {
            waiting.extend(node.nodes);
            if let (false, Some(value)) = (node.dir, node.value) {
                see(node.key, value, node.modified);
            }
        }
    }
}

/// What was done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Read; of answers only.
    Get,
    /// Written, whatever was there.
    Set,
    /// Written onto what was there.
    Update,
    /// Written where nothing was.
    Create,
    /// Written onto a certain value.
    CompareAndSwap,
    /// Deleted; a directory with all that was in it.
    Delete,
    /// Deleted by the end of its time.
    Expire,
    /// Deleted if it had a certain value.
    CompareAndDelete,
}

/// A change of a key, or the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// To what, and what it is now.
    #[serde(default)]
    pub node: Node,
}

impl Event {
    /// Whether the key is no more, and with it all that is below.
    pub fn is_removal(&self) -> bool {
        matches!(self.action, Action::Delete | Action::Expire | Action::CompareAndDelete)
    }
}

/// A request that etcd understood and did not grant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// Which, of the numbers below.
    #[serde(rename = "errorCode")]
    pub code: u32,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// About what.
    #[serde(default)]
    pub cause: String,
    /// The index at that time.
    #[serde(default)]
    pub index: u64,
}

impl Refusal {
    /// There is no such key.
    pub const NOT_FOUND: u32 = 100;
    /// The value is another than was assumed.
    pub const COMPARE_FAILED: u32 = 101;
    /// It is a directory.
    pub const NOT_A_FILE: u32 = 102;
    /// It is there already.
    pub const EXISTS: u32 = 105;
    /// The user may not do that.
    pub const NOT_PERMITTED: u32 = 110;
    /// The change asked for is no longer among those that are remembered.
    pub const OUTDATED: u32 = 401;
    /// From here on it is the cluster that has failed, and not the request.
    pub const INTERNAL: std::ops::Range<u32> = 300..400;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let text = r#"{"action":"expire","node":{"key":"/a/b","modifiedIndex":9,"createdIndex":7},
                       "prevNode":{"key":"/a/b","value":"1","expiration":"2026-01-01T00:00:00Z"}}"#;
        let event: Event = serde_json::from_str(text).expect("an event");
        assert!(event.is_removal());
        assert_eq!((event.node.key.as_str(), event.node.modified), ("/a/b", 9));

        let text = r#"{"action":"get","node":{"key":"/a","dir":true,"nodes":[
                       {"key":"/a/d","dir":true,"nodes":[{"key":"/a/d/x","value":"2","modifiedIndex":4}]},
                       {"key":"/a/y","value":"","modifiedIndex":5}, {"key":"/a/e","dir":true}]}}"#;
        let event: Event = serde_json::from_str(text).expect("an answer");
        let mut seen = Vec::new();
        event.node.each(&mut |key, value, index| seen.push((key, value, index)));
        seen.sort();
        assert_eq!(seen, [("/a/d/x".into(), "2".into(), 4), ("/a/y".into(), String::new(), 5)]);
    }
}
