//! What can be typed about security groups and address groups.

use clap::{Args, Subcommand, ValueEnum};
use control::model::{AddressGroupUuid, Name, PortUuid, Prefix, SecurityGroupUuid};

use super::StoreArguments;

/// `viaduct group`.
#[derive(Debug, Args)]
pub struct GroupArguments {
    /// What to do with it.
    #[command(subcommand)]
    pub action: GroupAction,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// What to do with a security group.
#[derive(Debug, Subcommand)]
pub enum GroupAction {
    /// Add a security group, and print its UUID
    Add(GroupAdd),
    /// Delete a security group that no port and no rule names
    #[command(alias = "delete")]
    Del {
        /// Its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Add, delete and list rules
    #[command(subcommand, subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Rule(RuleAction),
    /// Add, delete and list members: ports of other hosts
    #[command(subcommand, subcommand_value_name = "ACTION", subcommand_help_heading = "Actions")]
    Member(MemberAction),
}

/// `viaduct group add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  viaduct group add --name web --rule 'ingress tcp 80' --rule 'egress any'
  viaduct group add --name db --return-traffic none")]
pub struct GroupAdd {
    /// A name for people
    #[arg(long)]
    pub name: Option<Name>,
    /// Its UUID. Default: a new one
    #[arg(long)]
    pub uuid: Option<SecurityGroupUuid>,
    /// What the rules permit of the answers to what they permit: what answers look like, or nothing
    #[arg(long, value_name = "MODE", default_value = "established")]
    pub return_traffic: ReturnTraffic,
    /// A rule, as `viaduct group rule add` takes it; may be given several times
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
}

/// What a group's rules permit in the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReturnTraffic {
    /// What answers look like
    Established,
    /// Nothing
    None,
}

/// What to do with the rules of a group.
#[derive(Debug, Subcommand)]
pub enum RuleAction {
    /// Add a rule, and print its number
    #[command(after_help = "A rule is one line:

  [permit|deny] ingress|egress [ipv4|ipv6] [PROTOCOL [PORTS|TYPE[/CODE]]]
  [from|to ADDRESS|PREFIX|group GROUP|address-group GROUP] [priority NUMBER] [name NAME]

`ingress` is towards the port's owner and comes `from` somebody, `egress` goes `to` somebody.
PROTOCOL is a name, or `protocol NUMBER`, or `any`. The highest priority is looked at first; at the
same priority, deny wins. Groups in it are called by name or UUID, in double quotes if that has
blanks.

Examples:
  viaduct group rule add web ingress tcp 80 from 10.0.0.0/8
  viaduct group rule add web ingress icmp 8 from group db
  viaduct group rule add web 'deny ingress udp from address-group \"bad ones\" priority 100'
  viaduct group rule add web egress any")]
    Add {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// The rule, in one word or several
        #[arg(value_name = "RULE", required = true)]
        rule: Vec<String>,
    },
    /// Delete a rule
    #[command(alias = "delete")]
    Del {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// The rule: its number, as `list` prints it, or its name
        #[arg(value_name = "RULE")]
        rule: String,
    },
    /// Print the rules, each with its number
    List {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
    },
}

/// What to do with the members of a group.
#[derive(Debug, Subcommand)]
pub enum MemberAction {
    /// Make a port a member with these addresses, in place of those that it had as one
    #[command(
        after_help = "Ports of this host are members of the groups that they have without this.

Examples:
  viaduct group member add web e91b4d06-2a7c-4c38-8f51-6b0d7e3fa295 10.0.1.7 2001:db8::1:7"
    )]
    Add {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// The UUID of the port
        #[arg(value_name = "PORT")]
        port: PortUuid,
        /// The port's addresses and prefixes
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<Prefix>,
    },
    /// End the membership of a port
    #[command(alias = "delete")]
    Del {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// The UUID of the port
        #[arg(value_name = "PORT")]
        port: PortUuid,
    },
    /// Print the members that were added, each with its addresses
    List {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
    },
}

/// `viaduct address-group`.
#[derive(Debug, Args)]
pub struct AddressGroupArguments {
    /// What to do with it.
    #[command(subcommand)]
    pub action: AddressGroupAction,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// What to do with an address group.
#[derive(Debug, Subcommand)]
pub enum AddressGroupAction {
    /// Add an address group, and print its UUID
    #[command(after_help = "Examples:
  viaduct address-group add --name resolvers 10.0.0.53 2001:db8::53")]
    Add {
        /// A name for people
        #[arg(long)]
        name: Option<Name>,
        /// Its UUID. Default: a new one
        #[arg(long)]
        uuid: Option<AddressGroupUuid>,
        /// Its addresses and prefixes
        #[arg(value_name = "ADDRESS")]
        addresses: Vec<Prefix>,
    },
    /// Delete an address group that no rule names
    #[command(alias = "delete")]
    Del {
        /// Its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Print the addresses of a group
    List {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
    },
    /// Put addresses into a group
    Join {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// Addresses and prefixes
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<Prefix>,
    },
    /// Take addresses out of a group
    Leave {
        /// The group: its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "GROUP")]
        group: String,
        /// Addresses and prefixes, as they stand in it
        #[arg(value_name = "ADDRESS", required = true)]
        addresses: Vec<Prefix>,
    },
}
