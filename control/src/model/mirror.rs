//! What of a port is copied to whoever listens at another port.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Direction, PortUuid};
use crate::fields::Fields;
use crate::frame::FrameFilter;

/// The mirror of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Mirror {
    /// The port of this host that is sent the copies, whatever its own security groups say.
    pub to: PortUuid,
    /// Which way the frames go that are copied, as the port's owner sees it. Default: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Which frames are copied, as `viaduct capture --filter` takes it. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FrameFilter>,
}

impl Mirror {
    pub(super) fn read(mut fields: Fields<'_>) -> Option<Mirror> {
        fields.require("to", "write the UUID of the port that is sent the copies");
        let to = fields.text("to");
        let words = [("ingress", Direction::Ingress), ("egress", Direction::Egress)];
        let direction = fields.choice("direction", &words);
        let filter = fields.text("filter");
        fields.finish();
        Some(Mirror { to: to?, direction, filter })
    }

    /// Whether frames of this direction are copied.
    pub fn has(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|its| its == direction)
    }
}
