//! The network cards of this host: what `viaduct nics` lists, and what `viaduct check` doubts of those
//! that are configured. Neither needs a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use crate::config::{Config, Physnet};
use crate::cores::print_list;
use crate::model::{Devargs, InterfaceName, PhysnetName, VfActual};
use crate::nic::{VfSettings, settings_of};
use crate::pci::{self, Claim, Function, Host};
use crate::problem::{Fault, Problem};

/// A network card, or a virtual function of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NicView {
    /// Its PCI address.
    pub address: String,
    /// Its vendor and device, as `8086:10ca`.
    pub ids: String,
    /// Its network interfaces in the kernel.
    pub interfaces: Vec<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The NUMA node it is attached to.
    pub numa_node: Option<u32>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// The addresses of what else is in that group, bridges apart.
    pub group_shared_with: Vec<String>,
    /// What it is a virtual function of.
    pub of: Option<VfOfView>,
    /// How many virtual functions it has, if it can have any.
    pub vfs: Option<VfCountView>,
    /// The processes that hold it, by vfio-pci.
    pub held_by: Vec<HolderView>,
    /// The port of the running switch that it is: the name of a physnet, or a port's name or UUID.
    pub port: Option<String>,
}

/// What a virtual function is one of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VfOfView {
    /// The card's PCI address.
    pub address: String,
    /// The card's interface.
    pub interface: Option<String>,
    /// The number of the virtual function there.
    pub number: Option<u16>,
    /// How the card's driver has it set, where it says so.
    pub settings: Option<VfActual>,
}

/// Virtual functions of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VfCountView {
    /// How many it has.
    pub there: u32,
    /// How many it can have.
    pub most: u32,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderView {
    /// Its number.
    pub pid: u32,
    /// What it is called.
    pub name: String,
}

/// How virtual functions are set, by the interface of the card and the number there.
type VfsSet = BTreeMap<(String, u32), VfSettings>;

/// The cards of this host. `ports` are the devices that the running switch has as its ports, as they
/// are configured, each with the port's name.
pub fn nics(ports: &[(String, String)]) -> Vec<NicView> {
    let host = Host::default();
    let settings = settings_of(&pfs(&host));
    listed(&host, ports, &settings)
}

/// The interfaces of cards that have virtual functions.
fn pfs(host: &Host) -> Vec<InterfaceName> {
    let functions = pci::functions(host).into_iter();
    let with_vfs = functions.filter(|function| function.vfs.is_some_and(|(there, _)| there > 0));
    let first = with_vfs.filter_map(|function| function.interfaces.into_iter().next());
    first.filter_map(|name| name.parse().ok()).collect()
}

pub(crate) fn listed(host: &Host, ports: &[(String, String)], settings: &VfsSet) -> Vec<NicView> {
    let addresses: Vec<(String, &String)> = ports
        .iter()
        .filter_map(|(device, port)| {
            let device: Devargs = device.parse().ok()?;
            Some((pci::address(host, &device).ok()??, port))
        })
        .collect();
    let view = |function: Function| {
        let companions = function.companions(host).into_iter();
        let holders = function.group.map(|group| pci::holders(host, group)).unwrap_or_default();
        let port = addresses.iter().find(|(address, _)| *address == function.address);
        NicView {
            group_shared_with: companions.map(|other| other.address).collect(),
            of: function.of.map(|(address, number)| {
                let interface = Function::look(host, &address)
                    .and_then(|card| card.interfaces.into_iter().next());
                let name = interface.clone().zip(number.map(u32::from));
                let settings = name.and_then(|name| settings.get(&name)).copied();
                VfOfView { address, interface, number, settings: settings.map(VfActual::from) }
            }),
            vfs: function.vfs.map(|(there, most)| VfCountView { there, most }),
            held_by: holders
                .into_iter()
                .map(|holder| HolderView { pid: holder.pid, name: holder.name })
                .collect(),
            port: port.map(|(_, port)| (*port).clone()),
            address: function.address,
            ids: function.ids,
            interfaces: function.interfaces,
            driver: function.driver,
            numa_node: function.numa_node,
            iommu_group: function.group,
        }
    };
    pci::functions(host).into_iter().map(view).collect()
}

