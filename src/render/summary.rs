//! `viaduct show`: the daemon at a glance.

use control::show::view::{Counts, Summary};

use super::handover::taken_over;
use super::table::plain;
use super::units::time;

/// A line a subject.
pub fn summary(view: &Summary) -> String {
    let Summary { version, pid, host, uptime_seconds, store, changed_seconds, .. } = view;
    let changed = match changed_seconds {
        Some(seconds) => format!("last change {} ago", time(*seconds)),
        None => "no change yet".to_owned(),
    };
    let cores: Vec<String> = view.cores.iter().map(ToString::to_string).collect();
    let core = if cores.len() == 1 { "core" } else { "cores" };
    let mut problems = vec![plural(view.errors, "error"), plural(view.warnings, "warning")];
    problems.retain(|problem| !problem.starts_with("0 "));
    let problems = match problems.is_empty() {
        true => "none".to_owned(),
        false => format!("{}: viaduct show errors", problems.join(", ")),
    };
    let taken = view.taken_over.as_ref().map(|from| ("took over", taken_over(from)));
    let lines = [
        ("viaduct", format!("{version} on {host}, process {pid}, up {}", time(*uptime_seconds))),
        ("store", format!("{store}, {changed}")),
        ("workers", format!("{} on {core} {}", cores.len(), cores.join(", "))),
        ("uplinks", by_status(&view.uplinks)),
        ("ports", by_status(&view.ports)),
        ("domains", view.domains.to_string()),
        ("problems", problems),
    ];
    let mut lines = Vec::from(lines);
    lines.splice(1..1, taken);
    let line = |(subject, text): (&str, String)| format!("{subject:<10}{}\n", plain(&text));
    lines.into_iter().map(line).collect()
}

/// How many of each status there are, those left out that there are none of.
fn by_status(counts: &Counts) -> String {
    let all = [
        (counts.ready, "ready"),
        (counts.waiting, "waiting"),
        (counts.down, "down"),
        (counts.refused, "refused"),
        (counts.failed, "failed"),
    ];
    let some: Vec<String> = all
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, status)| format!("{count} {status}"))
        .collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

fn plural(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
