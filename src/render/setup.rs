//! What a host lacks, and what was done about it.

use std::collections::BTreeSet;

use control::setup::{Outcome, State};

use super::table::Table;

/// A line for each thing that a host must have, and one with all parameters of the kernel together.
pub fn setup(outcomes: &[Outcome]) -> String {
    let mut table = Table::new(&["STATE", "PART", "FOUND"], "nothing is needed");
    let mut parameters = BTreeSet::new();
    for outcome in outcomes {
        let Outcome { part, state, found, remedy, kernel_parameters } = outcome;
        let state = match state {
            State::Ok => "ok",
            State::Done => "done",
            State::Lacking => "lacking",
            State::Boot => "boot",
            State::Hand => "hand",
        };
        let found = match remedy.is_empty() {
            true => found.clone(),
            false => format!("{found}; {remedy}"),
        };
        table.row([state.to_owned(), part.clone(), found]);
        parameters.extend(kernel_parameters.iter().map(String::as_str));
    }
    let mut text = table.text();
    if !parameters.is_empty() {
        let parameters: Vec<&str> = parameters.into_iter().collect();
        text += &format!("\nkernel parameters: {}\n", parameters.join(" "));
    }
    text
}
