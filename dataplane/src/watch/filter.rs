//! Which frames are wanted: a few questions about a frame's head, joined by and, or, not.
//!
//! A filter is a list in postfix order, bounded when it is made, so that what it costs a frame is. It
//! is asked about a frame as it came in, by what the worker itself reads of it.

use crate::headers::{Headers, Mac};
use crate::packet::{Packet, Transport, ethertype};

/// Steps that a filter may have.
const OPS_MAX: usize = 64;

/// See the [module's head](self). Without steps it matches all frames, and is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    ops: Vec<Op>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A question.
    Test(Test),
    /// The opposite of the last answer.
    Not,
    /// Whether the last two answers are yes.
    And,
    /// Whether one of the last two is.
    Or,
}

/// A question about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Whether it has this ethertype, behind its first tag.
    Ethertype(u16),
    /// Whether it is an IP packet of this protocol.
    Protocol(u8),
    /// Whether an address of IPv4 is within the prefix, of these bits; ARP's addresses too.
    V4(End, u32, u8),
    /// Whether an address of IPv6 is within the prefix, of these bits.
    V6(End, u128, u8),
    /// Whether a port of TCP, UDP, SCTP, DCCP or UDP-Lite is this one.
    Port(End, u16),
    /// Whether a MAC address is this one.
    Mac(End, Mac),
    /// Whether it has a tag, and if a VLAN is given, that one.
    Vlan(Option<u16>),
}

/// Whose address or port is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
    /// Either's.
    Any,
}

/// Why a list of steps is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// More steps than are taken for a frame.
    #[error("it asks more than {OPS_MAX} things")]
    TooLong,
    /// Answers are lacking, or left over.
    #[error("its parts do not make one question")]
    Unbalanced,
}

impl Filter {
    /// A filter of these steps.
    pub fn new(ops: Vec<Op>) -> Result<Self, FilterError> {
        if ops.len() > OPS_MAX {
            return Err(FilterError::TooLong);
        }
        let mut depth = 0_usize;
        for op in &ops {
            let needed = match op {
                Op::Test(_) => 0,
                Op::Not => 1,
                Op::And | Op::Or => 2,
            };
            depth = depth.checked_sub(needed).ok_or(FilterError::Unbalanced)? + 1;
        }
        let whole = depth == 1 || ops.is_empty();
        if whole { Ok(Self { ops }) } else { Err(FilterError::Unbalanced) }
    }

    /// Whether it matches all frames.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether it matches a frame with this head. Frames without a whole Ethernet header are matched by
    /// no question, asked or denied.
    pub fn matches(&self, head: &[u8]) -> bool {
        if self.ops.is_empty() {
            return true;
        }
        let Ok(headers) = Headers::parse_head(head, head.len()) else { return false };
        let packet = Packet::parse(head, &headers);
        // The stack of answers, a bit for each: there are no more than steps.
        let mut answers = 0_u64;
        for op in &self.ops {
            let last = answers & 1;
            answers = match op {
                Op::Test(test) => answers << 1 | u64::from(test.ask(head, &headers, &packet)),
                Op::Not => answers ^ 1,
                Op::And => answers >> 1 & (!1 | last),
                Op::Or => answers >> 1 | last,
            };
        }
        answers & 1 == 1
    }
}

impl Test {
    fn ask(&self, head: &[u8], headers: &Headers, packet: &Packet) -> bool {
        match *self {
            Self::Ethertype(number) => headers.ethertype == number,
            Self::Protocol(number) => {
                transport(packet).is_some_and(|transport| transport.protocol == number)
            }
            Self::V4(end, bits, length) => {
                addresses_v4(head, headers, packet).is_some_and(|(source, destination)| {
                    let within = |address: u32| is_within(address.into(), bits.into(), length, 32);
                    end.holds(within(source), within(destination))
                })
            }
            Self::V6(end, bits, length) => match packet {
                Packet::V6(ip) => {
                    let within = |address| is_within(address, bits, length, 128);
                    end.holds(within(ip.source), within(ip.destination))
                }
                _ => false,
            },
            Self::Port(end, port) => transport(packet)
                .filter(|it| it.plane.has_ports())
                .is_some_and(|it| end.holds(it.source_port == port, it.selector == port)),
            Self::Mac(end, mac) => end.holds(headers.source == mac, headers.destination == mac),
            Self::Vlan(vid) => {
                headers.tag.is_some_and(|tag| vid.is_none_or(|vid| tag.vid() == vid))
            }
        }
    }
}

impl End {
    fn holds(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Any => source || destination,
        }
    }
}

/// Whether the first `length` bits of an address of `width` bits are those of `bits`.
fn is_within(address: u128, bits: u128, length: u8, width: u8) -> bool {
    let beyond = u32::from(width.saturating_sub(length));
    (address ^ bits).checked_shr(beyond).unwrap_or(0) == 0
}

