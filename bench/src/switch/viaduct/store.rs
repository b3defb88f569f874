//! Viaduct's desired state, as files of the embedded store.
//!
//! Each guest's port has port security with exactly the addresses that the guest uses, and a security
//! group: its own where the scenario has rules for it, else one that permits everything.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::Bed;
use super::HOST;
use crate::frame::Prefix;
use crate::rules::{FIRST_SEED, Policy, Ports, Protocol, Remote, Rule, Sets};

/// The network of all guests, or of the first where each has its own.
pub const NETWORK: &str = "00000000-0000-4000-8000-000000000001";
/// The other guest's network, where each has its own.
const OTHER_NETWORK: &str = "00000000-0000-4000-8000-000000000002";
/// The group that permits everything.
const OPEN_GROUP: &str = "00000000-0000-4000-a000-ffffffffffff";

/// Writes everything that the scenario needs.
pub fn write(bed: &Bed<'_>) -> Result<()> {
    write_networks(bed)?;
    for number in 0..bed.ports {
        let key = format!("nodes/{HOST}/ports/00000000-0000-4000-9000-{number:012x}");
        put(bed, &key, &port(bed, number))?;
    }
    if bed.scenario.port_security {
        put(bed, &format!("security-groups/{OPEN_GROUP}"), &group(&Policy::open()))?;
    }
    if bed.scenario.rules > 0 {
        for number in 0..bed.ports {
            let policy = Policy::of(bed.scenario, number, FIRST_SEED);
            if policy != Policy::open() {
                put(bed, &format!("security-groups/{}", group_of(number)), &group(&policy))?;
            }
        }
        write_sets(bed, &Sets::of_rules())?;
    }
    Ok(())
}

/// The file of a port's own group.
pub fn group_file(bed: &Bed<'_>, number: u16) -> PathBuf {
    file(bed, &format!("security-groups/{}", group_of(number)))
}

/// A security group's value.
pub fn group(policy: &Policy) -> Value {
    let ingress = policy.ingress.iter().map(|one| rule("ingress", one));
    let egress = policy.egress.iter().map(|one| rule("egress", one));
    // Both directions are written out, so there is nothing to be derived.
    json!({ "return_traffic": "none", "rules": ingress.chain(egress).collect::<Vec<_>>() })
}

/// One network, or for each guest one with an uplink.
fn write_networks(bed: &Bed<'_>) -> Result<()> {
    if !bed.scenario.uplinks {
        let network = json!({ "type": "local", "mtu": bed.scenario.mtu() });
        return put(bed, &format!("networks/{NETWORK}"), &network);
    }
    for (guest, network) in [NETWORK, OTHER_NETWORK].into_iter().enumerate() {
        let value = json!({ "type": "flat", "physnet": format!("uplink{guest}") });
        put(bed, &format!("networks/{network}"), &value)?;
    }
    Ok(())
}

fn port(bed: &Bed<'_>, number: u16) -> Value {
    let scenario = bed.scenario;
    let addresses = scenario.addresses_of(number);
    let network = if scenario.uplinks && number == 1 { OTHER_NETWORK } else { NETWORK };
    let mut port = json!({
        "network": network,
        "kind": "vhost-user",
        "mac": mac_text(addresses.mac(0)),
        "socket": bed.socket(number),
        "port_security": scenario.port_security,
    });
    if scenario.port_security {
        port["fixed_ips"] = json!([address_text(addresses.ip(0))]);
        let pairs = if scenario.random && number < 2 {
            vec![json!({ "ip": addresses.prefix().to_string() })]
        } else {
            Vec::new()
        };
        port["allowed_address_pairs"] = json!(pairs);
        let own = Policy::of(scenario, number, FIRST_SEED) != Policy::open();
        let group = if own { group_of(number) } else { OPEN_GROUP.to_owned() };
        port["security_groups"] = json!([group]);
    }
    port
}

/// The sets that rules name: address groups, and members of groups, each a port of another host.
fn write_sets(bed: &Bed<'_>, sets: &Sets) -> Result<()> {
    for (index, members) in sets.groups.iter().enumerate() {
        for (member, address) in members.iter().enumerate() {
            let port = format!("00000000-0000-4001-9000-{index:04x}{member:08x}");
            let key = format!("group-members/{}/{port}", remote_group(index));
            put(bed, &key, &json!({ "addresses": [address_text(*address)] }))?;
        }
    }
    for (index, prefixes) in sets.address_groups.iter().enumerate() {
        let addresses: Vec<_> = prefixes.iter().map(Prefix::to_string).collect();
        let key = format!("address-groups/{}", address_group(index));
        put(bed, &key, &json!({ "addresses": addresses }))?;
    }
    Ok(())
}

/// The group of a port that has one of its own.
fn group_of(number: u16) -> String {
    format!("00000000-0000-4000-a000-{number:012x}")
}

fn remote_group(index: usize) -> String {
    format!("00000000-0000-4000-b000-{index:012x}")
}

fn address_group(index: usize) -> String {
    format!("00000000-0000-4000-b001-{index:012x}")
}

fn rule(direction: &str, rule: &Rule) -> Value {
    let mut value = json!({ "direction": direction });
    if *rule == Rule::ANY {
        return value;
    }
    value["ethertype"] = json!("ipv4");
    let mut set = |field: &str, content: Value| value[field] = content;
    let mut with_ports = |name: &str, ports: Ports| {
        set("protocol", json!(name));
        if ports != Ports::ANY {
            set("ports", json!(ports_text(ports)));
        }
    };
    match rule.protocol {
        Protocol::Any => {}
        Protocol::Tcp(ports) => with_ports("tcp", ports),
        Protocol::Udp(ports) => with_ports("udp", ports),
        Protocol::Icmp(kind) => {
            set("protocol", json!("icmp"));
            if let Some((icmp_type, code)) = kind {
                set("icmp_type", json!(icmp_type));
                if let Some(code) = code {
                    set("icmp_code", json!(code));
                }
            }
        }
        Protocol::Number(number) => set("protocol", json!(number)),
    }
    match rule.remote {
        Remote::Any => {}
        Remote::Prefix(prefix) => set("remote_prefix", json!(prefix.to_string())),
        Remote::Group(index) => set("remote_group", json!(remote_group(index))),
        Remote::AddressGroup(index) => set("remote_address_group", json!(address_group(index))),
    }
    value
}

fn ports_text(ports: Ports) -> String {
    if ports.first == ports.last {
        return ports.first.to_string();
    }
    format!("{}-{}", ports.first, ports.last)
}

fn address_text(address: u32) -> String {
    std::net::Ipv4Addr::from_bits(address).to_string()
}

fn mac_text(mac: u64) -> String {
    let bytes = mac.to_be_bytes();
    bytes[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn file(bed: &Bed<'_>, key: &str) -> PathBuf {
    bed.directory.join("store").join(format!("{key}.json"))
}

fn put(bed: &Bed<'_>, key: &str, value: &Value) -> Result<()> {
    let file = file(bed, key);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    fs::write(&file, value.to_string()).with_context(|| format!("writing {}", file.display()))
}
