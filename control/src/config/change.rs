//! What is different in a configuration that was read anew, and what of that can be put in force
//! while the switch runs.
//!
//! [`merge`] is the one place that says what can: it makes of what runs and what was read the
//! configuration that could run at once. What that has of the file is applied now, and what it lacks
//! needs a restart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Config, ConfigFile};

/// What a reload would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// What would be in force.
    pub config: Config,
    /// Each key that is different, in their order.
    pub changes: Vec<Change>,
}

/// A key that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, such as `workers.cores`.
    pub key: String,
    /// Its line in the file, or that of what is around it.
    pub line: Option<usize>,
    /// What is in force; none if nothing is.
    pub from: Option<Value>,
    /// What the file says; none if it has no such key.
    pub to: Option<Value>,
    /// Why it needs a restart; none if it does not.
    pub restart: Option<&'static str>,
}

impl Reload {
    /// Compares what runs with what was read. Where the command line of the daemon says what is
    /// logged, `log_is_fixed`.
    pub fn new(running: &Config, file: &ConfigFile, log_is_fixed: bool) -> Reload {
        let mut config = merge(running, &file.config);
        if log_is_fixed {
            config.log = running.log.clone();
        }
        let (before, then, read) = (leaves(running), leaves(&config), leaves(&file.config));
        let keys = before.keys().chain(read.keys()).collect::<std::collections::BTreeSet<_>>();
        let different = keys.into_iter().filter(|key| before.get(*key) != read.get(*key));
        let changes = different.map(|key| Change {
            key: key.clone(),
            line: file.line(key),
            from: before.get(key).cloned(),
            to: read.get(key).cloned(),
            restart: (then.get(key) != read.get(key)).then(|| reason(key)),
        });
        let changes = changes.collect();
        Reload { config, changes }
    }

    /// Whether something needs a restart.
    pub fn needs_restart(&self) -> bool {
        self.changes.iter().any(|change| change.restart.is_some())
    }
}

/// The configuration that can be put in force while `running` is: all of `read` that needs no restart.
fn merge(running: &Config, read: &Config) -> Config {
    let mut config = running.clone();
    config.log = read.log.clone();
    config.workers = read.workers.clone();
    config.acl = read.acl.clone();
    config.metrics = read.metrics.clone();
    config.warnings = read.warnings.clone();
    config.fdb.ageing_seconds = read.fdb.ageing_seconds;
    // Quotas may be as large as the table that they are of, which stays.
    if read.fdb.domain_quota <= running.fdb.entries {
        config.fdb.domain_quota = read.fdb.domain_quota;
        config.fdb.port_quota = read.fdb.port_quota;
    }
    for (name, read) in &read.physnets {
        match config.physnets.get_mut(name) {
            Some(physnet) => {
                physnet.vlans = read.vlans.clone();
                physnet.cores = read.cores.clone();
                if physnet.devices() == read.devices() && physnet.bond.is_some() {
                    physnet.bond = read.bond.clone();
                }
                physnet.filters_full = read.filters_full;
            }
            // Its device is opened as one is at the start; its buffers are there already.
            None if fits(read.mtu, running) && !taken(read, running) => {
                config.physnets.insert(name.clone(), read.clone());
            }
            None => {}
        }
    }
    config
}

/// Whether frames of this MTU fit the buffers that there are.
fn fits(mtu: u16, running: &Config) -> bool {
    mtu.saturating_add(super::read::OVERHEAD_BYTES) <= running.dpdk.frame_bytes
}

/// Whether a device of it is another physnet's already.
fn taken(physnet: &super::Physnet, running: &Config) -> bool {
    let theirs = || running.physnets.values().flat_map(|other| other.devices());
    physnet.devices().iter().any(|ours| theirs().any(|other| other.device() == ours.device()))
}

