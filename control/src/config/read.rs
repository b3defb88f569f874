//! Turns the fields of a configuration file into a [`Config`], with every fault in it.
//!
//! Here is what a value must be in itself and beside the others; what the machine has against it is
//! `machine.rs`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use super::document::Document;
use super::{
    Acl, BondConfig, Config, ConfigErrors, ControlSocket, Dpdk, Fdb, FiltersFull, Idle, Physnet,
    Vhost, Workers, bond, log, metrics, store,
};
use crate::cores;
use crate::fields::{Fields, shown};
use crate::model::{Devargs, HostName, PhysnetName, RANGE_REMEDY, Vid, VlanRanges, parse_range};
use crate::problem::{Fault, Misfit, Problem, quoted};
use crate::text::Text;

/// The longest sleep of an idle worker where none is given, in microseconds.
const SLEEP_MAX_US: u32 = 250;

/// What a frame is longer than its payload: addresses, type, two tags (802.1Q, 802.3 §3.2.7).
pub(super) const OVERHEAD_BYTES: u16 = 22;

/// What a buffer of DPDK is longer than its room for a frame: headroom, `rte_mbuf`, pool header.
const BUFFER_OVERHEAD_BYTES: u64 = 128 + 128 + 64;

/// Reads the file, lets `judge` look at the result, and sums up.
pub(super) fn from_file(
    path: &Path,
    host: &Result<HostName, Misfit>,
    judge: impl FnOnce(&mut Config, &mut Vec<Fault>),
) -> Result<(Config, Document), ConfigErrors> {
    let (document, value) = Document::open(path).map_err(|problems| ConfigErrors { problems })?;
    let mut faults = Vec::new();
    let config = Fields::new(value, "", "the configuration", &mut faults)
        .and_then(|fields| read(fields, host));
    let config = config.map(|mut config| {
        judge_alone(&config, &mut faults);
        judge(&mut config, &mut faults);
        config
    });
    let problems = document.judge(faults);
    match config {
        Some(mut config) if !problems.iter().any(Problem::is_error) => {
            config.warnings = problems;
            Ok((config, document))
        }
        _ => Err(ConfigErrors { problems }),
    }
}

/// Reads all sections. A section with faults is given its defaults, so that the others are judged.
fn read(mut fields: Fields<'_>, kernel_name: &Result<HostName, Misfit>) -> Option<Config> {
    let named = fields.value("host");
    let host = match (&named, kernel_name) {
        (Some(value), _) => fields.text_from("host", value),
        (None, Ok(name)) => Some(name.clone()),
        (None, Err(misfit)) => {
            let what = format!("is not given, and of the kernel's host name, {}", misfit.what);
            fields.fault("host", what, "set host = \"…\"");
            None
        }
    };
    let mut store = fields.table("store").map(store::read).unwrap_or_default();
    let control = fields.table("control").map(read_control);
    let workers = fields.table("workers").map(read_workers);
    let vhost = fields.table("vhost").map(read_vhost);
    let dpdk = fields.table("dpdk").map(read_dpdk);
    let fdb = fields.table("fdb").map(read_fdb);
    let acl = fields.table("acl").map(read_acl);
    let metrics = fields.table("metrics").map(metrics::read);
    let log = fields.table("log").map(log::read);
    let physnets: BTreeMap<PhysnetName, Physnet> = fields.tables("physnets", read_physnet);
    fields.finish();
    if let Some(vpp) = &mut store.networking_vpp {
        vpp.physnet_mtus =
            physnets.iter().map(|(name, physnet)| (name.clone(), physnet.mtu)).collect();
    }
    // The host's name stands in no other judgement; without one, the rest is still looked at.
    let host = host.or_else(|| "unnamed".parse().ok())?;
    Some(Config {
        host,
        store,
        control: control.unwrap_or_default(),
        workers: workers.unwrap_or_default(),
        vhost: vhost.unwrap_or_default(),
        dpdk: dpdk.unwrap_or_default(),
        fdb: fdb.unwrap_or_default(),
        acl: acl.unwrap_or_default(),
        metrics: metrics.unwrap_or_default(),
        log: log.unwrap_or_default(),
        physnets,
        warnings: Vec::new(),
    })
}

fn read_control(mut fields: Fields<'_>) -> ControlSocket {
    let default = ControlSocket::default();
    let socket = path(&mut fields, "socket").unwrap_or(default.socket);
    fields.finish();
    ControlSocket { socket }
}

