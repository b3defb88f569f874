//! Guests and the switch come and go, and whoever stayed need not be touched.

use std::time::Duration;

use serde_json::json;

use crate::common::daemon::Daemon;
use crate::common::guest::{self, BOOT, Guest, SHORT};
use crate::common::process::eventually;
use crate::{Plan, boot, reaches, reaches_once};

/// Its QEMU owns the socket, and the switch connects.
const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
/// The switch owns the socket, and its QEMU connects.
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

#[test]
fn guests_and_the_switch_end_and_come_back() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("red");
    A.add_port(&switch);
    B.add_server_port(&switch);
    let builders = [A.guest(&switch), B.guest(&switch).qemu_is_server(false)];
    let [mut a, mut b] = boot(builders.clone());
    reaches(&a, B.ip);

    b.reboot(BOOT);
    reaches(&b, A.ip);
    a.reset(BOOT);
    reaches(&b, A.ip);

    // Their ends, as a crash is one; values that live on would take the new sockets for theirs.
    drop((a, b));
    for name in ["a", "b"] {
        let state = switch.wait_status(name, "waiting");
        assert!(state["reason"].is_string(), "no reason why nobody is there: {state:#}");
    }
    let [a, b] = boot(builders);
    reaches(&a, B.ip);

    let boots = [boot_id(&a), boot_id(&b)];
    a.run(&format!("setsid /usr/bin/ping -i 0.05 {} >/tmp/witness 2>&1 &", B.ip), SHORT).success();
    switch.stop();
    assert!(!reaches_once(&a, B.ip), "there is another way than the switch");
    for guest in [&a, &b] {
        carrier_is(guest, "0");
    }
    switch.start();
    comes_back(&a, &b);

    switch.kill();
    assert!(!reaches_once(&b, A.ip), "there is another way than the switch");
    switch.start();
    comes_back(&a, &b);

    assert_eq!([boot_id(&a), boot_id(&b)], boots, "a guest was started again");
    // Its frames are numbered: whatever was in the rings when the switch ended came once or never.
    let witness = a.run("cat /tmp/witness", SHORT).success();
    assert!(!witness.contains("DUP"), "a frame was delivered twice:\n{witness}");
    for name in ["a", "b"] {
        let vhost = switch.show_port("vhost", name);
        assert_eq!((&vhost["sessions"], &vhost["last_error"]), (&json!(1), &json!(null)));
    }
    switch.stop();
}

/// What was begun before goes on, and what is begun now works.
#[track_caller]
fn comes_back(a: &Guest, b: &Guest) {
    for guest in [a, b] {
        carrier_is(guest, "1");
    }
    let heard = || a.run("grep -c 'bytes from' /tmp/witness", SHORT).text;
    let before = heard();
    eventually("the ping that ran all along is answered", Duration::from_secs(60), || {
        heard() != before
    });
    reaches(a, B.ip);
    reaches(b, A.ip);
}

#[track_caller]
fn carrier_is(guest: &Guest, carrier: &str) {
    eventually(&format!("the carrier is {carrier}"), Duration::from_secs(60), || {
        guest.run("cat /sys/class/net/eth0/carrier", SHORT).text.trim() == carrier
    });
}

/// Differs from boot to boot.
#[track_caller]
fn boot_id(guest: &Guest) -> String {
    guest.run("cat /proc/sys/kernel/random/boot_id", SHORT).success()
}
