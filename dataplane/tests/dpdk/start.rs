//! Starts of EAL that need a process of their own: the test runs itself again as a child.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

use dataplane::dpdk::{Eal, EalError, EalOptions, EthConfig, EthDev, Mempool};
use nix::sched::sched_getaffinity;
use nix::unistd::{Pid, geteuid};
use tracing::Level;

use crate::{affinity, eal, numbered, record, skip, small};

const CHILD: &str = "VIADUCT_TEST_CHILD";

/// Runs `body` in a child process: this test again, as user nobody if we are root and it is told
/// to, and on a PCI bus of our making. The child must end well, leave stderr empty, and nothing in
/// its runtime directory.
fn in_child(test: &str, as_nobody: bool, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    let runtime = env::temp_dir().join(format!("viaduct-{}-{test}", process::id()));
    fs::create_dir(&runtime).expect("a directory that is ours");
    fs::set_permissions(&runtime, Permissions::from_mode(0o777)).expect("it is ours");

    let pci = runtime.join("pci");
    make_pci_bus(&pci);

    let program = env::current_exe().expect("we know ourselves");
    let mut child = Command::new(&program);
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    child.env(CHILD, "1").current_dir("/");
    child.env("RUNTIME_DIRECTORY", &runtime).env("SYSFS_PCI_DEVICES", &pci);
    if as_nobody && geteuid().is_root() {
        // The library drops the supplementary groups with them.
        child.uid(65534).gid(65534);
    }
    let output = child.output().unwrap_or_else(|error| {
        panic!("{} cannot be run by nobody ({error}): use another target folder", program.display())
    });
    let left: Vec<_> = fs::read_dir(runtime.join("dpdk")).into_iter().flatten().flatten().collect();
    fs::remove_dir_all(&runtime).expect("it is ours");

    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "child: {:?}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "the child ran nothing: {stdout}");
    assert_eq!(stderr, "", "DPDK must not write to stderr");
    assert!(left.is_empty(), "left in the runtime directory: {left:?}");
}

/// A PCI bus as sysfs shows it, with one VF (of an Intel 82576) that its kernel driver holds.
fn make_pci_bus(bus: &Path) {
    let vf = bus.join("0000:01:10.0");
    fs::create_dir_all(&vf).expect("the directory is ours");
    for (name, text) in [
        ("vendor", "0x8086\n"),
        ("device", "0x10ca\n"),
        ("subsystem_vendor", "0x8086\n"),
        ("subsystem_device", "0x10ca\n"),
        ("class", "0x020000\n"),
        ("resource", &"0x0 0x0 0x0\n".repeat(6)),
    ] {
        fs::write(vf.join(name), text).expect("the directory is ours");
    }
    symlink("../drivers/igbvf", vf.join("driver")).expect("the directory is ours");
}

#[test]
fn nobody_starts_it_without_huge_pages_and_it_is_quiet() {
    in_child("start::nobody_starts_it_without_huge_pages_and_it_is_quiet", true, || {
        assert!(!geteuid().is_root(), "the test is about ordinary users");
        record::install();
        let before = affinity();
        let eal = Eal::start(&small()).expect("an ordinary user can start it");
        assert!(before == affinity());
        assert!(record::heard(Level::INFO, "EAL: Detected CPU lcores"));

        let _registered = eal.register_thread().expect("a free place");
        let pool = Mempool::create(&eal, "child", 255, 2048, None).expect("a pool");
        let mut device = EthDev::probe(&eal, "net_ring0").expect("a virtual device");
        let mut started =
            device.configure_and_start(&EthConfig::default(), &pool).expect("it starts");
        let mut frames = Vec::with_capacity(32);
        frames.push(crate::frame(&pool, &numbered(1)));
        started.txqs[0].tx_burst(&mut frames);
        started.rxqs[0].rx_burst(&mut frames);
        assert_eq!(crate::bytes(&frames[0]), numbered(1));
        assert!(EthDev::probe(&eal, "net_nosuch0").is_err());

        drop((frames, started, device));
        assert_eq!(pool.available(), 255);
    });
}

