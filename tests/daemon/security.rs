//! Port security as operators see it: what is compiled, which port has it, what passes and why.

use serde_json::{Value, json};

use super::SilentGuest;
use crate::common::daemon::{Daemon, SOON, guest_port, network_key, port_key, uuid};
use crate::common::process::eventually;

/// Ports `web` and `db` on the network `n`: the first may be asked for web pages by the group `dbs`,
/// of which the second is a member, and by no other host.
fn start() -> Daemon {
    let switch = Daemon::builder().start();
    switch.local_network("n");
    let rules = json!([
        {"direction": "ingress", "protocol": "tcp", "ports": 80, "remote_group": uuid("dbs")},
        {"direction": "ingress", "protocol": "icmp", "icmp_type": 8},
        {"direction": "egress", "ethertype": "ipv4"},
    ]);
    put_group(&switch, "web", &json!({"name": "web", "rules": rules}));
    put_group(&switch, "dbs", &json!({"name": "dbs", "rules": [{"direction": "egress"}]}));
    put_port(&switch, "web", 1, &["web"]);
    put_port(&switch, "db", 2, &["dbs"]);
    switch
}

fn put_group(switch: &Daemon, name: &str, value: &Value) {
    switch.put(&format!("security-groups/{}", uuid(name)), value);
}

fn put_port(switch: &Daemon, name: &str, number: u8, groups: &[&str]) {
    let mut port = guest_port(name, "n", &format!("52:54:00:00:00:{number:02x}"));
    port["port_security"] = json!(true);
    port["fixed_ips"] = json!([format!("10.0.0.{number}")]);
    port["security_groups"] = groups.iter().map(|group| uuid(group)).collect();
    switch.put(&port_key(name), &port);
}

/// What `show acl` has of the port's rules.
fn acl(switch: &Daemon, port: &str) -> Value {
    let text = switch.viaduct(&["show", "acl", "--port", port, "--json"]).success();
    let views: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(views.as_array().expect("a list").len(), 1, "{views:#}");
    views[0].clone()
}

