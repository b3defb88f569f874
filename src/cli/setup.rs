//! `viaduct setup`: what a host lacks, done where that can be, told where not.

use std::io::Write;

use control::config::Config;
use control::setup::{self, Outcome};

use super::arguments::SetupArguments;
use super::failure::Failure;
use super::show;
use crate::render;

/// Prepares the host, unless it is only to be told; fails while anything is lacking.
pub fn setup(arguments: &SetupArguments, out: &mut dyn Write) -> Result<(), Failure> {
    // Without a look at the machine: directories, for one, may not be there yet.
    let config = Config::read(&arguments.config)?;
    let outcomes = if arguments.dry_run { setup::tell(&config) } else { setup::prepare(&config) };
    let outcomes = outcomes.map_err(|problem| Failure::Failed(problem.to_string()))?;
    if arguments.json {
        show::print_json(&outcomes, out)?;
    } else {
        write!(out, "{}", render::setup(&outcomes))?;
    }
    if outcomes.iter().all(Outcome::is_well) { Ok(()) } else { Err(Failure::Told) }
}
