//! TCP segments of up to 64 KB: what a guest hands over that leaves segmentation to others.
//!
//! Such a frame is far longer than the MTU, its checksum covers the pseudo-header only, and the
//! virtio-net header in front of it tells what is left to do (virtio 1.2 §5.1.6.2). A guest that has
//! said that it takes such frames gets it in one piece with the same header (§5.1.6.4).
//!
//! The TCP header takes the place of what tells UDP frames apart, so the stamp lies elsewhere: the
//! sequence number in TCP's two numbers, the flow in the ports, the buffer in the first two bytes of
//! the payload.

use crate::frame::Stamp;

/// The bytes of a piece that fits an MTU of 1500 with its headers. Open vSwitch writes its own idea
/// of them into what it forwards, which is this.
const PIECE_BYTES: u64 = 1460;
/// Ethernet, IPv4 and TCP header without options.
const HEADERS_BYTES: u64 = 54;
/// Where the TCP header begins.
const TCP_OFFSET: u64 = 34;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CHECKSUM: u64 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const GSO_TCP_IPV4: u64 = 1;
/// IPv4's number for TCP.
pub const PROTOCOL: u8 = 6;

/// The virtio-net header's first ten bytes: what is left to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Flags, GSO type (a byte each), headers' length, bytes of a piece, and where the checksum
    /// begins (two bytes each), as they lie in memory.
    pub words: u64,
    /// Where the checksum stands, from where it begins.
    pub checksum_offset: u16,
}

impl Offload {
    /// Nothing is left to do.
    pub const NONE: Self = Self { words: 0, checksum_offset: 0 };

    /// Checksum and segmentation of a TCP segment over IPv4.
    pub const SEGMENT: Self = Self {
        words: NEEDS_CHECKSUM
            | GSO_TCP_IPV4 << 8
            | HEADERS_BYTES << 16
            | PIECE_BYTES << 32
            | TCP_OFFSET << 48,
        checksum_offset: 16,
    };

    /// What the frames of a stream leave to do, by whether they are segments.
    #[inline(always)]
    pub const fn of(segments: bool) -> Self {
        if segments { Self::SEGMENT } else { Self::NONE }
    }

    /// Whether a frame that was sent with `self` may arrive with `found`. Where nothing was left to
    /// do, only flags and GSO type have a meaning.
    #[inline(always)]
    pub fn allows(self, found: Self) -> bool {
        if self == Self::NONE { found.words & 0xffff == 0 } else { self == found }
    }
}

/// The words 4 (from the ports on) to 6 of a segment's head: ports, sequence number, flags, window,
/// and the sum of the pseudo-header, for TCP's `length`, where the checksum will be.
#[inline(always)]
pub fn words(stamp: Stamp, length: u16, ports: u64, source: u32, destination: u32) -> [u64; 3] {
    let Stamp { sequence, slot, .. } = stamp;
    let sum = u64::from(pseudo_header_sum(length, source, destination).swap_bytes());
    [
        ports | sequence << 48,
        // A header of five words, with ACK.
        (sequence >> 16) | 0x1050 << 48,
        0xffff | sum << 16 | u64::from(slot) << 48,
    ]
}

/// The stamp that the words 4 to 6 carry.
#[inline(always)]
pub fn stamp(words: [u64; 3]) -> Stamp {
    let [word4, word5, word6] = words;
    let port = |at: u32| u32::from(((word4 >> at) as u16).swap_bytes() & 0x3fff);
    Stamp {
        sequence: word4 >> 48 | word5 << 16,
        flow: port(16) | port(32) << 14,
        slot: (word6 >> 48) as u16,
    }
}

/// RFC 9293's pseudo-header, summed by RFC 1071 and not inverted, as virtio 1.2 §5.1.6.2 has it.
#[inline(always)]
fn pseudo_header_sum(length: u16, source: u32, destination: u32) -> u16 {
    let halves = |ip: u32| (ip >> 16) + (ip & 0xffff);
    let sum = halves(source) + halves(destination) + u32::from(PROTOCOL) + u32::from(length);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offload_lies_in_memory_as_the_specification_says() {
        let bytes = Offload::SEGMENT.words.to_le_bytes();
        assert_eq!(bytes, [1, 1, 54, 0, 0xb4, 0x05, 34, 0]);
    }

    #[test]
    fn a_segment_keeps_its_offload_to_the_last_bit() {
        for bit in 0..64 {
            let found = Offload { words: Offload::SEGMENT.words ^ 1 << bit, ..Offload::SEGMENT };
            assert!(!Offload::SEGMENT.allows(found), "bit {bit}");
        }
        assert!(!Offload::SEGMENT.allows(Offload { checksum_offset: 6, ..Offload::SEGMENT }));
        assert!(!Offload::SEGMENT.allows(Offload::NONE));
        assert!(!Offload::NONE.allows(Offload::SEGMENT));
        assert!(Offload::NONE.allows(Offload { words: 0x1234_0000, checksum_offset: 9 }));
    }

    #[test]
    fn a_pseudo_headers_sum_folds_every_carry() {
        // 0xffff four times, 6 and 0xfff9: five times 0xffff, which is 0xffff in ones' complement.
        assert_eq!(pseudo_header_sum(0xfff9, u32::MAX, u32::MAX), 0xffff);
        // 0a02 + 0000 + 0a04 + 0001 + 0006 + 0014.
        assert_eq!(pseudo_header_sum(20, 0x0a02_0000, 0x0a04_0001), 0x1421);
    }
}
