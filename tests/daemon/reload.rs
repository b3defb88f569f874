//! The configuration is changed while the switch runs.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON};
use crate::common::process::{self, eventually};
use crate::{SilentGuest, skip};

/// CPUs that this process may run on.
fn cpus() -> Vec<usize> {
    let all = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("the kernel tells");
    (0..nix::sched::CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)).collect()
}

fn file(switch: &Daemon) -> std::path::PathBuf {
    switch.folder().join("viaduct.toml")
}

/// Puts lines before all others of the configuration, where dotted keys may stand.
fn prepend(switch: &Daemon, lines: &str) {
    let text = fs::read_to_string(file(switch)).expect("it was written");
    fs::write(file(switch), format!("{lines}\n{text}")).expect("our own folder");
}

/// Replaces a part of the configuration.
fn replace(switch: &Daemon, from: &str, to: &str) {
    let text = fs::read_to_string(file(switch)).expect("it was written");
    assert!(text.contains(from), "{from} is not in:\n{text}");
    fs::write(file(switch), text.replace(from, to)).expect("our own folder");
}

fn value(switch: &Daemon, key: &str) -> Value {
    switch.show("config")["values"][key].clone()
}

#[test]
fn what_needs_no_restart_is_changed_and_guests_notice_nothing() {
    let builder = Daemon::builder();
    let metrics = builder.folder().join("metrics.sock");
    let mut switch = builder.start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");
    assert_eq!(value(&switch, "workers.sleep_max_us"), 100);
    let unchanged = switch.viaduct(&["reload"]).success();
    assert_eq!(unchanged, "nothing is different\n");

    prepend(&switch, "log.level = 'warn'\nfdb.ageing_seconds = 20\nacl.rules = 5000");
    prepend(&switch, &format!("metrics.listen = '{}'", metrics.display()));
    prepend(&switch, "physnets.w.device = 'net_ring0'");
    replace(&switch, "workers.sleep_max_us = 100", "workers.sleep_max_us = 300");
    let told = switch.viaduct(&["reload", "--dry-run"]).success();
    assert!(told.contains("fdb.ageing_seconds") && told.contains("nothing was done"), "{told}");
    assert_eq!(value(&switch, "workers.sleep_max_us"), 100, "that was a question");
    let told = switch.viaduct(&["reload"]).success();
    assert!(told.ends_with("the configuration is in force\n"), "{told}");

    assert_eq!(value(&switch, "fdb.ageing_seconds"), 20);
    assert_eq!(switch.show("workers")[0]["sleep_max_us"], 300);
    assert!(metrics.exists(), "metrics are served");
    let ports = switch.show("ports");
    let uplink = ports.as_array().and_then(|all| all.iter().find(|it| it["physnet"] == "w"));
    assert_eq!(uplink.expect("it came")["status"], "ready", "{ports:#}");
    switch.guest_port("q", "n", "52:54:00:00:00:02");
    switch.wait_status("q", "waiting");
    let reloaded = |switch: &Daemon| switch.log().matches("the configuration is reloaded").count();
    assert_eq!(reloaded(&switch), 0, "that is no warning");

    // SIGHUP does the same.
    replace(&switch, "log.level = 'warn'", "log.level = 'info'");
    let pid = Pid::from_raw(switch.pid().cast_signed());
    kill(pid, Signal::SIGHUP).expect("it runs");
    eventually("it is reloaded", SOON, || value(&switch, "log.level") == "info");
    eventually("it is logged", SOON, || reloaded(&switch) == 1);
    let config = switch.show("config");
    assert_eq!((&config["applied"], &config["refused"]), (&json!(3), &json!(0)), "{config:#}");
    assert_eq!(config["last"]["outcome"], "applied");
    guest.was_left_alone();
    switch.stop();
    assert!(!metrics.exists());
}

