//! What a configuration needs of a host, held against what is there. Pure.

use std::collections::BTreeSet;
use std::path::Path;

use super::host::{Account, Device, MODULES, Owned, directories, pci_addresses};
use super::{Action, GUEST_GROUP, Host, Lack, Need, Purpose, Remedy, USER};
use crate::config::{Config, Idle};
use crate::cores::print_list;

/// Octets of a bucket of the FDB, which has four entries (`dataplane/src/fdb`).
const BUCKET_BYTES: u64 = 64;
const BUCKET_ENTRIES: u32 = 4;

/// Octets of a huge page.
const PAGE_BYTES: u64 = 2 << 20;

/// Drivers of the kernel with which DPDK shares a device: it stays with them.
const SHARED_DRIVERS: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

/// All that the configuration needs for this purpose, and what of it is lacking. What others depend on
/// comes first.
pub fn judge(config: &Config, host: &Host, purpose: Purpose) -> Vec<Need> {
    let mut needs = vec![user(host)];
    needs.extend(guest_group(config, host));
    needs.push(hugepages(config, host, purpose));
    needs.push(cores(config, host));
    if pci_addresses(config).next().is_some() {
        needs.push(iommu(host));
        needs.extend(MODULES.map(|name| module(name, host)));
    }
    needs.extend(pci_addresses(config).map(|address| device(&address, host)));
    needs.extend(directories(config).iter().map(|path| {
        let guests = *path == config.vhost.socket_directory;
        directory(path, guests, config, host)
    }));
    needs.extend(memlock(config, host));
    needs
}

/// The huge pages that the configuration takes: DPDK's memory, and the FDB's table.
pub fn hugepages_needed(config: &Config) -> (u64, u64) {
    let buckets = config.fdb.entries.div_ceil(BUCKET_ENTRIES).next_power_of_two();
    let fdb = (u64::from(buckets) * BUCKET_BYTES).div_ceil(PAGE_BYTES);
    let dpdk = u64::from(config.dpdk.memory_mib).div_ceil(2);
    (if config.dpdk.hugepages { dpdk } else { 0 }, fdb)
}

fn well(part: impl Into<String>, found: impl Into<String>) -> Need {
    Need { part: part.into(), found: found.into(), lack: None }
}

fn lacks(
    part: impl Into<String>,
    found: impl Into<String>,
    words: impl Into<String>,
    remedy: Remedy,
) -> Need {
    Need {
        part: part.into(),
        found: found.into(),
        lack: Some(Lack { words: words.into(), remedy }),
    }
}

fn hugepages(config: &Config, host: &Host, purpose: Purpose) -> Need {
    let part = "hugepages";
    let (dpdk, fdb) = hugepages_needed(config);
    if dpdk == 0 {
        return well(part, "none are needed, as dpdk.hugepages is false");
    }
    // The switch that runs has its own.
    let (times, whose) = match (purpose, host.runs) {
        (Purpose::Start, _) => (1, ""),
        (Purpose::Handover, true) => (1, " beside those of the switch that runs"),
        (Purpose::Handover, false) => (2, " for each of two switches"),
    };
    let need = times * (dpdk + fdb);
    let each = format!("{dpdk} for DPDK, {fdb} for the FDB");
    let sum = format!("{need} of 2 MiB are needed ({each}{whose})");
    let Some(pages) = host.hugepages else {
        let words = "use a kernel with CONFIG_HUGETLBFS, or set dpdk.hugepages = false";
        return lacks(part, format!("{sum}, and this kernel has none"), words, Remedy::Hand);
    };
    if host.runs && purpose == Purpose::Start {
        return well(part, format!("{sum}; the switch that runs has them"));
    }
    let found = format!("{sum}, {} of {} are free", pages.free, pages.total);
    let more = need.saturating_sub(pages.free);
    if more == 0 {
        return well(part, found);
    }
    let total = pages.total + more;
    if more * 2 > host.spare_mib {
        let words = format!(
            "{} MiB more are needed and the host can spare {} MiB: free some memory, or lower \
             dpdk.memory_mib",
            more * 2,
            host.spare_mib
        );
        return lacks(part, found, words, Remedy::Hand);
    }
    let words = format!(
        "sysctl vm.nr_hugepages={total}; if memory is in pieces, boot with hugepages={total}"
    );
    lacks(part, found, words, Remedy::Now(Action::Hugepages(total)))
}

