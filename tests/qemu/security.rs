//! Port security and security groups under real guests: all that a guest does by itself to come up
//! works, with a real DHCP server and a real router, and groups permit what they say.
//!
//! The network's own services are at the far end of an uplink, in a namespace of this machine:
//! dnsmasq for DHCP and DHCPv6, radvd for the router. What a guest does *against* the others is not
//! shown here but by `tests/daemon/spoofing.rs`.

use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::daemon::{Daemon, guest_port, network_key, port_key, uuid};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::namespace::Namespace;
use crate::common::process::{Process, eventually};
use crate::{boot, never_reaches, reaches, skip};

/// A guest, and the addresses that are its own: by DHCP, by DHCPv6, and made of its MAC address
/// (RFC 4862, RFC 4291 appendix A).
struct Plan {
    name: &'static str,
    mac: &'static str,
    v4: &'static str,
    v6: &'static str,
    autoconfigured: &'static str,
}

const CLIENT: Plan = Plan {
    name: "client",
    mac: "52:54:00:00:00:0a",
    v4: "10.0.0.10",
    v6: "fd00::10",
    autoconfigured: "fd00::5054:ff:fe00:a",
};
const SERVER: Plan = Plan {
    name: "server",
    mac: "52:54:00:00:00:0b",
    v4: "10.0.0.11",
    v6: "fd00::11",
    autoconfigured: "fd00::5054:ff:fe00:b",
};
const ROUTER_V4: &str = "10.0.0.1";
const ROUTER_V6: &str = "fd00::1";

/// What the network offers, and where Debian has it.
const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const RADVD: &str = "/usr/sbin/radvd";
const CURL: &str = "/usr/bin/curl";

#[test]
fn secured_guests_come_up_and_groups_permit_what_they_say() {
    if !guest::available() {
        return;
    }
    if !geteuid().is_root() {
        return skip("making a network namespace needs root");
    }
    for (program, package) in [(DNSMASQ, "dnsmasq-base"), (RADVD, "radvd"), (CURL, "curl")] {
        if !Path::new(program).exists() {
            return skip(&format!("there is no {program}: install Debian's {package}"));
        }
    }
    let namespace = Namespace::new("router");
    let outside = format!("vd{}r", std::process::id());
    namespace.veth(&outside, "lan");
    let device = format!("net_af_packet0,iface={outside}");
    let mut switch = Daemon::builder().physnet("w", &device).start();
    switch.put(&network_key("red"), &json!({"type": "flat", "physnet": "w"}));
    put_group(&switch, "clients", &clients());
    put_group(&switch, "servers", &servers(&[80]));
    add_port(&switch, &CLIENT, "clients");
    add_port(&switch, &SERVER, "servers");
    let _services = serve(&switch, &namespace);
    let [client, server] = boot(
        [&CLIENT, &SERVER]
            .map(|plan| Guest::builder(plan.name).socket(&switch.socket(plan.name)).mac(plan.mac)),
    );

    for (guest, plan) in [(&client, &CLIENT), (&server, &SERVER)] {
        comes_up(guest, plan);
    }
    assert_eq!(spoofed(&switch), [0, 0], "guests that did nothing wrong");

    for address in [SERVER.v4, SERVER.v6, SERVER.autoconfigured] {
        reaches(&client, address);
    }
    // Nobody permits the server to ask, nor anybody to ask the client.
    never_reaches(&server, CLIENT.v4);
    never_reaches(&server, CLIENT.v6);
    never_reaches_from(&namespace, CLIENT.v4);

    server.run(SERVE_PAGES, SHORT).success();
    for address in [SERVER.v4, SERVER.v6, SERVER.autoconfigured] {
        fetches(&client, address, 80);
    }
    never_fetches(&client, SERVER.v4, 81);
    never_fetches(&client, SERVER.v6, 81);

    // The router is no member of the clients until desired state says so.
    assert!(!curl(&namespace, SERVER.v4) && !curl(&namespace, SERVER.v6));
    let member = format!("group-members/{}/{}", uuid("clients"), uuid("router"));
    switch.put(&member, &json!({"addresses": [ROUTER_V4, ROUTER_V6]}));
    for address in [SERVER.v4, SERVER.v6] {
        eventually("a new member is served", SHORT, || curl(&namespace, address));
    }
    switch.delete(&member);
    for address in [SERVER.v4, SERVER.v6] {
        eventually("a former member is not", SHORT, || !curl(&namespace, address));
    }

    // Rules change under running guests.
    put_group(&switch, "servers", &servers(&[80, 81]));
    eventually("the new port is open", SHORT, || fetch(&client, SERVER.v4, 81, 5));
    fetches(&client, SERVER.v6, 81);
    put_group(&switch, "servers", &servers(&[81]));
    eventually("the former one is closed", SHORT, || !fetch(&client, SERVER.v4, 80, 2));
    never_fetches(&client, SERVER.v6, 80);
    fetches(&client, SERVER.v4, 81);

    // An address that is not the guest's own is of no use to it.
    assert_eq!(spoofed(&switch), [0, 0], "all was the guests' own");
    client.run("ip address add 10.0.0.66/24 dev eth0", SHORT).success();
    client.run("ip address add fd00::66/64 dev eth0 nodad", SHORT).success();
    never_reaches(&client, &format!("-I 10.0.0.66 {}", SERVER.v4));
    never_reaches(&client, &format!("-I fd00::66 {}", SERVER.v6));
    let [of_client, of_server] = spoofed(&switch);
    assert!(of_client >= 2 && of_server == 0, "{of_client} and {of_server} frames");
    reaches(&client, SERVER.v4);
    switch.stop();
}

