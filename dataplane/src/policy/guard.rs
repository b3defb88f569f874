//! Anti-spoofing: what a port sends carries its own addresses, and is nothing that only the network's
//! servers and routers send.

use ipnet::IpNet;
use vhost::HEAD_MAX;

use super::neighbours::{check_arp, check_discovery};
use crate::counters::DropReason;
use crate::headers::{Headers, Mac};
use crate::packet::{Asked, Form, Ip, Look, Packet, Plane, Transport, icmpv6, service};

/// See the [module's head](self).
#[derive(Debug, PartialEq, Eq)]
pub struct Guard {
    stations: Box<[Station]>,
    ethertypes: Box<[u16]>,
}

/// A MAC address that a port may use, with the addresses that it may use with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    mac: Mac,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Disjoint ranges of numbers, first and last, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<A>(Box<[(A, A)]>);

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut ranges: Vec<(A, A)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(A, A)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                // Prefixes are nested or apart.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged.into())
    }

    #[inline(always)]
    fn contains(&self, sought: A) -> bool {
        match &*self.0 {
            [(first, last)] => *first <= sought && sought <= *last,
            ranges => match ranges.partition_point(|(first, _)| *first <= sought) {
                0 => false,
                after => sought <= ranges[after - 1].1,
            },
        }
    }
}

impl Station {
    /// With an address, or a few prefixes of such.
    pub fn new<'a>(mac: Mac, prefixes: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => v4.push((prefix.network().into(), prefix.broadcast().into())),
                IpNet::V6(prefix) => v6.push((prefix.network().into(), prefix.broadcast().into())),
            }
        }
        Self { mac, v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    #[inline(always)]
    pub(super) fn has_v4(&self, address: u32) -> bool {
        self.v4.contains(address)
    }

    /// Whether the station may use the address. Any link-local one may be its own: how it is made is
    /// the guest's affair (RFC 4291 appendix A, RFC 7217, RFC 8981).
    #[inline(always)]
    pub(super) fn has_v6(&self, address: u128) -> bool {
        self.v6.contains(address) || address >> 118 == 0xfe80 >> 6
    }
}

impl Guard {
    /// Of a port with these stations, each MAC address once, which may also send and be sent frames
    /// of these ethertypes.
    pub fn new(stations: Vec<Station>, ethertypes: &[u16]) -> Self {
        Self { stations: stations.into(), ethertypes: ethertypes.into() }
    }

    /// The address of its first station.
    pub fn own(&self) -> Option<Mac> {
        Some(self.stations.first()?.mac)
    }

    /// The station with a MAC address. A port has few.
    #[inline(always)]
    pub(super) fn station(&self, mac: Mac) -> Option<&Station> {
        self.stations.iter().find(|station| station.mac == mac)
    }

    /// Whether frames of this ethertype may be sent and received.
    pub fn has_ethertype(&self, number: u16) -> bool {
        self.ethertypes.contains(&number)
    }

    /// Whether the port may send a packet, whose frame has this head and these headers.
    pub(super) fn check(
        &self,
        head: &[u8],
        headers: &Headers,
        packet: &Packet,
    ) -> Result<(), DropReason> {
        let station = self.station(headers.source).ok_or(DropReason::SpoofMac)?;
        match packet {
            Packet::V4(ip) => check_v4(ip, station),
            Packet::V6(ip) => self.check_v6(head, headers, ip, station),
            Packet::Arp => check_arp(self, head, headers),
            Packet::Other(number) if self.has_ethertype(*number) => Ok(()),
            Packet::Other(_) => Err(DropReason::Ethertype),
        }
    }

