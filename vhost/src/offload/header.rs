//! The net header (virtio 1.2 §5.1.6): what a driver writes before its frames, and we before ours.

use super::{Offload, Offloads, need};
use crate::burst::TagEdit;

/// Flag: a checksum is to be computed.
const NEEDS_CSUM: u8 = 1;
/// Kinds of segmentation.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// With them: CWR is set, for the first segment.
const GSO_ECN: u8 = 0x80;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_CUSTOMER_TAG: u16 = 0x8100;
const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;

const PROTOCOL_TCP: u8 = 6;
/// Extension headers that may stand before TCP in a frame that is to be cut: hop-by-hop options,
/// routing, destination options (RFC 8200 §4).
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// Bytes of a TCP header without options (RFC 9293 §3.1), and where its checksum stands.
const TCP_BYTES: usize = 20;
const TCP_CHECKSUM: u16 = 16;

/// The least payload of a segment: less, which no TCP uses (Linux stops at 48), would make us cut a
/// frame into tens of thousands.
const SEGMENT_MIN: u16 = 48;

/// Nothing before this offset in a transport header is a checksum: the ports are there.
const PORTS_BYTES: u16 = 4;

/// The most bytes from the IP header on: both versions have 16 bits for a length, of which IPv6's
/// does not count the header.
const IP_BYTES_MAX: usize = 0xffff;

/// A private copy of what a driver wrote before a frame, without `num_buffers`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawHeader {
    /// `flags`, `gso_type`, `hdr_len`, `gso_size`, `csum_start`, lowest first.
    pub(crate) word: u64,
    /// `csum_offset`.
    pub(crate) offset: u16,
}

impl RawHeader {
    /// Whether nothing is left undone. Flags that the driver has no use for are ignored
    /// (virtio 1.2 §5.1.6.2.2).
    #[inline(always)]
    pub(crate) fn is_plain(word: u64) -> bool {
        word & (0xff00 | NEEDS_CSUM as u64) == 0
    }

    /// What it says of a frame of `bytes` bytes that begins with `head`, sent by a driver that may
    /// leave us `left`.
    #[cold]
    pub(crate) fn check(self, head: &[u8], bytes: usize, left: Offloads) -> Offload {
        let offload = self.offload(head, bytes).filter(|offload| left.take(*offload));
        offload.unwrap_or(Offload::IMPOSSIBLE)
    }

    fn offload(self, head: &[u8], bytes: usize) -> Option<Offload> {
        // What the driver says of the headers' length is a hint for devices (§5.1.6.2), and is
        // not believed: it is computed where it is needed.
        let [flags, gso, _, _, size_low, size_high, start_low, start_high] =
            self.word.to_le_bytes();
        let start = u16::from_le_bytes([start_low, start_high]);
        let size = u16::from_le_bytes([size_low, size_high]);
        if flags & NEEDS_CSUM == 0 {
            return None;
        }
        let (ethertype, network) = network(head)?;
        let transport = match ethertype {
            ETHERTYPE_IPV4 => {
                let words = head.get(network)? & 0xf;
                (words >= 5).then_some(network + 4 * usize::from(words))?
            }
            ETHERTYPE_IPV6 => network + 40,
            _ => network,
        };
        let ip = matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6);
        let end = usize::from(start) + usize::from(self.offset) + 2;
        if usize::from(start) < transport || ip && self.offset < PORTS_BYTES || end > bytes {
            return None;
        }
        let checksum = Offload {
            needs: need::CHECKSUM,
            // At most 14 bytes and two tags.
            network: network as u8,
            start,
            offset: self.offset,
            segment: 0,
            headers: 0,
        };
        let tcp = match gso & !GSO_ECN {
            0 => return (gso == 0).then_some(checksum),
            GSO_TCPV4 => need::TCP4,
            GSO_TCPV6 => need::TCP6,
            _ => return None,
        };
        let is_tcp = match tcp {
            need::TCP4 => ethertype == ETHERTYPE_IPV4 && ipv4_is_tcp(head, network, start),
            _ => ethertype == ETHERTYPE_IPV6 && ipv6_is_tcp(head, network, start),
        };
        let tcp_header = head.get(usize::from(start)..)?.first_chunk::<TCP_BYTES>()?;
        let tcp_bytes = 4 * usize::from(tcp_header[12] >> 4);
        let headers = usize::from(start) + tcp_bytes;
        if !is_tcp
            || self.offset != TCP_CHECKSUM
            || tcp_bytes < TCP_BYTES
            || size < SEGMENT_MIN
            || headers >= bytes
            || bytes - network > IP_BYTES_MAX
        {
            return None;
        }
        let ecn = if gso & GSO_ECN != 0 { need::ECN } else { 0 };
        Some(Offload {
            needs: need::CHECKSUM | tcp | ecn,
            segment: size,
            // `start` is inside of the private head, and a TCP header has 60 bytes at most.
            headers: headers as u16,
            ..checksum
        })
    }
}

