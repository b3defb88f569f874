//! What ports may send and be sent.

use serde::{Deserialize, Serialize};

use super::PortRef;
use crate::model::{Name, SecurityGroupUuid};

/// What port security makes of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortSecurity {
    /// What is spoofed, and what no rule permits, is dropped.
    Filtered,
    /// All frames pass: port security is off.
    Open,
    /// No frame passes, as what the port's groups are is not known; its reason says what is missing.
    Closed,
}

/// A security group by its identity, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupRef {
    /// The group.
    pub uuid: SecurityGroupUuid,
    /// Its name, if it has one.
    pub name: Option<Name>,
}

/// The compiled rules of the groups that some ports have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AclView {
    /// The groups, in the order in which the ports name them.
    pub groups: Vec<GroupRef>,
    /// The ports that have just these.
    pub ports: Vec<PortRef>,
    /// Rules in force as compiled: for each direction and version of IP, with the traffic that answers.
    pub entries: u64,
    /// Memory of the compiled rules.
    pub memory_bytes: u64,
    /// The most cache lines that a look-up reads.
    pub lines_read: u64,
    /// How long the newest compilation took.
    pub compile_seconds: f64,
    /// The object that the rules name and that is not in force: until it is, the ports are closed.
    pub waits_for: Option<String>,
    /// Why the newest rules are not in force; those in force are older ones, or there are none.
    pub refusal: Option<String>,
    /// The rules in force, where they were asked for.
    pub rules: Option<AclRulesView>,
}

/// Compiled rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRulesView {
    /// Those of frames towards the port.
    pub ingress: SideView,
    /// Those of frames from the port.
    pub egress: SideView,
}

/// The rules of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideView {
    /// In the order in which they hold: the first that fits a frame decides.
    pub rules: Vec<RuleView>,
    /// IP frames that no rule fits, counted as [`RuleView::hits`] are.
    pub unmatched: u64,
}

/// A compiled rule, and how often it decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Which one.
    #[serde(flatten)]
    pub rule: NamedRule,
    /// Frames that it decided about, at all ports with these groups. Exact where frames come one by
    /// one; of a burst one frame is looked at, and counts for all of the burst.
    pub hits: u64,
}

/// A rule as it is compiled: one of a group, or the traffic that answers what one permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRule {
    /// Its group.
    pub group: GroupRef,
    /// Its number in the group.
    #[serde(rename = "rule")]
    pub number: u32,
    /// The rule as one line.
    pub line: String,
    /// If it stands here for what answers it: what of that passes.
    pub answer: Option<String>,
}
