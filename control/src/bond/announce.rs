//! Telling switches where addresses are now: frames from each address behind a bond, by the member
//! that carries.
//!
//! Until it hears from an address by the new link, a switch sends to the old one. An address of which
//! an IPv4 address is known is announced by gratuitous ARP (RFC 5227 §3), which routers and other hosts
//! heed too; all others by the RARP request that VMMs send for a guest that has moved (RFC 903).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use dataplane::fdb::FdbEntry;
use dataplane::snapshot::{DomainId, PortId};

/// Octets of a frame, padded to Ethernet's least.
const FRAME_BYTES: usize = 60;

/// What is behind a bond, of what is known without listening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hinterland {
    /// The addresses of ports.
    pub(crate) stations: BTreeSet<Station>,
    /// The networks that leave by the bond, and their VLANs there.
    pub(crate) domains: BTreeMap<DomainId, Option<u16>>,
}

/// An address behind a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Station {
    pub(crate) vlan: Option<u16>,
    pub(crate) mac: [u8; 6],
    pub(crate) ip: Option<Ipv4Addr>,
}

impl Hinterland {
    /// The frames that announce all that is behind a bond, whose port is `bond`: what is known, and
    /// what was learned at other ports of the same networks.
    pub(crate) fn frames(&self, bond: PortId, learned: &[FdbEntry]) -> Vec<Vec<u8>> {
        let known: BTreeSet<_> = self.stations.iter().map(|it| (it.vlan, it.mac)).collect();
        let learned = learned.iter().filter(|entry| entry.port != bond).filter_map(|entry| {
            let vlan = *self.domains.get(&entry.domain)?;
            Some(Station { vlan, mac: entry.mac.bytes(), ip: None })
        });
        let learned = learned.filter(|it| !known.contains(&(it.vlan, it.mac)));
        self.stations.iter().copied().chain(learned).map(|station| station.frame()).collect()
    }
}

impl Station {
    fn frame(&self) -> Vec<u8> {
        let Station { vlan, mac, ip } = *self;
        let mut frame = vec![0xff; 6];
        frame.extend(mac);
        if let Some(vlan) = vlan {
            frame.extend(0x8100_u16.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        let (ethertype, operation, address, target) = match ip {
            Some(ip) => (0x0806_u16, 1, ip.octets(), [0; 6]),
            None => (0x8035, 3, [0; 4], mac),
        };
        frame.extend(ethertype.to_be_bytes());
        // Hardware type Ethernet, protocol type IPv4, the lengths of both, the operation: a request.
        frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(mac);
        frame.extend(address);
        frame.extend(target);
        frame.extend(address);
        frame.resize(FRAME_BYTES + if vlan.is_some() { 4 } else { 0 }, 0);
        frame
    }
}

#[cfg(test)]
mod tests {
    use dataplane::headers::Mac;

    use super::*;

    #[test]
    fn an_address_is_announced_by_arp_where_its_ip_is_known() {
        let mac = [2, 0, 0, 0, 0, 7];
        let frame = Station { vlan: None, mac, ip: Some(Ipv4Addr::new(10, 0, 0, 7)) }.frame();
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..42], [2, 0, 0, 0, 0, 7, 10, 0, 0, 7, 0, 0, 0, 0, 0, 0, 10, 0, 0, 7]);
        let frame = Station { vlan: Some(100), mac, ip: None }.frame();
        assert_eq!(frame.len(), 64);
        assert_eq!(frame[12..26], [0x81, 0, 0, 100, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[26..32], &frame[36..42]), (&mac[..], &mac[..]));
    }

    #[test]
    fn all_that_is_behind_the_bond_is_announced_once_and_nothing_else() {
        let domain = |number| DomainId::new(number).expect("a domain");
        let port = |number| PortId::new(number).expect("a port");
        let station = |vlan, last| Station { vlan, mac: [2, 0, 0, 0, 0, last], ip: None };
        let hinterland = Hinterland {
            stations: [station(None, 1), station(Some(9), 1)].into(),
            domains: [(domain(0), None), (domain(1), Some(9))].into(),
        };
        let entry = |at: usize, last, of: usize| FdbEntry {
            domain: domain(at),
            mac: Mac::new([2, 0, 0, 0, 0, last]),
            port: port(of),
            seen_seconds: 0,
        };
        // One on the wire, one of a network that does not leave by this bond, one that is known.
        let learned =
            [entry(0, 2, 5), entry(1, 2, 6), entry(0, 3, 0), entry(2, 4, 5), entry(0, 1, 5)];
        let expected =
            [station(None, 1), station(Some(9), 1), station(None, 2), station(Some(9), 2)];
        let expected: Vec<_> = expected.iter().map(Station::frame).collect();
        assert_eq!(hinterland.frames(port(0), &learned), expected);
    }
}
