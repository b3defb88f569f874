//! `viaduct generate`: man pages and shell completions, from the definition of the command line.
//!
//! A hidden command, not a program of its own, because only the program knows its arguments: so what
//! is packaged is of the very binary beside it, and nothing is compiled twice.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::arguments::Arguments;
use super::failure::Failure;

/// Writes `man/*.1`, a page for each command, and `completions/`, a file for each shell.
pub fn generate(directory: &Path) -> Result<(), Failure> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    let failed = |error| Failure::Failed(format!("writing into {}: {error}", directory.display()));
    fs::create_dir_all(&man).and_then(|()| fs::create_dir_all(&completions)).map_err(failed)?;
    let mut command = Arguments::command();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "viaduct", &completions).map_err(failed)?;
    }
    clap_mangen::generate_to(command, &man).map_err(failed)
}
