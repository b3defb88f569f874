//! What can be typed.
//!
//! Values are read by the types of the model, so a bad address or UUID is refused here in the words
//! that the daemon would use for it. What options mean together is the commands' to say.

mod daemon;
mod groups;
mod handover;
mod judge;
mod network;
mod nics;
mod ports;
mod reload;
mod run;
mod setup;
mod store;
mod top;
mod vf;
mod watch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::daemon::DaemonArguments;
pub use self::groups::{
    AddressGroupAction, AddressGroupArguments, GroupAction, GroupAdd, GroupArguments, MemberAction,
    ReturnTraffic, RuleAction,
};
pub use self::handover::HandoverArguments;
pub use self::judge::{CheckArguments, Explain, ExplainArguments, TestFrameArguments};
pub use self::network::{NetworkAction, NetworkAdd, NetworkArguments, NetworkType};
pub use self::nics::NicsArguments;
pub use self::ports::{MirrorDirection, PortAction, PortAdd, PortArguments, PortKind, SocketMode};
pub use self::reload::ReloadArguments;
pub use self::run::{LogFormat, RunArguments};
pub use self::setup::SetupArguments;
pub use self::store::{AcceptArguments, StoreAction, StoreCommand};
pub use self::top::TopArguments;
pub use self::vf::{LinkState, VfArguments};
pub use self::watch::{CaptureArguments, TraceArguments};

/// What the options are headed by that most people need not give.
const WHERE: &str = "Where things are";

/// How hits are counted.
const ACL_HELP: &str = "Ports with the same groups share their rules, and the hits of these.

The first rule that fits a frame decides about it, and its HITS count the frame. What answers others
comes to bear where no rule permits. Hits are exact where frames come one by one. Of a burst one frame
is looked at and counts for the whole burst, of long bursts in one of eight, for as many: on a busy port
they are a sample, which is right on average; a rule that few frames hit may show none for a while.
`no rule` counts IP frames that no rule fits, those that pass without one (DHCP, neighbour discovery)
among them.

Examples:
  viaduct show acl
  viaduct show acl --port web";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "viaduct",
    version,
    about = "A userspace virtual switch for hypervisors",
    after_help = "Exit status:
  0  done
  1  it could not be done, `check` has found errors, or `setup` what is still lacking
  2  the command line or the configuration is wrong; nothing was done

Examples:
  viaduct run --config viaduct.toml
  viaduct network add --name red --physnet physnet1 --vlan 100
  viaduct group add --name web --rule 'ingress tcp 80' --rule 'egress any'
  viaduct port add --name web --network red --socket web.sock --ip 10.0.0.5 --group web
  viaduct show ports",
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the switch until SIGTERM or SIGINT
    Run(RunArguments),
    /// Prepare this host for the switch, and tell what it lacks
    Setup(SetupArguments),
    /// List this host's network cards and their virtual functions
    Nics(NicsArguments),
    /// Show what the running switch does
    Show(ShowArguments),
    /// Show what ports and workers do now, on a live screen
    Top(TopArguments),
    /// Explain in words what may enter and leave a port
    #[command(subcommand_value_name = "WHAT", subcommand_help_heading = "What")]
    Explain(ExplainArguments),
    /// Tell what would become of a frame, and by which rule; nothing is sent
    TestFrame(TestFrameArguments),
    /// Capture frames at ports, dropped ones with the reason
    Capture(CaptureArguments),
    /// Follow frames, step by step, as they pass
    Trace(TraceArguments),
    /// Give receive queues to workers by what they cost
    Rebalance(RebalanceArguments),
    /// Have the daemon read its configuration anew, without a restart
    Reload(ReloadArguments),
    /// Have a new process of the installed program go on, without guests losing their network
    Handover(HandoverArguments),
    /// Add and delete networks in the store
    #[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Network(NetworkArguments),
    /// Add and delete ports of this host in the store
    #[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Port(PortArguments),
    /// Add, change and delete security groups in the store
    #[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Group(GroupArguments),
    /// Add, change and delete address groups in the store
    #[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    AddressGroup(AddressGroupArguments),
    /// See to the store as a whole
    #[command(subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Store(StoreCommand),
    /// Tell all that is wrong with a configuration and a store, without a daemon
    Check(CheckArguments),
    /// Write man pages and shell completions into a directory
    #[command(hide = true)]
    Generate {
        /// Where `man/` and `completions/` are made.
        directory: PathBuf,
    },
}