/// Why a key needs a restart.
fn reason(key: &str) -> &'static str {
    let section = key.split('.').next().unwrap_or(key);
    match section {
        "host" => "all that this host reports is under its name",
        "store" => "the store is opened at the start",
        "control" => "the socket of commands is made at the start",
        "vhost" => "guests are connected by what held when their sockets were made",
        "dpdk" => "DPDK takes its memory and arguments at the start",
        "fdb" if key == "fdb.entries" => "the table is of one size from start to end",
        "fdb" => "the quota is for a larger table, which needs a restart",
        "log" => "the command line of the daemon has `--log`, which holds in its place",
        "physnets" => "an uplink's device is opened with what held then, and stays open",
        _ => "it is read at the start",
    }
}

/// Each value that is no table, by its path.
pub(crate) fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    let value = serde_json::to_value(config).expect("a configuration is JSON: its keys are text");
    walk(String::new(), value, &mut leaves);
    leaves
}

fn walk(path: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                walk(path, value, leaves);
            }
        }
        Value::Null => {}
        value => drop(leaves.insert(path, value)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::Machine;

    const BEFORE: &str = "[workers]\ncores = [1]\nidle = 'sleep'\n[fdb]\nentries = 4096\n\
                          [physnets.p]\ndevice = 'net_null0'\nvlans = [1]\n";

    /// What a reload of `text` makes of a daemon that was started with [`BEFORE`].
    fn reload(text: &str, log_is_fixed: bool) -> Reload {
        reload_of(BEFORE, text, log_is_fixed)
    }

    fn reload_of(before: &str, text: &str, log_is_fixed: bool) -> Reload {
        let folder = tempfile::TempDir::new().expect("a directory for the test");
        let machine = Machine {
            host: "h".parse(),
            online: BTreeSet::from([0, 1, 2]),
            allowed: BTreeSet::from([0, 1, 2]),
        };
        let load = |text: &str| {
            let file = folder.path().join("viaduct.toml");
            let places = "store.directory = 'DIR'\ncontrol.socket = 'DIR/c'\n\
                          vhost.socket_directory = 'DIR'\n";
            let text = format!("{places}{text}");
            let text = text.replace("DIR", &folder.path().display().to_string());
            fs::write(&file, text).expect("the directory can be written");
            ConfigFile::load(Path::new(&file), &machine).unwrap_or_else(|why| panic!("{why}"))
        };
        let running = load(before).config;
        Reload::new(&running, &load(text), log_is_fixed)
    }

    /// The keys that are different: those for now, and those for later.
    fn keys(reload: &Reload) -> (Vec<&str>, Vec<&str>) {
        let of = |restart: bool| {
            let changes = reload.changes.iter();
            let changes = changes.filter(|change| change.restart.is_some() == restart);
            changes.map(|change| &*change.key).collect()
        };
        (of(false), of(true))
    }

    #[test]
    fn what_can_change_at_once_is_told_from_what_needs_a_restart() {
        let none: &[&str] = &[];
        let table: &[(&str, &str, &[&str], &[&str])] = &[
            ("", "", none, none),
            ("cores = [1]", "cores = [1, 2]", &["workers.cores"], none),
            ("cores = [1]", "cores = [2]", &["workers.cores"], none),
            ("idle = 'sleep'", "idle = 'poll'", &["workers.idle", "workers.sleep_max_us"], none),
            ("idle", "sleep_max_us = 9\nidle", &["workers.sleep_max_us"], none),
            ("[fdb]", "[log]\nlevel = 'warn'\n[fdb]", &["log.level"], none),
            ("[fdb]", "[acl]\nrules = 99\n[fdb]", &["acl.rules"], none),
            ("[fdb]", "[metrics]\nlisten = '127.0.0.1:9'\n[fdb]", &["metrics.listen"], none),
            (
                "[fdb]",
                "[fdb]\nageing_seconds = 20\nport_quota = 9",
                &["fdb.ageing_seconds", "fdb.port_quota"],
                none,
            ),
            (
                "vlans = [1]",
                "vlans = [1, 2]\ncores = [1]",
                &["physnets.p.cores", "physnets.p.vlans"],
                none,
            ),
            (
                "[fdb]",
                "[physnets.q]\ndevice = 'net_null1'\n[fdb]",
                &["physnets.q.device", "physnets.q.mtu", "physnets.q.vlans"],
                none,
            ),
            ("[workers]", "host = 'g'\n[workers]", none, &["host"]),
            ("[fdb]", "[dpdk]\nmemory_mib = 300\n[fdb]", none, &["dpdk.memory_mib"]),
            ("[workers]", "vhost.queues_max = 3\n[workers]", none, &["vhost.queues_max"]),
            ("vlans", "mtu = 1400\nvlans", none, &["physnets.p.mtu"]),
            ("net_null0", "net_null1", none, &["physnets.p.device"]),
            // A quota that only the larger table has room for waits for it.
            (
                "entries = 4096",
                "entries = 8192\ndomain_quota = 5000",
                none,
                &["fdb.domain_quota", "fdb.entries"],
            ),
        ];
        for (from, to, now, later) in table {
            let reload = reload(&BEFORE.replacen(from, to, usize::from(!from.is_empty())), false);
            assert_eq!(keys(&reload), (now.to_vec(), later.to_vec()), "{from} -> {to}");
            assert_eq!(reload.needs_restart(), !later.is_empty());
        }
    }

    #[test]
    fn the_rules_of_a_bond_change_live_and_its_members_do_not() {
        const BOND: &str = "[workers]\ncores = [1]\nidle = 'sleep'\n[physnets.p.bond]\n\
                            members = ['net_null0', 'net_null1']\n";
        let none: &[&str] = &[];
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", none, none),
            ("mode = 'balance'\n", &["physnets.p.bond.mode"], none),
            ("primary = 'net_null1'\n", &["physnets.p.bond.primary"], none),
            (
                "up_delay_ms = 1\nmonitor_ms = 5\n",
                &["physnets.p.bond.monitor_ms", "physnets.p.bond.up_delay_ms"],
                none,
            ),
        ];
        for (more, now, later) in table {
            let reload = reload_of(BOND, &format!("{BOND}{more}"), false);
            assert_eq!(keys(&reload), (now.to_vec(), later.to_vec()), "{more}");
        }
        let other = BOND.replace("null1", "null2");
        let reload = reload_of(BOND, &format!("{other}mode = 'balance'\n"), false);
        let later = vec!["physnets.p.bond.members", "physnets.p.bond.mode"];
        assert_eq!(keys(&reload), (vec![], later));
    }

    #[test]
    fn a_change_has_its_line_and_both_values() {
        let reload = reload(&BEFORE.replace("[1]\nidle", "[1, 2]\nidle"), false);
        assert_eq!(reload.config.workers.cores, [1, 2]);
        let [change] = &reload.changes[..] else { panic!("{reload:?}") };
        assert_eq!(change.line, Some(5));
        assert_eq!((&change.from, &change.to), (&Some(json!([1])), &Some(json!([1, 2]))));
    }

    #[test]
    fn what_goes_is_told_too() {
        let reload = reload("[workers]\ncores = [1]\nidle = 'sleep'\n", false);
        let (now, later) = keys(&reload);
        assert!(now.is_empty(), "{now:?}");
        assert_eq!(
            later,
            [
                "fdb.domain_quota",
                "fdb.entries",
                "physnets.p.device",
                "physnets.p.mtu",
                "physnets.p.vlans"
            ]
        );
        assert_eq!(reload.config.physnets.len(), 1, "the uplink stays");
    }

    #[test]
    fn the_command_line_holds_over_the_configuration() {
        let text = format!("[log]\nlevel = 'debug'\n{BEFORE}");
        assert_eq!(keys(&reload(&text, false)), (vec!["log.level"], vec![]));
        let fixed = reload(&text, true);
        assert_eq!(keys(&fixed), (vec![], vec!["log.level"]));
        assert_eq!(fixed.config.log.level.to_string(), "info");
    }
}
