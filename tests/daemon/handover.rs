//! A new process goes on in the place of the one that runs, and guests notice nothing: frames are
//! numbered. Whatever goes wrong before it has all leaves the former one as it was.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::daemon::{Builder, Daemon, SOON, guest_port, port_key, uuid};
use crate::common::process::{self, Output, Process, eventually};
use crate::pair::{A, B, Pair, address, end_under_traffic, frame, number};

fn two_guests(builder: Builder) -> Daemon {
    let switch = builder.start();
    switch.local_network("n");
    switch.guest_port("a", "n", &address(A));
    switch.guest_port("b", "n", &address(B));
    switch
}

/// Hands over again and again under traffic; nothing is lost, repeated or connected anew.
fn hand_over_often(mut switch: Daemon, mut pair: Pair) {
    let mut processes = vec![switch.pid()];
    for _ in 0..4 {
        let mut view = Value::Null;
        end_under_traffic(&mut switch, &mut pair, |switch| view = switch.hand_over());
        assert_eq!(pair.check(), 0, "frames were lost");
        assert_eq!((&view["guests"], &view["dry_run"]), (&json!(2), &json!(false)));
        assert!(view["pause_us"].as_u64().is_some_and(|pause| pause > 0), "{view:#}");
        let summary = switch.show("");
        assert_eq!(summary["pid"], view["pid"]);
        let from = &summary["taken_over"];
        assert_eq!((&from["pid"], &from["guests"]), (&json!(processes.last()), &json!(2)));
        processes.push(switch.pid());
    }
    for front_end in [&pair.a, &pair.b] {
        assert!(!front_end.is_connected_again(), "a guest had to connect again");
    }
    for name in ["a", "b"] {
        switch.wait_ready(name);
        let vhost = switch.show_port("vhost", name);
        assert_eq!((&vhost["sessions"], &vhost["last_error"]), (&json!(1), &json!(null)));
    }
    switch.stop();
}

#[test]
fn a_handover_loses_no_frame_and_repeats_none() {
    let switch = two_guests(Daemon::builder());
    let pair = Pair::start(&switch);
    hand_over_often(switch, pair);
}

#[test]
fn packed_rings_go_on_as_well() {
    let switch = two_guests(Daemon::builder());
    let pair = Pair::start_packed(&switch);
    hand_over_often(switch, pair);
}

/// Asks for a handover without a look at the configuration, which may be wrong.
fn by_socket(switch: &Daemon) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
    command.arg("handover").arg("--socket").arg(switch.folder().join("viaduct.sock"));
    process::run(&mut command, SOON)
}

#[test]
fn what_is_refused_leaves_the_former_process_running() {
    let mut switch = two_guests(Daemon::builder());
    let mut pair = Pair::start(&switch);
    let before = switch.pid();
    let mut refused =
        |switch: &mut Daemon, key: &str, wrong: &str, right: Option<&str>, why: &str| {
            switch.rewrite(key, Some(wrong));
            end_under_traffic(switch, &mut pair, |switch| {
                let output = by_socket(switch);
                assert_eq!(output.status, 1, "{}", output.text);
                assert!(output.text.contains("the daemon goes on as before"), "{}", output.text);
                assert!(output.text.contains(why), "not because of `{why}`: {}", output.text);
            });
            switch.rewrite(key, right);
            assert_eq!(switch.show("")["pid"], json!(before));
            assert_eq!(pair.check(), 0, "frames were lost");
        };
    refused(&mut switch, "workers.cors", "[0]", None, "cors");
    refused(&mut switch, "host", "'elsewhere'", Some("'here'"), "needs a restart");
    let store = format!("'{}'", switch.folder().join("store").display());
    let gone = "the directory `/nowhere/at/all` is not there";
    refused(&mut switch, "store.directory", "'/nowhere/at/all'", Some(&store), gone);

    // Nothing of it has harmed: now it can be done, and a dry run does not. A socket at which nobody is
    // goes too, and is no guest.
    let mut nobody = guest_port("c", "n", "52:54:00:00:00:0c");
    nobody["mode"] = json!("server");
    switch.put(&port_key("c"), &nobody);
    switch.wait_status("c", "waiting");
    let dry = switch.viaduct(&["handover", "--dry-run", "--json"]).success();
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!((&dry["dry_run"], &dry["guests"]), (&json!(true), &json!(2)));
    assert_eq!(switch.show("")["pid"], json!(before));
    let gone = format!("/proc/{}/exe", dry["pid"]);
    eventually("the process of the dry run has ended", SOON, || fs::read_link(&gone).is_err());
    hand_over_often(switch, pair);
}

