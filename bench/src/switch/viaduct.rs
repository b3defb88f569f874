//! Viaduct: its daemon with the embedded store, one network (or one for each guest, with an uplink),
//! one port for each guest.
//!
//! Nothing is tuned but what the scenario needs: the worker's core, the network's MTU, and bounds of
//! the FDB above the number of addresses. The guests' sides listen, as QEMU does by default.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::process::Process;
use super::{Bed, Switch};
use crate::front_end::FrontEnd;
use crate::machine::Description;
use crate::scenario::{Guests, Scenario};

/// The host's name in keys.
const HOST: &str = "bench";
/// The network of all guests, or of the first where each has its own.
const NETWORK: &str = "00000000-0000-4000-8000-000000000001";
/// The other guest's network, where each has its own.
const OTHER_NETWORK: &str = "00000000-0000-4000-8000-000000000002";
/// Memory for DPDK, in MiB.
const MEMORY_MIB: u64 = 128;

/// Viaduct's daemon, if it was started.
#[derive(Debug)]
pub struct Viaduct {
    name: String,
    program: PathBuf,
    process: Option<Process>,
}

impl Viaduct {
    /// The daemon in that program, under a name for the report; not started yet.
    pub fn new(name: String, program: PathBuf) -> Self {
        Self { name, program, process: None }
    }
}

impl Switch for Viaduct {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>> {
        write_store(bed).context("writing desired state")?;
        let file = bed.directory.join("viaduct.toml");
        let huge_pages = Description::read().free_huge_pages >= MEMORY_MIB / 2;
        fs::write(&file, configuration(bed, huge_pages)?)
            .with_context(|| format!("writing {}", file.display()))?;
        let listeners = bed.listen()?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--config"]).arg(&file);
        let process = Process::start(self.name(), command, bed.directory, bed.cores)?;
        let process = self.process.insert(process);
        match bed.accept(&listeners, guests) {
            Ok(sessions) => Ok(sessions),
            Err(error) => {
                process.check()?;
                Err(error.context(process.log_end()))
            }
        }
    }

    fn pause(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    fn command(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.command().to_owned())
    }

    fn log_end(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log_end)
    }
}

/// The daemon's configuration.
fn configuration(bed: &Bed<'_>, huge_pages: bool) -> Result<String> {
    let (store, control) = (bed.directory.join("store"), bed.directory.join("control.sock"));
    let Scenario { addresses, ports, uplinks, .. } = bed.scenario;
    let mut physnets = String::new();
    for guest in 0..if *uplinks { bed.ports } else { 0 } {
        let device = quoted(bed.uplink(guest).as_ref())?;
        physnets += &format!("[physnets.uplink{guest}]\ndevice = {device}\n");
    }
    // Frames that devices receive into, if there are any.
    let frames = if *uplinks { 16_384 } else { 1024 };
    // Room for both guests' addresses and a few more, within the least that can be configured.
    let quota = (addresses * 2).max(4096);
    let entries = (quota * 4 + u32::from(*ports)).max(131_072);
    Ok(format!(
        "host = {HOST:?}\n\
         [store]\ndirectory = {}\n\
         [control]\nsocket = {}\n\
         [workers]\ncores = [{}]\n\
         [vhost]\nsocket_directory = {}\n\
         [dpdk]\nhugepages = {huge_pages}\nmemory_mib = {MEMORY_MIB}\npool_frames = {frames}\n\
         [fdb]\nentries = {entries}\nport_quota = {quota}\ndomain_quota = {}\n{physnets}",
        quoted(&store)?,
        quoted(&control)?,
        bed.cores.switch,
        quoted(bed.directory)?,
        quota * 2,
    ))
}

