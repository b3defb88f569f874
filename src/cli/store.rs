//! `viaduct store`: what concerns the store as a whole.

use std::io::Write;

use control::show::{Answer, Query};

use super::arguments::{AcceptArguments, StoreAction, StoreCommand};
use super::failure::Failure;
use super::place;
use super::show::{ASKED, Daemon, Page};

/// Does what was asked with the store.
pub fn store(command: &StoreCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match &command.action {
        StoreAction::Accept(arguments) => accept(arguments, out),
    }
}

/// Lets the daemon take a store that was wiped at its word.
fn accept(arguments: &AcceptArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let daemon = Daemon { socket: place::socket(&arguments.daemon)? };
    let Answer::Accept(view) = daemon.ask(Query::Accept {})? else { unreachable!("{ASKED}") };
    let mut page = Page { json: arguments.json, out };
    page.print(&view, |view| view.let_go.iter().map(|key| format!("let go {key}\n")).collect())
}
