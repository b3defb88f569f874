//! What a change costs on one host of some size: the daemon is started, its desired state is changed in
//! etcd, and it is asked over its socket until it says that the change is in force.
//!
//! The daemon answers between two publications, so an answer that shows the change comes when the
//! workers have it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, WatchOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::daemon::{Daemon, Memory, PATIENCE};
use crate::desired::{self, HOST, MEMBERS_PORT, PREFIX};
use crate::etcd::{Etcd, Figures};
use crate::size::Size;

/// How long etcd is away when that is tried.
const AWAY: Duration = Duration::from_secs(1);
/// How long the daemon is left alone before its memory and its use of the processor are read.
const REST: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug)]
pub struct Outcome {
    /// The installation.
    pub size: Size,
    /// Durations of each kind, of every repetition.
    pub times: Vec<(&'static str, Vec<Duration>)>,
    /// Octets of keys and values that concern the host, and that were written in all.
    pub written: (usize, usize),
    /// Octets that etcd sent while the daemon started, by repetition.
    pub fetched: Vec<f64>,
    /// Octets that etcd sent for one change in the group that all ports have.
    pub fetched_by_change: f64,
    /// Octets that etcd sent when the daemon read all anew.
    pub fetched_anew: f64,
    /// Watches in etcd.
    pub watches: f64,
    /// The daemon's memory at rest, after all changes.
    pub memory: Memory,
    /// Of that, compiled rules, in octets.
    pub compiled: u64,
    /// Compiled sets of groups.
    pub sets: usize,
    /// CPU seconds of the daemon in a second without changes.
    pub idle_cpu: f64,
    /// etcd at the end.
    pub etcd: Figures,
}

struct Bed {
    size: Size,
    etcd: Etcd,
    daemon: Daemon,
    client: Client,
    // Removed last.
    _directory: TempDir,
}

/// Measures a host of this size, each duration so many times.
pub async fn measure(program: &Path, size: Size, repetitions: usize) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("viaduct-scale-").tempdir()?;
    let etcd = Etcd::start(directory.path()).await?;
    let own = etcd.write(&desired::of_host(&size)).await?;
    let others = etcd.write(&desired::of_others(size.others)).await?;
    etcd.compact().await?;
    let daemon = Daemon::new(program, directory.path(), &etcd.endpoint(), &size)?;
    let client = etcd.client().await?;
    let mut bed = Bed { size, etcd, daemon, client, _directory: directory };

    let (mut starts, mut fetched) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        bed.daemon.stop().await?;
        let (took, octets) = bed.start().await?;
        starts.push(took);
        fetched.push(octets);
    }
    let watches = bed.etcd.figures()?.watchers;
    let (mut ports, mut rules, mut members, mut shared) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for turn in 1..=repetitions {
        ports.push(bed.change_port(turn).await?);
        let before = bed.etcd.figures()?.sent;
        rules.push(bed.change_rule(turn).await?);
        shared = bed.etcd.figures()?.sent - before;
        members.push(bed.add_member(turn).await?);
    }
    let (mut back, mut anew, mut fetched_anew) = (Vec::new(), Vec::new(), 0.0);
    // Twice at most: the daemon asks an etcd that is away every few seconds.
    for turn in 1..=repetitions.min(2) {
        back.push(bed.restart_etcd().await?);
        let (took, octets) = bed.compact_under_it(repetitions + turn).await?;
        anew.push(took);
        fetched_anew = octets;
    }

    sleep(REST).await;
    let cpu = bed.daemon.cpu_seconds()?;
    sleep(REST).await;
    let idle_cpu = (bed.daemon.cpu_seconds()? - cpu) / REST.as_secs_f64();
    let sets = bed.daemon.ask(&json!({ "query": "acl" })).await?;
    let compiled = bed.daemon.ask(&json!({ "query": "memory" })).await?["acl_bytes"].as_u64();
    let outcome = Outcome {
        size,
        times: vec![
            ("start of the daemon to all ports ready", starts),
            ("a port's address changed, to in force", ports),
            ("a rule changed in the group of all ports", rules),
            ("a member added to a remote group of all", members),
            ("etcd answers again, to watched again", back),
            ("all compacted meanwhile, to in force", anew),
        ],
        written: (own, own + others),
        fetched,
        fetched_by_change: shared,
        fetched_anew,
        watches,
        memory: bed.daemon.memory()?,
        compiled: compiled.context("the daemon tells no memory of rules")?,
        sets: sets.as_array().map_or(0, Vec::len),
        idle_cpu,
        etcd: bed.etcd.figures()?,
    };
    bed.daemon.stop().await?;
    Ok(outcome)
}

impl Bed {
    /// Starts the daemon, and waits until it has reported that all ports are ready. Returns how long
    /// that took, and what etcd sent meanwhile, the reports that were watched here taken off.
    async fn start(&mut self) -> Result<(Duration, f64)> {
        let reports = format!("{PREFIX}state/{HOST}/ports/");
        let options = WatchOptions::new().with_prefix();
        let mut watch = self.client.watch(reports, Some(options)).await?;
        let (before, begin) = (self.etcd.figures()?.sent, Instant::now());
        self.daemon.start()?;
        let (mut ready, mut own) = (std::collections::BTreeSet::new(), 0);
        while ready.len() < self.size.ports {
            let Ok(response) = timeout(PATIENCE, watch.message()).await else {
                self.daemon.check()?;
                bail!("{} ports are ready: {}", ready.len(), self.daemon.log_end());
            };
            let response = response?.context("etcd ended the watch")?;
            for kv in response.events().iter().filter_map(|event| event.kv()) {
                own += kv.key().len() + kv.value().len();
                let state: Value = serde_json::from_slice(kv.value()).unwrap_or_default();
                if state["status"] == "ready" {
                    ready.insert(kv.key().to_vec());
                }
            }
        }
        let took = begin.elapsed();
        Ok((took, self.etcd.figures()?.sent - before - own as f64))
    }

