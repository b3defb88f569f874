//! What etcd itself carries: many hosts, each with a connection, a lease that is kept alive, and one
//! stream of watches of what concerns it, as Viaduct's daemons have them.
//!
//! The hosts are tasks of this process, so what they use of the processor is missing for etcd on a small
//! machine: figures are an upper bound.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, PutOptions, WatchOptions};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::desired::{self, PREFIX};
use crate::etcd::{Etcd, Figures};
use crate::size::Size;

/// How long a host may be silent, in seconds, as by default.
const LEASE_SECONDS: i64 = 15;
/// How often a lease is renewed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How often a host asks for a sign of life, as the daemon does.
const PROBE: Duration = Duration::from_secs(3);
/// How long etcd is looked at without changes.
const REST: Duration = Duration::from_secs(10);
/// Hosts that connect at a time.
const AT_ONCE: usize = 32;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Debug)]
pub struct Outcome {
    /// Hosts that watch.
    pub hosts: usize,
    /// How long it took until all watched.
    pub connected: Duration,
    /// etcd before any host came.
    pub empty: Figures,
    /// etcd with all hosts, at rest.
    pub busy: Figures,
    /// CPU seconds of etcd in a second without changes.
    pub idle_cpu: f64,
    /// From a change to the host that it concerns.
    pub one: Vec<Duration>,
    /// From a change to the last of all hosts, which it concerns.
    pub all: Vec<Duration>,
    /// CPU seconds of etcd for one of the latter.
    pub all_cpu: f64,
}

/// Lets so many hosts watch.
pub async fn measure(hosts: usize, repetitions: usize) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("viaduct-scale-").tempdir()?;
    let etcd = started(directory.path(), hosts).await?;
    let mut client = etcd.client().await?;
    let empty = etcd.figures()?;

    let begin = Instant::now();
    let (seen, mut sights) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for first in (0..hosts).step_by(AT_ONCE) {
        let batch = first..hosts.min(first + AT_ONCE);
        for host in batch.clone() {
            tasks.spawn(watch(etcd.endpoint(), host, seen.clone()));
        }
        // Each tells once that it watches.
        for _ in batch {
            next(&mut sights, &mut tasks).await?;
        }
    }
    let connected = begin.elapsed();

    tokio::time::sleep(PROBE).await;
    let before = etcd.figures()?;
    tokio::time::sleep(REST).await;
    let busy = etcd.figures()?;
    let idle_cpu = (busy.cpu - before.cpu) / REST.as_secs_f64();

    let (mut one, mut all) = (Vec::new(), Vec::new());
    for turn in 1..=repetitions {
        let value = json!({ "name": format!("turn-{turn}"), "rules": [] }).to_string();
        let begin = Instant::now();
        client.put(desired::own_group_key(hosts / 2), value, None).await?;
        next(&mut sights, &mut tasks).await?;
        one.push(begin.elapsed());
    }
    let before = etcd.figures()?.cpu;
    for turn in 1..=repetitions {
        let value = desired::group(&Size::FULL, 0, 100 + turn as u16).to_string();
        let begin = Instant::now();
        client.put(desired::common_group_key(), value, None).await?;
        for _ in 0..hosts {
            next(&mut sights, &mut tasks).await?;
        }
        all.push(begin.elapsed());
    }
    let all_cpu = (etcd.figures()?.cpu - before) / repetitions as f64;
    ensure!(sights.try_recv().is_err(), "a host was told of what does not concern it");
    Ok(Outcome { hosts, connected, empty, busy, idle_cpu, one, all, all_cpu })
}

async fn started(directory: &Path, hosts: usize) -> Result<Etcd> {
    let etcd = Etcd::start(directory).await?;
    etcd.write(&desired::of_others(hosts)).await?;
    etcd.write(&[(desired::common_group_key(), desired::group(&Size::FULL, 0, 22))]).await?;
    etcd.compact().await?;
    Ok(etcd)
}

/// Waits for a host to have seen something.
async fn next(
    sights: &mut mpsc::UnboundedReceiver<usize>,
    hosts: &mut JoinSet<Result<()>>,
) -> Result<()> {
    tokio::select! {
        sight = timeout(PATIENCE, sights.recv()) => {
            sight.context("hosts are not told of a change")?.context("all hosts are gone")?;
            Ok(())
        }
        // A host goes on for ever, unless it fails.
        Some(ended) = hosts.join_next() => ended?.and(Err(anyhow::anyhow!("a host has ended"))),
    }
}

/// One host: tells once that it watches, and then of each response with events.
async fn watch(endpoint: String, host: usize, seen: mpsc::UnboundedSender<usize>) -> Result<()> {
    let mut client = Client::connect([endpoint], None).await?;
    let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
    let alive = format!("{PREFIX}state/{}/alive", desired::other_host(host));
    client.put(alive, "{}", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;

    let watched = desired::watched_by(host);
    let options = |number: usize, key: &str| {
        let options = WatchOptions::new().with_watch_id(number as i64 + 1);
        let options = options.with_fragment().with_progress_notify();
        if key.ends_with('/') { options.with_prefix() } else { options }
    };
    let (first, rest) = watched.split_first().context("a host watches something")?;
    let stream = client.watch(first.as_str(), Some(options(0, first))).await?;
    let (mut requests, mut responses) = stream.split();
    // The first response is awaited when the stream is opened; the others come for each request.
    for (number, key) in (1..).zip(rest) {
        requests.watch(key.as_str(), Some(options(number, key))).await?;
        responses.message().await?.context("etcd ended a stream")?;
    }
    seen.send(host)?;

    let (mut renew, mut probe) = (interval(KEEP_ALIVE), interval(PROBE));
    // Not all in one moment.
    let late = PROBE.mul_f64(host as f64 % 97.0 / 97.0);
    probe.reset_after(late);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            response = responses.message() => {
                if !response?.context("etcd ended a stream")?.events().is_empty() {
                    seen.send(host)?;
                }
            }
            answer = kept.message() => {
                ensure!(answer?.context("etcd ended a lease")?.ttl() > 0, "a lease has run out");
            }
            _ = renew.tick() => keeper.keep_alive().await?,
            _ = probe.tick() => requests.request_progress().await?,
        }
    }
}
