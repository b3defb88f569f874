//! Hosts that are not there, and what is said of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::host::{Account, Device, Hugepages, Owned};
use super::*;
use crate::config::Idle;

const VF: &str = "0000:01:10.0";

/// The defaults, with a worker on CPU 1 and a virtual function.
fn config() -> Config {
    let directory = tempfile::TempDir::new().expect("a directory for the test");
    let file = directory.path().join("viaduct.toml");
    let text = format!("workers.cores = [1]\nphysnets.p.device = '{VF}'\n");
    std::fs::write(&file, text).expect("it can be written");
    Config::read(&file).expect("it is right")
}

/// A host that lacks nothing for it: the user is 990, the group of guests 107.
fn host() -> Host {
    let user = Account { user: 990, group: 990, groups: BTreeSet::from([107]) };
    let own = |group, mode| Some(Owned { user: 990, group, mode });
    let group = (PathBuf::from("/dev/vfio/8"), Owned { user: 990, group: 990, mode: 0o600 });
    let device = Device {
        driver: Some("vfio-pci".to_owned()),
        is_virtual: true,
        in_use: None,
        group: Some(group),
    };
    Host {
        online: BTreeSet::from([0, 1, 2, 3]),
        isolated: BTreeSet::from([1]),
        tickless: BTreeSet::from([1]),
        hugepages: Some(Hugepages { total: 129, free: 129 }),
        spare_mib: 4096,
        runs: false,
        parameters: Vec::new(),
        intel: true,
        iommu: true,
        modules: BTreeSet::from(["vfio_pci", "vfio_iommu_type1"]),
        devices: BTreeMap::from([(VF.to_owned(), Some(device))]),
        user: Some(user),
        guest_group: Some(107),
        directories: BTreeMap::from([
            ("/var/lib/viaduct".into(), own(990, 0o750)),
            ("/run/viaduct".into(), own(990, 0o755)),
            ("/run/viaduct/vhost".into(), own(107, 0o2770)),
        ]),
        memlock: None,
    }
}

/// What is lacking: the part, what there is, what to do.
fn lacking(config: &Config, host: &Host) -> Vec<(String, String, Lack)> {
    lacking_for(Purpose::Start, config, host)
}

fn lacking_for(purpose: Purpose, config: &Config, host: &Host) -> Vec<(String, String, Lack)> {
    let needs = judge(config, host, purpose).into_iter();
    needs.filter_map(|need| Some((need.part, need.found, need.lack?))).collect()
}

/// The one thing that is lacking after a change of the host.
#[track_caller]
fn only(change: impl FnOnce(&mut Config, &mut Host)) -> (String, String, Lack) {
    let (mut config, mut host) = (config(), host());
    change(&mut config, &mut host);
    let mut lacking = lacking(&config, &host);
    assert_eq!(lacking.len(), 1, "{lacking:#?}");
    lacking.remove(0)
}

