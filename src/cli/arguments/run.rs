//! `viaduct run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use control::config::{Config, LogLevel};

/// `viaduct run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  viaduct run --config viaduct.toml
  viaduct run --config viaduct.toml --log debug
  viaduct run --config viaduct.toml --log info,vhost=debug --log-format json")]
pub struct RunArguments {
    /// The configuration of this machine
    #[arg(long, value_name = "FILE", default_value = Config::PATH)]
    pub config: PathBuf,
    /// How the log on standard error is written
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace; PART=LEVEL for one part of the program,
    /// several of these with commas between. Default: the configuration's log.level
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
    /// Take over from the daemon at the other end of standard input, which has started this process
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text an event
    Human,
    /// A JSON object an event, one a line
    Json,
}
