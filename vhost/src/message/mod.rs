//! vhost-user messages: bytes and descriptors on one side, typed requests and replies on the other.
//!
//! Decoding is pure and total: any bytes with any descriptors give a [`Request`] or a
//! [`MessageError`], never a panic, and what was decoded is a private copy. A descriptor that a
//! message should not carry is closed with the message. Encoding is the exact inverse, so that a
//! front-end (a bench, a test) can be written on the same types.
//!
//! Nothing here does I/O (that is [`socket`](crate::socket)) or knows whether a request fits the
//! state that a session is in (that is [`session`](crate::session)).

mod code;
mod fields;
mod reply;
mod request;

#[cfg(test)]
mod tests;

pub use code::Code;
pub use fields::{VringAddresses, VringDescriptor, VringState};
pub use reply::{Reply, ReplyBody};
pub use request::Request;

use std::os::fd::OwnedFd;

/// Bytes of the header before each payload.
pub const HEADER_BYTES: usize = 12;
/// The longest payload that is accepted. The longest that means anything is a memory table of
/// [`DESCRIPTORS_MAX`] regions, about half of this.
pub const PAYLOAD_BYTES_MAX: usize = 4096;
/// The most descriptors that a message may carry: one for each region of the largest memory table.
pub const DESCRIPTORS_MAX: usize = crate::memory::REGIONS_MAX;

/// The protocol's only version, in the lowest two bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0b11;
/// Set on what a back-end answers.
const REPLY: u32 = 1 << 2;
/// Set on a request whose sender waits for an acknowledgement.
const NEED_REPLY: u32 = 1 << 3;

/// A message as it is on the socket: a header that was checked, and what came with it.
#[derive(Debug)]
pub struct Message {
    /// What it is about.
    pub header: Header,
    /// As many bytes as the header says.
    pub payload: Vec<u8>,
    /// What came along, in the sender's order.
    pub descriptors: Vec<OwnedFd>,
}

/// The fixed part of a message (vhost-user: "Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The request's number, which may be one that nobody knows.
    pub code: u32,
    /// A reply, not a request.
    pub reply: bool,
    /// The sender waits for an acknowledgement (vhost-user: `REPLY_ACK`).
    pub need_reply: bool,
    /// Bytes of payload, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: usize,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The peer speaks another protocol, or we lost our place in the stream.
    #[error("message {code} has protocol version {version}, only version {VERSION} exists")]
    Version {
        /// The request's number.
        code: u32,
        /// What it says.
        version: u32,
    },
    /// Bits that have no meaning.
    #[error("message {code} has flags {flags:#x}, of which only 0xf have a meaning")]
    Flags {
        /// The request's number.
        code: u32,
        /// What it says.
        flags: u32,
    },
    /// Longer than any message.
    #[error(
        "message {code} has {bytes} bytes of payload, at most {PAYLOAD_BYTES_MAX} are accepted"
    )]
    Oversize {
        /// The request's number.
        code: u32,
        /// What it says.
        bytes: u32,
    },
    /// A reply where a request is due, or the other way round.
    #[error("message {code} is a {found}, not a {wanted}")]
    Direction {
        /// The request's number.
        code: u32,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A number that the specification does not have.
    #[error("request {0} is unknown")]
    Unknown(u32),
    /// A request of a feature that this back-end never offers.
    #[error("{code} belongs to {feature}, which is not offered")]
    NotOffered {
        /// The request.
        code: Code,
        /// What it belongs to.
        feature: &'static str,
    },
    /// The payload is not as long as this request's is.
    #[error("{code} has {bytes} bytes of payload, not {expected}")]
    PayloadBytes {
        /// The request.
        code: Code,
        /// Bytes that came.
        bytes: usize,
        /// Bytes that it must have.
        expected: usize,
    },
    /// More regions than any memory table has.
    #[error("{code} has {regions} memory regions, at most {DESCRIPTORS_MAX} are supported")]
    Regions {
        /// The request.
        code: Code,
        /// What it says.
        regions: u32,
    },
    /// Descriptors are missing, or came where none belong.
    #[error("{code} came with {found} file descriptors, not {expected}")]
    Descriptors {
        /// The request.
        code: Code,
        /// Descriptors that came.
        found: usize,
        /// Descriptors that it must have.
        expected: usize,
    },
    /// A field has a value that the specification gives no meaning.
    #[error("{code}: {field} is {value:#x}, {allowed}")]
    Field {
        /// The request.
        code: Code,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Header {
    /// Checks the bytes before a payload.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, MessageError> {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let (code, flags, bytes) = (word(0), word(4), word(8));
        let version = flags & VERSION_MASK;
        if version != VERSION {
            return Err(MessageError::Version { code, version });
        }
        if flags & !(VERSION_MASK | REPLY | NEED_REPLY) != 0 {
            return Err(MessageError::Flags { code, flags });
        }
        let payload_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(MessageError::Oversize { code, bytes });
        }
        let (reply, need_reply) = (flags & REPLY != 0, flags & NEED_REPLY != 0);
        Ok(Self { code, reply, need_reply, payload_bytes })
    }

    /// The bytes that [`decode`](Self::decode) takes apart.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let flag = |set, mask| if set { mask } else { 0 };
        let flags = VERSION | flag(self.reply, REPLY) | flag(self.need_reply, NEED_REPLY);
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.code.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..].copy_from_slice(&(self.payload_bytes as u32).to_ne_bytes());
        bytes
    }
}

impl Message {
    /// Header and payload, one after the other.
    pub fn bytes(&self) -> Vec<u8> {
        [self.header.encode().as_slice(), &self.payload].concat()
    }
}
