//! The daemon's end of the socket.
//!
//! The daemon's event loop takes questions by [`Server::next`] and answers each by value. All else
//! (waiting for a question that does not come, writing to somebody who does not read, putting a large
//! answer into JSON) happens in a task of that connection, within bounds of time and size. When there
//! are too many connections, whoever has the most loses the oldest, so a flood takes nothing from
//! other users.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::timeout;

use super::protocol::{Answer, QUERY_OCTETS_MAX, Query, Reply};
use super::stream::{Feed, stream};

/// Connections that are served at a time.
const CONNECTIONS_MAX: usize = 16;

/// How long a question may take to arrive. Commands send it at once.
const QUERY_TIME: Duration = Duration::from_secs(5);

/// How long the event loop may take to come to a question.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long the other side may take to read its answer.
const READ_TIME: Duration = Duration::from_secs(30);

/// How long to leave the socket alone when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Everybody in the daemon's user and group may ask.
const MODE: u32 = 0o660;

/// The socket that commands connect to. It ends, and is removed, when this is dropped.
#[derive(Debug)]
pub struct Server {
    requests: mpsc::Receiver<Request>,
    path: PathBuf,
    /// Device and inode of what we made: another one under the same path is not ours to remove.
    identity: Option<(u64, u64)>,
    doors: watch::Sender<Doors>,
    accepting: JoinHandle<()>,
    /// Another descriptor of the socket, for a process that goes on with it.
    socket: OwnedFd,
}

/// Whether connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doors {
    /// They are.
    Open,
    /// They wait.
    Shut,
    /// They are another process's; those that are there are served to their end.
    Left,
}

/// A question that waits for its answer. Dropping it tells the other side that there is none.
pub struct Request {
    query: Query,
    reply: oneshot::Sender<Outcome>,
}

