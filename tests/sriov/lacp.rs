//! LACP with the kernel's own bonding driver as the partner, which is in a namespace of the machine: two
//! veth pairs are the links. It has no part in SR-IOV; what it needs is a machine with that driver.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{self, Bed};
use crate::common::daemon::uuid;
use crate::common::process::eventually;

const PATIENCE: Duration = Duration::from_secs(90);

const WIRES: &str = "[physnets.w.bond]\nmode = 'lacp'\nup_delay_ms = 200\n\
                     members = ['net_af_packet0,iface=u0', 'net_af_packet1,iface=u1']\n";

/// The links, and the partner's bond of their far ends.
const PARTNER: &str = "modprobe -a bonding veth tun; ip netns add p && ip netns add g && \
    for n in 0 1; do \
    ip link add u$n type veth peer name p$n netns p && ip link set u$n up && \
    echo 1 >/proc/sys/net/ipv6/conf/u$n/disable_ipv6; \
    ip netns exec p ethtool -K p$n tx off sg off tso off gso off gro off >/dev/null; done; \
    ip -n p link add bond0 type bond mode 802.3ad lacp_rate fast miimon 20 xmit_hash_policy layer3+4 && \
    ip -n p link set p0 master bond0 && ip -n p link set p1 master bond0 && \
    ip -n p link set bond0 up && ip -n p address add 10.0.0.9/24 dev bond0";

fn members(bed: &Bed) -> Vec<Value> {
    bed.json("show bonds")[0]["members"].as_array().expect("members").clone()
}

#[track_caller]
fn wait_carriers(bed: &Bed, expected: [bool; 2]) {
    let begin = Instant::now();
    loop {
        let members = members(bed);
        if [0, 1].map(|at: usize| members[at]["carries"] == true) == expected {
            return;
        }
        let partner = || bed.sh("ip netns exec p cat /proc/net/bonding/bond0");
        assert!(begin.elapsed() < PATIENCE, "not {expected:?}: {members:#?}\n{}", partner());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[track_caller]
fn wait_reason(bed: &Bed, at: usize, words: &str) {
    eventually(&format!("member {at} says `{words}`"), PATIENCE, || {
        members(bed)[at]["reason"].as_str().is_some_and(|reason| reason.contains(words))
    });
}

/// The values of a key in what the partner's driver says of its bond.
fn said(bed: &Bed, key: &str) -> Vec<String> {
    let text = bed.sh("ip netns exec p cat /proc/net/bonding/bond0");
    let values = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    values.map(str::to_owned).collect()
}

/// Whether both ways are open: echoes of a size, each a flow of its own by its number.
#[track_caller]
fn reaches(bed: &Bed) {
    eventually("the partner answers", PATIENCE, || {
        bed.run("ip netns exec g ping -q -c 1 -W 1 10.0.0.9").status == 0
    });
    bed.sh("ip netns exec g ping -q -c 10 -i 0.1 -W 5 10.0.0.9");
    bed.sh("ip netns exec p ping -q -c 10 -i 0.1 -W 5 10.0.0.7");
}

#[test]
fn the_kernels_bonding_driver_is_a_partner() {
    if !bed::available() {
        return;
    }
    let bed = Bed::restore();
    bed.sh(PARTNER);
    bed.start(WIRES);
    bed.put(&format!("networks/{}", uuid("n")), &json!({"type": "flat", "physnet": "w"}));
    let port = json!({"network": uuid("n"), "kind": "tap", "interface": "station",
                      "mac": "52:54:00:00:00:07"});
    bed.put(&format!("nodes/here/ports/{}", uuid("a")), &port);
    bed.wait_status("a", "ready");
    bed.sh("ip link set station netns g && ip -n g link set station up && \
         ip -n g address add 10.0.0.7/24 dev station && ip netns exec g ethtool -K station tx off");
    wait_carriers(&bed, [true, true]);

    // Both see one aggregation of two links, and each other's system.
    let own = bed.sh("cat /sys/class/net/u0/address");
    eventually("the partner has both", PATIENCE, || said(&bed, "Number of ports") == ["2"]);
    assert_eq!(said(&bed, "Partner Mac Address"), [own.trim()]);
    let aggregators = said(&bed, "Aggregator ID");
    assert!(aggregators.len() == 3 && aggregators.iter().all(|id| *id == aggregators[0]));
    let theirs = bed.sh("ip netns exec p cat /sys/class/net/bond0/bonding/ad_actor_key");
    for member in members(&bed) {
        let partner = &member["lacp"]["partner"];
        assert_eq!(partner["key"].to_string(), theirs.trim(), "{member:#}");
        assert_eq!(member["lacp"]["malformed"], 0, "{member:#}");
        let state =
            json!(["active", "fast", "aggregatable", "in-sync", "collecting", "distributing"]);
        assert_eq!((&partner["state"], &member["lacp"]["actor"]), (&state, &state));
    }
    reaches(&bed);

    // Flows are spread by both ends.
    let sent = || -> Vec<u64> {
        members(&bed).iter().map(|it| it["sent_frames"].as_u64().expect("a count")).collect()
    };
    let before = sent();
    bed.sh("ip netns exec g bash -c \
            'for n in $(seq 64); do echo x >/dev/udp/10.0.0.9/$((2000 + n)) || true; done'");
    eventually("both have sent flows", PATIENCE, || {
        sent().iter().zip(&before).all(|(now, before)| now - before > 10)
    });

    // A lost link. The machine's setsid knows an `ip` of its own, and a shell the real one.
    bed.sh("echo 'ip netns exec g ping -q -i 0.05 -c 300 -W 1 10.0.0.9; echo done' >/run/echoes; \
         setsid bash /run/echoes </dev/null >/run/ping 2>&1 & sleep 3; ip -n p link set p0 down");
    wait_carriers(&bed, [false, true]);
    let said_by_ping = || bed.sh("cat /run/ping");
    eventually("the echoes have ended", PATIENCE, || said_by_ping().contains("done"));
    let text = said_by_ping();
    let summary = text.lines().find(|line| line.contains("packets transmitted"));
    println!("through the loss of a link: {}", summary.expect("it says what became of them"));
    reaches(&bed);
    bed.sh("ip -n p link set p0 up");
    wait_carriers(&bed, [true, true]);
    reaches(&bed);
    assert_eq!(bed.json("show bonds")[0]["outages"], 0);

    // A port that leaves the partner's bond, and so falls silent.
    bed.sh("ip -n p link set p1 nomaster && ip -n p link set p1 up");
    wait_carriers(&bed, [true, false]);
    wait_reason(&bed, 1, "fallen silent");
    reaches(&bed);
    // One that is in another bond.
    bed.sh(
        "ip -n p link add bond1 address 02:00:00:00:00:99 type bond mode 802.3ad lacp_rate fast miimon 20 && \
         ip -n p link set p1 down && ip -n p link set p1 master bond1 && ip -n p link set bond1 up",
    );
    wait_reason(&bed, 1, "another system (02:00:00:00:00:99)");
    wait_carriers(&bed, [true, false]);
    reaches(&bed);
    // And back.
    bed.sh("ip -n p link set p1 nomaster && ip -n p link set p1 master bond0");
    wait_carriers(&bed, [true, true]);
    reaches(&bed);

    // A new process: the links open anew by themselves.
    bed.stop();
    let begin = Instant::now();
    bed.start_again();
    wait_carriers(&bed, [true, true]);
    println!("carries {:?} after the start of another process", begin.elapsed());
    eventually("the partner has both", PATIENCE, || said(&bed, "Number of ports") == ["2"]);
}
