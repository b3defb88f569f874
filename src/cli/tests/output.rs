//! What a transcript cannot show: where output goes, and what happens when nobody takes it.

use std::io::{self, ErrorKind, Write};

use super::bed::Bed;
use crate::cli::{self, Exit};

/// Takes some octets and then fails.
struct Failing {
    room: usize,
    kind: ErrorKind,
}

impl Write for Failing {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let taken = octets.len().min(self.room);
        self.room -= taken;
        if taken == 0 { Err(self.kind.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn words(line: &str) -> Vec<std::ffi::OsString> {
    line.split_whitespace().map(Into::into).collect()
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let bed = Bed::new();
    let config = bed.path("viaduct.toml");
    for line in ["show ports", "show ports --json", "show --help", "--version"] {
        let line = format!("viaduct {line} --config {}", config.display());
        for room in [0, 5] {
            let (mut out, mut err) = (Failing { room, kind: ErrorKind::BrokenPipe }, Vec::new());
            assert_eq!(cli::main(words(&line), &mut out, &mut err), Exit::Done, "{line}");
            assert_eq!(String::from_utf8_lossy(&err), "", "{line}");
        }
    }
}

#[test]
fn output_that_is_lost_is_a_failure() {
    let bed = Bed::new();
    let line = format!("viaduct show ports --config {}", bed.path("viaduct.toml").display());
    let (mut out, mut err) = (Failing { room: 9, kind: ErrorKind::StorageFull }, Vec::new());
    assert_eq!(cli::main(words(&line), &mut out, &mut err), Exit::Failed);
    assert!(String::from_utf8_lossy(&err).starts_with("error: writing the output: "));
}

#[test]
fn results_and_errors_go_apart() {
    let bed = Bed::new();
    let config = bed.path("viaduct.toml");
    let run = |line: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let line = format!("viaduct {line} --config {}", config.display());
        cli::main(words(&line), &mut out, &mut err);
        (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    };
    let (out, err) = run("network add --name red");
    assert_eq!((out.len(), &*err), (37, ""), "a UUID and the end of the line");
    let (out, err) = run("port add --network red --socket a.sock");
    assert_eq!(out.len(), 37);
    assert!(err.starts_with("its address is 02:"), "{err}");
    let (out, err) = run("port add --network green --socket b.sock");
    assert_eq!(out, "");
    assert!(err.starts_with("error: there is no network `green`"), "{err}");
    let (out, err) = run("show fdb --port nothing");
    assert_eq!(out, "");
    assert!(err.starts_with("error: there is no port `nothing` here"), "{err}");
}

#[test]
fn json_is_json() {
    let bed = Bed::new();
    for what in
        ["", "ports", "domains", "fdb", "vhost", "workers", "acl", "acl --rules", "drops", "errors"]
    {
        let printed = bed.run(&format!("viaduct show {what} --json"));
        let value: serde_json::Value = serde_json::from_str(&printed).expect(what);
        assert!(value.is_array() || value.is_object(), "{what}");
    }
    let printed = bed.run("viaduct check /var/lib/viaduct --json");
    assert_eq!(printed, "[]\n");
}

#[test]
fn what_was_added_is_in_the_store() {
    let bed = Bed::new();
    let network = "6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d";
    let port = "77777777-8a3b-4c58-9d52-0c7f0b1f2e3d";
    bed.run(&format!(
        "viaduct network add --uuid {network} --name red --type vlan --physnet physnet1 --vlan 100 \
         --mtu 1400 --no-flooding --no-learning"
    ));
    let (group, addresses) =
        ("88888888-8a3b-4c58-9d52-0c7f0b1f2e3d", "99999999-8a3b-4c58-9d52-0c7f0b1f2e3d");
    bed.run(&format!("viaduct address-group add --uuid {addresses} --name dns ::1 10.0.0.0/8"));
    bed.run(&format!(
        "viaduct group add --uuid {group} --name web --return-traffic none \
         --rule 'ingress tcp 80-90 priority 7 name http' \
         --rule 'deny egress any to address-group dns'"
    ));
    bed.run(&format!("viaduct group member add web {port} 10.0.0.7"));
    bed.run(&format!(
        "viaduct port add --uuid {port} --network 6f1c --mac 52:54:00:00:00:01 --socket a.sock \
         --mode server --queues 2 --down --name web --ip 10.0.0.5 --ip 2001:db8::5 --group web \
         --allow 10.1.0.0/16 --allow 10.0.0.9,00:00:5e:00:01:0a"
    ));
    let read = |file: String| -> serde_json::Value {
        let text = std::fs::read_to_string(bed.path(&file)).expect("it was added");
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(
        read(format!("store/networks/{network}.json")),
        serde_json::json!({
            "name": "red", "type": "vlan", "physnet": "physnet1", "vlan": 100, "mtu": 1400,
            "learning": false, "flooding": false,
        })
    );
    assert_eq!(
        read(format!("store/nodes/compute-1/ports/{port}.json")),
        serde_json::json!({
            "name": "web", "network": network, "kind": "vhost-user", "mac": "52:54:00:00:00:01",
            "socket": "a.sock", "mode": "server", "queues": 2, "admin_up": false,
            "port_security": true, "fixed_ips": ["10.0.0.5", "2001:db8::5"],
            "allowed_address_pairs": [
                {"ip": "10.1.0.0/16"}, {"ip": "10.0.0.9", "mac": "00:00:5e:00:01:0a"},
            ],
            "security_groups": [group],
        })
    );
    assert_eq!(
        read(format!("store/security-groups/{group}.json")),
        serde_json::json!({
            "name": "web", "return_traffic": "none", "rules": [
                {"direction": "ingress", "protocol": "tcp", "ports": "80-90", "priority": 7,
                 "name": "http", "action": "permit"},
                {"direction": "egress", "remote_address_group": addresses, "priority": 0,
                 "action": "deny"},
            ],
        })
    );
    assert_eq!(
        read(format!("store/address-groups/{addresses}.json")),
        serde_json::json!({"name": "dns", "addresses": ["10.0.0.0/8", "::1"]})
    );
    assert_eq!(
        read(format!("store/group-members/{group}/{port}.json")),
        serde_json::json!({"addresses": ["10.0.0.7"]})
    );
}

#[test]
fn a_good_configuration_passes() {
    let bed = Bed::new();
    let printed = bed.run("viaduct check --config viaduct.toml");
    // A machine with one CPU has a warning for it.
    assert!(!printed.contains("error") && !printed.contains("exit status"), "{printed}");
}
