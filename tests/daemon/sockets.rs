//! Sockets that somebody else has: the port says so, nothing of the other's is touched, and once the
//! path is free the port takes it by itself.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::json;

use crate::common::daemon::{Daemon, SOON, guest_port, port_key};
use crate::common::process::eventually;
use crate::{SilentGuest, skip};

/// A user who is neither us nor root.
const SOMEBODY: u32 = 65534;

/// A switch with a port `p` in server mode, whose path is prepared before.
fn serving(prepare: impl FnOnce(&Path)) -> Daemon {
    let switch = Daemon::builder().start();
    prepare(&switch.socket("p"));
    switch.local_network("n");
    let mut port = guest_port("p", "n", "52:54:00:00:00:01");
    port["mode"] = json!("server");
    switch.put(&port_key("p"), &port);
    switch
}

/// Waits until the port has failed, with the path and these words in its state and in `show errors`.
#[track_caller]
fn failed(switch: &Daemon, words: &[&str]) {
    let state = switch.wait_status("p", "failed");
    let reason = state["reason"].as_str().unwrap_or_default();
    let path = switch.socket("p").display().to_string();
    for word in words.iter().chain([&path.as_str(), &"another path"]) {
        assert!(reason.contains(word), "{word:?} is not said in {state:#}");
    }
    let errors = switch.errors();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let places = (&errors[0]["object"], &errors[0]["field"]);
    assert_eq!(places, (&json!(port_key("p")), &json!("socket")), "{errors:#?}");
    assert!(errors[0]["what"].as_str().is_some_and(|what| what.contains(&path)), "{errors:#?}");
}

/// Waits until the port's socket is the switch's.
#[track_caller]
fn takes_the_path(switch: &Daemon) {
    switch.wait_status("p", "waiting");
    let _guest = UnixStream::connect(switch.socket("p")).expect("the switch listens");
    switch.wait_ready("p");
    assert!(switch.errors().is_empty());
}

#[test]
fn a_socket_that_another_process_listens_on_is_left_to_it() {
    let mut other = None;
    let mut switch = serving(|path| other = Some(UnixListener::bind(path).expect("a free path")));
    failed(&switch, &["is in use by another process"]);
    let path = switch.socket("p");
    UnixStream::connect(&path).expect("the other one still listens");

    drop(other);
    // It has left its socket behind, on which nobody listens: that one may go.
    takes_the_path(&switch);
    switch.stop();
    assert!(!path.exists(), "the switch has left its socket");
}

#[test]
fn a_socket_of_another_user_is_left_to_them() {
    if !geteuid().is_root() {
        return skip("giving a file to somebody else needs root");
    }
    let mut switch = serving(|path| {
        drop(UnixListener::bind(path).expect("a free path"));
        chown(path, Some(SOMEBODY), None).expect("root may");
    });
    failed(&switch, &["belongs to user 65534"]);
    let path = switch.socket("p");
    assert!(path.exists(), "somebody else's socket was removed");
    fs::remove_file(&path).expect("root may");
    takes_the_path(&switch);
    switch.stop();
}

#[test]
fn a_file_in_the_way_is_left_there() {
    let mut switch = serving(|path| fs::write(path, "precious").expect("our own folder"));
    failed(&switch, &["is not a socket"]);
    let path = switch.socket("p");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    fs::remove_file(&path).expect("our own folder");
    takes_the_path(&switch);
    switch.stop();
}

#[test]
fn a_guest_that_is_not_there_yet_is_waited_for() {
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let path = switch.socket("p").display().to_string();
    eventually("what is waited for is told", SOON, || {
        let state = switch.wait_status("p", "waiting");
        state["reason"].as_str().is_some_and(|reason| reason.contains(&path))
    });
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");

    // It goes, and comes back on the same path.
    drop(guest);
    fs::remove_file(switch.socket("p")).expect("our own folder");
    switch.wait_status("p", "waiting");
    let guest = SilentGuest::start(&switch, "p");
    switch.wait_ready("p");
    eventually("the second session is counted", SOON, || {
        switch.show_port("vhost", "p")["sessions"] == 2
    });
    guest.was_left_alone();
    switch.stop();
}
