//! The command's end of the socket.
//!
//! Every way in which there is no answer is told with what to do next: most people who see such an
//! error have just forgotten to start the daemon.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ANSWER_OCTETS_MAX, Answer, Query, Reply, Sender, VERSION};

/// How long nothing may come. Longer than the daemon's own bound, so that a busy one can say so.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no daemon listens on {}; start one: `viaduct run --config FILE`, or name the socket of \
         the one that runs: `--socket PATH`", .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("you may not connect to {}; {remedy}", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
        /// Who may.
        remedy: String,
    },
    /// The daemon does not move.
    #[error(
        "the daemon at {} said nothing for {} s; it is stopped or stuck: look at its log",
        .0.display(), SILENCE.as_secs()
    )]
    Silent(PathBuf),
    /// The daemon takes no connection at all.
    #[error(
        "the daemon at {} takes no connection; it is stopped or stuck, or too many ask at a time: \
         look at its log", .0.display()
    )]
    Busy(PathBuf),
    /// The daemon ended the connection.
    #[error(
        "the daemon at {} ended the connection without an answer: it is stopping, or too many ask \
         at a time; try again", .0.display()
    )]
    Ended(PathBuf),
    /// The daemon says why it does not answer.
    #[error("the daemon did not answer: {0}")]
    Refused(String),
    /// The answer is of another version, or not from a daemon of ours.
    #[error(
        "the answer of the daemon, viaduct {theirs}, is not understood by this viaduct {VERSION}: \
         {what}; ask with the `viaduct` of that version, or restart the daemon after an update"
    )]
    Strange {
        /// The daemon's version, as far as it says.
        theirs: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// The operating system's words.
    #[error("asking the daemon at {}: {source}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Asks the daemon at this socket, and waits for the answer.
pub async fn ask(socket: &Path, query: &Query) -> Result<Answer, AskError> {
    let line = exchange(socket, query).await.map_err(|error| explain(socket, error))?;
    read_reply(socket, query, &line)
}

/// The answer in a reply, if it is one.
pub(super) fn read_reply(socket: &Path, query: &Query, line: &[u8]) -> Result<Answer, AskError> {
    if line.is_empty() {
        return Err(AskError::Ended(socket.to_owned()));
    }
    match serde_json::from_slice::<Reply>(line) {
        Ok(Reply { refusal: Some(why), .. }) => Err(AskError::Refused(why)),
        Ok(Reply { answer: Some(answer), .. }) if query.is_answered_by(&answer) => Ok(answer),
        Ok(Reply { version, .. }) => Err(AskError::Strange {
            theirs: version,
            what: "it is not the answer to this question".to_owned(),
        }),
        Err(error) => {
            let sender = serde_json::from_slice::<Sender>(line);
            let theirs = sender.map_or_else(|_| "of unknown version".to_owned(), |it| it.version);
            Err(AskError::Strange { theirs, what: error.to_string() })
        }
    }
}

/// Sends the question and reads all that comes back.
async fn exchange(socket: &Path, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = within(UnixStream::connect(socket)).await?;
    within(stream.write_all(&query.line())).await?;
    let mut line = Vec::new();
    while within_time(query.patience(SILENCE), stream.read_buf(&mut line)).await? > 0 {
        if line.len() > ANSWER_OCTETS_MAX + 1 {
            return Err(io::Error::other("it does not stop talking"));
        }
    }
    Ok(line)
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within_time(SILENCE, step).await
}

async fn within_time<T>(
    time: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(time, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) fn explain(socket: &Path, source: io::Error) -> AskError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(socket),
        io::ErrorKind::PermissionDenied => {
            let remedy = who_may(&socket);
            AskError::Permission { socket, remedy }
        }
        io::ErrorKind::TimedOut => AskError::Silent(socket),
        // A listener whose queue is full does not accept.
        io::ErrorKind::WouldBlock => AskError::Busy(socket),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => AskError::Ended(socket),
        _ => AskError::Io { socket, source },
    }
}

/// Who may connect to a socket that we may not.
fn who_may(socket: &Path) -> String {
    // A directory on the way may hide the socket, and then its group is of no use.
    let group = socket.metadata().ok().map(|found| Gid::from_raw(found.gid()));
    match group {
        Some(group) if group.as_raw() != 0 => {
            let name = Group::from_gid(group).ok().flatten().map(|group| group.name);
            let name = name.unwrap_or_else(|| group.to_string());
            format!("it is for root and the group {name}: `sudo usermod -aG {name} $USER`")
        }
        _ => "it is for root alone: use sudo".to_owned(),
    }
}
