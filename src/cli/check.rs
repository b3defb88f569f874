//! `viaduct check`: all that is wrong, without a daemon.

use std::io::Write;
use std::path::Path;

use control::config::Config;
use control::show::view::ErrorView;
use control::store::directory::Directory;

use super::arguments::CheckArguments;
use super::failure::Failure;
use super::{block_on, place, show};
use crate::render;

/// Tells all problems; fails if errors are among them.
pub fn check(arguments: &CheckArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let usual = Path::new(Config::PATH);
    let config = match (&arguments.config, &arguments.directory) {
        (Some(config), _) => Some(config.as_path()),
        (None, Some(_)) => None,
        (None, None) if usual.exists() => Some(usual),
        (None, None) => {
            return Err(Failure::Wrong(place::no_configuration("the store's directory")));
        }
    };
    let mut budget = None;
    let problems = match (&arguments.directory, config) {
        (Some(directory), config) => {
            let store = Directory::new(directory);
            if let Some(config) = config {
                budget = block_on(control::check::budget(&store, config))?;
            }
            block_on(control::check::check(&store, config))?
        }
        // Where the store is, only a configuration that can be read tells.
        (None, config) => match Config::read(config.unwrap_or(usual)) {
            Ok(read) => {
                let store = control::store::open(&read.store)?;
                budget = block_on(control::check::budget(&*store, config.unwrap_or(usual)))?;
                block_on(control::check::check(&*store, config))?
            }
            Err(errors) => errors.problems,
        },
    };
    if arguments.json {
        let views: Vec<ErrorView> = problems.iter().map(ErrorView::from).collect();
        show::print_json(&views, out)?;
    } else if problems.is_empty() {
        writeln!(out, "nothing is wrong")?;
    } else {
        for problem in &problems {
            writeln!(out, "{}", render::problem(problem))?;
        }
    }
    if let Some(budget) = budget.filter(|_| !arguments.json) {
        writeln!(out, "\n{budget}")?;
    }
    let errors = problems.iter().any(|problem| problem.is_error());
    if errors { Err(Failure::Told) } else { Ok(()) }
}
