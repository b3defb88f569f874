//! Generates the bindings of `dataplane/dpdk-sys` from the DPDK that is installed.
//!
//! It stands at the root because it is the workspace's only build script; the member names it
//! (`build = "../../build.rs"`) and it runs with the member as its directory. DPDK's headers fix
//! structure layouts, so bindings are made from the installed headers, never checked in. What is
//! bound is an allow-list: DPDK has some 4000 names in reach, we use a few dozen.
//!
//! A machine that lacks something gets one sentence that says what to install, not a backtrace.

// Printing is how a build script speaks to cargo.
#![allow(clippy::disallowed_macros)]

use std::env;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;

/// DPDK releases whose structures and calls the safe layer was written for: 22.11 (the long-term
/// release that Debian 12 ships) and the releases that keep its ABI, 23. With DPDK 23.11 begins
/// ABI 24, for which nothing here was checked, so it is refused rather than tried.
const FITTING: std::ops::Range<(u32, u32)> = (22, 11)..(23, 11);

/// Functions called from Rust. Static inline ones get a C wrapper by `wrap_static_fns`.
const FUNCTIONS: &[&str] = &[
    "rte_dev_(event_callback_register|name|probe|remove)",
    "rte_eal_get_runtime_dir",
    "rte_eth_(rx_burst|tx_burst|tx_prepare)",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|close|configure|count_total|info_get|set_mtu|socket_id)",
    "rte_eth_dev_(callback_register|default_mac_addr_set|reset|start|stop|vlan_filter)",
    "rte_eth_dev_mac_addr_(add|remove)",
    "rte_eth_(find_next|link_get_nowait|macaddr_get|stats_get)",
    "rte_eth_(allmulticast|promiscuous)_enable",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_mempool_(avail_count|free)",
    "rte_pktmbuf_(alloc|alloc_bulk|chain|copy|free|free_bulk|pool_create)",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "viaduct_.*",
];

/// Constants. The headers' own are macros that bindgen cannot evaluate, so `wrapper.h` names the
/// few that are used as `static const` objects.
const CONSTANTS: &[&str] =
    &["VIADUCT_.*", "RTE_EAL_PMD_PATH", "RTE_LOG_(ERR|WARNING|NOTICE|INFO|DEBUG)"];

/// Libraries that hold `FUNCTIONS`. Drivers are plugins that EAL opens by itself.
const LIBRARIES: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"];

fn main() {
    // The message alone makes cargo end the build. Were the status not zero, cargo would bury the
    // sentence under everything that this script has printed for cargo itself.
    if let Err(sentence) = generate() {
        println!("cargo::error={}", sentence.replace('\n', " "));
    }
}

fn generate() -> Result<(), String> {
    let member = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("src");
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", member.join("shim.c").display());
    println!("cargo::rerun-if-changed={}", member.join("wrapper.h").display());

    let flags = find_dpdk()?;
    check_libclang()?;
    bind(&member, &out, &flags)?;
    compile(&member, &out, &flags)
}

/// Finds DPDK by pkg-config, tells the linker about it and returns its compiler flags.
fn find_dpdk() -> Result<Vec<String>, String> {
    const REMEDY: &str = "install DPDK 22.11 with `apt-get install libdpdk-dev pkg-config`";

    let library = pkg_config::Config::new().cargo_metadata(false).probe("libdpdk").map_err(
        |error| match error {
            pkg_config::Error::Command { .. } => {
                format!(
                    "Viaduct's build could not run pkg-config, by which it finds DPDK: {REMEDY}."
                )
            }
            _ => format!("DPDK's development files were not found (libdpdk.pc): {REMEDY}."),
        },
    )?;
    if !release(&library.version).is_some_and(|found| FITTING.contains(&found)) {
        return Err(format!(
            "DPDK {} is installed, but Viaduct needs 22.11, 23.03 or 23.07 (ABI 23): {REMEDY} on \
             Debian 12, or point PKG_CONFIG_PATH at such a DPDK.",
            library.version
        ));
    }
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }

    // The pkg-config crate drops `-include rte_config.h` and `-march=…`. Without them the headers
    // do not compile, or worse, give other layouts than the library was built with.
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args(["--cflags", "libdpdk"]).output().map_err(|error| {
        format!("pkg-config --cflags libdpdk could not run ({error}): {REMEDY}.")
    })?;
    let flags = String::from_utf8_lossy(&output.stdout);
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// Year and month of a DPDK version such as `22.11.11`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// bindgen opens libclang when it is first used and panics if there is none; that panic becomes a
/// sentence here.
fn check_libclang() -> Result<(), String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let found = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    match found {
        Ok(_) => Ok(()),
        Err(_) => {
            Err("libclang, by which DPDK's headers are read, was not found: install it with \
                       `apt-get install libclang-dev`, or set LIBCLANG_PATH to its directory."
                .to_owned())
        }
    }
}

fn bind(member: &Path, out: &Path, flags: &[String]) -> Result<(), String> {
    let mut builder = bindgen::Builder::default()
        .header(path(&member.join("wrapper.h"))?)
        .clang_args(flags)
        .wrap_static_fns(true)
        .wrap_static_fns_path(out.join("inlines"))
        // The thread-locals `per_lcore_*` would come out as plain statics, and crash when used.
        .blocklist_item("per_lcore_.*")
        // Handed around by pointer only; their contents are nobody's business here.
        .opaque_type("rte_(device|mempool|mbuf_ext_shared_info|eth_rxseg|eth_(dcb|vmdq)_.*)")
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .prepend_enum_name(false)
        .generate_comments(false)
        // Reports every header read, so that a DPDK update makes new bindings and nothing else does.
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for name in FUNCTIONS {
        builder = builder.allowlist_function(*name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(*name);
    }
    let bindings = builder.generate().map_err(|error| {
        format!(
            "DPDK's headers could not be read ({error}): libclang needs its own headers beside it, \
             install them with `apt-get install libclang-dev`."
        )
    })?;
    bindings
        .write_to_file(out.join("bindings.rs"))
        .map_err(|error| format!("{} could not be written: {error}.", out.display()))
}

/// Compiles the shim and the wrapped inlines, optimised in every profile: they are on the path of
/// each burst.
fn compile(member: &Path, out: &Path, flags: &[String]) -> Result<(), String> {
    let mut build = cc::Build::new();
    build.opt_level(3).warnings(false).include(member);
    build.file(member.join("shim.c")).file(out.join("inlines.c"));
    for flag in flags {
        build.flag(flag);
    }
    build.try_compile("viaduct_dpdk").map_err(|error| {
        format!(
            "DPDK's inline functions could not be compiled ({error}): a C compiler is needed, \
                 `apt-get install gcc`."
        )
    })?;
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: build with cargo."))
}

fn path(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8: build elsewhere.", path.display()))
}
