//! What an object needs that only one object can have, or that this host may not have at all.
//!
//! A network claims its VLAN on its physnet, a port its socket, its device, its VF, its interfaces and its
//! address on its network. The order in which claims are made is `desired.rs`'s; here is only what is claimed and
//! what is said to who comes second.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::path::PathBuf;

use super::desired::{RawValue, Site};
use super::{
    Attachment, InterfaceName, Mac, Network, NetworkUuid, PhysnetName, Port, PortUuid, Segment,
    VfDirect, VfName, Vid,
};
use crate::cores;
use crate::key::Key;
use crate::model::socket_path_misfit;
use crate::problem::{Fault, quoted};

/// What has been claimed by the objects of one kind.
pub(super) trait Claims {
    type Id;
    type Object;

    /// Why the object cannot be in force beside those that claimed before it.
    fn faults(&self, id: Self::Id, object: &Self::Object) -> Vec<Fault>;

    /// Notes what an object without faults needs.
    fn claim(&mut self, id: Self::Id, object: &Self::Object);
}

/// The claims of objects that need nothing for themselves alone: any number of them go together.
pub(super) struct NoClaims<I, T>(PhantomData<(I, T)>);

impl<I, T> Default for NoClaims<I, T> {
    fn default() -> Self {
        NoClaims(PhantomData)
    }
}

impl<I, T> Claims for NoClaims<I, T> {
    type Id = I;
    type Object = T;

    fn faults(&self, _: I, _: &T) -> Vec<Fault> {
        Vec::new()
    }

    fn claim(&mut self, _: I, _: &T) {}
}

/// The VLANs, and the physnets as a whole, that networks have claimed.
pub(super) struct NetworkClaims<'a> {
    site: Site<'a>,
    /// Networks that ports of this host name.
    used: &'a BTreeSet<NetworkUuid>,
    segments: BTreeMap<(PhysnetName, Option<Vid>), NetworkUuid>,
}

impl<'a> NetworkClaims<'a> {
    pub fn new(site: Site<'a>, used: &'a BTreeSet<NetworkUuid>) -> Self {
        NetworkClaims { site, used, segments: BTreeMap::new() }
    }

    /// What the wires of this host have against the network.
    fn faults_of_site(&self, name: &PhysnetName, network: &Network) -> Vec<Fault> {
        let Some(physnets) = self.site.physnets else { return Vec::new() };
        let Some(physnet) = physnets.get(name) else {
            let known: Vec<_> = physnets.keys().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return vec![Fault::new(
                "physnet",
                format!("physnet `{name}` is not configured on this host, which has {known}"),
                format!(
                    "correct the name, or add [physnets.{name}] to the configuration and reload it"
                ),
            )];
        };
        let mut faults = Vec::new();
        if let Some(vlan) = network.segment.vlan()
            && !physnet.vlans.contains(vlan)
        {
            faults.push(Fault::new(
                "vlan",
                format!("VLAN {vlan} is not among those of physnet `{name}`: {}", physnet.vlans),
                format!(
                    "choose one of these, or extend physnets.{name}.vlans in the configuration"
                ),
            ));
        }
        if network.mtu > physnet.mtu {
            faults.push(Fault::new(
                "mtu",
                format!("{} is more than physnet `{name}` carries: {}", network.mtu, physnet.mtu),
                format!("lower it, or raise physnets.{name}.mtu in the configuration"),
            ));
        }
        faults
    }
}

