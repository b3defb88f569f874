//! A PCI device that the switch has taken for itself, and gives back.
//!
//! Taken is what is a process's to take: a device that vfio-pci has already, or one that nobody uses
//! and whose IOMMU group holds nothing else that is in use. All that speaks against it is found before
//! anything is changed. The driver that a device had is noted in a file, so that a switch that is
//! killed does not forget it: the next one gives the device back.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bind::{VFIO, give_to_vfio, take_from_vfio};
use super::{Function, Holder, Host, holders, names};
use crate::problem::Misfit;

/// Where notes of former drivers are: gone with a boot, as the bindings are.
const NOTES: &str = "run/viaduct/drivers";

/// Drivers of the kernel with which DPDK shares a device, and others that give devices to processes.
const LEFT_ALONE: [&str; 6] =
    ["igb_uio", "mana", "mlx4_core", "mlx5_core", "uio_pci_generic", "vfio-pci"];

/// Drivers that do nothing with a device, so that its group can be a process's.
const IDLE: [&str; 3] = ["pci-stub", "pcieport", "vfio-pci"];

/// A device that is ours. Dropping it gives it back, which is to be done after it has been closed.
#[derive(Debug)]
pub(crate) struct Claim {
    host: Host,
    address: String,
    /// The driver that gets it back, if it had one; none at all if it was vfio-pci's before.
    former: Option<Option<String>>,
    stay: Stay,
}

/// Says of a device that is ours that it is not to be given back, as another process goes on with it.
/// That one finds the note of its former driver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stay(Arc<AtomicBool>);

impl Stay {
    /// Says so.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Claim {
    /// Whether a device can be a process's, whoever has it now. The error names what speaks against it,
    /// and the remedy.
    pub(crate) fn would_fit(host: &Host, address: &str) -> Result<(), Misfit> {
        let Some(function) = Function::look(host, address) else { return Err(missing(address)) };
        match function.driver.as_deref() {
            Some(driver) if driver != VFIO && LEFT_ALONE.contains(&driver) => Ok(()),
            _ => grouped(&function).and_then(|()| alone(host, &function)),
        }
    }

    /// Takes the device with this address. The error names what speaks against it, and the remedy.
    pub(crate) fn take(host: &Host, address: &str) -> Result<Claim, Misfit> {
        let Some(function) = Function::look(host, address) else { return Err(missing(address)) };
        let claim = |former| Claim {
            host: host.clone(),
            address: address.to_owned(),
            former,
            stay: Stay::default(),
        };
        match function.driver.as_deref() {
            Some(VFIO) => {
                unused(host, &function)?;
                alone(host, &function)?;
                // A switch before us took it from this driver, and was killed.
                return Ok(claim(claim(None).noted()));
            }
            Some(driver) if LEFT_ALONE.contains(&driver) => return Ok(claim(None)),
            _ => {}
        }
        may_be_taken(host, &function)?;
        let claim = claim(Some(function.driver.clone()));
        claim.note();
        if let Err(why) = give_to_vfio(host, address) {
            claim.forget();
            return Err(Misfit::new(
                format!("{address} could not be taken: {why}"),
                "run `viaduct setup` as root before, which gives it to vfio-pci",
            ));
        }
        let driver = function.driver.as_deref().unwrap_or("no driver");
        tracing::info!(device = address, former = driver, "took the device for vfio-pci");
        Ok(claim)
    }

    /// What has it stay ours when it is dropped.
    pub(crate) fn stay(&self) -> Stay {
        self.stay.clone()
    }

    fn file(&self) -> PathBuf {
        self.host.path(NOTES).join(&self.address)
    }

    /// Notes the former driver. Without the note only a switch that is killed forgets it.
    fn note(&self) {
        let Some(driver) = &self.former else { return };
        let file = self.file();
        let text = driver.as_deref().unwrap_or_default();
        let made = file.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = made.and_then(|()| fs::write(&file, text)) {
            tracing::warn!(
                device = self.address,
                "noting its driver in {}: {error}",
                file.display()
            );
        }
    }

