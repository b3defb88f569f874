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

mod look;
mod v6;

use crate::headers::Headers;

pub use look::{Asked, Look, Looks};

/// Ethertypes (IEEE 802 numbers).
pub mod ethertype {
    /// The least: what is below is a length (IEEE 802.3 §3.2.6).
    pub const LEAST: u16 = 0x0600;
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

/// Ports of services that only the network offers (IANA).
pub mod service {
    /// Where DHCP servers listen (RFC 2131 §4.1).
    pub const DHCP_SERVER: u16 = 67;
    /// Where DHCP clients listen.
    pub const DHCP_CLIENT: u16 = 68;
    /// Where DHCPv6 clients listen (RFC 8415 §7.2).
    pub const DHCPV6_CLIENT: u16 = 546;
    /// Where DHCPv6 servers and relays listen.
    pub const DHCPV6_SERVER: u16 = 547;
}

/// Types of ICMPv6 messages (IANA).
pub mod icmpv6 {
    use std::ops::RangeInclusive;

    /// Multicast listener query (RFC 2710).
    pub const LISTENER_QUERY: u8 = 130;
    /// Multicast listener report.
    pub const LISTENER_REPORT: u8 = 131;
    /// Multicast listener done.
    pub const LISTENER_DONE: u8 = 132;
    /// Router solicitation (RFC 4861 §4.1).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement (RFC 4861 §4.2).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation (RFC 4861 §4.3).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement (RFC 4861 §4.4).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Version 2 multicast listener report (RFC 3810).
    pub const LISTENER_REPORT_2: u8 = 143;
    /// Neighbour discovery: the five above that RFC 4861 has, and redirects.
    pub const DISCOVERY: RangeInclusive<u8> = ROUTER_SOLICITATION..=137;
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
    /// What rules can ask of it.
    pub plane: Plane,
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
    /// See [`Plane`].
    pub selector: u16,
}

/// What rules can ask of a packet, and so what [`Transport::selector`] is. For protocols with ports
/// the next number is kept for what is asked of source ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plane {
    /// TCP's destination port.
    Tcp = 0,
    /// UDP's destination port.
    Udp = 2,
    /// SCTP's destination port.
    Sctp = 4,
    /// DCCP's destination port.
    Dccp = 6,
    /// UDP-Lite's destination port.
    UdpLite = 8,
    /// Type and code of the family's ICMP, the type in the high byte.
    Icmp = 10,
    /// Nothing but the protocol, in the high byte.
    Protocol = 11,
    /// Nothing.
    Nothing = 12,
}

impl Plane {
    /// How many numbers planes take.
    pub const COUNT: usize = 16;

    /// Whether it is a destination port that is asked for.
    #[inline(always)]
    pub const fn has_ports(self) -> bool {
        (self as u8) < Self::Icmp as u8
    }
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
    pub fn parse(head: &[u8], headers: &Headers) -> Self {
        match headers.ethertype {
            ethertype::IPV4 => Self::V4(Ip::<u32>::parse(head, headers)),
            ethertype::IPV6 => Self::V6(Ip::<u128>::parse(head, headers)),
            ethertype::ARP => Self::Arp,
            other => Self::Other(other),
        }
    }

    /// What could be read of the transport header of an IP packet.
    pub fn form(&self) -> Form {
        match self {
            Self::V4(ip) => ip.transport.form,
            Self::V6(ip) => ip.transport.form,
            Self::Arp | Self::Other(_) => Form::Whole,
        }
    }
}

impl Transport {
    /// One of which no more is known than the protocol.
    #[inline(always)]
    const fn bare(form: Form, protocol: u8) -> Self {
        let plane = match form {
            Form::Whole | Form::Later => Plane::Protocol,
            Form::Tiny | Form::Truncated | Form::Deep => Plane::Nothing,
        };
        let selector = (protocol as u16) << 8;
        let (flags, fragment, offset, source_port) = (0, false, 0, 0);
        Self { form, plane, protocol, flags, fragment, offset, source_port, selector }
    }

