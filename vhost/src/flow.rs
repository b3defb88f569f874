//! To which flow a frame belongs: a number that all frames of a conversation share.
//!
//! Frames to a guest with several queues are spread by it, as a NIC does by its receive-side
//! scaling, so that each flow stays on one queue and in order. Both directions of a conversation
//! get the same number. It is read from the frame's private head, so a sender cannot change its
//! mind; what cannot be read (other protocols, heads that are cut short) counts by its addresses.

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Where the EtherType stands, behind the two MAC addresses.
const ETHERTYPE_AT: usize = 12;

/// More fragments, or an offset that is not 0 (RFC 791 §3.1): there may be no ports to read.
const FRAGMENT: u16 = 0x3fff;

/// The number of the flow that a frame with this head belongs to. Even over all its bits.
#[inline]
pub(crate) fn hash(head: &[u8]) -> u32 {
    let (one, other) = ends(head);
    // Each end is mixed by itself before the two are added: the sum does not depend on which of
    // them sent, and ends that differ in one bit each do not cancel out.
    let sum = mix(one).wrapping_add(mix(other));
    (mix(sum) >> 32) as u32
}

/// The two ends of the conversation: network address and port, or MAC address.
#[inline]
fn ends(head: &[u8]) -> (u64, u64) {
    let mut at = ETHERTYPE_AT;
    let mut ethertype = word(head, at);
    // A guest may send tagged frames of its own, up to two tags deep.
    for _ in 0..2 {
        if ethertype == Some(CUSTOMER_TAG) || ethertype == Some(SERVICE_TAG) {
            at += 4;
            ethertype = word(head, at);
        }
    }
    let network = head.get(at + 2..).unwrap_or_default();
    let found = match ethertype {
        Some(IPV4) => ipv4(network),
        Some(IPV6) => ipv6(network),
        _ => None,
    };
    found.unwrap_or_else(|| macs(head))
}

fn ipv4(header: &[u8]) -> Option<(u64, u64)> {
    let fixed: &[u8; 20] = header.first_chunk()?;
    let address = |at: usize| u64::from(u32::from_be_bytes([0, 1, 2, 3].map(|i| fixed[at + i])));
    let (source, destination) = (address(12), address(16));
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & FRAGMENT != 0;
    let transport = header.get(usize::from(fixed[0] & 0xf) * 4..).unwrap_or_default();
    let ports = if fragment { (0, 0) } else { ports(fixed[9], transport) };
    Some((source << 16 | ports.0, destination << 16 | ports.1))
}

fn ipv6(header: &[u8]) -> Option<(u64, u64)> {
    let (fixed, transport) = header.split_first_chunk::<40>()?;
    let half = |at: usize| u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| fixed[at + i]));
    // Network and interface identifier, folded so that neither hides the other.
    let address = |at: usize| mix(half(at)) ^ half(at + 8);
    // Extension headers, a fragment's among them, are not walked: addresses have to do.
    let ports = ports(fixed[6], transport);
    Some((mix(address(8)) ^ ports.0, mix(address(24)) ^ ports.1))
}

#[inline]
fn ports(protocol: u8, transport: &[u8]) -> (u64, u64) {
    match (protocol, transport.first_chunk()) {
        (TCP | UDP | SCTP, Some(&[a, b, c, d])) => {
            (u64::from(u16::from_be_bytes([a, b])), u64::from(u16::from_be_bytes([c, d])))
        }
        _ => (0, 0),
    }
}

fn macs(head: &[u8]) -> (u64, u64) {
    let Some(&[a, b, c, d, e, f, g, h, i, j, k, l]) = head.first_chunk() else { return (0, 0) };
    (u64::from_be_bytes([0, 0, a, b, c, d, e, f]), u64::from_be_bytes([0, 0, g, h, i, j, k, l]))
}

#[inline]
fn word(head: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?))
}

