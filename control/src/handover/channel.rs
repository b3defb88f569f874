//! One end of the socket between the two daemons: messages with descriptors, within bounds of time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use vhost::socket::{Parcel, ParcelError, Parcels};

/// How long the other process may take to read what it is sent. It waits for nothing else then.
const SEND_TIME: Duration = Duration::from_secs(5);

/// An end. See the [module's head](self).
pub(crate) struct Channel {
    parcels: Parcels,
    /// A second descriptor of the same socket, which tells when it can be read or written.
    events: UnixStream,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The other process has ended.
    #[error("the other process has ended")]
    Closed,
    /// It took too long.
    #[error("the other process says nothing for {} ms", .0.as_millis())]
    Late(Duration),
    /// What it says is not understood.
    #[error("the other process says what is not understood: {0}")]
    Strange(#[from] serde_json::Error),
    /// The socket fails.
    #[error("the socket between the two processes: {0}")]
    Socket(ParcelError),
}

impl Channel {
    /// An end, on the current runtime.
    pub(crate) fn new(parcels: Parcels) -> io::Result<Self> {
        let events = std::os::unix::net::UnixStream::from(parcels.as_fd().try_clone_to_owned()?);
        Ok(Self { parcels, events: UnixStream::from_std(events)? })
    }

    /// Sends a message, and waits until the other process has room for it.
    pub(crate) async fn send(
        &mut self,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        self.parcels.post(Parcel { octets: serde_json::to_vec(message)?, descriptors });
        let Self { parcels, events } = self;
        let sending = async {
            loop {
                let flushed = events.try_io(Interest::WRITABLE, || match parcels.flush() {
                    Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                    flushed => Ok(flushed),
                });
                match flushed {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(ParcelError::Closed)) => return Err(ChannelError::Closed),
                    Ok(Err(error)) => return Err(ChannelError::Socket(error)),
                    Err(_) => {
                        events.writable().await.map_err(|it| ChannelError::Socket(it.into()))?;
                    }
                }
            }
        };
        timeout(SEND_TIME, sending).await.unwrap_or(Err(ChannelError::Late(SEND_TIME)))
    }

    /// The next message with its descriptors. Nothing is lost if the waiting is given up.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &mut self,
    ) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let Self { parcels, events } = self;
        loop {
            let received = events.try_io(Interest::READABLE, || match parcels.try_receive() {
                Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                received => Ok(received),
            });
            match received {
                Ok(Ok(Some(Parcel { octets, descriptors }))) => {
                    return Ok((serde_json::from_slice(&octets)?, descriptors));
                }
                Ok(Ok(None)) => {}
                Ok(Err(ParcelError::Closed)) => return Err(ChannelError::Closed),
                Ok(Err(error)) => return Err(ChannelError::Socket(error)),
                Err(_) => events.readable().await.map_err(|it| ChannelError::Socket(it.into()))?,
            }
        }
    }

    /// The next message, if it comes in time.
    pub(crate) async fn receive_within<T: DeserializeOwned>(
        &mut self,
        time: Duration,
    ) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        timeout(time, self.receive()).await.unwrap_or(Err(ChannelError::Late(time)))
    }
}
