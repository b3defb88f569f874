//! The store as the daemon sees it.

use serde::{Deserialize, Serialize};

use super::ErrorView;
use crate::key::Key;

/// Where desired state is read and actual state is written, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Where it is: `directory /var/lib/viaduct`.
    pub location: String,
    /// Whether it cannot be read at present. What is in force stays in force.
    pub away: bool,
    /// Where what is in force was read.
    pub source: SourceView,
    /// The revision that was read last; it grows with every change.
    pub revision: u64,
    /// Desired values that concern this host.
    pub values: u64,
    /// Those of them that the store lost all at once, and that are kept in force.
    pub held: Vec<Key>,
    /// How often the store was followed from the beginning: once, and once after each failure.
    pub readings: u64,
    /// Seconds since desired state last changed; null if it never did.
    pub changed_seconds: Option<u64>,
    /// Whether this daemon is the one that reports for the host.
    pub claimed: bool,
    /// Values of actual state that were written and deleted since the start.
    pub reported: u64,
    /// Why actual state could not be written the last time; null if it could.
    pub report_failure: Option<String>,
    /// What is wrong with the store as such.
    pub problems: Vec<ErrorView>,
}

/// Where what is in force was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceView {
    /// Nothing was read yet.
    Unknown,
    /// In the store.
    Store,
    /// In the file that an earlier process left (`store.cache`).
    Cache,
}

/// What is let go of a store that was wiped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptView {
    /// The values that were kept in force until now.
    pub let_go: Vec<Key>,
}