/// Spreads each bit over the whole word (the finish of MurmurHash3).
#[inline(always)]
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn v4(protocol: u8, fragment: u16, ends: [(u8, u16); 2], options: usize) -> Vec<u8> {
        let mut head = [&MACS[..], &[8, 0]].concat();
        head.extend([0x45 + options as u8, 0, 0, 100, 0, 1]);
        head.extend(fragment.to_be_bytes());
        head.extend([64, protocol, 0, 0, 10, 0, 0, ends[0].0, 10, 0, 0, ends[1].0]);
        head.extend(vec![1; 4 * options]);
        head.extend(ends[0].1.to_be_bytes());
        head.extend(ends[1].1.to_be_bytes());
        head
    }

    fn v6(next: u8, ends: [(u8, u16); 2]) -> Vec<u8> {
        let mut head = [&MACS[..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, next, 64]].concat();
        for (last, _) in ends {
            head.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        ends.iter().for_each(|(_, port)| head.extend(port.to_be_bytes()));
        head
    }

    fn tagged(head: &[u8], tags: &[u8]) -> Vec<u8> {
        [&head[..12], tags, &head[12..]].concat()
    }

    #[test]
    fn both_directions_are_one_flow() {
        let (a, b) = ((1, 4000), (2, 80));
        for protocol in [TCP, UDP, SCTP] {
            assert_eq!(hash(&v4(protocol, 0, [a, b], 0)), hash(&v4(protocol, 0, [b, a], 0)));
            assert_eq!(hash(&v6(protocol, [a, b])), hash(&v6(protocol, [b, a])));
        }
    }

    #[test]
    fn each_end_counts() {
        let of = |ends| (hash(&v4(TCP, 0, ends, 0)), hash(&v6(TCP, ends)));
        let (v4_one, v6_one) = of([(1, 4000), (2, 80)]);
        for ends in [
            [(3, 4000), (2, 80)],
            [(1, 4001), (2, 80)],
            [(1, 4000), (3, 80)],
            [(1, 4000), (2, 81)],
            // Exclusive-or of the ends would not tell these.
            [(1, 4001), (2, 81)],
            [(2, 4000), (1, 80)],
        ] {
            let (v4, v6) = of(ends);
            assert!(v4 != v4_one && v6 != v6_one, "{ends:?}");
        }
    }

    #[test]
    fn a_datagram_in_fragments_is_one_flow() {
        let first = v4(UDP, 0x2000, [(1, 4000), (2, 80)], 0);
        let second = v4(UDP, 0x2001, [(1, 0x5a5a), (2, 0x5a5a)], 0);
        let last = v4(UDP, 0x0002, [(1, 0x3333), (2, 0x4444)], 0);
        assert_eq!(hash(&first), hash(&second));
        assert_eq!(hash(&first), hash(&last));
    }

    #[test]
    fn tags_and_options_are_stepped_over() {
        let plain = v4(TCP, 0, [(1, 4000), (2, 80)], 0);
        assert_eq!(hash(&plain), hash(&v4(TCP, 0, [(1, 4000), (2, 80)], 3)));
        assert_eq!(hash(&plain), hash(&tagged(&plain, &[0x81, 0, 0, 5])));
        let two = tagged(&plain, &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]);
        assert_eq!(hash(&plain), hash(&two));
    }

    #[test]
    fn other_frames_count_by_their_addresses() {
        let arp = [&MACS[..], &[8, 6, 0, 1]].concat();
        let mut other = arp.clone();
        other[5] = 9;
        assert_ne!(hash(&arp), hash(&other));
        let back = [&MACS[6..], &MACS[..6], &[8, 6, 0, 1]].concat();
        assert_eq!(hash(&arp), hash(&back));
        // ICMP has no ports: what stands in their place does not count.
        assert_eq!(hash(&v4(1, 0, [(1, 1), (2, 2)], 0)), hash(&v4(1, 0, [(1, 7), (2, 9)], 0)));
    }

    #[test]
    fn any_head_has_a_flow() {
        let whole = tagged(&v6(TCP, [(1, 2), (3, 4)]), &[0x81, 0, 0, 5]);
        for bytes in 0..whole.len() {
            hash(&whole[..bytes]);
        }
        let long = v4(TCP, 0, [(1, 1), (2, 2)], 10);
        for bytes in 0..long.len() {
            hash(&long[..bytes]);
        }
        hash(&[0xff; 128]);
    }

    #[test]
    fn flows_spread_evenly() {
        for queues in [2, 3, 4, 8] {
            let mut counts = vec![0_usize; queues];
            for port in 0..4096 {
                let flow = hash(&v4(TCP, 0, [(1, 1024 + port), (2, 80)], 0));
                counts[((u64::from(flow) * queues as u64) >> 32) as usize] += 1;
            }
            let even = 4096 / queues;
            assert!(counts.iter().all(|n| n.abs_diff(even) < even / 5), "{counts:?}");
        }
    }
}
