//! A guest that goes from one process to the next with its connection, its memory and its rings.
//!
//! The process that gives makes a [`GuestRecord`] while frames still pass, and once more if the guest
//! says anything after that; at the end it freezes the guest, halts its rings and tells where they
//! stand. The process that takes has the guest frozen from the beginning, until its rings run again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use vhost::session::{Session, SessionImage, SessionOptions, Side};
use vhost::socket::{Connection, Listener};

use super::{GuestHandle, GuestSocket, GuestState, Shared};
use crate::model::PortUuid;

/// What there is to know of a guest, but for where its rings stand. The connection, our socket and the
/// session's descriptors go beside it, in this order, as far as there are any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestRecord {
    /// Its port.
    pub(crate) port: PortUuid,
    /// Where its socket is, and whether we make it.
    pub(crate) path: PathBuf,
    pub(crate) server: bool,
    /// Pairs of queues that its device has.
    pub(crate) pairs: u16,
    /// Sessions so far.
    sessions: u64,
    /// Whether our socket comes beside.
    listener: bool,
    /// The present session, if there is one, whose connection comes beside.
    session: Option<SessionImage>,
}

impl GuestRecord {
    /// Whether a guest's process is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.session.is_some()
    }
}

impl GuestHandle {
    /// The guest as it is, with copies of its descriptors. None if there is nothing to hand over.
    pub(crate) fn record(
        &self,
        port: PortUuid,
        path: PathBuf,
        server: bool,
        pairs: u16,
    ) -> io::Result<Option<(GuestRecord, Vec<OwnedFd>)>> {
        let mut descriptors = Vec::new();
        let session = self.shared.session.lock().as_ref().map(Session::image).transpose()?;
        let connection = self.shared.connection.lock();
        // Of a message of which half has come nobody else knows: its guest connects again.
        let whole = connection.as_ref().filter(|connection| !connection.is_midway());
        let session = match (session, whole) {
            (Some((image, files)), Some(connection)) => {
                descriptors.push(connection.as_fd().try_clone_to_owned()?);
                Some((image, files))
            }
            _ => None,
        };
        let listener = self.shared.listener.lock();
        if let Some(listener) = &*listener {
            descriptors.push(listener.as_fd().try_clone_to_owned()?);
        }
        if session.is_none() && listener.is_none() {
            return Ok(None);
        }
        let session = session.map(|(image, files)| {
            descriptors.extend(files);
            image
        });
        let (sessions, listener) = (self.shared.status.lock().sessions, listener.is_some());
        let record = GuestRecord { port, path, server, pairs, sessions, listener, session };
        Ok(Some((record, descriptors)))
    }

    /// Takes over what a record says, in place of what there was. The rings wait for
    /// [`go_on`](Self::go_on). The error is a sentence.
    pub(crate) fn adopt(
        &self,
        record: &GuestRecord,
        descriptors: Vec<OwnedFd>,
        device: &std::sync::Arc<vhost::Device>,
    ) -> Result<(), String> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or("a descriptor is missing".to_owned());
        let connection = record.session.as_ref().map(|_| next()).transpose()?;
        let listener = record.listener.then(next).transpose()?;
        let listener = listener.map(|listener| Listener::adopt(listener, &record.path)).transpose();
        let listener = listener.map_err(|error| error.to_string())?;
        let connection = connection.map(|it| Connection::new(UnixStream::from(it))).transpose();
        let connection = connection.map_err(|error| error.to_string())?;
        let session = record.session.as_ref().map(|image| {
            let options = SessionOptions { mtu_max: *self.shared.mtu.lock() };
            Session::resume(std::sync::Arc::clone(device), options, image, descriptors.collect())
        });
        let session = session.transpose().map_err(|error| error.to_string())?;

        // The former one goes first: it would take the new one's rings out of the device.
        drop(self.shared.session.lock().take());
        let connected = session.is_some();
        *self.shared.session.lock() = session;
        *self.shared.connection.lock() = connection;
        if listener.is_some() {
            *self.shared.listener.lock() = listener;
        }
        let mut status = self.shared.status.lock();
        status.sessions = record.sessions;
        if connected {
            status.state = GuestState::Connected { ready: false };
        }
        Ok(())
    }

    /// Forgets a guest that has gone before it was handed over.
    pub(crate) fn forget(&self) {
        drop(self.shared.session.lock().take());
        drop(self.shared.connection.lock().take());
    }

    /// Whether a guest's process is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.session.lock().is_some()
    }

    /// A number that changes with all that a record would tell.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Has nothing of the guest be read or answered any more, from now on.
    pub(crate) fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    /// Serves the guest again.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// Stops all rings, and tells where they stand, of a guest that can be handed over.
    pub(crate) fn halt(&self) -> Option<Vec<u32>> {
        let bases = self.shared.session.lock().as_mut().map(Session::halt)?;
        let connection = self.shared.connection.lock();
        connection.as_ref().filter(|connection| !connection.is_midway()).map(|_| bases)
    }

    /// Where the rings stand that another process has stopped.
    pub(crate) fn place(&self, bases: &[u32]) {
        if let Some(session) = self.shared.session.lock().as_mut() {
            session.place(bases);
        }
    }

    /// Starts the rings of a side. A guest whose rings cannot run loses its session.
    pub(crate) fn go_on(&self, side: Side) {
        let mut session = self.shared.session.lock();
        let Some(running) = session.as_mut() else { return };
        match running.go_on(side) {
            Ok(()) => {
                let ready = running.is_ready();
                self.shared.status.lock().state = GuestState::Connected { ready };
            }
            Err(error) => {
                tracing::error!("a guest cannot go on and has to connect again: {error}");
                drop(session.take());
                drop(self.shared.connection.lock().take());
            }
        }
    }

    /// Our socket's file is this process's from now on.
    pub(crate) fn own(&self) {
        if let Some(listener) = self.shared.listener.lock().as_mut() {
            listener.own();
        }
    }

    /// Leaves our socket where it is: another process has it.
    pub(crate) fn leave(&self) {
        if let Some(listener) = self.shared.listener.lock().as_mut() {
            listener.leave();
        }
    }
}

impl GuestSocket {
    /// Whether there is a session already, as another process had begun it.
    pub(super) fn has_session(&self) -> bool {
        self.shared.session.lock().is_some()
    }
}

impl Shared {
    /// Something changed that another process would have to be told.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the guest is served.
    pub(super) async fn thawed(&self) {
        self.is(false).await;
    }

    /// Waits until it is not.
    pub(super) async fn freezing(&self) {
        self.is(true).await;
    }

    async fn is(&self, frozen: bool) {
        // The sender is our own, so it does not go while we wait.
        let _ = self.frozen.subscribe().wait_for(|it| *it == frozen).await;
    }
}
