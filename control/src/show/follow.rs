//! The command's end of the socket where something follows the answer.
//!
//! It blocks: a command that writes down what it is told has nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::client::{AskError, SILENCE, explain, read_reply};
use super::protocol::{Answer, Query, VERSION};
use super::view::{Event, FrameView};

/// Octets that a line may have: a course to all ports of a host, each with its rule.
const LINE_OCTETS_MAX: u64 = 4 << 20;

/// Octets that a frame may have.
const FRAME_OCTETS_MAX: u32 = 1 << 20;

/// Octets that are read from the socket at a time.
const CHUNK: usize = 256 << 10;

/// What follows an answer.
#[derive(Debug)]
pub struct Following {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

/// Asks the daemon at this socket for what follows the answer.
pub fn follow(socket: &Path, query: &Query) -> Result<(Answer, Following), AskError> {
    let failed = |error| explain(socket, error);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(failed)?;
    stream.write_all(&query.line()).map_err(failed)?;
    let mut following =
        Following { stream: BufReader::with_capacity(CHUNK, stream), socket: socket.to_owned() };
    let line = following.line().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => AskError::Silent(socket.to_owned()),
        _ => explain(socket, error),
    })?;
    let answer = read_reply(socket, query, &line)?;
    // From now on nothing comes as long as there is nothing to tell.
    following.stream.get_ref().set_read_timeout(None).map_err(failed)?;
    Ok((answer, following))
}

impl Following {
    /// What comes next, with the octets of a frame in `octets`.
    pub fn next(&mut self, octets: &mut Vec<u8>) -> Result<Event, AskError> {
        octets.clear();
        let line = self.line().map_err(|error| explain(&self.socket, error))?;
        if line.is_empty() {
            return Err(AskError::Ended(self.socket.clone()));
        }
        let event = serde_json::from_slice(&line).map_err(|error| AskError::Strange {
            theirs: VERSION.to_owned(),
            what: error.to_string(),
        })?;
        if let Event::Frame(FrameView { kept, .. }) = &event {
            octets.resize((*kept).min(FRAME_OCTETS_MAX) as usize, 0);
            self.stream.read_exact(octets).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => AskError::Ended(self.socket.clone()),
                _ => explain(&self.socket, error),
            })?;
        }
        Ok(event)
    }

    /// Whether something has come that was not asked for yet.
    pub fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// Something by which another thread can ask for the end, which then comes as the last event.
    pub fn ender(&self) -> io::Result<impl Fn() + Send + 'static> {
        let stream = self.stream.get_ref().try_clone()?;
        // If the daemon has gone there is nothing to ask for.
        Ok(move || drop(stream.shutdown(Shutdown::Write)))
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_OCTETS_MAX).read_until(b'\n', &mut line)?;
        Ok(line)
    }
}
