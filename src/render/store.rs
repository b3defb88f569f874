//! `viaduct show store`: how reading and writing go.

use control::show::view::{SourceView, StoreView};

use super::table::plain;
use super::units::time;

/// A line a subject.
pub fn store(view: &StoreView) -> String {
    let state = match (view.away, view.source) {
        (true, SourceView::Unknown) => "cannot be read, and nothing is known of it",
        (true, _) => "cannot be read; what was read last is in force",
        (false, SourceView::Unknown) => "is being read",
        (false, SourceView::Cache) => "is being read; what was read last is in force",
        (false, SourceView::Store) => "is followed",
    };
    let changed = match view.changed_seconds {
        Some(seconds) => format!("last change {} ago", time(seconds)),
        None => "no change yet".to_owned(),
    };
    let (count, revision) = (view.values, view.revision);
    let values = if count == 1 { "value" } else { "values" };
    let held = match view.held.len() {
        0 => "nothing".to_owned(),
        count => format!("{count} that the store lost at once: viaduct store accept"),
    };
    let reports = match (view.claimed, &view.report_failure) {
        (_, Some(failure)) => failure.clone(),
        (true, None) => format!("{} written", view.reported),
        (false, None) => "not claimed yet".to_owned(),
    };
    let readings = match view.readings {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let lines = [
        ("store", view.location.clone()),
        ("state", state.to_owned()),
        ("read", format!("{count} {values} at revision {revision}, {changed}")),
        ("followed", readings),
        ("held", held),
        ("reports", reports),
    ];
    lines.map(|(subject, text)| format!("{subject:<10}{}\n", plain(&text))).concat()
}
