//! A function of a PCI device: what sysfs has to say about it.

use std::path::Path;

use super::{Host, link_name, names, read, text};

/// Classes of PCI devices: network cards, and bridges from PCI to PCI.
const CLASS_NETWORK: u32 = 0x02;
const CLASS_BRIDGE: u32 = 0x06;

/// A function of a PCI device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its address, with the domain.
    pub(crate) address: String,
    /// Its vendor and device, as `8086:10ca`.
    pub(crate) ids: String,
    /// The class, eight bits.
    pub(crate) class: u32,
    /// The driver that has it.
    pub(crate) driver: Option<String>,
    /// The NUMA node it is attached to, where there are nodes.
    pub(crate) numa_node: Option<u32>,
    /// Its IOMMU group.
    pub(crate) group: Option<u32>,
    /// Its network interfaces, by name; those that are in the namespace of who asks.
    pub(crate) interfaces: Vec<String>,
    /// The address of the physical function that it is a virtual one of, and its number there.
    pub(crate) of: Option<(String, Option<u16>)>,
    /// How many virtual functions it has, and can have, if it is one that can.
    pub(crate) vfs: Option<(u32, u32)>,
}

impl Function {
    /// Looks at the function with this address, if it is there.
    pub(crate) fn look(host: &Host, address: &str) -> Option<Function> {
        let path = host.device(address);
        if !path.exists() {
            return None;
        }
        let hex = |name: &str| text(&path.join(name)).unwrap_or_default().replace("0x", "");
        let of = link_name(&path.join("physfn")).map(|pf| {
            let number = number_of(&host.device(&pf), address);
            (pf, number)
        });
        let most = read(&path.join("sriov_totalvfs"));
        Some(Function {
            address: address.to_owned(),
            ids: format!("{}:{}", hex("vendor"), hex("device")),
            class: u32::from_str_radix(&hex("class"), 16).unwrap_or(0) >> 16,
            driver: link_name(&path.join("driver")),
            // -1 where there are no nodes.
            numa_node: read::<i64>(&path.join("numa_node")).and_then(|node| node.try_into().ok()),
            group: link_name(&path.join("iommu_group")).and_then(|group| group.parse().ok()),
            interfaces: names(&path.join("net")),
            of,
            vfs: most.map(|most| (read(&path.join("sriov_numvfs")).unwrap_or(0), most)),
        })
    }

    /// Whether it is of a network card.
    pub(crate) fn is_nic(&self) -> bool {
        self.class == CLASS_NETWORK
    }

    fn is_bridge(&self) -> bool {
        self.class == CLASS_BRIDGE
    }

    /// What else is in its IOMMU group, bridges apart.
    pub(crate) fn companions(&self, host: &Host) -> Vec<Function> {
        let Some(group) = self.group else { return Vec::new() };
        let members = names(&host.path(&format!("sys/kernel/iommu_groups/{group}/devices")));
        let others = members.into_iter().filter(|address| *address != self.address);
        let others = others.filter_map(|address| Function::look(host, &address));
        others.filter(|other| !other.is_bridge()).collect()
    }

    /// The first of its interfaces that is up, if one is.
    pub(crate) fn interface_up(&self, host: &Host) -> Option<&str> {
        let up = |name: &&String| is_up(&host.interface(name));
        self.interfaces.iter().find(up).map(String::as_str)
    }
}

/// All functions of network cards, by their addresses.
pub(crate) fn functions(host: &Host) -> Vec<Function> {
    let all = names(&host.path("sys/bus/pci/devices")).into_iter();
    all.filter_map(|address| Function::look(host, &address)).filter(Function::is_nic).collect()
}

/// Whether somebody has set an interface up: IFF_UP of netdevice(7).
pub(super) fn is_up(interface: &Path) -> bool {
    let flags = text(&interface.join("flags")).unwrap_or_default();
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 != 0)
}

/// The number of a virtual function on its physical one.
fn number_of(pf: &Path, address: &str) -> Option<u16> {
    let links = names(pf).into_iter();
    let mut numbers =
        links.filter_map(|name| name.strip_prefix("virtfn").and_then(|it| it.parse().ok()));
    numbers.find(|number: &u16| {
        link_name(&pf.join(format!("virtfn{number}"))).is_some_and(|it| it == address)
    })
}
