//! Desired state of the measured host and of those around it: keys and values as they stand in etcd.

use serde_json::{Value, json};

use crate::size::{OTHER_PORTS, Size};

/// What stands before every key.
pub const PREFIX: &str = "/viaduct/v1/";
/// The measured host.
pub const HOST: &str = "measured";
/// The destination port that members of the first remote group may reach, at every port.
pub const MEMBERS_PORT: u16 = 9999;

/// Networks of the measured host.
const NETWORKS: usize = 10;
/// Networks that other hosts have in all, and each of them.
const OTHER_NETWORKS: (usize, usize) = (1000, 5);
/// Security groups that other hosts have in all, and each of them, beside one of its own.
const OTHER_GROUPS: (usize, usize) = (2000, 10);
/// Rules of each of these.
const OTHER_RULES: usize = 20;

/// The kinds of objects, as the first digits of their UUIDs.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Kind {
    Network = 1,
    Port,
    Group,
    RemoteGroup,
    Member,
    OtherNetwork,
    OtherPort,
    OtherGroup,
    OwnGroup,
}

fn uuid(kind: Kind, number: usize) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", kind as u32)
}

/// The UUID of a port of the measured host.
pub fn port_uuid(number: usize) -> String {
    uuid(Kind::Port, number)
}

/// The key of a port of the measured host.
pub fn port_key(number: usize) -> String {
    format!("{PREFIX}nodes/{HOST}/ports/{}", port_uuid(number))
}

/// The key of the group that all ports of the measured host have.
pub fn common_group_key() -> String {
    format!("{PREFIX}security-groups/{}", uuid(Kind::Group, 0))
}

/// The key of a member of the first remote group, which rules of all ports of the measured host name.
pub fn common_member_key(number: usize) -> String {
    member_key(&uuid(Kind::RemoteGroup, 0), &uuid(Kind::Member, number))
}

/// A member's value.
pub fn member(address: &str) -> Value {
    json!({ "addresses": [address] })
}

fn member_key(group: &str, port: &str) -> String {
    format!("{PREFIX}group-members/{group}/{port}")
}

/// The address of a port of the measured host; with another turn, another one.
pub fn address(number: usize, turn: usize) -> String {
    format!("10.{}.{}.{}", 200 + turn % 50, number / 250, number % 250 + 1)
}

/// A port of the measured host.
pub fn port(size: &Size, number: usize, address: &str) -> Value {
    let groups: Vec<_> =
        size.groups_of(number).into_iter().map(|group| uuid(Kind::Group, group)).collect();
    json!({
        "name": format!("guest-{number}"),
        "network": uuid(Kind::Network, number % NETWORKS),
        "kind": "vhost-user",
        "socket": socket(number),
        "mac": format!("52:54:00:00:{:02x}:{:02x}", number / 256, number % 256),
        "fixed_ips": [address],
        "security_groups": groups,
    })
}

/// The name of a port's socket.
pub fn socket(number: usize) -> String {
    format!("{number}.sock")
}

/// A group of the measured host. `open` is a destination port that its first rule opens to all.
pub fn group(size: &Size, number: usize, open: u16) -> Value {
    let mut rules = vec![json!({
        "direction": "ingress", "ethertype": "ipv4", "protocol": "tcp", "ports": open,
    })];
    let remote = |turn: usize| uuid(Kind::RemoteGroup, (number + turn * 37) % size.remote_groups);
    for turn in 0..2 {
        rules.push(json!({
            "direction": "ingress", "ethertype": "ipv4", "protocol": "tcp",
            "ports": MEMBERS_PORT - turn as u16, "remote_group": remote(turn),
        }));
    }
    for (protocol, port) in [("tcp", 443), ("udp", 53)] {
        rules.push(json!({
            "direction": "egress", "ethertype": "ipv4", "protocol": protocol, "ports": port,
        }));
    }
    for rule in rules.len()..size.rules {
        let port = 1024 + (number * 97 + rule * 131) % 60_000;
        let mut value = json!({
            "direction": "ingress", "ethertype": "ipv4", "ports": port,
            "protocol": if rule % 4 == 0 { "udp" } else { "tcp" },
        });
        if rule % 3 != 0 {
            value["remote_prefix"] = json!(format!("10.{}.{rule}.0/24", number % 200));
        }
        rules.push(value);
    }
    json!({ "name": format!("group-{number}"), "rules": rules })
}

