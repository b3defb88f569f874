//! What sysfs tells of PFs and VFs: which PCI function is which VF of whom, and who drives it.
//!
//! These are a few links and numbers that the kernel has at hand; reading them waits for nobody.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{InterfaceName, PciAddress, VfName};

/// The tree, which is another one in tests.
#[derive(Clone, Debug)]
pub(super) struct Sysfs(PathBuf);

/// Where a VF is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VfPlace {
    /// The interface of its PF.
    pub(super) pf: InterfaceName,
    /// Its number there.
    pub(super) number: u32,
}

impl Default for Sysfs {
    fn default() -> Self {
        Sysfs("/sys".into())
    }
}

impl Sysfs {
    /// Where the VF of this name is. Whether the PF has it, who asks the kernel for the PF will know.
    ///
    /// The error is a sentence with the remedy.
    pub(super) fn place(&self, vf: &VfName) -> Result<VfPlace, String> {
        let address = match vf {
            VfName::OfPf { pf, number } => {
                return Ok(VfPlace { pf: pf.clone(), number: u32::from(*number) });
            }
            VfName::Pci(address) => address,
        };
        let function = self.function(address.as_str());
        if !function.exists() {
            return Err(format!(
                "there is no PCI device {address}; correct the address, or have its PF make more VFs \
                 (sriov_numvfs)"
            ));
        }
        let Some(of_pf) = target(&function.join("physfn")) else {
            return Err(format!("{address} is not a VF; write the address of a VF"));
        };
        let pf_function = self.function(&of_pf);
        let number = (0..vfs_total(&pf_function).unwrap_or(0))
            .find(|number| virtfn(&pf_function, *number).as_ref() == Some(address));
        let (Some(pf), Some(number)) = (interface(&pf_function), number) else {
            let driver = driver(&pf_function).unwrap_or_else(|| "no driver".to_owned());
            return Err(format!(
                "PF {of_pf} of {address} has no interface: it has {driver}; give it its kernel driver \
                 back, which is asked for a VF's settings"
            ));
        };
        Ok(VfPlace { pf, number })
    }

    /// The PCI address of a VF, if it is on that bus.
    pub(super) fn address(&self, place: &VfPlace) -> Option<PciAddress> {
        virtfn(&self.device(&place.pf), place.number)
    }

    /// The name of an interface's driver.
    pub(super) fn driver(&self, interface: &InterfaceName) -> Option<String> {
        driver(&self.device(interface))
    }

    /// The VFs that a PF can have.
    pub(super) fn vfs_total(&self, pf: &InterfaceName) -> Option<u32> {
        vfs_total(&self.device(pf))
    }

    fn device(&self, interface: &InterfaceName) -> PathBuf {
        self.0.join("class/net").join(interface.as_str()).join("device")
    }

    fn function(&self, address: &str) -> PathBuf {
        self.0.join("bus/pci/devices").join(address)
    }
}

/// The name of what a link leads to.
fn target(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

fn driver(device: &Path) -> Option<String> {
    target(&device.join("driver"))
}

fn virtfn(pf: &Path, number: u32) -> Option<PciAddress> {
    PciAddress::parse(&target(&pf.join(format!("virtfn{number}")))?)
}

fn vfs_total(pf: &Path) -> Option<u32> {
    fs::read_to_string(pf.join("sriov_totalvfs")).ok()?.trim().parse().ok()
}

/// The interface of a function. Where it has several (a NIC's embedded switch has one for each VF
/// too), the shortest name is the PF's.
fn interface(function: &Path) -> Option<InterfaceName> {
    let entries = fs::read_dir(function.join("net")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<InterfaceName> = names.filter_map(|name| name.parse().ok()).collect();
    names.sort_by_key(|name| (name.as_str().len(), name.clone()));
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A PF `ens1f0` at 0000:01:00.0 with two VFs, and one at 0000:02:00.0 that a PMD has.
    fn tree() -> (tempfile::TempDir, Sysfs) {
        let root = tempfile::tempdir().expect("a directory");
        let devices = root.path().join("bus/pci/devices");
        for address in
            ["0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:02:00.0", "0000:02:10.0"]
        {
            fs::create_dir_all(devices.join(address)).expect("a device");
        }
        let pf = devices.join("0000:01:00.0");
        fs::create_dir_all(pf.join("net/ens1f0")).expect("an interface");
        fs::create_dir_all(root.path().join("class/net/ens1f0")).expect("an interface");
        symlink(&pf, root.path().join("class/net/ens1f0/device")).expect("a link");
        for (pf, vfs) in [
            ("0000:01:00.0", &["0000:01:10.0", "0000:01:10.2"][..]),
            ("0000:02:00.0", &["0000:02:10.0"]),
        ] {
            fs::write(devices.join(pf).join("sriov_totalvfs"), "7\n").expect("a file");
            for (number, vf) in vfs.iter().enumerate() {
                let link = devices.join(pf).join(format!("virtfn{number}"));
                symlink(format!("../{vf}"), link).expect("a link");
                symlink(format!("../{pf}"), devices.join(vf).join("physfn")).expect("a link");
            }
        }
        symlink("/drivers/igb", pf.join("driver")).expect("a link");
        symlink("/drivers/vfio-pci", devices.join("0000:02:00.0/driver")).expect("a link");
        let sysfs = Sysfs(root.path().to_owned());
        (root, sysfs)
    }

    #[test]
    fn a_vf_is_found_by_either_name() {
        let (_root, sysfs) = tree();
        let pf: InterfaceName = "ens1f0".parse().expect("a name");
        for name in ["ens1f0/1", "0000:01:10.2"] {
            let place = sysfs.place(&name.parse().expect("a VF")).expect("there");
            assert_eq!(place, VfPlace { pf: pf.clone(), number: 1 });
            assert_eq!(sysfs.address(&place).expect("on the bus").as_str(), "0000:01:10.2");
        }
        assert_eq!(sysfs.driver(&pf).as_deref(), Some("igb"));
        assert_eq!(sysfs.vfs_total(&pf), Some(7));
    }

    #[test]
    fn what_is_no_vf_is_told_with_the_remedy() {
        let (_root, sysfs) = tree();
        for (name, sentence) in [
            (
                "0000:03:00.0",
                "there is no PCI device 0000:03:00.0; correct the address, or have its PF \
                              make more VFs (sriov_numvfs)",
            ),
            ("0000:01:00.0", "0000:01:00.0 is not a VF; write the address of a VF"),
            (
                "0000:02:10.0",
                "PF 0000:02:00.0 of 0000:02:10.0 has no interface: it has vfio-pci; give \
                              it its kernel driver back, which is asked for a VF's settings",
            ),
        ] {
            let name = name.parse().expect("a VF");
            assert_eq!(sysfs.place(&name), Err(sentence.to_owned()));
        }
    }
}
