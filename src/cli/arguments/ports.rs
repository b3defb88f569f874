//! `viaduct port`, and what it takes.

use clap::{Args, Subcommand, ValueEnum};
use control::frame::FrameFilter;
use control::model::{
    AddressPair, Devargs, InterfaceName, Mac, Name, PortUuid, SocketName, StationAddress,
};

use super::{StoreArguments, VfArguments};

/// `viaduct port`.
#[derive(Debug, Args)]
pub struct PortArguments {
    /// What to do with it.
    #[command(subcommand)]
    pub action: PortAction,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// What to do with a port.
#[derive(Debug, Subcommand)]
pub enum PortAction {
    /// Add a port to this host, and print its UUID
    Add(Box<PortAdd>),
    /// Delete a port of this host
    #[command(after_help = "Examples:
  viaduct port del web
  viaduct port del 6f1c0f5e")]
    Del {
        /// Its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "PORT")]
        port: String,
    },
    /// Copy a port's frames to another port, from now on and until that is taken back
    #[command(
        after_help = "A port has one mirror, which takes the place of a former one. The copies are sent to the other port
whatever its security groups say; what it cannot take is lost to it alone, and counted there. See
`viaduct capture` for a file of frames.

Examples:
  viaduct port mirror web --to ids
  viaduct port mirror web --to ids --direction ingress --filter 'tcp port 80'
  viaduct port mirror web --off"
    )]
    Mirror(PortMirror),
}

/// `viaduct port mirror`.
#[derive(Debug, Args)]
pub struct PortMirror {
    /// The port whose frames are copied: its name, its UUID, or the first 4 or more digits of the UUID
    #[arg(value_name = "PORT")]
    pub port: String,
    /// The port that is sent the copies; likewise
    #[arg(long, value_name = "PORT", required_unless_present = "off")]
    pub to: Option<String>,
    /// Only frames towards the port's owner (`ingress`), or only those from it (`egress`)
    #[arg(long, value_enum)]
    pub direction: Option<MirrorDirection>,
    /// Only these frames, as `viaduct capture` takes it
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<FrameFilter>,
    /// Take the mirror back
    #[arg(long, conflicts_with_all = ["to", "direction", "filter"])]
    pub off: bool,
}

/// Which way frames go, as the port's owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MirrorDirection {
    /// Towards the port's owner
    Ingress,
    /// From the port's owner
    Egress,
}

/// `viaduct port add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  viaduct port add --name web --network red --mac 52:54:00:00:00:01 --socket web.sock \\
      --ip 10.0.0.5 --ip 2001:db8::5 --group web
  viaduct port add --network red --socket router.sock --allow 10.1.0.0/16 --group routers
  viaduct port add --network red --socket /run/guests/db.sock --mode server --no-port-security
  viaduct port add --network red --kind ethdev --device net_tap0,iface=tap0
  viaduct port add --network red --kind tap --interface dhcp-red
  viaduct port add --network red --kind tap --interface vpp1a2b --bridge br-1a2b --member tap1a2b
  viaduct port add --network red --kind vf-direct --vf ens1f0/3 --mac 52:54:00:00:00:02")]
pub struct PortAdd {
    /// The network that it is on: its name, its UUID, or the first 4 or more digits of the UUID
    #[arg(long)]
    pub network: String,
    /// What is attached: a guest by a vhost-user socket, a DPDK ethernet device, a tap interface of
    /// this host, which the switch makes, or a VF that is given to a guest
    #[arg(long, default_value = "vhost-user")]
    pub kind: PortKind,
    /// The address of the guest. Default: one made from the port's UUID, which is printed
    #[arg(long)]
    pub mac: Option<Mac>,
    /// The guest's socket: a name under the configured socket directory, or an absolute path
    #[arg(long, value_name = "PATH")]
    pub socket: Option<SocketName>,
    /// Who makes the socket: `client` leaves it to the guest's VMM, `server` to the switch.
    /// Default: client
    #[arg(long)]
    pub mode: Option<SocketMode>,
    /// Pairs of queues that the guest may use, 1 to 16. Default: 1
    #[arg(long, value_name = "PAIRS")]
    pub queues: Option<u16>,
    /// The DPDK device: a PCI address or a virtual device, with arguments after commas
    #[arg(long)]
    pub device: Option<Devargs>,
    /// The tap interface, by a name that no interface has yet
    #[arg(long, value_name = "NAME")]
    pub interface: Option<InterfaceName>,
    /// A Linux bridge for the tap interface, made if it is not there; goes with --member
    #[arg(long, value_name = "NAME", requires = "member")]
    pub bridge: Option<InterfaceName>,
    /// The interface that the bridge connects the tap interface to; it may come later
    #[arg(long, value_name = "NAME", requires = "bridge")]
    pub member: Option<InterfaceName>,
    /// Of a VF that is given to a guest.
    #[command(flatten)]
    pub vf: VfArguments,
    /// A name for people
    #[arg(long)]
    pub name: Option<Name>,
    /// Its UUID. Default: a new one
    #[arg(long)]
    pub uuid: Option<PortUuid>,
    /// The CPUs whose workers may poll it, with commas between. Default: all workers
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    pub cores: Vec<u32>,
    /// An address that was given to it; may be given several times
    #[arg(long = "ip", value_name = "ADDRESS")]
    pub fixed_ips: Vec<StationAddress>,
    /// What it may send from besides: an address or prefix, and the MAC address that goes with it if
    /// that is not the port's; may be given several times
    #[arg(long = "allow", value_name = "IP[,MAC]")]
    pub allowed_pairs: Vec<AddressPair>,
    /// A security group that it has: its name, its UUID, or the first 4 or more digits of the UUID;
    /// may be given several times. Without any, nothing passes but ARP, neighbour discovery and DHCP
    #[arg(long = "group", value_name = "GROUP", conflicts_with = "no_port_security")]
    pub groups: Vec<String>,
    /// Let all frames pass, from whatever address. So it is for an ethdev without --mac, and for a
    /// tap interface
    #[arg(long)]
    pub no_port_security: bool,
    /// Let it send only from its own addresses, and pass only what its groups permit: for a tap
    /// interface, which needs --mac then. For all others with an address it is so
    #[arg(long, conflicts_with = "no_port_security")]
    pub port_security: bool,
    /// Attach it, but let no frames pass
    #[arg(long)]
    pub down: bool,
}

/// What is attached by a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PortKind {
    /// A guest, by a vhost-user socket
    VhostUser,
    /// A DPDK ethernet device
    Ethdev,
    /// A tap interface of this host
    Tap,
    /// A VF that is given to a guest
    VfDirect,
}

/// Who makes a vhost-user socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketMode {
    /// The guest's VMM
    Client,
    /// The switch
    Server,
}
