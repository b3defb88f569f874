//! Objects among others: a set, who of it is in force on a host, and the exact words about the rest.

use serde_json::{Value, json};

use super::super::*;
use super::{Host, NET, NET2, PORT, PORT2, guest, in_force, messages, raw, vlan};
use crate::problem::Severity;

/// A set, who of it is in force on host `h`, and all that is said about the rest.
type Row<'a> = (Vec<(&'a str, Value)>, Vec<&'a str>, Vec<String>);

#[test]
fn objects_are_judged_among_the_others() {
    let host = Host::new();
    let net = format!("networks/{NET}");
    let net2 = format!("networks/{NET2}");
    let port = format!("nodes/h/ports/{PORT}");
    let port2 = format!("nodes/h/ports/{PORT2}");
    let elsewhere = format!("nodes/other/ports/{PORT2}");
    let local = json!({"type": "local"});
    let flat = json!({"type": "flat", "physnet": "q"});
    let bridged = |interface: &str, bridge: &str, member: &str| {
        let bridge = json!({"name": bridge, "member": member});
        json!({"network": NET, "kind": "tap", "interface": interface, "bridge": bridge})
    };
    let tap = json!({"network": NET, "kind": "ethdev", "device": "net_tap1"});
    let table: Vec<Row<'_>> = vec![
        (vec![], vec![], vec![]),
        (vec![(&net, vlan("p", 100)), (&port, guest(NET, "a", 1))], vec![NET, PORT], vec![]),
        (
            vec![(&port, guest(NET, "a", 1))],
            vec![],
            vec![format!(
                "{port}: network: {net} is not there; correct the UUID, or add that network"
            )],
        ),
        (
            vec![(&net, json!({"type": "vlan"})), (&port, guest(NET, "a", 1))],
            vec![],
            vec![
                format!(
                    "{net}: physnet: is missing; write the name of a physnet of the host's \
                     configuration"
                ),
                format!("{net}: vlan: is missing; write the VLAN's number, 1 to 4094"),
                format!(
                    "{port}: network: {net} is not in force; correct what is reported for that \
                     network"
                ),
            ],
        ),
        // One bad value changes nothing else.
        (
            vec![
                (&net, local.clone()),
                (&net2, json!("{")),
                (&port, guest(NET, "a", 1)),
                (&port2, json!("no")),
            ],
            vec![NET, PORT],
            vec![
                format!(
                    "{net2}: is not JSON: EOF while parsing an object at line 1 column 1; correct \
                     the text there"
                ),
                format!(
                    "{port2}: is not JSON: expected ident at line 1 column 2; correct the text \
                     there"
                ),
            ],
        ),
        // Two of one thing: the smaller UUID has it.
        (
            vec![(&net, vlan("p", 100)), (&net2, vlan("p", 100))],
            vec![NET],
            vec![format!(
                "{net2}: vlan: VLAN 100 of physnet `p` belongs to {net}, which stays in force; \
                 choose another VLAN, or delete one of the two networks"
            )],
        ),
        (vec![(&net, vlan("p", 100)), (&net2, vlan("q", 100))], vec![NET, NET2], vec![]),
        (
            vec![(&net, flat.clone()), (&net2, flat)],
            vec![NET],
            vec![format!(
                "{net2}: physnet: physnet `q` has a flat network, {net}, which stays in force; \
                 choose another physnet, or delete one of the two networks"
            )],
        ),
        (
            vec![
                (&net, local.clone()),
                (&port, guest(NET, "a", 1)),
                (&port2, guest(NET, "/run/viaduct/vhost/a", 2)),
            ],
            vec![NET, PORT],
            vec![format!(
                "{port2}: socket: `/run/viaduct/vhost/a` is the socket of {port}, which stays in \
                 force; choose another socket, or delete one of the two ports"
            )],
        ),
        (
            vec![(&net, local.clone()), (&port, guest(NET, "a", 1)), (&port2, guest(NET, "b", 1))],
            vec![NET, PORT],
            vec![format!(
                "{port2}: mac: 52:54:00:00:00:01 is on this network already, as the address of \
                 {port}, which stays in force; choose another address, or another network, or \
                 delete one of the two ports"
            )],
        ),
        // One MAC on two networks is nobody's harm.
        (
            vec![
                (&net, local.clone()),
                (&net2, local.clone()),
                (&port, guest(NET, "a", 1)),
                (&port2, guest(NET2, "b", 1)),
            ],
            vec![NET, NET2, PORT, PORT2],
            vec![],
        ),
        (
            vec![(&net, local.clone()), (&port, tap.clone()), (&port2, tap)],
            vec![NET, PORT],
            vec![format!(
                "{port2}: device: `net_tap1` is the device of {port}, which stays in force; choose \
                 another device, or delete one of the two ports"
            )],
        ),
        // An interface belongs to one port, whatever it is to it.
        (
            vec![
                (&net, local.clone()),
                (&port, bridged("a", "b", "c")),
                (&port2, bridged("d", "c", "a")),
            ],
            vec![NET, PORT],
            vec![
                format!(
                    "{port2}: bridge.name: `c` is an interface of {port}, which stays in force; \
                     choose another interface, or delete one of the two ports"
                ),
                format!(
                    "{port2}: bridge.member: `a` is an interface of {port}, which stays in force; \
                     choose another interface, or delete one of the two ports"
                ),
            ],
        ),
        (
            vec![
                (&net, local.clone()),
                (&port, json!({"network": NET, "kind": "ethdev", "device": "01:10.0"})),
            ],
            vec![NET],
            vec![format!(
                "{port}: device: `0000:01:10.0` is the device of physnet `q`; choose another \
                 device, or put the port's network on that physnet"
            )],
        ),
        (
            vec![(&net, vlan("nowhere", 100)), (&port, guest(NET, "a", 1))],
            vec![],
            vec![
                format!(
                    "{net}: physnet: physnet `nowhere` is not configured on this host, which has \
                     `p`, `q`; correct the name, or add [physnets.nowhere] to the configuration \
                     and reload it"
                ),
                format!(
                    "{port}: network: {net} is not in force; correct what is reported for that \
                     network"
                ),
            ],
        ),
        (
            vec![
                (&net, json!({"type": "vlan", "physnet": "p", "vlan": 200, "mtu": 9000})),
                (&port, guest(NET, "a", 1)),
            ],
            vec![],
            vec![
                format!(
                    "{net}: vlan: VLAN 200 is not among those of physnet `p`: 100-199; choose one \
                     of these, or extend physnets.p.vlans in the configuration"
                ),
                format!(
                    "{net}: mtu: 9000 is more than physnet `p` carries: 1500; lower it, or raise \
                     physnets.p.mtu in the configuration"
                ),
                format!(
                    "{port}: network: {net} is not in force; correct what is reported for that \
                     network"
                ),
            ],
        ),
        (
            vec![
                (&net, local.clone()),
                (
                    &port,
                    json!({
                        "network": NET, "kind": "vhost-user", "socket": "a", "queues": 5,
                        "mac": "52:54:00:00:00:01",
                    }),
                ),
            ],
            vec![NET],
            vec![format!(
                "{port}: queues: 5 is more than this host allows: 4; lower it, or raise \
                 vhost.queues_max in the configuration"
            )],
        ),
        (
            vec![
                (&net, local.clone()),
                (
                    &port,
                    json!({
                        "network": NET, "kind": "vhost-user", "socket": "a", "cores": [3, 7],
                        "mac": "52:54:00:00:00:01",
                    }),
                ),
            ],
            vec![NET],
            vec![format!(
                "{port}: cores[1]: CPU 7 has no worker on this host; there are workers on 2, 3; \
                 choose among these, or add it to workers.cores in the configuration and reload it"
            )],
        ),
        // What is short enough alone may be too long under the socket directory.
        (
            vec![(&net, local.clone()), (&port, guest(NET, &"s".repeat(100), 1))],
            vec![NET],
            vec![format!(
                "{port}: socket: `/run/viaduct/vhost/{}` is 119 octets long; choose a socket path \
                 of at most 107 octets: the kernel takes no more",
                "s".repeat(100)
            )],
        ),
        // Other hosts' ports are neither in force nor judged here.
        (vec![(&net, local), (&elsewhere, json!("{"))], vec![NET], vec![]),
    ];
    for (values, good, said) in table {
        let desired = Desired::build(&raw(&values), host.site());
        assert_eq!(in_force(&desired), good, "{values:?}");
        assert_eq!(messages(&desired), said, "{values:?}");
    }
}

#[test]
fn a_network_over_a_foreign_wire_is_a_warning_until_a_port_needs_it() {
    let host = Host::new();
    let net = format!("networks/{NET}");
    let port = format!("nodes/h/ports/{PORT}");
    let severities = |values: &[(&str, Value)]| -> Vec<Severity> {
        let desired = Desired::build(&raw(values), host.site());
        assert!(desired.networks.is_empty());
        desired.problems.values().flatten().map(|problem| problem.severity).collect()
    };
    assert_eq!(severities(&[(&net, vlan("nowhere", 5))]), [Severity::Warning]);
    assert_eq!(
        severities(&[(&net, vlan("nowhere", 5)), (&port, guest(NET, "a", 1))]),
        [Severity::Error, Severity::Error]
    );
    let unknown = Site { physnets: None, ..host.site() };
    let desired = Desired::build(&raw(&[(&net, vlan("nowhere", 5))]), unknown);
    assert_eq!(in_force(&desired), [NET]);
}
