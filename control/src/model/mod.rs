//! The objects of desired and actual state: their types, their grammar, and who may be in force.
//!
//! One model serves every store. An object is judged alone first (`from_json` of its type), then among
//! the others ([`Desired`]); both are pure functions, so the daemon, `viaduct check` and the commands
//! that edit a store say the same. Nothing here touches a file, a socket or a frame.

mod address;
mod attachment;
mod clash;
mod desired;
mod devargs;
mod group;
mod ids;
mod interface;
mod mac;
mod mirror;
mod names;
mod network;
mod port;
mod protocol;
mod reading;
mod rule;
mod rule_text;
mod state;
#[cfg(test)]
mod tests;
mod vf;
mod vlan;
mod waits;

pub use address::{Prefix, StationAddress};
pub(crate) use attachment::socket_path_misfit;
pub use attachment::{Attachment, SocketMode, SocketName, TapBridge};
pub use desired::{Desired, RawValue, Site};
pub use devargs::Devargs;
pub use group::{AddressGroup, GroupMember, ReturnTraffic, SecurityGroup};
pub use ids::{
    AddressGroupUuid, HostName, Name, NetworkUuid, PhysnetName, PortUuid, SecurityGroupUuid,
};
pub use interface::InterfaceName;
pub use mac::Mac;
pub use mirror::Mirror;
pub use network::{Network, Segment};
pub use port::{AddressPair, Port};
pub use protocol::{PortRange, Protocol};
pub use rule::{Action, Direction, Ethertype, Remote, Rule};
pub use rule_text::GroupNames;
pub(crate) use state::json;
pub use state::{ActualState, AliveState, FilterState, PhysnetState, PortState, Status};
pub use vf::{LinkState, PciAddress, VfActual, VfDirect, VfName, VfState};
pub(crate) use vlan::{RANGE_REMEDY, parse_range};
pub use vlan::{Vid, VlanRanges};