/// An answer with what follows it, if anything does, or why there is none.
type Outcome = Result<(Answer, Option<Box<dyn Feed>>), String>;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error(
        "control socket {}: another daemon answers there; stop it, or set another \
         `control.socket` in the configuration", .0.display()
    )]
    InUse(PathBuf),
    /// Something that is no socket lies there.
    #[error(
        "control socket {}: something that is no socket lies there; move it away, or set another \
         `control.socket` in the configuration", .0.display()
    )]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("control socket {}: {doing} failed: {source}; {remedy}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried, as a noun.
        doing: &'static str,
        /// The operating system's words.
        source: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl Server {
    /// Makes the socket and listens, inside of a tokio runtime.
    ///
    /// What lies at the path is removed if it is a socket that nobody listens on: the last daemon was
    /// killed. Permissions are in place before anybody can connect.
    pub fn bind(path: &Path) -> Result<Server, BindError> {
        let failed = |doing| move |source| BindError::io(path, doing, source);
        remove_stale(path)?;
        let socket = UnixSocket::new_stream().map_err(failed("making it"))?;
        socket.bind(path).map_err(|source| match source.kind() {
            // Somebody was faster.
            io::ErrorKind::AddrInUse => BindError::InUse(path.to_owned()),
            _ => BindError::io(path, "making it", source),
        })?;
        let identity = fs::symlink_metadata(path).map_err(failed("making it"))?;
        let identity = Some((identity.dev(), identity.ino()));
        let permissions = fs::Permissions::from_mode(MODE);
        let listener = fs::set_permissions(path, permissions)
            .map_err(failed("setting its permissions"))
            .and_then(|()| socket.listen(128).map_err(failed("listening")));
        let server = listener.and_then(|listener| {
            Server::serve(listener, path, identity, Doors::Open).map_err(failed("serving"))
        });
        server.inspect_err(|_| remove_ours(path, identity))
    }

    /// Goes on with a socket that another process has made at this path. Connections wait for
    /// [`accept`](Self::accept), and the file is that process's until [`own`](Self::own).
    pub(crate) fn adopt(socket: OwnedFd, path: &Path) -> io::Result<Server> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Server::serve(UnixListener::from_std(listener)?, path, None, Doors::Shut)
    }

    /// Has the file be removed when this is dropped, as the process that made it has left it.
    pub(crate) fn own(&mut self) {
        let found = fs::symlink_metadata(&self.path).ok();
        self.identity = found.map(|found| (found.dev(), found.ino()));
    }

    fn serve(
        listener: UnixListener,
        path: &Path,
        identity: Option<(u64, u64)>,
        doors: Doors,
    ) -> io::Result<Server> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        let (sender, requests) = mpsc::channel(CONNECTIONS_MAX);
        let (doors, seen) = watch::channel(doors);
        let accepting = tokio::spawn(accept(listener, sender, seen));
        Ok(Server { requests, path: path.to_owned(), identity, doors, accepting, socket })
    }

    /// Takes connections, or lets them wait.
    pub(crate) fn accept(&self, open: bool) {
        self.doors.send_replace(if open { Doors::Open } else { Doors::Shut });
    }

    /// Another descriptor of the socket, for a process that goes on with it.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Leaves the socket to another process, and waits until who was answered has read that, up to a
    /// time.
    pub(crate) async fn leave(mut self, time: Duration) {
        self.identity = None;
        // Who has not been asked for an answer gets none any more.
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
        self.doors.send_replace(Doors::Left);
        // Who does not read is left.
        let _ = timeout(time, &mut self.accepting).await;
    }

    /// The next question of somebody who still waits for the answer. Nothing is lost if the waiting
    /// is given up.
    pub async fn next(&mut self) -> Request {
        loop {
            match self.requests.recv().await {
                Some(request) if request.reply.is_closed() => {}
                Some(request) => return request,
                // The task that accepts ends with us; if it panicked, there are no questions any more.
                None => std::future::pending().await,
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        remove_ours(&self.path, self.identity);
    }
}

impl Request {
    /// What is asked.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Sends the answer. Never waits.
    pub fn answer(self, answer: Answer) {
        // Who asked may have gone: then nobody wants it.
        let _ = self.reply.send(Ok((answer, None)));
    }

    /// Sends the answer, and then what the feed gives. Never waits.
    pub fn follow(self, answer: Answer, feed: Box<dyn Feed>) {
        let _ = self.reply.send(Ok((answer, Some(feed))));
    }

    /// Says why there is no answer, and what to do. Never waits.
    pub fn refuse(self, why: impl Into<String>) {
        let _ = self.reply.send(Err(why.into()));
    }
}

impl BindError {
    fn io(path: &Path, doing: &'static str, source: io::Error) -> BindError {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => "make its directory",
            io::ErrorKind::PermissionDenied => "let the user that runs viaduct write its directory",
            io::ErrorKind::InvalidInput => "choose a shorter path: the kernel takes 107 octets",
            _ => "look at its directory, then try again",
        };
        BindError::Io { path: path.to_owned(), doing, source, remedy }
    }
}

/// Clears the path if what is there is a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |doing| move |source| BindError::io(path, doing, source);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at it")(error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("removing the old one")),
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN: somebody listens and is busy.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(errno) => Err(failed("connecting to the old one")(errno.into())),
    }
}

/// Whether somebody listens. Does not wait, even for a listener whose queue is full.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn remove_ours(path: &Path, identity: Option<(u64, u64)>) {
    let found = fs::symlink_metadata(path);
    if found.is_ok_and(|found| Some((found.dev(), found.ino())) == identity) {
        // If it cannot be removed, the next daemon finds it stale.
        let _ = fs::remove_file(path);
    }
}

