//! The machine's own configuration: one TOML file, read at the start, and again when an operator asks
//! for it.
//!
//! It says what the machine is (cores, memory, wires, where sockets and files are); what the machine
//! should do is desired state and lives in a store. Every key has a default but the device of a
//! physnet, an unknown key is an error, and all problems are told at once, each with its line and
//! remedy. Reading and judging is in the files beside this one; here is what can be configured.

mod bond;
mod change;
mod document;
mod file;
mod log;
mod machine;
mod metrics;
mod read;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::bond::MONITOR_ALONE_MS;
pub use self::bond::{BondConfig, BondMode, LacpRate};
pub(crate) use self::change::leaves;
pub use self::change::{Change, Reload};
pub use self::file::ConfigFile;
pub use self::log::{LogConfig, LogLevel};
pub use self::machine::Machine;
pub use self::metrics::{Listen, MetricsConfig};
pub use self::store::{Endpoint, Etcd, NetworkingVpp, Prefix, ReturnTraffic, Servers, StoreConfig};
use crate::model::{Devargs, HostName, PhysnetName, VlanRanges};
use crate::problem::{Misfit, Problem, quoted};
use crate::text::text_type;

/// The configuration of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, title = "Viaduct's configuration (TOML)")]
pub struct Config {
    /// The name of this host in keys (`nodes/<host>/…`). Default: the kernel's host name.
    #[schemars(with = "Option<HostName>")]
    pub host: HostName,
    /// Where desired state is read and actual state is written.
    #[serde(default)]
    pub store: StoreConfig,
    /// How commands reach the daemon.
    #[serde(default)]
    pub control: ControlSocket,
    /// The threads that move frames.
    #[serde(default)]
    pub workers: Workers,
    /// What holds for all vhost-user ports.
    #[serde(default)]
    pub vhost: Vhost,
    /// DPDK's memory and arguments.
    #[serde(default)]
    pub dpdk: Dpdk,
    /// The bounds of the forwarding database.
    #[serde(default)]
    pub fdb: Fdb,
    /// The bounds of security groups' rules, and what passes beside IP.
    #[serde(default)]
    pub acl: Acl,
    /// Where metrics are served.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// The wires, by the name that networks use.
    #[serde(default)]
    pub physnets: BTreeMap<PhysnetName, Physnet>,
    /// What is doubtful but no error. Found by [`Config::load`]; not part of the file.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
}

/// `[control]`: how commands reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct ControlSocket {
    /// The unix socket that the daemon makes and `viaduct show` connects to. Its directory must exist.
    pub socket: PathBuf,
}

/// `[workers]`: the threads that move frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Workers {
    /// The CPUs that workers run on, one pinned worker each. Default: the highest CPU that the daemon
    /// may run on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub cores: Vec<u32>,
    /// What a worker does when there is nothing to do: `poll` on (for cores that are its own), or
    /// `sleep` in growing steps (for cores that it shares).
    pub idle: Idle,
    /// The longest step in microseconds with `idle = "sleep"`, 1 to 10000: about the longest that a
    /// frame may wait for an idle worker. Default there: 250. With `idle = "poll"` it is 0.
    #[schemars(range(max = 10_000))]
    pub sleep_max_us: u32,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Poll on, without rest.
    #[default]
    Poll,
    /// Sleep in growing steps.
    Sleep,
}

