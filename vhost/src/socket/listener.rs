//! Server mode: listening on a socket that front-ends connect to.
//!
//! The path is shared with whatever else lives in that directory. So nothing is removed but a
//! socket of our own that nobody listens on, and permissions are in place before anybody can
//! connect.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::{Gid, Uid};

use super::{ConnectError, Connection, PATH_BYTES_MAX};

/// Who may connect to a [`Listener`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The socket's permission bits; connecting takes the right to write.
    pub mode: u32,
    /// Its owner's number; this process's user if not given.
    pub owner: Option<u32>,
    /// Its group's number; this process's group if not given.
    pub group: Option<u32>,
}

impl Default for Access {
    /// For this process's user and group.
    fn default() -> Self {
        Self { mode: 0o660, owner: None, group: None }
    }
}

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// unix(7): `sun_path` has 108 bytes.
    #[error("socket path {} has {bytes} bytes; 1 to {PATH_BYTES_MAX} are possible", path.display())]
    PathLength {
        /// The socket.
        path: PathBuf,
        /// Its path's length.
        bytes: usize,
    },
    /// The path leads to something that is not ours to remove.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// As above, a socket of somebody else's.
    #[error(
        "socket {} belongs to user {owner}; remove it or choose another path", path.display()
    )]
    ForeignOwner {
        /// The socket.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Somebody listens on it.
    #[error("socket {} is in use by another process; stop that or choose another path", .0.display())]
    InUse(PathBuf),
    /// The kernel's answer.
    #[error("{action} socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A socket that front-ends connect to. See the [module's head](self).
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of what we made: another one under the same path is not ours to remove.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Makes the socket and listens. The file is removed again when the value is dropped.
    pub fn bind(path: &Path, access: Access) -> Result<Self, BindError> {
        let io_error = |action, source| BindError::Io { path: path.to_owned(), action, source };
        let bytes = path.as_os_str().as_bytes().len();
        if !(1..=PATH_BYTES_MAX).contains(&bytes) {
            return Err(BindError::PathLength { path: path.to_owned(), bytes });
        }
        let address = UnixAddr::new(path).map_err(|errno| io_error("naming", errno.into()))?;
        remove_stale(path, access)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|errno| io_error("making", errno.into()))?;
        bind(socket.as_raw_fd(), &address).map_err(|errno| match errno {
            // Somebody was faster.
            Errno::EADDRINUSE => BindError::InUse(path.to_owned()),
            errno => io_error("making", errno.into()),
        })?;
        let mut this =
            Self { listener: UnixListener::from(socket), path: path.to_owned(), identity: None };
        let made = fs::symlink_metadata(path).map_err(|source| io_error("making", source))?;
        this.identity = Some((made.dev(), made.ino()));
        // Nobody can connect before we listen, so there is no moment with wider permissions.
        let (owner, group) = (access.owner.map(Uid::from_raw), access.group.map(Gid::from_raw));
        nix::unistd::chown(path, owner, group)
            .map_err(|errno| io_error("setting the owner of", errno.into()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))
            .map_err(|source| io_error("setting the mode of", source))?;
        let backlog = Backlog::new(1).map_err(|errno| io_error("listening on", errno.into()))?;
        listen(&this.listener, backlog).map_err(|errno| io_error("listening on", errno.into()))?;
        Ok(this)
    }

    /// Goes on with a socket that another process made at `path` and listens on. The file is that
    /// process's until [`own`](Self::own).
    pub fn adopt(descriptor: OwnedFd, path: &Path) -> io::Result<Self> {
        let listener = UnixListener::from(descriptor);
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned(), identity: None })
    }

    /// Has the file be removed when this is dropped, as the process that made it has left it.
    pub fn own(&mut self) {
        let found = fs::symlink_metadata(&self.path).ok();
        self.identity = found.map(|found| (found.dev(), found.ino()));
    }

    /// Leaves the file where it is when this is dropped, as another process goes on with the socket.
    pub fn leave(&mut self) {
        self.identity = None;
    }

    /// The next front-end, if one waits.
    pub fn try_accept(&self) -> io::Result<Option<Connection>> {
        match self.listener.accept() {
            Ok((stream, _)) => Connection::new(stream).map(Some),
            // It gave up while it waited, or was never there.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Clears the path if what is there is a socket of ours that nobody listens on.
fn remove_stale(path: &Path, access: Access) -> Result<(), BindError> {
    let io_error = |action, source| BindError::Io { path: path.to_owned(), action, source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("inspecting", source)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    let owner = found.uid();
    // Ours is what we made as ourselves, or gave to the owner that we shall give it to now.
    if owner != Uid::effective().as_raw() && Some(owner) != access.owner {
        return Err(BindError::ForeignOwner { path: path.to_owned(), owner });
    }
    match Connection::connect(path) {
        Ok(_) | Err(ConnectError::Busy(_)) => Err(BindError::InUse(path.to_owned())),
        // A datagram socket that somebody has bound.
        Err(ConnectError::NotASocket(_)) => Err(BindError::NotASocket(path.to_owned())),
        Err(ConnectError::NobodyListens(_)) => {
            fs::remove_file(path).map_err(|source| io_error("removing the stale", source))
        }
        Err(ConnectError::Missing(_)) => Ok(()),
        Err(error) => Err(io_error("probing", io::Error::other(error))),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        let ours = found.is_ok_and(|found| Some((found.dev(), found.ino())) == self.identity);
        if ours {
            // If it cannot be removed, the next one who binds finds it stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
