//! A guest with packed rings, beside one with split rings.

use crate::common::daemon::Daemon;
use crate::common::guest::{self, Guest, SHORT};
use crate::traffic::throughput;
use crate::{Plan, boot, reaches};

const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };

#[test]
fn packed_and_split_guests_talk_and_outlive_the_switch() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("red");
    for plan in [&A, &B] {
        plan.add_port(&switch);
    }
    let packed = A.guest(&switch).queue_size(256).device("packed=on");
    let [a, b] = boot([packed, B.guest(&switch)]);
    for (name, layout) in [("a", "packed"), ("b", "split")] {
        switch.wait_ready(name);
        let vhost = switch.show_port("vhost", name);
        for ring in vhost["rings"].as_array().expect("a list") {
            assert_eq!(ring["layout"], layout, "{vhost:#}");
        }
    }
    reaches(&a, B.ip);
    reaches(&b, A.ip);
    assert!(throughput(&a, &b, B.ip, 1, 3) > 0.0);
    assert!(throughput(&b, &a, A.ip, 1, 3) > 0.0);
    for ring in switch.show_port("vhost", "a")["rings"].as_array().expect("a list") {
        let frames = ring["frames"].as_u64().expect("a count");
        assert!(frames > 4 * 256, "a ring of 256 went round only {frames} / 256 times");
    }

    // QEMU then begins again at a place from which the rings are far away by now.
    let boots = [boot_id(&a), boot_id(&b)];
    for died in [false, true] {
        if died {
            switch.kill();
        } else {
            switch.stop();
        }
        // What the guest sends now waits in its rings.
        a.run(&format!("ping -q -c 20 -i 0.01 -W 1 {}", B.ip), SHORT);
        switch.start();
        reaches(&a, B.ip);
        reaches(&b, A.ip);
        assert!(throughput(&b, &a, A.ip, 1, 3) > 0.0);
        assert!(switch.show_port("vhost", "a")["last_error"].is_null());
    }
    assert_eq!([boot_id(&a), boot_id(&b)], boots, "a guest was started again");
    switch.stop();
}

/// Differs from boot to boot.
#[track_caller]
fn boot_id(guest: &Guest) -> String {
    guest.run("cat /proc/sys/kernel/random/boot_id", SHORT).success()
}
