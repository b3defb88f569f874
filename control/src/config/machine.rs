//! What the machine is, and what it has against a configuration.
//!
//! The facts are gathered first and judged after, so that the judgement can be tested with machines
//! that are not there. Hugepages, devices and the owner of a socket's file are not looked at: they may
//! change before they are used, and who uses them says what is wrong.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{AccessFlags, Group, Pid, User, access};

use super::{Config, Idle, Listen, ReturnTraffic, StoreConfig, Vhost};
use crate::cores;
use crate::model::{HostName, socket_path_misfit};
use crate::problem::{Fault, Misfit, Problem, quoted};

/// The machine, as far as a configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The kernel's host name, if it can stand in keys.
    pub host: Result<HostName, Misfit>,
    /// The CPUs that are online.
    pub online: BTreeSet<u32>,
    /// The CPUs that this process may run on.
    pub allowed: BTreeSet<u32>,
}

impl Machine {
    /// This machine, as this process may use it.
    pub fn here() -> Result<Machine, Problem> {
        const ONLINE: &str = "/sys/devices/system/cpu/online";
        let list = std::fs::read_to_string(ONLINE).map_err(|error| {
            Problem::whole(ONLINE, format!("cannot be read: {error}"), "mount sysfs at /sys")
        })?;
        let online = cores::parse_cpus(list.trim()).ok_or_else(|| {
            Problem::whole(
                ONLINE,
                format!("{} is not a list of CPUs", quoted(&list)),
                "mount sysfs at /sys",
            )
        })?;
        // 0: the calling thread.
        let affinity = sched_getaffinity(Pid::from_raw(0)).map_err(|error| {
            let what = format!("the kernel does not tell the affinity mask: {error}");
            Problem::whole("sched_getaffinity(2)", what, "allow this call")
        })?;
        let allowed = (0..CpuSet::count())
            .filter(|&cpu| affinity.is_set(cpu).unwrap_or(false))
            .filter_map(|cpu| u32::try_from(cpu).ok())
            .collect();
        Ok(Machine { host: host_name()?, online, allowed })
    }

    /// Chooses what the configuration leaves to the machine, and says what the machine has against
    /// the rest.
    pub(super) fn judge(&self, config: &mut Config, faults: &mut Vec<Fault>) {
        if config.workers.cores.is_empty() {
            config.workers.cores.extend(self.allowed.last());
        }
        self.judge_cores(config, faults);
        let workers = &config.workers.cores;
        for (name, physnet) in &config.physnets {
            for (index, core) in cores::strangers(&physnet.cores, workers) {
                let (what, remedy) = cores::stranger_fault(core, workers);
                faults.push(Fault::new(format!("physnets.{name}.cores[{index}]"), what, remedy));
            }
        }
        judge_store(&config.store, faults);
        if let Some(parent) = config.control.socket.parent() {
            faults.extend(directory_fault("control.socket", parent));
        }
        if let Some(Listen::Unix(path)) = &config.metrics.listen {
            faults
                .extend(path.parent().and_then(|parent| directory_fault("metrics.listen", parent)));
            faults.extend(socket_path_misfit(path).map(|it| Fault::misfit("metrics.listen", it)));
        }
        if let Some(parent) = config.fdb.file.as_ref().and_then(|file| file.parent()) {
            faults.extend(directory_fault("fdb.file", parent));
        }
        faults.extend(directory_fault("vhost.socket_directory", &config.vhost.socket_directory));
        let misfits = [
            ("control.socket", socket_path_misfit(&config.control.socket)),
            ("vhost.socket_owner", config.vhost.owner().err()),
            ("vhost.socket_group", config.vhost.group().err()),
        ];
        for (field, misfit) in misfits {
            faults.extend(misfit.map(|misfit| Fault::misfit(field, misfit)));
        }
    }

    fn judge_cores(&self, config: &Config, faults: &mut Vec<Fault>) {
        let cores = &config.workers.cores;
        let choose = format!("choose among {}", print_cpus(&self.allowed));
        for (index, core) in cores.iter().enumerate() {
            let field = format!("workers.cores[{index}]");
            if !self.online.contains(core) {
                let what = format!(
                    "CPU {core} is not in this machine, which has {}",
                    print_cpus(&self.online)
                );
                faults.push(Fault::new(field, what, &choose));
            } else if !self.allowed.contains(core) {
                let what = format!(
                    "CPU {core} is not allowed to this process, which may use {}",
                    print_cpus(&self.allowed)
                );
                let remedy = "choose among these, or widen the affinity (taskset, systemd's \
                              CPUAffinity and AllowedCPUs)";
                faults.push(Fault::new(field, what, remedy));
            }
        }
        let distinct: BTreeSet<u32> = cores.iter().copied().collect();
        if distinct.len() > self.allowed.len() {
            let what = format!(
                "{} workers need {} CPUs and there are {}",
                distinct.len(),
                distinct.len(),
                self.allowed.len()
            );
            faults.push(Fault::new("workers.cores", what, "list fewer, or run on more CPUs"));
        } else if self.allowed.is_subset(&distinct) {
            let what = "no CPU is left for control, which shares one with a worker";
            let remedy = match config.workers.idle {
                Idle::Poll => "leave one CPU out, or set workers.idle = \"sleep\"",
                Idle::Sleep => "leave one CPU out, if there is one to spare",
            };
            faults.push(Fault::new("workers.cores", what, remedy).warning());
        }
    }
}

