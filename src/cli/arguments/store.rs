//! What can be typed of the store as a whole.

use clap::{Args, Subcommand};

use super::DaemonArguments;

/// `viaduct store`.
#[derive(Debug, Args)]
pub struct StoreCommand {
    /// What to do with it.
    #[command(subcommand)]
    pub action: StoreAction,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum StoreAction {
    /// Let go of the values that the daemon keeps in force although the store lost all of them at once
    Accept(AcceptArguments),
}

/// `viaduct store accept`.
#[derive(Debug, Args)]
#[command(
    after_help = "A store that loses all its values at once, those of all hosts, was wiped by \
mistake or is the
wrong one; so the daemon keeps what is in force, says so in `viaduct show errors`, and lets go of each
value when it is written again. This lets go of the rest: it is what was meant.

Examples:
  viaduct store accept"
)]
pub struct AcceptArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}
