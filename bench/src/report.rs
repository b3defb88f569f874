//! What the bench says: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::contest::Plan;
use crate::latency;
use crate::machine::Description;
use crate::outcome::{Entrant, Outcome, REFERENCE, State, Summary};
use crate::scenario::Scenario;
use crate::swap;

/// Below this idle share of the generator, its own speed is part of the result.
pub const GENERATOR_BOUND: f64 = 0.08;
/// Above this share of time without a core, the generator was disturbed by other work.
const DISTURBED: f64 = 0.05;

const HEADINGS: [&str; 13] = [
    "scenario",
    "switch",
    "cores",
    "runs",
    "Mpps",
    "Gbit/s",
    "ratio",
    "half within",
    "of bound",
    "lost",
    "wrong",
    "generator idle",
    "",
];

const LEGEND: &str = "\
Mpps: million frames delivered a second; Gbit/s: their bytes. ratio: to testpmd right before and
after; the median, and what half of the runs lie within. of bound: ratio over that of `copy`. wrong:
frames duplicated, reordered, corrupt or misdelivered. cores: how far apart generator and switch were
meanwhile, by the round trip of a cache line; compare only what has the same word. * the generator was
hardly idle: its own speed is part of the result. ~ the generator had to share its core.";

/// Everything measured, and how.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command line.
    pub command: String,
    /// The machine.
    pub machine: Description,
    /// The plan.
    pub plan: Plan,
    /// Whatever limits the results' worth, in sentences.
    pub notes: Vec<String>,
    /// The results.
    pub summaries: Vec<Summary>,
    /// The results of the runs at fixed rates.
    pub latency: Vec<latency::Summary>,
    /// What they were made from.
    pub outcomes: Vec<Outcome>,
    /// Scenarios that could not be run to their end, and why.
    pub failures: Vec<String>,
}

impl Report {
    /// Draws the results from the outcomes.
    pub fn new(
        machine: Description,
        plan: Plan,
        notes: Vec<String>,
        outcomes: Vec<Outcome>,
        failures: Vec<String>,
    ) -> Self {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let summaries = outcomes.iter().flat_map(Outcome::summaries).collect();
        let latency = outcomes.iter().flat_map(latency::summaries).collect();
        Self { command, machine, plan, notes, summaries, latency, outcomes, failures }
    }

    /// Writes the report as JSON.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("the report as JSON")?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The table, and below it how the switches were started and what to beware of.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(HEADINGS);
        let settled = |summary: &Summary| summary.state != State::Mixed;
        for (index, summary) in self.summaries.iter().enumerate() {
            // Runs during which the cores moved are shown only of switches that have no others.
            let has_better = self.summaries[..index].iter().any(|other| {
                other.scenario == summary.scenario
                    && other.switch == summary.switch
                    && settled(other)
            });
            if settled(summary) || !has_better {
                table.add_row(row(summary));
            }
        }
        for column in 3..HEADINGS.len() - 1 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("{table}\n\n{LEGEND}\n\n");
        if let Some(table) = latency::table(&self.latency) {
            text += &format!("{table}\n");
        }
        if let Some(tables) = swap::text(&self.outcomes, &self.summaries, &self.latency) {
            text += &format!("{tables}\n");
        }
        self.write_circumstances(&mut text);
        text
    }

    /// Whether a switch delivered a frame that it should not have, never had other rules when it was
    /// told so, or could not be measured.
    pub fn is_bad(&self) -> bool {
        let unseen = self.outcomes.iter().any(|outcome| swap::unseen(outcome).next().is_some());
        self.has_faults() || unseen || !self.failures.is_empty()
    }

    fn has_faults(&self) -> bool {
        self.outcomes.iter().flat_map(|outcome| &outcome.entrants).any(|one| one.faults.total() > 0)
    }

    fn write_circumstances(&self, text: &mut String) {
        let machine = &self.machine;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "machine: {}, {} cores, Linux {}, {} of {} huge pages free; switch on core {}, \
             generator on core {}",
            machine.processor,
            machine.cores,
            machine.kernel,
            machine.free_huge_pages,
            machine.huge_pages,
            self.plan.cores.switch,
            self.plan.cores.generator
        );
        let _ = writeln!(text, "command: {}", self.command);
        let mut named = Vec::new();
        for entrant in self.outcomes.iter().flat_map(|outcome| &outcome.entrants) {
            // In each scenario it was started the same way.
            if !named.contains(&&entrant.name) {
                let _ = writeln!(text, "{}: {}", entrant.name, entrant.command);
                named.push(&entrant.name);
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        for outcome in &self.outcomes {
            for Entrant { name, faults, stalls_seconds, .. } in &outcome.entrants {
                let scenario = &outcome.scenario.name;
                if !stalls_seconds.is_empty() {
                    let _ = writeln!(
                        text,
                        "STALLED: {name} in scenario {scenario}: turns without frames, the next \
                         came after {stalls_seconds:.3?} s"
                    );
                }
                if faults.total() > 0 {
                    let _ = writeln!(text, "WRONG: {name} in scenario {scenario}: {faults:?}");
                }
            }
        }
        for outcome in &self.outcomes {
            for Entrant { name, .. } in swap::unseen(outcome) {
                let scenario = &outcome.scenario.name;
                let _ = writeln!(
                    text,
                    "NOT SWAPPED: {name} in scenario {scenario}: no other rules ever came into force"
                );
            }
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
    }
}

/// The scenarios as a table.
pub fn list(scenarios: &[Scenario], quick: &[Scenario]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["scenario", "load", "with --quick"]);
    for scenario in scenarios {
        let in_quick = quick.iter().any(|one| one.name == scenario.name);
        let mark = if in_quick { "yes" } else { "" };
        table.add_row([scenario.name.as_str(), &scenario.describe(), mark]);
    }
    table.to_string()
}

