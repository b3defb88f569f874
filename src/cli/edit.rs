//! `viaduct network` and `viaduct port`: desired state in the store, written and deleted.
//!
//! They work with or without a daemon; one that runs follows at once. What is added is judged as the
//! daemon judges it, and printed is the UUID alone, for scripts.

use std::io::Write;

use control::edit::{EditError, add_network, add_port, change_port, delete_network, delete_port};
use control::key::Key;
use control::model::{
    Attachment, Direction, LinkState, Mac, Mirror, Network, NetworkUuid, Port, PortUuid, Segment,
    SocketMode, TapBridge, VfDirect,
};

use super::arguments::{
    self, MirrorDirection, NetworkAction, NetworkAdd, NetworkArguments, NetworkType, PortAction,
    PortAdd, PortArguments, PortKind,
};
use super::failure::Failure;
use super::place::Place;
use super::{block_on, pick};

/// Does what was asked with a network.
pub fn network(arguments: &NetworkArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::find(&arguments.store)?;
    match &arguments.action {
        NetworkAction::Add(add) => {
            let mut network = Network::new(segment(add)?);
            network.name = add.name.clone();
            network.mtu = add.mtu.unwrap_or(network.mtu);
            network.learning = !add.no_learning;
            network.flooding = !add.no_flooding;
            network.follow_uplink = add.follow_uplink;
            let uuid = add.uuid.unwrap_or_else(NetworkUuid::random);
            let added = block_on(add_network(place.store(), place.site(), Some(uuid), &network))?;
            added.map_err(|error| refusal(error, &Key::Network(uuid)))?;
            Ok(writeln!(out, "{uuid}")?)
        }
        NetworkAction::Del { network } => block_on(async {
            let values = place.store().list().await?.values;
            let uuid = pick::network_of_store(&values, network)?;
            delete_network(place.store(), &uuid.to_string()).await?;
            Ok(())
        })?,
    }
}

/// Does what was asked with a port.
pub fn port(
    arguments: &PortArguments,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let place = Place::find(&arguments.store)?;
    match &arguments.action {
        PortAction::Add(add) => {
            let uuid = add.uuid.unwrap_or_else(PortUuid::random);
            let attachment = attachment(add, uuid)?;
            let mac = match &attachment {
                Attachment::VhostUser { mac, .. } | Attachment::VfDirect(VfDirect { mac, .. })
                    if add.mac.is_none() =>
                {
                    Some(*mac)
                }
                _ => None,
            };
            let added = block_on(async {
                let values = place.store().list().await?.values;
                let network = pick::network_of_store(&values, &add.network)?;
                let groups = add.groups.iter().map(|it| pick::security_group_of_store(&values, it));
                let bare = Port::new(network, attachment);
                let port = Port {
                    name: add.name.clone(),
                    admin_up: !add.down,
                    cores: add.cores.clone(),
                    port_security: (bare.port_security || add.port_security)
                        && !add.no_port_security,
                    fixed_ips: add.fixed_ips.clone(),
                    allowed_address_pairs: add.allowed_pairs.clone(),
                    security_groups: groups.collect::<Result<_, _>>()?,
                    ..bare
                };
                add_port(place.store(), place.site(), Some(uuid), &port).await
            })?;
            let key = Key::Port { host: place.site().host.clone(), port: uuid };
            added.map_err(|error| refusal(error, &key))?;
            writeln!(out, "{uuid}")?;
            if let Some(mac) = mac {
                // Not part of the result; a terminal that cannot show it is no failure.
                let _ = writeln!(err, "its address is {mac}: give it to the guest");
            }
            Ok(())
        }
        PortAction::Mirror(mirror) => block_on(async {
            let site = place.site();
            let values = place.store().list().await?.values;
            let port = |wanted: &String| pick::port_of_store(&values, site.host, wanted);
            let id = port(&mirror.port)?;
            let to = mirror.to.as_ref().map(port).transpose()?;
            let mirror = to.map(|to| Mirror {
                to,
                direction: mirror.direction.map(|direction| match direction {
                    MirrorDirection::Ingress => Direction::Ingress,
                    MirrorDirection::Egress => Direction::Egress,
                }),
                filter: mirror.filter.clone(),
            });
            change_port(place.store(), site, id, |port| port.mirror = mirror).await?;
            Ok(())
        })?,
        PortAction::Del { port } => block_on(async {
            let host = place.site().host;
            let values = place.store().list().await?.values;
            let uuid = pick::port_of_store(&values, host, port)?;
            delete_port(place.store(), host, &uuid.to_string()).await?;
            Ok(())
        })?,
    }
}

