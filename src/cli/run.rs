//! `viaduct run`: the daemon.

use std::io::IsTerminal;

use control::config::Config;
use tracing_subscriber::EnvFilter;

use super::arguments::{LogFormat, RunArguments};
use super::failure::Failure;

/// Runs the daemon until a signal ends it.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    start_log(arguments.log_format, &arguments.log);
    control::daemon::run(config).map_err(|error| Failure::Failed(error.to_string()))
}

/// Sends all that is traced to standard error, from now on.
fn start_log(format: LogFormat, filter: &str) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Reads the value of `--log`.
pub fn log_filter(text: &str) -> Result<String, String> {
    const REMEDY: &str = "write error, warn, info, debug or trace, or PART=LEVEL";
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A word alone would be taken for the name of a part, of which then all is logged.
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_word && !LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level)) {
        return Err(format!("that is no level; {REMEDY}"));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; {REMEDY}")),
    }
}