fn row(summary: &Summary) -> Vec<String> {
    let [low, ratio, high] = summary.ratio;
    let is_reference = summary.switch == REFERENCE;
    let mut mark = String::new();
    if summary.generator_idle < GENERATOR_BOUND {
        mark.push('*');
    }
    if summary.generator_waited > DISTURBED {
        mark.push('~');
    }
    vec![
        summary.scenario.clone(),
        summary.switch.clone(),
        summary
            .round_trip_ns
            .map_or_else(String::new, |ns| format!("{} {ns:.0} ns", summary.state.name())),
        summary.runs.to_string(),
        digits(summary.mpps),
        format!("{:.1}", summary.gbps),
        digits(ratio),
        if is_reference { String::new() } else { format!("{low:.2} .. {high:.2}") },
        summary.of_bound.map_or_else(String::new, percent),
        format!("{:.2} %", summary.lost * 100.0),
        summary.faults.total().to_string(),
        percent(summary.generator_idle),
        mark,
    ]
}

/// Two decimals, or more where these would leave nothing.
fn digits(value: f64) -> String {
    if value < 0.05 { format!("{value:.4}") } else { format!("{value:.2}") }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::generator::{Run, Span};
    use crate::guest::{Faults, Pages};
    use crate::machine::Cores;
    use crate::outcome::{Swaps, Turn};
    use crate::plot;

    fn report(faults: Faults, round_trips_ns: [f64; 3]) -> Report {
        let span = Span { settle: Duration::ZERO, measured: Duration::from_millis(50) };
        let cores = Cores { generator: 0, switch: 1 };
        let plan = Plan { rounds: 1, span, ..Plan::quick(Vec::new(), cores, Pages::Auto) };
        let turn = |entrant: usize, mpps: f64, idle: f64| Turn {
            entrant,
            round_trip_ns: [Some(round_trips_ns[0]), Some(round_trips_ns[1 + entrant])],
            run: Run {
                mpps,
                mpps_quartiles: [mpps; 2],
                sent: 100,
                lost: 1,
                faults: Faults::default(),
                flooded: 0,
                burst: 32.0,
                generator_idle: idle,
                generator_waited: 0.0,
                kicks: 0,
            },
        };
        let entrant = |name: &str, faults: Faults| Entrant {
            name: name.to_owned(),
            command: format!("run {name}"),
            ports: 2,
            huge_pages: true,
            faults,
            stalls_seconds: if name == "copy" { vec![0.25] } else { Vec::new() },
            swaps: None,
        };
        let outcome = Outcome {
            scenario: Scenario::one_way("64", 64),
            entrants: vec![entrant("testpmd", Faults::default()), entrant("copy", faults)],
            turns: vec![turn(0, 5.0, 0.5), turn(1, 10.0, 0.01), turn(0, 5.0, 0.5)],
            latency: Vec::new(),
        };
        let notes = vec!["a note".to_owned()];
        Report::new(Description::read(), plan, notes, vec![outcome], Vec::new())
    }

    fn line(text: &str, part: &str) -> String {
        let line = text.lines().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("no line with {part:?} in\n{text}")).to_owned()
    }

    #[test]
    fn the_table_has_the_ratio_and_marks_what_the_generator_bounds() {
        let report = report(Faults::default(), [70.0, 71.0, 72.0]);
        let text = report.text();
        let copy = line(&text, "| copy ");
        for part in ["close 7", "10.00", "5.1", "2.00", "2.00 .. 2.00", "100 %", "1.00 %", "| * "] {
            assert!(copy.contains(part), "{part:?} in {copy}");
        }
        let reference = line(&text, "| testpmd ");
        assert!(reference.contains("50 %") && !reference.contains('*'), "{reference}");
        assert!(text.contains("note: a note") && text.contains("copy: run copy"));
        assert!(!report.is_bad() && !text.contains("WRONG") && !text.contains("FAILED"));
        assert!(line(&text, "STALLED").contains("copy in scenario 64") && text.contains("0.250"));
    }

    #[test]
    fn a_scenario_that_failed_is_said() {
        let mut report = report(Faults::default(), [70.0, 71.0, 72.0]);
        report.failures.push("scenario 512: no frame arrived".to_owned());
        assert!(report.is_bad());
        assert!(line(&report.text(), "FAILED").contains("no frame arrived"));
    }

    #[test]
    fn replaced_rules_are_set_beside_those_that_stayed() {
        let mut report = report(Faults::default(), [70.0, 71.0, 72.0]);
        assert!(!report.text().contains("swaps seen"));
        let outcome = &mut report.outcomes[0];
        outcome.entrants[1].name = "x".to_owned();
        let swaps = Some(Swaps { ordered: 9, seen: 8 });
        let swapping = Entrant { name: "x-swap".to_owned(), swaps, ..outcome.entrants[1].clone() };
        outcome.entrants.push(swapping);
        let (slower, reference) = (outcome.turns[1].clone(), outcome.turns[2].clone());
        let run = Run { mpps: 9.0, lost: 0, ..slower.run };
        outcome.turns.extend([Turn { entrant: 2, run, ..slower }, reference]);
        let mut report =
            Report::new(Description::read(), report.plan, Vec::new(), report.outcomes, Vec::new());
        let row = line(&report.text(), "8 of 9");
        for part in ["| x-swap ", " 1.80 ", " 0.90 ", " 100 ", " 0 "] {
            assert!(row.contains(part), "{part:?} in {row}");
        }
        let text = report.text();
        let stayed = text.lines().rfind(|line| line.contains("| x "));
        assert!(
            stayed.is_some_and(|row| row.contains(" 1.00 |") && row.contains(" 100 ")),
            "{text}"
        );
        assert!(!report.is_bad());
        report.outcomes[0].entrants[2].swaps = Some(Swaps { ordered: 9, seen: 0 });
        assert!(report.is_bad() && line(&report.text(), "NOT SWAPPED").contains("x-swap"));
    }

    #[test]
    fn what_is_wrong_is_said_even_if_no_run_shows_it() {
        let report = report(Faults { reordered: 3, ..Faults::default() }, [70.0, 71.0, 72.0]);
        assert!(report.is_bad());
        assert!(line(&report.text(), "WRONG").contains("copy in scenario 64"));
        assert!(line(&report.text(), "WRONG").contains("reordered: 3"));
    }

    #[test]
    fn runs_between_states_are_shown_where_there_are_no_others() {
        let text = report(Faults::default(), [70.0, 71.0, 330.0]).text();
        assert!(line(&text, "| copy ").contains("mixed"));
        assert!(line(&text, "| testpmd ").contains("close"));
    }

    #[test]
    fn json_holds_results_and_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("report.json");
        report(Faults::default(), [70.0; 3]).save(&path).expect("a file that can be written");
        assert_eq!(plot::load(&path).expect("what the picture needs").len(), 2);
        let text = fs::read_to_string(path).expect("it was written");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["summaries"][1]["ratio"][1], 2.0);
        assert_eq!(value["summaries"][1]["state"], "close");
        assert_eq!(value["outcomes"][0]["turns"][1]["run"]["mpps"], 10.0);
    }
}
