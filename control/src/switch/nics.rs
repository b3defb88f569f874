//! What is wanted of this host's NICs beside their devices: VFs that are given to guests, and filters
//! for what is behind the switch, see [`nic`](crate::nic).

use std::collections::{BTreeMap, BTreeSet};

use super::Switch;
use super::ports::LivePort;
use super::uplinks::Uplink;
use crate::config::FiltersFull;
use crate::model::{
    Attachment, Devargs, FilterState, InterfaceName, LinkState, Mac, PhysnetName, Port, PortUuid,
    Segment, Status, VfActual, VfDirect, VfName, VfState,
};
use crate::nic::{FilterOrder, Overflow, OwnVfs, VfKeeper, VfOrder, VfSettings, VfStatus, Wanted};
use crate::wire::{Macs, Wire};

impl Switch {
    /// Has the NICs be set as desired state, which is in force, wants it.
    pub(super) fn want_of_nics(&mut self) {
        let wanted = self.wanted_of_nics();
        if self.nics.is_none() && wanted != Wanted::default() {
            match VfKeeper::start() {
                Ok(keeper) => self.nics = Some(keeper),
                Err(reason) => tracing::error!("{reason}"),
            }
        }
        if let Some(keeper) = &self.nics {
            keeper.want(wanted);
        }
    }

    fn wanted_of_nics(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (name, physnet) in &self.config.physnets {
            for vf in physnet.devices().iter().filter_map(vf_name) {
                wanted.taken.insert(vf, format!("physnet `{name}`"));
            }
            let macs = self.macs_behind(name);
            if macs.is_empty() {
                continue;
            }
            let overflow = match physnet.filters_full {
                FiltersFull::Refuse => Overflow::Refuse,
                FiltersFull::Promiscuous => Overflow::Promiscuous,
            };
            // Each member of a bond, since any of them may be the way to them at any time.
            for pf in physnet.devices().iter().filter_map(Devargs::kernel_interface) {
                wanted.filters.insert(pf, FilterOrder { macs: macs.clone(), overflow });
            }
        }
        for (uuid, port) in &self.desired.ports {
            match &port.attachment {
                Attachment::Ethdev { device, .. } => {
                    if let Some(vf) = vf_name(device) {
                        wanted.taken.insert(vf, format!("port {uuid}"));
                    }
                }
                Attachment::VfDirect(vf) => {
                    let order = VfOrder { vf: vf.vf.clone(), settings: self.settings(port, vf) };
                    wanted.vfs.insert(*uuid, order);
                }
                _ => {}
            }
        }
        wanted
    }

    /// How a VF should be set.
    fn settings(&self, port: &Port, vf: &VfDirect) -> VfSettings {
        let segment = self.desired.networks.get(&port.network).map(|network| &network.segment);
        let vlan = segment.and_then(Segment::vlan).map(|vlan| vlan.number());
        let wanted = VfSettings::wanted(vf, vlan);
        match port.admin_up {
            true => wanted,
            false => VfSettings { link_state: LinkState::Disable, ..wanted },
        }
    }

    /// The addresses behind the switch that somebody on this wire may send to: those of ports, and
    /// those that they may send from besides.
    fn macs_behind(&self, physnet: &PhysnetName) -> BTreeSet<Mac> {
        let on_it =
            self.desired.ports.values().filter(|port| self.physnet_of(port) == Some(physnet));
        on_it.filter(|port| port.is_switched()).flat_map(macs).collect()
    }

    fn physnet_of(&self, port: &Port) -> Option<&PhysnetName> {
        self.desired.networks.get(&port.network)?.segment.physnet()
    }

    /// Has virtual functions that are uplinks receive frames to what is behind them, and takes note of what
    /// their cards check.
    pub(super) fn tend_vfs(&self) {
        let own = self.own_vfs();
        for (name, uplink) in &self.uplinks {
            let vf = |wire: &&Wire| wire.macs().is_some();
            let wires = uplink.members().iter().filter_map(|member| member.wire().ok()).filter(vf);
            let wires: Vec<&Wire> = wires.collect();
            if wires.is_empty() {
                continue;
            }
            let macs = self.macs_behind(name);
            for wire in wires {
                let set = wire.address().and_then(|address| own.vfs.get(&address));
                // One whose card was not asked yet is left as it is.
                if let Some((_, _, settings)) = set {
                    wire.hear_macs(&macs, settings.trust);
                }
            }
        }
        let uplinks = self.uplinks.values().flat_map(Uplink::members);
        let ports = self.ports.values().filter_map(LivePort::wire);
        for wire in uplinks.filter_map(|member| member.wire().ok()).chain(ports) {
            let set = wire.address().and_then(|address| own.vfs.get(&address));
            let checked = set.filter(|(_, _, settings)| settings.spoofchk);
            wire.checked(checked.map(|(pf, number, _)| format!("{pf} vf {number}")));
        }
    }

    /// The VFs that the switch has for itself, as their PFs' drivers have them set.
    pub(super) fn own_vfs(&self) -> OwnVfs {
        self.nics.as_ref().map(VfKeeper::own).unwrap_or_default()
    }

