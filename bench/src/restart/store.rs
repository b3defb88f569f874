//! What Viaduct is to be while it is restarted: one network, and a port for each guest, with port
//! security and a group that lets everything out and in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::guest::addresses;
use crate::machine::Cores;

/// Memory for DPDK, in MiB: what the package configures.
pub const MEMORY_MIB: u64 = 256;

const NETWORK: &str = "00000000-0000-4000-8000-000000000001";
const GROUP: &str = "00000000-0000-4000-a000-000000000001";

/// The socket of a port.
pub fn socket(directory: &Path, number: u16) -> PathBuf {
    directory.join(format!("port{number}.sock"))
}

/// Writes desired state and configuration. Returns the latter's file.
pub fn write(directory: &Path, ports: u16, cores: Cores, huge_pages: bool) -> Result<PathBuf> {
    let put = |key: &str, value: &Value| -> Result<()> {
        let file = directory.join("store").join(format!("{key}.json"));
        let parent = file.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&file, value.to_string()))
            .with_context(|| format!("writing {}", file.display()))
    };
    put(&format!("networks/{NETWORK}"), &json!({ "type": "local" }))?;
    let rules = json!([{ "direction": "egress" }, { "direction": "ingress" }]);
    put(&format!("security-groups/{GROUP}"), &json!({ "rules": rules }))?;
    for number in 0..ports {
        let own = addresses(number);
        let mac = own.mac(0).to_be_bytes().map(|byte| format!("{byte:02x}"));
        let port = json!({
            "network": NETWORK,
            "kind": "vhost-user",
            "mac": mac[2..].join(":"),
            "socket": socket(directory, number),
            "fixed_ips": [std::net::Ipv4Addr::from_bits(own.ip(0)).to_string()],
            "security_groups": [GROUP],
        });
        put(&format!("nodes/bench/ports/00000000-0000-4000-9000-{number:012x}"), &port)?;
    }
    let text = |name: &str| serde_json::to_string(&directory.join(name)).context("a path in UTF-8");
    let config = format!(
        "host = \"bench\"\n\
         [store]\ndirectory = {}\n\
         [control]\nsocket = {}\n\
         [workers]\ncores = [{}]\n\
         [vhost]\nsocket_directory = {}\n\
         [dpdk]\nhugepages = {huge_pages}\nmemory_mib = {MEMORY_MIB}\n\
         [fdb]\nfile = {}\n",
        text("store")?,
        text("control.sock")?,
        cores.switch,
        text("")?,
        text("fdb.json")?,
    );
    let file = directory.join("viaduct.toml");
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