/// What a port with the group of clients may do: ask anybody, and be answered.
fn clients() -> Value {
    json!({"rules": [{"direction": "egress"}]})
}

/// What a port with the group of servers may do: answer echoes, and clients at these ports.
fn servers(ports: &[u16]) -> Value {
    let mut rules = vec![
        json!({"direction": "ingress", "protocol": "icmp"}),
        json!({"direction": "ingress", "protocol": "icmpv6"}),
    ];
    rules.extend(ports.iter().map(|port| {
        json!({"direction": "ingress", "protocol": "tcp", "ports": port,
               "remote_group": uuid("clients")})
    }));
    json!({"rules": rules})
}

#[track_caller]
fn put_group(switch: &Daemon, name: &str, group: &Value) {
    switch.put(&format!("security-groups/{}", uuid(name)), group);
}

/// Adds a guest's port, with port security and a group.
#[track_caller]
fn add_port(switch: &Daemon, plan: &Plan, group: &str) {
    let mut port = guest_port(plan.name, "red", plan.mac);
    port["port_security"] = json!(true);
    port["fixed_ips"] = json!([plan.v4, plan.v6, plan.autoconfigured]);
    port["security_groups"] = json!([uuid(group)]);
    switch.put(&port_key(plan.name), &port);
}

/// Starts the network's services, for as long as the values live.
#[track_caller]
fn serve(switch: &Daemon, namespace: &Namespace) -> [Process; 2] {
    for command in [
        "sysctl -w net.ipv6.conf.all.forwarding=1",
        &format!("ip address add {ROUTER_V4}/24 dev lan"),
        &format!("ip address add {ROUTER_V6}/64 dev lan nodad"),
    ] {
        namespace.run(command, SHORT).success();
    }
    let config = switch.folder().join("radvd.conf");
    let text = "interface lan {\n  AdvSendAdvert on;\n  MinRtrAdvInterval 3;\n  \
                MaxRtrAdvInterval 4;\n  AdvManagedFlag on;\n  prefix fd00::/64 {};\n};\n";
    std::fs::write(&config, text).expect("the folder is ours");
    let radvd = format!(
        "exec {RADVD} --nodaemon --logmethod stderr --config {} --pidfile {}",
        config.display(),
        switch.folder().join("radvd.pid").display(),
    );
    let mut dnsmasq = format!(
        "exec {DNSMASQ} --keep-in-foreground --log-facility=- --user=root --pid-file= \
         --conf-file=/dev/null --port=0 --interface=lan --leasefile-ro --dhcp-authoritative \
         --dhcp-range=10.0.0.0,static --dhcp-range=fd00::,static"
    );
    for Plan { mac, v4, v6, .. } in [CLIENT, SERVER] {
        dnsmasq.push_str(&format!(" --dhcp-host={mac},{v4},[{v6}]"));
    }
    [namespace.start(&radvd), namespace.start(&dnsmasq)]
}

