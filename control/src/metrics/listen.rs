//! The socket that metrics are served on.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// Everybody in the daemon's user and group may scrape.
const MODE: u32 = 0o660;

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics.listen: {place}: {what}; {remedy}")]
pub struct BindError {
    place: String,
    what: String,
    remedy: &'static str,
}

/// A socket's file, removed when this is dropped, if it is still ours.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// That of a socket which another process has made, and has until [`own`](Self::own).
    pub(super) fn of_another(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None }
    }

    /// Has the file be removed when this is dropped.
    pub(super) fn own(&mut self) {
        let found = fs::symlink_metadata(&self.path).ok();
        self.identity = found.map(|found| (found.dev(), found.ino()));
    }

    /// Leaves the file where it is.
    pub(super) fn leave(&mut self) {
        self.identity = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if found.is_some() && found == self.identity {
            // It may have gone in between.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on an address.
pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| BindError {
        place: address.to_string(),
        what: format!("listening failed: {error}"),
        remedy: "free the port, or set another one",
    })
}

/// Listens on a unix socket. One that an earlier process left is replaced.
pub(super) fn unix(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let error =
        |what: String, remedy| BindError { place: path.display().to_string(), what, remedy };
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let what = "something that is no socket lies there".to_owned();
            return Err(error(what, "move it away, or set another path"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let what = "another process answers there".to_owned();
            return Err(error(what, "stop it, or set another path"));
        }
        // If this fails, binding says why.
        let _ = fs::remove_file(path);
    }
    let bound = UnixListener::bind(path).and_then(|listener| {
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        let made = fs::symlink_metadata(path)?;
        Ok((listener, Some((made.dev(), made.ino()))))
    });
    match bound {
        Ok((listener, identity)) => Ok((listener, SocketFile { path: path.to_owned(), identity })),
        Err(cause) => Err(error(
            format!("listening failed: {cause}"),
            "make its directory, and let the user that runs viaduct write there",
        )),
    }
}
