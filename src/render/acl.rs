//! `viaduct show acl`: compiled rules, a set a line, or rule by rule.

use control::show::view::{AclView, GroupRef, NamedRule, SideView};

use super::labels::Labels;
use super::table::{Table, plain};
use super::units::{count, duration, memory};

/// Sets of groups that ports have, one a line.
pub fn acl(views: &[AclView], wide: bool) -> String {
    let labels = labels(views, wide);
    let columns = ["GROUPS", "PORTS", ">RULES", ">MEMORY", ">LINES", ">COMPILED", "REASON"];
    let mut table = Table::new(&columns, "no port has port security");
    for view in views {
        let ports: Vec<String> = view.ports.iter().map(|port| labels.port(port)).collect();
        table.row([
            groups(view, &labels, wide).join(","),
            ports.join(","),
            count(view.entries),
            memory(view.memory_bytes),
            view.lines_read.to_string(),
            duration(view.compile_seconds),
            reason(view).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// The same with every rule, in the order in which they hold.
pub fn acl_rules(views: &[AclView], wide: bool) -> String {
    let labels = labels(views, wide);
    let sets = views.iter().map(|view| set(view, &labels, wide));
    match views {
        [] => "no port has port security\n".to_owned(),
        _ => sets.collect::<Vec<_>>().join("\n"),
    }
}

fn set(view: &AclView, labels: &Labels, wide: bool) -> String {
    let ports: Vec<String> = view.ports.iter().map(|port| labels.port(port)).collect();
    let size = format!(
        "{} rules as compiled, {}, {} cache lines a look-up at most",
        count(view.entries),
        memory(view.memory_bytes),
        view.lines_read
    );
    let lines = [
        ("groups", groups(view, labels, wide).join(", ")),
        ("ports", ports.join(", ")),
        ("size", size),
        ("compiled", format!("in {}", duration(view.compile_seconds))),
        ("reason", reason(view).unwrap_or_default()),
    ];
    let mut text = String::new();
    for (subject, value) in lines {
        let value = if value.is_empty() { "-".to_owned() } else { plain(&value) };
        text += &format!("{subject:<10}{value}\n");
    }
    let Some(rules) = &view.rules else { return text };
    for (direction, side) in [("ingress", &rules.ingress), ("egress", &rules.egress)] {
        text += &format!("\n{}", rows(direction, side, labels, wide));
    }
    text
}

fn rows(direction: &str, side: &SideView, labels: &Labels, wide: bool) -> String {
    let heading = direction.to_uppercase();
    let mut table = Table::new(&[">HITS", "GROUP", ">RULE", &heading], "");
    for rule in &side.rules {
        table.row([
            count(rule.hits),
            group(&rule.rule.group, labels, wide),
            rule.rule.number.to_string(),
            line(&rule.rule),
        ]);
    }
    table.row([count(side.unmatched), String::new(), String::new(), "no rule".to_owned()]);
    table.text()
}

/// A compiled rule as one line.
pub fn line(rule: &NamedRule) -> String {
    match &rule.answer {
        None => rule.line.clone(),
        Some(answer) => format!("{answer} (answers `{}`)", rule.line),
    }
}

fn reason(view: &AclView) -> Option<String> {
    let waits = view.waits_for.as_ref().map(|key| format!("closed: waiting for {key}"));
    waits.or(view.refusal.clone())
}

fn groups(view: &AclView, labels: &Labels, wide: bool) -> Vec<String> {
    view.groups.iter().map(|it| group(it, labels, wide)).collect()
}

/// What a group is called.
pub fn group(group: &GroupRef, labels: &Labels, wide: bool) -> String {
    match &group.name {
        Some(name) if !wide => name.to_string(),
        _ => labels.uuid(group.uuid),
    }
}

fn labels(views: &[AclView], wide: bool) -> Labels {
    Labels::new(wide, views.iter().flat_map(|view| &view.ports), [])
}