/// One network, or for each guest one with an uplink, and a port for each guest.
fn write_store(bed: &Bed<'_>) -> Result<()> {
    let store = bed.directory.join("store");
    let (networks, ports) = (store.join("networks"), store.join(format!("nodes/{HOST}/ports")));
    fs::create_dir_all(&networks)?;
    fs::create_dir_all(&ports)?;
    let uplinks = bed.scenario.uplinks;
    if uplinks {
        for (guest, network) in [NETWORK, OTHER_NETWORK].into_iter().enumerate() {
            let value = json!({ "type": "flat", "physnet": format!("uplink{guest}") });
            fs::write(networks.join(format!("{network}.json")), value.to_string())?;
        }
    } else {
        let network = json!({ "type": "local", "mtu": bed.scenario.mtu() });
        fs::write(networks.join(format!("{NETWORK}.json")), network.to_string())?;
    }
    for number in 0..bed.ports {
        let port = json!({
            "network": if uplinks && number == 1 { OTHER_NETWORK } else { NETWORK },
            "kind": "vhost-user",
            "mac": mac_text(bed.scenario.addresses_of(number).mac(0)),
            "socket": bed.socket(number),
        });
        let file = ports.join(format!("00000000-0000-4000-9000-{number:012x}.json"));
        fs::write(file, port.to_string())?;
    }
    Ok(())
}

fn mac_text(mac: u64) -> String {
    let bytes = mac.to_be_bytes();
    bytes[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A path as a TOML string: JSON's strings are among them.
fn quoted(path: &Path) -> Result<String> {
    serde_json::to_string(path).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Cores;

    fn with_bed(scenario: &Scenario, check: impl FnOnce(&Bed<'_>)) {
        let directory = tempfile::tempdir().expect("a directory");
        let cores = Cores { generator: 0, switch: 1 };
        check(&Bed { directory: directory.path(), cores, scenario, ports: scenario.ports });
    }

    #[test]
    fn the_store_has_a_network_and_each_guests_port() {
        let scenario = Scenario { ports: 3, ..Scenario::one_way("x", 9000) };
        with_bed(&scenario, |bed| {
            write_store(bed).expect("a directory that can be written");
            let read = |path: String| -> serde_json::Value {
                let text = fs::read_to_string(bed.directory.join("store").join(path));
                serde_json::from_str(&text.expect("it was written")).expect("JSON")
            };
            assert_eq!(read(format!("networks/{NETWORK}.json"))["mtu"], 8986);
            let port = read("nodes/bench/ports/00000000-0000-4000-9000-000000000002.json".into());
            assert_eq!(port["mac"], "02:03:00:00:00:00");
            assert_eq!(port["network"], NETWORK);
            assert_eq!(port["socket"], serde_json::json!(bed.socket(2)));
        });
    }

    #[test]
    fn guests_with_uplinks_are_on_different_networks() {
        let scenario = Scenario { uplinks: true, ..Scenario::one_way("x", 64) };
        with_bed(&scenario, |bed| {
            write_store(bed).expect("a directory that can be written");
            let read = |path: String| -> serde_json::Value {
                let text = fs::read_to_string(bed.directory.join("store").join(path));
                serde_json::from_str(&text.expect("it was written")).expect("JSON")
            };
            let physnets = [0, 1].map(|port| {
                let port = format!("nodes/bench/ports/00000000-0000-4000-9000-{port:012x}.json");
                let network = read(port)["network"].as_str().expect("a UUID").to_owned();
                read(format!("networks/{network}.json"))["physnet"].clone()
            });
            assert_eq!(physnets, ["uplink0", "uplink1"]);
            let text = configuration(bed, true).expect("a path in UTF-8");
            for part in ["[physnets.uplink0]\ndevice = \"net_memif0,role=server,", "role=client,"] {
                assert!(text.contains(part), "{part:?} in {text}");
            }
        });
    }

    #[test]
    fn the_fdb_has_room_for_the_scenario() {
        let scenario = Scenario { addresses: 100_000, ..Scenario::one_way("x", 64) };
        with_bed(&scenario, |bed| {
            let text = configuration(bed, false).expect("a path in UTF-8");
            assert!(text.contains("port_quota = 200000\n"), "{text}");
            assert!(text.contains("cores = [1]\n"), "{text}");
            assert!(text.contains("hugepages = false\n"), "{text}");
        });
    }
}
