//! IPv6 and its extension headers (RFC 8200 §4).

use super::{Form, Ip, Place, Transport, protocol};

/// Extension headers that are passed over at most. RFC 8200 §4.1 knows of seven in one packet.
const HEADERS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Reads an IPv6 packet.
#[inline]
pub(super) fn parse(head: &[u8], at: usize) -> Ip<u128> {
    let Some(header) = head.get(at..).and_then(<[u8]>::first_chunk::<40>) else {
        let transport = Transport::bare(Form::Truncated, 0);
        return Ip { source: 0, destination: 0, transport };
    };
    let address = |from: usize| {
        let bytes = header[from..].first_chunk().expect("the header has room for two addresses");
        u128::from_be_bytes(*bytes)
    };
    let (source, destination, next) = (address(8), address(24), header[6]);
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let transport = if header[0] >> 4 != 6 {
        Transport::bare(Form::Truncated, next)
    } else {
        walk(head, next, at + 40, at + 40 + payload)
    };
    Ip { source, destination, transport }
}

/// Passes over extension headers, to the transport's.
#[inline]
fn walk(head: &[u8], mut next: u8, mut at: usize, end: usize) -> Transport {
    let mut fragment = false;
    for _ in 0..=HEADERS_MAX {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => 8,
            AUTHENTICATION => 4,
            FRAGMENT => 0,
            protocol => {
                let place = Place { offset: at, end };
                return Transport::parse(head, place, protocol, protocol::ICMPV6, fragment);
            }
        };
        let Some(header) = head.get(at..at + 8).filter(|_| at + 8 <= end) else {
            // An extension header that goes on beyond the head is one too many, even where the
            // packet would hold it.
            let form = match (fragment, at + 8 <= end) {
                (true, false) => Form::Tiny,
                (false, false) => Form::Truncated,
                (_, true) => Form::Deep,
            };
            return Transport { fragment, ..Transport::bare(form, next) };
        };
        let protocol = header[0];
        at += match length {
            // RFC 8200 §4.3: in units of 8 octets, the first not counted.
            8 => 8 + usize::from(header[1]) * 8,
            // RFC 4302 §2.2: in units of 4 octets, less two of them.
            4 => 8 + usize::from(header[1]) * 4,
            _ => {
                let bits = u16::from_be_bytes([header[2], header[3]]);
                // RFC 6946: a fragment that is all of its packet is no fragment. It is told of all
                // the same, as RFC 6980 forbids even these to neighbour discovery.
                fragment = true;
                let position = usize::from(bits & !7);
                if position != 0 {
                    let place = Place { offset: at + 8, end };
                    let icmp = protocol::ICMPV6;
                    return Transport::parse_fragment(head, place, protocol, icmp, position);
                }
                8
            }
        };
        next = protocol;
    }
    Transport { fragment, ..Transport::bare(Form::Deep, next) }
}