/// The part of a new process, played in steps: what it says, and what it waits for.
const ACTOR: &str = r#"
import json, os, socket, struct, sys, time
s = socket.socket(fileno=0)
def exact(n):
    data = b""
    while len(data) < n:
        got, rights, flags, _ = socket.recv_fds(s, n - len(data), 64)
        if not got: sys.exit(3)
        data += got
        for right in rights: os.close(right)
    return data
def receive():
    octets, descriptors = struct.unpack("=II", exact(8))
    while descriptors > 0:
        exact(1); descriptors -= 64
    return json.loads(exact(octets))
def say(message):
    text = json.dumps(message).encode()
    s.sendall(struct.pack("=II", len(text), 0) + text)
def until(name):
    while True:
        message = receive()
        if name in message: return message[name]
def hello(format):
    config = open("CONFIG").read()
    find = lambda key: [l.split("=")[1].strip().strip("'") for l in config.splitlines() if l.startswith(key + " ")][0]
    say({"format": format, "version": "9.9.9", "same": {"host": find("host"),
         "socket_directory": find("vhost.socket_directory"), "control_socket": find("control.socket")}})
"#;

/// Puts an actor in the place of the program.
fn replace(switch: &Daemon, program: &Path, steps: &str) {
    let config = switch.folder().join("viaduct.toml");
    let actor = ACTOR.replace("CONFIG", config.to_str().expect("UTF-8"));
    let new = program.with_extension("new");
    fs::write(&new, format!("#!/usr/bin/env python3\n{actor}\n{steps}\n")).expect("our own folder");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("our own file");
    fs::rename(&new, program).expect("our own folder");
}

#[test]
fn a_new_process_that_fails_midway_leaves_the_former_one_running() {
    let (builder, program) = Daemon::builder().own_program();
    let mut switch = two_guests(builder);
    let mut pair = Pair::start(&switch);
    let before = switch.pid();
    for (steps, why) in [
        ("sys.exit(1)", "has ended"),
        ("hello(2)\ntime.sleep(60)", "viaduct 9.9.9 hands over in format 2"),
        ("say({'refused': {'why': 'the moon is full'}})\ntime.sleep(60)", "the moon is full"),
        ("say(['what'])\ntime.sleep(60)", "not understood"),
        ("s.sendall(b'\\xff' * 8)\ntime.sleep(60)", "none of ours"),
        ("say({'taken': {}})\ntime.sleep(60)", "out of turn"),
        ("hello(1)\nsys.exit(1)", "has ended"),
        ("hello(1)\nuntil('offered')\nsys.exit(1)", "has ended"),
        // These end when nothing is switched any more: it goes on.
        (
            "hello(1)\nuntil('offered')\nsay({'ready': {}})\nuntil('halted')\nsys.exit(1)",
            "has ended",
        ),
        (
            "hello(1)\nuntil('offered')\nsay({'ready': {}})\nuntil('halted')\n\
             say({'refused': {'why': 'too late'}})\ntime.sleep(60)",
            "too late",
        ),
        (
            "hello(1)\nuntil('offered')\nsay({'ready': {}})\nuntil('halted')\ntime.sleep(60)",
            "says nothing for 1000 ms",
        ),
    ] {
        replace(&switch, &program, steps);
        end_under_traffic(&mut switch, &mut pair, |switch| {
            let output = switch.viaduct(&["handover"]);
            assert!(output.text.contains(why), "not because of `{why}`: {}", output.text);
            assert_eq!(output.status, 1, "{}", output.text);
        });
        assert_eq!(pair.check(), 0, "frames were lost");
        assert_eq!(switch.show("")["pid"], json!(before));
    }
    // The program that is there now is what goes on.
    fs::remove_file(&program).expect("our own file");
    fs::hard_link(env!("CARGO_BIN_EXE_viaduct"), &program)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_viaduct"), &program).map(drop))
        .expect("our own folder");
    hand_over_often(switch, pair);
}

