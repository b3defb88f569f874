//! What would become of a frame.

use serde::{Deserialize, Serialize};

use super::{NamedRule, NetworkRef, PortRef};

/// What would become of a frame that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialView {
    /// The frame as it was written.
    pub frame: String,
    /// The frame itself, in hexadecimal digits.
    pub octets: String,
    /// The port that it would come from; null if only what one port may be sent was asked.
    pub from: Option<PortRef>,
    /// The network that it would be on, if it came so far.
    pub network: Option<NetworkRef>,
    /// Whether it would come in by that port.
    pub leave: Option<JudgementView>,
    /// Whether it would go to all other ports of the network.
    pub flooded: bool,
    /// The ports that it would go to, and whether they would be sent it.
    pub to: Vec<DeliveryView>,
    /// Whether at least one port would be sent it.
    pub passes: bool,
}

/// A port that a frame would go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The port.
    pub port: PortRef,
    /// The VLAN that the frame would be tagged with there; null if it would have no tag, or not go.
    pub vlan: Option<u16>,
    /// Whether it would be sent it.
    #[serde(flatten)]
    pub judgement: JudgementView,
}

/// What is said of a frame at one port, and on what ground.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgementView {
    /// Whether it passes.
    pub passes: bool,
    /// The rule that permits or denies it, if one does.
    pub rule: Option<NamedRule>,
    /// Why it passes without a rule, if it does.
    pub without_rule: Option<String>,
    /// Why it is dropped, by the name of [`DropView::reason`](super::DropView::reason).
    pub reason: Option<String>,
    /// What that means.
    pub help: Option<String>,
}
