//! The unix socket between a front-end and us, one message at a time, never blocking.
//!
//! A [`Connection`] gives and takes whole [`Message`]s with the descriptors that belong to them.
//! It waits for nothing: whoever drives it learns from [`AsFd`] when to try again, so any event
//! loop will do and this crate needs none.
//!
//! Descriptors are the dangerous part. Whatever arrives is owned from its first moment on, so none
//! leaks however the message is malformed; their number is bounded, and a message whose
//! descriptors did not all arrive is an error, not a message with fewer of them.

mod ancillary;
mod connect;
mod listener;
mod parcel;

#[cfg(test)]
mod tests;

pub use connect::ConnectError;
pub use listener::{Access, BindError, Listener};
pub use parcel::{Parcel, ParcelError, Parcels};

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::message::{DESCRIPTORS_MAX, HEADER_BYTES, Header, Message, MessageError};

/// The longest path that a unix socket can have, without the terminating zero (unix(7)).
pub const PATH_BYTES_MAX: usize = 107;

/// One side of a vhost-user socket. See the [module's head](self).
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    header: [u8; HEADER_BYTES],
    /// The header once all of it is there, and the payload with room for all of it.
    body: Option<(Header, Vec<u8>)>,
    /// Bytes received, of the header first and then of the payload.
    received: usize,
    descriptors: Vec<OwnedFd>,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The other side is gone, between two messages: the ordinary end.
    #[error("the front-end closed the connection")]
    Closed,
    /// The other side is gone in the middle of a message.
    #[error("the front-end closed the connection in the middle of a message")]
    ClosedMidway,
    /// More descriptors than any message has.
    #[error("more than {DESCRIPTORS_MAX} file descriptors came with one message")]
    TooManyDescriptors,
    /// The kernel could not hand over all descriptors.
    #[error(
        "file descriptors were lost: more than {DESCRIPTORS_MAX} came at once, or this process has \
         reached its limit of open files (ulimit -n)"
    )]
    DescriptorsLost,
    /// The header makes no sense.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The other side asks without reading the answers.
    #[error("the front-end does not read its replies")]
    NotReading,
    /// The kernel's answer.
    #[error("{action} the vhost-user socket: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Connection {
    /// Takes over a connected stream socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let header = [0; HEADER_BYTES];
        Ok(Self { stream, header, body: None, received: 0, descriptors: Vec::new() })
    }

    /// The next message, if all of it is there. After an error the connection is to be dropped.
    pub fn try_receive(&mut self) -> Result<Option<Message>, SocketError> {
        loop {
            // Each read asks for no more than the rest of this part of this message: descriptors
            // travel with bytes, and bytes of the next message would bring its descriptors.
            let part = match &mut self.body {
                None if self.received == HEADER_BYTES => {
                    let header = Header::decode(&self.header)?;
                    self.body = Some((header, vec![0; header.payload_bytes]));
                    self.received = 0;
                    continue;
                }
                None => self.header.as_mut_slice(),
                Some((header, _)) if self.received == header.payload_bytes => {
                    return Ok(self.complete());
                }
                Some((_, payload)) => payload.as_mut_slice(),
            };
            match ancillary::receive(self.stream.as_fd(), &mut part[self.received..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // A front-end that was killed with replies unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(self.closed());
                }
                Err(source) => return Err(SocketError::Io { action: "reading from", source }),
                Ok(received) => {
                    self.descriptors.extend(received.descriptors);
                    if received.truncated {
                        return Err(SocketError::DescriptorsLost);
                    }
                    if self.descriptors.len() > DESCRIPTORS_MAX {
                        return Err(SocketError::TooManyDescriptors);
                    }
                    if received.bytes == 0 {
                        return Err(self.closed());
                    }
                    self.received += received.bytes;
                }
            }
        }
    }

    /// Sends a message with its descriptors, whole. After an error the connection is to be
    /// dropped.
    ///
    /// Each side waits for the answer before it asks again, so a socket that has no room for an
    /// answer is one whose other side misbehaves.
    pub fn send(&mut self, message: &Message) -> Result<(), SocketError> {
        let bytes = message.bytes();
        match ancillary::send(self.stream.as_fd(), &bytes, &message.descriptors) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(SocketError::NotReading),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::NotReading),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(SocketError::Closed),
            Err(source) => Err(SocketError::Io { action: "writing to", source }),
        }
    }

    /// Whether a part of a message has come and the rest has not: what came is known here alone.
    pub fn is_midway(&self) -> bool {
        self.body.is_some() || self.received > 0 || !self.descriptors.is_empty()
    }

    fn complete(&mut self) -> Option<Message> {
        self.received = 0;
        let (header, payload) = self.body.take()?;
        Some(Message { header, payload, descriptors: std::mem::take(&mut self.descriptors) })
    }

    fn closed(&self) -> SocketError {
        if self.is_midway() { SocketError::ClosedMidway } else { SocketError::Closed }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl std::os::fd::AsRawFd for Connection {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.stream.as_raw_fd()
    }
}