impl Claims for NetworkClaims<'_> {
    type Id = NetworkUuid;
    type Object = Network;

    fn faults(&self, id: NetworkUuid, network: &Network) -> Vec<Fault> {
        let Some(name) = network.segment.physnet() else { return Vec::new() };
        let mut faults = self.faults_of_site(name, network);
        if !self.used.contains(&id) {
            // Networks are the same for all hosts. One that leads over another host's wires is no
            // error of this one until a port here is on it.
            faults = faults.into_iter().map(Fault::warning).collect();
        }
        let vlan = network.segment.vlan();
        if let Some(&holder) = self.segments.get(&(name.clone(), vlan)) {
            let holder = Key::Network(holder);
            faults.push(match vlan {
                Some(vlan) => Fault::new(
                    "vlan",
                    format!(
                        "VLAN {vlan} of physnet `{name}` belongs to {holder}, which stays in force"
                    ),
                    "choose another VLAN, or delete one of the two networks",
                ),
                None => Fault::new(
                    "physnet",
                    format!("physnet `{name}` has a flat network, {holder}, which stays in force"),
                    "choose another physnet, or delete one of the two networks",
                ),
            });
        }
        faults
    }

    fn claim(&mut self, id: NetworkUuid, network: &Network) {
        match &network.segment {
            Segment::Vlan { physnet, vlan } => {
                self.segments.insert((physnet.clone(), Some(*vlan)), id);
            }
            Segment::Flat { physnet } => {
                self.segments.insert((physnet.clone(), None), id);
            }
            Segment::Local => {}
        }
    }
}

/// The sockets, devices, VFs, interfaces and addresses that ports have claimed.
pub(super) struct PortClaims<'a> {
    site: Site<'a>,
    /// The networks in force.
    networks: &'a BTreeMap<NetworkUuid, Network>,
    /// All that the store holds, to tell a network that is refused from one that is not there.
    raw: &'a BTreeMap<Key, RawValue>,
    sockets: BTreeMap<PathBuf, PortUuid>,
    devices: BTreeMap<String, PortUuid>,
    vfs: BTreeMap<VfName, PortUuid>,
    interfaces: BTreeMap<InterfaceName, PortUuid>,
    addresses: BTreeMap<(NetworkUuid, Mac), PortUuid>,
}

impl<'a> PortClaims<'a> {
    pub fn new(
        site: Site<'a>,
        networks: &'a BTreeMap<NetworkUuid, Network>,
        raw: &'a BTreeMap<Key, RawValue>,
    ) -> Self {
        PortClaims {
            site,
            networks,
            raw,
            sockets: BTreeMap::new(),
            devices: BTreeMap::new(),
            vfs: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    fn key(&self, port: PortUuid) -> Key {
        Key::Port { host: self.site.host.clone(), port }
    }

    fn network_fault(&self, network: NetworkUuid) -> Option<Fault> {
        if self.networks.contains_key(&network) {
            return None;
        }
        let key = Key::Network(network);
        Some(if self.raw.contains_key(&key) {
            let what = format!("{key} is not in force");
            Fault::new("network", what, "correct what is reported for that network")
        } else {
            let what = format!("{key} is not there");
            Fault::new("network", what, "correct the UUID, or add that network")
        })
    }

    fn socket_faults(&self, path: PathBuf, queues: u16) -> Vec<Fault> {
        let mut faults = Vec::new();
        let most = self.site.vhost.queues_max;
        if queues > most {
            faults.push(Fault::new(
                "queues",
                format!("{queues} is more than this host allows: {most}"),
                "lower it, or raise vhost.queues_max in the configuration",
            ));
        }
        if let Some(misfit) = socket_path_misfit(&path) {
            faults.push(Fault::misfit("socket", misfit));
        }
        if let Some(&holder) = self.sockets.get(&path) {
            let (path, holder) = (quoted(&path.display().to_string()), self.key(holder));
            faults.push(Fault::new(
                "socket",
                format!("{path} is the socket of {holder}, which stays in force"),
                "choose another socket, or delete one of the two ports",
            ));
        }
        faults
    }

    fn device_fault(&self, device: &str) -> Option<Fault> {
        let mut physnets = self.site.physnets.into_iter().flatten();
        if let Some((name, _)) =
            physnets.find(|(_, physnet)| physnet.devices().iter().any(|its| its.device() == device))
        {
            return Some(Fault::new(
                "device",
                format!("`{device}` is the device of physnet `{name}`"),
                "choose another device, or put the port's network on that physnet",
            ));
        }
        let holder = self.key(*self.devices.get(device)?);
        Some(Fault::new(
            "device",
            format!("`{device}` is the device of {holder}, which stays in force"),
            "choose another device, or delete one of the two ports",
        ))
    }
}

impl PortClaims<'_> {
    /// What stands against giving a VF away. Whether two names are of one VF, only the kernel knows.
    fn vf_faults(&self, network: NetworkUuid, vf: &VfDirect) -> Vec<Fault> {
        let mut faults = Vec::new();
        match self.networks.get(&network).map(|network| &network.segment) {
            Some(Segment::Local) => faults.push(Fault::new(
                "network",
                "a VF reaches the wire and nothing else of this host, and the network has no physnet",
                "choose a network of type `vlan` or `flat`, or make the port `vhost-user`",
            )),
            Some(Segment::Flat { .. }) if vf.qos != 0 => faults.push(Fault::new(
                "qos",
                "frames of a network without a VLAN have no priority in them",
                "remove the field, or choose a network of type `vlan`",
            )),
            _ => {}
        }
        if let VfName::Pci(address) = &vf.vf
            && let Some(fault) = self.device_fault(address.as_str())
        {
            faults.push(Fault { field: "vf".to_owned(), ..fault });
        }
        if let Some(&holder) = self.vfs.get(&vf.vf) {
            faults.push(Fault::new(
                "vf",
                format!("`{}` is the VF of {}, which stays in force", vf.vf, self.key(holder)),
                "choose another VF, or delete one of the two ports",
            ));
        }
        faults
    }

    fn interface_faults(&self, attachment: &Attachment) -> impl Iterator<Item = Fault> {
        attachment.interfaces().filter_map(|(field, interface)| {
            let holder = self.key(*self.interfaces.get(interface)?);
            Some(Fault::new(
                field,
                format!("`{interface}` is an interface of {holder}, which stays in force"),
                "choose another interface, or delete one of the two ports",
            ))
        })
    }
}

impl Claims for PortClaims<'_> {
    type Id = PortUuid;
    type Object = Port;

