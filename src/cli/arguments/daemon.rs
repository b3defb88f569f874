//! Where the daemon is that a command asks.

use std::path::PathBuf;

use clap::Args;

use super::WHERE;

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct DaemonArguments {
    /// The configuration that names the daemon's socket [default: /etc/viaduct/viaduct.toml]
    #[arg(long, value_name = "FILE", global = true, help_heading = WHERE)]
    pub config: Option<PathBuf>,
    /// The daemon's socket itself
    #[arg(long, value_name = "PATH", global = true, help_heading = WHERE, conflicts_with = "config")]
    pub socket: Option<PathBuf>,
}
