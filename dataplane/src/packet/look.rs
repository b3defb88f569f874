//! What most frames are, read at fixed places: whole TCP or UDP in IPv4 without options or tag.
//!
//! A burst is looked at frame after frame before anything is decided, so that what rules ask of it
//! lies close together. What is not plain is read by [`Packet::parse`](super::Packet::parse), which
//! says the same of plain packets.

use super::{GUARDED_BYTES, Plane, protocol};

/// What rules ask of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// See [`Plane`].
    pub plane: Plane,
    /// TCP's flags.
    pub flags: u8,
    /// The source port.
    pub source_port: u16,
    /// See [`Plane`].
    pub selector: u16,
}

/// A plain packet: in two words, as each store that a burst makes waits behind those to the guest
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Look {
    /// Source and destination address.
    addresses: u64,
    /// What rules ask: the selector, the source port, the flags, the plane, from the highest bits on.
    asked: u64,
}

/// The looks of a burst's frames, by their index.
pub type Looks = [Look; vhost::BURST_MAX];

impl Look {
    /// Of what is not plain.
    pub const NOT_PLAIN: Self = Self { addresses: 0, asked: Plane::Nothing as u64 };

    /// Of a plain packet: TCP or UDP.
    #[inline(always)]
    pub const fn new(source: u32, destination: u32, asked: Asked) -> Self {
        let Asked { plane, flags, source_port, selector } = asked;
        Self {
            addresses: (source as u64) << 32 | destination as u64,
            asked: (selector as u64) << 48
                | (source_port as u64) << 32
                | (flags as u64) << 8
                | plane as u64,
        }
    }

    /// Whether the packet is plain.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.asked as u8 != Plane::Nothing as u8
    }

    /// Source address.
    #[inline(always)]
    pub const fn source(&self) -> u32 {
        (self.addresses >> 32) as u32
    }

    /// Destination address.
    #[inline(always)]
    pub const fn destination(&self) -> u32 {
        self.addresses as u32
    }

    /// What rules ask of a plain packet.
    #[inline(always)]
    pub const fn asked(&self) -> Asked {
        let udp = self.asked as u8 == Plane::Udp as u8;
        Asked {
            plane: if udp { Plane::Udp } else { Plane::Tcp },
            flags: (self.asked >> 8) as u8,
            source_port: (self.asked >> 32) as u16,
            selector: (self.asked >> 48) as u16,
        }
    }

    /// Looks at a frame by its head.
    #[inline(always)]
    pub fn read(head: &[u8]) -> Self {
        // Ethernet, IPv4 and TCP: what holds these of UDP holds all of its header too.
        let Some(head) = head.first_chunk::<54>() else { return Self::NOT_PLAIN };
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        // Ethertype, version, and length of the header; then that there is no fragment.
        if word(12) >> 8 != 0x0008_0045 || half(20) & 0x3fff != 0 {
            return Self::NOT_PLAIN;
        }
        let (plane, flags, needed) = match head[23] {
            protocol::TCP => (Plane::Tcp, head[47], GUARDED_BYTES),
            protocol::UDP => (Plane::Udp, 0, 8),
            _ => return Self::NOT_PLAIN,
        };
        if usize::from(half(16)) < 20 + needed {
            return Self::NOT_PLAIN;
        }
        let asked = Asked { plane, flags, source_port: half(34), selector: half(36) };
        Self::new(word(26), word(30), asked)
    }
}
