//! The program: the daemon and its commands in one binary, by subcommand.
//!
//! `cli` reads what was typed and does it, `render` makes tables of what the daemon answers, `top` a
//! live screen. The switch itself is in the workspace's members; nothing here knows how it works.

mod cli;
mod render;
mod top;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    cli::main(std::env::args_os(), &mut out, &mut err).into()
}
