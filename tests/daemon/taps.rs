//! Tap interfaces of this host: services in namespaces talk through the switch, by a bridge or
//! without one; nothing is left behind, and nothing of others is touched.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, network_key, port_key, uuid};
use crate::common::front_end::Waiting;
use crate::common::namespace::{self, Namespace};
use crate::common::process::{self, eventually};
use crate::common::wire::Wire;
use crate::skip;

/// Whether this machine lets us make interfaces and namespaces; says so if not.
fn possible() -> bool {
    if !geteuid().is_root() {
        skip("making interfaces needs root");
        return false;
    }
    match namespace::requirements() {
        Ok(()) => true,
        Err(reason) => {
            skip(&reason);
            false
        }
    }
}

/// An interface's name that no other test has, nor another run of this one.
fn interface(end: &str) -> String {
    format!("vt{}{end}", std::process::id())
}

fn tap_port(name: &str, interface: &str) -> Value {
    json!({"name": name, "network": uuid("n"), "kind": "tap", "interface": interface})
}

fn bridged(name: &str, interface: &str, bridge: &str, member: &str) -> Value {
    let mut port = tap_port(name, interface);
    port["bridge"] = json!({"name": bridge, "member": member});
    port
}

/// Runs a command of `ip`, which must succeed.
#[track_caller]
fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    process::run(command.args(arguments.split_whitespace()), SOON).success();
}

fn exists(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).exists()
}

