//! A port as the driver writes it (`nodes/<host>/ports/<uuid>`), and the network that it is on.
//!
//! The driver writes no networks. One is made of what the port says about its segment, under a UUID
//! that follows from that, so that all ports of a segment are on one network and every daemon gives it
//! the same UUID.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Verdict, read as read_fields, value};
use crate::config::NetworkingVpp;
use crate::fields::{Fields, shown};
use crate::model::{
    Mac, Network, NetworkUuid, PhysnetName, PortUuid, SecurityGroupUuid, StationAddress, Vid,
};
use crate::problem::{Misfit, quoted};

/// The name space of networks' UUIDs (RFC 9562 §5.5). Chosen at random, once and for all.
const SEGMENTS: Uuid = Uuid::from_u128(0xa3d5_58a1_4f5e_4c0e_9c44_0b0f_7be2_6d13);

/// A port, its network, and what both name.
#[derive(Debug)]
pub struct Port {
    /// The port, in our form.
    pub value: Arc<[u8]>,
    /// The network that it is on …
    pub network: NetworkUuid,
    /// … in our form.
    pub network_value: Arc<[u8]>,
    /// The groups that are in force at it.
    pub groups: Vec<SecurityGroupUuid>,
    /// Where it is, for reports.
    pub placement: Placement,
}

/// Where a port is, in the driver's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// `vhostuser` or `tap`.
    pub binding: &'static str,
    /// `vlan` or `flat`.
    pub network_type: &'static str,
    /// The physnet.
    pub physnet: PhysnetName,
    /// The VLAN; none of a flat network.
    pub vlan: Option<Vid>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Binding {
    VhostUser,
    Tap,
}

/// Reads a port.
pub fn read(text: &str, port: PortUuid, settings: &NetworkingVpp) -> Verdict<Port> {
    read_fields(text, "a port", |fields| read_port(fields, port, settings))
}

fn read_port(
    fields: &mut Fields<'_>,
    port: PortUuid,
    settings: &NetworkingVpp,
) -> Option<Verdict<Port>> {
    for name in ["binding_type", "network_type"] {
        fields.require(name, "write what the driver writes");
    }
    let network_type = match fields.value("network_type")? {
        Value::String(text) if text == "vlan" => "vlan",
        Value::String(text) if text == "flat" => "flat",
        Value::String(text) => {
            return Some(Verdict::Unsupported(Misfit::new(
                format!("the network type {} is not supported", quoted(&text)),
                "use networks of type vlan or flat on this host",
            )));
        }
        other => {
            let what = format!("{} is not text", shown(&other));
            fields.fault("network_type", what, "write `vlan` or `flat`");
            return None;
        }
    };
    let bindings =
        [("vhostuser", Binding::VhostUser), ("tap", Binding::Tap), ("plugtap", Binding::Tap)];
    let binding = fields.choice("binding_type", &bindings);
    fields.require("physnet", "write the name of a physnet");
    let physnet: Option<PhysnetName> = fields.text("physnet");
    let vlan = if network_type == "vlan" {
        fields.require("segmentation_id", "write the VLAN's number, 1 to 4094");
        let number = fields.number::<u16>("segmentation_id", Vid::MIN.into()..=Vid::MAX.into());
        Some(number.and_then(|number| Vid::try_from(number).ok()))
    } else {
        None
    };
    if binding == Some(Binding::VhostUser) {
        fields.require("mac_address", "write the port's MAC address");
    }
    let mac: Option<Mac> = fields.text("mac_address");
    let secured = fields.flag("port_security_enabled").unwrap_or(true) && settings.security_groups;
    let fixed_ips = fields.objects("fixed_ips", "an address", |mut address| {
        address.text::<StationAddress>("ip_address")
    });
    let pairs = fields.objects("allowed_address_pairs", "a pair", |pair| read_pair(pair, mac));
    let groups =
        fields.list("security_groups", |fields, name, value| fields.text_from(name, value));

    let (binding, physnet) = (binding?, physnet?);
    let placement = Placement {
        binding: if binding == Binding::Tap { "tap" } else { "vhostuser" },
        network_type,
        physnet,
        vlan: match vlan {
            Some(vlan) => Some(vlan?),
            None => None,
        },
    };
    let (network, network_value) = network_of(&placement, settings);
    let mut groups: Vec<SecurityGroupUuid> = groups.unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    if !secured || binding == Binding::Tap {
        groups.clear();
    }
    let mut object = match binding {
        Binding::VhostUser => json!({
            "kind": "vhost-user",
            "mac": mac?,
            // The whole UUID under the socket directory: the driver's `vhost_user_dir`, and QEMU is
            // the server.
            "socket": port.to_string(),
            "mode": "client",
            "queues": settings.queues,
            "port_security": secured,
            "fixed_ips": once(fixed_ips),
            "allowed_address_pairs": once(pairs),
            "security_groups": groups,
        }),
        Binding::Tap => {
            // Names as the DHCP and L3 agents expect them: eleven characters of the UUID.
            let short: String = port.to_string().chars().take(11).collect();
            json!({
                "kind": "tap",
                "interface": format!("vpp{short}"),
                "bridge": { "name": format!("br-{short}"), "member": format!("tap{short}") },
                "port_security": false,
            })
        }
    };
    object["network"] = json!(network);
    let value = value(&object);
    Some(Verdict::Good(Arc::new(Port { value, network, network_value, groups, placement })))
}

/// An allowed address pair. Host bits beyond the length of a prefix mean nothing, and a MAC address
/// that is not there, or the port's, is the port's.
fn read_pair(mut pair: Fields<'_>, port: Option<Mac>) -> Option<Value> {
    pair.require("ip_address", "write an address or prefix");
    let ip = match pair.value("ip_address") {
        Some(Value::String(text)) => match super::group::prefix(&text) {
            Some(net) => Some(net),
            None => {
                let what = format!("{} is not an IP address or prefix", quoted(&text));
                pair.fault("ip_address", what, "write an address such as 10.0.0.5");
                None
            }
        },
        Some(other) => {
            let what = format!("{} is not text", shown(&other));
            pair.fault("ip_address", what, "write an address such as 10.0.0.5");
            None
        }
        None => None,
    };
    let mac: Option<Mac> = pair.text("mac_address");
    let mut object = json!({ "ip": ip?.to_string() });
    if let Some(mac) = mac.filter(|mac| Some(*mac) != port) {
        object["mac"] = json!(mac);
    }
    Some(object)
}

/// The network of a segment. Its MTU is not the driver's, which says 1500 of each.
fn network_of(placement: &Placement, settings: &NetworkingVpp) -> (NetworkUuid, Arc<[u8]>) {
    let Placement { network_type, physnet, vlan, .. } = placement;
    let carried = settings.physnet_mtus.get(physnet).copied();
    let mtu = match (settings.mtu, carried) {
        (Some(mtu), Some(carried)) => mtu.min(carried),
        (mtu, carried) => mtu.or(carried).unwrap_or(Network::MTU),
    };
    let segment = match vlan {
        Some(vlan) => format!("{physnet} {network_type} {vlan}"),
        None => format!("{physnet} {network_type}"),
    };
    let network = NetworkUuid::from(Uuid::new_v5(&SEGMENTS, segment.as_bytes()));
    let mut object = json!({
        "name": segment, "type": network_type, "physnet": physnet, "mtu": mtu,
    });
    if let Some(vlan) = vlan {
        object["vlan"] = json!(u16::from(*vlan));
    }
    (network, value(&object))
}

/// The items, each once.
fn once<T: PartialEq>(items: Option<Vec<T>>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items.unwrap_or_default() {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}
