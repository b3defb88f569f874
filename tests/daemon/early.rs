//! Guests that are there before their ports: connected where that is wanted, never forwarded for, and
//! handed over without being disconnected.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::daemon::{Builder, Daemon, SOON, guest_port, port_key, uuid};
use crate::common::front_end::{FrontEnd, Waiting};
use crate::common::process::eventually;

/// Time in which a frame would arrive that must not.
const NEVER: Duration = Duration::from_millis(500);

const MAC_P: &str = "52:54:00:00:00:01";
const MAC_E: &str = "52:54:00:00:00:02";

fn early() -> Builder {
    Daemon::builder().set("vhost.connect_early", "true").set("vhost.queues_max", "4")
}

/// The port of a guest whose socket is named by the port's UUID.
fn early_port(name: &str) -> Value {
    let mut port = guest_port(name, "n", MAC_E);
    port["socket"] = json!(uuid(name));
    port
}

/// A path in the socket directory.
fn path(switch: &Daemon, file: &str) -> PathBuf {
    switch.folder().join("vhost").join(file)
}

fn waiting(switch: &Daemon, name: &str) -> Waiting {
    Waiting::new(&path(switch, &uuid(name)))
}

/// A frame to all, from this address, that ends with a mark.
fn frame(from: u8, mark: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
    frame.resize(60, mark);
    frame
}

/// The line of `show vhost` about a port, if there is one.
fn vhost(switch: &Daemon, name: &str) -> Option<Value> {
    let all = switch.show("vhost");
    let all = all.as_array().expect("a list");
    all.iter().find(|one| one["uuid"] == uuid(name)).cloned()
}

/// A port `p` in force, and its guest.
#[track_caller]
fn ordinary(switch: &Daemon) -> FrontEnd {
    switch.local_network("n");
    let waiting = Waiting::new(&switch.socket("p"));
    switch.guest_port("p", "n", MAC_P);
    let mut guest = waiting.connect(1);
    guest.start();
    switch.wait_ready("p");
    guest
}

#[test]
fn a_session_is_handed_over_when_the_port_comes() {
    let mut switch = early().start();
    let mut other = ordinary(&switch);
    let mut guest = waiting(&switch, "e").connect(2);
    guest.start();
    eventually("it is shown", SOON, || vhost(&switch, "e").is_some());
    let shown = vhost(&switch, "e").expect("it was just there");
    assert_eq!((&shown["state"], &shown["mode"]), (&json!("early"), &json!("client")), "{shown:#}");
    assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains(&port_key("e"))));

    // Nobody hears it, and it hears nobody; what it has to say stays in its ring.
    guest.send(0, &frame(2, 1));
    other.send(0, &frame(1, 2));
    assert_eq!(other.receive(NEVER), None, "a guest without a port was heard");
    assert_eq!(guest.receive(NEVER), None, "a guest without a port was sent a frame");
    assert_eq!((guest.untaken(0), other.untaken(0)), (1, 0));
    assert!(switch.state("e").is_none() && switch.errors().is_empty());
    let ports = switch.show("ports");
    assert_eq!(ports.as_array().map(Vec::len), Some(1), "it is no port: {ports:#}");

    switch.put(&port_key("e"), &early_port("e"));
    switch.wait_ready("e");
    other.receives(|it| it == frame(2, 1));
    other.send(0, &frame(1, 3));
    guest.receives(|it| it == frame(1, 3));
    guest.send(0, &frame(2, 4));
    other.receives(|it| it == frame(2, 4));
    // It was offered more queues than its port allows: they are served, and it is told.
    guest.send(1, &frame(2, 5));
    other.receives(|it| it == frame(2, 5));
    eventually("the queues are told", SOON, || {
        let state = switch.state("e").expect("it is reported");
        let reason = state["reason"].as_str().unwrap_or_default();
        state["queues"] == 2
            && state["status"] == "ready"
            && reason.contains("uses 2 pairs of queues, and the port allows 1")
    });
    let shown = switch.show_port("vhost", "e");
    assert_eq!((&shown["sessions"], &shown["state"]), (&json!(1), &json!("ready")), "{shown:#}");
    assert!(!guest.is_connected_again(), "the session was another one");

    // Without its port it is a guest that waits, again.
    switch.delete(&port_key("e"));
    switch.wait_gone("e");
    eventually("it is connected again", SOON, || guest.is_connected_again());
    eventually("it waits", SOON, || vhost(&switch, "e").is_some_and(|it| it["state"] == "early"));
    other.send(0, &frame(1, 6));
    assert_eq!(guest.receive(NEVER), None);
    switch.stop();
}

#[test]
fn the_ports_policy_holds_from_the_first_frame_on() {
    let mut switch = early().start();
    let mut other = ordinary(&switch);
    let mut guest = waiting(&switch, "e").connect(1);
    guest.start();
    // As somebody else, before there is anybody to say that it must not.
    guest.send(0, &frame(9, 1));
    let mut port = early_port("e");
    port["port_security"] = json!(true);
    switch.put(&port_key("e"), &port);
    switch.wait_ready("e");
    eventually("the frame is taken", SOON, || guest.untaken(0) == 0);
    assert_eq!(other.receive(NEVER), None, "it passed");
    assert_eq!(switch.show_port("ports", "e")["dropped_frames"], 1);
    assert_eq!(switch.show_port("vhost", "e")["sessions"], 1);
    switch.stop();
}

