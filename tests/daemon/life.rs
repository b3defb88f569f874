//! How a switch begins and ends, what it leaves behind, and that there is one of it.

use std::fs;

use serde_json::{Value, json};

use crate::SilentGuest;
use crate::common::daemon::{Daemon, HOST, SOON, network_key, port_key, uuid};
use crate::common::process::eventually;

#[test]
fn actual_state_is_written_and_withdrawn() {
    let mut switch = Daemon::builder().physnet("w", "net_ring0").start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    switch.guest_port("q", "n", "52:54:00:00:00:02");
    let state = switch.wait_status("p", "waiting");
    assert_eq!(state["socket"], json!(switch.socket("p")));
    assert_eq!(state["mac"], "52:54:00:00:00:01");
    let folder = switch.folder().join("store/state").join(HOST);
    let read = |file: &str| -> Value {
        let text = fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        serde_json::from_slice(&text).expect("JSON")
    };
    assert_eq!(read("alive.json")["pid"], switch.pid());
    assert_eq!(read("physnets/w.json")["status"], "ready");

    // What did not change keeps its time, and what did change has a later one.
    let _guest = SilentGuest::start(&switch, "p");
    let ready = switch.wait_ready("p");
    assert!(ready["since"].as_str() > state["since"].as_str(), "{state:#} and then {ready:#}");
    let other = switch.wait_status("q", "waiting");
    switch.delete(&port_key("p"));
    switch.wait_gone("p");
    assert_eq!(switch.state("q"), Some(other));

    // A crash leaves it all; the next one makes it true again.
    let killed = switch.pid();
    switch.kill();
    assert_eq!(read("alive.json")["pid"], killed);
    switch.delete(&port_key("q"));
    switch.start();
    switch.wait_gone("q");
    assert_eq!(read("alive.json")["pid"], switch.pid());
    switch.stop();
}

#[test]
fn a_second_switch_is_refused_and_the_first_goes_on() {
    let mut first = Daemon::builder().start();
    let path = |part: &str| format!("'{}'", first.folder().join(part).display());

    // The same store, for the same host.
    let output = Daemon::builder().set("store.directory", &path("store")).refused();
    assert_eq!(output.status, 1, "{}", output.text);
    let holder = format!("process {}", first.pid());
    for part in [&holder, HOST, "stop it, or set another `host`"] {
        assert!(output.text.contains(part), "{part:?} is not said:\n{}", output.text);
    }

    // The same control socket.
    let output = Daemon::builder().set("control.socket", &path("viaduct.sock")).refused();
    assert_eq!(output.status, 1, "{}", output.text);
    let told = "another daemon answers there; stop it, or set another `control.socket`";
    assert!(output.text.contains(told), "{}", output.text);

    // Another host of the same store is none of its business.
    let other = Daemon::builder().set("store.directory", &path("store")).set("host", "'there'");
    let mut other = other.start();
    assert_eq!(other.show("")["host"], "there");
    other.stop();

    assert_eq!(first.show("")["pid"], first.pid());
    first.local_network("n");
    first.guest_port("p", "n", "52:54:00:00:00:01");
    first.wait_status("p", "waiting");
    first.stop();
}

#[test]
fn commands_edit_the_store_and_the_switch_follows() {
    let mut switch = Daemon::builder().start();
    let add = ["network", "add", "--name", "red", "--type", "local", "--uuid"];
    let network = switch.viaduct(&[&add[..], &[&uuid("red")]].concat()).success();
    assert_eq!(network.trim(), uuid("red"));
    let add = [
        "port",
        "add",
        "--name",
        "p",
        "--network",
        "red",
        "--mac",
        "52:54:00:00:00:01",
        "--socket",
        "p.sock",
        "--uuid",
    ];
    let port = switch.viaduct(&[&add[..], &[&uuid("p")]].concat()).success();
    assert_eq!(port.trim(), uuid("p"));
    switch.wait_status("p", "waiting");
    assert_eq!(switch.show_port("ports", "p")["name"], "p");

    let output = switch.viaduct(&["network", "del", "red"]);
    assert_ne!(output.status, 0, "a network was deleted under a port:\n{}", output.text);
    switch.viaduct(&["port", "del", "p"]).success();
    switch.wait_gone("p");
    switch.viaduct(&["network", "del", "red"]).success();
    eventually("the domain is gone", SOON, || switch.show("domains") == json!([]));
    switch.stop();

    let output = switch.viaduct(&["show", "ports"]);
    assert_ne!(output.status, 0);
    assert!(output.text.contains("no daemon listens on"), "{}", output.text);
    assert!(output.text.contains("viaduct run --config"), "{}", output.text);
}

#[test]
fn a_store_that_is_away_changes_nothing() {
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");

    let (store, away) = (switch.folder().join("store"), switch.folder().join("away"));
    fs::rename(&store, &away).expect("our own folder");
    eventually("it is told", SOON, || !switch.errors().is_empty());
    let errors = switch.errors();
    assert_eq!(errors[0]["object"], json!(store), "{errors:#?}");
    assert!(errors[0]["what"].as_str().is_some_and(|what| what.contains("stays in force")));
    assert_eq!(switch.show_port("ports", "p")["status"], "ready");

    fs::rename(&away, &store).expect("our own folder");
    eventually("it is back", SOON, || switch.errors().is_empty());
    switch.delete(&port_key("p"));
    switch.delete(&network_key("n"));
    switch.wait_gone("p");
    guest.was_left_alone();
    switch.stop();
}
