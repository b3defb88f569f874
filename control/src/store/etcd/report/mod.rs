//! Actual state under `state/<host>/`, written by the one process that has the host's claim.
//!
//! That the daemon lives, and what it says of wires, stands under a lease and goes with it; what it
//! says of ports stays, since guests run on without a daemon. A task of its own keeps the lease alive
//! and looks that all still stands there; so what is lost in an outage, or deleted by somebody, comes
//! back without a word of the daemon.

mod holding;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::sleep;

use self::holding::{Holding, Wanted};
use super::super::{AbortOnDrop, Pending, Reporter, StoreError};
use super::connect::{Connection, random};
use super::trouble::Trouble;
use crate::config::Prefix;
use crate::model::{ActualState, HostName};

/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The claim to report for a host.
pub(super) struct Claim {
    shared: Arc<Shared>,
    keeper: Option<AbortOnDrop>,
}

/// What reports and the keeper share.
struct Shared {
    host: HostName,
    lease_seconds: u32,
    /// What should stand there, once the daemon has said it.
    wanted: Mutex<Option<Arc<Wanted>>>,
    /// Why it does not, as far as is known. While this is so, the keeper alone tries again.
    failing: Mutex<Option<Failure>>,
    /// What does stand there.
    holding: tokio::sync::Mutex<Holding>,
}

/// Why a report was not written.
#[derive(Clone, Debug)]
enum Failure {
    /// The cluster.
    Trouble(Trouble),
    /// Another daemon has the claim.
    Claimed { holder: String, place: String },
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        Failure::Trouble(trouble)
    }
}

impl Failure {
    fn error(self, host: &HostName) -> StoreError {
        match self {
            Failure::Trouble(trouble) => trouble.into(),
            Failure::Claimed { holder, place } => {
                StoreError::Claimed { host: host.clone(), holder, place }
            }
        }
    }
}

impl Claim {
    /// Takes the claim and says that the host is alive.
    pub async fn take(
        connection: Arc<Connection>,
        prefix: &Prefix,
        host: &HostName,
        lease_seconds: u32,
    ) -> Result<Claim, StoreError> {
        let mut holding = Holding::new(connection, prefix.clone(), host.clone(), lease_seconds);
        if let Err(failure) = holding.take().await {
            holding.release().await;
            return Err(failure.error(host));
        }
        let shared = Arc::new(Shared {
            host: host.clone(),
            lease_seconds,
            wanted: Mutex::default(),
            failing: Mutex::default(),
            holding: tokio::sync::Mutex::new(holding),
        });
        let keeper = AbortOnDrop(tokio::spawn(keep(Arc::clone(&shared))));
        Ok(Claim { shared, keeper: Some(keeper) })
    }
}

impl Shared {
    /// Makes what stands there what should, and notes what came of it.
    async fn settle(&self, holding: &mut Holding) -> Result<usize, Failure> {
        let wanted = self.wanted.lock().clone();
        let settled = match wanted {
            Some(wanted) => holding.write(&wanted).await,
            None => holding.take().await.map(|()| 0),
        };
        *self.failing.lock() = settled.as_ref().err().cloned();
        settled
    }
}

/// Keeps the lease alive, and what stands under `state/<host>/` as it should be.
async fn keep(shared: Arc<Shared>) {
    // A third of the lease's time: two chances more before it runs out.
    let period = Duration::from_secs(shared.lease_seconds.into()) / 3;
    loop {
        let failing = shared.failing.lock().is_some();
        let pause = if failing { RETRY } else { period };
        // Up to a fifth earlier, by chance: not all hosts at once.
        sleep(pause.mul_f64(1.0 - (random() % 1024) as f64 / 5120.0)).await;
        let mut holding = shared.holding.lock().await;
        let kept = holding.refresh().await;
        let settled = match kept {
            Ok(()) => shared.settle(&mut holding).await.map(drop),
            Err(failure) => {
                *shared.failing.lock() = Some(failure.clone());
                Err(failure)
            }
        };
        if let Err(failure) = settled
            && !failing
        {
            let error = failure.error(&shared.host);
            tracing::warn!("{error}; what should be reported is kept until it can be");
        }
    }
}

impl Reporter for Claim {
    fn report<'a>(&'a mut self, state: &'a ActualState) -> Pending<'a, usize> {
        Box::pin(async move {
            let shared = &self.shared;
            *shared.wanted.lock() = Some(Arc::new(holding::wanted(state, &shared.host)));
            // What is known to fail is not waited for: the daemon has other things to do.
            if let Some(failure) = shared.failing.lock().clone() {
                return Err(failure.error(&shared.host));
            }
            let mut holding = shared.holding.lock().await;
            let settled = shared.settle(&mut holding).await;
            settled.map_err(|failure| failure.error(&shared.host))
        })
    }

    fn withdraw(mut self: Box<Self>) -> Pending<'static, ()> {
        self.keeper = None;
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let mut holding = shared.holding.lock().await;
            let withdrawn = holding.withdraw().await;
            withdrawn.map_err(|failure| failure.error(&shared.host))
        })
    }
}

impl Drop for Claim {
    /// A claim that is dropped in a process that lives on would stay until its lease runs out.
    fn drop(&mut self) {
        if self.keeper.take().is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { shared.holding.lock().await.release().await });
        }
    }
}
