//! What happened between two readings.
//!
//! Counters begin anew when the daemon is restarted, and those of a port when it is attached: one that
//! is less than before has been counted from nothing.

use std::collections::BTreeMap;

use control::model::Status;
use control::show::view::{DropView, NetworkRef, PortRef, PortView, Side, WorkerView};
use serde::Serialize;

use super::reading::Reading;

/// What happened, a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The seconds that it was counted in.
    pub seconds: f64,
    /// Ports and uplinks.
    pub ports: Vec<PortRates>,
    /// Workers.
    pub workers: Vec<WorkerRates>,
    /// Drops that happened, the most frequent first.
    pub drops: Vec<DropRate>,
}

/// What passed a port, a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortRates {
    /// Which one.
    #[serde(flatten)]
    pub port: PortRef,
    /// The network that it is on.
    pub network: Option<NetworkRef>,
    /// Whether it works.
    pub status: Status,
    /// Frames received from it.
    pub received_frames: f64,
    /// Their bits.
    pub received_bits: f64,
    /// Frames sent to it.
    pub sent_frames: f64,
    /// Their bits.
    pub sent_bits: f64,
    /// Frames dropped at it.
    pub dropped_frames: f64,
    /// The reason for which most were dropped; null if none was.
    pub reason: Option<String>,
}

/// What a worker did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerRates {
    /// Its number.
    pub number: u16,
    /// Its CPU.
    pub core: u32,
    /// The receive queues that it has.
    pub rxqs: u32,
    /// Cycles spent on polls that found frames, of all, in percent.
    pub busy_percent: f64,
    /// Frames received, a second.
    pub frames: f64,
    /// Cycles spent on a frame; null if there was none.
    pub cycles_per_frame: Option<f64>,
    /// Frames in a burst; null if there was none.
    pub burst_mean: Option<f64>,
    /// Times that it slept, a second.
    pub rests: f64,
}

/// Frames dropped at one port for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropRate {
    /// The port.
    pub port: PortRef,
    /// Why.
    pub reason: String,
    /// Whether they came from the port or were to go to it.
    pub side: Side,
    /// How many a second.
    pub frames: f64,
    /// What the reason means.
    pub help: String,
}

impl Rates {
    /// What happened between two readings.
    pub fn between(before: &Reading, now: &Reading) -> Rates {
        // Two readings are never at the same time, as each takes a while; but who knows the clock.
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        Rates::of(before, now, seconds)
    }

    /// The same, in a time that is known.
    pub fn of(before: &Reading, now: &Reading, seconds: f64) -> Rates {
        // Another process has counted from nothing.
        let same = before.summary.pid == now.summary.pid;
        let drops_before = if same { &before.drops[..] } else { &[] };
        let drops = drop_rates(drops_before, &now.drops, seconds);
        let ports: BTreeMap<&PortRef, &PortView> =
            before.ports.iter().filter(|_| same).map(|view| (&view.port, view)).collect();
        let workers: BTreeMap<(u16, u32), &WorkerView> = before
            .workers
            .iter()
            .filter(|_| same)
            .map(|view| ((view.number, view.core), view))
            .collect();
        let ports = now.ports.iter().map(|view| {
            let before = ports.get(&view.port);
            let rate = |count: fn(&PortView) -> u64| {
                passed(before.map_or(0, |view| count(view)), count(view)) as f64 / seconds
            };
            // They are sorted: the first is the most frequent.
            let reason = drops.iter().find(|rate| rate.port == view.port && rate.frames > 0.0);
            PortRates {
                port: view.port.clone(),
                network: view.network.clone(),
                status: view.status,
                received_frames: rate(|view| view.received_frames),
                received_bits: rate(|view| view.received_bytes) * 8.0,
                sent_frames: rate(|view| view.sent_frames),
                sent_bits: rate(|view| view.sent_bytes) * 8.0,
                dropped_frames: rate(|view| view.dropped_frames),
                reason: reason.map(|rate| rate.reason.clone()),
            }
        });
        let workers = now.workers.iter().map(|view| {
            worker_rates(workers.get(&(view.number, view.core)).copied(), view, seconds)
        });
        Rates { seconds, ports: ports.collect(), workers: workers.collect(), drops }
    }
}

fn worker_rates(before: Option<&WorkerView>, now: &WorkerView, seconds: f64) -> WorkerRates {
    let count = |of: fn(&WorkerView) -> u64| passed(before.map_or(0, of), of(now)) as f64;
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let frames = count(|view| view.work.frames);
    let busy = count(|view| view.work.busy_cycles);
    let bursts = count(|view| view.work.bursts.iter().sum());
    WorkerRates {
        number: now.number,
        core: now.core,
        rxqs: now.rxqs.len() as u32,
        busy_percent: ratio(busy * 100.0, count(|view| view.work.cycles)).unwrap_or(0.0).min(100.0),
        frames: frames / seconds,
        cycles_per_frame: ratio(busy, frames),
        burst_mean: ratio(frames, bursts),
        rests: count(|view| view.work.rests) / seconds,
    }
}

/// Of each port and reason, the most frequent first.
fn drop_rates(before: &[DropView], now: &[DropView], seconds: f64) -> Vec<DropRate> {
    let key = |view: &DropView| (view.port.clone(), view.reason.clone());
    let before: BTreeMap<_, u64> = before.iter().map(|view| (key(view), view.frames)).collect();
    let rate = |view: &DropView| DropRate {
        port: view.port.clone(),
        reason: view.reason.clone(),
        side: view.side,
        frames: passed(before.get(&key(view)).copied().unwrap_or(0), view.frames) as f64 / seconds,
        help: view.help.clone(),
    };
    let mut rates: Vec<_> = now.iter().map(rate).filter(|rate| rate.frames > 0.0).collect();
    rates.sort_by(|a, b| b.frames.total_cmp(&a.frames).then_with(|| a.port.cmp(&b.port)));
    rates
}

/// What a counter grew by.
fn passed(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
