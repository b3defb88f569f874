//! `viaduct top` against a running switch: in batches, and on a terminal.

use std::fs::File;
use std::io::Write;
use std::process::Command;

use serde_json::Value;

use crate::common::daemon::{Daemon, SOON, uuid};
use crate::common::process::{Process, eventually};
use crate::{SilentGuest, skip};

#[test]
fn batches_tell_what_happened_in_between() {
    let mut switch = Daemon::builder().physnet("w", "net_null0").start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let _guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");
    let batch = ["top", "--batch", "--count", "2", "--interval", "0.2"];
    let text = switch.viaduct(&batch).success();
    assert_eq!(text.matches("CYCLES/FRAME").count(), 2, "two tables of workers:\n{text}");
    assert!(text.contains("\np ") && text.contains("\nw "), "both ports:\n{text}");

    // net_null makes frames as fast as they are taken, and none of them is for a network here.
    let lines = switch.viaduct(&[&batch[..], &["--json", "--sort", "drops"]].concat()).success();
    let lines: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(line["seconds"].as_f64() >= Some(0.2), "{line:#}");
        let wire = &line["ports"][0];
        assert_eq!(wire["physnet"], "w", "it has most drops: {line:#}");
        assert!(wire["received_frames"].as_f64() > Some(0.0), "{line:#}");
        assert!(wire["reason"].is_string() && line["drops"][0]["help"].is_string(), "{line:#}");
        assert!(line["workers"][0]["busy_percent"].as_f64() > Some(0.0), "{line:#}");
    }
    let one = switch.viaduct(&["top", "--batch", "--interval", "0.1", "--json", "--filter", "P"]);
    let one: Value = serde_json::from_str(&one.success()).expect("JSON");
    assert_eq!(one["ports"].as_array().map(Vec::len), Some(1));
    assert_eq!(one["ports"][0]["uuid"], uuid("p"));

    let output = switch.viaduct(&["top"]);
    assert_eq!(output.status, 1);
    assert!(output.text.contains("this is no terminal"), "{}", output.text);
    switch.stop();
    let output = switch.viaduct(&["top", "--batch"]);
    assert_eq!(output.status, 1);
    assert!(output.text.contains("no daemon listens on"), "{}", output.text);
}

#[test]
fn the_screen_waits_for_a_daemon_that_is_away_and_leaves_the_terminal_as_it_was() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("script(1) is not installed, which makes a terminal");
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("web", "n", "52:54:00:00:00:01");
    switch.wait_status("web", "waiting");
    // The terminal that script(1) makes has no size of its own.
    let config = switch.folder().join("viaduct.toml").display().to_string();
    let program = env!("CARGO_BIN_EXE_viaduct");
    let shell = format!(
        "stty rows 24 cols 150; {program} top --interval 0.1 --config {config}; echo left with $?; stty -a"
    );
    let keys = switch.folder().join("keys");
    nix::unistd::mkfifo(&keys, nix::sys::stat::Mode::S_IRWXU).expect("our own folder");
    let typed = "exec script -q -f -e -c \"$1\" /dev/null <\"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", typed, "sh", &shell]).arg(&keys).env("TERM", "xterm");
    // Who opens a pipe at one end waits for the other, so both ends are opened here.
    let mut both = File::options().read(true).write(true).open(&keys).expect("it was made");
    let screen = Process::start(&mut command);
    eventually("the port is shown", SOON, || screen.text().contains("web"));
    assert!(screen.text().contains("\x1b[?1049h"), "it has a screen of its own");
    switch.stop();
    eventually("it is told", SOON, || screen.text().contains("the daemon is away since"));
    let before = screen.text().len();
    switch.start();
    eventually("it goes on", SOON, || screen.text()[before..].contains("every 0."));
    both.write_all(b"q").expect("it is open");
    let output = screen.finish(SOON);
    let (_, after) = output.text.rsplit_once("\x1b[?1049l").expect("the screen is left");
    assert!(after.contains("left with 0"), "{after}");
    assert!(after.contains(" icanon") && after.contains(" echo "), "{after}");
    switch.stop();
}