#[test]
fn a_wrong_configuration_and_one_that_needs_a_restart_change_nothing() {
    let mut switch = Daemon::builder().start();
    let good = fs::read_to_string(file(&switch)).expect("it was written");

    prepend(&switch, "fdb.ageing_seconds = 20\nworkers.coers = [1]");
    let socket = switch.folder().join("viaduct.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
    let output = process::run(command.args(["reload", "--socket"]).arg(socket), SOON);
    assert_eq!(output.status, 1, "{}", output.text);
    let file_name = file(&switch).display().to_string();
    let line = format!("{file_name}:2: workers.coers: is not a field of [workers]; remove it");
    assert!(output.text.contains(&line), "{}", output.text);
    assert!(output.text.contains("nothing has changed"), "{}", output.text);
    // A command that reads the socket's place there sees the same before it asks.
    let output = switch.viaduct(&["reload"]);
    assert_eq!(output.status, 2, "{}", output.text);
    assert!(output.text.contains(&line), "{}", output.text);
    fs::write(file(&switch), &good).expect("our own folder");
    assert_eq!(value(&switch, "fdb.ageing_seconds"), 300);
    assert_eq!(switch.show("config")["last"]["outcome"], "refused");

    prepend(&switch, "fdb.ageing_seconds = 20\ndpdk.memory_mib = 300");
    let output = switch.viaduct(&["reload"]);
    assert_eq!(output.status, 1, "{}", output.text);
    assert!(output.text.contains("restart: DPDK takes its memory"), "{}", output.text);
    assert_eq!(value(&switch, "fdb.ageing_seconds"), 300);
    let told = switch.viaduct(&["reload", "--partly"]).success();
    assert!(told.contains("the rest is in force; 1 key needs a restart"), "{told}");
    assert_eq!(value(&switch, "fdb.ageing_seconds"), 20);
    assert_eq!(value(&switch, "dpdk.memory_mib"), 256);

    // What fails when it is tried leaves all else as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    fs::write(file(&switch), &good).expect("our own folder");
    prepend(&switch, &format!("fdb.ageing_seconds = 30\nmetrics.listen = '{address}'"));
    let output = switch.viaduct(&["reload"]);
    assert_eq!(output.status, 1, "{}", output.text);
    let said = format!(":2: metrics.listen: {address}: listening failed");
    assert!(output.text.contains(&said), "{}", output.text);
    assert_eq!(value(&switch, "fdb.ageing_seconds"), 20);
    switch.stop();
}

#[test]
fn cores_come_and_go() {
    let &[first, second, ..] = &cpus()[..] else {
        return skip("this needs two CPUs");
    };
    let cores = format!("[{first}]");
    let mut switch = Daemon::builder().set("workers.cores", &cores).start();
    switch.local_network("n");
    for (name, mac) in [("p", "52:54:00:00:00:01"), ("q", "52:54:00:00:00:02")] {
        switch.guest_port(name, "n", mac);
        switch.wait_status(name, "waiting");
    }
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");
    let queues = |switch: &Daemon| -> Vec<(u64, u64, usize)> {
        let workers = switch.show("workers");
        let one = |it: &Value| {
            let number = |key: &str| it[key].as_u64().expect("a number");
            let rxqs = it["rxqs"].as_array().expect("a list").len();
            (number("number"), number("core"), rxqs)
        };
        workers.as_array().expect("a list").iter().map(one).collect()
    };
    let (a, b) = (first as u64, second as u64);
    assert_eq!(queues(&switch), [(0, a, 2)]);

    // A new worker gets the queues that come.
    replace(
        &switch,
        &format!("workers.cores = {cores}"),
        &format!("workers.cores = [{first}, {second}]"),
    );
    switch.viaduct(&["reload"]).success();
    assert_eq!(queues(&switch), [(0, a, 2), (1, b, 0)]);
    switch.guest_port("r", "n", "52:54:00:00:00:03");
    switch.wait_status("r", "waiting");
    assert_eq!(queues(&switch), [(0, a, 2), (1, b, 1)]);
    eventually("it polls", SOON, || switch.show("workers")[1]["polls"].as_u64() > Some(0));

    // What a worker has goes to others before it ends.
    replace(&switch, &format!("[{first}, {second}]"), &format!("[{second}]"));
    switch.viaduct(&["reload"]).success();
    assert_eq!(queues(&switch), [(1, b, 3)]);
    assert_eq!(switch.show("")["cores"], json!([second]));
    replace(
        &switch,
        &format!("workers.cores = [{second}]"),
        &format!("workers.cores = [{second}, {first}]"),
    );
    switch.viaduct(&["reload"]).success();
    let mut workers = queues(&switch);
    workers.sort_unstable();
    assert_eq!(workers, [(0, a, 0), (1, b, 3)]);
    assert_eq!(switch.show_port("ports", "p")["status"], "ready");
    guest.was_left_alone();
    switch.stop();
}
