//! A host as it is, as far as running a switch depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Group, User};

use super::{GUEST_GROUP, USER};
use crate::config::{Config, Machine};
use crate::cores;
use crate::pci;
use crate::problem::Problem;

/// What there is on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The CPUs that are online.
    pub online: BTreeSet<u32>,
    /// Those that the scheduler leaves alone (`isolcpus`).
    pub isolated: BTreeSet<u32>,
    /// Those that have no timer tick while one thread runs (`nohz_full`).
    pub tickless: BTreeSet<u32>,
    /// Huge pages of 2 MiB; none if the kernel has not got them.
    pub hugepages: Option<Hugepages>,
    /// Memory that could become huge pages without the host suffering, in MiB.
    pub spare_mib: u64,
    /// Whether a switch answers on the configured socket. It holds its huge pages already.
    pub runs: bool,
    /// The kernel's parameters.
    pub parameters: Vec<String>,
    /// Whether the processor is Intel's.
    pub intel: bool,
    /// Whether the kernel uses an IOMMU.
    pub iommu: bool,
    /// Modules of the kernel that are loaded or built in, of those asked for.
    pub modules: BTreeSet<&'static str>,
    /// The PCI devices of the configuration, by address; none for one that is not there.
    pub devices: BTreeMap<String, Option<Device>>,
    /// The service's user, if there is one.
    pub user: Option<Account>,
    /// The number of the group that guests' sockets should be of, if there is one.
    pub guest_group: Option<u32>,
    /// The directories of the configuration; none for one that is not there.
    pub directories: BTreeMap<PathBuf, Option<Owned>>,
    /// Memory that the service may lock, in octets; none if there is no service, or no bound.
    pub memlock: Option<u64>,
}

/// Huge pages of 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hugepages {
    /// All that the kernel holds.
    pub total: u64,
    /// Those that nobody uses or has reserved.
    pub free: u64,
}

/// A PCI device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The driver that has it.
    pub driver: Option<String>,
    /// Whether it is a virtual function.
    pub is_virtual: bool,
    /// Its network interface, if that is up: somebody uses it.
    pub in_use: Option<String>,
    /// The file of its IOMMU group, and whose that is; none while no driver made it.
    pub group: Option<(PathBuf, Owned)>,
}

/// The owner and permissions of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
    /// Permissions.
    pub mode: u32,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub user: u32,
    /// Its own group's.
    pub group: u32,
    /// Those of the other groups that it is in.
    pub groups: BTreeSet<u32>,
}

/// Where the kernel's huge pages of 2 MiB are set.
pub(super) const HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Where PCI devices are.
pub(super) const PCI: &str = "/sys/bus/pci/devices";

/// The modules that giving a PCI device to a process takes.
pub(super) const MODULES: [&str; 2] = ["vfio_pci", "vfio_iommu_type1"];

impl Host {
    /// This host.
    pub fn here(config: &Config) -> Result<Host, Problem> {
        let machine = Machine::here()?;
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let parameters = read("/proc/cmdline").split_whitespace().map(str::to_owned).collect();
        let user = account();
        let group = config.vhost.group().ok().flatten();
        let guest_group = group.or_else(|| group_number(GUEST_GROUP));
        let devices = pci_addresses(config).map(|address| {
            let device = device(&address);
            (address, device)
        });
        let directories = directories(config).into_iter().map(|path| {
            let owned = owned(&path);
            (path, owned)
        });
        Ok(Host {
            online: machine.online,
            isolated: cores::isolated(),
            tickless: cores::parse_cpus(read("/sys/devices/system/cpu/nohz_full").trim())
                .unwrap_or_default(),
            hugepages: hugepages(),
            spare_mib: spare_mib(&read("/proc/meminfo")),
            runs: UnixStream::connect(&config.control.socket).is_ok(),
            parameters,
            intel: read("/proc/cpuinfo").contains("GenuineIntel"),
            iommu: fs::read_dir("/sys/kernel/iommu_groups")
                .is_ok_and(|mut groups| groups.next().is_some()),
            modules: MODULES
                .into_iter()
                .filter(|name| Path::new("/sys/module").join(name).exists())
                .collect(),
            devices: devices.collect(),
            user,
            guest_group,
            directories: directories.collect(),
            memlock: service_memlock(),
        })
    }
}