    /// Shuts ports for which a NIC has no room, where that is what the configuration wants, and opens
    /// them again when it has.
    pub(super) async fn shut_unreachable(&mut self) {
        let mut refused = BTreeMap::new();
        for (name, physnet) in &self.config.physnets {
            if physnet.filters_full == FiltersFull::Refuse
                && let Some(state) = self.filter_state(name)
            {
                refused.insert(name, state.refused);
            }
        }
        let shut = self.desired.ports.iter().filter(|(_, port)| {
            let refused = self.physnet_of(port).and_then(|physnet| refused.get(physnet));
            refused.is_some_and(|refused| macs(port).any(|mac| refused.contains(&mac)))
        });
        let shut: BTreeSet<PortUuid> =
            shut.filter(|(_, port)| port.is_switched()).map(|(uuid, _)| *uuid).collect();
        if shut != self.attached.shut {
            self.attached.shut = shut;
            self.publish().await;
        }
    }

    /// Why a port is shut.
    pub(super) fn unreachable(&self, port: &Port) -> String {
        let physnet = self.physnet_of(port);
        let trouble = physnet.and_then(|name| self.filter_state(name)?.trouble);
        let trouble = trouble.unwrap_or_else(|| "its NIC has no room for its address".to_owned());
        let name = physnet.map(ToString::to_string).unwrap_or_default();
        format!("{trouble}, or set physnets.{name}.filters_full = \"promiscuous\"")
    }

    /// The unicast filters for a physnet, where it has any or should have: of a bond, those of the
    /// member that lacks most.
    pub(super) fn filter_state(&self, physnet: &PhysnetName) -> Option<FilterState> {
        let devices = self.config.physnets.get(physnet)?.devices();
        let interfaces = devices.iter().filter_map(Devargs::kernel_interface);
        let own = self.own_vfs();
        let wires = self.uplinks.get(physnet).into_iter().flat_map(Uplink::members);
        let of_vfs = wires.filter_map(|member| vf_filters(member.wire().ok()?, &own));
        let states = interfaces.filter_map(|interface| self.filters_of(interface)).chain(of_vfs);
        states.max_by_key(|state| (state.refused.len(), state.trouble.is_some()))
    }

    fn filters_of(&self, interface: InterfaceName) -> Option<FilterState> {
        let seen = self.nics.as_ref()?.filters(&interface)?;
        let bare = seen.present.is_empty() && seen.refused.is_empty() && seen.trouble.is_none();
        (!bare).then(|| FilterState {
            interface,
            present: seen.present.len() as u32,
            refused: seen.refused.into_iter().collect(),
            total: seen.total as u32,
            promiscuous: seen.promiscuous,
            trouble: seen.trouble,
        })
    }

    /// What is reported of a VF that is given to a guest.
    pub(super) fn vf_state(&self, uuid: PortUuid, vf: &VfDirect) -> VfState {
        let seen = self.vf_seen(uuid).unwrap_or_default();
        let (pf, number) = seen.place.unzip();
        VfState {
            name: vf.vf.clone(),
            pf,
            number,
            address: seen.address.map(|address| address.to_string()),
            actual: seen.actual.map(VfActual::from),
            restored: seen.restored,
            renewed: seen.renewed,
        }
    }

    /// A VF is ready when all its settings are in force. Whether a guest has it, only its VMM knows.
    pub(super) fn vf_status(
        &self,
        uuid: PortUuid,
        port: &Port,
        vf: &VfDirect,
    ) -> (Status, Option<String>) {
        let Some(seen) = self.vf_seen(uuid) else {
            return (Status::Waiting, Some("its PF has not been asked yet".to_owned()));
        };
        if let Some(trouble) = seen.trouble {
            return (Status::Failed, Some(trouble));
        }
        if !port.admin_up {
            return (Status::Down, Some("admin_up is false".to_owned()));
        }
        match (vf.link_state, seen.place) {
            (LinkState::Disable, _) => (Status::Down, Some("link_state is `disable`".to_owned())),
            (LinkState::Auto, Some((pf, _))) if !seen.carrier => {
                (Status::Down, Some(format!("the link of its PF `{pf}` is down")))
            }
            _ => (Status::Ready, seen.doubt),
        }
    }

    fn vf_seen(&self, uuid: PortUuid) -> Option<VfStatus> {
        self.nics.as_ref()?.vf(uuid)
    }
}

/// What became of the filters of a VF that is an uplink.
fn vf_filters(wire: &Wire, own: &OwnVfs) -> Option<FilterState> {
    let Macs { present, refused, why, .. } = wire.macs()?;
    let (pf, number, _) = own.vfs.get(&wire.address()?)?;
    if present.is_empty() && refused.is_empty() {
        return None;
    }
    let trouble = (!refused.is_empty()).then(|| {
        format!(
            "VF {number} of `{pf}` has {} unicast filters and is refused {} more ({why}); have `{pf}` \
             trust it (ip link set {pf} vf {number} trust on), or make `{pf}` the physnet's device",
            present.len(),
            refused.len()
        )
    });
    Some(FilterState {
        interface: pf.clone(),
        present: present.len() as u32,
        total: present.len() as u32,
        refused: refused.into_iter().collect(),
        promiscuous: false,
        trouble,
    })
}

/// The name of a device of PCI, which may be a VF.
fn vf_name(device: &Devargs) -> Option<VfName> {
    match device.virtual_function() {
        Some((pf, number)) => Some(VfName::OfPf { pf, number }),
        None => device.device().parse().ok(),
    }
}

/// The addresses that frames to a port may carry.
fn macs(port: &Port) -> impl Iterator<Item = Mac> + '_ {
    let pairs = port.allowed_address_pairs.iter().filter_map(|pair| pair.mac);
    port.mac().into_iter().chain(pairs)
}
