//! A daemon that goes on in another process, as it is shown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a handover came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverView {
    /// Whether it was only seen whether it could be done.
    pub dry_run: bool,
    /// The process that goes on, or could have.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Guests that it has taken over, or could have.
    pub guests: u32,
    /// Milliseconds that it took to be ready, while frames passed.
    pub prepared_ms: u64,
    /// Microseconds in which no frame moved; null if it was not done, or is not known.
    pub pause_us: Option<u64>,
}

/// What a daemon took over, and from whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOverView {
    /// The process that had it before.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When.
    pub at: Timestamp,
    /// Guests that went on without connecting again.
    pub guests: u32,
    /// Microseconds in which no frame moved.
    pub pause_us: u64,
}
