//! The configuration, and what became of reading it anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ErrorView;

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Every key that has a value, defaults among them, by its path.
    pub values: BTreeMap<String, Value>,
    /// Reloads that were done, those that changed nothing among them.
    pub applied: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// The last one; null if there was none.
    pub last: Option<LastReloadView>,
}

/// The last reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReloadView {
    /// When it was.
    pub at: jiff::Timestamp,
    /// What it came to.
    pub outcome: ReloadOutcome,
}

/// What a reload came to, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadView {
    /// The file that was read.
    pub file: PathBuf,
    /// What it came to.
    pub outcome: ReloadOutcome,
    /// The keys that are different.
    pub changes: Vec<ChangeView>,
    /// What is wrong with the file, or could not be done; warnings among it.
    pub problems: Vec<ErrorView>,
}

/// What a reload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// The file is in force.
    Applied,
    /// It is, but for the keys that need a restart.
    Partly,
    /// It was in force already.
    Unchanged,
    /// Nothing was done, and it could be: that was all that was asked.
    Possible,
    /// Nothing has changed.
    Refused,
}

/// A key that is different in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// Its path, such as `workers.cores`.
    pub key: String,
    /// Its line in the file, or that of what is around it.
    pub line: Option<usize>,
    /// What is in force; null if nothing is.
    pub from: Option<Value>,
    /// What the file says; null if it has no such key.
    pub to: Option<Value>,
    /// Why it needs a restart; null if it does not.
    pub restart: Option<String>,
}
