//! What it costs to replace rules while frames flow: each switch whose rules were replaced beside the
//! same switch whose rules stayed, which had its turns in the same seconds.

use comfy_table::{CellAlignment, Table, presets};

use crate::latency::{self, micros};
use crate::outcome::{Entrant, Outcome, State, Summary};
use crate::switch::SWAPPING;

const RATE_HEADINGS: [&str; 8] =
    ["scenario", "switch", "cores", "ratio", "to the same", "sent", "lost", "swaps seen"];

const LATENCY_HEADINGS: [&str; 9] = [
    "scenario",
    "load",
    "switch",
    "cores",
    "p99.99 µs",
    "max µs",
    "p99.99 µs, guests ran",
    "max µs, guests ran",
    "lost",
];

const LEGEND: &str = "\
Rules replaced while frames flow. to the same: ratio over that of the same switch whose rules stayed.
sent, lost: frames of all turns at full load. swaps seen: changes of the rules in force that the guests
noticed, of those asked for; one that is overtaken by the next is not. guests ran: only frames on whose
way the guests' own thread never stood still for more than 20 µs, as it does where what compiles the
rules must share its core.";

/// Tables and legend, or nothing if no rules were replaced.
pub fn text(
    outcomes: &[Outcome],
    summaries: &[Summary],
    latency: &[latency::Summary],
) -> Option<String> {
    let (mut rates, mut latencies) = (table(&RATE_HEADINGS), table(&LATENCY_HEADINGS));
    for outcome in outcomes {
        for (index, entrant) in outcome.entrants.iter().enumerate() {
            let Some(before) = entrant.name.strip_suffix(SWAPPING).filter(|_| has_swaps(entrant))
            else {
                continue;
            };
            let of = |name: &str, state: State| {
                let scenario = &outcome.scenario.name;
                summaries.iter().find(|one| {
                    (&one.scenario, one.switch.as_str(), one.state) == (scenario, name, state)
                })
            };
            for state in State::ALL {
                if let Some(summary) = of(&entrant.name, state) {
                    rates.add_row(rate_row(outcome, index, summary, of(before, state)));
                }
            }
            let both = latency.iter().filter(|one| {
                one.scenario == outcome.scenario.name
                    && (one.switch == before || one.switch == entrant.name)
            });
            latencies.add_rows(both.map(latency_row));
        }
    }
    if rates.row_count() == 0 {
        return None;
    }
    let mut text = format!("{rates}\n\n");
    if latencies.row_count() > 0 {
        text += &format!("{latencies}\n\n");
    }
    Some(text + LEGEND + "\n")
}

/// Switches whose rules were to be replaced, but nobody has seen that.
pub fn unseen(outcome: &Outcome) -> impl Iterator<Item = &Entrant> {
    outcome.entrants.iter().filter(|one| one.swaps.is_some_and(|swaps| swaps.seen == 0))
}

fn has_swaps(entrant: &Entrant) -> bool {
    entrant.swaps.is_some()
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(headings);
    for column in 4..headings.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn rate_row(
    outcome: &Outcome,
    entrant: usize,
    summary: &Summary,
    same: Option<&Summary>,
) -> Vec<String> {
    let runs = outcome.turns.iter().filter(|turn| turn.entrant == entrant).map(|turn| &turn.run);
    let (sent, lost) = runs.fold((0, 0), |(sent, lost), run| (sent + run.sent, lost + run.lost));
    let swaps = outcome.entrants[entrant].swaps;
    vec![
        summary.scenario.clone(),
        summary.switch.clone(),
        summary.state.name().to_owned(),
        format!("{:.2}", summary.ratio[1]),
        same.map_or_else(String::new, |same| format!("{:.2}", summary.ratio[1] / same.ratio[1])),
        sent.to_string(),
        lost.to_string(),
        swaps.map_or_else(String::new, |swaps| format!("{} of {}", swaps.seen, swaps.ordered)),
    ]
}

fn latency_row(summary: &latency::Summary) -> Vec<String> {
    let undisturbed = |of: fn(latency::Undisturbed) -> f64| {
        summary.undisturbed.map_or_else(String::new, |one| micros(of(one)))
    };
    vec![
        summary.scenario.clone(),
        summary.load.name(),
        summary.switch.clone(),
        summary.state.name().to_owned(),
        micros(summary.p9999_us),
        micros(summary.max_us),
        undisturbed(|one| one.p9999_us),
        undisturbed(|one| one.max_us),
        format!("{:.2} %", summary.lost * 100.0),
    ]
}
