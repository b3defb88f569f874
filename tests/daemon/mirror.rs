//! Mirrors: a port's frames, copied to a listener at another port while the daemon runs.

use std::time::Duration;

use control::frame::Sketch;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, guest_port, port_key, uuid};
use crate::common::front_end::{FrontEnd, Waiting};
use crate::common::process::eventually;

/// `web` and `db` on one network, and a listener on another, which has no groups: nobody else's frames
/// get there.
struct Bed {
    switch: Daemon,
    web: FrontEnd,
    db: FrontEnd,
    ids: FrontEnd,
}

fn frame(words: &str, from: u8, to: u8) -> Vec<u8> {
    let mac = |number| [0x52, 0x54, 0, 0, 0, number];
    words.parse::<Sketch>().expect(words).bytes(mac(from), mac(to))
}

impl Bed {
    fn start() -> Bed {
        let switch = Daemon::builder().start();
        for network in ["n", "taps"] {
            switch.local_network(network);
        }
        let group = json!({"rules": [{"direction": "egress"}, {"direction": "ingress", "protocol": "tcp"}]});
        switch.put(&format!("security-groups/{}", uuid("all")), &group);
        for (name, network, number) in [("web", "n", 1), ("db", "n", 2), ("ids", "taps", 3)] {
            let mut port = guest_port(name, network, &format!("52:54:00:00:00:{number:02x}"));
            port["port_security"] = json!(true);
            port["fixed_ips"] = json!([format!("10.0.0.{number}")]);
            if name != "ids" {
                port["security_groups"] = json!([uuid("all")]);
            }
            switch.put(&port_key(name), &port);
        }
        let [web, db, ids] = ["web", "db", "ids"].map(|name| {
            let mut guest = Waiting::new(&switch.socket(name)).connect(1);
            guest.start();
            switch.wait_ready(name);
            guest
        });
        Bed { switch, web, db, ids }
    }

    /// Changes a mirror by the command, and waits until that is in force.
    #[track_caller]
    fn mirror(&self, arguments: &[&str], there: impl Fn(&Value) -> bool) {
        self.switch.viaduct(&[&["port", "mirror"], arguments].concat()).success();
        self.shows(there);
    }

    /// Waits until the mirror of `web` is shown so.
    #[track_caller]
    fn shows(&self, there: impl Fn(&Value) -> bool) {
        eventually("the mirror is shown", SOON, || {
            there(&self.switch.show_port("ports", "web")["mirror"])
        });
    }

    /// Has a guest send a frame, and waits until the switch has taken it.
    #[track_caller]
    fn sends(guest: &mut FrontEnd, frame: &[u8]) {
        guest.send(0, frame);
        eventually("the switch takes it", SOON, || guest.untaken(0) == 0);
    }

    /// What the listener has got since, if there is nothing more.
    fn copies(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.ids.receive(Duration::from_millis(300))).collect()
    }
}

