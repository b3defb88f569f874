//! What `viaduct show` asks and what the daemon answers, over a unix socket.
//!
//! ```text
//! view      what can be shown: plain values             server   the daemon's end of the socket
//! protocol  a question and its answer, as JSON lines    client   the command's end
//! stream    what follows some answers                   follow   the same at the command's end
//! ```
//!
//! One connection carries one question and one answer, a line of JSON each way, so that a socket tool
//! and a JSON reader are a client already. What is captured or traced follows its answer, until there
//! is enough of it. Whoever may connect may look, and no more but for what changes no frame's fate by
//! itself: have receive queues given to other workers, and have the configuration read anew, which
//! only its owner can write. How an answer looks to people is the program's to say, and not told here.

pub mod client;
pub mod follow;
mod from;
mod protocol;
pub mod server;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
pub(crate) mod words;

pub use client::{AskError, ask};
pub use follow::{Following, follow};
pub(crate) use from::rounded;
pub(crate) use protocol::HANDOVER_TIME;
pub use protocol::{Answer, Query};
pub use server::{BindError, Request, Server};
pub use stream::Feed;
