//! A guest whose QEMU waits for the switch, started before anybody has written its port.

use serde_json::json;

use crate::common::daemon::{Daemon, guest_port, port_key, uuid};
use crate::common::guest::{self, BOOT};
use crate::{Plan, never_reaches, reaches};

const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

#[test]
fn a_guest_that_waits_boots_before_its_port_and_talks_with_it() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().set("vhost.connect_early", "true").start();
    switch.local_network("red");
    A.add_port(&switch);
    let mut a = A.guest(&switch).start();
    let socket = switch.folder().join("vhost").join(uuid("b"));
    let mut b = B.guest(&switch).socket(&socket).waiting().start();
    for guest in [&mut a, &mut b] {
        guest.wait_ready(BOOT);
    }
    assert_eq!(switch.show_port("vhost", "b")["state"], "early");
    never_reaches(&b, A.ip);

    let mut port = guest_port("b", "red", B.mac);
    port["socket"] = json!(uuid("b"));
    switch.put(&port_key("b"), &port);
    switch.wait_ready("b");
    reaches(&b, A.ip);
    reaches(&a, B.ip);
    assert_eq!(switch.show_port("vhost", "b")["sessions"], 1);
    switch.stop();
}
