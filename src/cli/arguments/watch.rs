//! What can be typed to follow frames.

use std::path::PathBuf;

use clap::Args;

use super::DaemonArguments;

/// `viaduct capture`.
#[derive(Debug, Args)]
#[command(
    after_help = "What comes from the port, what goes to it, and what of it is dropped, there or at another
port, with the reason as comment. A frame that comes from the port is inbound, one that goes to it
outbound. Frames are as they were at the port: what a guest left to be done (checksums, segments) is
not done yet. Of what comes faster than it is read frames are lost: they are counted, told at the end,
and stand in the file's interface statistics. Ends by Ctrl-C.

FILTER has the words of other capture programs:
  arp, ip, ip6, PROTOCOL                  tcp, udp, icmp, icmpv6, gre... or `protocol NUMBER`
  [src|dst] [host] ADDRESS                ARP's addresses too
  [src|dst] net ADDRESS/LENGTH
  [src|dst] port NUMBER
  [src|dst] mac MAC
  vlan [NUMBER], ethertype NUMBER         as the frame came in
  and, or, not, ( )                       terms side by side all have to hold

Examples:
  viaduct capture --port web
  viaduct capture --port web -w - | tcpdump -nr -
  viaduct capture --port web -w - | wireshark -ki -
  viaduct capture --drops --seconds 10
  viaduct capture --port web --filter 'tcp port 80 or arp' --count 100 -w web.pcapng"
)]
pub struct CaptureArguments {
    /// The port or uplink; may be given more than once [default: all]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<String>,
    /// Only frames that are dropped
    #[arg(long)]
    pub drops: bool,
    /// Only frames that match
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// End after so many frames
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// The most octets that are kept of a frame
    #[arg(long, value_name = "OCTETS", default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(14..=131_072))]
    pub snaplen: u32,
    /// Write pcapng to a file, or with `-` to standard output; without it, a line for each frame
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Print JSON, an object a line
    #[arg(long, conflicts_with = "write")]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// `viaduct trace`.
#[derive(Debug, Args)]
#[command(
    after_help = "Frames that pass, each with the steps that its worker took: the port that it came from and
whether it may send it, how it was known where to, and each port that it was to go to, with the rule
or the reason. It is a sample: of the frames that a worker takes in one go, one is traced at most.

The first line has the frame as `viaduct test-frame` reads it, and FILTER is that of `viaduct capture`.

Examples:
  viaduct trace --port web
  viaduct trace --port web --filter 'icmp' --count 1
  viaduct trace --filter 'dst host 10.0.0.5' --seconds 10"
)]
pub struct TraceArguments {
    /// The port or uplink that frames come from; may be given more than once [default: all]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<String>,
    /// Only frames that match
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// End after so many frames
    #[arg(long, value_name = "NUMBER", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}
