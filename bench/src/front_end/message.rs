//! vhost-user messages as bytes: the front-end's half of the protocol's wire format.
//!
//! Numbers and layouts are those of the vhost-user specification in QEMU's documentation
//! ("Front-end message types", "Message Specification"). All fields are in the machine's byte order.

/// A request from the front-end; the value is its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Request {
    /// Which virtio features the back-end has; answered.
    Features = 1,
    /// Which of them the driver has accepted.
    SetFeatures = 2,
    /// The front-end owns the session.
    SetOwner = 3,
    /// Guest memory, with one descriptor for each region.
    SetMemoryTable = 5,
    /// A ring's number of descriptors.
    SetRingSize = 8,
    /// Where a ring lies.
    SetRingAddress = 9,
    /// Where the back-end begins.
    SetRingBase = 10,
    /// Stops a ring; answered with the place where the back-end stopped.
    RingBase = 11,
    /// What wakes the back-end, with a descriptor.
    SetRingKick = 12,
    /// What interrupts the driver, with a descriptor.
    SetRingCall = 13,
    /// Which protocol features the back-end has; answered.
    ProtocolFeatures = 15,
    /// Which of them the front-end uses.
    SetProtocolFeatures = 16,
    /// How many rings the back-end has; answered.
    QueueCount = 17,
    /// Turns a ring on or off.
    SetRingEnable = 18,
    /// The device status that the driver wrote.
    SetStatus = 39,
}

/// VIRTIO_NET_F_CSUM, _GUEST_CSUM, _GUEST_TSO4 and _HOST_TSO4: frames may go and come with their
/// checksum and the segmentation of TCP over IPv4 left to do.
pub const FEATURES_SEGMENTS: u64 = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11;
/// VIRTIO_NET_F_MRG_RXBUF: a received frame may take several buffers.
pub const FEATURE_MERGEABLE: u64 = 1 << 15;
/// VHOST_USER_F_PROTOCOL_FEATURES.
pub const FEATURE_PROTOCOL: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
pub const FEATURE_VERSION_1: u64 = 1 << 32;

/// Several queue pairs.
pub const PROTOCOL_MULTIQUEUE: u64 = 1 << 0;
/// Requests without an answer of their own can be acknowledged.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
/// The device status is passed on.
pub const PROTOCOL_STATUS: u64 = 1 << 16;

/// Length of a message's header: request, flags, length of what follows.
pub const HEADER_BYTES: usize = 12;
/// The longest payload that an answer to this front-end has.
pub const LONGEST_REPLY: usize = 64;

/// The protocol's version, in every message's flags.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const VERSION_MASK: u32 = 3;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The request's number.
    pub request: u32,
    /// Version and [`REPLY`] and [`NEED_REPLY`] bits.
    flags: u32,
    /// Bytes that follow.
    pub payload_bytes: u32,
}

impl Header {
    /// Whether this is an answer to `request`, of this protocol version.
    pub fn answers(&self, request: Request) -> bool {
        self.request == request as u32 && self.flags & (VERSION_MASK | REPLY) == VERSION | REPLY
    }

    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self { request: word(0), flags: word(4), payload_bytes: word(8) }
    }
}

/// A request as bytes. `acknowledge` asks for an answer that says whether it worked.
pub fn encode(request: Request, payload: &[u8], acknowledge: bool) -> Vec<u8> {
    let flags = VERSION | if acknowledge { NEED_REPLY } else { 0 };
    let words = [request as u32, flags, payload.len() as u32];
    let header = words.into_iter().flat_map(u32::to_ne_bytes);
    header.chain(payload.iter().copied()).collect()
}

/// Builds a payload field by field.
#[derive(Debug, Default)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Appends a 32-bit field.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Appends a 64-bit field.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_header_then_payload() {
        let bytes = encode(Request::SetRingSize, Payload::default().u32(1).u32(256).bytes(), true);
        let words: Vec<u32> = bytes
            .chunks(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("whole words")))
            .collect();
        assert_eq!(words, [8, 0b1001, 8, 1, 256]);
    }

    #[test]
    fn only_a_reply_of_version_one_to_the_same_request_answers() {
        let reply = |request: u32, flags| Header { request, flags, payload_bytes: 8 };
        assert!(reply(1, 0b0101).answers(Request::Features));
        assert!(!reply(1, 0b0001).answers(Request::Features));
        assert!(!reply(1, 0b0110).answers(Request::Features));
        assert!(!reply(2, 0b0101).answers(Request::Features));
    }
}