#[test]
fn a_listener_gets_what_a_mirror_copies_and_nobody_loses_a_frame() {
    let mut bed = Bed::start();
    let asks = frame("tcp 10.0.0.1:4000 > 10.0.0.2:80 syn", 1, 2);
    let answers = frame("tcp 10.0.0.2:80 > 10.0.0.1:4000 syn,ack", 2, 1);
    let spoofed = frame("tcp 10.0.0.9:4000 > 10.0.0.2:80 syn", 1, 2);
    let unwanted = frame("udp 10.0.0.2:53 > 10.0.0.1:4000", 2, 1);
    let talk = |bed: &mut Bed| {
        for (from, sent) in [(1, &asks), (1, &spoofed), (2, &answers), (2, &unwanted)] {
            Bed::sends(if from == 1 { &mut bed.web } else { &mut bed.db }, sent);
        }
        bed.db.receives(|frame| frame == asks);
        bed.web.receives(|frame| frame == answers);
        bed.copies()
    };

    assert_eq!(talk(&mut bed), Vec::<Vec<u8>>::new(), "nothing is copied unasked");

    // What `web` sends is copied as it comes in, spoofed or not; what it is sent if it may be.
    bed.mirror(&["web", "--to", "ids"], |mirror| mirror["missing"].is_null() && mirror.is_object());
    assert_eq!(talk(&mut bed), [asks.clone(), spoofed.clone(), answers.clone()]);

    bed.mirror(&["web", "--to", "ids", "--direction", "ingress"], |it| it["egress"] == false);
    assert_eq!(talk(&mut bed), std::slice::from_ref(&answers));

    let filter = "src host 10.0.0.9";
    bed.mirror(&["web", "--to", "ids", "--filter", filter], |it| it["filter"] == filter);
    assert_eq!(talk(&mut bed), std::slice::from_ref(&spoofed));

    let table = bed.switch.viaduct(&["show", "mirrors"]).success();
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[1..3], ["web", "both"], "{table}");
    assert!(table.contains("ids") && table.contains(filter), "{table}");

    bed.mirror(&["web", "--off"], Value::is_null);
    assert_eq!(talk(&mut bed), Vec::<Vec<u8>>::new(), "it was taken back");
}

#[test]
fn a_listener_that_is_full_or_away_takes_nothing_from_anybody() {
    let mut bed = Bed::start();
    bed.mirror(&["web", "--to", "ids"], Value::is_object);
    // Nobody reads what the listener gets: its ring fills, and the rest is counted there.
    for number in 0..200_u16 {
        let sent = frame(&format!("tcp 10.0.0.1:{} > 10.0.0.2:80 syn", 1000 + number), 1, 2);
        Bed::sends(&mut bed.web, &sent);
        bed.db.receives(|frame| frame == sent);
    }
    let drops = bed.switch.show("drops");
    let drops = drops.as_array().expect("a list");
    assert_eq!(drops.len(), 1, "nobody else loses any: {drops:#?}");
    assert_eq!(
        (&drops[0]["port"]["name"], &drops[0]["reason"]),
        (&json!("ids"), &json!("ring-full"))
    );
    assert!(drops[0]["frames"].as_u64() > Some(0), "{drops:#?}");

    // A port that goes takes its part of the mirror along, which says so and comes back by itself.
    bed.switch.delete(&port_key("ids"));
    bed.shows(|mirror| mirror["missing"] == "the port that it leads to is not there");
    let key = port_key("ids");
    let what = format!("{key} is not there");
    let problems = bed.switch.show("errors");
    let warned = |it: &Value| it["severity"] == "warning" && it["what"] == what.as_str();
    assert!(problems.as_array().is_some_and(|all| all.iter().any(warned)), "{problems:#}");
    let last = frame("tcp 10.0.0.1:999 > 10.0.0.2:80 syn", 1, 2);
    Bed::sends(&mut bed.web, &last);
    bed.db.receives(|frame| frame == last);
    bed.switch.put(&key, &guest_port("ids", "taps", "52:54:00:00:00:03"));
    bed.shows(|mirror| mirror["missing"].is_null());
}

#[test]
fn what_is_no_mirror_is_refused_and_changes_nothing() {
    let bed = Bed::start();
    for (arguments, said) in [
        (&["web", "--to", "web"][..], "the mirror leads to the port itself"),
        (&["web", "--to", "nobody"], "nobody"),
        (&["web", "--to", "ids", "--filter", "sideways"], "`sideways`"),
        (&["web"], "--to"),
    ] {
        let output = bed.switch.viaduct(&[&["port", "mirror"], arguments].concat());
        assert_ne!(output.status, 0);
        assert!(output.text.contains(said), "{}", output.text);
    }
    let mut port = guest_port("web", "n", "52:54:00:00:00:01");
    port["mirror"] = json!({"to": uuid("ids"), "direction": "sideways"});
    bed.switch.put(&port_key("web"), &port);
    eventually("it is reported", SOON, || {
        bed.switch.errors().iter().any(|error| error["field"] == "mirror.direction")
    });
    bed.shows(Value::is_null);
}