/// What is doubtful about the cards of a configuration, as warnings: a card may come before the switch
/// is started.
pub(crate) fn doubts(config: &Config, path: &Path) -> Vec<Problem> {
    let host = Host::default();
    let settings = settings_of(&pfs(&host));
    doubts_on(&host, &settings, config, path)
}

pub(crate) fn doubts_on(
    host: &Host,
    settings: &VfsSet,
    config: &Config,
    path: &Path,
) -> Vec<Problem> {
    let of = |(name, physnet)| doubts_of(host, settings, config, name, physnet);
    let faults = config.physnets.iter().flat_map(of);
    faults.map(|fault| fault.at(path.display()).warning()).collect()
}

fn doubts_of(
    host: &Host,
    settings: &VfsSet,
    config: &Config,
    name: &PhysnetName,
    physnet: &Physnet,
) -> Vec<Fault> {
    let of = |(at, device)| {
        let field = match &physnet.bond {
            Some(_) => format!("physnets.{name}.bond.members[{at}]"),
            None => format!("physnets.{name}.device"),
        };
        let mut faults = doubts_of_device(host, config, &field, physnet, device);
        faults.extend(spoof_check(host, settings, &field, device));
        faults
    };
    physnet.devices().iter().enumerate().flat_map(of).collect()
}

/// That a virtual function sends only from its own address, as its card checks that.
fn spoof_check(host: &Host, settings: &VfsSet, field: &str, device: &Devargs) -> Option<Fault> {
    let address = pci::address(host, device).ok()??;
    let (pf, number) = Function::look(host, &address)?.of?;
    let pf = Function::look(host, &pf)?.interfaces.into_iter().next()?;
    let number = u32::from(number?);
    let checked = settings.get(&(pf.clone(), number)).is_some_and(|set| set.spoofchk);
    checked.then(|| {
        Fault::new(
            field,
            format!("the card of {address} drops what it sends from other addresses than its own"),
            format!("let guests send by it: ip link set {pf} vf {number} spoofchk off"),
        )
    })
}

fn doubts_of_device(
    host: &Host,
    config: &Config,
    field: &str,
    physnet: &Physnet,
    device: &Devargs,
) -> Vec<Fault> {
    let address = match pci::address(host, device) {
        Ok(Some(address)) => address,
        Ok(None) => return Vec::new(),
        Err(misfit) => return vec![Fault::misfit(field, misfit)],
    };
    let mut faults = Vec::new();
    // Who uses it now may be the switch itself, or somebody who is about to go.
    if let Err(misfit) = Claim::would_fit(host, &address) {
        faults.push(Fault::misfit(field, misfit));
    }
    let node = Function::look(host, &address).and_then(|function| function.numa_node);
    let Some(node) = node else { return faults };
    let cores = if physnet.cores.is_empty() { &config.workers.cores } else { &physnet.cores };
    let nodes: BTreeSet<u32> = cores.iter().filter_map(|core| pci::node_of(host, *core)).collect();
    if !nodes.is_empty() && !nodes.contains(&node) {
        let list = print_list(&cores.iter().copied().collect());
        faults.push(Fault::new(
            field,
            format!(
                "{address} is on NUMA node {node}, and CPUs {list}, which poll it, are on node {}",
                print_list(&nodes)
            ),
            format!(
                "choose workers.cores of node {node} (/sys/devices/system/node/node{node}/cpulist), \
                 or a card of the workers' node: each frame crosses between the processors otherwise"
            ),
        ));
    }
    if config.dpdk.hugepages && pci::hugepages_of(host, node) == Some(0) {
        faults.push(Fault::new(
            field,
            format!("{address} is on NUMA node {node}, which has no huge pages"),
            format!(
                "have the kernel hold some there: echo N \
                 >/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"
            ),
        ));
    }
    faults
}