#[track_caller]
fn boots(change: impl FnOnce(&mut Config, &mut Host)) -> (String, Vec<String>) {
    match only(change) {
        (_, found, Lack { remedy: Remedy::Boot(parameters), words }) => {
            for parameter in &parameters {
                assert!(words.contains(parameter.as_str()), "{words}");
            }
            (found, parameters.into_iter().collect())
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn acts(change: impl FnOnce(&mut Config, &mut Host)) -> Action {
    match only(change) {
        (_, _, Lack { remedy: Remedy::Now(action), .. }) => action,
        other => panic!("{other:?}"),
    }
}

/// What there is, and what somebody is told to do.
#[track_caller]
fn by_hand(change: impl FnOnce(&mut Config, &mut Host)) -> (String, String) {
    match only(change) {
        (_, found, Lack { remedy: Remedy::Hand, words }) => (found, words),
        other => panic!("{other:?}"),
    }
}

fn device_of(host: &mut Host) -> &mut Device {
    host.devices.get_mut(VF).and_then(Option::as_mut).expect("it is there")
}

#[test]
fn a_host_that_has_all_lacks_nothing() {
    assert_eq!(lacking(&config(), &host()), []);
}

#[test]
fn huge_pages_are_for_dpdk_and_the_fdb() {
    let mut config = config();
    assert_eq!(hugepages_needed(&config), (128, 1), "131072 addresses of 16 octets are 2 MiB");
    config.fdb.entries = 131_073;
    assert_eq!(hugepages_needed(&config), (128, 2), "the table doubles");
    config.dpdk.memory_mib = 1023;
    assert_eq!(hugepages_needed(&config), (512, 2));

    // Those that others use are not counted.
    let action = acts(|_, host| host.hugepages = Some(Hugepages { total: 600, free: 100 }));
    assert_eq!(action, Action::Hugepages(629));
    let (found, words) = by_hand(|_, host| {
        host.hugepages = Some(Hugepages::default());
        host.spare_mib = 257;
    });
    assert_eq!(found, "129 of 2 MiB are needed (128 for DPDK, 1 for the FDB), 0 of 0 are free");
    assert!(words.starts_with("258 MiB more are needed and the host can spare 257 MiB"), "{words}");
    by_hand(|_, host| host.hugepages = None);

    let mut host = host();
    host.hugepages = Some(Hugepages::default());
    host.runs = true;
    assert_eq!(lacking(&self::config(), &host), [], "the switch that runs has them");
    let pages = |host: &Host| match &lacking_for(Purpose::Handover, &self::config(), host)[..] {
        [(_, found, Lack { remedy: Remedy::Now(Action::Hugepages(pages)), .. })] => {
            (found.clone(), *pages)
        }
        other => panic!("{other:?}"),
    };
    host.hugepages = Some(Hugepages { total: 130, free: 1 });
    let (found, total) = pages(&host);
    assert!(found.contains("for the FDB beside those of the switch that runs)"), "{found}");
    assert_eq!(total, 258, "another switch's, for the time of a handover");
    host.hugepages = Some(Hugepages { total: 258, free: 129 });
    assert_eq!(lacking_for(Purpose::Handover, &self::config(), &host), []);
    host.runs = false;
    let (found, total) = pages(&host);
    assert!(found.starts_with("258 of 2 MiB are needed"), "{found}");
    assert_eq!(total, 258 + 129, "two switches', as none runs");
    host.hugepages = Some(Hugepages::default());
    config.dpdk.hugepages = false;
    assert_eq!(lacking(&config, &host), []);
}

#[test]
fn workers_that_poll_have_cores_of_their_own() {
    let (found, parameters) = boots(|config, host| {
        config.workers.cores = vec![1, 2, 3];
        host.isolated = BTreeSet::from([1]);
    });
    assert_eq!(found, "CPUs 2-3 are shared with whatever else runs");
    assert_eq!(parameters, ["isolcpus=managed_irq,domain,1-3", "nohz_full=1-3", "rcu_nocbs=1-3"]);
    // CPUs that are kept for somebody else stay so.
    let (found, parameters) = boots(|_, host| {
        host.isolated = BTreeSet::from([1, 3]);
        host.tickless.clear();
    });
    assert_eq!(found, "CPUs 1 are interrupted by the timer");
    assert_eq!(parameters[1], "nohz_full=1,3");
    // Where no core is configured the worker takes the last.
    boots(|config, _| config.workers.cores.clear());
    by_hand(|config, _| config.workers.cores = vec![0, 1, 2, 3]);

    let mut host = host();
    host.isolated.clear();
    let mut config = config();
    config.workers.idle = Idle::Sleep;
    assert_eq!(lacking(&config, &host), []);
}

#[test]
fn an_iommu_is_switched_on_in_the_kernel_or_the_firmware() {
    let (_, parameters) = boots(|_, host| host.iommu = false);
    assert_eq!(parameters, ["intel_iommu=on", "iommu=pt"]);
    let (_, parameters) = boots(|_, host| {
        host.iommu = false;
        host.intel = false;
    });
    assert_eq!(parameters, ["iommu=pt"], "the kernel uses that of AMD by itself");
    let (_, words) = by_hand(|_, host| {
        host.iommu = false;
        host.parameters = ["quiet", "intel_iommu=on", "iommu=pt"].map(str::to_owned).into();
    });
    assert!(words.contains("firmware"), "{words}");

    // Without one, a device stays with its driver.
    let (config, mut host) = (config(), host());
    host.iommu = false;
    device_of(&mut host).driver = Some("iavf".to_owned());
    let lacking = lacking(&config, &host);
    let (part, found, lack) = &lacking[1];
    assert_eq!((&**part, lacking.len()), ("device 0000:01:10.0", 2));
    assert_eq!(found, "iavf has it, as vfio-pci needs the IOMMU");
    assert_eq!(*lack, lacking[0].2);
}

#[test]
fn who_has_no_device_needs_no_iommu() {
    let (mut config, mut host) = (config(), host());
    config.physnets.clear();
    host.iommu = false;
    host.modules.clear();
    assert_eq!(lacking(&config, &host), []);
}

#[test]
fn devices_are_taken_from_the_kernel_unless_the_host_uses_them() {
    assert_eq!(
        acts(|_, host| assert!(host.modules.remove("vfio_pci"))),
        Action::LoadModule("vfio_pci")
    );
    let bind = Action::Bind(VF.to_owned());
    let taken_by = |driver: Option<&str>, is_virtual, interface: Option<&str>| {
        let (driver, in_use) = (driver.map(str::to_owned), interface.map(str::to_owned));
        move |_: &mut Config, host: &mut Host| {
            *device_of(host) = Device { driver, is_virtual, in_use, group: None };
        }
    };
    assert_eq!(acts(taken_by(None, true, None)), bind);
    assert_eq!(acts(taken_by(Some("iavf"), true, Some("eth7"))), bind, "a VF is made for us");
    assert_eq!(acts(taken_by(Some("ixgbe"), false, None)), bind);
    let (found, words) = by_hand(taken_by(Some("ixgbe"), false, Some("eth0")));
    assert_eq!(found, "ixgbe has it, and eth0 is up: the host uses it");
    assert!(words.contains("ip link set eth0 down"), "{words}");
    by_hand(|_, host| host.devices = BTreeMap::from([(VF.to_owned(), None)]));

    let (config, mut host) = (config(), host());
    *device_of(&mut host) = Device { driver: Some("mlx5_core".to_owned()), ..Device::default() };
    assert_eq!(lacking(&config, &host), [], "DPDK shares it with the kernel");
}

#[test]
fn the_service_may_open_its_devices() {
    let path = PathBuf::from("/dev/vfio/8");
    let root = Owned { user: 0, group: 0, mode: 0o600 };
    let action = acts(|_, host| device_of(host).group = Some((path.clone(), root)));
    assert_eq!(action, Action::Own { path, user: 990, group: 990, mode: 0o600, make: false });
}

#[test]
fn guests_and_the_switch_meet_by_a_group() {
    assert_eq!(
        acts(|_, host| host.user.as_mut().expect("a user").groups.clear()),
        Action::JoinGroup("kvm".to_owned())
    );
    let vhost = Path::new("/run/viaduct/vhost");
    let set = |user, group, mode| {
        move |_: &mut Config, host: &mut Host| {
            host.directories.insert(vhost.to_owned(), Some(Owned { user, group, mode }));
        }
    };
    for odd in [set(990, 990, 0o770), set(990, 107, 0o755)] {
        let (found, words) = by_hand(odd);
        assert!(found.starts_with("the group kvm may not write in it"), "{found}");
        assert_eq!(words, "install -d -o viaduct -g kvm -m 2770 /run/viaduct/vhost");
    }
    // What belongs to somebody else is not taken from them.
    by_hand(set(0, 0, 0o755));
    assert_eq!(
        acts(|_, host| host.directories.retain(|path, _| path != vhost)),
        Action::Own { path: vhost.to_owned(), user: 990, group: 107, mode: 0o2770, make: true }
    );
}

#[test]
fn memory_can_be_locked() {
    let (found, words) = by_hand(|_, host| host.memlock = Some(8 << 20));
    assert_eq!(found, "the service may lock 8 MiB");
    assert!(words.contains("LimitMEMLOCK=infinity"), "{words}");
}

#[test]
fn the_user_comes_first() {
    let (config, mut host) = (config(), host());
    host.user = None;
    host.directories.clear();
    let lacking = lacking(&config, &host);
    assert_eq!(lacking[0].2.remedy, Remedy::Now(Action::AddUser));
    // Its directories wait for it.
    let add = Remedy::Now(Action::AddUser);
    assert!(lacking[1..].iter().all(|(_, _, lack)| lack.remedy == add), "{lacking:#?}");
}

#[test]
fn outcomes_tell_what_was_done() {
    let need = |lack| Need { part: "p".to_owned(), found: String::new(), lack };
    let of = |lack, lacked| Outcome::of(need(lack), lacked);
    assert_eq!((of(None, false).state, of(None, true).state), (State::Ok, State::Done));
    let lack = |remedy| Some(Lack { words: "w".to_owned(), remedy });
    for (remedy, state) in [
        (Remedy::Now(Action::AddUser), State::Lacking),
        (Remedy::Boot(BTreeSet::new()), State::Boot),
        (Remedy::Hand, State::Hand),
    ] {
        let outcome = of(lack(remedy), true);
        assert_eq!((outcome.state, outcome.is_well(), &*outcome.remedy), (state, false, "w"));
    }
}
