//! Metrics: scraped from a running switch, and what is made of them for Prometheus and Grafana.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::daemon::{Daemon, SOON, uuid};
use crate::common::process;
use crate::{SilentGuest, skip};

#[test]
fn a_running_switch_is_scraped() {
    let builder = Daemon::builder();
    let socket = builder.folder().join("metrics.sock");
    let listen = format!("'{}'", socket.display());
    let mut switch = builder.set("metrics.listen", &listen).start();
    switch.local_network("n");
    switch.guest_port("web", "n", "52:54:00:00:00:01");
    let _guest = SilentGuest::start(&switch, "web");
    switch.wait_ready("web");

    let text = scrape(&socket);
    let port = format!("port=\"{}\",name=\"web\"", uuid("web"));
    for line in [
        format!("viaduct_port_frames_total{{{port},direction=\"received\"}} 0"),
        format!("viaduct_guest_connected{{{port}}} 1.0"),
        "viaduct_store_up{} 1.0".to_owned(),
        "viaduct_store_values{} 2.0".to_owned(),
    ] {
        assert!(text.lines().any(|its| its == line), "{line} is not in:\n{text}");
    }
    let status = text.lines().find(|line| line.starts_with("viaduct_port_status{"));
    assert!(status.is_some_and(|it| it.contains("status=\"ready\"")), "{status:?}");
    // A worker polls, asleep now and then; the next scrape sees it.
    let polls = |text: &str| {
        let line = text.lines().find_map(|it| it.strip_prefix("viaduct_worker_polls_total{"));
        let value = line.and_then(|line| line.split_once("} ")).expect("a worker").1;
        value.parse::<u64>().expect("a count")
    };
    let before = polls(&text);
    process::eventually("the worker polls", SOON, || polls(&scrape(&socket)) > before);
    assert!(switch.viaduct(&["show", "memory"]).success().starts_with("process "));
    switch.stop();
    assert!(!socket.exists(), "the switch has left its socket");
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("it is checked in");
    let documented: BTreeSet<String> = read("metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let dashboard: Value = serde_json::from_str(&read("monitoring/dashboard.json")).expect("JSON");
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    for text in asked.iter().cloned().chain([read("monitoring/alerts.yaml")]) {
        for name in names(&text) {
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            assert!(documented.contains(family), "{name} is no metric, in: {text}");
        }
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        return skip("promtool is not installed (Debian's package prometheus)");
    }
    let promtool = |arguments: &[&str], folder: &Path| {
        process::run(Command::new("promtool").args(arguments).current_dir(folder), SOON).success()
    };
    let monitoring = folder.join("monitoring");
    promtool(&["check", "rules", "alerts.yaml"], &monitoring);
    promtool(&["test", "rules", "alerts-test.yaml"], &monitoring);
    // Grafana puts in its own values; as rules, Prometheus reads the rest.
    let place = tempfile::TempDir::new().expect("a folder");
    let rules: String = asked
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            let quoted = serde_json::to_string(&expression).expect("text is JSON");
            format!("      - record: panel:{number}\n        expr: {quoted}\n")
        })
        .collect();
    let text = format!("groups:\n  - name: dashboard\n    rules:\n{rules}");
    fs::write(place.path().join("dashboard.yaml"), text).expect("the folder is ours");
    promtool(&["check", "rules", "dashboard.yaml"], place.path());
}

/// What a page of metrics has, by a request such as Prometheus makes.
fn scrape(socket: &PathBuf) -> String {
    let mut stream = UnixStream::connect(socket).expect("the switch listens");
    let request = "GET /metrics HTTP/1.1\r\nHost: viaduct\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(body.ends_with("# EOF\n"), "it is cut: {body}");
    body.to_owned()
}

/// All that the dashboard asks Prometheus for.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The names of ours in an expression.
fn names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("viaduct_")).map(str::to_owned).collect()
}