fn read(interface: &str, file: &str) -> String {
    let path = Path::new("/sys/class/net").join(interface).join(file);
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The bridge that an interface is in.
fn bridge_of(interface: &str) -> Option<String> {
    let link = Path::new("/sys/class/net").join(interface).join("master");
    Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// Gives a namespace's interface an address.
#[track_caller]
fn address(namespace: &Namespace, interface: &str, address: &str) {
    let commands = format!("ip addr add {address} dev {interface} && ip link set {interface} up");
    namespace.run(&commands, SOON).success();
}

#[track_caller]
fn reaches(from: &Namespace, to: &str) {
    eventually(&format!("{to} answers"), SOON, || {
        from.run(&format!("ping -q -c 1 -W 1 {to}"), SOON).status == 0
    });
    from.run(&format!("ping -q -c 5 -i 0.1 -s 1300 -M do -W 5 {to}"), SOON).success();
}

#[test]
fn services_in_namespaces_talk_by_taps() {
    if !possible() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.put(&network_key("n"), &json!({"type": "local", "mtu": 1400}));
    let spaces = [Namespace::new("ta"), Namespace::new("tb")];
    let taps = [interface("a"), interface("b")];
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        let mut port = tap_port(name, &taps[index]);
        if name == "a" {
            port["mac"] = json!("52:54:00:00:00:0a");
        }
        switch.put(&port_key(name), &port);
        let state = switch.wait_ready(name);
        assert_eq!(state["interface"], taps[index].as_str(), "{state:#}");
        assert_eq!((&state["port_security"], &state["reason"]), (&json!(false), &Value::Null));
    }
    assert_eq!(
        (read(&taps[0], "mtu").as_str(), read(&taps[0], "flags").as_str()),
        ("1400", "0x1003")
    );
    assert_eq!(read(&taps[0], "address"), "52:54:00:00:00:0a");

    // Another MTU of the network is the interface's, without a new interface.
    let index = read(&taps[0], "ifindex");
    switch.put(&network_key("n"), &json!({"type": "local", "mtu": 1450}));
    eventually("the interface has the new MTU", SOON, || read(&taps[0], "mtu") == "1450");
    switch.put(&network_key("n"), &json!({"type": "local", "mtu": 9000}));
    eventually("a larger MTU than the driver has is told", SOON, || {
        let reason = switch.state("a").expect("it is reported")["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.contains("its MTU is 1504 and not 9000"))
    });
    assert_eq!((read(&taps[0], "mtu"), read(&taps[0], "ifindex")), ("1504".to_owned(), index));

    ip(&format!("link set {} down", taps[0]));
    switch.wait_status("a", "down");
    ip(&format!("link set {} up", taps[0]));
    switch.wait_ready("a");

    for (index, space) in spaces.iter().enumerate() {
        ip(&format!("link set {} netns {}", taps[index], space.name()));
        address(space, &taps[index], &format!("10.9.0.{}/24", index + 1));
    }
    reaches(&spaces[0], "10.9.0.2");
    reaches(&spaces[1], "10.9.0.1");
    // What a guest or a service sends is checked by the kernel behind the tap: TCP in both ways.
    let server = spaces[1].start("timeout 30 python3 -c \"import socket;s=socket.create_server(('10.9.0.2',7));c=s.accept()[0];n=sum(iter(lambda:len(c.recv(65536)),0));print('got',n)\"");
    eventually("the transfer succeeds", SOON, || {
        spaces[0].run("python3 -c \"import socket;s=socket.create_connection(('10.9.0.2',7),2);s.sendall(bytes(3000000))\"", SOON).status == 0
    });
    assert!(server.finish(SOON).text.contains("got 3000000"));
    for name in ["a", "b"] {
        assert_eq!(switch.state(name).expect("it is reported")["status"], "ready");
    }

    switch.delete(&port_key("a"));
    switch.wait_gone("a");
    let gone =
        |space: &Namespace, tap: &str| space.run(&format!("ip link show {tap}"), SOON).status != 0;
    eventually("the interface is gone", SOON, || gone(&spaces[0], &taps[0]));
    assert!(!gone(&spaces[1], &taps[1]));
    switch.stop();
    assert!(gone(&spaces[1], &taps[1]), "the switch has left its interface");
}

#[test]
fn a_guests_partial_checksum_is_whole_behind_a_tap() {
    if !possible() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    let (space, tap) = (Namespace::new("tc"), interface("c"));
    let mut port = tap_port("t", &tap);
    port["mac"] = json!("52:54:00:00:00:0a");
    switch.put(&port_key("t"), &port);
    switch.wait_ready("t");
    ip(&format!("link set {tap} netns {}", space.name()));
    address(&space, &tap, "10.9.2.1/24");
    let waiting = Waiting::new(&switch.socket("g"));
    switch.guest_port("g", "n", "52:54:00:00:00:0b");
    let mut guest = waiting.connect(1);
    guest.start();
    switch.wait_ready("g");

    // The kernel gives its socket what has a good checksum, and nothing else.
    let server = space.start(
        "python3 -uc \"import socket;s=socket.socket(2,2);s.bind(('10.9.2.1',7));\
         print('bound');print('got',s.recv(99).decode())\"",
    );
    eventually("the service listens", SOON, || server.text().contains("bound"));
    let payload = b"left to the switch";
    let mut frame = Vec::new();
    frame.extend([0x52, 0x54, 0, 0, 0, 0x0a, 0x52, 0x54, 0, 0, 0, 0x0b, 0x08, 0x00]);
    let (total, length) = (28 + payload.len() as u16, 8 + payload.len() as u16);
    let mut ipv4 = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 2, 9, 10, 9, 2, 1];
    ipv4[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = !ones_sum(&ipv4);
    ipv4[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ipv4);
    // The sum over the pseudo header, as a driver leaves it (virtio 1.2 §5.1.6.2).
    let pseudo = ones_sum(&[&ipv4[12..20], &[0, 17], &length.to_be_bytes()].concat());
    for field in [9_u16, 7, length, pseudo] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    // NEEDS_CSUM, from octet 34 on, to be put 6 octets behind that.
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    let checksums = || switch.show_port("ports", "t")["software_checksums"].clone();
    guest.send_with(0, header, &frame);
    assert!(server.finish(SOON).text.contains("got left to the switch"));
    eventually("it is counted", SOON, || checksums() == 1);
    switch.stop();
}

/// The sum of 16-bit words in one's complement.
fn ones_sum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    words.fold(0, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[test]
fn a_bridge_connects_what_comes_later() {
    if !possible() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    let near = Namespace::new("tn");
    let (tap, plain) = (interface("t"), interface("p"));
    let (bridge, member) = (interface("r"), interface("m"));
    switch.put(&port_key("p"), &tap_port("p", &plain));
    switch.put(&port_key("b"), &bridged("b", &tap, &bridge, &member));
    switch.wait_ready("p");
    switch.wait_ready("b");
    ip(&format!("link set {plain} netns {}", near.name()));
    address(&near, &plain, "10.9.1.1/24");

    let lacks_member = |switch: &Daemon| {
        let state = switch.state("b").expect("it is reported");
        assert_eq!(state["status"], "ready", "a port does not wait for the member: {state:#}");
        state["reason"].as_str().is_some_and(|reason| reason.contains(&member))
    };
    eventually("the missing member is told", SOON, || lacks_member(&switch));
    assert_eq!(switch.show_port("ports", "b")["kind"], "tap");
    assert_eq!(switch.show_port("ports", "b")["interface"], tap.as_str());
    assert_eq!(bridge_of(&tap).as_deref(), Some(bridge.as_str()));
    assert_eq!(
        (read(&bridge, "bridge/forward_delay"), read(&bridge, "bridge/stp_state")),
        ("0".into(), "0".into())
    );
    assert_eq!(read(&bridge, "flags"), "0x1003", "it is up");
    let ipv6 = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    // A kernel without IPv6 has nothing to switch off.
    assert_eq!(ipv6.as_deref().unwrap_or("1").trim(), "1");

    // The member comes, goes, and comes again; each time the service behind it is reached.
    for round in 0..2 {
        let far = Namespace::new(&format!("tf{round}"));
        ip(&format!("link add {member} type veth peer name inside netns {}", far.name()));
        address(&far, "inside", "10.9.1.2/24");
        eventually("the member is in the bridge, and up", SOON, || {
            bridge_of(&member).as_deref() == Some(&bridge) && read(&member, "operstate") == "up"
        });
        eventually("nothing is missing", SOON, || !lacks_member(&switch));
        near.run("ip neigh flush all", SOON).success();
        reaches(&near, "10.9.1.2");
        reaches(&far, "10.9.1.1");
        if round == 0 {
            ip(&format!("link delete {member}"));
            eventually("the missing member is told again", SOON, || lacks_member(&switch));
        } else {
            switch.delete(&port_key("b"));
            switch.wait_gone("b");
            eventually("bridge and tap are gone", SOON, || !exists(&bridge) && !exists(&tap));
            assert!(exists(&member), "somebody else's interface was removed");
            assert_eq!(bridge_of(&member), None);
        }
    }
    switch.stop();
}

#[test]
fn what_others_have_is_left_to_them() {
    if !possible() {
        return;
    }
    let (taken, own) = (interface("x"), interface("o"));
    let (bridge, member, guest) = (interface("g"), interface("h"), interface("i"));
    let foreign = Wire::new(&taken);
    let mut switch = Daemon::builder().start();
    switch.local_network("n");
    switch.put(&port_key("p"), &tap_port("p", &taken));
    let state = switch.wait_status("p", "failed");
    let reason = state["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(&format!("interface `{taken}` is there already")), "{state:#}");
    let errors = switch.errors();
    assert_eq!(
        (&errors[0]["object"], &errors[0]["field"]),
        (&json!(port_key("p")), &json!("interface"))
    );
    assert_eq!(read(&taken, "mtu"), "9000", "somebody else's interface was changed");
    drop(foreign);
    switch.wait_ready("p");

    // An interface that somebody removes is made again.
    let before = read(&taken, "ifindex");
    ip(&format!("link delete {taken}"));
    eventually("it is made again", SOON, || {
        !["", &before].contains(&read(&taken, "ifindex").as_str())
    });
    switch.wait_ready("p");

    // A bridge of somebody else's is used, and stays as long as something is in it.
    ip(&format!("link add {bridge} type bridge"));
    ip(&format!("link add {guest} type veth peer name {member}"));
    ip(&format!("link set {guest} master {bridge}"));
    switch.put(&port_key("q"), &bridged("q", &own, &bridge, &member));
    switch.wait_ready("q");
    for interface in [&own, &member] {
        eventually("it is in the bridge", SOON, || {
            bridge_of(interface).as_deref() == Some(&bridge)
        });
    }
    switch.delete(&port_key("q"));
    switch.wait_gone("q");
    assert!(!exists(&own));
    assert_eq!((bridge_of(&guest), bridge_of(&member)), (Some(bridge.clone()), None));
    ip(&format!("link delete {bridge}"));

    // What is no bridge is not made one, and a member of another bridge stays there.
    switch.put(&port_key("q"), &bridged("q", &own, &guest, &member));
    let state = switch.wait_status("q", "failed");
    assert!(state["reason"].as_str().unwrap_or_default().contains("is no bridge"), "{state:#}");
    let other = interface("j");
    ip(&format!("link add {other} type bridge"));
    ip(&format!("link set {member} master {other}"));
    switch.put(&port_key("q"), &bridged("q", &own, &bridge, &member));
    let in_another = || {
        let reason = switch.state("q").expect("it is reported")["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.contains("is in another bridge"))
    };
    eventually("it is told that the member is taken", SOON, in_another);
    assert_eq!(bridge_of(&member), Some(other.clone()));
    ip(&format!("link delete {other}"));
    switch.wait_ready("q");
    eventually("the member is taken once it is free", Duration::from_secs(20), || {
        bridge_of(&member).as_deref() == Some(&bridge)
    });
    switch.stop();
    assert!(!exists(&own) && !exists(&bridge), "the switch has left interfaces");
    ip(&format!("link delete {member}"));
}
