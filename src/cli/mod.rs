//! The command line: what was typed, done, with the exit status that it comes to.
//!
//! Results go to standard output, all else to standard error. Each command is one file beside this
//! one and writes to what it is given, so that tests run the commands themselves.

mod arguments;
mod check;
mod edit;
mod failure;
mod generate;
mod groups;
mod handover;
mod judge;
mod nics;
mod pcapng;
mod pick;
mod place;
mod reload;
mod run;
mod setup;
mod show;
mod store;
#[cfg(test)]
mod tests;
mod top;
mod watch;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use self::arguments::{Arguments, Command};
use self::failure::Failure;

/// What the process ends with. `viaduct --help` documents these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It could not be done, or `check` has found errors, or `setup` something that is lacking.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was done.
    Wrong = 2,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Does what these arguments (the program's name first) say.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Exit {
    let done = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => execute(&arguments.command, out, err),
        Err(error) => Err(Failure::Usage(error)),
    };
    let done = done.and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => failure.tell(out, err),
    }
}

fn execute(command: &Command, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Setup(arguments) => setup::setup(arguments, out),
        Command::Generate { directory } => generate::generate(directory),
        Command::Nics(arguments) => nics::nics(arguments, out),
        Command::Show(arguments) => show::show(arguments, out),
        Command::Top(arguments) => top::top(arguments, out),
        Command::Explain(arguments) => judge::explain(arguments, out),
        Command::TestFrame(arguments) => judge::test_frame(arguments, out),
        Command::Capture(arguments) => watch::capture(arguments, out, err),
        Command::Trace(arguments) => watch::trace(arguments, out, err),
        Command::Rebalance(arguments) => show::rebalance(arguments, out),
        Command::Reload(arguments) => reload::reload(arguments, out),
        Command::Handover(arguments) => handover::handover(arguments, out),
        Command::Network(arguments) => edit::network(arguments, out),
        Command::Port(arguments) => edit::port(arguments, out, err),
        Command::Group(arguments) => groups::group(arguments, out),
        Command::AddressGroup(arguments) => groups::address_group(arguments, out),
        Command::Store(command) => store::store(command, out),
        Command::Check(arguments) => check::check(arguments, out),
    }
}

/// Runs the little that is asynchronous in a command.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("starting the event loop: {error}")))?;
    Ok(runtime.block_on(future))
}
