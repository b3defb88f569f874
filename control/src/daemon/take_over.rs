//! Taking over from the process that has started this one, see [`handover`](crate::handover).
//!
//! All that takes time or can fail comes first: configuration and desired state are read, DPDK is
//! started, rules are compiled, memory is mapped, ports are attached, sockets are taken over. Then what
//! is left is to start rings.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::clock::{Stopwatch, cycles};
use tokio::time::timeout;

use super::{Daemon, DaemonError, Origin};
use crate::config::Config;
use crate::engine::Ignition;
use crate::guest::GuestRecord;
use crate::handover::{Channel, ChannelError, FORMAT, Hello, Message, Offered, Predecessor, Same};
use crate::learned::Learned;
use crate::metrics::Metrics;
use crate::model::{Desired, PortUuid};
use crate::notify::Notify;
use crate::reports::Reports;
use crate::show::Server;
use crate::show::view::TakenOverView;
use crate::store::hold::{Hold, News};
use crate::store::{self, Store};
use crate::switch::{Ahead, Switch};

/// How long the store may take to be read.
const STORE_TIME: Duration = Duration::from_secs(30);

/// How long the other process may take for what it does at once.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Where the rings of each guest stand.
type Rings = BTreeMap<PortUuid, Vec<u32>>;

/// All that could be done before the other process stops.
struct Prepared {
    store: Arc<dyn Store>,
    hold: Hold,
    news: News,
    switch: Switch,
    server: Server,
    metrics: Option<Metrics>,
    from: Offered,
}

/// What the other process gives.
struct Offer {
    guests: Vec<(GuestRecord, Vec<OwnedFd>)>,
    learned: Learned,
    from: Offered,
    sockets: Vec<OwnedFd>,
}

impl Daemon {
    /// Takes over. None if it was only to be seen whether that could be. An error leaves the other
    /// process with all that it has.
    pub(super) async fn take_over(
        config: Config,
        origin: Origin,
        predecessor: Predecessor,
    ) -> Result<Option<Self>, DaemonError> {
        let system = |source| DaemonError::System { doing: "taking over", source };
        let mut channel = predecessor.channel().map_err(system)?;
        let halted = match Prepared::of(config, &mut channel).await {
            Ok(prepared) => prepared.wait(&mut channel).await,
            Err(why) => Err(why),
        };
        let (prepared, rings, since) = match halted {
            Ok(Some(halted)) => halted,
            Ok(None) => return Ok(None),
            Err(why) => {
                let refusal = Message::Refused { why: why.clone() };
                // It may be gone, which is then why.
                let _ = channel.send(&refusal, Vec::new()).await;
                return Err(DaemonError::Handover(why));
            }
        };
        // From here on the guests are this process's, whatever becomes of the other one.
        let _ = channel.send(&Message::Taken {}, Vec::new()).await;
        Ok(Some(prepared.go(origin, channel, &rings, since).await))
    }
}

impl Prepared {
    async fn of(config: Config, channel: &mut Channel) -> Result<Prepared, String> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let stopwatch = Stopwatch::start();
        let ignition = Ignition::begin(&config);
        let store = store::open(&config.store).map_err(|error| error.to_string())?;
        let mut hold = Hold::follow(Arc::clone(&store), &config.store, &config.host);
        let same = Same {
            host: config.host.clone(),
            socket_directory: config.vhost.socket_directory.clone(),
            control_socket: config.control.socket.clone(),
        };
        let news = known(&mut hold).await?;
        let listing = Arc::clone(news.listing.as_ref().ok_or("desired state is not known")?);
        let desired = Desired::default().rebuild(&listing.values, &config);
        let ahead = Ahead::of(&config, &desired, false).await;
        let switch = Switch::hold(config, stopwatch, ignition, ahead).await;
        let mut switch = switch.map_err(|error| error.to_string())?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Hello { format: FORMAT, version, same: Some(same) };
        channel.send(&hello, Vec::new()).await.map_err(told)?;
        let Offer { guests, learned, from, sockets } = Offer::hear(channel).await?;
        for (record, descriptors) in guests {
            switch.take(&desired, &record, descriptors)?;
        }
        switch.tell(learned);
        switch.apply(desired).await;

