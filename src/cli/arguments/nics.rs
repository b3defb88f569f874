//! What `viaduct nics` takes.

use clap::Args;

use super::DaemonArguments;

/// `viaduct nics`.
#[derive(Debug, Args)]
#[command(
    after_help = "What the kernel tells of network cards and their virtual functions (VFs), a line each. It needs no
daemon; where one answers, PORT is what it uses the card for. As root it tells too which process holds
a device that vfio-pci has.

VFS is how many a card has, and can have. GROUP is the IOMMU group; `+` behind it says that other
devices are in it, with which the card can only be given away together.

SETTINGS is how a VF is set by who has its card, in the words of ip-link(8): what the card's driver
says. A VLAN, a priority, a link state and a rate stand there only if one is set.

Examples:
  viaduct nics
  viaduct nics --json | jq -r '.[] | select(.of.interface == \"ens1f0\") | .address'"
)]
pub struct NicsArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}