    /// Reads it from `offset` on, where the packet ends at `end`; both from the frame's start. `icmp`
    /// is the family's.
    #[inline(always)]
    fn parse(head: &[u8], at: Place, protocol: u8, icmp: u8, fragment: bool) -> Self {
        let (plane, needed) = match protocol {
            protocol::TCP => (Plane::Tcp, GUARDED_BYTES),
            protocol::UDP => (Plane::Udp, 8),
            protocol::SCTP => (Plane::Sctp, 12),
            protocol::DCCP => (Plane::Dccp, 12),
            protocol::UDPLITE => (Plane::UdpLite, 8),
            number if number == icmp => (Plane::Icmp, 8),
            _ => {
                let bare = Self::bare(Form::Whole, protocol);
                return Self { fragment, offset: at.offset as u8, ..bare };
            }
        };
        let header = match head.get(at.offset..) {
            Some(header) if header.len() >= needed && at.offset + needed <= at.end => header,
            _ => {
                let form = if fragment { Form::Tiny } else { Form::Truncated };
                return Self { fragment, ..Self::bare(form, protocol) };
            }
        };
        let first = u16::from_be_bytes([header[0], header[1]]);
        let second = u16::from_be_bytes([header[2], header[3]]);
        let (source_port, selector) = if plane.has_ports() { (first, second) } else { (0, first) };
        let flags = if let Plane::Tcp = plane { header[13] } else { 0 };
        let (form, offset) = (Form::Whole, at.offset as u8);
        Self { form, plane, protocol, flags, fragment, offset, source_port, selector }
    }

    /// What rules ask of it.
    #[inline(always)]
    pub fn asked(&self) -> Asked {
        let Self { plane, flags, source_port, selector, .. } = *self;
        Asked { plane, flags, source_port, selector }
    }

    /// The type of an ICMP message, where [`Plane::Icmp`] says that it is one.
    #[inline(always)]
    pub fn icmp_type(&self) -> u8 {
        self.selector.to_be_bytes()[0]
    }

    /// As [`parse`](Self::parse), for a fragment that begins `position` octets into its packet.
    fn parse_fragment(head: &[u8], at: Place, protocol: u8, icmp: u8, position: usize) -> Self {
        if position == 0 {
            return Self::parse(head, at, protocol, icmp, true);
        }
        // Where a header in front of the transport's could be replaced, so could the transport's.
        let form = if position < GUARDED_BYTES { Form::Tiny } else { Form::Later };
        Self { fragment: true, offset: at.offset as u8, ..Self::bare(form, protocol) }
    }
}

/// Where a transport header begins, and where its packet ends, from the frame's start.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    end: usize,
}

impl Ip<u32> {
    /// Reads the IPv4 packet (RFC 791 §3.1) of a frame with this head and these headers.
    #[inline(always)]
    pub fn parse(head: &[u8], headers: &Headers) -> Self {
        let at = headers.payload_offset();
        let Some(header) = head.get(at..).and_then(<[u8]>::first_chunk::<20>) else {
            let transport = Transport::bare(Form::Truncated, 0);
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
        let place = Place { offset: at + header_bytes, end: at + total };
        let transport = if header[0] >> 4 != 4 || header_bytes < 20 || total < header_bytes {
            Transport::bare(Form::Truncated, protocol)
        } else if fragment & 0x3fff == 0 {
            Transport::parse(head, place, protocol, protocol::ICMP, false)
        } else {
            let position = usize::from(fragment & 0x1fff) * 8;
            Transport::parse_fragment(head, place, protocol, protocol::ICMP, position)
        };
        Ip { source, destination, transport }
    }
}

impl Ip<u128> {
    /// Reads the IPv6 packet (RFC 8200 §3) of a frame with this head and these headers.
    #[inline(always)]
    pub fn parse(head: &[u8], headers: &Headers) -> Self {
        v6::parse(head, headers.payload_offset())
    }
}

#[cfg(test)]
mod tests;