/// `[vhost]`: what holds for all vhost-user ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Vhost {
    /// Where the sockets are that ports name without a path. It must exist.
    pub socket_directory: PathBuf,
    /// The user that owns the sockets of ports in server mode: a name or number. Default: the user
    /// that the daemon runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "account_schema")]
    pub socket_owner: Option<String>,
    /// Their group: a name or number. Default: the group that the daemon runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "account_schema")]
    pub socket_group: Option<String>,
    /// Their permissions, in octal as for chmod(1).
    pub socket_mode: FileMode,
    /// Most pairs of queues that a port of this host may have.
    #[schemars(range(min = 1, max = 16))]
    pub queues_max: u16,
    /// Whether guests are connected whose ports are not known yet: sockets in the socket directory that
    /// are named by a port's UUID. For orchestrators that start a guest before they write its port.
    pub connect_early: bool,
    /// Client mode: milliseconds before the first try to connect again. Each wait is twice the last.
    #[schemars(range(min = 1, max = 60_000))]
    pub reconnect_min_ms: u32,
    /// Client mode: the longest wait, in milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    pub reconnect_max_ms: u32,
}

/// `[dpdk]`: memory for frames from and to DPDK devices, and arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Dpdk {
    /// Whether DPDK's memory is on hugepages. Without is for tests with virtual devices.
    pub hugepages: bool,
    /// Memory for DPDK in MiB.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub memory_mib: u32,
    /// Buffers in the pool that DPDK devices receive into.
    #[schemars(range(min = 1024, max = 8_388_607))]
    pub pool_frames: u32,
    /// Room for a frame in one buffer, in octets: at least 22 more than the largest physnet's MTU.
    #[schemars(range(min = 1024, max = 16_384))]
    pub frame_bytes: u16,
    /// More arguments for DPDK's environment (EAL), one word each.
    pub args: Vec<String>,
}

/// `[fdb]`: the bounds of the forwarding database, which is of one size from start to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Fdb {
    /// Addresses that can be known at once, on all networks together; rounded up to a power of two.
    /// One takes 16 octets.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub entries: u32,
    /// Seconds after which an address that is not heard again is forgotten (802.1Q §8.8.3).
    #[schemars(range(min = 10, max = 1_000_000))]
    pub ageing_seconds: u32,
    /// Most addresses that are learned at one port.
    #[schemars(range(min = 1))]
    pub port_quota: u32,
    /// Most addresses that are learned on one network.
    #[schemars(range(min = 1))]
    pub domain_quota: u32,
    /// The file in which learned addresses are kept while the daemon does not run. Its directory must
    /// exist. Default: none, and a daemon starts knowing none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// `[acl]`: the bounds of security groups' rules, and what passes beside IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Acl {
    /// Rules that the groups of a port may have in one direction, each version of IP and the traffic
    /// that answers counted. Ports with the same groups share them.
    #[schemars(range(min = 16, max = 10_000_000))]
    pub rules: u32,
    /// Memory that the compiled rules of a port's groups may take, in MiB.
    #[schemars(range(min = 1, max = 65_536))]
    pub memory_mib: u32,
    /// Ethertypes, beside those of IPv4, IPv6 and ARP, that ports with port security may send and be
    /// sent, 0x0600 to 0xffff.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permitted_ethertypes: Vec<u16>,
}

impl Acl {
    /// Memory that the compiled rules of a port's groups may take, in octets.
    pub fn bytes(&self) -> usize {
        (self.memory_mib as usize) << 20
    }
}

impl Default for Acl {
    fn default() -> Self {
        Acl { rules: 100_000, memory_mib: 128, permitted_ethertypes: Vec::new() }
    }
}

/// `[physnets.<name>]`: a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Physnet {
    /// The DPDK device on the wire; or else `bond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Devargs>,
    /// Several devices on the wire, in place of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondConfig>,
    /// The VLANs that networks may use on it.
    #[serde(default = "VlanRanges::all")]
    pub vlans: VlanRanges,
    /// The largest payload of a frame on it, in octets.
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 68, max = 9216))]
    pub mtu: u16,
    /// The CPUs whose workers may poll it, of `workers.cores`. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub cores: Vec<u32>,
    /// What to do when its NIC has VFs, and no room for filters for all addresses behind the switch.
    #[serde(default, skip_serializing_if = "FiltersFull::is_default")]
    #[schemars(extend("default" = FiltersFull::default()))]
    pub filters_full: FiltersFull,
}

