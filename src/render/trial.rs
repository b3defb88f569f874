//! `viaduct test-frame`: what would become of a frame, port by port.

use control::show::view::{GroupRef, JudgementView, TrialView};

use super::acl::line;
use super::course::port_name;
use super::table::plain;

/// A line for what was asked, one for each port, and the outcome.
pub fn trial(view: &TrialView) -> String {
    steps(view, None)
}

/// The same, with a line about how it is known where to.
pub(super) fn steps(view: &TrialView, known: Option<&str>) -> String {
    let mut lines = Vec::new();
    if let (Some(from), Some(leave)) = (&view.from, &view.leave) {
        lines.push((format!("from {}", port_name(from)), judgement(leave)));
    }
    if let Some(known) = known {
        lines.push(("to whom".to_owned(), known.to_owned()));
    }
    for to in &view.to {
        let tag = to.vlan.map(|vlan| format!(", tagged {vlan}")).unwrap_or_default();
        lines.push((format!("to {}", port_name(&to.port)), judgement(&to.judgement) + &tag));
    }
    let passed = view.to.iter().filter(|to| to.judgement.passes).count();
    let how = match (view.passes, view.flooded) {
        (false, _) => "it is dropped".to_owned(),
        (true, true) => format!("it is flooded, to {passed} of {} ports", view.to.len()),
        (true, false) => "it passes".to_owned(),
    };
    let on = match &view.network {
        Some(network) => {
            let name = network.name.as_ref().map(ToString::to_string);
            format!(", on network {}", name.unwrap_or_else(|| network.uuid.to_string()))
        }
        None => String::new(),
    };
    lines.push(("outcome".to_owned(), how + &on));
    let width = lines.iter().map(|(subject, _)| subject.chars().count()).max().unwrap_or(0);
    let line = |(subject, text): &(String, String)| {
        format!("{}\n", plain(&format!("{subject:<width$}  {text}")))
    };
    lines.iter().map(line).collect()
}

fn judgement(view: &JudgementView) -> String {
    let ground = match (&view.rule, &view.without_rule) {
        (Some(rule), _) => {
            let rule_text = line(rule);
            format!("rule {} of group {}: {rule_text}", rule.number, group(&rule.group))
        }
        (None, Some(why)) => why.clone(),
        (None, None) => String::new(),
    };
    if view.passes {
        return format!("passes: {ground}");
    }
    let reason = view.reason.as_deref().unwrap_or("unknown");
    match (&view.rule, &view.help) {
        (Some(_), _) => format!("dropped, {reason}: {ground}"),
        (None, Some(help)) => format!("dropped, {reason}: {help}"),
        (None, None) => format!("dropped, {reason}"),
    }
}

fn group(group: &GroupRef) -> String {
    group.name.as_ref().map_or_else(|| group.uuid.to_string(), ToString::to_string)
}
