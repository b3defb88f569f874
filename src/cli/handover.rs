//! `viaduct handover`: has a new process go on in the place of the daemon's.

use std::io::Write;

use control::show::{Answer, Query};

use super::arguments::HandoverArguments;
use super::failure::Failure;
use super::place;
use super::show::{ASKED, Daemon, Page};
use crate::render;

/// Hands over, or tells whether that could be done.
pub fn handover(arguments: &HandoverArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let socket = place::socket(&arguments.daemon)?;
    let query = Query::Handover { dry_run: arguments.dry_run };
    let Answer::Handover(view) = Daemon { socket }.ask(query)? else { unreachable!("{ASKED}") };
    Page { json: arguments.json, out }.print(&view, render::handover)
}
