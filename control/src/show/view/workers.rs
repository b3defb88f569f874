//! Workers and their receive queues.

use serde::{Deserialize, Serialize};

use super::PortRef;

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number.
    pub number: u16,
    /// The CPU that it is pinned to.
    pub core: u32,
    /// The longest that it sleeps when idle, in microseconds; null if it polls on.
    pub sleep_max_us: Option<u32>,
    /// The receive queues that it polls.
    pub rxqs: Vec<RxqView>,
    /// What it has done.
    #[serde(flatten)]
    pub work: Work,
    /// Cycles spent on polls that found frames, of all cycles, in percent.
    pub busy_percent: f64,
    /// Cycles spent on a frame on average; null before the first.
    pub cycles_per_frame: Option<f64>,
    /// Frames in a burst on average; null before the first.
    pub burst_mean: Option<f64>,
}

/// A receive queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RxqView {
    /// Its port.
    pub port: PortRef,
    /// Its number among those of the port.
    pub queue: u16,
    /// The CPUs whose workers may poll it; empty if all may.
    pub cores: Vec<u32>,
    /// Frames received since the port was attached.
    pub frames: u64,
    /// Seconds that the other figures are of: the last ones.
    pub seconds: f64,
    /// What it took of its worker's core, in percent.
    pub load_percent: f64,
    /// Cycles spent on a frame on average; null if there was none.
    pub cycles_per_frame: Option<f64>,
    /// Frames in a burst on average; null if there was none.
    pub burst_mean: Option<f64>,
}

/// How receive queues are given to workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RebalanceView {
    /// Whether it was done, or only asked for.
    pub done: bool,
    /// Seconds that loads are of: the last ones.
    pub seconds: f64,
    /// The workers, by number.
    pub workers: Vec<BalanceView>,
    /// The queues that go to another worker.
    pub moves: Vec<MoveView>,
}

/// What a worker does before and, by what is known, after queues were moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceView {
    /// Its number.
    pub number: u16,
    /// The CPU that it is pinned to.
    pub core: u32,
    /// The share of its core that its queues took, in percent.
    pub before_percent: f64,
    /// The share that they will take, in percent.
    pub after_percent: f64,
}

/// A receive queue that goes to another worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveView {
    /// Its port.
    pub port: PortRef,
    /// Its number among those of the port.
    pub queue: u16,
    /// The worker that had it, by number.
    pub from: u16,
    /// The worker that gets it, by number.
    pub to: u16,
    /// What it took of its worker's core, in percent.
    pub load_percent: f64,
}

/// What a worker has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Cycles of the time-stamp counter that passed.
    pub cycles: u64,
    /// Those spent on polls that found frames.
    pub busy_cycles: u64,
    /// Iterations of the poll loop.
    pub polls: u64,
    /// Those that found at least one frame.
    pub busy_polls: u64,
    /// Frames received.
    pub frames: u64,
    /// Times that it slept.
    pub rests: u64,
    /// Bursts by size: 1, 2–3, 4–7, 8–15, 16–31, 32–63, 64.
    pub bursts: [u64; 7],
}
