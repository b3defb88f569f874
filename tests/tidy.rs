//! House rules that a lint cannot check: where `unsafe` may stand, who may import whom, how long
//! files may get, that each begins by saying what it is, and that each dependency is argued.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the tree fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file, tests in files of their own apart.
const LINES_MAX: usize = 500;
/// Lines of a file of tests.
const TEST_LINES_MAX: usize = 900;

/// Files and directories in which `unsafe` may stand: calls into DPDK, memory that guests write
/// to, descriptors that come by a socket, the FDB's huge pages, the classifier's tables, whose
/// makers have seen where they lead, and instructions without a safe name: the time-stamp
/// counter, comparisons of vectors, what newer processors have.
const FENCE: &[&str] = &[
    "bench/",
    "dataplane/dpdk-sys/",
    "dataplane/src/acl/burst.rs",
    "dataplane/src/acl/known.rs",
    "dataplane/src/acl/permits.rs",
    "dataplane/src/acl/search.rs",
    "dataplane/src/clock.rs",
    "dataplane/src/dpdk/",
    "dataplane/src/fdb/memory.rs",
    "dataplane/src/fdb/mod.rs",
    "dataplane/src/lanes.rs",
    "dataplane/src/port/eth.rs",
    "dataplane/tests/",
    "tests/",
    "vhost/src/burst/",
    "vhost/src/copy.rs",
    "vhost/src/device.rs",
    "vhost/src/lock.rs",
    "vhost/src/memory.rs",
    "vhost/src/mock.rs",
    "vhost/src/socket/",
    "vhost/src/vring/",
    "vhost/tests/",
];

/// What each part of the tree must not know. Crates cannot import upwards in any case; modules of
/// one crate could.
const STRANGERS: &[(&str, &[&str])] = &[
    ("vhost/src/", &["dpdk_sys", "dataplane::", "control::"]),
    ("vhost/src/vring/", &["crate::session", "crate::socket", "crate::message"]),
    ("vhost/src/message/", &["crate::device", "crate::vring"]),
    ("dataplane/src/headers.rs", &["crate::dpdk", "crate::port", "vhost::Device"]),
    ("dataplane/src/decide.rs", &["crate::dpdk", "crate::port", "vhost::"]),
    ("dataplane/src/fdb/", &["crate::dpdk", "crate::port", "vhost::Device"]),
    ("dataplane/src/snapshot/", &["crate::dpdk", "crate::port", "vhost::"]),
    ("dataplane/src/publish.rs", &["crate::dpdk", "crate::port", "vhost::"]),
    ("dataplane/src/worker.rs", &["crate::dpdk", "tracing::"]),
    ("dataplane/src/", &["control::", "tokio::"]),
    ("control/src/model/", &["dataplane::", "vhost::", "crate::switch"]),
    ("control/src/compile.rs", &["crate::switch", "crate::store", "dpdk"]),
    ("src/", &["dpdk_sys", "dataplane::dpdk"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust sources, by their path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = ["bench", "control", "dataplane", "src", "tests", "vhost"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.push(("build.rs".to_owned(), fs::read_to_string(root().join("build.rs")).unwrap()));
    found.sort();
    found
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests")
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    assert_none(silent.map(|(name, _)| format!("{name} does not begin with `//!`")).collect());
}

#[test]
fn files_have_one_purpose() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let (lines, max) = if is_test(&name) {
            (text.lines().count(), TEST_LINES_MAX)
        } else {
            // A module of tests at the end does not count.
            let tests = text.lines().position(|line| line == "mod tests {");
            (tests.unwrap_or_else(|| text.lines().count()), LINES_MAX)
        };
        if lines > max {
            long.push(format!("{name} has {lines} lines, more than {max}: what is it two of?"));
        }
    }
    assert_none(long);
}

#[test]
fn unsafe_stays_behind_the_fence() {
    let mut outside = Vec::new();
    for (name, text) in sources() {
        if FENCE.iter().any(|allowed| name.starts_with(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = code(line);
            let uses = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
            if uses.iter().any(|keyword| code.contains(keyword)) {
                outside.push(format!("{name}:{}: unsafe outside of the fence", number + 1));
            }
        }
    }
    assert_none(outside);
}

#[test]
fn imports_run_one_way() {
    let mut turned = Vec::new();
    for (name, text) in sources() {
        let strangers = STRANGERS.iter().filter(|(part, _)| name.starts_with(part));
        for stranger in strangers.flat_map(|(_, strangers)| *strangers) {
            for (number, line) in text.lines().enumerate() {
                if code(line).contains(stranger) && !code(line).contains('"') {
                    turned.push(format!("{name}:{}: must not know `{stranger}`", number + 1));
                }
            }
        }
    }
    assert_none(turned);
}

#[test]
fn dpdk_is_called_from_one_place() {
    let mut calls = Vec::new();
    for (name, text) in sources() {
        let home = ["dataplane/dpdk-sys/", "dataplane/src/dpdk/", "dataplane/tests/", "build.rs"];
        if home.iter().any(|home| name.starts_with(home)) || name == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if code(line).contains("rte_") || code(line).contains("dpdk_sys::") {
                calls.push(format!("{name}:{}: DPDK outside of dataplane/src/dpdk", number + 1));
            }
        }
    }
    assert_none(calls);
}

#[test]
fn every_dependency_is_argued() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let mut argued = false;
    let mut silent = Vec::new();
    for line in section.lines() {
        match line.trim() {
            "" => argued = false,
            line if line.starts_with('#') => argued = true,
            line if !argued => silent.push(format!("no comment above: {line}")),
            _ => {}
        }
    }
    assert_none(silent);
}
