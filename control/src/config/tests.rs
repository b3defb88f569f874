//! Tables: a configuration, and the exact words about it, on machines that are not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::documented::{assert_documented, blocks};
use crate::problem::Severity;

/// CPUs 0-3, of which 1-3 are allowed; named `h`.
fn machine() -> Machine {
    Machine {
        host: "h".parse(),
        online: BTreeSet::from([0, 1, 2, 3]),
        allowed: BTreeSet::from([1, 2, 3]),
    }
}

/// Directories that exist, and a configuration that names them.
struct Bed {
    directory: TempDir,
}

impl Bed {
    fn new() -> Bed {
        Bed { directory: TempDir::new().expect("a directory for the test") }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration `text` with directories that exist put before it, on [`machine`].
    fn load(&self, text: &str) -> Result<Config, ConfigErrors> {
        let text = text.replace("DIR", &self.path().display().to_string());
        let file = self.path().join("viaduct.toml");
        fs::write(&file, text).expect("the directory can be written");
        let machine = machine();
        let judge = |config: &mut _, faults: &mut _| machine.judge(config, faults);
        read::from_file(&file, &machine.host, judge).map(|(config, _)| config)
    }

    /// What is said, without the name of the file.
    fn said(&self, problems: &[Problem]) -> Vec<String> {
        let file = self.path().join("viaduct.toml").display().to_string();
        let directory = self.path().display().to_string();
        let line = |problem: &Problem| {
            assert_documented(problem);
            let said = problem.to_string();
            said.strip_prefix(&file).expect("the file is named").replace(&directory, "DIR")
        };
        problems.iter().map(line).collect()
    }
}

/// Directories for whatever a test does not speak of.
const PLACES: &str = "store.directory = 'DIR'\ncontrol.socket = 'DIR/c'\n\
                      vhost.socket_directory = 'DIR'\n";

#[test]
fn nothing_need_be_said_but_where_directories_are() {
    let bed = Bed::new();
    let config = bed.load(PLACES).expect("all else has a default");
    assert_eq!(config.host.as_str(), "h");
    assert_eq!(config.workers, Workers { cores: vec![3], idle: Idle::Poll, sleep_max_us: 0 });
    assert_eq!(config.workers.sleep_max(), None);
    assert_eq!(config.dpdk, Dpdk::default());
    assert_eq!(config.fdb, Fdb::default());
    assert_eq!(config.vhost.socket_mode.bits(), 0o660);
    assert!(config.physnets.is_empty());
    assert_eq!(config.warnings, []);
}

#[test]
fn all_can_be_said() {
    let bed = Bed::new();
    let config = bed
        .load(
            r#"
            host = "compute-1"
            [store]
            directory = "DIR"
            [control]
            socket = "DIR/viaduct.sock"
            [workers]
            cores = [1, 2]
            idle = "sleep"
            sleep_max_us = 1_000
            [vhost]
            socket_directory = "DIR"
            socket_owner = "root"
            socket_group = 64055
            socket_mode = "0600"
            queues_max = 8
            connect_early = true
            reconnect_min_ms = 50
            reconnect_max_ms = 2000
            [dpdk]
            hugepages = false
            memory_mib = 512
            pool_frames = 0x4000
            frame_bytes = 9216
            args = ["--log-level=debug"]
            [fdb]
            entries = 4096
            ageing_seconds = 60
            port_quota = 100
            domain_quota = 1000
            file = "DIR/fdb.json"
            [physnets.physnet1]
            device = "0000:01:10.0"
            vlans = ["100-199", 300, "301"]
            mtu = 9000
            cores = [2]
            [physnets.physnet2]
            device = "net_af_packet0,iface=eth1"
            vlans = []
            "#,
        )
        .expect("all of this is allowed");
    assert_eq!(config.host.as_str(), "compute-1");
    assert_eq!(config.store.directory, bed.path());
    assert_eq!(config.control.socket, bed.path().join("viaduct.sock"));
    assert_eq!(config.workers.cores, [1, 2]);
    assert_eq!(config.workers.sleep_max(), Some(Duration::from_millis(1)));
    assert_eq!((config.vhost.owner(), config.vhost.group()), (Ok(Some(0)), Ok(Some(64055))));
    assert_eq!(config.vhost.socket_mode.bits(), 0o600);
    assert_eq!((config.vhost.reconnect_min_ms, config.vhost.reconnect_max_ms), (50, 2000));
    assert_eq!((config.vhost.queues_max, config.vhost.connect_early), (8, true));
    let cores: Vec<_> = config.physnets.values().map(|physnet| &physnet.cores[..]).collect();
    assert_eq!(cores, [&[2][..], &[]]);
    assert_eq!(
        config.dpdk,
        Dpdk {
            hugepages: false,
            memory_mib: 512,
            pool_frames: 0x4000,
            frame_bytes: 9216,
            args: vec!["--log-level=debug".to_owned()],
        }
    );
    let fdb = Fdb {
        entries: 4096,
        ageing_seconds: 60,
        port_quota: 100,
        domain_quota: 1000,
        file: Some(bed.path().join("fdb.json")),
    };
    assert_eq!(config.fdb, fdb);
    let physnets: Vec<_> = config
        .physnets
        .iter()
        .map(|(name, physnet)| {
            let device = physnet.device.as_ref().expect("no bond");
            format!("{name} {device} {} {}", physnet.vlans, physnet.mtu)
        })
        .collect();
    assert_eq!(
        physnets,
        ["physnet1 0000:01:10.0 100-199, 300-301 9000", "physnet2 net_af_packet0,iface=eth1  1500",]
    );
}

/// After the places, from line 4 on: a text, and all that is said.
#[test]
fn all_that_is_wrong_is_told_with_its_line() {
    let nothing_left = ":4: workers.cores: no CPU is left for control, which shares one with a \
                        worker; leave one CPU out, or set workers.idle = \"sleep\"";
    let table: &[(&str, &[&str])] = &[
        (
            "[workers\ncores = [1\n",
            &[
                ":4: is not TOML: unclosed table, expected `]`; correct this line",
                ":5: is not TOML: unclosed array, expected `]`; correct this line",
            ],
        ),
        (
            "[fdb]\nentries = 4096\nentries = 8192\n",
            &[":6: is not TOML: duplicate key; correct this line"],
        ),
        (
            "hots = 'h'\nhost = 'a b'\n[workres]\n",
            &[
                ":4: hots: is not a field of the configuration; remove it, or use one of: host, \
                 store, control, workers, vhost, dpdk, fdb, acl, metrics, log, physnets",
                ":5: host: `a b` is not a host name; write 1 to 200 letters, digits, `.`, `_` or \
                 `-`, the first a letter or digit",
                ":6: workres: is not a field of the configuration; remove it, or use one of: host, \
                 store, control, workers, vhost, dpdk, fdb, acl, metrics, log, physnets",
            ],
        ),
        (
            "[workers]\ncore = [1]\nidle = 'nap'\nsleep_max_us = 20000\n",
            &[
                ":5: workers.core: is not a field of [workers]; remove it, or use one of: cores, \
                 idle, sleep_max_us",
                ":6: workers.idle: `nap` is not known; write `poll` or `sleep`",
                ":7: workers.sleep_max_us: 20000 is too large; write a whole number from 0 to \
                 10000",
            ],
        ),
        (
            "workers.cores = [0, 1,\n 7, 1]\n",
            &[
                ":4: workers.cores[0]: CPU 0 is not allowed to this process, which may use CPUs \
                 1-3; choose among these, or widen the affinity (taskset, systemd's CPUAffinity \
                 and AllowedCPUs)",
                ":5: workers.cores[3]: CPU 1 is listed twice; list each CPU once",
                ":5: workers.cores[2]: CPU 7 is not in this machine, which has CPUs 0-3; choose \
                 among CPUs 1-3",
            ],
        ),
        (
            "workers.cores = [0, 1, 2, 3]\n",
            &[
                ":4: workers.cores[0]: CPU 0 is not allowed to this process, which may use CPUs \
                 1-3; choose among these, or widen the affinity (taskset, systemd's CPUAffinity \
                 and AllowedCPUs)",
                ":4: workers.cores: 4 workers need 4 CPUs and there are 3; list fewer, or run on \
                 more CPUs",
            ],
        ),
        (
            "workers.cores = []\n",
            &[":4: workers.cores: no CPU is listed; list at least one, or remove the line"],
        ),
        (
            "workers.cores = [1, 'two', -3]\n",
            &[
                ":4: workers.cores[1]: `two` is not a whole number; write a whole number from 0 to \
                 65535",
                ":4: workers.cores[2]: -3 is too small; write a whole number from 0 to 65535",
            ],
        ),
        (
            "workers.cores = 1\n",
            &[":4: workers.cores: 1 is not a list; write a list in square brackets"],
        ),
        (
            "[workers]\nsleep_max_us = 100\n",
            &[":5: workers.sleep_max_us: 100 has no effect with workers.idle = \"poll\"; set \
               workers.idle = \"sleep\", or remove the line"],
        ),
        (
            "[workers]\nidle = 'sleep'\nsleep_max_us = 0\n",
            &[":6: workers.sleep_max_us: 0 is no sleep; write 1 to 10000, or set workers.idle = \
               \"poll\""],
        ),
        (
            "vhost.socket_owner = 'nobody-of-that-name'\nvhost.socket_mode = 660\n\
             vhost.socket_group = true\n",
            &[
                ":4: vhost.socket_owner: this machine has no user `nobody-of-that-name`; write the \
                 name or number of a user, or make that one",
                ":5: vhost.socket_mode: 660 is not text; write permissions in octal and in quotes, \
                 such as \"0660\"",
                ":6: vhost.socket_group: true is neither a name nor a number; write a name in \
                 quotes, or a number",
            ],
        ),
        (
            "vhost.socket_mode = '9'\nvhost.queues_max = 0\nvhost.reconnect_min_ms = 6000\n",
            &[
                ":4: vhost.socket_mode: `9` are not permissions; write permissions in octal and in \
                 quotes, such as \"0660\"",
                ":5: vhost.queues_max: 0 is too small; write a whole number from 1 to 16",
                ":6: vhost.reconnect_min_ms: 6000 is more than vhost.reconnect_max_ms: 5000; lower \
                 this one or raise that one",
            ],
        ),
        (
            "[dpdk]\npool_frames = 1_000_000\nargs = ['-d x', 5]\n",
            &[
                ":5: dpdk.pool_frames: 1000000 buffers for frames of 2048 octets take 2259 MiB, \
                 and dpdk.memory_mib is 256; lower it, or set dpdk.memory_mib = 2291",
                ":6: dpdk.args[0]: `-d x` is not one argument; write one argument, such as \
                 \"--log-level=debug\"",
                ":6: dpdk.args[1]: 5 is not text; write one argument, such as \
                 \"--log-level=debug\"",
            ],
        ),
        (
            "[fdb]\nentries = 1024\ndomain_quota = 5000\nageing_seconds = 99999999999999999999\n",
            &[
                ":6: fdb.domain_quota: 5000 is too large; write a whole number from 1 to 1024",
                ":7: fdb.ageing_seconds: `99999999999999999999` is not a whole number; write a \
                 whole number from 10 to 1000000",
            ],
        ),
        (
            "[physnets.p]\nvlans = ['200-100', 0, '1-5000', true]\nmtu = 9000\n\
             [physnets.'a b']\ndevice = 'net_tap0'\n",
            &[
                ":4: physnets.p.device: is missing; write a PCI address such as 0000:01:10.0, a \
                 virtual function such as ens1f0/3, or a virtual device such as \
                 net_af_packet0,iface=eth1",
                ":5: physnets.p.vlans[0]: `200-100` ends before it begins; write \"100-200\"",
                ":5: physnets.p.vlans[1]: 0 is too small; write a whole number from 1 to 4094",
                ":5: physnets.p.vlans[2]: `1-5000` is not a range of VLANs; write a VLAN such as \
                 300 or a range such as \"100-199\", within 1 to 4094",
                ":5: physnets.p.vlans[3]: true is not a range of VLANs; write a VLAN such as 300 \
                 or a range such as \"100-199\", within 1 to 4094",
                ":7: physnets.a b: `a b` is not the name of a physnet; write 1 to 63 letters, \
                 digits, `.`, `_` or `-`, the first a letter or digit",
            ],
        ),
        (
            "[physnets.p]\ndevice = '0000:01:10.0'\nmtu = 9000\n\
             [physnets.q]\ndevice = '01:10.0'\n",
            &[
                ":6: physnets.p.mtu: frames of 9022 octets (22 more than the MTU) do not fit \
                 dpdk.frame_bytes: 2048; lower it, or set dpdk.frame_bytes = 9022",
                ":8: physnets.q.device: `0000:01:10.0` is the device of physnet `p`; give each \
                 physnet a device of its own",
            ],
        ),
        (
            "[physnets.p]\ndevice = 'net_tap0'\nbond.members = ['net_tap1']\n\
             [physnets.q.bond]\nmembers = ['net_tap1', 'net_tap1', '01:10.0']\nprimary = 'net_tap2'\n\
             [physnets.r.bond]\nmode = 'balance'\nprimary = 'net_tap3'\nspeed = 1\n",
            &[
                ":5: physnets.p.device: the wire has a bond too, whose members are its devices; \
                 remove this line or the bond",
                ":6: physnets.p.bond.members: a bond has 2 to 8 members, and these are 1; list two \
                 devices, or write `device` in place of the bond",
                ":8: physnets.q.bond.members[0]: `net_tap1` is the device of physnet `p`; give each \
                 physnet a device of its own",
                ":8: physnets.q.bond.members[1]: `net_tap1` is listed twice; give each physnet a \
                 device of its own",
                ":9: physnets.q.bond.primary: `net_tap2` is no member of the bond; write one of the \
                 members",
                ":10: physnets.r.bond.members: is missing; list the devices, as `device` names one",
                ":12: physnets.r.bond.primary: a primary is for mode `active-backup`: in others, all \
                 members carry; remove the line, or set mode = \"active-backup\"",
                ":13: physnets.r.bond.speed: is not a field of a bond; remove it, or use one of: \
                 members, mode, primary, up_delay_ms, monitor_ms, lacp_rate, \
                 lacp_system_priority, lacp_fallback",
            ],
        ),
        ("physnets = 5\n", &[":4: physnets: 5 is not an object; write the fields of [physnets]"]),
        (
            "workers.cores = [1, 2, 3]\nfdb.port_quota = 0\n",
            &[
                nothing_left,
                ":5: fdb.port_quota: 0 is too small; write a whole number from 1 to \
                             32768",
            ],
        ),
    ];
    let bed = Bed::new();
    for (text, messages) in table {
        let errors = bed.load(&format!("{PLACES}{text}")).expect_err(text);
        assert_eq!(bed.said(&errors.problems), *messages, "{text}");
    }
}

#[test]
fn a_doubtful_bond_is_warned_of() {
    let bed = Bed::new();
    let text = "[physnets.p.bond]\nmembers = ['0000:01:00.0', '01:00.1', 'net_null0']\n\
                primary = '01:00.0'\nmonitor_ms = 500\n";
    let config = bed.load(&format!("{PLACES}{text}")).expect("it can be run");
    let bond = config.physnets.values().next().and_then(|it| it.bond.clone()).expect("a bond");
    assert_eq!((bond.mode, bond.primary_at()), (BondMode::ActiveBackup, Some(0)));
    assert_eq!((bond.up_delay_ms, bond.monitor_ms), (1000, 500));
    assert_eq!(
        bed.said(&config.warnings),
        [
            ":5: physnets.p.bond.members[1]: `01:00.1` and `0000:01:00.0` are on one card, and fail \
             together with it; use ports of two cards where there are two",
            ":5: physnets.p.bond.members[2]: the driver of `net_null0` does not tell when its link \
             is lost; use a device of another driver: frames sent by this one may be lost",
            ":7: physnets.p.bond.monitor_ms: with 500 ms between two looks, a lost link is noticed \
             late: frames are lost meanwhile; set 50 or less for a failover within 100 ms",
        ]
    );
}

#[test]
fn lacp_has_defaults_and_is_not_configured_in_vain() {
    let bed = Bed::new();
    let members = "members = ['net_tap0', 'net_tap1']\n";
    let load = |more: &str| bed.load(&format!("{PLACES}[physnets.p.bond]\n{members}{more}"));
    let rules = |more: &str| {
        let config = load(more).unwrap_or_else(|errors| panic!("{:?}", errors.problems));
        config.physnets.values().next().and_then(|it| it.bond.clone()).expect("a bond").lacp()
    };
    assert_eq!(rules(""), None);
    let lacp = rules("mode = 'lacp'\n").expect("it is spoken");
    assert_eq!((lacp.fast, lacp.system_priority, lacp.fallback), (true, 65535, true));
    let more =
        "mode = 'lacp'\nlacp_rate = 'slow'\nlacp_system_priority = 7\nlacp_fallback = false\n";
    let lacp = rules(more).expect("it is spoken");
    assert_eq!((lacp.fast, lacp.system_priority, lacp.fallback), (false, 7, false));
    let errors =
        load("mode = 'balance'\nlacp_rate = 'fast'\nlacp_fallback = 1\n").expect_err("two");
    assert_eq!(
        bed.said(&errors.problems),
        [
            ":7: physnets.p.bond.lacp_rate: this is for mode `lacp`: in others, it is not spoken; \
             remove the line, or set mode = \"lacp\"",
            ":8: physnets.p.bond.lacp_fallback: 1 is neither true nor false; write true or false, \
             without quotes",
        ]
    );
    let vfs = "[physnets.p.bond]\nmembers = ['ens1f0/1', 'ens1f1/1']\nmode = 'lacp'\n";
    let config = bed.load(&format!("{PLACES}{vfs}")).expect("it can be run");
    let said = bed.said(&config.warnings);
    let doubt = "`ens1f0/1` is a virtual function, and cards as a rule give none LACP frames; use \
                 whole ports of cards, or leave LACP to the host's kernel";
    assert!(said.iter().any(|said| said.ends_with(doubt)), "{said:?}");
}

#[test]
fn places_must_be_there_and_short_enough() {
    let bed = Bed::new();
    fs::write(bed.path().join("file"), "").expect("the directory can be written");
    let long = "s".repeat(120);
    let text = format!(
        "store.directory = 'DIR/file'\ncontrol.socket = '/{long}'\n\
         vhost.socket_directory = 'DIR/none'\n"
    );
    let said = bed.said(&bed.load(&text).expect_err("three things").problems);
    assert_eq!(
        said,
        [
            ":1: store.directory: `DIR/file` is not a directory; name a directory".to_owned(),
            format!(
                ":2: control.socket: `/{}…` is 121 octets long; choose a socket path of at most \
                 107 octets: the kernel takes no more",
                "s".repeat(119)
            ),
            ":3: vhost.socket_directory: the directory `DIR/none` is not there; make it: mkdir -p \
             DIR/none"
                .to_owned(),
        ]
    );
    let errors = bed.load("store.directory = 'a'\n").expect_err("a relative path");
    assert_eq!(
        bed.said(&errors.problems)[0],
        ":1: store.directory: `a` is not an absolute path; write an absolute path, such as \
         \"/run/viaduct\""
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = Config::load(Path::new("/nowhere/viaduct.toml")).expect_err("no such file");
    assert_eq!(
        errors.to_string(),
        "/nowhere/viaduct.toml: cannot be read: No such file or directory (os error 2); write it, \
         or name another one with --config"
    );
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let bed = Bed::new();
    let text = format!("{PLACES}workers.cores = [1, 2, 3]\nworkers.idle = 'sleep'\n");
    let config = bed.load(&text).expect("a warning is no error");
    assert_eq!(config.workers.sleep_max(), Some(Duration::from_micros(250)));
    assert_eq!(
        bed.said(&config.warnings),
        [
            ":4: workers.cores: no CPU is left for control, which shares one with a worker; leave one \
          CPU out, if there is one to spare"
        ]
    );
    assert_eq!(config.warnings[0].severity, Severity::Warning);
}

#[test]
fn a_small_table_has_small_quotas() {
    let bed = Bed::new();
    let config = bed.load(&format!("{PLACES}fdb.entries = 1024\n")).expect("quotas follow");
    assert_eq!((config.fdb.domain_quota, config.fdb.port_quota), (1024, 1024));
}

#[test]
fn the_documented_configuration_is_the_default_one() {
    let bed = Bed::new();
    let file = bed.path().join("viaduct.toml");
    let read = |text: &str| {
        fs::write(&file, text).expect("the directory can be written");
        Config::read(&file).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let page: String = blocks("toml").collect();
    assert_eq!(read(&page), read(""));
    // What is commented out there is right as well.
    let physnet: String = page
        .lines()
        .skip_while(|line| !line.starts_with("# [physnets"))
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let config = read(&physnet);
    let physnet = &config.physnets[&"physnet1".parse::<PhysnetName>().expect("a name")];
    assert_eq!((physnet.mtu, &physnet.vlans), (default_mtu(), &VlanRanges::all()));
}

#[test]
fn commands_read_it_without_looking_at_the_machine() {
    let bed = Bed::new();
    let file = bed.path().join("viaduct.toml");
    fs::write(&file, "host = 'x'\nworkers.cores = [9999]\nstore.directory = '/nowhere'\n")
        .expect("the directory can be written");
    let config = Config::read(&file).expect("the machine is not asked");
    assert_eq!(config.store.directory, Path::new("/nowhere"));
    assert!(Config::load(&file).is_err());
}

#[test]
fn the_example_for_openstack_is_one() {
    let page = include_str!("../../../docs/openstack.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    // What is commented out must be good as well.
    let text = example.expect("there is one").replace("\n# ", "\n");
    let bed = Bed::new();
    let file = bed.path().join("viaduct.toml");
    fs::write(&file, text).expect("the directory can be written");
    let config = read::from_file(&file, &machine().host, |_, _| {});
    let errors = config.expect_err("the files of TLS go with https").problems;
    let said: Vec<_> = errors.iter().map(|problem| (&*problem.field, &*problem.what)).collect();
    let unused = "is used only with https";
    assert_eq!(
        said,
        [
            ("store.networking_vpp.ca", unused),
            ("store.networking_vpp.certificate", unused),
            ("store.networking_vpp.key", unused),
        ]
    );
    let text = fs::read_to_string(&file).expect("it was written").replace("http:", "https:");
    fs::write(&file, text).expect("the directory can be written");
    let (config, _) = read::from_file(&file, &machine().host, |_, _| {}).expect("it is good");
    let vpp = config.store.networking_vpp.expect("it is configured");
    assert_eq!((vpp.queues, vpp.mtu, vpp.security_groups), (1, Some(1500), true));
    let physnet = "physnet1".parse().expect("a name");
    assert_eq!(vpp.physnet_mtus.get(&physnet), Some(&1500));
}

#[test]
fn that_no_answer_passes_is_warned_of() {
    let bed = Bed::new();
    let text = "control.socket = 'DIR/c'\nvhost.socket_directory = 'DIR'\n[store]\n\
                cache = 'DIR/cache'\n[store.networking_vpp]\nendpoints = ['http://[::1]:2379']\n";
    assert_eq!(bed.load(text).expect("it is good").warnings, []);
    let config = bed.load(&format!("{text}return_traffic = 'none'\n")).expect("it is good");
    assert_eq!(
        bed.said(&config.warnings),
        [
            ":7: store.networking_vpp.return_traffic: no answer passes unless a rule permits it, and \
          Neutron's users expect answers; remove the line, unless their groups have rules for both \
          directions"
        ]
    );
}
