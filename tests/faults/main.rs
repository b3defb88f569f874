//! A switch whose store fails it in every way, while frames pass: each time they go on passing, and the
//! switch ends up reporting what one reports to which nothing happened.
//!
//! What the etcd store does in each case is tested beside it; here it is what an operator sees.

mod bed;
#[path = "../common/mod.rs"]
mod common;
mod stream;
mod values;

use std::env;
use std::thread;
use std::time::Duration;

use bed::Bed;
use common::daemon::SOON;
use common::process::eventually;
use nix::unistd::geteuid;

/// How long an outage lasts: more than twice what the host's lease does. An hour is as well as this; the
/// environment may ask for it.
fn outage() -> Duration {
    let seconds = env::var("VIADUCT_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// What is missing to run these tests here; in CI nothing may be.
fn missing() -> bool {
    let missing = match common::etcd::requirements() {
        Err(missing) => missing,
        Ok(()) if !geteuid().is_root() => "making tap interfaces needs root".to_owned(),
        Ok(()) => return false,
    };
    common::skip(&missing);
    true
}

#[test]
fn etcd_is_away_for_longer_than_the_lease() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(1);
    bed.etcd.kill(0);
    bed.says("does not answer");
    // What is in force can be seen, and guests that come are served.
    assert_eq!(bed.switch.show("store")["away"], true);
    let late = bed.guest("late");
    eventually("the guest is served", SOON, || {
        bed.switch.show_port("ports", "late")["status"] == "ready"
    });
    thread::sleep(outage());
    drop(late);
    bed.etcd.launch(0);
    bed.etcd.wait();
    bed.ends_as_undisturbed();
}

#[test]
fn all_members_are_frozen() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(3);
    (0..3).for_each(|member| bed.etcd.stop(member));
    bed.says("does not answer");
    thread::sleep(outage());
    (0..3).for_each(|member| bed.etcd.cont(member));
    bed.etcd.wait();
    bed.ends_as_undisturbed();
}

#[test]
fn members_are_killed_in_turns_and_the_lead_moves() {
    if missing() {
        return;
    }
    let mut bed = Bed::knowing_all(3);
    for member in 0..3 {
        bed.etcd.kill(member);
        bed.etcd.wait();
        bed.change_is_followed(&format!("10.9.{member}.1"));
        bed.etcd.launch(member);
        bed.etcd.wait_all();
        bed.etcd.move_leader();
        bed.change_is_followed(&format!("10.9.{member}.2"));
    }
    assert!(bed.problems().is_empty(), "{:#?}", bed.problems());
    bed.ends_as_undisturbed();
}

#[test]
fn what_was_watched_is_compacted() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(3);
    // The switch sees the third member alone, which does not see what the others do.
    bed.etcd.kill(2);
    bed.says("does not answer");
    for round in 0..3 {
        bed.put_group(&[&format!("10.8.{round}.1")]);
    }
    bed.put_desired();
    bed.etcd.compact();
    bed.etcd.launch(2);
    bed.etcd.wait_all();
    bed.change_is_followed("10.8.9.9");
    // All of it was read again, and only what is different was touched.
    bed.ends_as_undisturbed();
}

#[test]
fn the_prefix_is_wiped_and_restored() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(1);
    bed.etcd.wipe(values::ROOT);
    bed.says("all desired values were gone at once");
    eventually("the host is reported as alive again", SOON, || bed.reported("alive").is_some());
    // Not even a start takes the store at its word.
    bed.restart_by_kill();
    bed.says("all desired values were gone at once");
    bed.stream_again();
    bed.put_desired();
    eventually("nothing is held", SOON, || {
        bed.switch.show("store")["held"].as_array().is_some_and(Vec::is_empty)
    });
    bed.ends_as_undisturbed();
}

#[test]
fn a_wiped_store_is_accepted_where_it_was_meant() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(1);
    bed.etcd.wipe(values::ROOT);
    bed.says("all desired values were gone at once");
    bed.end_of_stream();
    let text = bed.switch.viaduct(&["store", "accept"]).success();
    assert!(text.contains("let go nodes/here/ports/"), "{text}");
    eventually("no port is left", SOON, || {
        let ports = bed.switch.show("ports");
        ports.as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(bed.switch.viaduct(&["store", "accept"]).status, 1, "nothing is held");
}

#[test]
fn values_are_too_large_or_garbage() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(1);
    let large = format!("{{\"type\": \"local\", \"name\": \"{}\"}}", "x".repeat(5 << 20));
    bed.etcd.put(&values::at("networks", "n"), &large);
    bed.says_at(&format!("networks/{}", common::daemon::uuid("n")), "is larger than");
    for garbage in ["", "{", "\u{0}", "[[[[", "{\"type\": 7}", "null"] {
        for (key, _) in values::desired() {
            bed.etcd.put(&key, garbage);
        }
        bed.etcd.put(&format!("{}nodes/here/ports/web", values::ROOT), garbage);
        bed.etcd.put(&format!("{}nodes/here/nonsense", values::ROOT), garbage);
    }
    for (key, _) in values::desired() {
        bed.says_at(key.strip_prefix(values::ROOT).expect("all stand there"), "");
    }
    // What was good before is in force, and says that it is not the newest.
    eventually("it is reported that the newest is rejected", SOON, || {
        let late = bed.reported_port("late");
        late["status"] == "waiting" && late["rejected"].is_string()
    });
    bed.etcd.delete(&format!("{}nodes/here/ports/web", values::ROOT));
    bed.etcd.delete(&format!("{}nodes/here/nonsense", values::ROOT));
    bed.put_desired();
    bed.ends_as_undisturbed();
}

#[test]
fn the_clock_jumps() {
    if missing() {
        return;
    }
    let mut bed = Bed::with_own_clock();
    for jump in ["+1d", "-2d", "+0"] {
        bed.set_clock(jump);
        bed.change_is_followed("10.7.1.1");
        // Longer than the lease lasts if nobody renews it.
        thread::sleep(Duration::from_secs(7));
        assert!(bed.reported("alive").is_some_and(|alive| alive.lease != 0), "after {jump}");
    }
    assert!(bed.problems().is_empty(), "{:#?}", bed.problems());
    bed.ends_as_undisturbed();
}

#[test]
fn the_switch_is_killed_at_any_point_of_a_change() {
    if missing() {
        return;
    }
    let mut bed = Bed::start(1);
    bed.end_of_stream();
    for round in 0..8 {
        // A storm of changes, in the midst of which it ends.
        let addresses: Vec<String> = (0..50).map(|n| format!("10.{round}.6.{n}")).collect();
        for address in &addresses {
            bed.put_group(&[address]);
        }
        bed.etcd.delete(&values::at_port("right"));
        bed.etcd.put(&values::at_port("early"), &values::guest("early").to_string());
        thread::sleep(Duration::from_millis(17 * round));
        bed.put_desired();
        bed.etcd.delete(&values::at_port("early"));
        thread::sleep(Duration::from_millis(29 * (round % 3)));
        bed.restart_by_kill();
    }
    bed.stream_again();
    bed.ends_as_undisturbed();
}
