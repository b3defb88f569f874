//! A network: one bridge domain, and how it leaves this host.
//!
//! Networks are the same for every host; which wire a physnet is, each host's configuration says. So
//! what is judged here is the object alone; [`super::Desired`] judges it among the others.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Name, PhysnetName, Vid};
use crate::fields::Fields;
use crate::problem::Fault;

/// A network, as `networks/<uuid>` holds it: ports on it reach each other and nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Network {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// How the network leaves the host: `type` and what belongs to it.
    #[serde(flatten)]
    pub segment: Segment,
    /// The largest payload of a frame, in octets: what guests may set as MTU.
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: u16,
    /// Whether the network learns where addresses are from the frames it sees. Without, only the
    /// ports' own addresses are known.
    #[serde(default = "yes")]
    pub learning: bool,
    /// Whether a frame to an unknown unicast address goes to all ports. Without, it is dropped.
    /// Broadcast and multicast always go to all.
    #[serde(default = "yes")]
    pub flooding: bool,
    /// Whether ports are told when nothing can leave by the physnet, as if their own link were lost:
    /// guests by the end of their socket's session, tap interfaces by their carrier. Then they do not
    /// reach each other either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow_uplink: bool,
}

/// How a network leaves the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Segment {
    /// Tagged, on a physnet: the tag is pushed and popped at the wire.
    Vlan {
        /// The wire.
        physnet: PhysnetName,
        /// The VLAN on it.
        vlan: Vid,
    },
    /// Untagged, on a physnet.
    Flat {
        /// The wire.
        physnet: PhysnetName,
    },
    /// Not at all: ports of this host only.
    Local,
}

impl Network {
    /// MTU where none is given, in octets.
    pub const MTU: u16 = 1500;

    /// A network of this kind, all else being as it is where nothing is given.
    pub fn new(segment: Segment) -> Network {
        let (name, mtu) = (None, Network::MTU);
        Network { name, segment, mtu, learning: true, flooding: true, follow_uplink: false }
    }

    /// Reads a network, or says all that is wrong with it.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Network, Vec<Fault>> {
        let mut faults = Vec::new();
        let network = Fields::from_json(bytes, "a network", &mut faults).and_then(Network::read);
        match network {
            Some(network) if faults.is_empty() => Ok(network),
            _ => Err(faults),
        }
    }

    fn read(mut fields: Fields<'_>) -> Option<Network> {
        let name = fields.text("name");
        let segment = Segment::read(&mut fields);
        // 68: the least that IPv4 needs (RFC 791). 65535: the most that it can say, and that a guest's
        // device can be told; what a physnet carries limits networks that are on one.
        let mtu = fields.number("mtu", 68..=65535).unwrap_or(Network::MTU);
        let learning = fields.flag("learning").unwrap_or(true);
        let flooding = fields.flag("flooding").unwrap_or(true);
        let follow_uplink = fields.flag("follow_uplink").unwrap_or(false);
        if follow_uplink && segment == Some(Segment::Local) {
            let what = "a network of type `local` has no uplink to follow";
            fields.fault("follow_uplink", what, "remove it, or put the network on a physnet");
        }
        fields.finish();
        Some(Network { name, segment: segment?, mtu, learning, flooding, follow_uplink })
    }
}

impl Segment {
    /// The wire, if the network has one.
    pub fn physnet(&self) -> Option<&PhysnetName> {
        match self {
            Segment::Vlan { physnet, .. } | Segment::Flat { physnet } => Some(physnet),
            Segment::Local => None,
        }
    }

    /// The VLAN on the wire, if frames are tagged there.
    pub fn vlan(&self) -> Option<Vid> {
        match self {
            Segment::Vlan { vlan, .. } => Some(*vlan),
            Segment::Flat { .. } | Segment::Local => None,
        }
    }

    fn read(fields: &mut Fields<'_>) -> Option<Segment> {
        #[derive(Clone, Copy)]
        enum Type {
            Vlan,
            Flat,
            Local,
        }
        fields.require("type", "write `vlan`, `flat` or `local`");
        let kind = fields
            .choice("type", &[("vlan", Type::Vlan), ("flat", Type::Flat), ("local", Type::Local)]);
        let Some(kind) = kind else {
            // Which fields belong here is not known; the type's own fault is enough.
            fields.pass_over(&["physnet", "vlan"]);
            return None;
        };
        let need_physnet = "write the name of a physnet of the host's configuration";
        match kind {
            Type::Vlan => {
                fields.subject.push_str(" of type `vlan`");
                fields.require("physnet", need_physnet);
                fields.require("vlan", "write the VLAN's number, 1 to 4094");
                let physnet = fields.text("physnet");
                let number = fields.number::<u16>("vlan", Vid::MIN.into()..=Vid::MAX.into());
                let vlan = number.and_then(|number| Vid::try_from(number).ok());
                Some(Segment::Vlan { physnet: physnet?, vlan: vlan? })
            }
            Type::Flat => {
                fields.subject.push_str(" of type `flat`");
                fields.require("physnet", need_physnet);
                Some(Segment::Flat { physnet: fields.text("physnet")? })
            }
            Type::Local => {
                fields.subject.push_str(" of type `local`");
                Some(Segment::Local)
            }
        }
    }
}

fn default_mtu() -> u16 {
    Network::MTU
}

fn yes() -> bool {
    true
}
