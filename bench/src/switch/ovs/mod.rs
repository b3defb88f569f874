//! Open vSwitch with DPDK: a bridge in user space that learns (action NORMAL) or, as switches of their
//! own, has the scenario's rules as OpenFlow, with or without connection tracking; one vhost-user
//! port for each guest, all of them polled on the switch's core.
//!
//! Database, sockets and logs are in the switch's own directory and nothing of the system's Open
//! vSwitch, if there is one, is touched: the programs come from a tree that Debian's packages were
//! unpacked to, and the daemon runs in a network namespace of its own, since the bridge has a
//! network interface. Settings are the defaults but for cores, memory, and tables large enough for
//! the scenario. The guests' sides listen, as its documentation recommends.

mod flows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::process::Process;
use super::{Bed, Switch};
use crate::front_end::FrontEnd;
use crate::machine;
use crate::scenario::{Guests, Scenario};

/// The name in reports of the bridge that learns.
pub const OVS: &str = "ovs";
/// The name of the one with rules and without state.
pub const OVS_RULES: &str = "ovs-rules";
/// The name of the one with rules for new connections.
pub const OVS_CONNTRACK: &str = "ovs-conntrack";

/// Memory for DPDK, in MiB.
const MEMORY_MIB: u64 = 256;
/// The database's socket.
const SOCKET: &str = "db.sock";
/// How long the database may take to open it.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What a frame passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pipeline {
    /// A bridge that learns.
    Normal,
    /// The sender's own addresses, and both sides' rules.
    Rules,
    /// The same, but that rules are only for what belongs to no connection yet.
    Conntrack,
}

/// Open vSwitch's daemons, if they were started.
#[derive(Debug)]
pub struct Ovs {
    /// Where `usr` of the packages is.
    root: PathBuf,
    pipeline: Pipeline,
    /// The fields' order is the order of their end.
    switch: Option<Process>,
    database: Option<Process>,
}

impl Ovs {
    /// The switch of the packages unpacked to `root`; not started yet.
    pub fn new(root: PathBuf, pipeline: Pipeline) -> Self {
        Self { root, pipeline, switch: None, database: None }
    }

    /// A program of the packages that keeps to the switch's own directory.
    fn program(&self, path: &str, directory: &Path) -> Command {
        self.with_directories(Command::new(self.root.join(path)), directory)
    }