fn cores(config: &Config, host: &Host) -> Need {
    let part = "isolated cores";
    let chosen = &config.workers.cores;
    let last = host.online.last().copied().into_iter();
    let workers: BTreeSet<u32> =
        if chosen.is_empty() { last.collect() } else { chosen.iter().copied().collect() };
    let list = print_list(&workers);
    if config.workers.idle == Idle::Sleep {
        return well(part, format!("workers.idle is \"sleep\": CPUs {list} may be shared"));
    }
    if host.online.is_subset(&workers) {
        let found = format!("workers take all CPUs: {list}");
        let words = "leave one CPU to the system, or set workers.idle = \"sleep\"";
        return lacks(part, found, words, Remedy::Hand);
    }
    let shared: BTreeSet<u32> = workers.difference(&host.isolated).copied().collect();
    let ticking: BTreeSet<u32> = workers.difference(&host.tickless).copied().collect();
    if shared.is_empty() && ticking.is_empty() {
        return well(part, format!("CPUs {list} are the workers' alone"));
    }
    let found = match (shared.is_empty(), ticking.is_empty()) {
        (false, _) => format!("CPUs {} are shared with whatever else runs", print_list(&shared)),
        (true, _) => format!("CPUs {} are interrupted by the timer", print_list(&ticking)),
    };
    // What the host keeps apart already stays so: these parameters replace those that are there.
    let all = print_list(&workers.union(&host.isolated).copied().collect());
    let parameters = BTreeSet::from([
        format!("isolcpus=managed_irq,domain,{all}"),
        format!("nohz_full={all}"),
        format!("rcu_nocbs={all}"),
    ]);
    lacks(part, found, boot_words(&parameters), Remedy::Boot(parameters))
}

fn iommu(host: &Host) -> Need {
    let part = "IOMMU".to_owned();
    match iommu_lack(host) {
        None => well(part, "the kernel uses it"),
        lack => Need { part, found: "the kernel does not use one".to_owned(), lack },
    }
}

/// Why devices cannot be given to processes, as without an IOMMU they could reach all memory.
fn iommu_lack(host: &Host) -> Option<Lack> {
    if host.iommu {
        return None;
    }
    let mut parameters = BTreeSet::from(["iommu=pt".to_owned()]);
    if host.intel {
        parameters.insert("intel_iommu=on".to_owned());
    }
    if parameters.iter().all(|parameter| host.parameters.contains(parameter)) {
        let words = "switch it on in the firmware: VT-d, or AMD-Vi".to_owned();
        return Some(Lack { words, remedy: Remedy::Hand });
    }
    Some(Lack { words: boot_words(&parameters), remedy: Remedy::Boot(parameters) })
}

fn boot_words(parameters: &BTreeSet<String>) -> String {
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    format!(
        "boot with {}: in GRUB_CMDLINE_LINUX of /etc/default/grub, then update-grub",
        parameters.join(" ")
    )
}

fn module(name: &'static str, host: &Host) -> Need {
    let part = format!("module {name}");
    if host.modules.contains(name) {
        return well(part, "it is loaded");
    }
    let words = format!("modprobe {name}");
    lacks(part, "it is not loaded", words, Remedy::Now(Action::LoadModule(name)))
}

fn device(address: &str, host: &Host) -> Need {
    let part = format!("device {address}");
    let Some(Some(device)) = host.devices.get(address) else {
        let words = "correct physnets.*.device; if it is a virtual function, make it: echo N \
                     >/sys/class/net/INTERFACE/device/sriov_numvfs";
        return lacks(part, "it is not there", words, Remedy::Hand);
    };
    let Device { driver, is_virtual, in_use, group } = device;
    match (driver.as_deref(), in_use) {
        (Some("vfio-pci"), _) => {}
        (Some(driver), _) if SHARED_DRIVERS.contains(&driver) => {
            return well(part, format!("{driver} has it, and shares it with DPDK"));
        }
        (Some(driver), Some(interface)) if !is_virtual => {
            let found = format!("{driver} has it, and {interface} is up: the host uses it");
            let words = format!("if nothing depends on it, ip link set {interface} down");
            return lacks(part, found, words, Remedy::Hand);
        }
        (driver, _) => {
            let found = match driver {
                Some(driver) => format!("{driver} has it"),
                None => "no driver has it".to_owned(),
            };
            if let Some(Lack { words, remedy }) = iommu_lack(host) {
                // Its driver keeps it until vfio-pci can have it.
                let found = format!("{found}, as vfio-pci needs the IOMMU");
                return lacks(part, found, words, remedy);
            }
            let words = format!("give it to vfio-pci: driverctl set-override {address} vfio-pci");
            return lacks(part, found, words, Remedy::Now(Action::Bind(address.to_owned())));
        }
    }
    match (group, &host.user) {
        (Some((path, owned)), Some(user)) if !may(user, *owned, 0o6) => {
            let found = format!("vfio-pci has it, and {USER} may not open {}", path.display());
            let words = format!("chown {USER}: {}", path.display());
            let (path, user, group) = (path.clone(), user.user, user.group);
            let action = Action::Own { path, user, group, mode: 0o600, make: false };
            lacks(part, found, words, Remedy::Now(action))
        }
        _ => well(part, "vfio-pci has it"),
    }
}