#[test]
fn rules_are_shown_as_they_are_compiled() {
    let mut switch = start();
    switch.wait_status("web", "waiting");
    eventually("both sets are there", SOON, || {
        switch.show("acl").as_array().is_some_and(|sets| sets.len() == 2)
    });
    let web = acl(&switch, "web");
    assert_eq!(web["groups"], json!([{"uuid": uuid("web"), "name": "web"}]));
    assert_eq!(web["ports"], json!([{"uuid": uuid("web"), "name": "web"}]));
    assert!(web["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{web:#}");
    assert!(web["lines_read"].as_u64().is_some_and(|lines| lines > 0), "{web:#}");
    let lines = |side: &str| -> Vec<(String, Value)> {
        let rules = web["rules"][side]["rules"].as_array().expect("rules");
        let line = |rule: &Value| rule["line"].as_str().unwrap_or_default().to_owned();
        rules.iter().map(|rule| (line(rule), rule["answer"].clone())).collect()
    };
    let (http, ping) = ("ingress tcp 80 from group dbs", "ingress icmp 8");
    let any = "egress ipv4 any";
    let row = |line: &str, answer: Value| (line.to_owned(), answer);
    assert_eq!(
        lines("ingress"),
        [
            row(http, Value::Null),
            row(ping, Value::Null),
            row(any, json!("tcp with ACK or RST")),
            row(any, json!("icmp answers: types 0, 14, 16, 18")),
            row(any, json!("icmp errors: types 3, 11, 12")),
        ]
    );
    assert_eq!(
        lines("egress"),
        [
            row(http, json!("tcp from port 80 with ACK or RST to group dbs")),
            row(ping, json!("icmp 0")),
            row(any, Value::Null),
            row(http, json!("icmp errors: types 3, 11, 12")),
            row(http, json!("icmpv6 errors: types 1 to 4")),
        ]
    );
    switch.stop();
}

/// Asks what would become of a frame.
fn test_frame(switch: &Daemon, port: &[&str], frame: &str) -> (i32, Value) {
    let arguments = [&["test-frame"], port, &[frame, "--json"]].concat();
    let output = switch.viaduct(&arguments);
    let view = serde_json::from_str(&output.text);
    (output.status, view.unwrap_or_else(|error| panic!("{error} in:\n{}", output.text)))
}

#[test]
fn a_frame_is_judged_by_the_rules_in_force() {
    let mut switch = start();
    let guests = ["web", "db"].map(|name| SilentGuest::start(&switch, name));
    for name in ["web", "db"] {
        switch.wait_ready(name);
    }

    // The second may ask the first for web pages, by a rule at each end.
    let asks = "tcp 10.0.0.2:40000 > 10.0.0.1:80 syn";
    let (status, view) = test_frame(&switch, &["--port", "db"], asks);
    assert_eq!((status, &view["passes"]), (0, &json!(true)), "{view:#}");
    assert_eq!(view["leave"]["rule"]["line"], "egress any");
    assert_eq!(view["to"].as_array().map(Vec::len), Some(1), "{view:#}");
    assert_eq!(view["to"][0]["port"]["name"], "web");
    assert_eq!(view["to"][0]["rule"]["line"], "ingress tcp 80 from group dbs");
    assert_eq!(view["to"][0]["rule"]["group"]["name"], "web");

    // What answers, by what it answers.
    let answers = "tcp 10.0.0.1:80 > 10.0.0.2:40000 syn ack";
    let (status, view) = test_frame(&switch, &["--port", "web"], answers);
    assert_eq!(status, 0, "{view:#}");
    // Where a rule permits, what it might answer is not asked.
    assert_eq!(view["leave"]["rule"]["line"], "egress ipv4 any");
    assert_eq!(view["leave"]["rule"]["answer"], Value::Null);
    assert_eq!(view["to"][0]["rule"]["answer"], "tcp with ACK or RST");

    // Another port is not open, and who is not of the group is nobody.
    for (ends, frame, reason) in [
        (["--port", "db"], "tcp 10.0.0.2:40000 > 10.0.0.1:81 syn", "acl-ingress"),
        (["--to-port", "web"], "tcp 10.0.0.9:40000 > 10.0.0.1:80 syn", "acl-ingress"),
        (
            ["--to-port", "web"],
            "tcp 10.0.0.2:40000 > 10.0.0.1:80 fragment 1480",
            "acl-ingress-fragment",
        ),
    ] {
        let (status, view) = test_frame(&switch, &ends, frame);
        assert_eq!(status, 1, "{view:#}");
        assert_eq!(view["to"][0]["reason"], reason, "{view:#}");
        let text = switch.viaduct(&["test-frame", ends[0], ends[1], frame]);
        assert_eq!(text.status, 1, "{}", text.text);
        assert!(text.text.contains(&format!("dropped, {reason}")), "{}", text.text);
    }
    let (status, view) =
        test_frame(&switch, &["--port", "web"], "arp 10.0.0.7 is-at 52:54:00:00:00:01");
    assert_eq!((status, &view["leave"]["reason"]), (1, &json!("spoof-arp")), "{view:#}");
    let (status, view) =
        test_frame(&switch, &["--port", "web"], "arp who-has 10.0.0.2 tell 10.0.0.1");
    assert_eq!((status, &view["flooded"]), (0, &json!(true)), "{view:#}");
    assert_eq!(view["to"][0]["without_rule"], "ARP needs no rule");

    // What cannot be made is told with what is to be written.
    let lost = switch.viaduct(&["test-frame", "--port", "web", "icmp 8/0 10.0.0.1 > 192.0.2.1"]);
    assert_eq!(lost.status, 2, "{}", lost.text);
    assert!(lost.text.contains("no port of this host has 192.0.2.1"), "{}", lost.text);
    let wrong = switch.viaduct(&["test-frame", "--port", "web", "tcp 10.0.0.1 > 10.0.0.2"]);
    assert_eq!(wrong.status, 2, "{}", wrong.text);

    // Nothing of all that was counted, learned or sent.
    for name in ["web", "db"] {
        let rules = acl(&switch, name)["rules"].to_string();
        assert!(!rules.replace("\"hits\":0", "").contains("hits"), "{rules}");
        let port = switch.show_port("ports", name);
        let counts = ["received_frames", "sent_frames", "dropped_frames", "learned"];
        assert_eq!(counts.map(|count| port[count].clone()), [0, 0, 0, 0].map(|zero| json!(zero)));
    }
    guests.iter().for_each(SilentGuest::was_left_alone);
    switch.stop();
}

#[test]
fn what_may_pass_is_said_in_words() {
    let mut switch = start();
    switch.wait_status("web", "waiting");
    let text = switch.viaduct(&["explain", "port", "web"]).success();
    for part in [
        "52:54:00:00:00:01  10.0.0.1\n",
        "TCP to port 80 from the members of group dbs",
        "ICMP of type 8 (echo request) from anybody",
        "tcp from port 80 with ACK or RST to group dbs",
        "all of IPv4 to anybody",
        "web  established: TCP segments with ACK or RST",
    ] {
        assert!(text.contains(part), "{part:?} is not said:\n{text}");
    }
    put_port(&switch, "web", 1, &["gone"]);
    eventually("it is closed", SOON, || {
        let said = switch.viaduct(&["explain", "port", "web"]).success();
        said.contains(&format!("Nothing passes: waiting for security-groups/{}", uuid("gone")))
    });
    switch.put(&port_key("web"), &guest_port("web", "n", "52:54:00:00:00:01"));
    eventually("it is open", SOON, || {
        let said = switch.viaduct(&["explain", "port", "web"]).success();
        said.contains("It may send and be sent all frames of its network")
    });
    switch.stop();
}

#[test]
fn a_port_says_what_port_security_makes_of_it() {
    let mut switch = start();
    let guest = SilentGuest::start(&switch, "web");
    assert_eq!(switch.wait_ready("web")["port_security"], true);
    assert_eq!(switch.show_port("ports", "web")["port_security"], "filtered");

    // Of a group that is not there nobody knows what it permits.
    put_port(&switch, "web", 1, &["web", "gone"]);
    let state = switch.wait_status("web", "waiting");
    let waits = format!("waiting for security-groups/{}", uuid("gone"));
    assert_eq!(state["reason"], json!(waits));
    assert_eq!(switch.show_port("ports", "web")["port_security"], "closed");
    assert_eq!(
        acl(&switch, "web")["waits_for"],
        json!(format!("security-groups/{}", uuid("gone")))
    );

    switch.put(&port_key("web"), &guest_port("web", "n", "52:54:00:00:00:01"));
    assert_eq!(switch.wait_ready("web")["port_security"], false);
    assert_eq!(switch.show_port("ports", "web")["port_security"], "open");
    let refused = switch.viaduct(&["show", "acl", "--port", "web"]);
    assert_eq!(refused.status, 1, "{}", refused.text);
    assert!(refused.text.contains("`web` has no port security: all frames pass"));
    guest.was_left_alone();
    switch.delete(&network_key("n"));
    switch.stop();
}

#[test]
fn rules_over_the_budget_are_told_at_their_set() {
    let mut switch = Daemon::builder().set("acl.rules", "16").start();
    switch.local_network("n");
    let many = |count: u16| -> Value {
        let rule = |port| json!({"direction": "ingress", "protocol": "tcp", "ethertype": "ipv4", "ports": port});
        json!({"return_traffic": "none", "rules": (1..=count).map(rule).collect::<Vec<_>>()})
    };
    put_group(&switch, "web", &many(16));
    put_port(&switch, "web", 1, &["web"]);
    eventually("they are compiled", SOON, || switch.show("acl")[0]["entries"] == json!(16));
    put_group(&switch, "web", &many(17));
    eventually("the new ones are refused", SOON, || switch.show("acl")[0]["refusal"].is_string());
    let web = acl(&switch, "web");
    let refusal = web["refusal"].as_str().expect("a refusal");
    assert!(refusal.starts_with("17 rules in one direction, of 16 that may be"), "{refusal}");
    assert_eq!(web["entries"], json!(16), "the former stay");
    switch.stop();
}
