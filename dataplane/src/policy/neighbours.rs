//! Who a guest says has which address: ARP and neighbour discovery.

use super::guard::Guard;
use crate::counters::DropReason;
use crate::headers::{Headers, Mac};
use crate::packet::{Ip, icmpv6};

/// Ethernet, IPv4, and the lengths of their addresses (RFC 826).
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of ARP with these.
const ARP_BYTES: usize = 28;

/// Options with link-layer addresses (RFC 4861 §4.6.1).
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// Messages of neighbour discovery that are not routers' alone.
const FROM_HOSTS: [u8; 3] =
    [icmpv6::ROUTER_SOLICITATION, icmpv6::NEIGHBOUR_SOLICITATION, icmpv6::NEIGHBOUR_ADVERTISEMENT];

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.first_chunk().map(|bytes| Mac::new(*bytes))
}

/// ARP: the sender is a station of the port, with an address of its own or none (RFC 5227 §2.1.1).
pub(super) fn check_arp(guard: &Guard, head: &[u8], headers: &Headers) -> Result<(), DropReason> {
    let spoofed = DropReason::SpoofArp;
    let packet = head.get(headers.payload_offset()..).unwrap_or_default();
    let packet: &[u8; ARP_BYTES] = packet.first_chunk().ok_or(DropReason::TruncatedHeader)?;
    if packet[..6] != ARP_KIND {
        return Err(spoofed);
    }
    let sender = mac(&packet[8..]).and_then(|sender| guard.station(sender)).ok_or(spoofed)?;
    let address = u32::from_be_bytes([packet[14], packet[15], packet[16], packet[17]]);
    if address == 0 || sender.has_v4(address) { Ok(()) } else { Err(spoofed) }
}

/// Neighbour discovery (RFC 4861): what is said of a guest's addresses is true, and nothing is said
/// that routers say.
pub(super) fn check_discovery(
    guard: &Guard,
    head: &[u8],
    headers: &Headers,
    ip: &Ip<u128>,
) -> Result<(), DropReason> {
    let spoofed = DropReason::SpoofNd;
    let kind = ip.transport.icmp_type();
    // Before anything is read: the end of a long one is not in the head.
    if !FROM_HOSTS.contains(&kind) {
        return Err(DropReason::RouterAdvertisement);
    }
    // Where the packet ends, by its header: what is behind is padding.
    let at = headers.payload_offset();
    let length = head.get(at + 4..at + 6).ok_or(spoofed)?;
    let end = at + 40 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let message = head.get(usize::from(ip.transport.offset)..end).ok_or(spoofed)?;
    let target = || {
        let bytes = message.get(8..24)?.first_chunk()?;
        Some(u128::from_be_bytes(*bytes))
    };
    let (claimed, options, said) = match kind {
        // Who asks without an address asks whether it may have this one.
        icmpv6::NEIGHBOUR_SOLICITATION => {
            let asked = target().ok_or(spoofed)?;
            ((ip.source == 0).then_some(asked), 24, SOURCE_ADDRESS)
        }
        icmpv6::NEIGHBOUR_ADVERTISEMENT => (Some(target().ok_or(spoofed)?), 24, TARGET_ADDRESS),
        _router_solicitation => (None, 8, SOURCE_ADDRESS),
    };
    let has =
        |mac: Mac, address: u128| guard.station(mac).is_some_and(|station| station.has_v6(address));
    if claimed.is_some_and(|address| !has(headers.source, address)) {
        return Err(spoofed);
    }
    let mut rest = message.get(options..).ok_or(spoofed)?;
    while let [kind, words, ..] = *rest {
        let bytes = usize::from(words) * 8;
        // RFC 4861 §4.6: a length of zero is to be dropped.
        let option = rest.get(..bytes).filter(|_| bytes > 0).ok_or(spoofed)?;
        if kind == SOURCE_ADDRESS || kind == TARGET_ADDRESS {
            let address = claimed.unwrap_or(ip.source);
            let own = mac(&option[2..]).is_some_and(|mac| has(mac, address));
            if kind != said || !own {
                return Err(spoofed);
            }
        }
        rest = &rest[bytes..];
    }
    if rest.is_empty() { Ok(()) } else { Err(spoofed) }
}