fn transport(packet: &Packet) -> Option<&Transport> {
    match packet {
        Packet::V4(ip) => Some(&ip.transport),
        Packet::V6(ip) => Some(&ip.transport),
        Packet::Arp | Packet::Other(_) => None,
    }
}

/// The addresses of IPv4 that a frame is between: its packet's, or ARP's sender and target (RFC 826).
fn addresses_v4(head: &[u8], headers: &Headers, packet: &Packet) -> Option<(u32, u32)> {
    match packet {
        Packet::V4(ip) => Some((ip.source, ip.destination)),
        Packet::Arp => {
            let body = head.get(headers.payload_offset()..)?.first_chunk::<28>()?;
            let of_ipv4 = u16::from_be_bytes([body[2], body[3]]) == ethertype::IPV4;
            let word = |at: usize| {
                u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]])
            };
            (of_ipv4 && body[4] == 6 && body[5] == 4).then(|| (word(14), word(24)))
        }
        Packet::V6(_) | Packet::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TCP from 10.0.0.1:1234 to 10.0.0.2:80, tagged 100.
    fn frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 100, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([4, 210, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        frame
    }

    fn asks(ops: &[Op]) -> bool {
        Filter::new(ops.to_vec()).unwrap().matches(&frame())
    }

    #[test]
    fn questions_are_about_what_is_in_the_frame() {
        let (one, two) = (0x0a00_0001, 0x0a00_0002);
        for (test, holds) in [
            (Test::Ethertype(0x0800), true),
            (Test::Ethertype(0x8100), false),
            (Test::Protocol(6), true),
            (Test::Protocol(17), false),
            (Test::V4(End::Source, one, 32), true),
            (Test::V4(End::Source, two, 32), false),
            (Test::V4(End::Source, two, 30), true),
            (Test::V4(End::Any, two, 32), true),
            (Test::V4(End::Destination, 0, 0), true),
            (Test::V6(End::Any, 0, 0), false),
            (Test::Port(End::Source, 1234), true),
            (Test::Port(End::Destination, 1234), false),
            (Test::Port(End::Any, 80), true),
            (Test::Mac(End::Source, Mac::new([2, 0, 0, 0, 0, 1])), true),
            (Test::Mac(End::Destination, Mac::new([2, 0, 0, 0, 0, 1])), false),
            (Test::Vlan(None), true),
            (Test::Vlan(Some(100)), true),
            (Test::Vlan(Some(101)), false),
        ] {
            assert_eq!(asks(&[Op::Test(test)]), holds, "{test:?}");
            assert_eq!(asks(&[Op::Test(test), Op::Not]), !holds, "not {test:?}");
        }
    }

    #[test]
    fn arp_has_addresses_too() {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        let filter = |end, bits| Filter::new(vec![Op::Test(Test::V4(end, bits, 32))]).unwrap();
        assert!(filter(End::Source, 0x0a00_0001).matches(&frame));
        assert!(filter(End::Destination, 0x0a00_0002).matches(&frame));
        assert!(!filter(End::Source, 0x0a00_0002).matches(&frame));
        assert!(!filter(End::Any, 0x0a00_0001).matches(&frame[..40]), "cut off");
    }

    #[test]
    fn answers_are_joined() {
        let test = |yes: bool| Op::Test(Test::Protocol(if yes { 6 } else { 17 }));
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(asks(&[test(a), test(b), Op::And]), a && b);
            assert_eq!(asks(&[test(a), test(b), Op::Or]), a || b);
            // What lies below on the stack stays as it is.
            for c in [false, true] {
                assert_eq!(asks(&[test(c), test(a), test(b), Op::And, Op::Or]), c || (a && b));
                assert_eq!(asks(&[test(c), test(a), test(b), Op::Or, Op::And]), c && (a || b));
                let not = asks(&[test(c), test(a), Op::Not, test(b), Op::And, Op::Or]);
                assert_eq!(not, c || (!a && b));
            }
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let test = Op::Test(Test::Vlan(None));
        assert_eq!(Filter::new(vec![Op::Not]), Err(FilterError::Unbalanced));
        assert_eq!(Filter::new(vec![test, test]), Err(FilterError::Unbalanced));
        assert_eq!(Filter::new(vec![test, Op::And]), Err(FilterError::Unbalanced));
        assert_eq!(
            Filter::new([vec![test], vec![Op::Not; 64]].concat()),
            Err(FilterError::TooLong)
        );
        let empty = Filter::new(Vec::new()).unwrap();
        assert!(empty.matches(&[]));
        assert!(!Filter::new(vec![test, Op::Not]).unwrap().matches(&[0; 13]), "a runt");
    }
}
