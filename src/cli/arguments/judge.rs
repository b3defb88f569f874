//! What can be typed to ask what passes a port, and what is wrong with a store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DaemonArguments;

/// `viaduct explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  viaduct explain port web")]
pub struct ExplainArguments {
    /// What to explain.
    #[command(subcommand)]
    pub what: Explain,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// What to explain.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// What may enter and leave a port, by its addresses and its groups
    Port {
        /// Its name, its UUID, or the first 4 or more digits of the UUID
        #[arg(value_name = "PORT")]
        port: String,
    },
}

/// `viaduct test-frame`.
#[derive(Debug, Args)]
#[command(
    after_help = "The running switch judges the frame as its workers do. Nothing is sent, learned \
or counted.

FRAME is one of these, with options behind it:
  tcp ADDRESS:PORT > ADDRESS:PORT [FLAG...]    flags syn ack fin rst psh urg none; default: syn
  udp ADDRESS:PORT > ADDRESS:PORT              likewise sctp, dccp, udplite
  icmp TYPE[/CODE] ADDRESS > ADDRESS           likewise icmpv6
  PROTOCOL ADDRESS > ADDRESS                   a name or `protocol NUMBER`
  arp who-has ADDRESS tell ADDRESS
  arp ADDRESS is-at MAC
  raw HEX                                      a whole frame, octet by octet
Options:
  mac [SOURCE] > [DESTINATION]   default: the port's, and that of the port with the address
  vlan NUMBER                    tagged
  fragment first                 the first of several, with its transport header
  fragment OFFSET                a later one, this many octets into its packet
  target ADDRESS                 of neighbour discovery
Addresses of IPv6 with a port are written [2001:db8::1]:80.

Exit status:
  0  it passes to at least one port
  1  it is dropped, or the switch could not be asked
  2  the frame is not understood, or lacks something

Examples:
  viaduct test-frame --port web 'tcp 10.0.0.5:1234 > 10.0.0.6:5432 syn'
  viaduct test-frame --port web 'arp 10.0.0.9 is-at 52:54:00:00:00:01'
  viaduct test-frame --to-port web 'udp [2001:db8::1]:53 > [2001:db8::5]:4000 fragment 1232'"
)]
pub struct TestFrameArguments {
    /// The port or uplink that it comes from
    #[arg(long, value_name = "PORT", required_unless_present = "to_port")]
    pub port: Option<String>,
    /// Only whether this port would be sent it, wherever it comes from
    #[arg(long, value_name = "PORT", conflicts_with = "port")]
    pub to_port: Option<String>,
    /// The frame, in one word or several
    #[arg(value_name = "FRAME", required = true)]
    pub frame: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// `viaduct check`.
#[derive(Debug, Args)]
#[command(
    after_help = "With a configuration, the store is judged for its host; without, for every \
host in it, but
for what depends on physnets. What is in force is not looked at: `viaduct show errors` tells that.

Examples:
  viaduct check --config viaduct.toml
  viaduct check /var/lib/viaduct
  viaduct check staging/ --config viaduct.toml"
)]
pub struct CheckArguments {
    /// The store's directory. Default: the configured one
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The configuration [default without DIR: /etc/viaduct/viaduct.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