fn user(host: &Host) -> Need {
    let part = format!("user {USER}");
    if host.user.is_some() {
        return well(part, "it is there");
    }
    let words = format!("useradd --system --user-group {USER}");
    lacks(part, "it is not there", words, Remedy::Now(Action::AddUser))
}

/// The group by which QEMU and the switch reach each other's sockets.
fn guest_group(config: &Config, host: &Host) -> Option<Need> {
    let name = config.vhost.socket_group.as_deref().unwrap_or(GUEST_GROUP);
    let part = format!("group {name}");
    let Some(number) = host.guest_group else {
        let words = format!("groupadd --system {name}, and let QEMU run in it");
        return Some(lacks(part, "it is not there", words, Remedy::Hand));
    };
    let user = host.user.as_ref()?;
    if user.group == number || user.groups.contains(&number) {
        return Some(well(part, format!("{USER} is in it")));
    }
    let words = format!("usermod --append --groups {name} {USER}");
    let action = Action::JoinGroup(name.to_owned());
    Some(lacks(part, format!("{USER} is not in it"), words, Remedy::Now(action)))
}

fn directory(path: &Path, guests: bool, config: &Config, host: &Host) -> Need {
    let shown = path.display();
    let part = format!("directory {shown}");
    let group_name = match (guests, &config.vhost.socket_group) {
        (false, _) => USER,
        (true, Some(group)) => group,
        (true, None) => GUEST_GROUP,
    };
    // Files that are made in the guests' directory are of its group, whoever makes them.
    let mode = if guests { 0o2770 } else { 0o755 };
    let words = format!("install -d -o {USER} -g {group_name} -m {mode:o} {shown}");
    let Some(user) = &host.user else {
        let found = format!("its owner is to be {USER}, who is not there");
        return lacks(part, found, words, Remedy::Now(Action::AddUser));
    };
    let group = if guests { host.guest_group.unwrap_or(user.group) } else { user.group };
    let Some(Some(owned)) = host.directories.get(path) else {
        let (path, user) = (path.to_owned(), user.user);
        let action = Action::Own { path, user, group, mode, make: true };
        return lacks(part, "it is not there", words, Remedy::Now(action));
    };
    // What is there belongs to somebody, who is not put out of it by a program.
    if !may(user, *owned, 0o7) {
        return lacks(part, format!("{USER} may not write in it"), words, Remedy::Hand);
    }
    if guests && (owned.group != group || owned.mode & 0o070 != 0o070) {
        let found = format!("the group {group_name} may not write in it, nor do guests then");
        return lacks(part, found, words, Remedy::Hand);
    }
    well(part, format!("{USER} may write in it"))
}

/// Whether a user may do this (bits as in the last digit of permissions) with a file.
fn may(user: &Account, owned: Owned, bits: u32) -> bool {
    let granted = if owned.user == user.user {
        owned.mode >> 6
    } else if owned.group == user.group || user.groups.contains(&owned.group) {
        owned.mode >> 3
    } else {
        owned.mode
    };
    granted & bits == bits
}

fn memlock(config: &Config, host: &Host) -> Option<Need> {
    let part = "memory to lock";
    let bound_mib = host.memlock? >> 20;
    // vfio locks all of DPDK's memory; what else is locked is the program, and guests' memory.
    let found = format!("the service may lock {bound_mib} MiB");
    let words = format!(
        "systemctl edit viaduct: LimitMEMLOCK=infinity, as DPDK's memory alone is {} MiB",
        config.dpdk.memory_mib
    );
    Some(lacks(part, found, words, Remedy::Hand))
}
