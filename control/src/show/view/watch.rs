//! Frames as they pass: what is captured, and what is traced.

use serde::{Deserialize, Serialize};

use super::{PortRef, Side, TrialView};

/// What is watched from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchView {
    /// The ports; any, if there is none.
    pub ports: Vec<PortRef>,
}

/// What follows such an answer, a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A frame. Behind the line come as many octets of it as are kept.
    Frame(FrameView),
    /// What became of a frame.
    Course(Box<CourseView>),
    /// The end: nothing follows.
    End(EndView),
}

/// A frame at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameView {
    /// The port.
    pub port: PortRef,
    /// Whether it came from there or was to go there.
    pub side: Side,
    /// The port that it came from.
    pub from: PortRef,
    /// The number of the worker that had it.
    pub worker: u16,
    /// When, in nanoseconds since 1970.
    pub unix_nanoseconds: u64,
    /// Its length in octets.
    pub octets: u32,
    /// How many of them are kept.
    pub kept: u32,
    /// Why it was dropped there, if it was, by the name of [`DropView::reason`](super::DropView::reason).
    pub reason: Option<String>,
    /// What that means.
    pub help: Option<String>,
}

/// What became of a frame that came in. The rest is as it would be told of one that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourseView {
    /// When, in nanoseconds since 1970.
    pub unix_nanoseconds: u64,
    /// The number of the worker that had it.
    pub worker: u16,
    /// Its length in octets. No more than the first are among those that are shown.
    pub length: u32,
    /// How it was known where to; null if it was dropped before that was asked.
    pub destination: Option<StationOrigin>,
    /// Ports that it went to of which there was no room to record what became of it.
    pub missing: u32,
    /// What became of it.
    #[serde(flatten)]
    pub trial: TrialView,
}

/// How it is known where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StationOrigin {
    /// The address is a port's own.
    Static,
    /// The forwarding database had it.
    Learned,
    /// It is not: the frame goes to all.
    Unknown,
    /// It is for a group: the frame goes to all.
    Group,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// Why.
    pub why: String,
    /// What was given: frames or courses.
    pub given: u64,
    /// What is lacking, as it came faster than it was read.
    pub lost: Vec<LostView>,
    /// Courses that are lacking, as they were not read in time.
    pub unread: u64,
}

/// Frames at a port that are lacking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostView {
    /// The port.
    pub port: PortRef,
    /// How many.
    pub frames: u64,
}