impl Vhost {
    /// The number of the user that owns sockets, if one is configured.
    pub fn owner(&self) -> Result<Option<u32>, Misfit> {
        let by_name =
            |name: &str| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
        resolve(self.socket_owner.as_deref(), "user", by_name)
    }

    /// The number of the group of sockets, if one is configured.
    pub fn group(&self) -> Result<Option<u32>, Misfit> {
        let by_name =
            |name: &str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
        resolve(self.socket_group.as_deref(), "group", by_name)
    }
}

fn resolve(
    account: Option<&str>,
    kind: &str,
    by_name: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, Misfit> {
    let Some(account) = account else { return Ok(None) };
    // As chown(1) does: a name that looks like a number is still a name first.
    match by_name(account).or_else(|| account.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Misfit::new(
            format!("this machine has no {kind} {}", quoted(account)),
            format!("write the name or number of a {kind}, or make that one"),
        )),
    }
}

/// What the machine has against where the store is, or what was read of it is kept.
fn judge_store(store: &StoreConfig, faults: &mut Vec<Fault>) {
    let remote = store.etcd.is_some() || store.networking_vpp.is_some();
    let (field, directory, what_for) = if remote {
        let parent = store.cache.parent().unwrap_or(Path::new("/"));
        ("store.cache", parent, "it keeps there what it read last")
    } else {
        ("store.directory", store.directory.as_path(), "it reports actual state")
    };
    faults.extend(directory_fault(field, directory));
    if directory.is_dir() && access(directory, AccessFlags::W_OK).is_err() {
        faults.push(Fault::new(
            field,
            format!("{} cannot be written", quoted(&directory.display().to_string())),
            format!("let the user that runs viaduct write there: {what_for}"),
        ));
    }
    if let Some(vpp) = &store.networking_vpp
        && vpp.return_traffic == ReturnTraffic::None
    {
        let fault = Fault::new(
            "store.networking_vpp.return_traffic",
            "no answer passes unless a rule permits it, and Neutron's users expect answers",
            "remove the line, unless their groups have rules for both directions",
        );
        faults.push(fault.warning());
    }
    let etcd = store.etcd.as_ref().map(|etcd| ("etcd", &etcd.servers));
    let vpp = store.networking_vpp.as_ref().map(|vpp| ("networking_vpp", &vpp.servers));
    for (section, servers) in etcd.into_iter().chain(vpp) {
        let files = [
            ("ca", &servers.ca),
            ("certificate", &servers.certificate),
            ("key", &servers.key),
            ("password_file", &servers.password_file),
        ];
        for (name, file) in files {
            let Some(file) = file else { continue };
            if let Err(error) = std::fs::File::open(file) {
                faults.push(Fault::new(
                    format!("store.{section}.{name}"),
                    format!("{} cannot be read: {error}", quoted(&file.display().to_string())),
                    "correct the path, or let the user that runs viaduct read it",
                ));
            }
        }
    }
}

fn directory_fault(field: &str, directory: &Path) -> Option<Fault> {
    let shown = quoted(&directory.display().to_string());
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => {
            let what = format!("{shown} is not a directory");
            Some(Fault::new(field, what, "name a directory"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("the directory {shown} is not there");
            let remedy = format!("make it: mkdir -p {}", directory.display());
            Some(Fault::new(field, what, remedy))
        }
        Err(error) => {
            let what = format!("the directory {shown} cannot be looked at: {error}");
            Some(Fault::new(field, what, "let the user that runs viaduct enter it"))
        }
    }
}

/// The kernel's host name; the inner error if it cannot stand in a key.
pub(super) fn host_name() -> Result<Result<HostName, Misfit>, Problem> {
    const NAME: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(NAME).map_err(|error| {
        Problem::whole(NAME, format!("cannot be read: {error}"), "mount procfs at /proc")
    })?;
    Ok(name.trim_end().parse())
}

fn print_cpus(cpus: &BTreeSet<u32>) -> String {
    if cpus.is_empty() { "no CPU".to_owned() } else { format!("CPUs {}", cores::print_list(cpus)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus_are_read_and_printed() {
        for (list, printed) in
            [("0", "CPUs 0"), ("0-3", "CPUs 0-3"), ("0-1,4,6-7", "CPUs 0-1,4,6-7")]
        {
            assert_eq!(print_cpus(&cores::parse_cpus(list).expect(list)), printed);
        }
        for bad in ["", "x", "3-1", "0-99999999"] {
            assert_eq!(cores::parse_cpus(bad), None, "{bad}");
        }
        assert_eq!(print_cpus(&BTreeSet::new()), "no CPU");
    }

    #[test]
    fn this_machine_has_cpus_and_a_name() {
        let machine = Machine::here().expect("sysfs and procfs are mounted");
        assert!(!machine.allowed.is_empty());
        assert!(machine.allowed.is_subset(&machine.online), "{machine:?}");
        assert!(machine.host.is_ok());
    }

    #[test]
    fn accounts_are_names_or_numbers() {
        let vhost =
            |owner: &str| Vhost { socket_owner: Some(owner.to_owned()), ..Vhost::default() };
        assert_eq!(Vhost::default().owner(), Ok(None));
        assert_eq!(vhost("root").owner(), Ok(Some(0)));
        assert_eq!(vhost("64055").owner(), Ok(Some(64055)));
        assert_eq!(
            vhost("nobody-of-that-name").owner().map_err(|misfit| misfit.to_string()),
            Err("this machine has no user `nobody-of-that-name`; write the name or number of a \
                 user, or make that one"
                .to_owned())
        );
    }
}
