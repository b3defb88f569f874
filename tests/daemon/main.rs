//! The running switch without guests: how it starts and ends, what it says to whoever gives it
//! something wrong, and that nobody else has to pay for that.
//!
//! The words of each message are tested beside the code that finds the fault; here it is shown that
//! they get where people look, and that what is right stays in force.

mod bonds;
#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod early;
mod handover;
mod lacp;
mod life;
mod memory;
mod metrics;
mod mirror;
mod objects;
mod pair;
mod reload;
mod restart;
mod security;
mod service;
mod sockets;
mod spoofing;
mod taps;
mod top;
mod watch;
mod wires;

use std::os::unix::net::{UnixListener, UnixStream};

use common::daemon::{Daemon, SOON};
use common::process::eventually;
use common::skip;

/// Plays the process of a guest that has connected and says nothing: enough for its port to be
/// ready, and to see whether the switch ever lets go of it.
struct SilentGuest {
    listener: UnixListener,
    _connection: UnixStream,
}

impl SilentGuest {
    /// Listens on the socket of a port and waits for the switch.
    #[track_caller]
    fn start(switch: &Daemon, name: &str) -> SilentGuest {
        let path = switch.socket(name);
        let listener = UnixListener::bind(&path).expect("a socket directory of our own");
        listener.set_nonblocking(true).expect("a socket of ours");
        let mut connection = None;
        eventually("the switch connects", SOON, || {
            connection = listener.accept().ok().map(|(stream, _)| stream);
            connection.is_some()
        });
        SilentGuest { listener, _connection: connection.expect("it was just there") }
    }

    /// Fails if the switch has connected again: it then had ended the first session.
    #[track_caller]
    fn was_left_alone(&self) {
        assert!(self.listener.accept().is_err(), "the switch has connected a second time");
    }
}