fn read_workers(mut fields: Fields<'_>) -> Workers {
    let cores = cores::read(&mut fields).unwrap_or_default();
    let words = [("poll", Idle::Poll), ("sleep", Idle::Sleep)];
    let idle = fields.choice("idle", &words).unwrap_or_default();
    let bound: Option<u32> = fields.number("sleep_max_us", 0..=10_000);
    let sleep_max_us = match (idle, bound) {
        (Idle::Poll, Some(bound)) if bound > 0 => {
            let what = format!("{bound} has no effect with workers.idle = \"poll\"");
            fields.fault("sleep_max_us", what, "set workers.idle = \"sleep\", or remove the line");
            0
        }
        (Idle::Poll, _) => 0,
        (Idle::Sleep, Some(0)) => {
            let what = "0 is no sleep";
            fields.fault("sleep_max_us", what, "write 1 to 10000, or set workers.idle = \"poll\"");
            SLEEP_MAX_US
        }
        (Idle::Sleep, bound) => bound.unwrap_or(SLEEP_MAX_US),
    };
    fields.finish();
    Workers { cores, idle, sleep_max_us }
}

fn read_vhost(mut fields: Fields<'_>) -> Vhost {
    let default = Vhost::default();
    let wait = |fields: &mut Fields<'_>, name| fields.number(name, 1..=60_000);
    let vhost = Vhost {
        socket_directory: path(&mut fields, "socket_directory").unwrap_or(default.socket_directory),
        socket_owner: account(&mut fields, "socket_owner"),
        socket_group: account(&mut fields, "socket_group"),
        socket_mode: fields.text("socket_mode").unwrap_or(default.socket_mode),
        queues_max: fields.number("queues_max", 1..=16).unwrap_or(default.queues_max),
        connect_early: fields.flag("connect_early").unwrap_or(default.connect_early),
        reconnect_min_ms: wait(&mut fields, "reconnect_min_ms").unwrap_or(default.reconnect_min_ms),
        reconnect_max_ms: wait(&mut fields, "reconnect_max_ms").unwrap_or(default.reconnect_max_ms),
    };
    if vhost.reconnect_min_ms > vhost.reconnect_max_ms {
        let (min, max) = (vhost.reconnect_min_ms, vhost.reconnect_max_ms);
        let what = format!("{min} is more than vhost.reconnect_max_ms: {max}");
        fields.fault("reconnect_min_ms", what, "lower this one or raise that one");
    }
    fields.finish();
    vhost
}

fn read_dpdk(mut fields: Fields<'_>) -> Dpdk {
    let default = Dpdk::default();
    let word = |fields: &mut Fields<'_>, name: &str, value: &Value| {
        fields.text_from::<Word>(name, value).map(|word| word.0)
    };
    let dpdk = Dpdk {
        hugepages: fields.flag("hugepages").unwrap_or(default.hugepages),
        memory_mib: fields.number("memory_mib", 64..=1_048_576).unwrap_or(default.memory_mib),
        pool_frames: fields.number("pool_frames", 1024..=8_388_607).unwrap_or(default.pool_frames),
        frame_bytes: fields.number("frame_bytes", 1024..=16_384).unwrap_or(default.frame_bytes),
        args: fields.list("args", word).unwrap_or_default(),
    };
    fields.finish();
    dpdk
}

fn read_fdb(mut fields: Fields<'_>) -> Fdb {
    let default = Fdb::default();
    let entries = fields.number("entries", 1024..=16_777_216).unwrap_or(default.entries);
    let ageing_seconds =
        fields.number("ageing_seconds", 10..=1_000_000).unwrap_or(default.ageing_seconds);
    // A quota that nobody wrote follows a small table; one that somebody wrote must fit it.
    let quota = |fields: &mut Fields<'_>, name, least: u32, most: u32| {
        fields.number(name, 1..=most.into()).unwrap_or(least.min(most))
    };
    let domain_quota = quota(&mut fields, "domain_quota", default.domain_quota, entries);
    let port_quota = quota(&mut fields, "port_quota", default.port_quota, domain_quota);
    let file = path(&mut fields, "file");
    fields.finish();
    Fdb { entries, ageing_seconds, port_quota, domain_quota, file }
}

fn read_acl(mut fields: Fields<'_>) -> Acl {
    let default = Acl::default();
    let least = u64::from(dataplane::packet::ethertype::LEAST);
    let ethertype = |fields: &mut Fields<'_>, name: &str, value: &Value| {
        fields.number_from(name, value, least..=u16::MAX.into())
    };
    let acl = Acl {
        rules: fields.number("rules", 16..=10_000_000).unwrap_or(default.rules),
        memory_mib: fields.number("memory_mib", 1..=65_536).unwrap_or(default.memory_mib),
        permitted_ethertypes: fields.list("permitted_ethertypes", ethertype).unwrap_or_default(),
    };
    fields.finish();
    acl
}

