//! Mailed things: the second of the two roads into a worker.
//!
//! A receive queue belongs to one worker at a time. The control thread mails it to a worker and
//! asks for it back; the worker looks into its box once per poll and puts what it gives back into
//! another box, so that nothing is ever freed on a worker.
//!
//! Order makes a change safe: attach is *mail the queue, then publish a plan that mentions the
//! port*; detach is *publish without the port, then ask for the queue back*. A queue that goes to
//! another worker is given back between two iterations, when all that was taken from it has been
//! sent, and what comes meanwhile waits in it: so nothing is lost, nor overtaken.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

#[cfg(feature = "dpdk")]
use crate::dpdk::{Eal, EalError};
use crate::port::Rxq;
use crate::snapshot::PortId;

/// Letters that a box holds; more wait on the control thread.
const LETTERS_MAX: usize = 256;

/// Receive queues that one port may have.
pub const QUEUES_OF_A_PORT_MAX: usize = 64;

/// What the control thread may send to a worker.
#[derive(Debug)]
pub enum Mail {
    /// Poll this queue from now on.
    Attach(Rxq),
    /// DPDK runs: use it as one of its threads from now on, before anything comes that is DPDK's.
    #[cfg(feature = "dpdk")]
    Register(Eal),
    /// Give back every queue of a port, or one of them.
    Detach {
        /// The port.
        port: PortId,
        /// The queue's number among the port's; all of them if not given.
        queue: Option<u16>,
    },
}

/// What comes back.
#[derive(Debug)]
pub enum Returned {
    /// A queue that the worker no longer polls.
    Queue(Rxq),
    /// Whether the worker could be registered with DPDK.
    #[cfg(feature = "dpdk")]
    Registered(Result<(), EalError>),
    /// All queues of the port that were asked for have been given back.
    Detached(PortId),
}

/// The control thread's end.
#[derive(Debug)]
pub struct Postman {
    inbox: Arc<ArrayQueue<Mail>>,
    returned: Arc<ArrayQueue<Returned>>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Mailbox {
    inbox: Arc<ArrayQueue<Mail>>,
    returned: Arc<ArrayQueue<Returned>>,
}

/// A pair of ends.
pub fn mailbox() -> (Postman, Mailbox) {
    let inbox = Arc::new(ArrayQueue::new(LETTERS_MAX));
    let returned = Arc::new(ArrayQueue::new(LETTERS_MAX));
    let postman = Postman { inbox: Arc::clone(&inbox), returned: Arc::clone(&returned) };
    (postman, Mailbox { inbox, returned })
}

impl Postman {
    /// Sends a letter; gives it back if the box is full.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        self.inbox.push(mail)
    }

    /// Takes what the worker gave back.
    pub fn collect(&self) -> Option<Returned> {
        self.returned.pop()
    }
}

impl Mailbox {
    /// Whether there is anything to take: two loads of lines that rarely change.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// The next letter, as long as what it may ask for can be given back.
    pub(crate) fn take(&self) -> Option<Mail> {
        let room = self.returned.capacity() - self.returned.len();
        if room <= QUEUES_OF_A_PORT_MAX { None } else { self.inbox.pop() }
    }

    /// Gives something back. There is room: `take` saw to it.
    pub(crate) fn give_back(&self, returned: Returned) {
        if let Err(refused) = self.returned.push(returned) {
            // A worker frees nothing. To leak here is better, and cannot happen besides.
            std::mem::forget(refused);
        }
    }
}
