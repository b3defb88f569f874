//! Client mode: connecting to a socket that a front-end listens on.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::{Connection, PATH_BYTES_MAX};

/// Why a front-end could not be reached. Most reasons pass; trying again is right for all of them.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// unix(7): `sun_path` has 108 bytes.
    #[error("socket path {} has {bytes} bytes; 1 to {PATH_BYTES_MAX} are possible", path.display())]
    PathLength {
        /// The socket.
        path: PathBuf,
        /// Its path's length.
        bytes: usize,
    },
    /// The guest's process was not started yet, or uses another path.
    #[error("there is no socket {} yet; the guest's VMM makes it when it starts", .0.display())]
    Missing(PathBuf),
    /// The guest's process is gone and left its socket behind.
    #[error("nobody listens on socket {}; is the guest running?", .0.display())]
    NobodyListens(PathBuf),
    /// The front-end serves one back-end at a time, and that is somebody else.
    #[error("socket {} takes no further connection; is another switch connected?", .0.display())]
    Busy(PathBuf),
    /// The path leads to something else.
    #[error("{} is not a stream socket", .0.display())]
    NotASocket(PathBuf),
    /// The process may not.
    #[error("no permission to connect to socket {}; check its owner and mode", .0.display())]
    Permission(PathBuf),
    /// Anything else.
    #[error("connecting to socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Connection {
    /// Connects to a listening front-end, or says at once why not: a listener whose queue is full
    /// is not waited for.
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let io_error = |source| ConnectError::Io { path: path.to_owned(), source };
        let bytes = path.as_os_str().as_bytes().len();
        if !(1..=PATH_BYTES_MAX).contains(&bytes) {
            return Err(ConnectError::PathLength { path: path.to_owned(), bytes });
        }
        let address = UnixAddr::new(path).map_err(|errno| io_error(errno.into()))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|errno| io_error(errno.into()))?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Self::new(UnixStream::from(socket)).map_err(io_error),
            Err(errno) => Err(refusal(path, errno)),
        }
    }
}

fn refusal(path: &Path, errno: Errno) -> ConnectError {
    let path = path.to_owned();
    match errno {
        Errno::ENOENT => ConnectError::Missing(path),
        Errno::EAGAIN => ConnectError::Busy(path),
        Errno::EACCES | Errno::EPERM => ConnectError::Permission(path),
        Errno::EPROTOTYPE => ConnectError::NotASocket(path),
        Errno::ECONNREFUSED => {
            // The kernel's answer for a file of any other kind, too.
            let socket = path.metadata().is_ok_and(|found| found.file_type().is_socket());
            if socket { ConnectError::NobodyListens(path) } else { ConnectError::NotASocket(path) }
        }
        errno => ConnectError::Io { path, source: errno.into() },
    }
}