/// How the network leaves the host, from options of which not all go together.
fn segment(add: &NetworkAdd) -> Result<Segment, Failure> {
    let kind = add.kind.unwrap_or(match (&add.physnet, add.vlan) {
        (_, Some(_)) => NetworkType::Vlan,
        (Some(_), None) => NetworkType::Flat,
        (None, None) => NetworkType::Local,
    });
    let wrong = |why: &str| Err(Failure::Wrong(why.to_owned()));
    match (kind, add.physnet.clone(), add.vlan) {
        (NetworkType::Vlan, Some(physnet), Some(vlan)) => Ok(Segment::Vlan { physnet, vlan }),
        (NetworkType::Vlan, None, _) => {
            wrong("a network of type vlan needs a wire; name it by --physnet NAME")
        }
        (NetworkType::Vlan, _, None) => {
            wrong("a network of type vlan needs its number; give it by --vlan NUMBER")
        }
        (NetworkType::Flat, Some(physnet), None) => Ok(Segment::Flat { physnet }),
        (NetworkType::Flat, None, _) => {
            wrong("a network of type flat needs a wire; name it by --physnet NAME")
        }
        (NetworkType::Flat, _, Some(_)) => {
            wrong("a network of type flat is untagged; leave out --vlan, or say --type vlan")
        }
        (NetworkType::Local, None, None) => Ok(Segment::Local),
        (NetworkType::Local, _, _) => {
            wrong("a network of type local has no wire; leave out --physnet, --vlan or --type")
        }
    }
}

/// What is attached by the port, from options of which not all go together.
fn attachment(add: &PortAdd, uuid: PortUuid) -> Result<Attachment, Failure> {
    let wrong = |why: &str| Err(Failure::Wrong(why.to_owned()));
    refuse_foreign(add)?;
    match add.kind {
        PortKind::VhostUser => {
            let Some(socket) = add.socket.clone() else {
                return wrong("a guest is attached by a socket; name it by --socket PATH");
            };
            let mode = match add.mode {
                None | Some(arguments::SocketMode::Client) => SocketMode::Client,
                Some(arguments::SocketMode::Server) => SocketMode::Server,
            };
            let mac = add.mac.unwrap_or_else(|| Mac::for_port(uuid));
            Ok(Attachment::VhostUser { mac, socket, mode, queues: add.queues.unwrap_or(1) })
        }
        PortKind::Ethdev => match add.device.clone() {
            Some(device) => Ok(Attachment::Ethdev { mac: add.mac, device }),
            None => {
                wrong("an ethdev needs its device; name it, such as --device net_tap0,iface=tap0")
            }
        },
        PortKind::Tap => {
            let Some(interface) = add.interface.clone() else {
                return wrong("a tap interface needs a name; give it by --interface NAME");
            };
            let bridge = add.bridge.clone().zip(add.member.clone());
            let bridge = bridge.map(|(name, member)| TapBridge { name, member });
            Ok(Attachment::Tap { mac: add.mac, interface, bridge })
        }
        PortKind::VfDirect => {
            let Some(vf) = add.vf.vf.clone() else {
                return wrong("a VF is given to a guest by its name, such as --vf ens1f0/3");
            };
            let link_state = match add.vf.link_state {
                None | Some(arguments::LinkState::Auto) => LinkState::Auto,
                Some(arguments::LinkState::Enable) => LinkState::Enable,
                Some(arguments::LinkState::Disable) => LinkState::Disable,
            };
            Ok(Attachment::VfDirect(VfDirect {
                mac: add.mac.unwrap_or_else(|| Mac::for_port(uuid)),
                vf,
                qos: add.vf.qos.unwrap_or(0),
                spoofchk: !add.vf.no_spoofchk,
                trust: add.vf.trust,
                link_state,
                max_rate_mbps: add.vf.max_rate,
            }))
        }
    }
}

/// Refuses the options of other kinds of ports than what is added.
fn refuse_foreign(add: &PortAdd) -> Result<(), Failure> {
    let options = [
        ("--socket", PortKind::VhostUser, add.socket.is_some()),
        ("--mode", PortKind::VhostUser, add.mode.is_some()),
        ("--queues", PortKind::VhostUser, add.queues.is_some()),
        ("--device", PortKind::Ethdev, add.device.is_some()),
        ("--interface", PortKind::Tap, add.interface.is_some()),
        ("--bridge", PortKind::Tap, add.bridge.is_some()),
        ("--vf", PortKind::VfDirect, add.vf.vf.is_some()),
        ("--qos", PortKind::VfDirect, add.vf.qos.is_some()),
        ("--no-spoofchk", PortKind::VfDirect, add.vf.no_spoofchk),
        ("--trust", PortKind::VfDirect, add.vf.trust),
        ("--link-state", PortKind::VfDirect, add.vf.link_state.is_some()),
        ("--max-rate", PortKind::VfDirect, add.vf.max_rate.is_some()),
    ];
    match options.into_iter().find(|(_, kind, given)| *given && *kind != add.kind) {
        Some((option, kind, _)) => {
            let kind = match kind {
                PortKind::VhostUser => "vhost-user",
                PortKind::Ethdev => "ethdev",
                PortKind::Tap => "tap",
                PortKind::VfDirect => "vf-direct",
            };
            Err(Failure::Wrong(format!("{option} belongs to --kind {kind}; leave it out")))
        }
        None => Ok(()),
    }
}

/// Why an object was not added. Its key, which often nobody chose, says nothing and is left out.
pub fn refusal(error: EditError, new: &Key) -> Failure {
    let EditError::Refused(problems) = error else { return error.into() };
    let new = format!("{new}: ");
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            let line = problem.to_string();
            line.strip_prefix(&new).map(str::to_owned).unwrap_or(line)
        })
        .collect();
    Failure::Failed(lines.join("\n"))
}