    /// What was noted, if anything was.
    fn noted(&self) -> Option<Option<String>> {
        let text = fs::read_to_string(self.file()).ok()?;
        Some(Some(text).filter(|driver| !driver.is_empty()))
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.file());
    }

    fn give_back(&self, former: Option<&str>) {
        let address = &*self.address;
        let function = Function::look(&self.host, address);
        let Some(function) = function.filter(|it| it.driver.as_deref() == Some(VFIO)) else {
            // It is gone, or somebody has given it to another driver.
            return self.forget();
        };
        // The kernel would have us wait for who holds it: a switch that follows this one, or this
        // process itself, if it could not be closed.
        let holders = function.group.map(|group| holders(&self.host, group)).unwrap_or_default();
        if let Some(holder) = holders.first() {
            tracing::warn!(device = address, "it stays with vfio-pci, as {holder} holds it");
            return;
        }
        self.forget();
        let driver = former.unwrap_or("no driver");
        match take_from_vfio(&self.host, address, former) {
            Ok(()) => tracing::info!(device = address, driver, "gave the device back"),
            Err(why) => tracing::warn!(device = address, driver, "giving the device back: {why}"),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(former) = self.former.take().filter(|_| !self.stay.is_set()) {
            self.give_back(former.as_deref());
        }
    }
}

/// Gives back what a switch before this one has taken and neither it nor another process holds any more:
/// one that was killed, or that has left its devices to a process that is not to have them all.
pub(crate) fn return_unheld(host: &Host) {
    for address in names(&host.path(NOTES)) {
        let claim = Claim { host: host.clone(), address, former: None, stay: Stay::default() };
        let function = Function::look(host, &claim.address);
        let group = function.and_then(|function| function.group);
        let held = group.is_some_and(|group| !holders(host, group).is_empty());
        if let Some(former) = claim.noted().filter(|_| !held) {
            claim.give_back(former.as_deref());
        }
    }
}

/// Whether a device can be taken from whom it belongs to.
fn may_be_taken(host: &Host, function: &Function) -> Result<(), Misfit> {
    let Function { address, driver, of, vfs, .. } = function;
    let driver = driver.as_deref().unwrap_or("no driver");
    if let Some(interface) = function.interface_up(host) {
        return Err(Misfit::new(
            format!("{address} is in use: {driver} has it, and its interface {interface} is up"),
            format!("if nothing depends on it, ip link set {interface} down"),
        ));
    }
    if of.is_none() && vfs.is_some_and(|(there, _)| there > 0) {
        return Err(Misfit::new(
            format!("{address} has virtual functions, which would go with its driver {driver}"),
            "name one of them in its place, or remove them: echo 0 to its sriov_numvfs",
        ));
    }
    grouped(function)?;
    alone(host, function)?;
    match fs::metadata(host.path("dev/vfio/vfio")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Misfit::new(
            format!("{address} cannot be given to a process: there is no /dev/vfio/vfio"),
            "load the module before the switch starts: modprobe vfio-pci",
        )),
        _ => Ok(()),
    }
}

fn missing(address: &str) -> Misfit {
    Misfit::new(
        format!("there is no PCI device {address}"),
        "correct the address (`viaduct nics` lists cards); if it is a virtual function, make it: echo \
         N >/sys/class/net/INTERFACE/device/sriov_numvfs",
    )
}

/// Whether an IOMMU keeps it from reaching all memory.
fn grouped(function: &Function) -> Result<(), Misfit> {
    match function.group {
        Some(_) => Ok(()),
        None => Err(Misfit::new(
            format!("{} has no IOMMU group: the kernel uses no IOMMU for it", function.address),
            "boot with intel_iommu=on iommu=pt, and switch it on in the firmware: VT-d, or AMD-Vi",
        )),
    }
}

/// Whether nothing else that is in use is in its IOMMU group: vfio gives away groups, not devices.
fn alone(host: &Host, function: &Function) -> Result<(), Misfit> {
    let in_use =
        |other: &Function| other.driver.as_deref().is_some_and(|driver| !IDLE.contains(&driver));
    let companions = function.companions(host);
    let Some(other) = companions.iter().find(|other| in_use(other)) else { return Ok(()) };
    let (group, driver) = (function.group.unwrap_or_default(), other.driver.as_deref());
    Err(Misfit::new(
        format!(
            "{} shares IOMMU group {group} with {}, which {} has: they can only be given away together",
            function.address,
            other.address,
            driver.unwrap_or("no driver"),
        ),
        "put the card into a slot whose ports have ACS (often those of the processor), or use a card \
         whose functions are in groups of their own",
    ))
}

/// Whether no process has it.
fn unused(host: &Host, function: &Function) -> Result<(), Misfit> {
    let holders = function.group.map(|group| holders(host, group)).unwrap_or_default();
    let Some(Holder { pid, name }) = holders.into_iter().next() else { return Ok(()) };
    if pid == std::process::id() {
        let what = format!("{} is another port's or physnet's of this switch", function.address);
        return Err(Misfit::new(what, "name another device"));
    }
    Err(Misfit::new(
        format!("{} is in use: process {pid} ({name}) holds it", function.address),
        "name another device, or end that process if it is not meant to have this one",
    ))
}
