//! The table of latencies.

use comfy_table::{CellAlignment, Table, presets};

use super::Summary;
use crate::outcome::State;

const HEADINGS: [&str; 16] = [
    "scenario",
    "load",
    "switch",
    "cores",
    "runs",
    "Mpps",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
    "p99.99 µs",
    "max µs",
    "lost",
    "sent late",
    "gaps",
    "",
];

const LEGEND: &str = "\
Latency: from when a frame was due until the receiving guest had judged it, nothing subtracted;
medians of the runs' percentiles, and the longest of all. load: offered, as part of what the switch
carried at full load, or of what testpmd did. sent late: how late the sender came to half of the
frames / to 1 % of them, in µs, which is part of the latency. gaps: moments in which the guests' own
thread stood still for more than 20 µs; they raise the high percentiles of whoever has its turn. #
the ring to the switch was full in a tenth of the time: this was more than it could carry, or it
stood still. + the guests could not keep up: more than half of the latency is theirs. States with
fewer than three runs are shown only where there is no other.";

/// Fewer runs than this in a state say little.
const FEW: usize = 3;

/// Share of looks at a full ring above which the switch did not carry the load.
const OVERLOADED: f64 = 0.1;

/// Table and legend, or nothing if no latency was measured.
pub fn table(summaries: &[Summary]) -> Option<String> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(HEADINGS);
    let is_sure = |summary: &Summary| summary.state != State::Mixed && summary.runs >= FEW;
    for summary in summaries {
        // The others are shown only of switches that have nothing better.
        let has_better = summaries.iter().any(|other| {
            is_sure(other)
                && (&other.scenario, &other.switch) == (&summary.scenario, &summary.switch)
                && other.load == summary.load
        });
        if is_sure(summary) || !has_better {
            table.add_row(row(summary));
        }
    }
    for column in 4..HEADINGS.len() - 1 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    (!summaries.is_empty()).then(|| format!("{table}\n\n{LEGEND}\n"))
}

fn row(summary: &Summary) -> Vec<String> {
    let distance = summary.round_trip_ns.map_or_else(String::new, |ns| format!(" {ns:.0} ns"));
    let mut mark = String::new();
    if summary.full_looks > OVERLOADED {
        mark.push('#');
    } else if summary.sent_late_p50_us > summary.p50_us / 2.0 {
        mark.push('+');
    }
    vec![
        summary.scenario.clone(),
        summary.load.name(),
        summary.switch.clone(),
        format!("{}{distance}", summary.state.name()),
        summary.runs.to_string(),
        format!("{:.2}", summary.offered_mpps),
        micros(summary.p50_us),
        micros(summary.p90_us),
        micros(summary.p99_us),
        micros(summary.p999_us),
        micros(summary.p9999_us),
        micros(summary.max_us),
        format!("{:.2} %", summary.lost * 100.0),
        format!("{} / {}", micros(summary.sent_late_p50_us), micros(summary.sent_late_p99_us)),
        summary.gaps.to_string(),
        mark,
    ]
}

/// To three digits: no more is known.
pub fn micros(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