/// The type of what Ethernet carries behind up to two tags, and where that begins.
fn network(head: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    for _ in 0..3 {
        let ethertype = u16::from_be_bytes(*head.get(at..)?.first_chunk()?);
        if !matches!(ethertype, ETHERTYPE_CUSTOMER_TAG | ETHERTYPE_SERVICE_TAG) {
            return Some((ethertype, at + 2));
        }
        at += 4;
    }
    None
}

/// Whether TCP begins at `start`, right behind an IPv4 header, in a packet that is no fragment.
fn ipv4_is_tcp(head: &[u8], network: usize, start: u16) -> bool {
    let Some(header) = head.get(network..).and_then(|rest| rest.first_chunk::<20>()) else {
        return false;
    };
    let behind = network + 4 * usize::from(header[0] & 0xf);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    header[9] == PROTOCOL_TCP && fragment == 0 && behind == usize::from(start)
}

/// Whether TCP begins at `start`, behind an IPv6 header and extension headers that each segment
/// may carry as they are.
fn ipv6_is_tcp(head: &[u8], network: usize, start: u16) -> bool {
    let mut next = head.get(network + 6).copied();
    let mut at = network + 40;
    while let Some(extension) = next.filter(|next| EXTENSIONS.contains(next)) {
        debug_assert!(EXTENSIONS.contains(&extension));
        let Some(&[following, length]) = head.get(at..).and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        next = Some(following);
        at += 8 * (usize::from(length) + 1);
    }
    next == Some(PROTOCOL_TCP) && at == usize::from(start)
}

/// The net header that we write before a frame, in two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetHeader {
    /// As [`RawHeader::word`].
    word: u64,
    /// `csum_offset`.
    offset: u16,
}

impl NetHeader {
    /// Of a frame that is complete.
    pub(crate) const PLAIN: Self = Self { word: 0, offset: 0 };

    /// Of a frame that is passed on with its offload, and with its tag edited.
    #[inline]
    pub(crate) fn passing(offload: Offload, tag: TagEdit) -> Self {
        let offload = offload.with(tag);
        let gso = match offload.needs & (need::TCP4 | need::TCP6) {
            need::TCP4 => GSO_TCPV4,
            need::TCP6 => GSO_TCPV6,
            _ => 0,
        };
        let ecn = if offload.needs & need::ECN != 0 { GSO_ECN } else { 0 };
        let [headers_low, headers_high] = offload.headers.to_le_bytes();
        let [size_low, size_high] = offload.segment.to_le_bytes();
        let [start_low, start_high] = offload.start.to_le_bytes();
        let word = u64::from_le_bytes([
            NEEDS_CSUM,
            gso | ecn,
            headers_low,
            headers_high,
            size_low,
            size_high,
            start_low,
            start_high,
        ]);
        Self { word, offset: offload.offset }
    }

    /// Its bytes. Without mergeable buffers `buffers` is 1 (virtio 1.2 §5.1.6.3.2) or, in the old
    /// short form of 10 bytes, cut off.
    #[inline]
    pub(crate) fn bytes(self, buffers: u16) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.word.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.offset.to_le_bytes());
        bytes[10..].copy_from_slice(&buffers.to_le_bytes());
        bytes
    }

    /// Its first eight bytes and its last four, for one store each.
    #[inline(always)]
    pub(crate) fn words(self, buffers: u16) -> (u64, u32) {
        (self.word, u32::from(self.offset) | u32::from(buffers) << 16)
    }
}
