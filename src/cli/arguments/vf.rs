//! What can be said of a VF that is given to a guest.

use clap::{Args, ValueEnum};
use control::model::VfName;

/// Options of `viaduct port add --kind vf-direct`.
#[derive(Debug, Args)]
pub struct VfArguments {
    /// The VF: the interface of its PF and its number, such as ens1f0/3, or its PCI address
    #[arg(long)]
    pub vf: Option<VfName>,
    /// The priority in the VLAN tags of its frames, 0 to 7. Default: 0
    #[arg(long, value_name = "PRIORITY")]
    pub qos: Option<u8>,
    /// Let the guest send from other addresses than its own
    #[arg(long)]
    pub no_spoofchk: bool,
    /// Let the guest have its NIC change its address, take frames to others, and be promiscuous
    #[arg(long)]
    pub trust: bool,
    /// What the guest is told of the link. Default: auto, which is what the wire says
    #[arg(long, value_name = "STATE")]
    pub link_state: Option<LinkState>,
    /// The most that the guest may send, in Mbit/s. Default: no bound
    #[arg(long, value_name = "MBIT")]
    pub max_rate: Option<u32>,
}

/// What a guest is told of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkState {
    /// What the wire says
    Auto,
    /// That it is up
    Enable,
    /// That it is down
    Disable,
}
