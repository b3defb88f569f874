//! `viaduct reload`.

use clap::Args;

use super::DaemonArguments;

/// `viaduct reload`.
#[derive(Debug, Args)]
#[command(after_help = "The daemon reads the file that it was started with. All or nothing: if \
something in it is wrong,
or needs a restart, nothing changes, and the exit status is 1. No frame is lost by a reload.

What needs no restart: log.level, [workers] with its cores, [acl], [metrics], ageing and quotas of
[fdb], vlans and cores of a physnet, and new physnets. SIGHUP does the same, and tells it to the log.

Examples:
  viaduct reload --dry-run
  viaduct reload
  viaduct reload --partly")]
pub struct ReloadArguments {
    /// Show what would be done, key by key, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do what can be done now, and leave what needs a restart
    #[arg(long)]
    pub partly: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}