fn read_physnet(mut fields: Fields<'_>) -> Option<Physnet> {
    let bonded = fields.has("bond");
    if !bonded {
        fields.require("device", Devargs::REMEDY);
    }
    let device = fields.text("device");
    let bond = fields.object("bond", "a bond", BondConfig::read);
    if bonded && device.is_some() {
        let what = "the wire has a bond too, whose members are its devices";
        fields.fault("device", what, "remove this line or the bond");
    }
    let vlans = fields.list("vlans", |fields, name, value| match value {
        Value::String(text) => {
            parse_range(text).map_err(|misfit| fields.fault(name, misfit.what, misfit.remedy)).ok()
        }
        Value::Number(_) => {
            let most = Vid::MAX.into();
            let number: u16 = fields.number_from(name, value, Vid::MIN.into()..=most)?;
            let vid = Vid::try_from(number).ok()?;
            Some(vid..=vid)
        }
        other => {
            let what = format!("{} is not a range of VLANs", shown(other));
            fields.fault(name, what, RANGE_REMEDY);
            None
        }
    });
    let vlans = vlans.map_or_else(VlanRanges::all, VlanRanges::new);
    let mtu = fields.number("mtu", 68..=9216).unwrap_or(super::default_mtu());
    let cores = cores::read(&mut fields).unwrap_or_default();
    let answers = [("refuse", FiltersFull::Refuse), ("promiscuous", FiltersFull::Promiscuous)];
    let filters_full = fields.choice("filters_full", &answers).unwrap_or_default();
    fields.finish();
    let known = device.is_some() || bond.is_some();
    known.then_some(Physnet { device, bond, vlans, mtu, cores, filters_full })
}

impl Dpdk {
    /// Memory in MiB that so many buffers take, each with room for a frame of so many octets.
    pub(crate) fn pool_mib(frames: u32, frame_bytes: u16) -> u64 {
        let buffer_bytes = u64::from(frame_bytes) + BUFFER_OVERHEAD_BYTES;
        (u64::from(frames) * buffer_bytes).div_ceil(1 << 20)
    }
}

/// What sections have against each other.
fn judge_alone(config: &Config, faults: &mut Vec<Fault>) {
    let Dpdk { frame_bytes, pool_frames, memory_mib, .. } = config.dpdk;
    let mut devices: BTreeMap<String, String> = BTreeMap::new();
    for (name, physnet) in &config.physnets {
        let needed = physnet.mtu.saturating_add(OVERHEAD_BYTES);
        if needed > frame_bytes {
            let what = format!(
                "frames of {needed} octets (22 more than the MTU) do not fit dpdk.frame_bytes: \
                 {frame_bytes}"
            );
            let remedy = format!("lower it, or set dpdk.frame_bytes = {needed}");
            faults.push(Fault::new(format!("physnets.{name}.mtu"), what, remedy));
        }
        for (at, device) in physnet.devices().iter().map(Devargs::device).enumerate() {
            let Some(other) = devices.insert(device.clone(), name.to_string()) else { continue };
            let (field, what) = match &physnet.bond {
                None => {
                    ("device".to_owned(), format!("`{device}` is the device of physnet `{other}`"))
                }
                Some(_) if other == name.to_string() => {
                    (format!("bond.members[{at}]"), format!("`{device}` is listed twice"))
                }
                Some(_) => {
                    let what = format!("`{device}` is the device of physnet `{other}`");
                    (format!("bond.members[{at}]"), what)
                }
            };
            let remedy = "give each physnet a device of its own";
            faults.push(Fault::new(format!("physnets.{name}.{field}"), what, remedy));
        }
        bond::doubts(name, physnet, faults);
    }
    let needed_mib = Dpdk::pool_mib(pool_frames, frame_bytes);
    if needed_mib > memory_mib.into() {
        let what = format!(
            "{pool_frames} buffers for frames of {frame_bytes} octets take {needed_mib} MiB, and \
             dpdk.memory_mib is {memory_mib}"
        );
        let remedy = format!("lower it, or set dpdk.memory_mib = {}", needed_mib + 32);
        faults.push(Fault::new("dpdk.pool_frames", what, remedy));
    }
}

/// An absolute path.
struct AbsolutePath(String);

impl Text for AbsolutePath {
    const REMEDY: &'static str = "write an absolute path, such as \"/run/viaduct\"";
}

impl FromStr for AbsolutePath {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if text.starts_with('/') && !text.chars().any(char::is_control) {
            return Ok(AbsolutePath(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not an absolute path", quoted(text)), Self::REMEDY))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn path(fields: &mut Fields<'_>, name: &'static str) -> Option<PathBuf> {
    fields.text::<AbsolutePath>(name).map(|path| path.0.into())
}

/// One word of a command line.
struct Word(String);

impl Text for Word {
    const REMEDY: &'static str = "write one argument, such as \"--log-level=debug\"";
}

impl FromStr for Word {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<Self, Misfit> {
        if !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Ok(Word(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is not one argument", quoted(text)), Self::REMEDY))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name or number of a user or group; a number may stand without quotes.
fn account(fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    match fields.value(name)? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) if number.as_u64().is_some_and(|id| id < u32::MAX.into()) => {
            Some(number.to_string())
        }
        other => {
            let what = format!("{} is neither a name nor a number", shown(&other));
            fields.fault(name, what, "write a name in quotes, or a number");
            None
        }
    }
}