/// `viaduct show`.
#[derive(Debug, Args)]
#[command(after_help = "Without WHAT, the switch at a glance.

Networks and ports are called by name, by UUID, or by the first 4 or more digits of the UUID;
uplinks by the name of their physnet. Received and sent are seen from the switch. Tables round
numbers and shorten UUIDs; --json does neither.

Examples:
  viaduct show
  viaduct show ports --network red
  viaduct show vhost --port web
  viaduct show drops --json | jq '.[] | select(.side == \"egress\")'")]
#[command(subcommand_value_name = "WHAT", subcommand_help_heading = "What")]
pub struct ShowArguments {
    /// What to show.
    #[command(subcommand)]
    pub what: Option<What>,
    /// Print JSON, with exact numbers
    #[arg(long, global = true)]
    pub json: bool,
    /// Print whole UUIDs and more columns
    #[arg(long, global = true, conflicts_with = "json")]
    pub wide: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Ports and uplinks: their status and what passed them
    Ports {
        /// Only ports on this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<String>,
        /// Only this port
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
    },
    /// Bonds of uplinks: their members, and who of them carries frames
    Bonds,
    /// Mirrors: whose frames are copied, and to whom
    Mirrors,
    /// Bridge domains: the networks that have ports here
    Domains {
        /// Only this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<String>,
    },
    /// The forwarding database: which address is behind which port
    Fdb {
        /// Only addresses on this network
        #[arg(long, value_name = "NETWORK")]
        network: Option<String>,
        /// Only addresses behind this port
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
    },
    /// vhost-user sessions with guests; with --port, all of one
    Vhost {
        /// Only this port
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
    },
    /// Workers: how busy they are, and with what
    Workers {
        /// Their receive queues instead, with what each takes of its worker
        #[arg(long)]
        rxqs: bool,
    },
    /// Security groups as compiled: what they take; with --port or --rules, each rule and its hits
    #[command(after_help = ACL_HELP)]
    Acl {
        /// Only the rules of this port, one by one
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
        /// The rules of all ports, one by one
        #[arg(long)]
        rules: bool,
    },
    /// Frames that were dropped, by port and reason
    Drops {
        /// Only drops at this port
        #[arg(long, value_name = "PORT")]
        port: Option<String>,
    },
    /// The configuration in force, and how it was reloaded last
    Config,
    /// Memory: the pool of frames, tables, and what is mapped of guests
    Memory,
    /// The store: what was read of it, what is written to it, and how that goes
    Store,
    /// What is wrong with desired state, and what to do about it
    Errors,
}

/// `viaduct rebalance`.
#[derive(Debug, Args)]
#[command(after_help = "What each receive queue cost in the last seconds decides; see \
`viaduct show workers --rxqs`.
Queues go to another worker only where that relieves the busiest one by more than 1% of a core. No
frame is lost or overtaken by it. Ports with `cores` stay on these.

Examples:
  viaduct rebalance --dry-run
  viaduct rebalance")]
pub struct RebalanceArguments {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON, with exact numbers
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// The configuration that names the store and the host [default: /etc/viaduct/viaduct.toml]
    #[arg(long, value_name = "FILE", global = true, help_heading = WHERE)]
    pub config: Option<PathBuf>,
    /// The store itself, in place of the configured one
    #[arg(long, value_name = "DIR", global = true, help_heading = WHERE)]
    pub store: Option<PathBuf>,
}