    fn faults(&self, id: PortUuid, port: &Port) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.network_fault(port.network).into_iter().collect();
        match &port.attachment {
            Attachment::VhostUser { socket, queues, .. } => {
                let path = socket.path(&self.site.vhost.socket_directory);
                faults.extend(self.socket_faults(path, *queues));
            }
            Attachment::Ethdev { device, .. } => faults.extend(self.device_fault(&device.device())),
            Attachment::Tap { .. } => {}
            Attachment::VfDirect(vf) => faults.extend(self.vf_faults(port.network, vf)),
        }
        faults.extend(self.interface_faults(&port.attachment));
        for (index, core) in cores::strangers(&port.cores, self.site.cores) {
            let (what, remedy) = cores::stranger_fault(core, self.site.cores);
            faults.push(Fault::new(format!("cores[{index}]"), what, remedy));
        }
        if port.mirror.as_ref().is_some_and(|mirror| mirror.to == id) {
            let what = "the mirror leads to the port itself";
            faults.push(Fault::new("mirror.to", what, "name another port, or remove the mirror"));
        }
        if let Some(mac) = port.mac()
            && let Some(&holder) = self.addresses.get(&(port.network, mac))
        {
            faults.push(Fault::new(
                "mac",
                format!(
                    "{mac} is on this network already, as the address of {}, which stays in force",
                    self.key(holder)
                ),
                "choose another address, or another network, or delete one of the two ports",
            ));
        }
        faults
    }

    fn claim(&mut self, id: PortUuid, port: &Port) {
        if let Some(path) = port.socket_path(&self.site.vhost.socket_directory) {
            self.sockets.insert(path, id);
        }
        if let Attachment::Ethdev { device, .. } = &port.attachment {
            self.devices.insert(device.device(), id);
        }
        if let Attachment::VfDirect(vf) = &port.attachment {
            self.vfs.insert(vf.vf.clone(), id);
        }
        for (_, interface) in port.attachment.interfaces() {
            self.interfaces.insert(interface.clone(), id);
        }
        if let Some(mac) = port.mac() {
            self.addresses.insert((port.network, mac), id);
        }
    }
}