#[test]
fn a_former_process_that_is_killed_midway_takes_the_new_one_with_it() {
    let mut switch = two_guests(Daemon::builder());
    let mut pair = Pair::start(&switch);
    let (old, config) = (switch.pid(), switch.folder().join("viaduct.toml"));
    end_under_traffic(&mut switch, &mut pair, |switch| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
        let mut command = Process::start(command.arg("handover").arg("--config").arg(config));
        eventually("a new process is started", SOON, || !children(old).is_empty());
        let new = children(old);
        switch.kill();
        assert_ne!(command.status().unwrap_or(1), 0);
        for process in new {
            eventually("the new process has ended", SOON, || {
                let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                state.is_empty() || state.contains(") Z ")
            });
        }
    });
    switch.start();
    assert!(pair.settle() <= 64, "more were lost than the worker had taken");
    switch.stop();
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split(' ').filter_map(|it| it.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn sockets_addresses_and_figures_go_with_it() {
    const BEHIND: [u8; 6] = [0x52, 0x54, 0, 0, 9, 9];
    let builder = Daemon::builder();
    let metrics = builder.folder().join("metrics.sock");
    let builder = builder.set("metrics.listen", &format!("'{}'", metrics.display()));
    let mut switch = two_guests(builder);
    let mut port = guest_port("s", "n", "52:54:00:00:00:0c");
    port["mode"] = json!("server");
    switch.put(&port_key("s"), &port);
    eventually("our socket is there", SOON, || switch.socket("s").exists());
    let mut served = UnixStream::connect(switch.socket("s")).expect("the switch listens");
    switch.wait_ready("s");
    let mut pair = Pair::start(&switch);
    pair.a.send(0, &frame(B, BEHIND, 1));
    pair.b.receives(|frame| number(frame) == 1);
    let learned = |switch: &Daemon| {
        let view = switch.show("fdb");
        let entries = view["entries"].as_array().expect("a list").clone();
        entries.into_iter().find(|entry| entry["mac"] == address(BEHIND))
    };
    eventually("it is learned", SOON, || learned(&switch).is_some());

    assert_eq!(switch.hand_over()["guests"], json!(3));
    let entry = learned(&switch).expect("it is known");
    assert!(entry["port"].to_string().contains(&uuid("a")), "{entry:#}");
    served.set_nonblocking(true).expect("a socket of ours");
    let read = served.read(&mut [0; 8]);
    assert!(read.is_err_and(|it| it.kind() == ErrorKind::WouldBlock), "the socket was closed");
    eventually("metrics tell of it", SOON, || {
        let figures = figures(&metrics);
        let pause =
            figures.lines().find_map(|line| line.strip_prefix("viaduct_handover_pause_seconds{} "));
        pause.is_some_and(|pause| pause.parse::<f64>().is_ok_and(|seconds| seconds > 0.0))
    });

    // The guest of our socket goes, and another comes, to the new process.
    drop(served);
    switch.wait_status("s", "waiting");
    let _served = UnixStream::connect(switch.socket("s")).expect("the switch listens");
    eventually("another guest is served", SOON, || {
        switch.show_port("vhost", "s")["sessions"] == json!(2)
    });
    switch.stop();
    assert!(!switch.socket("s").exists() && !metrics.exists(), "a socket was left");
}

fn figures(socket: &Path) -> String {
    use std::io::Write;
    let mut stream = UnixStream::connect(socket).expect("the switch listens");
    let request = "GET /metrics HTTP/1.1\r\nHost: viaduct\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("text");
    reply
}

#[test]
fn a_guest_may_change_its_mind_meanwhile() {
    let mut switch = two_guests(Daemon::builder());
    let mut pair = Pair::start(&switch);
    let command = switch.folder().join("viaduct.toml");
    // Guests go and come while the new process prepares itself.
    let deadline = Instant::now() + SOON;
    let mut handed = 0;
    while handed < 3 && Instant::now() < deadline {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_viaduct"));
        let asked = asked.args(["handover", "--json", "--config"]).arg(&command);
        let mut asked = Process::start(asked);
        let mut turns = 0;
        while asked.status().is_none() {
            pair.a.enable(turns % 2 == 1);
            turns += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        pair.a.enable(true);
        let output = asked.finish(SOON).success();
        let view: Value = serde_json::from_str(&output).expect("JSON");
        switch.go_on_with(&view);
        assert!(turns > 10, "the guest hardly said anything");
        handed += 1;
        // What was sent meanwhile was not sent at all: nothing was.
        assert_eq!(pair.check(), 0, "frames were lost");
    }
    switch.stop();
}
