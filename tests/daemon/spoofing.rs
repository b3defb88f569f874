//! A guest that tries to be somebody else, with all that scapy can send.
//!
//! The frames and what must become of each are in `spoofing.py`. They are sent by the far end of a
//! DPDK tap device, as a guest's frames have no other way into the switch's hands than a device's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, port_key, uuid};
use crate::common::namespace::Namespace;
use crate::common::process;
use crate::skip;

/// Debian's own, which has scapy: another may come before it on the path.
const PYTHON: &str = "/usr/bin/python3";

/// Time for the whole table, on a machine that others keep busy.
const TABLE: Duration = Duration::from_secs(240);

/// What is missing to run the table here, as a sentence.
fn requirements() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("making a tap interface needs root".to_owned());
    }
    let probe = process::run(Command::new(PYTHON).args(["-c", "import scapy"]), SOON);
    if probe.status != 0 {
        return Err("there is no scapy: install Debian's python3-scapy".to_owned());
    }
    Ok(())
}

#[test]
fn a_port_with_security_passes_nothing_but_its_own() {
    if let Err(missing) = requirements() {
        return skip(&missing);
    }
    // The switch is in a namespace too, so that its taps are: where no kernel sends by itself.
    let namespace = Namespace::new("spoof");
    namespace.run("sysctl -w net.ipv6.conf.default.disable_ipv6=1", SOON).success();
    let entrance = format!("--net=/run/netns/{}", namespace.name());
    let mut switch = Daemon::builder().under(&["nsenter", &entrance]).start();
    switch.local_network("red");
    let mut guest = port("guest", 0, "52:54:00:00:00:0a");
    guest["fixed_ips"] = json!(["10.0.0.10", "fd00::5054:ff:fe00:a"]);
    guest["allowed_address_pairs"] = json!([
        {"ip": "10.0.9.0/24"},
        {"ip": "fd00:9::/64"},
        {"ip": "10.0.0.77", "mac": "02:00:00:00:00:77"},
        {"ip": "fd00::77", "mac": "02:00:00:00:00:77"},
    ]);
    switch.put(&port_key("guest"), &guest);
    let mut listener = port("listener", 1, "52:54:00:00:00:0b");
    listener["port_security"] = json!(false);
    switch.put(&port_key("listener"), &listener);
    for name in ["guest", "listener"] {
        switch.wait_ready(name);
    }

    spoof(&switch, &namespace, "closed");

    let everything = json!({"rules": [{"direction": "egress"}, {"direction": "ingress"}]});
    switch.put(&format!("security-groups/{}", uuid("everything")), &everything);
    // The port is made anew: so no frame meets the state before.
    switch.delete(&port_key("guest"));
    switch.wait_gone("guest");
    guest["security_groups"] = json!([uuid("everything")]);
    switch.put(&port_key("guest"), &guest);
    switch.wait_ready("guest");
    spoof(&switch, &namespace, "open");
    switch.stop();
}

/// A port behind a tap interface by its name.
fn port(name: &str, number: u8, mac: &str) -> Value {
    let device = format!("net_tap{number},iface={name}");
    json!({"name": name, "network": uuid("red"), "kind": "ethdev", "device": device, "mac": mac})
}

/// Sends the table.
#[track_caller]
fn spoof(switch: &Daemon, namespace: &Namespace, groups: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/spoofing.py");
    let command = format!(
        "{PYTHON} {} guest listener {groups} {} show drops --json --config {}",
        script.display(),
        env!("CARGO_BIN_EXE_viaduct"),
        switch.folder().join("viaduct.toml").display(),
    );
    let text = namespace.run(&command, TABLE).success();
    eprintln!("{groups}: {text}");
}
