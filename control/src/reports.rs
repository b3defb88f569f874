//! Reports actual state to the store, beside the control thread's other work.
//!
//! The store may take its time, or be away for hours; neither may keep the control thread from its
//! guests. What is to be reported is replaced by what is newer until it can be written. The claim to
//! report for the host is taken as soon as the store allows it.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::model::{ActualState, HostName};
use crate::problem::Problem;
use crate::store::{Reporter, Store, StoreError};

/// How long to wait before a store that refused a report is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long the daemon's end may be put off by a store that does not answer.
const WITHDRAW: Duration = Duration::from_secs(5);

/// Reports on their way to the store.
pub(crate) struct Reports {
    state: watch::Sender<Wanted>,
    standing: Arc<Mutex<Standing>>,
    task: JoinHandle<()>,
}

/// What should stand in the store.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// What an earlier process left, until it is known what should be in force.
    Left,
    /// This.
    State(ActualState),
    /// Nothing, as this process ends.
    Nothing,
}

/// How reporting goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Whether we are the one who reports for the host.
    pub claimed: bool,
    /// Why the last try failed, until one succeeds.
    pub failure: Option<Problem>,
    /// Values written and deleted so far.
    pub written: u64,
}

impl Reports {
    /// Claims the host and begins to report. Fails if somebody else reports for it; a store that is
    /// away is asked again later.
    pub(crate) async fn begin(store: Arc<dyn Store>, host: &HostName) -> Result<Self, StoreError> {
        let (reporter, failure) = match store.claim(host).await {
            Ok(reporter) => (Some(reporter), None),
            Err(error @ StoreError::Remote { .. }) => {
                tracing::error!("{error}; nothing is reported until then");
                (None, Some(error.problem()))
            }
            Err(error) => return Err(error),
        };
        let standing = Standing { claimed: reporter.is_some(), failure, written: 0 };
        Ok(Self::spawn(store, host, standing, false, ready(reporter)))
    }

    /// Claims the host and begins to report when `gone` is over: until then another process has the
    /// claim, whose end leaves all that it has reported where it is.
    pub(crate) fn after(
        gone: impl Future<Output = ()> + Send + 'static,
        store: Arc<dyn Store>,
        host: &HostName,
    ) -> Self {
        Self::spawn(store, host, Standing::default(), true, async {
            gone.await;
            None
        })
    }

    /// Reports as soon as it is known with which claim, if there is one by then.
    fn spawn(
        store: Arc<dyn Store>,
        host: &HostName,
        standing: Standing,
        inherits: bool,
        claim: impl Future<Output = Option<Box<dyn Reporter>>> + Send + 'static,
    ) -> Self {
        let standing = Arc::new(Mutex::new(standing));
        let (state, receiver) = watch::channel(Wanted::Left);
        let task = Task {
            store,
            host: host.clone(),
            state: receiver,
            standing: Arc::clone(&standing),
            inherits,
        };
        let task = tokio::spawn(async { task.run(claim.await).await });
        Self { state, standing, task }
    }

    /// Leaves what was reported, and the claim, to another process.
    pub(crate) async fn leave(mut self) {
        self.task.abort();
        // With the task the claim goes; an error here says that it was aborted, as was asked for.
        let _ = timeout(WITHDRAW, &mut self.task).await;
    }

    /// Reports this from now on.
    pub(crate) fn report(&self, state: ActualState) {
        let wanted = Wanted::State(state);
        self.state.send_if_modified(|reported| {
            let changed = *reported != wanted;
            *reported = wanted;
            changed
        });
    }

    /// How it goes.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Takes back what was reported and gives up the claim, unless the store is away.
    pub(crate) async fn withdraw(mut self) {
        self.state.send_replace(Wanted::Nothing);
        if timeout(WITHDRAW, &mut self.task).await.is_err() {
            tracing::error!("withdrawing what was reported: the store does not answer");
            self.task.abort();
        }
    }
}

/// The task behind [`Reports`].
struct Task {
    store: Arc<dyn Store>,
    host: HostName,
    state: watch::Receiver<Wanted>,
    standing: Arc<Mutex<Standing>>,
    /// What another process has reported is this one's to take back.
    inherits: bool,
}

impl Task {
    async fn run(mut self, mut reporter: Option<Box<dyn Reporter>>) {
        loop {
            let wanted = self.state.borrow_and_update().clone();
            let done = match (&mut reporter, &wanted) {
                (_, Wanted::Nothing) => break,
                (Some(_), Wanted::Left) => Ok(0),
                (Some(reporter), Wanted::State(state)) => {
                    reporter.report(state).await.map(|values| values as u64)
                }
                (None, _) => match self.store.claim(&self.host).await {
                    Ok(claimed) => {
                        reporter = Some(claimed);
                        tracing::info!(host = %self.host, "reporting for this host now");
                        self.standing.lock().claimed = true;
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let failed = done.is_err();
            self.note(done);
            let news = self.state.changed();
            let gone = if failed {
                matches!(timeout(AGAIN, news).await, Ok(Err(_)))
            } else {
                news.await.is_err()
            };
            if gone {
                break;
            }
        }
        if reporter.is_none() && self.inherits {
            // If it cannot be claimed, somebody else has it or the store is away.
            reporter = self.store.claim(&self.host).await.ok();
        }
        if let Some(reporter) = reporter
            && let Err(error) = reporter.withdraw().await
        {
            tracing::error!("withdrawing what was reported: {error}");
        }
    }

    fn note(&self, done: Result<u64, StoreError>) {
        let mut standing = self.standing.lock();
        match done {
            Ok(values) => {
                standing.written += values;
                if standing.failure.take().is_some() {
                    tracing::info!("actual state can be reported again");
                }
            }
            Err(error) => {
                let problem = error.problem();
                if standing.failure.as_ref() != Some(&problem) {
                    tracing::error!("reporting actual state: {problem}");
                }
                standing.failure = Some(problem);
            }
        }
    }
}
