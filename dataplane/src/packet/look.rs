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

/// A plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Look {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// What rules ask; [`Plane::Nothing`] if the packet is not plain.
    pub asked: Asked,
}

/// The looks of a burst's frames, by their index.
pub type Looks = [Look; vhost::BURST_MAX];

impl Look {
    /// Of what is not plain.
    pub const NOT_PLAIN: Self = Self {
        source: 0,
        destination: 0,
        asked: Asked { plane: Plane::Nothing, flags: 0, source_port: 0, selector: 0 },
    };

    /// Whether the packet is plain.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        !matches!(self.asked.plane, Plane::Nothing)
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
        Self { source: word(26), destination: word(30), asked }
    }
}
