//! `viaduct run`: the daemon.

use std::io::IsTerminal;

use control::config::{ConfigErrors, ConfigFile, Machine};
use control::daemon::{ChangeLog, Origin};
use control::handover::{CommandLine, Predecessor};
use tracing_subscriber::{EnvFilter, reload};

use super::arguments::{LogFormat, RunArguments};
use super::failure::Failure;

/// Runs the daemon until a signal ends it.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let line = CommandLine::own();
    let line = line.map_err(|error| Failure::Failed(format!("finding this program: {error}")))?;
    let predecessor = arguments.take_over.then(Predecessor::of_stdin).transpose();
    let predecessor = predecessor.map_err(Failure::Wrong)?;
    let machine = Machine::here().map_err(ConfigErrors::one);
    let file =
        machine.and_then(|machine| Ok((ConfigFile::load(&arguments.config, &machine)?, machine)));
    let (mut config, machine) = match file {
        Ok((file, machine)) => (file.config, machine),
        Err(errors) => {
            if let Some(predecessor) = predecessor {
                let problems: Vec<_> = errors.problems.iter().map(ToString::to_string).collect();
                predecessor.refuse(&problems.join("; "));
            }
            return Err(errors.into());
        }
    };
    if let Some(level) = &arguments.log {
        config.log.level = level.clone();
    }
    let log = start_log(arguments.log_format, &config.log.level.to_string());
    let path = std::path::absolute(&arguments.config).unwrap_or(arguments.config.clone());
    let origin = Origin { path, line, machine, log, log_is_fixed: arguments.log.is_some() };
    control::daemon::run(config, origin, predecessor)
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// Sends all that is traced to standard error, from now on.
fn start_log(format: LogFormat, filter: &str) -> ChangeLog {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let filter = EnvFilter::new(filter);
    // The handle's type has the format's in it, so that it is made last.
    match format {
        LogFormat::Human => {
            let log = log.with_env_filter(filter).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| change(&handle, filter))
        }
        LogFormat::Json => {
            let log = log.json().with_env_filter(filter).with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |filter| change(&handle, filter))
        }
    }
}

fn change<S>(log: &reload::Handle<EnvFilter, S>, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    log.reload(filter).map_err(|error| error.to_string())
}