        let mut sockets = sockets.into_iter();
        let socket = sockets.next().ok_or("the socket for commands is missing")?;
        let server = Server::adopt(socket, &switch.config().control.socket);
        let server = server.map_err(|error| format!("the socket for commands: {error}"))?;
        let listen = switch.config().metrics.listen.clone();
        let metrics = match (&listen, sockets.next()) {
            (None, _) => None,
            (Some(listen), Some(socket)) if from.metrics == Some(listen.to_string()) => {
                let metrics = Metrics::adopt(listen, socket);
                Some(metrics.map_err(|error| format!("the socket for metrics: {error}"))?)
            }
            (Some(listen), _) => Some(Metrics::serve(listen).map_err(|error| error.to_string())?),
        };
        Ok(Prepared { store, hold, news, switch, server, metrics, from })
    }

    /// Says that all is ready, and waits until the other process has stopped. Returns where the rings
    /// stand, and since when; none if it was only to be seen whether it could be.
    async fn wait(self, channel: &mut Channel) -> Result<Option<(Self, Rings, u64)>, String> {
        channel.send(&Message::Ready {}, Vec::new()).await.map_err(told)?;
        loop {
            match channel.receive_within(ANSWER_TIME).await.map_err(told)? {
                (Message::Guest(record), descriptors) => self.switch.retake(&record, descriptors),
                (Message::Halted { rings, since }, _) => return Ok(Some((self, rings, since))),
                (Message::Enough {}, _) => {
                    tracing::info!("taking over would be possible");
                    return Ok(None);
                }
                (Message::Refused { why }, _) => return Err(why),
                _ => return Err("the other process speaks out of turn".to_owned()),
            }
        }
    }

    /// Goes on where the other process has stopped.
    async fn go(self, origin: Origin, mut channel: Channel, rings: &Rings, since: u64) -> Daemon {
        let Prepared { store, hold, news, mut switch, mut server, mut metrics, from } = self;
        let guests = switch.begin(rings).await;
        let rate = u128::from(switch.cycles_per_second().max(1));
        let pause_us = u128::from(cycles().saturating_sub(since)) * 1_000_000 / rate;
        let pause_us = u64::try_from(pause_us).unwrap_or(u64::MAX);
        // What comes takes its time, and systemd hears of this process alone already.
        let feeding = Notify::begin(switch.hearts());
        // Who was told that all is taken may be gone.
        let _ = channel.send(&Message::Flowing { pause_us, guests }, Vec::new()).await;
        let Offered { pid, version, .. } = from;
        tracing::info!(from = pid, version, guests, pause_us, "took over");
        match channel.receive_within::<Message>(ANSWER_TIME).await {
            Ok((Message::Released { bonds }, _)) => switch.resume_lacp(bonds),
            Err(ChannelError::Closed) => {}
            _ => tracing::warn!("the former process does not say that it has closed its devices"),
        }
        switch.open_devices().await;
        // What stood here up to this point was the former process's to remove.
        server.own();
        metrics.iter_mut().for_each(Metrics::own);
        server.accept(true);
        // The claim is the former process's until its end, which closes the channel.
        let gone = async move {
            while timeout(ANSWER_TIME, channel.receive::<Message>())
                .await
                .is_ok_and(|it| it.is_ok())
            {}
        };
        let host = switch.config().host.clone();
        let reports = Reports::after(gone, Arc::clone(&store), &host);
        let at = jiff::Timestamp::now();
        let taken_over = TakenOverView { pid, version, at, guests, pause_us };
        drop(feeding);
        let daemon = Daemon::new(origin, switch, store, hold, reports, server, metrics);
        Daemon { news, taken_over: Some(taken_over), ..daemon }
    }
}

impl Offer {
    async fn hear(channel: &mut Channel) -> Result<Offer, String> {
        let (mut guests, mut learned) = (Vec::new(), Learned::begin());
        loop {
            match channel.receive_within(ANSWER_TIME).await.map_err(told)? {
                (Message::Guest(record), descriptors) => guests.push((*record, descriptors)),
                (Message::Learned(told), _) => learned = told,
                (Message::Offered(from), sockets) => {
                    return Ok(Offer { guests, learned, from, sockets });
                }
                (Message::Refused { why }, _) => return Err(why),
                _ => return Err("the other process speaks out of turn".to_owned()),
            }
        }
    }
}

/// What is known of desired state, as soon as anything is.
async fn known(hold: &mut Hold) -> Result<News, String> {
    let reading = async {
        loop {
            let news = hold.next().await;
            if news.listing.is_some() {
                return Ok(news);
            }
            if news.away {
                let problems = news.problems.iter().map(ToString::to_string);
                return Err(problems.collect::<Vec<_>>().join("; "));
            }
        }
    };
    let late = || Err(format!("the store does not answer within {} s", STORE_TIME.as_secs()));
    timeout(STORE_TIME, reading).await.unwrap_or_else(|_| late())
}

fn told(error: ChannelError) -> String {
    error.to_string()
}
