//! Metrics over HTTP, as OpenMetrics text: `GET /metrics`.
//!
//! A scrape asks the daemon's event loop for its figures, as `viaduct show` does, and puts them into
//! text here. Workers are not asked: their counters are read where they lie. The socket is on loopback
//! or a unix socket, since the figures name ports and networks; who wants them elsewhere puts a proxy
//! with access control in front.

mod bonds;
mod families;
mod listen;
mod page;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use self::families::Figures;
pub use self::listen::BindError;
use crate::config::Listen;

/// Scrapes that are answered at a time; more are told to come back.
const SCRAPES_MAX: usize = 4;

/// How long the event loop may take to come to a scrape.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What OpenMetrics calls its text format.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The end of the metrics' socket. It is closed, and removed if it is a file, when this is dropped.
pub(crate) struct Metrics {
    scrapes: mpsc::Receiver<Scrape>,
    task: JoinHandle<()>,
    file: Option<listen::SocketFile>,
    /// Another descriptor of the socket, for a process that goes on with it.
    socket: Option<OwnedFd>,
}

/// A scrape that waits for figures. Dropping it tells the other side that there are none.
pub(crate) struct Scrape(oneshot::Sender<Figures>);

/// What the handlers share.
struct Shared {
    scrapes: mpsc::Sender<Scrape>,
    permits: Semaphore,
}

impl Metrics {
    /// Listens, on the current runtime.
    pub(crate) fn serve(listen: &Listen) -> Result<Metrics, BindError> {
        Ok(match listen {
            Listen::Address(address) => Self::on_tcp(listen::tcp(*address)?),
            Listen::Unix(path) => {
                let (listener, file) = listen::unix(Path::new(path))?;
                Self::on_unix(listener, file)
            }
        })
    }

    /// Goes on with a socket that another process listens on, whose file is that process's until
    /// [`own`](Self::own).
    pub(crate) fn adopt(listen: &Listen, socket: OwnedFd) -> io::Result<Metrics> {
        Ok(match listen {
            Listen::Address(_) => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                Self::on_tcp(TcpListener::from_std(listener)?)
            }
            Listen::Unix(path) => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let file = listen::SocketFile::of_another(path);
                Self::on_unix(UnixListener::from_std(listener)?, file)
            }
        })
    }

    fn on_tcp(listener: TcpListener) -> Metrics {
        let socket = listener.as_fd().try_clone_to_owned().ok();
        let (router, scrapes) = Self::router();
        let serving = async move { log_end(axum::serve(listener, router).await) };
        Metrics { scrapes, task: tokio::spawn(serving), file: None, socket }
    }

    fn on_unix(listener: UnixListener, file: listen::SocketFile) -> Metrics {
        let socket = listener.as_fd().try_clone_to_owned().ok();
        let (router, scrapes) = Self::router();
        let serving = async move { log_end(axum::serve(listener, router).await) };
        Metrics { scrapes, task: tokio::spawn(serving), file: Some(file), socket }
    }

    /// Another descriptor of the socket, for a process that goes on with it.
    pub(crate) fn descriptor(&self) -> Option<OwnedFd> {
        self.socket.as_ref()?.try_clone().ok()
    }

    /// Has the socket's file, if it has one, be this process's.
    pub(crate) fn own(&mut self) {
        self.file.iter_mut().for_each(listen::SocketFile::own);
    }

    /// Leaves the socket to another process.
    pub(crate) fn leave(mut self) {
        if let Some(file) = &mut self.file {
            file.leave();
        }
    }

    fn router() -> (Router, mpsc::Receiver<Scrape>) {
        let (sender, scrapes) = mpsc::channel(SCRAPES_MAX);
        let shared = Shared { scrapes: sender, permits: Semaphore::new(SCRAPES_MAX) };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/", get(|| async { "Viaduct's metrics are at /metrics\n" }))
            .with_state(Arc::new(shared));
        (router, scrapes)
    }

    /// Waits for a scrape.
    pub(crate) async fn next(&mut self) -> Scrape {
        match self.scrapes.recv().await {
            Some(scrape) => scrape,
            // The listener has failed, which was logged.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
        drop(self.file.take());
    }
}

impl Scrape {
    /// Answers with these figures.
    pub(crate) fn answer(self, figures: Figures) {
        // Who asked may have given up.
        let _ = self.0.send(figures);
    }
}

fn log_end(ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!("metrics are not served any more: {error}");
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(_permit) = shared.permits.try_acquire() else {
        return (StatusCode::TOO_MANY_REQUESTS, "other scrapes are being answered\n")
            .into_response();
    };
    let (scrape, figures) = oneshot::channel();
    let late = (StatusCode::SERVICE_UNAVAILABLE, "the daemon is busy\n");
    if shared.scrapes.try_send(Scrape(scrape)).is_err() {
        return late.into_response();
    }
    match timeout(ANSWER_TIME, figures).await {
        Ok(Ok(figures)) => ([(CONTENT_TYPE, FORMAT)], figures.encode()).into_response(),
        _ => late.into_response(),
    }
}

#[cfg(test)]
mod tests;
