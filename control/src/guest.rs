//! A guest's vhost-user socket: connected, served and connected again, for as long as its port is.
//!
//! In client mode (the default) the guest's process owns the socket and we connect to it, again and
//! again with growing pauses, since it may start after us, and restart. In server mode we own it and
//! wait for one guest at a time. A session ends when the guest's process goes, when it breaks the
//! protocol, or when a worker found its rings broken; why, is kept for `show` and for actual state.

mod backoff;
mod end;
mod handed;
mod held;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vhost::Device;
use vhost::session::{Session, SessionOptions, SessionSummary};
use vhost::socket::{Access, ConnectError, Connection, Listener};

use crate::beat::beat;
use crate::config::Vhost;
use crate::model::PortUuid;
use backoff::Backoff;
use end::End;
pub(crate) use handed::GuestRecord;
pub(crate) use held::HELD;

/// How often a session asks whether a worker found its rings broken.
const WATCH: Duration = Duration::from_millis(50);

/// A session that lasted this long was a good one: the next try to connect comes at once.
const GOOD: Duration = Duration::from_secs(1);

/// How long to wait before a socket that could not be made is tried again.
const REBIND: Duration = Duration::from_secs(2);

/// Which socket, and for what.
#[derive(Clone, Debug)]
pub(crate) struct GuestOptions {
    /// The port, for the log.
    pub(crate) port: PortUuid,
    /// Where the socket is.
    pub(crate) path: PathBuf,
    /// Whether we make it.
    pub(crate) server: bool,
    /// The largest MTU that the guest may be told.
    pub(crate) mtu: Option<u16>,
}

/// How far a guest has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestState {
    /// No guest's process is connected.
    Unconnected {
        /// Why not.
        reason: String,
    },
    /// The socket cannot be used, whoever may come: somebody has to do something.
    Failed {
        /// Why not, and what to do.
        reason: String,
    },
    /// One is.
    Connected {
        /// At least one pair of its queues moves frames both ways.
        ready: bool,
    },
}

/// What there is to know of a guest's socket.
#[derive(Clone, Debug)]
pub(crate) struct GuestStatus {
    pub(crate) state: GuestState,
    /// Sessions so far, a present one included.
    pub(crate) sessions: u64,
    /// Second guests that were sent away from a socket in server mode.
    pub(crate) sent_away: u64,
    /// Why the last session ended.
    pub(crate) last_error: Option<String>,
}

/// A socket that is being served.
#[derive(Debug)]
pub(crate) struct GuestHandle {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Serves a guest's socket.
pub(crate) struct GuestSocket {
    options: GuestOptions,
    device: Arc<Device>,
    shared: Arc<Shared>,
    backoff: Backoff,
    access: Access,
}

#[derive(Debug)]
struct Shared {
    status: Mutex<GuestStatus>,
    session: Mutex<Option<Session>>,
    /// See [`GuestOptions::mtu`]; its network may get another one.
    mtu: Mutex<Option<u16>>,
    /// Whether the socket is connected to again when its guest has gone.
    kept: AtomicBool,
    /// Whether nobody is to be connected for now, so that the guest's link is down.
    held: watch::Sender<bool>,
    /// The connection of the present session.
    connection: Mutex<Option<Connection>>,
    /// Our socket, in server mode.
    listener: Mutex<Option<Listener>>,
    /// Counts what another process would have to be told anew.
    changes: AtomicU64,
    /// While it is set, the task does nothing, as another process has the guest.
    frozen: watch::Sender<bool>,
}

impl GuestSocket {
    /// Serves the socket on the current runtime, until the handle is closed. If it is `frozen`, not
    /// before [`GuestHandle::thaw`].
    pub(crate) fn spawn(
        options: GuestOptions,
        vhost: &Vhost,
        device: Arc<Device>,
        frozen: bool,
    ) -> GuestHandle {
        let (socket, shared) = Self::new(options, vhost, device);
        shared.frozen.send_replace(frozen);
        let task = tokio::spawn(async move {
            if socket.options.server { socket.serve().await } else { socket.connect().await }
        });
        GuestHandle { shared, task }
    }

