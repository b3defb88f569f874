//! A switch that cannot run as it is told says why, and what to do, and does not run.

use std::process::Command;

use nix::unistd::geteuid;

use crate::common::daemon::{Daemon, SOON};
use crate::common::process;
use crate::skip;

/// The configuration is wrong: nothing was begun.
const WRONG: i32 = 2;

/// It could not be carried out.
const FAILED: i32 = 1;

/// What to set, and all that the message must have in it: the line's field, the fault, the remedy.
#[test]
fn a_bad_configuration_is_told_by_line_field_and_remedy() {
    let long = format!("'/{}'", "s".repeat(120));
    let table: &[(&str, &str, &[&str])] = &[
        (
            "workers.cores",
            "[0, 9999]",
            &["workers.cores[1]: CPU 9999 is not in this machine, which has CPU", "; choose among"],
        ),
        ("workers.cores", "[]", &["workers.cores: no CPU is listed; list at least one"]),
        (
            "workers.coers",
            "[0]",
            &["workers.coers: is not a field of [workers]; remove it, or use one of: cores,"],
        ),
        (
            "store.directory",
            "'/nowhere/store'",
            &["store.directory: the directory `/nowhere/store` is not there; make it: mkdir -p"],
        ),
        (
            "vhost.socket_directory",
            "'/nowhere/vhost'",
            &["vhost.socket_directory: the directory `/nowhere/vhost` is not there; make it:"],
        ),
        ("control.socket", &long, &["control.socket: ", "121 octets long; choose a socket path"]),
        (
            "dpdk.pool_frames",
            "1000000",
            &["dpdk.pool_frames: 1000000 buffers", "; lower it, or set dpdk.memory_mib = "],
        ),
        ("physnets.w.mtu", "1500", &["physnets.w.device: is missing; write a PCI address"]),
        ("fdb.entries", "'many'", &["fdb.entries: `many` is not a whole number; write a"]),
        ("host", "'a b'", &["host: `a b` is not a host name; write 1 to 200 letters"]),
        ("fdb", "[", &["is not TOML: ", "; correct this line"]),
    ];
    for (key, value, said) in table {
        let builder = Daemon::builder().set(key, value);
        let output = builder.refused();
        assert_eq!(output.status, WRONG, "{key} = {value}: {}", output.text);
        let file = builder.folder().join("viaduct.toml").display().to_string();
        assert!(output.text.contains(&format!("{file}:")), "{key} = {value}: {}", output.text);
        says(&output.text, said);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
    command.args(["run", "--config", "/nowhere/viaduct.toml"]);
    let output = process::run(&mut command, SOON);
    assert_eq!(output.status, WRONG, "{}", output.text);
    says(&output.text, &["/nowhere/viaduct.toml: cannot be read", "; write it, or name another"]);
}

#[test]
fn workers_need_cores_that_the_process_may_use() {
    let builder = Daemon::builder().set("workers.cores", "[0, 1]").under(&["taskset", "-c", "0"]);
    let output = builder.refused();
    assert_eq!(output.status, WRONG, "{}", output.text);
    says(&output.text, &["workers.cores: 2 workers need 2 CPUs and there are 1; list fewer"]);
}

#[test]
fn a_machine_without_huge_pages_is_told_apart() {
    if !geteuid().is_root() {
        return skip("hiding the machine's huge pages needs root");
    }
    let probe = process::run(Command::new("unshare").args(["--mount", "true"]), SOON);
    if probe.status != 0 {
        return skip(&format!("there are no mount namespaces here: {}", probe.text.trim()));
    }
    // In a mount namespace of its own the switch sees a kernel that has none, on no NUMA node.
    let hide = "for all in /sys/kernel/mm/hugepages /sys/devices/system/node/node*/hugepages; do \
                  mount -t tmpfs none $all && mkdir $all/hugepages-2048kB && \
                  for pages in nr free resv surplus; do \
                    echo 0 >$all/hugepages-2048kB/${pages}_hugepages; done; done; \
                exec \"$@\"";
    let hidden: &[&str] = &["unshare", "--mount", "bash", "-c", hide, "bash"];
    let with = |huge: &str| Daemon::builder().set("dpdk.hugepages", huge).under(hidden);
    let output = with("true").refused();
    assert_eq!(output.status, FAILED, "{}", output.text);
    says(&output.text, &["huge pages", "sysctl vm.nr_hugepages=", "dpdk.hugepages = false"]);
    // What it says helps.
    with("false").start().stop();
}

#[test]
fn dpdk_arguments_that_dpdk_refuses_are_named() {
    let builder = Daemon::builder().set("dpdk.args", "['--no-such-option']");
    let output = builder.refused();
    assert_eq!(output.status, FAILED, "{}", output.text);
    says(&output.text, &["DPDK did not start", "--no-such-option"]);
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in what was said:\n{text}");
    }
}
