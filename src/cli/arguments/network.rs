//! `viaduct network`.

use clap::{Args, Subcommand, ValueEnum};
use control::model::{Name, NetworkUuid, PhysnetName, Vid};

use super::StoreArguments;

/// `viaduct network`.
#[derive(Debug, Args)]
pub struct NetworkArguments {
    /// What to do with it.
    #[command(subcommand)]
    pub action: NetworkAction,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// What to do with a network.
#[derive(Debug, Subcommand)]
pub enum NetworkAction {
    /// Add a network, and print its UUID
    Add(NetworkAdd),
    /// Delete a network that no port is on
    #[command(after_help = "Examples:
  viaduct network del red
  viaduct network del 6f1c0f5e")]
    Del {
        /// Its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "NETWORK")]
        network: String,
    },
}

/// `viaduct network add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  viaduct network add --name red --physnet physnet1 --vlan 100
  viaduct network add --name green --type flat --physnet physnet1 --mtu 9000
  viaduct network add --name blue --type local")]
pub struct NetworkAdd {
    /// How it leaves this host: tagged, untagged, or not at all. Default: what --physnet and --vlan
    /// make of it
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<NetworkType>,
    /// The wire that it leaves by, as the configuration calls it
    #[arg(long, value_name = "NAME")]
    pub physnet: Option<PhysnetName>,
    /// Its VLAN on the wire, 1 to 4094
    #[arg(long, value_name = "NUMBER")]
    pub vlan: Option<Vid>,
    /// A name for people
    #[arg(long)]
    pub name: Option<Name>,
    /// Its UUID. Default: a new one
    #[arg(long)]
    pub uuid: Option<NetworkUuid>,
    /// The largest payload of a frame in octets, 68 to 65535. Default: 1500
    #[arg(long, value_name = "OCTETS")]
    pub mtu: Option<u16>,
    /// Learn no addresses: only the ports' own are known
    #[arg(long)]
    pub no_learning: bool,
    /// Drop frames to unknown unicast addresses
    #[arg(long)]
    pub no_flooding: bool,
    /// Tell ports when nothing can leave by the physnet, as if their own link were lost
    #[arg(long)]
    pub follow_uplink: bool,
}

/// How a network leaves the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkType {
    /// Tagged, on a physnet
    Vlan,
    /// Untagged, on a physnet
    Flat,
    /// Not at all
    Local,
}