    fn new(options: GuestOptions, vhost: &Vhost, device: Arc<Device>) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            status: Mutex::new(GuestStatus {
                state: GuestState::Unconnected { reason: "not tried yet".to_owned() },
                sessions: 0,
                sent_away: 0,
                last_error: None,
            }),
            session: Mutex::new(None),
            mtu: Mutex::new(options.mtu),
            kept: AtomicBool::new(true),
            held: watch::Sender::new(false),
            connection: Mutex::new(None),
            listener: Mutex::new(None),
            changes: AtomicU64::new(0),
            frozen: watch::Sender::new(false),
        });
        let backoff = Backoff::new(vhost.reconnect_min_ms, vhost.reconnect_max_ms);
        // The configuration was judged when it was loaded; a user that has gone since is no owner.
        let (owner, group) = (vhost.owner().ok().flatten(), vhost.group().ok().flatten());
        let access = Access { mode: vhost.socket_mode.bits(), owner, group };
        let socket = Self { options, device, shared: Arc::clone(&shared), backoff, access };
        (socket, shared)
    }

    /// Serves a guest that is connected already, in client mode. When it has gone this ends, unless
    /// [`GuestHandle::keep`] was called before.
    pub(crate) fn spawn_early(
        options: GuestOptions,
        vhost: &Vhost,
        device: Arc<Device>,
        connection: Connection,
    ) -> GuestHandle {
        let (mut socket, shared) = Self::new(options, vhost, device);
        shared.kept.store(false, Ordering::Relaxed);
        let task = tokio::spawn(async move {
            socket.run(connection, None).await;
            if socket.shared.kept.load(Ordering::Relaxed) {
                socket.connect().await;
            }
        });
        GuestHandle { shared, task }
    }

    /// Client mode: connects to the guest's process, again and again.
    async fn connect(mut self) {
        loop {
            self.released().await;
            self.shared.thawed().await;
            if self.has_session() {
                self.attend(None).await;
                continue;
            }
            match Connection::connect(&self.options.path) {
                Ok(connection) => {
                    let since = Instant::now();
                    self.run(connection, None).await;
                    if since.elapsed() >= GOOD {
                        self.backoff.reset();
                    }
                }
                // These pass by themselves, when a guest starts or ends.
                Err(
                    error @ (ConnectError::Missing(_)
                    | ConnectError::NobodyListens(_)
                    | ConnectError::Busy(_)),
                ) => self.note_unconnected(error.to_string()),
                Err(error) => self.note_failed(error.to_string()),
            }
            tokio::time::sleep(self.backoff.next()).await;
        }
    }

    /// Server mode: makes the socket and waits for guests.
    async fn serve(mut self) {
        loop {
            // Who could connect and is not answered would wait for it: there is no socket meanwhile.
            self.released().await;
            self.shared.thawed().await;
            let listener = match self.bind() {
                Ok(listener) => listener,
                Err(reason) => {
                    self.note_failed(reason);
                    tokio::time::sleep(REBIND).await;
                    continue;
                }
            };
            if self.has_session() {
                self.attend(Some(&listener)).await;
            }
            self.note_unconnected("waiting for the guest's process to connect".to_owned());
            loop {
                self.shared.thawed().await;
                let accepted = tokio::select! {
                    biased;
                    () = self.shared.freezing() => continue,
                    () = self.shared.held() => break,
                    accepted = accept(&listener) => accepted,
                };
                match accepted {
                    Ok(connection) => self.run(connection, Some(&listener)).await,
                    Err(error) => {
                        self.note_unconnected(format!("accepting a connection: {error}"));
                        break;
                    }
                }
                if *self.shared.held.borrow() {
                    break;
                }
                tokio::time::sleep(self.backoff.first).await;
            }
            drop(self.shared.listener.lock().take());
        }
    }

    /// Makes the socket, if there is none yet. What is shared owns the file, which is removed when the
    /// port is closed.
    fn bind(&self) -> Result<UnixListener, String> {
        let mut present = self.shared.listener.lock();
        if present.is_none() {
            let bound = Listener::bind(&self.options.path, self.access);
            *present = Some(bound.map_err(|error| error.to_string())?);
            self.shared.changed();
        }
        let events = present.as_ref().map(events_of).transpose();
        let events = events.map_err(|error| error.to_string())?;
        events.ok_or_else(|| "the socket went as soon as it was made".to_owned())
    }

    /// One session, from its first message to its end.
    async fn run(&mut self, connection: Connection, listener: Option<&UnixListener>) {
        let options = SessionOptions { mtu_max: *self.shared.mtu.lock() };
        *self.shared.session.lock() = Some(Session::new(Arc::clone(&self.device), options));
        {
            let mut status = self.shared.status.lock();
            status.state = GuestState::Connected { ready: false };
            status.sessions += 1;
        }
        *self.shared.connection.lock() = Some(connection);
        self.shared.changed();
        let port = self.options.port;
        tracing::info!(%port, socket = %self.options.path.display(), "a guest's process connected");
        self.attend(listener).await;
    }

    /// The present session, to its end.
    async fn attend(&mut self, listener: Option<&UnixListener>) {
        let port = self.options.port;
        let reason = match self.converse(listener).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        // Takes all rings back from the workers before the guest's memory is unmapped.
        let session = self.shared.session.lock().take();
        drop(session);
        drop(self.shared.connection.lock().take());
        self.shared.changed();
        match &reason {
            End::Gone | End::Held => tracing::info!(%port, "{reason}"),
            End::Broken(_) => tracing::warn!(%port, "{reason}"),
        }
        let mut status = self.shared.status.lock();
        status.state = GuestState::Unconnected { reason: reason.to_string() };
        status.last_error = Some(reason.to_string());
    }

    async fn converse(
        &mut self,
        mut listener: Option<&UnixListener>,
    ) -> Result<std::convert::Infallible, End> {
        // A second descriptor of the same socket tells when there is something to read.
        let events = match self.shared.connection.lock().as_ref() {
            Some(connection) => connection.as_fd().try_clone_to_owned().map_err(End::broken)?,
            None => return Err(End::Gone),
        };
        let events = UnixStream::from_std(events.into()).map_err(End::broken)?;
        let mut watch = beat(WATCH);
        loop {
            self.shared.thawed().await;
            tokio::select! {
                biased;
                () = self.shared.freezing() => {}
                () = self.shared.held() => return Err(End::Held),
                _ = watch.tick() => {
                    if let Some(violation) = self.device.take_violation() {
                        if let Some(session) = self.shared.session.lock().as_ref() {
                            session.signal_error(violation.queue);
                        }
                        return Err(End::broken(violation));
                    }
                }
                readable = events.readable() => {
                    readable.map_err(End::broken)?;
                    // One message a turn: others on this thread get theirs in between.
                    let mut connection = self.shared.connection.lock();
                    let Some(connection) = connection.as_mut() else { return Err(End::Gone) };
                    let received = events.try_io(Interest::READABLE, || {
                        match connection.try_receive() {
                            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                            received => Ok(received),
                        }
                    });
                    let Ok(received) = received else { continue };
                    let Some(message) = received.map_err(End::socket)? else { continue };
                    if let Some(reply) = self.handle(message)? {
                        connection.send(&reply.encode()).map_err(End::socket)?;
                    }
                }
                second = accept_second(listener) => match second {
                    Ok(_) => {
                        self.shared.status.lock().sent_away += 1;
                        tracing::warn!(port = %self.options.port, "sent a second guest away");
                    }
                    // It would fail again at once. Whoever waits there is seen to afterwards.
                    Err(_) => listener = None,
                }
            }
        }
    }

    fn handle(
        &self,
        message: vhost::message::Message,
    ) -> Result<Option<vhost::message::Reply>, End> {
        self.shared.changed();
        let mut session = self.shared.session.lock();
        let Some(session) = session.as_mut() else { return Err(End::Gone) };
        let refused = session.refusal().map(str::to_owned);
        let reply = session.handle(message).map_err(End::broken)?;
        if let Some(refusal) = session.refusal().filter(|now| Some(*now) != refused.as_deref()) {
            tracing::warn!(port = %self.options.port, "refused and told so: {refusal}");
        }
        let ready = session.is_ready();
        let mut status = self.shared.status.lock();
        let state = GuestState::Connected { ready };
        if status.state != state {
            let what = if ready { "moves frames" } else { "does not move frames any more" };
            tracing::info!(port = %self.options.port, "the guest {what}");
            status.state = state;
        }
        Ok(reply)
    }

    fn note_unconnected(&self, reason: String) {
        if self.note(GuestState::Unconnected { reason: reason.clone() }) {
            tracing::info!(port = %self.options.port, "{reason}");
        }
    }

    fn note_failed(&self, reason: String) {
        if self.note(GuestState::Failed { reason: reason.clone() }) {
            tracing::error!(port = %self.options.port, "{reason}");
        }
    }

    /// Takes note of the state; returns whether it is another one than before.
    fn note(&self, state: GuestState) -> bool {
        let mut status = self.shared.status.lock();
        let changed = status.state != state;
        status.state = state;
        changed
    }
}