#[test]
fn a_failed_start_says_why_and_is_quiet() {
    in_child("start::a_failed_start_says_why_and_is_quiet", true, || {
        // A tebibyte of huge pages, which no machine that runs tests has.
        let greedy = EalOptions { memory_mib: 1 << 20, ..EalOptions::default() };
        match Eal::start(&greedy) {
            Err(error @ EalError::Start { .. }) => {
                let text = error.to_string();
                assert!(text.contains("1048576 MiB of huge pages"), "{text}");
                assert!(text.contains("Cannot init memory") || text.contains("hugepage"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(Eal::start(&small()), Err(EalError::AlreadyStarted)));
    });
}

#[test]
fn an_unknown_argument_is_named_and_quiet() {
    in_child("start::an_unknown_argument_is_named_and_quiet", true, || {
        let odd = EalOptions { extra_args: vec!["--no-such-option".to_owned()], ..small() };
        let text = Eal::start(&odd).expect_err("EAL knows no such option").to_string();
        assert!(text.contains("dpdk.extra_args") && text.contains("--no-such-option"), "{text}");
    });
}

#[test]
fn huge_pages_leave_no_files() {
    const NEED: u64 = 64;
    let free = free_hugepages_mib();
    if free < NEED {
        let reason = format!("{free} MiB of huge pages are free, not {NEED}");
        return skip("huge_pages_leave_no_files", &reason);
    }
    in_child("start::huge_pages_leave_no_files", false, || {
        let files = || fs::read_dir("/dev/hugepages").map(Iterator::count).unwrap_or(0);
        let before = files();
        let eal = Eal::start(&EalOptions { memory_mib: 32, ..EalOptions::default() })
            .expect("there are huge pages");
        let pool = Mempool::create(&eal, "huge", 1023, 2048, None).expect("a pool");
        assert_eq!(pool.available(), 1023);
        assert!(free_hugepages_mib() <= free - 32, "the memory is of huge pages");
        assert_eq!(files(), before, "no files on hugetlbfs");
    });
}

/// Free huge pages of 2 MiB, in MiB.
fn free_hugepages_mib() -> u64 {
    let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map_or(0, |n: u64| n * 2)
}

#[test]
fn its_threads_run_where_its_starter_may() {
    in_child("start::its_threads_run_where_its_starter_may", true, || {
        let before = threads();
        Eal::start(&small()).expect("it starts");
        for thread in threads().difference(&before) {
            let tid: i32 = thread.parse().expect("a number");
            let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
            // The thread that started EAL may be about to vanish.
            let (Ok(allowed), Ok(name)) = (sched_getaffinity(Pid::from_raw(tid)), name) else {
                continue;
            };
            assert!(allowed == affinity(), "{name} may run elsewhere");
            assert!(!name.starts_with("rte-worker"), "a thread for each CPU");
        }
        assert!(threads().len() > before.len(), "EAL has helper threads");
    });
}

/// The threads of this process.
fn threads() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn pci_devices_wait_until_they_are_named() {
    in_child("start::pci_devices_wait_until_they_are_named", true, || {
        record::install();
        let verbose =
            EalOptions { extra_args: vec!["--log-level=lib.eal:debug".into()], ..small() };
        let eal = Eal::start(&verbose).expect("it starts");
        assert!(!record::heard(Level::DEBUG, "PCI device 0000:01:10.0"), "probed at start");

        let text = EthDev::probe(&eal, "01:10.0").expect_err("the kernel has it").to_string();
        assert!(record::heard(Level::DEBUG, "PCI device 0000:01:10.0"), "{text}");
        assert!(text.contains("`0000:01:10.0`") && text.contains("bind it to vfio-pci"), "{text}");
        let text = EthDev::probe(&eal, "01:10.1").expect_err("there is none").to_string();
        assert!(text.contains("no device has this address"), "{text}");
    });
}

#[test]
fn it_starts_once() {
    let _turn = eal();
    assert!(record::heard(Level::INFO, "EAL: Detected CPU lcores"));
    assert!(matches!(Eal::start(&small()), Err(EalError::AlreadyStarted)));
}
