//! Bad values in the store: each is told by object, field and remedy wherever people look, its own
//! object is not in force, everything else is, and a correction takes effect at once.

use serde_json::{Value, json};

use crate::SilentGuest;
use crate::common::daemon::{Daemon, HOST, SOON, guest_port, network_key, port_key, uuid};
use crate::common::process::eventually;

/// A value that is wrong, or two that are wrong together.
struct Case {
    /// What it is, for the failing test's message.
    name: &'static str,
    /// What is written: keys and texts.
    bad: Vec<(String, String)>,
    /// What is told: object, field, and a part of what is wrong with it.
    told: Vec<(String, &'static str, String)>,
    /// Ports that are refused, and the field that their state must name.
    refused: Vec<(&'static str, &'static str)>,
    /// What is written to correct it.
    good: Vec<(String, String)>,
    /// Ports that are in force then.
    in_force: Vec<&'static str>,
}

/// `p` on the network `n`, with some fields changed.
fn port(changes: Value) -> String {
    let mut port = guest_port("p", "n", "52:54:00:00:00:01");
    for (field, value) in changes.as_object().expect("fields") {
        port[field] = value.clone();
    }
    port.to_string()
}

fn cases() -> Vec<Case> {
    let (n, p, q) = (network_key("n"), port_key("p"), port_key("q"));
    let local = || json!({"type": "local"}).to_string();
    let with = |bad: String| vec![(network_key("n"), local()), (port_key("p"), bad)];
    let good = || with(port(json!({})));
    let vlan = |vlan: u32| json!({"type": "vlan", "physnet": "w", "vlan": vlan}).to_string();
    let twin = |socket: &str| {
        let mut twin = guest_port("q", "n", "52:54:00:00:00:02");
        twin["socket"] = json!(socket);
        twin.to_string()
    };
    vec![
        Case {
            name: "an unknown key",
            bad: with(port(json!({"vlan": 5}))),
            told: vec![(p.clone(), "vlan", "is not a field of a port".into())],
            refused: vec![("p", "vlan")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "a rule that cannot be",
            bad: {
                let group = json!({"rules": [{"direction": "ingress", "protocol": "gre",
                                              "ports": 80}]});
                let group = (format!("security-groups/{}", uuid("g")), group.to_string());
                with(port(json!({}))).into_iter().chain([group]).collect()
            },
            told: vec![(
                format!("security-groups/{}", uuid("g")),
                "rules[0].ports",
                "`gre` has no ports".into(),
            )],
            refused: vec![],
            good: vec![(format!("security-groups/{}", uuid("g")), json!({}).to_string())],
            in_force: vec!["p"],
        },
        Case {
            name: "groups without port security",
            bad: with(port(json!({"security_groups": [uuid("g")]}))),
            told: vec![(p.clone(), "security_groups", "do nothing without port security".into())],
            refused: vec![("p", "security_groups")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "a bad UUID in a field",
            bad: with(port(json!({"network": "blue"}))),
            told: vec![(p.clone(), "network", "`blue` is not a UUID".into())],
            refused: vec![("p", "network")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "a network that is not there",
            bad: vec![(p.clone(), port(json!({})))],
            told: vec![(p.clone(), "network", format!("{n} is not there"))],
            refused: vec![("p", "network")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "two ports with one socket",
            bad: vec![
                (n.clone(), local()),
                (p.clone(), port(json!({}))),
                (q.clone(), twin("p.sock")),
            ],
            told: vec![(q.clone(), "socket", format!("is the socket of {p}"))],
            refused: vec![("q", "socket")],
            good: vec![(q.clone(), twin("q.sock"))],
            in_force: vec!["p", "q"],
        },
        Case {
            name: "a VLAN out of range",
            bad: vec![(n.clone(), vlan(4095)), (p.clone(), port(json!({})))],
            told: vec![
                (n.clone(), "vlan", "4095 is too large".into()),
                (p.clone(), "network", format!("{n} is not in force")),
            ],
            refused: vec![("p", "network")],
            good: vec![(n.clone(), vlan(100))],
            in_force: vec!["p"],
        },
        Case {
            name: "a physnet that nobody configured",
            bad: vec![
                (n.clone(), json!({"type": "flat", "physnet": "moon"}).to_string()),
                (p.clone(), port(json!({}))),
            ],
            told: vec![
                (n.clone(), "physnet", "physnet `moon` is not configured on this host".into()),
                (p.clone(), "network", format!("{n} is not in force")),
            ],
            refused: vec![("p", "network")],
            good: vec![(n.clone(), json!({"type": "flat", "physnet": "w"}).to_string())],
            in_force: vec!["p"],
        },
        Case {
            name: "a socket path that is too long",
            bad: with(port(json!({"socket": "s".repeat(100)}))),
            told: vec![(p.clone(), "socket", "octets long".into())],
            refused: vec![("p", "socket")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "a group address",
            bad: with(port(json!({"mac": "01:00:5e:00:00:01"}))),
            told: vec![(p.clone(), "mac", "is a group address".into())],
            refused: vec![("p", "mac")],
            good: good(),
            in_force: vec!["p"],
        },
        Case {
            name: "a file that cannot be read as JSON",
            bad: with("{ \"network\": ".to_owned()),
            told: vec![(p.clone(), "", "is not JSON".into())],
            refused: vec![("p", "is not JSON")],
            good: good(),
            in_force: vec!["p"],
        },
    ]
}

#[test]
fn bad_values_are_told_and_cost_nobody_else() {
    let mut switch = Daemon::builder().physnet("w", "net_ring0").start();
    switch.local_network("well");
    switch.guest_port("well", "well", "52:54:00:00:00:99");
    let guest = SilentGuest::start(&switch, "well");
    switch.wait_ready("well");
    for case in cases() {
        eprintln!("{}", case.name);
        for (key, text) in &case.bad {
            switch.put_text(key, text);
        }
        told(&switch, &case);
        let state = switch.wait_ready("well");
        assert_eq!(state["rejected"], json!(null), "{state:#}");

        for (key, text) in &case.good {
            switch.put_text(key, text);
        }
        eventually("the correction is taken", SOON, || switch.errors().is_empty());
        for port in &case.in_force {
            let state = switch.wait_status(port, "waiting");
            assert_eq!(state["network"], uuid("n"), "{state:#}");
        }
        for key in ["p", "q"].map(port_key).into_iter().chain([network_key("n")]) {
            let written = case.bad.iter().chain(&case.good).any(|(one, _)| *one == key);
            written.then(|| switch.delete(&key));
        }
        switch.wait_gone("p");
        switch.wait_gone("q");
    }
    guest.was_left_alone();
    switch.stop();
}

/// The same is told by `show errors`, by the log, by the state of the ports and by `check`.
#[track_caller]
fn told(switch: &Daemon, case: &Case) {
    let mut errors = Vec::new();
    eventually(&format!("{} is told in full", case.name), SOON, || {
        errors = switch.errors();
        errors.len() == case.told.len()
    });
    let table = switch.viaduct(&["show", "errors"]).success();
    for (object, field, what) in &case.told {
        let error = errors.iter().find(|error| error["object"] == **object);
        let error = error.unwrap_or_else(|| panic!("{object} is not in {errors:#?}"));
        let text = |part: &str| error[part].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("field"), *field, "{error:#}");
        assert!(text("what").contains(what), "{what:?} is not said in {error:#}");
        assert!(!text("remedy").is_empty(), "no remedy in {error:#}");
        assert_eq!(error["severity"], "error", "{error:#}");
        for (place, said) in [("the log", switch.log()), ("the table", table.clone())] {
            for part in [text("object"), text("what"), text("remedy")] {
                assert!(said.contains(&part), "{part:?} is not in {place}:\n{said}");
            }
        }
    }
    for (port, field) in &case.refused {
        let state = switch.wait_status(port, "refused");
        let reason = state["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with(field), "the field {field} is not named in {state:#}");
        let shown = switch.show_port("ports", port);
        let shown_reason = shown["reason"].as_str().unwrap_or_default();
        assert_eq!(shown["status"], "refused", "{shown:#}");
        assert!(shown_reason.ends_with(reason), "{shown:#} and {state:#}");
    }
    let check = switch.viaduct(&["check", "--json"]);
    assert_eq!(check.status, 1, "{}", check.text);
    let mut checked: Vec<Value> = serde_json::from_str(&check.text).expect("JSON");
    checked.retain(|problem| problem["severity"] == "error");
    assert_eq!(checked, errors, "`check` and the daemon differ");
}

#[test]
fn a_bad_change_leaves_the_former_value_in_force() {
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("p", "n", "52:54:00:00:00:01");
    let guest = SilentGuest::start(&switch, "p");
    let before = switch.wait_ready("p");

    switch.put_text(&port_key("p"), &port(json!({"queues": 99, "mac": "52:54:00:00:00:02"})));
    let mut state = Value::Null;
    eventually("the change is rejected", SOON, || {
        state = switch.state("p").unwrap_or_default();
        state["rejected"].is_string()
    });
    let rejected = state["rejected"].as_str().unwrap_or_default();
    assert!(rejected.contains("queues: 99 is too large; write"), "{state:#}");
    assert_eq!((&state["status"], &state["mac"]), (&before["status"], &before["mac"]));

    // What lies there under no key is told by its path, and is nobody's business else.
    let stray = format!("nodes/{HOST}/ports/not-a-uuid");
    switch.put_text(&stray, "{}");
    eventually("both are told", SOON, || switch.errors().len() == 2);
    let errors = switch.errors();
    let stray_told = errors.iter().find(|error| {
        error["object"].as_str().is_some_and(|object| object.ends_with(&format!("{stray}.json")))
    });
    let stray_told = stray_told.unwrap_or_else(|| panic!("no {stray} in {errors:#?}"));
    assert!(stray_told["what"].as_str().is_some_and(|what| what.contains("is not a UUID")));

    switch.delete(&stray);
    switch.put_text(&port_key("p"), &port(json!({"mac": "52:54:00:00:00:02"})));
    eventually("the good change is taken", SOON, || {
        switch.state("p").is_some_and(|state| state["mac"] == "52:54:00:00:00:02")
    });
    assert!(switch.errors().is_empty());
    assert_eq!(switch.wait_ready("p")["rejected"], json!(null));
    guest.was_left_alone();
    switch.stop();
}