    fn with_directories(&self, mut command: Command, directory: &Path) -> Command {
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, directory);
        }
        command.env("OVS_PKGDATADIR", self.root.join("usr/share/openvswitch"));
        command
    }

    /// Starts the database with nothing in it.
    fn start_database(&mut self, bed: &Bed<'_>) -> Result<()> {
        let file = bed.directory.join("conf.db");
        let mut create = self.program("usr/bin/ovsdb-tool", bed.directory);
        create.arg("create").arg(&file);
        finish(create.arg(self.root.join("usr/share/openvswitch/vswitch.ovsschema")))?;
        let mut server = self.program("usr/sbin/ovsdb-server", bed.directory);
        server.arg(&file).arg(format!("--remote=p{}", database(bed.directory)));
        server.arg(format!("--unixctl={}", bed.directory.join("database.ctl").display()));
        let database = Process::start("ovsdb", server, bed.directory, bed.cores)?;
        let database = self.database.insert(database);
        let deadline = Instant::now() + START_TIMEOUT;
        while !bed.directory.join(SOCKET).exists() {
            machine::check_interrupt()?;
            database.check()?;
            ensure!(Instant::now() < deadline, "it opens no socket\n{}", database.log_end());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn start_switch(&mut self, bed: &Bed<'_>) -> Result<()> {
        let mut words = vec!["--no-wait", "set", "Open_vSwitch", "."];
        let settings = settings(bed);
        words.extend(settings.iter().map(String::as_str));
        self.control(bed, &["--no-wait", "init"])?;
        self.control(bed, &words)?;
        let mut daemon = self.with_directories(Command::new("unshare"), bed.directory);
        daemon.arg("--net");
        daemon.arg(self.root.join("usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"));
        daemon.arg(database(bed.directory));
        daemon.arg(format!("--unixctl={}", bed.directory.join("switch.ctl").display()));
        self.switch = Some(Process::start(self.name(), daemon, bed.directory, bed.cores)?);
        Ok(())
    }

    /// Tells the bridge the rules, if it has any.
    fn write_flows(&self, bed: &Bed<'_>) -> Result<()> {
        if self.pipeline == Pipeline::Normal {
            return Ok(());
        }
        let file = bed.directory.join("flows");
        fs::write(&file, flows::flows(bed, self.pipeline == Pipeline::Conntrack))
            .with_context(|| format!("writing {}", file.display()))?;
        let mut command = self.program("usr/bin/ovs-ofctl", bed.directory);
        finish(command.args(["add-flows", "bench0"]).arg(&file))
    }

    /// Writes to the database; without `--no-wait`, until the switch has done it.
    fn control(&self, bed: &Bed<'_>, words: &[&str]) -> Result<()> {
        let mut command = self.program("usr/bin/ovs-vsctl", bed.directory);
        command.arg(format!("--db={}", database(bed.directory))).arg("--timeout=30");
        finish(command.args(words))
    }
}

impl Switch for Ovs {
    fn name(&self) -> &str {
        match self.pipeline {
            Pipeline::Normal => OVS,
            Pipeline::Rules => OVS_RULES,
            Pipeline::Conntrack => OVS_CONNTRACK,
        }
    }

    fn has_path(&self, scenario: &Scenario) -> bool {
        // One that learns would forward what rules drop, and none is told of other rules under way.
        (scenario.rules > 0) == (self.pipeline != Pipeline::Normal) && !scenario.swaps
    }

    fn keeps_sums(&self) -> bool {
        false
    }

    fn start(&mut self, bed: &Bed<'_>, guests: &Guests) -> Result<Vec<FrontEnd>> {
        self.start_database(bed).context("Open vSwitch's database")?;
        self.start_switch(bed).context("is the tree of --ovs the right one?")?;
        let listeners = bed.listen()?;
        let words = bridges(bed, self.pipeline);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let sessions = self
            .control(bed, &words)
            .and_then(|()| self.write_flows(bed))
            .and_then(|()| bed.accept(&listeners, guests));
        sessions.map_err(|error| match self.check() {
            Ok(()) => error.context(self.log_end()),
            Err(dead) => dead,
        })
    }

    fn pause(&mut self) -> Result<()> {
        // The database sleeps by itself.
        self.switch.as_mut().map_or(Ok(()), Process::pause)
    }

    fn resume(&mut self) -> Result<()> {
        self.switch.as_mut().map_or(Ok(()), Process::resume)
    }

    fn check(&mut self) -> Result<()> {
        self.switch.as_mut().map_or(Ok(()), Process::check)
    }

    fn command(&self) -> String {
        self.switch.as_ref().map_or_else(String::new, |process| process.command().to_owned())
    }

    fn log_end(&self) -> String {
        self.switch.as_ref().map_or_else(String::new, Process::log_end)
    }
}

/// The database's address.
fn database(directory: &Path) -> String {
    format!("unix:{}", directory.join(SOCKET).display())
}

/// The switch's settings, each a word of `ovs-vsctl`.
fn settings(bed: &Bed<'_>) -> Vec<String> {
    let other = |name: &str, value: &str| format!("other_config:{name}={value}");
    vec![
        other("dpdk-init", "true"),
        // Its other threads have little to do, so they may run beside the generator.
        other("dpdk-lcore-mask", &mask(bed.cores.generator)),
        other("pmd-cpu-mask", &mask(bed.cores.switch)),
        other("dpdk-socket-mem", &MEMORY_MIB.to_string()),
        // No files left behind, and no clash with other DPDK programs.
        other("dpdk-extra", "\"--in-memory --no-pci --no-telemetry\""),
        // A flow each way for each pair of addresses.
        other("flow-limit", &(bed.scenario.addresses * 4).max(200_000).to_string()),
        // It may be set only before the switch starts.
        other("userspace-tso-enable", &bed.scenario.segments.to_string()),
        // While the others have their turns, flows must not be forgotten.
        other("max-idle", "60000"),
    ]
}

/// The bridge and its ports, or a bridge with an uplink for each port, as words of `ovs-vsctl`.
fn bridges(bed: &Bed<'_>, pipeline: Pipeline) -> Vec<String> {
    let mut words = Vec::new();
    let addresses = (bed.scenario.addresses * 2 + u32::from(bed.ports)).max(65_536);
    let bridges = if bed.scenario.uplinks { bed.ports } else { 1 };
    for bridge in 0..bridges {
        words.extend(["--", "add-br"].map(str::to_owned));
        words.push(format!("bench{bridge}"));
        words.extend(["--", "set", "bridge"].map(str::to_owned));
        words.push(format!("bench{bridge}"));
        words.push("datapath_type=netdev".to_owned());
        words.push(format!("other-config:mac-table-size={addresses}"));
        if pipeline != Pipeline::Normal {
            // Nothing passes but by the rules.
            words.push("fail-mode=secure".to_owned());
        }
        if bed.scenario.uplinks {
            words.extend(["--", "add-port"].map(str::to_owned));
            words.extend([format!("bench{bridge}"), format!("uplink{bridge}")]);
            words.extend(["--", "set", "interface"].map(str::to_owned));
            words.extend([format!("uplink{bridge}"), "type=dpdk".to_owned()]);
            words.push(format!("options:dpdk-devargs=\"{}\"", bed.uplink(bridge)));
            // It sends on a queue more than it has polling threads, and a memif needs a receive queue
            // for each that the other end sends on.
            words.push("options:n_rxq=2".to_owned());
        }
    }
    for port in 0..bed.ports {
        words.extend(["--", "add-port"].map(str::to_owned));
        words.push(format!("bench{}", port % bridges));
        words.push(format!("port{port}"));
        words.extend(["--", "set", "interface"].map(str::to_owned));
        words.push(format!("port{port}"));
        words.push("type=dpdkvhostuserclient".to_owned());
        words.push(format!("options:vhost-server-path={}", bed.socket(port).display()));
        words.push(format!("mtu_request={}", bed.scenario.mtu()));
        words.push(format!("ofport_request={}", flows::number(port)));
    }
    words
}

/// A set with one core, in hexadecimal, whatever its number.
fn mask(core: usize) -> String {
    format!("0x{:x}{}", 1 << (core % 4), "0".repeat(core / 4))
}

/// Runs a command to its end.
fn finish(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}): {errors}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Cores;

    #[test]
    fn a_mask_has_its_core_and_no_other() {
        assert_eq!(
            [0, 1, 3, 4, 70].map(mask),
            ["0x1", "0x2", "0x8", "0x10", "0x400000000000000000"]
        );
    }

    #[test]
    fn tables_and_ports_suit_the_scenario() {
        let scenario = Scenario { addresses: 100_000, ports: 3, ..Scenario::one_way("x", 9000) };
        let cores = Cores { generator: 0, switch: 1 };
        let bed = Bed { directory: Path::new("/d"), cores, scenario: &scenario, ports: 3 };
        let words = bridges(&bed, Pipeline::Normal);
        let has = |word: &str| words.iter().any(|other| other == word);
        assert!(has("other-config:mac-table-size=200003") && has("mtu_request=8986"), "{words:?}");
        assert!(has("options:vhost-server-path=/d/port2.sock"), "{words:?}");
        assert!(!words.iter().any(|word| word.contains("memif")), "{words:?}");
        assert!(!has("fail-mode=secure"), "{words:?}");
        let scenario = Scenario { uplinks: true, ..Scenario::one_way("x", 64) };
        let words =
            bridges(&Bed { ports: 2, scenario: &scenario, ..bed }, Pipeline::Rules).join(" ");
        assert!(words.contains("add-port bench1 port1 "), "{words}");
        assert!(words.contains("fail-mode=secure"), "{words}");
        assert!(words.contains("dpdk-devargs=\"net_memif1,role=client,"), "{words}");
        let settings = settings(&bed);
        assert!(settings.contains(&"other_config:pmd-cpu-mask=0x2".to_owned()), "{settings:?}");
        assert!(settings.contains(&"other_config:flow-limit=400000".to_owned()), "{settings:?}");
    }
}
