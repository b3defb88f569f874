//! PCI devices of this host, as the kernel's sysfs shows them: network cards, their virtual functions,
//! who has them, and giving them to vfio-pci and back.
//!
//! Nothing is remembered between two calls: devices come, go and change drivers by anybody's hand. All
//! paths begin at a [`Host`], so that what is here can be tested with hosts that are not there.

mod bind;
mod claim;
mod function;
mod holders;
mod limits;
mod node;
#[cfg(test)]
mod tests;
mod uplink;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::bind::give_to_vfio;
pub(crate) use self::claim::{Claim, Stay, return_unheld};
pub(crate) use self::function::{Function, functions};
pub(crate) use self::holders::{Holder, holders};
pub(crate) use self::limits::{limits, needs_filters};
pub(crate) use self::node::{hugepages_of, node_of};
pub(crate) use self::uplink::{PfState, PfWatch};
use crate::model::Devargs;
use crate::problem::Misfit;

/// Where the kernel's file systems are.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Host { root: "/".into() }
    }
}

impl Host {
    /// A host whose file systems are below this directory.
    #[cfg(test)]
    pub(crate) fn below(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    /// Where a PCI device is.
    pub(crate) fn device(&self, address: &str) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address)
    }

    /// Where a driver of PCI devices is.
    fn driver(&self, name: &str) -> PathBuf {
        self.root.join("sys/bus/pci/drivers").join(name)
    }

    /// Where a network interface is.
    pub(crate) fn interface(&self, name: &str) -> PathBuf {
        self.root.join("sys/class/net").join(name)
    }

    /// Where an interface's PCI device is, if it is one of PCI.
    fn device_of_interface(&self, name: &str) -> Option<PathBuf> {
        fs::canonicalize(self.interface(name).join("device")).ok()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// The PCI address of a configured device, in the form in which sysfs has it; none of a device that is
/// not on PCI, or is named in a way that only DPDK knows.
///
/// The error names what is not there, and how it comes.
pub(crate) fn address(host: &Host, device: &Devargs) -> Result<Option<String>, Misfit> {
    let Some((pf, number)) = device.virtual_function() else {
        let name = device.device();
        return Ok(is_address(&name).then_some(name));
    };
    let interface = host.interface(pf.as_str());
    if !interface.exists() {
        return Err(Misfit::new(
            format!("there is no interface {pf}, of which `{device}` is a virtual function"),
            "correct the name, or load the driver of the card that has it (`viaduct nics` lists cards)",
        ));
    }
    let Some(card) = host.device_of_interface(pf.as_str()) else {
        let what = format!("{pf} is not the interface of a card, and has no virtual functions");
        return Err(Misfit::new(what, "name one that `viaduct nics` lists with VFs"));
    };
    if let Some(address) = link_name(&card.join(format!("virtfn{number}"))) {
        return Ok(Some(address));
    }
    let most: u32 = read(&card.join("sriov_totalvfs")).unwrap_or(0);
    let there: u32 = read(&card.join("sriov_numvfs")).unwrap_or(0);
    let make = |count: u32| format!("echo {count} >/sys/class/net/{pf}/device/sriov_numvfs");
    Err(if most == 0 {
        let what = format!("{pf} has no virtual functions and can have none");
        let remedy = "name another card, or switch SR-IOV on in the firmware of this one";
        Misfit::new(what, remedy)
    } else if u32::from(number) >= most {
        let what =
            format!("{pf} has no virtual function {number}: it can have {most}, from number 0");
        Misfit::new(what, format!("write a number up to {}", most - 1))
    } else if there == 0 {
        let what = format!("{pf} has no virtual functions now");
        Misfit::new(what, format!("make them: {}", make(u32::from(number) + 1)))
    } else {
        let what =
            format!("{pf} has no virtual function {number}: there are {there}, from number 0");
        let more = make(u32::from(number) + 1);
        let remedy = format!(
            "write a number up to {}; or make more, which takes those that there are from who uses \
             them: echo 0, then {more}",
            there - 1
        );
        Misfit::new(what, remedy)
    })
}

/// Whether this is a PCI address with its domain.
fn is_address(name: &str) -> bool {
    name.split(':').count() == 3 && name.contains('.')
}

/// A file's text without the final line end.
fn text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned())
}

/// What a file of sysfs says, if it is there and says that.
fn read<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path).ok()?.parse().ok()
}

/// The last part of what a link leads to.
fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// The names in a directory, in order; none if it is not there.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
