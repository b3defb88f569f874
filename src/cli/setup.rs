//! `viaduct setup`: what a host lacks, done where that can be, told where not.

use std::io::Write;

use control::config::Config;
use control::setup::{self, Outcome, Purpose};

use super::arguments::SetupArguments;
use super::failure::Failure;
use super::show;
use crate::render;

/// Prepares the host, unless it is only to be told; fails while anything is lacking.
pub fn setup(arguments: &SetupArguments, out: &mut dyn Write) -> Result<(), Failure> {
    // Without a look at the machine: directories, for one, may not be there yet.
    let config = Config::read(&arguments.config)?;
    let purpose = if arguments.handover { Purpose::Handover } else { Purpose::Start };
    let act = if arguments.dry_run { setup::tell } else { setup::prepare };
    let outcomes = act(&config, purpose);
    let outcomes = outcomes.map_err(|problem| Failure::Failed(problem.to_string()))?;
    if arguments.json {
        show::print_json(&outcomes, out)?;
    } else {
        write!(out, "{}", render::setup(&outcomes))?;
    }
    if outcomes.iter().all(Outcome::is_well) { Ok(()) } else { Err(Failure::Told) }
}
