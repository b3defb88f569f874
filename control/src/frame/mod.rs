//! A frame as one line: `tcp 10.0.0.1:1234 > 10.0.0.2:80 syn`.
//!
//! People write it to ask what would become of such a frame; `bytes` makes the frame of it, as a station
//! would send it, but for checksums, which are zero: nothing that decides looks at them. The grammar:
//!
//! ```text
//! FRAME    PACKET [OPTION…] | raw HEX
//! PACKET   tcp | udp | sctp | dccp | udplite  ADDRESS:PORT > ADDRESS:PORT [FLAG…]
//!          icmp | icmpv6  TYPE[/CODE]  ADDRESS > ADDRESS
//!          PROTOCOL | protocol NUMBER  ADDRESS > ADDRESS
//!          arp who-has ADDRESS tell ADDRESS | arp ADDRESS is-at MAC
//! FLAG     syn | ack | fin | rst | psh | urg | none      of tcp; syn where none is written
//! OPTION   mac [SOURCE] > [DESTINATION] | vlan NUMBER | fragment first | fragment OFFSET
//!          target ADDRESS                                what neighbour discovery is about
//! ```
//!
//! An address of IPv6 is put in brackets where a port follows: `[2001:db8::1]:80`.

mod bytes;
mod describe;
mod filter;
mod parse;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use describe::describe;
pub use filter::{FrameFilter, filter};

/// A MAC address, of a station, a group, or nobody.
pub type MacBytes = [u8; 6];

/// A frame as it was written. See the [module's head](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    content: Content,
    source_mac: Option<MacBytes>,
    destination_mac: Option<MacBytes>,
    vlan: Option<u16>,
    fragment: Option<u16>,
}

/// What is in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// All of it, octet by octet.
    Raw(Vec<u8>),
    /// Who has `target`, asked by `sender`.
    Asks { target: Ipv4Addr, sender: Ipv4Addr },
    /// That `sender` has `address`.
    Tells { address: Ipv4Addr, sender: MacBytes },
    /// An IP packet; both addresses are of one version.
    Packet { source: IpAddr, destination: IpAddr, protocol: u8, transport: Transport },
}

/// The header behind IP's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Transport {
    /// Of a protocol with ports; flags are TCP's.
    Ports { source: u16, destination: u16, flags: u8 },
    /// Of ICMP or ICMPv6.
    Icmp { kind: u8, code: u8, target: Option<Ipv6Addr> },
    /// Of another protocol: nothing that anybody asks for.
    Other,
}

impl Sketch {
    /// The MAC address that the frame is from, where it is written.
    pub fn source_mac(&self) -> Option<MacBytes> {
        match &self.content {
            Content::Raw(bytes) => bytes.get(6..12)?.first_chunk().copied(),
            Content::Tells { sender, .. } => Some(self.source_mac.unwrap_or(*sender)),
            _ => self.source_mac,
        }
    }

    /// The MAC address that the frame is for, where it is written, or follows from a group's address
    /// (RFC 1112 §6.4, RFC 2464 §7) or from what ARP is.
    pub fn destination_mac(&self) -> Option<MacBytes> {
        if let Some(written) = self.destination_mac {
            return Some(written);
        }
        match &self.content {
            Content::Raw(bytes) => bytes.first_chunk().copied(),
            Content::Asks { .. } | Content::Tells { .. } => Some([0xff; 6]),
            Content::Packet { destination: IpAddr::V4(address), .. } => match address.octets() {
                [255, 255, 255, 255] => Some([0xff; 6]),
                [_, b, c, d] if address.is_multicast() => Some([1, 0, 0x5e, b & 0x7f, c, d]),
                _ => None,
            },
            Content::Packet { destination: IpAddr::V6(address), .. } => match address.octets() {
                [.., a, b, c, d] if address.is_multicast() => Some([0x33, 0x33, a, b, c, d]),
                _ => None,
            },
        }
    }

    /// The station that the frame's packet is for, if it has one.
    pub fn destination(&self) -> Option<IpAddr> {
        match &self.content {
            Content::Packet { destination, .. } => Some(*destination),
            _ => None,
        }
    }
}
