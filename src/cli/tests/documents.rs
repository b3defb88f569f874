//! Commands that documents name: each is one, with options that there are.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::arguments::Arguments;

/// All that a text names: lines of shell blocks, and code within sentences.
fn named(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut block = None;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = block.is_none().then(|| language.to_owned());
            continue;
        }
        match block.as_deref() {
            Some("sh" | "bash") => {
                let parts = line.split(['|', ';', '#']).flat_map(|part| part.split("&&"));
                commands.extend(parts.map(str::to_owned));
            }
            Some(_) => {}
            None => commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    let only = |command: String| {
        let command = command.trim().trim_start_matches("sudo ");
        command.strip_prefix("viaduct ").map(str::to_owned)
    };
    commands.into_iter().filter_map(only).collect()
}

/// The words of a command; what stands in quotes is one, brackets say that something may be left out.
fn words(command: &str) -> Vec<String> {
    let mut words = vec!["viaduct".to_owned()];
    for (index, part) in command.replace(['[', ']'], "").split(['\'', '"']).enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn every_command_in_the_documents_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("there are documents");
    files.extend(docs.map(|entry| entry.expect("they can be listed").path()));
    let (mut seen, mut wrong) = (0, String::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "md")) {
        let text = fs::read_to_string(file).expect("it can be read");
        for command in named(&text) {
            seen += 1;
            let Err(error) = Arguments::command().try_get_matches_from(words(&command)) else {
                continue;
            };
            // What a sentence names need not be complete.
            let complete_or_begun = matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
            );
            let without_value = error.kind() == ErrorKind::InvalidValue
                && error.get(ContextKind::InvalidValue).is_some_and(
                    |value| matches!(value, ContextValue::String(value) if value.is_empty()),
                );
            if !complete_or_begun && !without_value {
                wrong += &format!("{}: viaduct {command}\n{error}\n", file.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen > 50, "the documents name {seen} commands");
}
