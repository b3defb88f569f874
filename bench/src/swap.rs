//! What it costs to replace rules while frames flow: each switch whose rules were replaced beside the
//! same switch whose rules stayed, which had its turns in the same seconds.

use comfy_table::{CellAlignment, Table, presets};

use crate::latency::{self, micros};
use crate::outcome::{Entrant, Outcome, State, Summary};
use crate::switch::SWAPPING;

const RATE_HEADINGS: [&str; 9] =
    ["scenario", "switch", "cores", "runs", "ratio", "to the same", "sent", "lost", "swaps seen"];

const LATENCY_HEADINGS: [&str; 10] = [
    "scenario",
    "load",
    "switch",
    "cores",
    "p99.99 µs",
    "max µs",
    "p99.99 µs, guests ran",
    "max µs, guests ran",
    "due",
    "lost",
];

const LEGEND: &str = "\
Rules replaced while frames flow. to the same: ratio over that of the same switch whose rules stayed.
lost: frames, of all that were sent or due. swaps seen: changes of the rules in force that the guests
noticed, of those asked for: of three sets they can tell one from the others, so two thirds at most, and
not those that are overtaken by the next. guests ran: only frames on whose way the guests' own thread never
stood still for more than 20 µs, as it does where what compiles the rules must share its core; when it
does, the ring to it may run over, whatever the rules.";

/// Tables and legend, or nothing if no rules were replaced.
pub fn text(
    outcomes: &[Outcome],
    summaries: &[Summary],
    latency: &[latency::Summary],
) -> Option<String> {
    let (mut rates, mut latencies) = (table(&RATE_HEADINGS), table(&LATENCY_HEADINGS));
    for outcome in outcomes {
        for swapping in outcome.entrants.iter().filter(|one| one.swaps.is_some()) {
            let same = swapping.name.strip_suffix(SWAPPING);
            for state in State::ALL {
                let of = |name: &str| {
                    let scenario = &outcome.scenario.name;
                    summaries.iter().find(|one| {
                        (&one.scenario, one.switch.as_str(), one.state) == (scenario, name, state)
                    })
                };
                let before = same.and_then(of);
                let rows = [before, of(&swapping.name)].into_iter().flatten();
                rates.add_rows(rows.map(|one| rate_row(outcome, one, before)));
            }
            let both = latency.iter().filter(|one| {
                one.scenario == outcome.scenario.name
                    && (Some(one.switch.as_str()) == same || one.switch == swapping.name)
            });
            latencies.add_rows(both.map(|one| latency_row(outcome, one)));
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

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(headings);
    for column in 3..headings.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A switch's rate in one state, beside that of the same switch whose rules stayed.
fn rate_row(outcome: &Outcome, summary: &Summary, same: Option<&Summary>) -> Vec<String> {
    let name = |entrant: usize| &outcome.entrants[entrant].name;
    // Of all states: where frames are lost matters, and not how fast it was then.
    let turns = outcome.turns.iter().filter(|turn| *name(turn.entrant) == summary.switch);
    let (sent, lost) =
        turns.fold((0, 0), |(sent, lost), turn| (sent + turn.run.sent, lost + turn.run.lost));
    let entrant = outcome.entrants.iter().find(|one| one.name == summary.switch);
    let swaps = entrant.and_then(|one| one.swaps);
    vec![
        summary.scenario.clone(),
        summary.switch.clone(),
        summary.state.name().to_owned(),
        summary.runs.to_string(),
        format!("{:.2}", summary.ratio[1]),
        same.map_or_else(String::new, |same| format!("{:.2}", summary.ratio[1] / same.ratio[1])),
        sent.to_string(),
        lost.to_string(),
        swaps.map_or_else(String::new, |swaps| format!("{} of {}", swaps.seen, swaps.ordered)),
    ]
}

/// A switch's longest latencies under one load and in one state.
fn latency_row(outcome: &Outcome, summary: &latency::Summary) -> Vec<String> {
    let undisturbed = |of: fn(latency::Undisturbed) -> f64| {
        summary.undisturbed.map_or_else(String::new, |one| micros(of(one)))
    };
    let turns = outcome.latency.iter().filter(|turn| {
        outcome.entrants[turn.entrant].name == summary.switch
            && turn.load == summary.load
            && State::of(&turn.round_trip_ns) == summary.state
    });
    let (due, lost) =
        turns.fold((0, 0), |(due, lost), turn| (due + turn.run.due, lost + turn.run.lost));
    vec![
        summary.scenario.clone(),
        summary.load.name(),
        summary.switch.clone(),
        summary.state.name().to_owned(),
        micros(summary.p9999_us),
        micros(summary.max_us),
        undisturbed(|one| one.p9999_us),
        undisturbed(|one| one.max_us),
        due.to_string(),
        lost.to_string(),
    ]
}
