//! The desired state of these tests: ports of each kind and condition.

use serde_json::{Value, json};

use crate::common::daemon::{guest_port, network_key, port_key, uuid};

/// Where all keys stand.
pub const ROOT: &str = "/viaduct/v1/";

/// The key of an object by what it is and its name here.
pub fn at(folder: &str, name: &str) -> String {
    format!("{ROOT}{folder}/{}", uuid(name))
}

/// The key of a port.
pub fn at_port(name: &str) -> String {
    format!("{ROOT}{}", port_key(name))
}

/// A guest's port.
pub fn guest(name: &str) -> Value {
    let sum =
        name.bytes().fold(0, |sum: u16, octet| sum.wrapping_mul(31).wrapping_add(octet.into()));
    let [high, low] = sum.to_be_bytes();
    guest_port(name, "n", &format!("52:54:00:01:{high:02x}:{low:02x}"))
}

/// A group that permits UDP from and to everybody, and something to some addresses.
pub fn group(addresses: &[&str]) -> Value {
    let more = addresses.iter().map(|address| {
        json!({"direction": "egress", "protocol": "tcp", "ports": "7",
               "remote_prefix": format!("{address}/32")})
    });
    let udp = |direction| json!({"direction": direction, "ethertype": "ipv4", "protocol": "udp"});
    let rules: Vec<Value> = ["ingress", "egress"].map(udp).into_iter().chain(more).collect();
    json!({"name": "g", "rules": rules})
}

/// An end of the stream: a port to an interface, with its address and its group.
pub fn end(name: &str, device: &str, mac: &str, ip: &str) -> Value {
    json!({
        "name": name, "network": uuid("n"), "kind": "ethdev", "device": device, "mac": mac,
        "fixed_ips": [ip], "security_groups": [uuid("g")],
    })
}

/// All but the ends of the stream, which depend on the interfaces' names.
pub fn desired() -> Vec<(String, Value)> {
    let mut lost = guest("lost");
    lost["port_security"] = json!(true);
    lost["security_groups"] = json!([uuid("nowhere")]);
    let mut wrong = guest("wrong-mtu");
    wrong["queues"] = json!(99);
    let mut down = guest("downed");
    down["admin_up"] = json!(false);
    vec![
        (format!("{ROOT}{}", network_key("n")), json!({"name": "n", "type": "local"})),
        (at("security-groups", "g"), group(&[])),
        (at_port("late"), guest("late")),
        (at_port("lost"), lost),
        (at_port("wrong-mtu"), wrong),
        (at_port("downed"), down),
    ]
}
