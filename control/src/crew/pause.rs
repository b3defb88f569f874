//! Workers that wait: before they begin, while another process still has their cores and their rings,
//! and when that other process is to go on with what is theirs.
//!
//! Nothing of this is a barrier for those who switch: who pauses has nothing to switch any more.

use std::time::{Duration, Instant};

use super::{Crew, PATIENCE};

/// How long workers may take to end what they have begun. It is one iteration, or one sleep.
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Crew {
    /// Has workers begin that were started to wait.
    pub(crate) async fn begin(&mut self) {
        let Some(queues) = self.held.take() else { return };
        self.go_on();
        self.settle().await;
        for rxq in queues {
            self.attach(rxq).await;
        }
    }

    /// Has all workers end what they have begun and wait. The error names a core whose worker does not;
    /// then none waits.
    pub(crate) async fn pause(&mut self) -> Result<(), u32> {
        self.members.iter().for_each(|member| member.orders.pause());
        let since = Instant::now();
        for member in &self.members {
            while !member.orders.is_paused() {
                let core = member.core;
                match since.elapsed() {
                    // As a rule it is one burst, and a sleep here takes a thousand times as long.
                    passed if passed < Duration::from_millis(1) => std::thread::yield_now(),
                    passed if passed < PAUSE_MAX => tokio::time::sleep(PATIENCE).await,
                    _ => {
                        self.go_on();
                        return Err(core);
                    }
                }
            }
        }
        Ok(())
    }

    /// Has workers go on after [`pause`](Self::pause).
    pub(crate) fn go_on(&self) {
        for member in &self.members {
            member.orders.work(self.idle);
            member.thread.thread().unpark();
        }
    }
}
