//! The start from nothing. What takes longest, DPDK, goes on beside all that does not need it, guests'
//! frames among that.

use std::sync::Arc;

use dataplane::clock::Stopwatch;

use super::{Daemon, DaemonError, Origin};
use crate::budget::Budget;
use crate::config::Config;
use crate::engine::Ignition;
use crate::metrics::Metrics;
use crate::model::Desired;
use crate::reports::Reports;
use crate::show::Server;
use crate::store;
use crate::store::hold::{Hold, News};
use crate::switch::{Ahead, Switch};

impl Daemon {
    /// Starts the switch, puts in force what is known of desired state by then, and opens devices when
    /// DPDK runs.
    pub(super) async fn start(config: Config, origin: Origin) -> Result<Self, DaemonError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        for line in Budget::new(&config, &Desired::default()).to_string().lines() {
            tracing::info!("memory: {line}");
        }
        let stopwatch = Stopwatch::start();
        let mut ignition = Ignition::begin(&config);
        let store = store::open(&config.store)?;
        let mut hold = Hold::follow(Arc::clone(&store), &config.store, &config.host);
        let server = Server::bind(&config.control.socket)?;
        let metrics = config.metrics.listen.as_ref().map(Metrics::serve).transpose()?;
        // No guest is touched before it is certain that no other daemon has them.
        let reports = Reports::begin(Arc::clone(&store), &config.host).await?;
        let news = first_news(&mut hold, &mut ignition).await;
        let ahead = match &news.listing {
            Some(listing) => {
                let desired = Desired::default().rebuild(&listing.values, &config);
                Ahead::of(&config, &desired, true).await
            }
            None => Ahead::default(),
        };
        let cores = config.workers.cores.clone();
        let switch = Switch::start(config, stopwatch, ahead).await?;
        tracing::info!(
            host = %switch.config().host,
            store = store.location(),
            ?cores,
            "the switch runs"
        );
        let mut daemon = Self::new(origin, switch, store, hold, reports, server, metrics);
        daemon.hear(news).await;
        if let Err(why) = daemon.switch.ignite(ignition).await {
            daemon.stop().await;
            return Err(why.into());
        }
        daemon.report();
        Ok(daemon)
    }
}

/// What is known of desired state when it is known, or when DPDK has started.
async fn first_news(hold: &mut Hold, ignition: &mut Ignition) -> News {
    let mut news = News::default();
    while news.listing.is_none() {
        tokio::select! {
            next = hold.next() => news = next,
            () = ignition.wait() => break,
        }
    }
    news
}
