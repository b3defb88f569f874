//! The commands, run in this process, against stored transcripts.
//!
//! A transcript is a Markdown file whose `console` blocks are commands and what they print. The
//! examples of `docs/cli.md`, `docs/security.md` and `docs/debug.md` are such, so that they stay true; `transcript.md` beside this file has
//! what nobody needs to read. Blocks are run in their order, on one store that begins empty, and with
//! a daemon that answers from `example.json`. With `UPDATE_EXPECT=1` they are written anew.

mod bed;
mod documents;
mod output;

use std::fs;
use std::path::{Path, PathBuf};

use bed::Bed;

#[test]
fn the_examples_of_the_document_are_true() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md"));
}

#[test]
fn the_examples_about_security_are_true() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md"));
}

#[test]
fn the_examples_of_debugging_are_true() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/debug.md"));
}

#[test]
fn commands_print_what_they_did_before() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/tests/transcript.md"));
}

/// Runs a transcript and compares it with what is stored.
#[track_caller]
fn check(file: &PathBuf) {
    let stored = fs::read_to_string(file).expect("the transcript is there");
    let ran = run(&stored);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(file, ran).expect("the transcript can be written");
        return;
    }
    for (line, (stored, ran)) in stored.lines().zip(ran.lines()).enumerate() {
        assert_eq!(
            ran,
            stored,
            "{}:{}: first difference; run the tests with UPDATE_EXPECT=1 and look at what changes",
            file.display(),
            line + 1
        );
    }
    assert_eq!(ran.len(), stored.len(), "{}: more or less at the end", file.display());
}

/// The text with what its commands print today.
fn run(text: &str) -> String {
    let bed = Bed::new();
    let mut ran = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        }
        match line.strip_prefix("$ ") {
            Some(command) if in_block => {
                ran += &format!("{line}\n{}", bed.run(command));
            }
            // What it printed before.
            None if in_block && line != "```console" => {}
            _ => ran += &format!("{line}\n"),
        }
    }
    ran
}
