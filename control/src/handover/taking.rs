//! The process whose guests are to be taken over, as the new one sees it: who started it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, getppid};
use vhost::socket::{Parcel, Parcels};

use super::{Channel, Message};

/// The daemon that started this process, by standard input. See [`handover`](super).
pub struct Predecessor {
    parcels: Parcels,
}

impl Predecessor {
    /// Who started this process. The error is a sentence: it was no daemon.
    pub fn of_stdin() -> Result<Self, String> {
        let by_hand = |what: String| {
            format!("--take-over is for daemons, not for people ({what}): use `viaduct handover`")
        };
        let stdin = io::stdin();
        let peer = getsockopt(&stdin.as_fd(), PeerCredentials);
        let peer = peer.map_err(|_| by_hand("standard input is no daemon's".to_owned()))?;
        if peer.pid() != getppid().as_raw() || peer.uid() != Uid::effective().as_raw() {
            return Err(by_hand(format!("standard input is of process {}", peer.pid())));
        }
        let socket = stdin.as_fd().try_clone_to_owned().map_err(|it| by_hand(it.to_string()))?;
        let parcels = Parcels::new(UnixStream::from(socket));
        Ok(Self { parcels: parcels.map_err(|it| by_hand(it.to_string()))? })
    }

    /// Tells why this process does not take over; it is to end then.
    pub fn refuse(mut self, why: &str) {
        let refusal = Message::Refused { why: why.to_owned() };
        let octets = serde_json::to_vec(&refusal).unwrap_or_default();
        self.parcels.post(Parcel { octets, descriptors: Vec::new() });
        // There is room for the first message. Who has gone need not be told.
        let _ = self.parcels.flush();
    }

    /// The socket, on the current runtime.
    pub(crate) fn channel(self) -> io::Result<Channel> {
        Channel::new(self.parcels)
    }
}