    /// What is needed to know plain packets, to be asked for many packets in turn.
    #[inline(always)]
    pub(super) fn plain(&self) -> PlainGuard<'_> {
        let own = self.stations.first();
        let v4: &[(u32, u32)] = own.map_or(&[], |own| &own.v4.0);
        let (first, count) = match v4.first() {
            Some((first, last)) => (*first, u64::from(last - first) + 1),
            None => (0, 0),
        };
        let mac = own.map_or(u64::MAX, |own| own.mac.bits().swap_bytes() >> 16);
        PlainGuard { mac, first, count, v4 }
    }

    fn check_v6(
        &self,
        head: &[u8],
        headers: &Headers,
        ip: &Ip<u128>,
        station: &Station,
    ) -> Result<(), DropReason> {
        let transport = &ip.transport;
        check_form(transport)?;
        if transport.plane == Plane::Udp && transport.selector == service::DHCPV6_CLIENT {
            return Err(DropReason::DhcpServer);
        }
        if transport.plane == Plane::Icmp {
            return self.check_icmpv6(head, headers, ip, station);
        }
        if station.has_v6(ip.source) { Ok(()) } else { Err(DropReason::SpoofIp) }
    }

    fn check_icmpv6(
        &self,
        head: &[u8],
        headers: &Headers,
        ip: &Ip<u128>,
        station: &Station,
    ) -> Result<(), DropReason> {
        let kind = ip.transport.icmp_type();
        if icmpv6::DISCOVERY.contains(&kind) {
            // RFC 6980 §5: nobody needs these, and they hide what is checked here.
            if ip.transport.fragment {
                return Err(DropReason::NdFragment);
            }
            check_discovery(self, head, headers, ip)?;
        }
        // Before it has an address, a guest asks whether somebody else has it (RFC 4862 §5.4.2),
        // looks for routers (RFC 4861 §4.1), and says what it listens to (RFC 3590).
        let without_address = matches!(
            kind,
            icmpv6::NEIGHBOUR_SOLICITATION
                | icmpv6::ROUTER_SOLICITATION
                | icmpv6::LISTENER_REPORT
                | icmpv6::LISTENER_REPORT_2
        );
        if (ip.source == 0 && without_address) || station.has_v6(ip.source) {
            return Ok(());
        }
        Err(DropReason::SpoofIp)
    }
}

/// See [`Guard::plain`].
pub(super) struct PlainGuard<'a> {
    /// Its address as a processor reads it that has the first octet lowest; above 48 bits if there is none.
    mac: u64,
    /// Its first range of addresses: where that begins, and how many they are.
    first: u32,
    count: u64,
    v4: &'a [(u32, u32)],
}

impl PlainGuard<'_> {
    /// The address that all plain packets have which [are the port's own](Self::is_own), if it has only one.
    #[inline(always)]
    pub(super) fn only_address(&self) -> Option<u32> {
        (self.count == 1 && self.v4.len() == 1).then_some(self.first)
    }

    /// Whether a plain packet is from the port's first station and the port may send it, as far as
    /// rules are not asked. What this says no to may still be sent; [`Guard::check`] knows.
    #[inline(always)]
    pub(super) fn is_own(&self, head: &[u8; HEAD_MAX], look: &Look) -> bool {
        let Asked { plane, selector, .. } = look.asked;
        let serves = plane == Plane::Udp && selector == service::DHCP_CLIENT;
        let address = look.source;
        let source = head[4..].first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets) >> 16);
        source == self.mac
            && (u64::from(address.wrapping_sub(self.first)) < self.count
                || is_within(self.v4, address))
            && !serves
    }
}

#[inline(never)]
fn is_within(ranges: &[(u32, u32)], address: u32) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

fn check_v4(ip: &Ip<u32>, station: &Station) -> Result<(), DropReason> {
    let transport = &ip.transport;
    check_form(transport)?;
    if transport.plane == Plane::Udp && transport.selector == service::DHCP_CLIENT {
        return Err(DropReason::DhcpServer);
    }
    // Before it has an address, a client asks without one (RFC 2131 §4.1).
    let asks = ip.source == 0
        && transport.plane == Plane::Udp
        && transport.source_port == service::DHCP_CLIENT
        && transport.selector == service::DHCP_SERVER;
    if asks || station.has_v4(ip.source) { Ok(()) } else { Err(DropReason::SpoofIp) }
}

/// What hides its transport header is not let pass, whatever the rules.
fn check_form(transport: &Transport) -> Result<(), DropReason> {
    match transport.form {
        Form::Whole | Form::Later => Ok(()),
        Form::Tiny => Err(DropReason::TinyFragment),
        Form::Truncated => Err(DropReason::TruncatedHeader),
        Form::Deep => Err(DropReason::HeaderChain),
    }
}