/// The configuration's PCI devices: their addresses, or a virtual function that is not there as it is
/// configured.
pub(super) fn pci_addresses(config: &Config) -> impl Iterator<Item = String> {
    let host = pci::Host::default();
    let devices = config.physnets.values().flat_map(|physnet| physnet.devices());
    devices.filter_map(move |device| match pci::address(&host, device) {
        Ok(address) => address,
        Err(_) => Some(device.device()),
    })
}

/// The directories that must be there.
pub(super) fn directories(config: &Config) -> Vec<PathBuf> {
    let Config { store, control, vhost, .. } = config;
    let remote = store.etcd.is_some() || store.networking_vpp.is_some();
    let stored = if remote { store.cache.parent() } else { Some(store.directory.as_path()) };
    let parents = stored.into_iter().chain(control.socket.parent());
    let mut all: Vec<PathBuf> = parents.map(Path::to_owned).collect();
    all.push(vhost.socket_directory.clone());
    all.dedup();
    all
}

fn hugepages() -> Option<Hugepages> {
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("{HUGEPAGES}/{name}_hugepages")).ok()?.trim().parse().ok()
    };
    let free = read("free")?.saturating_sub(read("resv")?);
    Some(Hugepages { total: read("nr")?, free })
}

/// What can be spared of a host's memory, by `/proc/meminfo`: all that is available but a tenth of the
/// whole.
fn spare_mib(meminfo: &str) -> u64 {
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    field("MemAvailable:").saturating_sub(field("MemTotal:") / 10) / 1024
}

fn device(address: &str) -> Option<Device> {
    let path = Path::new(PCI).join(address);
    if !path.exists() {
        return None;
    }
    let last = |link: &str| {
        let target = fs::read_link(path.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    let interfaces = fs::read_dir(path.join("net")).into_iter().flatten().flatten();
    let is_up = |entry: &fs::DirEntry| {
        let flags = fs::read_to_string(entry.path().join("flags")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
        // IFF_UP of netdevice(7).
        flags.is_ok_and(|flags| flags & 1 != 0)
    };
    let up = interfaces.filter(is_up).map(|entry| entry.file_name()).next();
    let group = last("iommu_group").map(|number| PathBuf::from(format!("/dev/vfio/{number}")));
    Some(Device {
        driver: last("driver"),
        is_virtual: path.join("physfn").exists(),
        in_use: up.map(|name| name.to_string_lossy().into_owned()),
        group: group.and_then(|path| owned(&path).map(|owned| (path, owned))),
    })
}

fn account() -> Option<Account> {
    let user = User::from_name(USER).ok().flatten()?;
    // The file of groups says who is in a group; who else is asked for users, is asked by name here.
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let number = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|name| name == USER).then_some(number)
    };
    Some(Account {
        user: user.uid.as_raw(),
        group: user.gid.as_raw(),
        groups: groups.lines().filter_map(member).collect(),
    })
}

fn group_number(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

fn owned(path: &Path) -> Option<Owned> {
    let found = fs::metadata(path).ok()?;
    Some(Owned { user: found.uid(), group: found.gid(), mode: found.mode() & 0o7777 })
}

/// What the unit lets the service lock, drop-ins of the administrator included.
fn service_memlock() -> Option<u64> {
    let arguments = ["show", "viaduct.service", "--property=LoadState,LimitMEMLOCK"];
    let output = Command::new("systemctl").args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    // `infinity` is no number, and no bound.
    value("LoadState").filter(|state| *state == "loaded")?;
    value("LimitMEMLOCK")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_memory_is_never_taken() {
        let meminfo = "MemTotal:       10240000 kB\nMemFree: 1 kB\nMemAvailable:    4096000 kB\n";
        assert_eq!(spare_mib(meminfo), 3000);
        assert_eq!(spare_mib("MemTotal: 10240000 kB\nMemAvailable: 1024 kB\n"), 0);
        assert_eq!(spare_mib(""), 0);
    }
}
