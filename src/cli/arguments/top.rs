//! `viaduct top`.

use std::time::Duration;

use clap::Args;

use super::DaemonArguments;
use crate::top::Sort;

/// `viaduct top`.
#[derive(Debug, Args)]
#[command(after_help = "Keys: q leave, s sort by the next column, / filter, p pause, up and down \
scroll.
The daemon may go away meanwhile: the screen says so, and goes on when it is back.

Examples:
  viaduct top
  viaduct top --sort drops --filter red
  viaduct top --batch --count 2 --interval 5
  viaduct top --batch --json | jq '.drops[0].reason'")]
pub struct TopArguments {
    /// Seconds between two readings, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// What ports are sorted by
    #[arg(long, value_name = "BY", default_value = "frames")]
    pub sort: Sort,
    /// Only ports in whose name, UUID or network this text is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Print tables in place of a screen, for scripts
    #[arg(long)]
    pub batch: bool,
    /// With --batch: how often
    #[arg(long, value_name = "NUMBER", default_value = "1", requires = "batch", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// With --batch: print JSON, an object a line, with exact numbers
    #[arg(long, requires = "batch")]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write a number of seconds from 0.1 to 3600".to_owned()),
    }
}