/// A guest asks for all of its addresses, and is given them.
#[track_caller]
fn comes_up(guest: &Guest, plan: &Plan) {
    // Only addresses that nobody else has.
    let has = |address: &str| {
        let addresses = guest.run("ip -brief address show dev eth0 -tentative", SHORT).success();
        addresses.contains(&format!(" {address}/"))
    };
    eventually("a router's prefix has become an address", SHORT, || has(plan.autoconfigured));
    let routes = guest.run("ip -6 route show default", SHORT).success();
    assert!(routes.contains("proto ra"), "no router: {routes}");
    // -t and -T: tries, and seconds between them; -q: ends once it has an address.
    guest.run("udhcpc -i eth0 -n -q -t 20 -T 1", SHORT).success();
    assert!(has(plan.v4));
    // It ends once it has an address, or has been told that there is none.
    let dhclient = "dhclient -6 -1 -v -sf /etc/udhcpc/default.script -lf /tmp/leases -pf /tmp/pid";
    guest.run(&format!("{dhclient} eth0"), Duration::from_secs(60)).success();
    assert!(has(plan.v6));
}

/// Serves one page at two ports, of both versions of IP.
const SERVE_PAGES: &str = "mkdir -p /www; echo a page >/www/index.html; \
                           httpd -p 80 -h /www && httpd -p 81 -h /www";

/// Whether a guest gets the page within some seconds. Its shell asks: busybox's wget, which is linked
/// statically, cannot look up even a number.
#[track_caller]
fn fetch(from: &Guest, address: &str, port: u16, seconds: u8) -> bool {
    let ask = format!(
        "exec 3<>/dev/tcp/{address}/{port}; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3"
    );
    let output = from.run(&format!("timeout {seconds} bash -c '{ask}'"), SHORT);
    output.status == 0 && output.text.contains("a page")
}

#[track_caller]
fn fetches(from: &Guest, address: &str, port: u16) {
    assert!(fetch(from, address, port, 20), "no page from {address}, port {port}");
}

#[track_caller]
fn never_fetches(from: &Guest, address: &str, port: u16) {
    assert!(!fetch(from, address, port, 2), "a page from {address}, port {port}");
}

/// Whether the router gets the page within two seconds.
#[track_caller]
fn curl(namespace: &Namespace, address: &str) -> bool {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let command = format!("{CURL} --silent --globoff --max-time 2 http://{host}/");
    let output = namespace.run(&command, SHORT);
    output.status == 0 && output.text.contains("a page")
}

#[track_caller]
fn never_reaches_from(namespace: &Namespace, address: &str) {
    let output = namespace.run(&format!("ping -q -c 2 -i 0.2 -W 1 {address}"), SHORT);
    assert!(output.text.contains("100% packet loss"), "somebody answers:\n{}", output.text);
}

/// Frames of the two guests that port security dropped, for whatever reason but rules.
#[track_caller]
fn spoofed(switch: &Daemon) -> [u64; 2] {
    let drops = switch.show("drops");
    let drops = drops.as_array().expect("a list");
    [&CLIENT, &SERVER].map(|plan| {
        let of_port = drops.iter().filter(|drop| drop["port"]["uuid"] == uuid(plan.name));
        let anti_spoofing = of_port.filter(|drop| {
            let reason = drop["reason"].as_str().expect("a name");
            reason.starts_with("spoof-")
        });
        anti_spoofing.map(|drop| drop["frames"].as_u64().expect("a count")).sum()
    })
}