impl GuestHandle {
    /// Changes the largest MTU that the guest may be told, from its next word on.
    pub(crate) fn limit_mtu(&self, max: Option<u16>) {
        *self.shared.mtu.lock() = max;
        if let Some(session) = self.shared.session.lock().as_mut() {
            session.limit_mtu(max);
        }
    }

    /// Lets the socket be a port's, that is, be connected to again when its guest has gone. False if
    /// that guest has gone already.
    pub(crate) fn keep(&self) -> bool {
        // The task looks at this when its session has ended, and then ends at once: it runs on this
        // same thread, so it has done both or neither.
        self.shared.kept.store(true, Ordering::Relaxed);
        !self.is_over()
    }

    /// Whether the guest has gone and the socket is left alone.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Pairs of queues up to the last one that the guest uses now.
    pub(crate) fn pairs_used(&self) -> u16 {
        self.shared.session.lock().as_ref().map_or(0, Session::pairs_used)
    }

    /// The MTU that the guest is told, if its process said.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.shared.session.lock().as_ref().and_then(Session::mtu)
    }

    /// How far the guest has come.
    pub(crate) fn status(&self) -> GuestStatus {
        self.shared.status.lock().clone()
    }

    /// The present session, if there is one.
    pub(crate) fn summary(&self) -> Option<SessionSummary> {
        self.shared.session.lock().as_ref().map(Session::summary)
    }

    /// Ends the session and removes a socket of ours. Afterwards no ring runs.
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // An error here says that the task was aborted, which is what was asked for.
        let _ = (&mut self.task).await;
        drop(self.shared.session.lock().take());
        drop(self.shared.connection.lock().take());
        drop(self.shared.listener.lock().take());
    }
}

impl Drop for GuestHandle {
    /// Nobody could end the task any more.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What tells that somebody connects: a second descriptor of the same socket.
fn events_of(listener: &Listener) -> io::Result<UnixListener> {
    let events = listener.as_fd().try_clone_to_owned()?;
    UnixListener::from_std(events.into())
}

async fn accept(listener: &UnixListener) -> io::Result<Connection> {
    let (stream, _) = listener.accept().await?;
    Connection::new(stream.into_std()?)
}

/// Another guest at a socket that is taken; never, if it is not our socket.
async fn accept_second(listener: Option<&UnixListener>) -> io::Result<Connection> {
    match listener {
        Some(listener) => accept(listener).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
