//! What a decision needs to know of a frame, read from its private head.

use vhost::{FrameRef, HEAD_MAX};

use crate::counters::DropReason;

/// Bytes of an Ethernet header without a tag (IEEE 802.3 §3.1.1).
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of an 802.1Q tag.
pub const TAG_BYTES: usize = 4;

const ETHERTYPE_CUSTOMER_TAG: u16 = 0x8100;
const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(u64);

impl Mac {
    /// From its six bytes, first on the wire first.
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// From its value as a 48-bit number; higher bits are cut off.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// That of a frame with this head, which has one.
    #[inline(always)]
    pub(crate) fn destination(head: &[u8; HEAD_MAX]) -> Self {
        Self(word(head, 0) >> 16)
    }

    /// The source of a frame with this head.
    #[inline(always)]
    pub(crate) fn source(head: &[u8; HEAD_MAX]) -> Self {
        Self::from_bits(word(head, 4))
    }

    /// Its value as a 48-bit number.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Its six bytes.
    pub const fn bytes(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether it is a group address (IEEE 802 §8.2: the first bit on the wire).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 & 0x0100_0000_0000 != 0
    }

    /// Whether a bridge must not forward frames to it: 01-80-C2-00-00-00 to -0F
    /// (802.1Q §8.6.3, table 8-1).
    #[inline(always)]
    pub const fn is_reserved(self) -> bool {
        self.0 & !0xf == 0x0180_c200_0000
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.bytes();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The first tag of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Priority, drop eligibility and VLAN (802.1Q §9.6: PCP, DEI, VID).
    pub tci: u16,
    /// Whether it is a service tag (802.1ad) and not a customer tag.
    pub service: bool,
}

impl Tag {
    /// The VLAN, 0 for a tag that carries a priority only.
    #[inline(always)]
    pub const fn vid(self) -> u16 {
        self.tci & 0xfff
    }
}

/// The fields of a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// The first tag, if the frame begins with one.
    pub tag: Option<Tag>,
    /// What the payload is: the ethertype, behind the first tag if there is one.
    pub ethertype: u16,
    /// The frame's length in bytes, or that of the longest one that it is to be cut into.
    pub bytes: usize,
}

impl Headers {
    /// Reads them. Fails on frames that end before their payload begins, and on those whose sender
    /// left undone what nobody can do.
    #[inline(always)]
    pub fn parse(frame: FrameRef<'_>) -> Result<Self, DropReason> {
        Self::parse_head(frame.head(), bytes_of(frame)?)
    }

    /// As [`parse`](Self::parse), from the first bytes of a frame of `bytes` bytes.
    #[inline(always)]
    pub fn parse_head(head: &[u8], bytes: usize) -> Result<Self, DropReason> {
        let Some((fixed, rest)) = head.split_first_chunk::<ETHERNET_BYTES>() else {
            return Err(DropReason::Runt);
        };
        let destination = Mac::from_bits(word(fixed, 0) >> 16);
        let source = Mac::from_bits(word(fixed, 4));
        let mut ethertype = u16::from_be_bytes([fixed[12], fixed[13]]);
        let tag = if ethertype == ETHERTYPE_CUSTOMER_TAG || ethertype == ETHERTYPE_SERVICE_TAG {
            let &[high, low, upper, lower] = rest.first_chunk().ok_or(DropReason::Runt)?;
            let tci = u16::from_be_bytes([high, low]);
            let service = ethertype == ETHERTYPE_SERVICE_TAG;
            ethertype = u16::from_be_bytes([upper, lower]);
            Some(Tag { tci, service })
        } else {
            None
        };
        Ok(Self { destination, source, tag, ethertype, bytes })
    }

    /// Where the payload begins, in bytes.
    #[inline(always)]
    pub fn payload_offset(&self) -> usize {
        if self.tag.is_some() { ETHERNET_BYTES + TAG_BYTES } else { ETHERNET_BYTES }
    }
}

/// Whether the frame with this head begins with a tag.
#[inline(always)]
pub(crate) fn is_tagged(head: &[u8; HEAD_MAX]) -> bool {
    let ethertype = u16::from_be_bytes([head[12], head[13]]);
    ethertype == ETHERTYPE_CUSTOMER_TAG || ethertype == ETHERTYPE_SERVICE_TAG
}

/// A frame's length in bytes, or that of the longest one that it is to be cut into. Fails if its sender
/// left undone what nobody can do.
#[inline(always)]
pub(crate) fn bytes_of(frame: FrameRef<'_>) -> Result<usize, DropReason> {
    let bytes = frame.bytes();
    if frame.is_complete() {
        return Ok(bytes);
    }
    let offload = frame.offload();
    if offload.is_impossible() {
        return Err(DropReason::BadOffload);
    }
    Ok(offload.wire_bytes(bytes))
}

/// The eight bytes from `at` on, in one load.
#[inline(always)]
fn word<const BYTES: usize>(bytes: &[u8; BYTES], at: usize) -> u64 {
    let eight = bytes[at..].first_chunk().expect("callers ask for bytes that are there");
    u64::from_be_bytes(*eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(rest: &[u8]) -> Vec<u8> {
        let mut head = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        head.extend(rest);
        head
    }

    #[test]
    fn untagged_and_tagged() {
        let plain = Headers::parse_head(&head(&[8, 0]), 64).unwrap();
        assert_eq!(plain.destination.to_string(), "02:00:00:00:00:01");
        assert_eq!(plain.source, Mac::new([2, 0, 0, 0, 0, 2]));
        assert_eq!(plain.tag, None);
        let tagged = Headers::parse_head(&head(&[0x81, 0, 0x60, 0x64, 8, 0]), 64).unwrap();
        assert_eq!(tagged.tag, Some(Tag { tci: 0x6064, service: false }));
        assert_eq!(tagged.tag.unwrap().vid(), 100);
        let service = Headers::parse_head(&head(&[0x88, 0xa8, 0, 5, 0x81, 0]), 64).unwrap();
        assert_eq!(service.tag, Some(Tag { tci: 5, service: true }));
    }

    #[test]
    fn what_is_too_short_is_a_runt() {
        for bytes in 0..14 {
            assert_eq!(Headers::parse_head(&vec![0; bytes], bytes), Err(DropReason::Runt));
        }
        for cut in 14..18 {
            let tagged = head(&[0x81, 0, 0, 1, 8, 0]);
            assert_eq!(Headers::parse_head(&tagged[..cut], cut), Err(DropReason::Runt), "{cut}");
        }
    }

    #[test]
    fn kinds_of_addresses() {
        assert!(Mac::new([0xff; 6]).is_group());
        assert!(Mac::new([1, 0x80, 0xc2, 0, 0, 0xe]).is_reserved());
        assert!(!Mac::new([1, 0x80, 0xc2, 0, 0, 0x10]).is_reserved());
        assert!(!Mac::new([2, 0x80, 0xc2, 0, 0, 0]).is_group());
        assert_eq!(Mac::from_bits(Mac::new([1, 2, 3, 4, 5, 6]).bits()).bytes(), [1, 2, 3, 4, 5, 6]);
    }
}
