//! `viaduct reload` and `viaduct show config`.

use control::show::view::{ConfigView, ReloadOutcome, ReloadView};
use serde_json::Value;

use super::error;
use super::table::{Table, plain};

/// What is different, what is wrong, and what came of it.
pub fn reload(view: &ReloadView) -> String {
    let mut text = String::new();
    if !view.changes.is_empty() {
        let mut table = Table::new(&[">LINE", "KEY", "FROM", "TO", "WHEN"], "");
        for it in &view.changes {
            let when = match &it.restart {
                None => "now".to_owned(),
                Some(reason) => format!("restart: {reason}"),
            };
            let line = it.line.map(|line| line.to_string()).unwrap_or_default();
            table.row([line, it.key.clone(), shown(&it.from), shown(&it.to), when]);
        }
        text = table.text() + "\n";
    }
    for problem in &view.problems {
        text += &(error(problem) + "\n");
    }
    let restart = view.changes.iter().filter(|it| it.restart.is_some()).count();
    let wrong = view.problems.iter().any(|it| it.severity == control::show::view::Severity::Error);
    let keys = if restart == 1 { "1 key needs" } else { &format!("{restart} keys need") };
    text + &match view.outcome {
        ReloadOutcome::Applied => "the configuration is in force\n".to_owned(),
        ReloadOutcome::Unchanged if restart == 0 => "nothing is different\n".to_owned(),
        ReloadOutcome::Unchanged => format!("nothing has changed: {keys} a restart\n"),
        ReloadOutcome::Partly => format!("the rest is in force; {keys} a restart\n"),
        ReloadOutcome::Possible if view.changes.is_empty() => "nothing is different\n".to_owned(),
        ReloadOutcome::Possible => "nothing was done: leave out --dry-run to do it\n".to_owned(),
        ReloadOutcome::Refused if wrong => {
            "nothing has changed: what was in force stays; correct the file and reload it\n"
                .to_owned()
        }
        ReloadOutcome::Refused => format!(
            "nothing has changed: {keys} a restart (systemctl restart viaduct); put the former \
             value back, or use --partly for all else\n"
        ),
    }
}

/// Every key in force, as a line of TOML, and what became of reloads.
pub fn config(view: &ConfigView) -> String {
    let ConfigView { file, values, applied, refused, last } = view;
    let mut text = plain(&format!("# {}", file.display())) + "\n";
    if let Some(last) = last {
        let outcome = match last.outcome {
            ReloadOutcome::Applied => "it is in force",
            ReloadOutcome::Partly => "part of it is in force, and the rest needs a restart",
            ReloadOutcome::Unchanged | ReloadOutcome::Possible => "it was in force already",
            ReloadOutcome::Refused => "refused: what was in force stays",
        };
        let at = last.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        text += &format!("# reloaded last at {at}: {outcome}\n");
    }
    if applied + refused > 0 {
        text += &format!("# reloads since the start: {applied} done, {refused} refused\n");
    }
    for (key, value) in values {
        text += &plain(&format!("{key} = {value}"));
        text.push('\n');
    }
    text
}

fn shown(value: &Option<Value>) -> String {
    value.as_ref().map(Value::to_string).unwrap_or_default()
}