/// What to do about addresses behind the switch for which a NIC has no room: without a filter, VFs
/// beside the switch do not reach them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FiltersFull {
    /// Refuse their ports.
    #[default]
    Refuse,
    /// Have the NIC's interface take all frames, as far as that goes for those of its VFs.
    Promiscuous,
}

impl FiltersFull {
    fn is_default(&self) -> bool {
        *self == FiltersFull::default()
    }
}

/// Permissions of a file, in octal as for chmod(1): `0660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

text_type!(
    FileMode,
    "Permissions of a file, in octal as for chmod(1).",
    "^[0-7]{3,4}$",
    "write permissions in octal and in quotes, such as \"0660\""
);

/// All that is wrong with a configuration: at least one error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The errors, and the warnings found with them, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Where the configuration is looked for when no other file is named.
    pub const PATH: &'static str = "/etc/viaduct/viaduct.toml";

    /// Reads a configuration and judges it against this machine: for the daemon, and for a check.
    ///
    /// A configuration that could be run comes back, with its warnings inside; otherwise all that is
    /// wrong with it.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let machine = Machine::here().map_err(ConfigErrors::one)?;
        ConfigFile::load(path, &machine).map(|file| file.config)
    }

    /// Reads a configuration without looking at the machine: for commands that only ask where the
    /// store or the socket is.
    pub fn read(path: &Path) -> Result<Config, ConfigErrors> {
        let host = machine::host_name().map_err(ConfigErrors::one)?;
        read::from_file(path, &host, |_, _| {}).map(|(config, _)| config)
    }
}

impl Physnet {
    /// Its devices: one, or the members of its bond.
    pub fn devices(&self) -> &[Devargs] {
        match &self.bond {
            Some(bond) => &bond.members,
            None => self.device.as_slice(),
        }
    }
}

impl Workers {
    /// The longest sleep of an idle worker; `None` to poll without rest.
    pub fn sleep_max(&self) -> Option<Duration> {
        match self.idle {
            Idle::Poll => None,
            Idle::Sleep => Some(Duration::from_micros(self.sleep_max_us.into())),
        }
    }
}

impl FileMode {
    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<FileMode, Misfit> {
        let octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u32::from_str_radix(text, 8) {
            Ok(bits) if octal && (3..=4).contains(&text.len()) => Ok(FileMode(bits)),
            _ => Err(Misfit::new(
                format!("{} are not permissions", quoted(text)),
                <FileMode as crate::text::Text>::REMEDY,
            )),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl ConfigErrors {
    /// One problem.
    pub fn one(problem: Problem) -> ConfigErrors {
        ConfigErrors { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Default for ControlSocket {
    fn default() -> Self {
        ControlSocket { socket: "/run/viaduct/viaduct.sock".into() }
    }
}

impl Default for Vhost {
    fn default() -> Self {
        Vhost {
            socket_directory: "/run/viaduct/vhost".into(),
            socket_owner: None,
            socket_group: None,
            socket_mode: FileMode(0o660),
            queues_max: 16,
            connect_early: false,
            reconnect_min_ms: 100,
            reconnect_max_ms: 5_000,
        }
    }
}

impl Default for Dpdk {
    fn default() -> Self {
        Dpdk {
            hugepages: true,
            memory_mib: 256,
            pool_frames: 32_768,
            frame_bytes: 2_048,
            args: Vec::new(),
        }
    }
}

impl Default for Fdb {
    fn default() -> Self {
        // A quarter of the table for a network, an eighth of that for a port: eight ports of one
        // network may be as greedy as they can, and three quarters are left to the others.
        Fdb {
            entries: 131_072,
            ageing_seconds: 300,
            port_quota: 4_096,
            domain_quota: 32_768,
            file: None,
        }
    }
}

fn default_mtu() -> u16 {
    crate::model::Network::MTU
}

fn account_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "integer"] })
}
