//! The program with its state in etcd: commands, the daemon, and what they leave there.
//!
//! What the store does in each case is tested beside it; here it is shown that all of the program
//! takes the store that is configured.

mod common;

use common::daemon::{Daemon, HOST, SOON};
use common::etcd::{self, Etcd};
use common::process::eventually;

const ROOT: &str = "/viaduct/v1/";

/// A cluster of one, unless that cannot be had here. In CI it must.
fn cluster() -> Option<Etcd> {
    match etcd::requirements() {
        Ok(()) => Some(Etcd::start(1)),
        Err(missing) => {
            common::skip(&missing);
            None
        }
    }
}

#[test]
fn commands_and_daemon_work_on_the_store_that_is_configured() {
    let Some(mut etcd) = cluster() else { return };
    let builder = Daemon::builder().etcd(&etcd.endpoints());
    let mut switch = builder.set("store.etcd.timeout_ms", "1000").start();
    let said = |arguments: &[&str]| switch.viaduct(arguments).success().trim().to_owned();

    // What commands add stands in etcd, and the daemon says there what became of it.
    let network = said(&["network", "add", "--name", "red"]);
    let mac = "52:54:00:00:00:01";
    let add = ["port", "add", "--network", "red", "--name", "web", "--socket", "a", "--mac", mac];
    let port = said(&add);
    let written = etcd.value(&format!("{ROOT}networks/{network}")).expect("it was added");
    assert!(written.value.contains("\"red\""), "{}", written.value);
    let state = format!("{ROOT}state/{HOST}/ports/{port}");
    eventually("the port is reported", SOON, || {
        etcd.value(&state).is_some_and(|it| it.value.contains("\"waiting\""))
    });
    let alive = etcd.value(&format!("{ROOT}state/{HOST}/alive")).expect("the daemon lives");
    assert!(alive.lease != 0 && alive.value.contains(&format!("\"pid\":{}", switch.pid())));
    let summary = switch.show("").to_string();
    assert!(summary.contains(&format!("etcd {}", etcd.endpoints()[0])), "{summary}");

    // Ports of other hosts are no mistake in a store of many; what is one, is told.
    etcd.put(&format!("{ROOT}nodes/other/ports/{port}"), "{}");
    said(&["check"]);
    etcd.put(&format!("{ROOT}networks/blue"), "{}");
    let check = switch.viaduct(&["check"]);
    assert_eq!(check.status, 1, "{}", check.text);
    assert!(check.text.contains(&format!("{ROOT}networks/blue")), "{}", check.text);
    assert!(!check.text.contains("nodes/other"), "{}", check.text);
    etcd.delete(&format!("{ROOT}networks/blue"));

    // Away, it is named by commands, and the daemon goes on.
    etcd.kill(0);
    for command in [&["check"][..], &["network", "add", "--name", "green"]] {
        let output = switch.viaduct(command);
        assert_eq!(output.status, 1, "{}", output.text);
        assert!(output.text.contains(&etcd.endpoints()[0]), "{}", output.text);
        assert!(output.text.contains("does not answer"), "{}", output.text);
    }
    assert_eq!(switch.show("ports").as_array().map(Vec::len), Some(1));
    etcd.launch(0);
    etcd.wait();
    eventually("the port can be deleted", SOON, || {
        switch.viaduct(&["port", "del", "web"]).status == 0
    });
    eventually("its report is gone", SOON, || etcd.value(&state).is_none());
    switch.stop();
    assert_eq!(etcd.list(&format!("{ROOT}state/")), []);
}
