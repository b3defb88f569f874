//! The thread that asks the daemon, so that one that does not answer holds no key up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::reading::Reading;

/// What became of asking.
pub enum News {
    /// An answer.
    Reading(Box<Reading>),
    /// There is none, for this reason.
    Away(String),
    /// Somebody has this program end.
    End,
}

/// See the [module's head](self).
pub struct Sampler {
    news: Receiver<News>,
}

impl Sampler {
    /// Asks again and again, with this time between.
    pub fn start(socket: PathBuf, interval: Duration) -> io::Result<Sampler> {
        let (sender, news) = channel();
        let runtime = runtime()?;
        std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || runtime.block_on(sample(&socket, interval, &sender)))?;
        Ok(Sampler { news })
    }

    /// What is new, if anything is.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

/// Asks once, and waits for the answer.
pub fn read_now(socket: &Path) -> Result<Reading, String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(Reading::take(socket)).map_err(|error| error.to_string())
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Sends news until nobody wants them any more. Signals that end a program end it in order here: the
/// terminal is to be left as it was.
async fn sample(socket: &Path, interval: Duration, news: &Sender<News>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut hangup)) = signals else { return };
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and there is a reading already.
    tick.tick().await;
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let asking = async {
        loop {
            tick.tick().await;
            let now = match Reading::take(socket).await {
                Ok(reading) => News::Reading(Box::new(reading)),
                Err(error) => News::Away(error.to_string()),
            };
            if news.send(now).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        // Who has gone does not need to be told.
        () = end => drop(news.send(News::End)),
    }
}
