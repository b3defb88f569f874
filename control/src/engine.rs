//! DPDK, and its memory for frames.
//!
//! Its start takes a fifth of a second: it loads all drivers there are and measures the processor's clock.
//! Nothing that goes from guest to guest needs it, so it starts beside everything else, and devices
//! are opened when it has.

use dataplane::dpdk::{Eal, EalError, EalOptions, Mempool, PoolError};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::config::Config;

/// DPDK that runs.
pub(crate) struct Engine {
    pub(crate) eal: Eal,
    /// Where the frames of its devices are.
    pub(crate) pool: Mempool,
}

/// DPDK while it starts, on a thread of its own.
pub(crate) struct Ignition {
    starting: JoinHandle<Result<Engine, EngineError>>,
    started: Option<Result<Result<Engine, EngineError>, JoinError>>,
}

/// Why DPDK cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// It has no memory for frames.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Engine {
    fn start(options: &EalOptions, frames: u32, frame_bytes: u16) -> Result<Self, EngineError> {
        let eal = Eal::start(options)?;
        let pool = Mempool::create(&eal, "frames", frames, frame_bytes, None)?;
        Ok(Self { eal, pool })
    }
}

impl Ignition {
    /// Begins to start DPDK.
    pub(crate) fn begin(config: &Config) -> Self {
        let dpdk = &config.dpdk;
        let options = EalOptions {
            hugepages: dpdk.hugepages,
            memory_mib: dpdk.memory_mib,
            file_prefix: format!("viaduct-{}", std::process::id()),
            extra_args: dpdk.args.clone(),
        };
        let (frames, frame_bytes) = (dpdk.pool_frames, dpdk.frame_bytes);
        let starting = spawn_blocking(move || Engine::start(&options, frames, frame_bytes));
        Self { starting, started: None }
    }

    /// Waits until DPDK runs, or does not. Nothing is lost if the waiting is given up.
    pub(crate) async fn wait(&mut self) {
        if self.started.is_none() {
            self.started = Some((&mut self.starting).await);
        }
    }

    /// DPDK, when it runs.
    pub(crate) async fn done(mut self) -> Result<Engine, EngineError> {
        self.wait().await;
        self.started.take().expect("it was waited for").expect("starting ends")
    }
}