    /// Changes what etcd has at a key.
    async fn put(&mut self, key: String, value: &Value) -> Result<Instant> {
        let begin = Instant::now();
        self.client.put(key, value.to_string(), None).await.context("a change")?;
        Ok(begin)
    }

    fn last_port(&self) -> usize {
        self.size.ports - 1
    }

    /// Gives a port another address.
    async fn change_port(&mut self, turn: usize) -> Result<Duration> {
        let number = self.last_port();
        let address = desired::address(number, turn);
        let value = desired::port(&self.size, number, &address);
        let begin = self.put(desired::port_key(number), &value).await?;
        Ok(self.has_address(number, &address).await? - begin)
    }

    async fn has_address(&mut self, port: usize, address: &str) -> Result<Instant> {
        let explain = json!({ "query": "explain", "port": desired::port_uuid(port) });
        self.daemon.until(&explain, |it| it["stations"][0]["addresses"] == json!([address])).await
    }

    /// Opens another destination port in the group that all ports have.
    async fn change_rule(&mut self, turn: usize) -> Result<Duration> {
        let open = 100 + turn as u16;
        let question = self.trial("198.51.100.250", open);
        self.is_dropped(&question).await?;
        let value = desired::group(&self.size, 0, open);
        let begin = self.put(desired::common_group_key(), &value).await?;
        Ok(self.daemon.until(&question, |it| it["passes"] == true).await? - begin)
    }

    /// Adds a member to the remote group that a rule of all ports names.
    async fn add_member(&mut self, turn: usize) -> Result<Duration> {
        let address = format!("198.51.100.{turn}");
        let question = self.trial(&address, MEMBERS_PORT);
        self.is_dropped(&question).await?;
        let key = desired::common_member_key(self.size.members + turn);
        let begin = self.put(key, &desired::member(&address)).await?;
        Ok(self.daemon.until(&question, |it| it["passes"] == true).await? - begin)
    }

    /// What would become of a frame to the last port.
    fn trial(&self, source: &str, port: u16) -> Value {
        let destination = desired::address(self.last_port(), 0);
        json!({
            "query": "trial",
            "to": { "uuid": desired::port_uuid(self.last_port()), "name": null },
            "frame": format!("tcp {source}:40000 > {destination}:{port} syn"),
        })
    }

    async fn is_dropped(&self, question: &Value) -> Result<()> {
        let answer = self.daemon.ask(question).await?;
        ensure!(answer["passes"] == false, "what is to be permitted passes already: {answer}");
        Ok(())
    }

    /// Ends etcd and starts it again. Returns how long it took from its first answer until the daemon
    /// watched it again; nothing may have been touched by that.
    async fn restart_etcd(&mut self) -> Result<Duration> {
        let before = self.untouched().await?;
        self.leave_etcd().await?;
        self.etcd.restart().await?;
        let begin = Instant::now();
        let errors = json!({ "query": "errors" });
        let took = self.daemon.until(&errors, |it| !tells_outage(it)).await? - begin;
        let after = self.untouched().await?;
        ensure!(
            before == after,
            "an outage has touched ports or rules: {before:?}, then {after:?}"
        );
        Ok(took)
    }

    /// What must stay as it is while etcd is away: how often sockets were connected to, and how
    /// many values of desired state are known.
    async fn untouched(&self) -> Result<(usize, Value)> {
        let store = self.daemon.ask(&json!({ "query": "store" })).await?;
        Ok((self.daemon.connections(), store["values"].clone()))
    }

    async fn leave_etcd(&mut self) -> Result<()> {
        self.etcd.kill()?;
        self.daemon.until(&json!({ "query": "errors" }), tells_outage).await?;
        sleep(AWAY).await;
        Ok(())
    }

    /// Ends etcd, starts it, changes a port, and compacts all that the daemon could go on from before
    /// it can. Returns how long the daemon took until the change was in force, and what etcd sent.
    async fn compact_under_it(&mut self, turn: usize) -> Result<(Duration, f64)> {
        self.leave_etcd().await?;
        self.daemon.freeze(true)?;
        self.etcd.restart().await?;
        let number = self.last_port();
        let address = desired::address(number, turn);
        let value = desired::port(&self.size, number, &address);
        // Twice, as a watch can go on from the very revision to which all is compacted.
        self.put(desired::port_key(number), &value).await?;
        self.put(desired::port_key(number), &value).await?;
        self.etcd.compact().await?;
        let before = self.etcd.figures()?.sent;
        let begin = Instant::now();
        self.daemon.freeze(false)?;
        let took = self.has_address(number, &address).await? - begin;
        // The rest is read after that: what was compacted is told watch by watch.
        sleep(REST).await;
        Ok((took, self.etcd.figures()?.sent - before))
    }
}

/// Whether what is wrong includes that desired state cannot be read.
fn tells_outage(errors: &Value) -> bool {
    errors.to_string().contains("what was read last stays in force")
}
