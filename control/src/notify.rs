//! What systemd is told of a daemon that it started: that the switch is ready, how many ports are,
//! that it ends, and, again and again, that it lives.
//!
//! It lives as long as every worker polls. Each counts its polls, and the watchdog is fed only if all
//! counts have moved since it was fed last. Feeding is a task of the control thread: one that hangs
//! does not feed either, while one that waits for rules to be compiled does. Without systemd there is
//! nobody to tell, and nothing is done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dataplane::counters::WorkerCounters;
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::model::{ActualState, Status};

/// How often the watchdog is fed in the time after which it bites.
const MEALS: u32 = 4;

/// The service as systemd sees it. See the [module's head](self).
pub(crate) struct Notify {
    ready: bool,
    status: String,
    feeder: Option<JoinHandle<()>>,
}

/// A worker, as far as it shows that it lives.
pub(crate) struct Heart {
    pub(crate) core: u32,
    pub(crate) counters: Arc<WorkerCounters>,
}

impl Notify {
    /// Feeds the watchdog from now on, if there is one, on the current runtime.
    pub(crate) fn begin(hearts: Vec<Heart>) -> Notify {
        Notify { ready: false, status: String::new(), feeder: feeder(hearts) }
    }

    /// Feeds the watchdog while these workers live, and no longer by the former ones.
    pub(crate) fn watch(&mut self, hearts: Vec<Heart>) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
        self.feeder = feeder(hearts);
    }

    /// Tells how many ports are ready; and that the switch is, once it is known what should be in force
    /// and that is applied, or once it is known that the store is `away`.
    pub(crate) fn tell(&mut self, state: Option<&ActualState>, away: bool) {
        let Some(status) = status(state, away) else { return };
        if status != self.status {
            send(NotifyState::Status(&status));
            self.status = status;
        }
        if !std::mem::replace(&mut self.ready, true) {
            send(NotifyState::Ready);
        }
    }

    /// Tells that another process is the daemon from now on, which alone is heard then.
    pub(crate) fn hand_over(&self, pid: u32) {
        send(NotifyState::MainPid(pid));
    }

    /// Tells that the daemon ends. The watchdog has no business with how long that takes: the time
    /// that systemd gives it to stop is the bound.
    pub(crate) fn stopping(&self) {
        send(NotifyState::Stopping);
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

/// Whether workers have polled since it was looked at last.
struct Pulse {
    beats: Vec<Beat>,
}

struct Beat {
    heart: Heart,
    /// Its polls, and when they were found to have moved.
    polls: u64,
    moved: Instant,
    /// Whether the log says that it hangs.
    told: bool,
}

impl Pulse {
    fn new(hearts: Vec<Heart>, now: Instant) -> Pulse {
        let beat = |heart: Heart| Beat { polls: heart.polls(), heart, moved: now, told: false };
        Pulse { beats: hearts.into_iter().map(beat).collect() }
    }

    /// Whether all workers have polled since the last call. Logs which one has not for `limit`, and
    /// that it does again.
    fn all_beat(&mut self, now: Instant, limit: Duration) -> bool {
        let mut all = true;
        for beat in &mut self.beats {
            let (polls, core) = (beat.heart.polls(), beat.heart.core);
            if polls != beat.polls {
                beat.polls = polls;
                beat.moved = now;
                if std::mem::take(&mut beat.told) {
                    tracing::warn!(core, "the worker polls again");
                }
                continue;
            }
            all = false;
            if !beat.told && now.duration_since(beat.moved) >= limit {
                beat.told = true;
                tracing::error!(
                    core,
                    "the worker has stopped to poll, so systemd's watchdog is not fed and will \
                     restart the switch; is its core taken by a thread of higher priority?"
                );
            }
        }
        all
    }
}

impl Heart {
    fn polls(&self) -> u64 {
        self.counters.polls.load(Ordering::Relaxed)
    }
}

/// The task that feeds the watchdog, if there is one.
fn feeder(hearts: Vec<Heart>) -> Option<JoinHandle<()>> {
    let limit = sd_notify::watchdog_enabled()?;
    Some(tokio::spawn(feed(Pulse::new(hearts, Instant::now()), limit)))
}

/// Feeds the watchdog while all workers live. It bites after `limit` without.
async fn feed(mut pulse: Pulse, limit: Duration) {
    let mut meal = tokio::time::interval(limit / MEALS);
    meal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, when workers need not have polled.
    meal.tick().await;
    loop {
        let now = meal.tick().await;
        if pulse.all_beat(now, limit / 2) {
            send(NotifyState::Watchdog);
        }
    }
}

/// How the switch is; none as long as it is not known how it should be.
fn status(state: Option<&ActualState>, away: bool) -> Option<String> {
    match (state, away) {
        (Some(state), false) => Some(counts(state)),
        (Some(state), true) => Some(format!("{}; the store is away", counts(state))),
        (None, true) => Some("the store is away, and nothing is known of it".to_owned()),
        (None, false) => None,
    }
}

fn counts(state: &ActualState) -> String {
    fn part(all: impl ExactSizeIterator<Item = Status>, name: &str) -> String {
        let of = all.len();
        let ready = all.filter(|status| *status == Status::Ready).count();
        format!("{ready} of {of} {name} ready")
    }
    let ports = part(state.ports.values().map(|port| port.status), "ports");
    let uplinks = part(state.physnets.values().map(|physnet| physnet.status), "uplinks");
    format!("{ports}, {uplinks}")
}

fn send(state: NotifyState<'_>) {
    // Where nobody asked to be told this does nothing; who asked and does not listen has gone.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("telling systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_hangs_is_enough() {
        let counters: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::default())).collect();
        let heart = |core: u32| Heart { core, counters: Arc::clone(&counters[core as usize]) };
        let start = Instant::now();
        let mut pulse = Pulse::new(vec![heart(0), heart(1)], start);
        let poll = |worker: usize| counters[worker].polls.fetch_add(1, Ordering::Relaxed);
        let limit = Duration::from_secs(4);
        let at = |seconds| start + Duration::from_secs(seconds);

        assert!(!pulse.all_beat(at(1), limit), "none has polled");
        poll(0);
        poll(1);
        assert!(pulse.all_beat(at(2), limit));
        assert!(!pulse.all_beat(at(3), limit), "none has since");
        poll(0);
        assert!(!pulse.all_beat(at(4), limit), "worker 1 hangs");
        assert!(!pulse.beats[1].told, "not for long yet");
        poll(0);
        assert!(!pulse.all_beat(at(6), limit));
        assert_eq!((pulse.beats[0].told, pulse.beats[1].told), (false, true));
        poll(0);
        poll(1);
        assert!(pulse.all_beat(at(7), limit), "it polls again");
        assert!(!pulse.beats[1].told);
    }

    #[test]
    fn the_status_counts_what_is_ready_of_all() {
        let mut state = ActualState::default();
        for status in [Status::Ready, Status::Waiting, Status::Refused] {
            let port = uuid::Uuid::new_v4().into();
            state.ports.insert(port, crate::model::PortState::new(status, None));
        }
        let said = "1 of 3 ports ready, 0 of 0 uplinks ready";
        assert_eq!(status(Some(&state), false).as_deref(), Some(said));
        let away = format!("{said}; the store is away");
        assert_eq!(status(Some(&state), true), Some(away), "what it had last is in force");
    }

    #[test]
    fn nothing_is_said_until_desired_state_is_known_or_known_to_be_away() {
        assert_eq!(status(None, false), None);
        assert!(status(None, true).is_some_and(|said| said.starts_with("the store is away")));
    }
}
