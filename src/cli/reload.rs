//! `viaduct reload`: has the daemon read its configuration anew.

use std::io::Write;

use control::show::view::ReloadOutcome;
use control::show::{Answer, Query};

use super::arguments::ReloadArguments;
use super::failure::Failure;
use super::place;
use super::show::{ASKED, Daemon, Page};
use crate::render;

/// Reloads the configuration, or tells what that would do; fails if nothing of it may be done.
pub fn reload(arguments: &ReloadArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let socket = place::socket(&arguments.daemon)?;
    let query = Query::Reload { dry_run: arguments.dry_run, partly: arguments.partly };
    let Answer::Reload(view) = Daemon { socket }.ask(query)? else { unreachable!("{ASKED}") };
    Page { json: arguments.json, out }.print(&view, render::reload)?;
    if view.outcome == ReloadOutcome::Refused { Err(Failure::Told) } else { Ok(()) }
}
