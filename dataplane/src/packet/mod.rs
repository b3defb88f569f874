//! What filters need to know of the packet in a frame, read from the frame's private head.
//!
//! Reading never fails: what cannot be read has a [`Form`] that says so, and the filters' stated
//! policy is to drop it where it matters. Nothing is reassembled and nothing is remembered.
//!
//! | what | how it is treated |
//! | --- | --- |
//! | IPv4 options | passed over |
//! | IPv6 extension headers | passed over, up to 8 of them, as far as they lie in the head |
//! | first fragment with all of its transport header | as a whole packet |
//! | first fragment with less (RFC 1858 §3, RFC 7112 §5) | [`Form::Tiny`] |
//! | later fragment that could overlap a transport header (RFC 1858 §4, RFC 5722) | [`Form::Tiny`] |
//! | other later fragments | [`Form::Later`]: it has no ports |
//! | a header that ends with the frame, or lengths that contradict each other | [`Form::Truncated`] |
//! | more headers than are looked at | [`Form::Deep`] |

mod v6;

use crate::headers::Headers;

/// Ethertypes (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464 §3).
    pub const IPV6: u16 = 0x86dd;
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// DCCP (RFC 4340).
    pub const DCCP: u8 = 33;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDPLITE: u8 = 136;
}

/// TCP flags of which one is on every segment but the first of a connection (RFC 9293 §3.1): ACK
/// and RST.
pub const TCP_ESTABLISHED: u8 = 0x14;

/// The packet in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// IPv4, to the first header that is not IP's.
    V4(Ip<u32>),
    /// IPv6, likewise.
    V6(Ip<u128>),
    /// ARP; its fields are read by who needs them.
    Arp,
    /// Something else, by its ethertype.
    Other(u16),
}

/// What is known of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The rest.
    pub transport: Transport,
}

/// The header behind IP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// What of it could be read.
    pub form: Form,
    /// The protocol behind all of IP's headers, or that of the last header that was read.
    pub protocol: u8,
    /// TCP's flags; 0 for other protocols.
    pub flags: u8,
    /// Whether the packet is a fragment of a longer one, the first included.
    pub fragment: bool,
    /// Where in the frame's head it begins, in bytes.
    pub offset: u8,
    /// The source port; 0 where there are no ports.
    pub source_port: u16,
    /// The destination port; type and code of ICMP and ICMPv6, the type in the high byte; else 0.
    pub selector: u16,
}

/// What could be read of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All that is asked for.
    Whole,
    /// None: it was in an earlier fragment.
    Later,
    /// Too little, in a fragment: it is cut so that what it says is in a later fragment, or lies
    /// where it could replace what an earlier one said. No honest sender makes such.
    Tiny,
    /// Too little: the packet ends before, or its lengths contradict each other.
    Truncated,
    /// Nothing: too many headers are before it.
    Deep,
}

/// Octets of a transport header that must be in the first fragment, and that no later one may reach
/// into: TCP's without options.
const GUARDED_BYTES: usize = 20;

impl Packet {
    /// Reads the packet of a frame with this head and these headers.
    #[inline(always)]
    pub fn parse(head: &[u8], headers: &Headers) -> Self {
        let at = headers.payload_offset();
        match headers.ethertype {
            ethertype::IPV4 => Self::V4(v4(head, at)),
            ethertype::IPV6 => Self::V6(v6::parse(head, at)),
            ethertype::ARP => Self::Arp,
            other => Self::Other(other),
        }
    }
}

impl Transport {
    /// One of which nothing is known.
    const fn unknown(form: Form, protocol: u8) -> Self {
        let offset = 0;
        Self { form, protocol, flags: 0, fragment: false, offset, source_port: 0, selector: 0 }
    }

    /// Reads it from `offset` on, where the packet ends at `end`; both from the frame's start.
    #[inline(always)]
    fn parse(head: &[u8], protocol: u8, offset: usize, end: usize, fragment: bool) -> Self {
        let mut transport =
            Self { fragment, offset: offset as u8, ..Self::unknown(Form::Whole, protocol) };
        let needed = match protocol {
            protocol::TCP => GUARDED_BYTES,
            protocol::UDP | protocol::UDPLITE | protocol::ICMP | protocol::ICMPV6 => 8,
            protocol::SCTP | protocol::DCCP => 12,
            _ => 0,
        };
        if needed == 0 {
            return transport;
        }
        let Some(header) = head.get(offset..offset + needed).filter(|_| offset + needed <= end)
        else {
            transport.form = if fragment { Form::Tiny } else { Form::Truncated };
            return transport;
        };
        match protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                transport.selector = u16::from_be_bytes([header[0], header[1]]);
            }
            _ => {
                transport.source_port = u16::from_be_bytes([header[0], header[1]]);
                transport.selector = u16::from_be_bytes([header[2], header[3]]);
                if protocol == protocol::TCP {
                    transport.flags = header[13];
                }
            }
        }
        transport
    }

    /// As [`parse`](Self::parse), for a fragment that begins `position` octets into its packet.
    fn parse_fragment(
        head: &[u8],
        protocol: u8,
        offset: usize,
        end: usize,
        position: usize,
    ) -> Self {
        if position == 0 {
            return Self::parse(head, protocol, offset, end, true);
        }
        // Where a header in front of the transport's could be replaced, so could the transport's.
        let form = if position < GUARDED_BYTES { Form::Tiny } else { Form::Later };
        Self { fragment: true, offset: offset as u8, ..Self::unknown(form, protocol) }
    }
}

/// Reads an IPv4 packet (RFC 791 §3.1).
#[inline(always)]
fn v4(head: &[u8], at: usize) -> Ip<u32> {
    let Some(header) = head.get(at..).and_then(<[u8]>::first_chunk::<20>) else {
        let transport = Transport::unknown(Form::Truncated, 0);
        return Ip { source: 0, destination: 0, transport };
    };
    let word = |from: usize| {
        u32::from_be_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]])
    };
    let (source, destination, protocol) = (word(12), word(16), header[9]);
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // The bits are: reserved, don't fragment, more fragments, and 13 of offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let transport = if header[0] >> 4 != 4 || header_bytes < 20 || total < header_bytes {
        Transport::unknown(Form::Truncated, protocol)
    } else if fragment & 0x3fff == 0 {
        Transport::parse(head, protocol, at + header_bytes, at + total, false)
    } else {
        let position = usize::from(fragment & 0x1fff) * 8;
        Transport::parse_fragment(head, protocol, at + header_bytes, at + total, position)
    };
    Ip { source, destination, transport }
}

#[cfg(test)]
mod tests;