/// Serves connections until the server is dropped.
async fn accept(
    listener: UnixListener,
    requests: mpsc::Sender<Request>,
    mut doors: watch::Receiver<Doors>,
) {
    let mut connections = Connections::default();
    loop {
        let now = *doors.borrow_and_update();
        if now == Doors::Left {
            drop(listener);
            while connections.tasks.join_next().await.is_some() {}
            return;
        }
        let accepted = tokio::select! {
            biased;
            changed = doors.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = listener.accept(), if now == Doors::Open => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.admit(stream, &requests),
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are served, oldest first.
#[derive(Default)]
struct Connections {
    /// Ends them all when it is dropped.
    tasks: JoinSet<()>,
    open: VecDeque<(Option<u32>, AbortHandle)>,
}

impl Connections {
    fn admit(&mut self, stream: UnixStream, requests: &mpsc::Sender<Request>) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() >= CONNECTIONS_MAX {
            self.end_one();
        }
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        let task = self.tasks.spawn(serve(stream, requests.clone()));
        self.open.push_back((user, task));
    }

    fn end_one(&mut self) {
        let users: Vec<_> = self.open.iter().map(|(user, _)| *user).collect();
        if let Some((user, task)) = self.open.remove(oldest_of_the_greediest(&users)) {
            tracing::debug!(?user, "too many connections to the control socket: one is ended");
            task.abort();
        }
    }
}

/// The place of the oldest connection of the user who has the most, given the users of all, oldest
/// first.
fn oldest_of_the_greediest(users: &[Option<u32>]) -> usize {
    let mut counts: HashMap<Option<u32>, usize> = HashMap::new();
    for user in users {
        *counts.entry(*user).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or_default();
    users.iter().position(|user| counts[user] == most).unwrap_or_default()
}

/// Serves one connection: a question, its answer and what follows that, the end.
async fn serve(mut socket: UnixStream, requests: mpsc::Sender<Request>) {
    let query = match timeout(QUERY_TIME, read_line(&mut socket)).await {
        Ok(Ok(line)) => Query::parse(&line),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(format!("no question came within {} s", QUERY_TIME.as_secs())),
    };
    let mut feed = None;
    let time = query.as_ref().map_or(ANSWER_TIME, |query| query.patience(ANSWER_TIME));
    let reply = match query {
        Ok(query) => match timeout(time, ask(query, &requests)).await {
            Ok(Some(Ok((answer, follows)))) => {
                feed = follows;
                Reply::answer(answer)
            }
            Ok(Some(Err(why))) => Reply::refusal(why),
            Ok(None) => Reply::refusal("the daemon is stopping"),
            Err(_) => Reply::refusal(format!(
                "the daemon is too busy to answer within {} s; its log says with what",
                time.as_secs()
            )),
        },
        Err(refusal) => Reply::refusal(refusal),
    };
    // An answer can be large: neither its making nor its freeing is for the event loop's thread.
    let Ok(line) = tokio::task::spawn_blocking(move || reply.line()).await else { return };
    // Who has gone or does not read gets nothing, and nobody else is the worse for it.
    let written = timeout(READ_TIME, socket.write_all(&line)).await;
    if let (Some(feed), Ok(Ok(()))) = (feed, written) {
        stream(socket, feed).await;
    }
}

async fn ask(query: Query, requests: &mpsc::Sender<Request>) -> Option<Outcome> {
    let (reply, answer) = oneshot::channel();
    requests.send(Request { query, reply }).await.ok()?;
    answer.await.ok()
}

/// Reads a line of bounded length; the end of the stream ends it as well.
async fn read_line(stream: &mut UnixStream) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let read = stream.read(&mut chunk).await.map_err(|error| error.to_string())?;
        let end = chunk[..read].iter().position(|octet| *octet == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(read)]);
        if line.len() > QUERY_OCTETS_MAX {
            return Err(format!("the question is longer than {QUERY_OCTETS_MAX} octets"));
        }
        if end.is_some() || read == 0 {
            return Ok(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_most_makes_room() {
        let (root, ann, bob) = (Some(0), Some(1000), Some(1001));
        assert_eq!(oldest_of_the_greediest(&[root, ann, bob, ann]), 1);
        assert_eq!(oldest_of_the_greediest(&[root, ann, bob]), 0);
        assert_eq!(oldest_of_the_greediest(&[ann, root, None, None]), 2);
    }
}
