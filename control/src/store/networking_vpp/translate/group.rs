//! A security group and its members as the driver writes them: `global/secgroups/<uuid>` and
//! `global/remote_group/<group>/<port>`.
//!
//! All rules are permits, so their order means nothing; as the driver changes it from one write to the
//! next, they are sorted here, and an order alone is no change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Verdict, read as read_fields, summed_up, value};
use crate::config::NetworkingVpp;
use crate::fields::{Fields, shown};
use crate::model::{Protocol, SecurityGroupUuid};
use crate::problem::{Fault, Misfit};

/// A security group, and the groups that its rules name.
#[derive(Debug)]
pub struct Group {
    /// The group, in our form.
    pub value: Arc<[u8]>,
    /// Whose members are meant by its rules.
    pub remote: BTreeSet<SecurityGroupUuid>,
}

/// Reads a group.
pub fn read(text: &str, settings: &NetworkingVpp) -> Verdict<Group> {
    read_fields(text, "a security group", |fields| {
        let mut rules = Vec::new();
        for (list, direction) in [("ingress_rules", "ingress"), ("egress_rules", "egress")] {
            fields.require(list, "write a list, if need be an empty one");
            rules.extend(fields.objects(list, "a rule", |rule| read_rule(rule, direction))?);
        }
        let remote = rules.iter().filter_map(|(_, remote)| *remote).collect();
        let mut rules: Vec<Value> = rules.into_iter().map(|(rule, _)| rule).collect();
        rules.sort_by_cached_key(Value::to_string);
        rules.dedup();
        let group = json!({ "return_traffic": settings.return_traffic, "rules": rules });
        Some(Verdict::Good(Arc::new(Group { value: value(&group), remote })))
    })
}

/// Reads a member: the list of its addresses.
pub fn read_member(text: &str) -> Verdict<Arc<[u8]>> {
    let list: Vec<Value> = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(error) => {
            let what = format!("is not a list in JSON: {error}");
            return Verdict::Bad(Misfit::new(what, "write a list of addresses"));
        }
    };
    let mut addresses = BTreeSet::new();
    let mut faults = Vec::new();
    for (index, item) in list.iter().enumerate() {
        match item.as_str().and_then(prefix) {
            Some(prefix) => drop(addresses.insert(prefix)),
            None => faults.push(Fault::new(
                format!("[{index}]"),
                format!("{} is not an IP address", shown(item)),
                "write an address such as 10.0.0.5",
            )),
        }
    }
    if !faults.is_empty() {
        return Verdict::Bad(summed_up(faults));
    }
    let addresses: Vec<String> = addresses.iter().map(IpNet::to_string).collect();
    Verdict::Good(Arc::new(value(&json!({ "addresses": addresses }))))
}

/// An address or prefix, its host bits cleared: Neutron takes `198.51.100.7/24` for `198.51.100.0/24`.
pub fn prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse::<IpNet>().ok().map(|net| net.trunc()),
    }
}

fn read_rule(mut rule: Fields<'_>, direction: &str) -> Option<(Value, Option<SecurityGroupUuid>)> {
    let six = read_version(&mut rule)?;
    // What is left out would open more than was meant, so nothing may be.
    for name in ["protocol", "port_min", "port_max"] {
        rule.require(name, "write a number");
    }
    let protocol: u8 = rule.number("protocol", 0..=u8::MAX.into())?;
    let mut ours = json!({
        "direction": direction,
        "ethertype": if six { "ipv6" } else { "ipv4" },
    });
    let (least, most) = (read_bound(&mut rule, "port_min"), read_bound(&mut rule, "port_max"));
    let (least, most) = (least?, most?);
    if protocol != 0 {
        ours["protocol"] = json!(protocol);
        narrow(&mut rule, &mut ours, Protocol::new(protocol), least, most)?;
    }
    let group = read_remote(&mut rule, &mut ours, six)?;
    Some((ours, group))
}

/// `is_ipv6`: 0 or 1.
fn read_version(rule: &mut Fields<'_>) -> Option<bool> {
    rule.require("is_ipv6", "write 0 or 1");
    match rule.value("is_ipv6")? {
        Value::Bool(six) => Some(six),
        Value::Number(number) if number.as_u64() == Some(0) => Some(false),
        Value::Number(number) if number.as_u64() == Some(1) => Some(true),
        other => {
            rule.fault("is_ipv6", format!("{} is not known", shown(&other)), "write 0 or 1");
            None
        }
    }
}

/// `port_min` or `port_max`: a port, or a type or code of ICMP; `None` inside is -1, which means all.
fn read_bound(rule: &mut Fields<'_>, name: &'static str) -> Option<Option<u16>> {
    match rule.value(name)? {
        value if value.as_i64() == Some(-1) => Some(None),
        value => rule.number_from::<u16>(name, &value, 0..=u16::MAX.into()).map(Some),
    }
}

/// Narrows our rule to what the bounds mean for this protocol, if they mean anything.
fn narrow(
    rule: &mut Fields<'_>,
    ours: &mut Value,
    protocol: Protocol,
    least: Option<u16>,
    most: Option<u16>,
) -> Option<()> {
    if protocol.is_icmp() {
        for (field, name, bound) in
            [("port_min", "icmp_type", least), ("port_max", "icmp_code", most)]
        {
            let Some(bound) = bound else { break };
            if bound > u8::MAX.into() {
                let remedy = "write a whole number from -1 to 255";
                rule.fault(field, format!("{bound} is too large"), remedy);
                return None;
            }
            ours[name] = json!(bound);
        }
        return Some(());
    }
    // Of protocols that the driver does not know to have ports, 0 and 0 mean that none were given.
    let always = [Protocol::TCP, Protocol::UDP, Protocol::UDPLITE].contains(&protocol);
    let (least, most) = (least.unwrap_or(0), most.unwrap_or(u16::MAX));
    if !protocol.has_ports() || (least, most) == (0, u16::MAX) || (!always && most == 0) {
        return Some(());
    }
    if least > most {
        let what = format!("{least} is more than port_max: {most}");
        rule.fault("port_min", what, "lower this one or raise that one");
        return None;
    }
    ours["ports"] =
        json!(if least == most { least.to_string() } else { format!("{least}-{most}") });
    Some(())
}

/// Who is at the other end: a prefix, or else a group. `Some(None)` is a prefix.
fn read_remote(
    rule: &mut Fields<'_>,
    ours: &mut Value,
    six: bool,
) -> Option<Option<SecurityGroupUuid>> {
    if rule.has("remote_ip_addr") {
        rule.require("ip_prefix_len", "write the length of the prefix");
        let length: u8 = rule.number("ip_prefix_len", 0..=if six { 128 } else { 32 })?;
        let address = rule.value("remote_ip_addr")?;
        let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let Some(parsed) = parsed.filter(|address| address.is_ipv6() == six) else {
            let version = if six { "IPv6" } else { "IPv4" };
            let what = format!("{} is not an address of {version}", shown(&address));
            rule.fault("remote_ip_addr", what, "write one, or correct is_ipv6");
            return None;
        };
        let net = IpNet::new(parsed, length).ok()?.trunc();
        // Anybody of that version of IP, which the rule says already.
        if length > 0 {
            ours["remote_prefix"] = json!(net.to_string());
        }
        return Some(None);
    }
    rule.require("remote_group_id", "name a group, or an address in remote_ip_addr");
    let group: SecurityGroupUuid = rule.text("remote_group_id")?;
    ours["remote_group"] = json!(group);
    Some(Some(group))
}