/// What concerns the measured host.
pub fn of_host(size: &Size) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for number in 0..NETWORKS {
        let key = format!("{PREFIX}networks/{}", uuid(Kind::Network, number));
        all.push((key, json!({ "type": "local" })));
    }
    for number in 0..size.groups {
        let key = format!("{PREFIX}security-groups/{}", uuid(Kind::Group, number));
        all.push((key, group(size, number, 22)));
    }
    for number in 0..size.members {
        let group = uuid(Kind::RemoteGroup, number % size.remote_groups);
        let address = format!("172.16.{}.{}", number / 250, number % 250 + 1);
        all.push((member_key(&group, &uuid(Kind::Member, number)), member(&address)));
    }
    for number in 0..size.ports {
        all.push((port_key(number), port(size, number, &address(number, 0))));
    }
    all
}

/// The groups that another host has: those that it shares with some, and one of its own.
fn groups_of_other(host: usize) -> Vec<String> {
    let (all, each) = OTHER_GROUPS;
    let shared = (0..each).map(|turn| uuid(Kind::OtherGroup, (host * each + turn) % all));
    shared.chain([uuid(Kind::OwnGroup, host)]).collect()
}

fn networks_of_other(host: usize) -> impl Iterator<Item = String> {
    let (all, each) = OTHER_NETWORKS;
    (0..each).map(move |turn| uuid(Kind::OtherNetwork, (host * each + turn) % all))
}

/// What concerns other hosts and not the measured one.
pub fn of_others(hosts: usize) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for number in 0..OTHER_NETWORKS.0.min(hosts * OTHER_NETWORKS.1) {
        let key = format!("{PREFIX}networks/{}", uuid(Kind::OtherNetwork, number));
        all.push((key, json!({ "type": "vlan", "physnet": "physnet1", "vlan": number + 1 })));
    }
    let shared = (0..OTHER_GROUPS.0.min(hosts * OTHER_GROUPS.1)).map(|n| uuid(Kind::OtherGroup, n));
    let own = (0..hosts).map(|number| uuid(Kind::OwnGroup, number));
    for group in shared.chain(own) {
        let rule = |rule| {
            json!({
                "direction": "ingress", "ethertype": "ipv4", "protocol": "tcp",
                "ports": 1024 + rule, "remote_group": group,
            })
        };
        let rules: Vec<Value> = (0..OTHER_RULES).map(rule).collect();
        all.push((format!("{PREFIX}security-groups/{group}"), json!({ "rules": rules })));
    }
    for host in 0..hosts {
        let networks: Vec<String> = networks_of_other(host).collect();
        let groups = groups_of_other(host);
        for turn in 0..OTHER_PORTS {
            let number = host * OTHER_PORTS + turn;
            let (port, group) = (uuid(Kind::OtherPort, number), &groups[turn % groups.len()]);
            let address =
                format!("11.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1);
            let value = json!({
                "name": format!("guest-{number}"),
                "network": networks[turn % networks.len()],
                "kind": "vhost-user",
                "socket": socket(turn),
                "mac": format!("52:54:{:02x}:{:02x}:{:02x}:00", number >> 16, number >> 8 & 255, number & 255),
                "fixed_ips": [address],
                "security_groups": [group],
            });
            all.push((format!("{PREFIX}nodes/{}/ports/{port}", other_host(host)), value));
            all.push((member_key(group, &port), member(&address)));
        }
    }
    all
}

/// The name of another host.
pub fn other_host(host: usize) -> String {
    format!("other-{host}")
}

/// What another host's daemon watches, as key or prefix: its ports, its networks, its groups and the
/// members that rules of these name, and what all hosts have in common.
pub fn watched_by(host: usize) -> Vec<String> {
    let mut watched = vec![format!("{PREFIX}nodes/{}/ports/", other_host(host))];
    watched.extend(networks_of_other(host).map(|network| format!("{PREFIX}networks/{network}")));
    for group in groups_of_other(host) {
        watched.push(format!("{PREFIX}security-groups/{group}"));
        watched.push(format!("{PREFIX}group-members/{group}/"));
    }
    watched.push(common_group_key());
    watched
}

/// The key of the group that only one of the other hosts has.
pub fn own_group_key(host: usize) -> String {
    format!("{PREFIX}security-groups/{}", uuid(Kind::OwnGroup, host))
}
