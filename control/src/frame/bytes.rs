//! From what was written to octets, as they are on a wire.

use std::net::{IpAddr, Ipv6Addr};

use dataplane::packet::{ethertype, icmpv6, protocol};

use super::{Content, MacBytes, Sketch, Transport};

/// Octets of the shortest frame, without its checksum (IEEE 802.3 §3.2.7).
const FRAME_BYTES_MIN: usize = 60;

/// The next header of IPv6 that says that a packet is a fragment (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;

impl Sketch {
    /// The frame, between these stations where the line names none.
    pub fn bytes(&self, source: MacBytes, destination: MacBytes) -> Vec<u8> {
        if let Content::Raw(bytes) = &self.content {
            return bytes.clone();
        }
        let source = self.source_mac().unwrap_or(source);
        let mut frame = Vec::new();
        frame.extend(self.destination_mac().unwrap_or(destination));
        frame.extend(source);
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
        }
        match &self.content {
            Content::Raw(_) => {}
            Content::Asks { target, sender } => {
                frame.extend(ethertype::ARP.to_be_bytes());
                arp(&mut frame, 1, (source, sender.octets()), ([0; 6], target.octets()));
            }
            Content::Tells { address, sender } => {
                frame.extend(ethertype::ARP.to_be_bytes());
                let told = ([0xff; 6], address.octets());
                arp(&mut frame, 2, (*sender, address.octets()), told);
            }
            Content::Packet { source: IpAddr::V4(from), destination, protocol, transport } => {
                frame.extend(ethertype::IPV4.to_be_bytes());
                let payload = self.payload(transport, *protocol);
                let to = match destination {
                    IpAddr::V4(to) => *to,
                    IpAddr::V6(_) => unreachable!("both are of one version"),
                };
                // RFC 791 §3.1; where the packet is a first fragment, more follow.
                let bits = match self.fragment {
                    None => 0,
                    Some(0) => 0x2000,
                    Some(offset) => offset / 8,
                };
                frame.extend([0x45, 0]);
                frame.extend((20 + payload.len() as u16).to_be_bytes());
                frame.extend([0, 1]);
                frame.extend(bits.to_be_bytes());
                frame.extend([64, *protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(payload);
            }
            Content::Packet { source: IpAddr::V6(from), destination, protocol, transport } => {
                frame.extend(ethertype::IPV6.to_be_bytes());
                let mut payload = Vec::new();
                if let Some(offset) = self.fragment {
                    payload.extend([*protocol, 0]);
                    payload.extend((offset | u16::from(offset == 0)).to_be_bytes());
                    payload.extend([0, 0, 0, 1]);
                }
                payload.extend(match (transport, destination) {
                    (Transport::Icmp { kind, code, target }, IpAddr::V6(to))
                        if !self.is_later() =>
                    {
                        icmpv6_message(*kind, *code, *target, (*from, *to), source)
                    }
                    _ => self.payload(transport, *protocol),
                });
                let next = if self.fragment.is_some() { FRAGMENT } else { *protocol };
                frame.extend([0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                // RFC 4861 §7.1: neighbour discovery comes from the same link, where this is 255.
                frame.extend([next, 255]);
                frame.extend(from.octets());
                if let IpAddr::V6(to) = destination {
                    frame.extend(to.octets());
                }
                frame.extend(payload);
            }
        }
        frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
        frame
    }

    /// Whether the transport header is in an earlier fragment.
    fn is_later(&self) -> bool {
        self.fragment.is_some_and(|offset| offset > 0)
    }

    /// What is behind IP's headers.
    fn payload(&self, transport: &Transport, number: u8) -> Vec<u8> {
        let mut payload = Vec::new();
        if !self.is_later() {
            match transport {
                Transport::Ports { source, destination, flags } => {
                    payload.extend(source.to_be_bytes());
                    payload.extend(destination.to_be_bytes());
                    match number {
                        protocol::TCP => {
                            payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, *flags]);
                            payload.extend([0x20, 0, 0, 0, 0, 0]);
                        }
                        protocol::UDP | protocol::UDPLITE => payload.extend([0, 8, 0, 0]),
                        _ => payload.resize(16, 0),
                    }
                }
                Transport::Icmp { kind, code, .. } => payload.extend([*kind, *code]),
                Transport::Other => {}
            }
        }
        payload.resize(payload.len().max(8), 0);
        payload
    }
}

/// ARP of Ethernet and IPv4 (RFC 826).
fn arp(
    frame: &mut Vec<u8>,
    operation: u8,
    sender: (MacBytes, [u8; 4]),
    target: (MacBytes, [u8; 4]),
) {
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
}

/// A message of ICMPv6, those of neighbour discovery with what belongs to them (RFC 4861 §4).
fn icmpv6_message(
    kind: u8,
    code: u8,
    target: Option<Ipv6Addr>,
    (from, to): (Ipv6Addr, Ipv6Addr),
    source: MacBytes,
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    let option = |message: &mut Vec<u8>, kind: u8| {
        // Who has no address yet says nothing of where it is.
        if !from.is_unspecified() {
            message.extend([kind, 1]);
            message.extend(source);
        }
    };
    match kind {
        icmpv6::ROUTER_SOLICITATION => option(&mut message, 1),
        icmpv6::ROUTER_ADVERTISEMENT => message.extend([0; 8]),
        icmpv6::NEIGHBOUR_SOLICITATION => {
            message.extend(target.unwrap_or(to).octets());
            option(&mut message, 1);
        }
        icmpv6::NEIGHBOUR_ADVERTISEMENT => {
            message.extend(target.unwrap_or(from).octets());
            option(&mut message, 2);
        }
        // A redirect has a target and a destination.
        137 => message.extend([target.unwrap_or(from).octets(), to.octets()].concat()),
        _ => {}
    }
    message
}
