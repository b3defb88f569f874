//! `viaduct handover`.

use clap::Args;

use super::DaemonArguments;

/// `viaduct handover`.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon starts the program that lies where its own lay, with the same arguments. The
new process reads the configuration and the store, starts DPDK and compiles rules while frames pass; then it
takes over the guests' connections, memory and rings, and the former one ends. Guests notice a pause of
milliseconds and nothing else. Devices of DPDK and tap interfaces are closed and opened again.

All or nothing: whatever fails before the new process has all, a wrong configuration say, leaves the
former one running, and the exit status is 1. DPDK's huge pages must be free a second time meanwhile.

Examples:
  viaduct handover --dry-run
  viaduct handover"
)]
pub struct HandoverArguments {
    /// Start the new process and prepare all, see whether it could take over, and leave it at that
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}