#[test]
fn a_port_that_is_somewhere_else_has_another_session() {
    let mut switch = early().start();
    let mut other = ordinary(&switch);
    let mut guest = waiting(&switch, "e").connect(1);
    guest.start();
    eventually("it waits", SOON, || vhost(&switch, "e").is_some());
    // The port `e` has another socket: whoever waits under its name is nobody's.
    switch.put(&port_key("e"), &guest_port("e", "n", MAC_E));
    switch.wait_status("e", "waiting");
    eventually("it does not wait", SOON, || {
        vhost(&switch, "e").is_some_and(|shown| shown["state"] == "unconnected")
    });
    // Another port has that socket, and connects to it as ports do.
    let mut port = early_port("q");
    port["socket"] = json!(uuid("e"));
    port["mac"] = json!("52:54:00:00:00:03");
    switch.put(&port_key("q"), &port);
    let mut guest = guest.disconnect().connect(1);
    guest.start();
    switch.wait_ready("q");
    guest.send(0, &frame(3, 1));
    other.receives(|it| it == frame(3, 1));
    switch.stop();
}

#[test]
fn who_goes_is_let_go() {
    let mut switch = early().start();
    let _other = ordinary(&switch);
    let mut guest = waiting(&switch, "e").connect(1);
    guest.start();
    eventually("it waits", SOON, || vhost(&switch, "e").is_some());

    // Its process ends, and another one takes its place.
    let guest = guest.disconnect().connect(1);
    eventually("the new one waits", SOON, || vhost(&switch, "e").is_some());
    // That one ends, too, and leaves a socket on which nobody listens.
    let socket = path(&switch, &uuid("e"));
    let kept = path(&switch, "kept");
    fs::rename(&socket, &kept).expect("our own folder");
    eventually("it is let go with its name", SOON, || vhost(&switch, "e").is_none());
    drop(guest);
    drop(UnixListener::bind(&socket).expect("the path is free"));
    let again = waiting(&switch, "f").connect(1);
    eventually("another one waits", SOON, || vhost(&switch, "f").is_some());
    assert!(vhost(&switch, "e").is_none(), "nobody listens there");
    drop(again);
    eventually("it is let go with its process", SOON, || vhost(&switch, "f").is_none());

    // The port of a socket that is dead waits as any other.
    switch.put(&port_key("e"), &early_port("e"));
    switch.wait_status("e", "waiting");
    fs::remove_file(&socket).expect("our own folder");
    let mut guest = waiting(&switch, "e").connect(1);
    guest.start();
    switch.wait_ready("e");
    switch.stop();
}

#[test]
fn what_is_not_a_ports_socket_is_left_alone() {
    let mut switch = early().start();
    switch.local_network("n");
    let junk = ["guest.sock", "65", &format!("{}.sock", uuid("a")), &uuid("a").replace('-', "")];
    let junk = junk.map(|name| Waiting::new(&path(&switch, name)));
    fs::write(path(&switch, &uuid("b")), "precious").expect("our own folder");
    symlink(path(&switch, "guest.sock"), path(&switch, &uuid("c"))).expect("our own folder");
    fs::create_dir(path(&switch, &uuid("d"))).expect("our own folder");
    let guest = waiting(&switch, "z").connect(1);
    eventually("who came last waits", SOON, || vhost(&switch, "z").is_some());
    assert_eq!(switch.show("vhost").as_array().map(Vec::len), Some(1));
    assert!(junk.iter().all(|socket| !socket.is_connected_again()));
    assert_eq!(fs::read_to_string(path(&switch, &uuid("b"))).expect("it is there"), "precious");
    drop(guest);
    switch.stop();
}

#[test]
fn nobody_is_connected_early_unless_that_is_wanted() {
    let mut switch = Daemon::builder().start();
    let early = waiting(&switch, "e");
    let _guest = ordinary(&switch);
    assert!(!early.is_connected_again() && vhost(&switch, "e").is_none());
    switch.stop();
}

#[test]
fn so_many_may_wait_and_no_more() {
    let mut switch = early().start();
    switch.local_network("n");
    let mut sockets: Vec<_> = (0..300).map(|n| waiting(&switch, &format!("s{n}"))).collect();
    let shown = |switch: &Daemon| switch.show("vhost").as_array().map(Vec::len);
    eventually("as many wait as may", SOON, || shown(&switch) == Some(256));
    eventually("it is told", SOON, || switch.errors().len() == 1);
    let error = switch.errors().remove(0);
    assert_eq!(error["object"], "vhost.socket_directory", "{error:#}");
    let what = error["what"].as_str().unwrap_or_default();
    assert!(what.contains("256 guests wait for their ports, and 44 more sockets"), "{what}");

    // A port is connected however many wait for theirs.
    let socket = Waiting::new(&switch.socket("p"));
    switch.guest_port("p", "n", MAC_P);
    let _guest = socket.connect(1);
    switch.wait_ready("p");
    sockets.drain(..50);
    eventually("the rest is connected", SOON, || shown(&switch) == Some(251));
    eventually("nothing is wrong any more", SOON, || switch.errors().is_empty());
    switch.stop();
}
