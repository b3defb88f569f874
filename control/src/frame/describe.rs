//! From a frame to the line that a [`Sketch`](super::Sketch) is read from: so what was seen can be asked
//! about again. What the grammar has no words for is written octet by octet.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::headers::Headers;
use dataplane::packet::{Form, Packet, Transport, protocol};

use super::parse::FLAGS;
use crate::model::Protocol;

/// Octets that are written of a frame without words.
const RAW_OCTETS: usize = 64;

/// The line of a frame with this head.
pub fn describe(head: &[u8]) -> String {
    let described = Headers::parse_head(head, head.len()).ok().and_then(|headers| {
        let content = content(head, &headers)?;
        let mut line = format!("{content} mac {} > {}", headers.source, headers.destination);
        match headers.tag {
            Some(tag) if tag.service || tag.tci != tag.vid() => return None,
            Some(tag) => write!(line, " vlan {}", tag.vid()).ok()?,
            None => {}
        }
        Some(line)
    });
    described.unwrap_or_else(|| {
        let octets = head.iter().take(RAW_OCTETS).map(|octet| format!("{octet:02x}"));
        format!("raw {}", octets.collect::<String>())
    })
}

fn content(head: &[u8], headers: &Headers) -> Option<String> {
    match Packet::parse(head, headers) {
        Packet::V4(ip) => {
            let ends = (Ipv4Addr::from(ip.source), Ipv4Addr::from(ip.destination));
            let line = packet(head, &ip.transport, ends.0.to_string(), ends.1.to_string())?;
            let at = headers.payload_offset() + 6;
            let field = u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?]);
            Some(match (ip.transport.fragment, field & 0x1fff) {
                (false, _) => line,
                (true, 0) => format!("{line} fragment first"),
                (true, position) => format!("{line} fragment {}", u32::from(position) * 8),
            })
        }
        // Where a fragment begins stands among the extension headers.
        Packet::V6(ip) if ip.transport.fragment => None,
        Packet::V6(ip) => {
            let ends = (Ipv6Addr::from(ip.source), Ipv6Addr::from(ip.destination));
            let (source, destination) = match ip.transport.plane.has_ports() {
                true => (format!("[{}]", ends.0), format!("[{}]", ends.1)),
                false => (ends.0.to_string(), ends.1.to_string()),
            };
            packet(head, &ip.transport, source, destination)
        }
        Packet::Arp => arp(head.get(headers.payload_offset()..)?, headers),
        Packet::Other(_) => None,
    }
}

fn packet(head: &[u8], transport: &Transport, from: String, to: String) -> Option<String> {
    let protocol = Protocol::new(transport.protocol);
    let later = transport.form == Form::Later;
    if transport.form != Form::Whole && !later {
        return None;
    }
    if protocol.has_ports() {
        let (source, destination) =
            if later { (0, 0) } else { (transport.source_port, transport.selector) };
        let flags = match transport.protocol {
            protocol::TCP if !later => format!(" {}", flags(transport.flags)),
            _ => String::new(),
        };
        return Some(format!("{protocol} {from}:{source} > {to}:{destination}{flags}"));
    }
    if protocol.is_icmp() {
        let [kind, code] = if later { [0, 0] } else { transport.selector.to_be_bytes() };
        let line = format!("{protocol} {kind}/{code} {from} > {to}");
        let at = usize::from(transport.offset) + 8;
        let target = match (protocol, kind) {
            (Protocol::ICMPV6, 135..=137) => {
                let octets = head.get(at..)?.first_chunk::<16>()?;
                format!(" target {}", Ipv6Addr::from(*octets))
            }
            _ => String::new(),
        };
        return Some(line + &target);
    }
    let name = protocol.to_string();
    let number = name.starts_with(|it: char| it.is_ascii_digit());
    Some(format!("{}{name} {from} > {to}", if number { "protocol " } else { "" }))
}

fn flags(bits: u8) -> String {
    let set = FLAGS.iter().filter(|(_, bit)| *bit != 0 && bits & bit != 0);
    let names: Vec<_> = set.map(|(name, _)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

/// ARP of Ethernet and IPv4 (RFC 826), from the frame's own sender.
fn arp(body: &[u8], headers: &Headers) -> Option<String> {
    let body = body.first_chunk::<28>()?;
    let four = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
    if body[..6] != [0, 1, 8, 0, 6, 4] || body[8..14] != headers.source.bytes() {
        return None;
    }
    match u16::from_be_bytes([body[6], body[7]]) {
        1 => Some(format!("arp who-has {} tell {}", four(24), four(14))),
        2 => Some(format!("arp {} is-at {}", four(14), headers.source)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Sketch;

    #[test]
    fn a_line_makes_the_frame_that_it_was_made_of() {
        for line in [
            "tcp 10.0.0.1:1234 > 10.0.0.2:80 syn",
            "tcp 10.0.0.1:80 > 10.0.0.2:81 syn,ack",
            "tcp 10.0.0.1:80 > 10.0.0.2:81 none",
            "tcp 10.0.0.1:1234 > 10.0.0.2:80 fragment first",
            "tcp 10.0.0.1:1234 > 10.0.0.2:80 fragment 1480",
            "udp 10.0.0.1:67 > 10.0.0.2:68 vlan 100",
            "sctp 10.0.0.1:67 > 10.0.0.2:68",
            "icmp 8/0 10.0.0.1 > 10.0.0.2",
            "icmp 3/1 10.0.0.1 > 10.0.0.2",
            "gre 10.0.0.1 > 10.0.0.2",
            "protocol 200 10.0.0.1 > 10.0.0.2",
            "arp who-has 10.0.0.2 tell 10.0.0.1",
            "arp 10.0.0.1 is-at 02:00:00:00:00:01",
            "tcp [2001:db8::1]:1234 > [2001:db8::2]:80 syn",
            "icmpv6 135 2001:db8::1 > ff02::1:ff00:2 target 2001:db8::2",
            "icmpv6 128 2001:db8::1 > 2001:db8::2",
            "esp 2001:db8::1 > 2001:db8::2",
        ] {
            let bytes = |line: &str| {
                let sketch: Sketch = line.parse().unwrap_or_else(|it| panic!("{line}: {it}"));
                sketch.bytes([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            };
            let frame = bytes(line);
            let again = describe(&frame);
            assert!(!again.starts_with("raw"), "{line}: {again}");
            // Of a later fragment the ports are not known, and not in it.
            assert_eq!(bytes(&again), frame, "{line}: {again}");
        }
    }

    #[test]
    fn what_has_no_words_is_written_as_it_is() {
        let frame = [&[0xff; 12][..], &[0x88, 0xcc, 1, 2]].concat();
        assert_eq!(describe(&frame), format!("raw {}88cc0102", "ff".repeat(12)));
        assert_eq!(describe(&[]), "raw ");
        let sketch: Sketch =
            "tcp [2001:db8::1]:1 > [2001:db8::2]:80 fragment 1232".parse().expect("a frame");
        assert!(describe(&sketch.bytes([2; 6], [4; 6])).starts_with("raw 04040404"));
    }
}
