//! Are frames what they should be, and does every change to one show?

use super::*;

fn bytes(head: &Head) -> Vec<u8> {
    head.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn stream(frame_bytes: usize) -> Stream {
    Stream::new(7, &[frame_bytes], 100_000, Addresses::new(1, 10_000), Addresses::new(2, 3))
}

/// The MAC address that a guest's index has, spelled byte by byte.
fn mac(guest: u8, index: u32) -> [u8; 6] {
    let index = index.to_be_bytes();
    [2, guest, index[0], index[1], index[2], index[3]]
}

/// The halfword sum of a right IPv4 header is all ones, by RFC 1071.
fn header_sum(header: &[u8]) -> u16 {
    let mut sum: u32 =
        header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn a_head_is_a_well_formed_frame() {
    for (size, flow) in [(64, 0), (512, 1), (1500, 54_321), (9000, 99_999)] {
        let head = stream(size).head::<false>(Stamp { sequence: 1 << 40, flow, slot: 1023 });
        let bytes = bytes(&head);
        assert_eq!(bytes[0..6], mac(2, flow % 3));
        assert_eq!(bytes[6..12], mac(1, flow % 10_000));
        assert_eq!(bytes[12..16], [0x08, 0x00, 0x45, 0x00]);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), size - 14);
        assert_eq!(bytes[18..24], [0, 0, 0x40, 0, 64, 17]);
        assert_eq!(header_sum(&bytes[14..34]), 0xffff, "header checksum at {size} B");
        let source = u32::from_be_bytes([bytes[26], bytes[27], bytes[28], bytes[29]]);
        let destination = u32::from_be_bytes([bytes[30], bytes[31], bytes[32], bytes[33]]);
        assert_eq!(source, 0x0a02_0000 + flow % 10_000);
        assert_eq!(destination, 0x0a04_0000 + flow % 3);
        assert_eq!(u16::from_be_bytes([bytes[34], bytes[35]]), 0x4000 | flow as u16 & 0x3fff);
        assert_eq!(u32::from(u16::from_be_bytes([bytes[36], bytes[37]])), 0x4000 | flow >> 14);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[38], bytes[39]])), size - 34);
    }
}

#[test]
fn lengths_take_turns() {
    let (one, two) = (Addresses::new(1, 1), Addresses::new(2, 1));
    let stream = Stream::new(7, &[64, 1514, 590], 2, one, two);
    assert_eq!(stream.longest_frame(), 1514);
    for (sequence, size) in [(0, 64), (1, 1514), (2, 590), (3, 64), (3_000_001, 1514)] {
        assert_eq!(stream.frame_bytes(sequence), size);
        let bytes = bytes(&stream.head::<false>(Stamp { sequence, flow: 0, slot: 0 }));
        assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), size - 14);
        assert_eq!(header_sum(&bytes[14..34]), 0xffff);
    }
}

#[test]
fn the_stamp_comes_back() {
    let stamp = Stamp { sequence: 0x0123_4567_89ab_cdef, flow: 99_999, slot: 0xbeef };
    assert_eq!(Stream::claimed::<false>(&stream(64).head::<false>(stamp)), stamp);
    let segments = stream(64).of_segments();
    assert_eq!(Stream::claimed::<true>(&segments.head::<true>(stamp)), stamp);
}

#[test]
fn a_segments_head_is_a_well_formed_frame_with_a_partial_checksum() {
    for (size, flow) in [(64_294, 0), (65_535, 54_321), (1514, 99_999)] {
        let head = stream(size).of_segments().head::<true>(Stamp {
            sequence: u64::MAX - 5,
            flow,
            slot: 7,
        });
        let bytes = bytes(&head);
        assert_eq!(bytes[0..6], mac(2, flow % 3));
        assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), size - 14);
        assert_eq!(bytes[23], 6);
        assert_eq!(header_sum(&bytes[14..34]), 0xffff, "header checksum at {size} B");
        assert_eq!(u16::from_be_bytes([bytes[34], bytes[35]]), 0x4000 | flow as u16 & 0x3fff);
        assert_eq!(u32::from(u16::from_be_bytes([bytes[36], bytes[37]])), 0x4000 | flow >> 14);
        assert_eq!(bytes[46..50], [0x50, 0x10, 0xff, 0xff]);
        let length = (size as u16 - 34).to_be_bytes();
        let pseudo_header = [&bytes[26..34], &[0, 6], &length].concat();
        assert_eq!(
            u16::from_be_bytes([bytes[50], bytes[51]]),
            header_sum(&pseudo_header),
            "pseudo-header at {size} B"
        );
        assert_eq!(bytes[52..54], [0, 0], "no urgent data");
        let short = stream(size).of_segments().with_short_sums();
        let short =
            self::bytes(&short.head::<true>(Stamp { sequence: u64::MAX - 5, flow, slot: 7 }));
        let sum = header_sum(&pseudo_header[..10]);
        assert_eq!(u16::from_be_bytes([short[50], short[51]]), sum, "without the length");
        assert_eq!((&short[..50], &short[52..]), (&bytes[..50], &bytes[52..]));
    }
}

#[test]
fn every_flipped_bit_shows() {
    let (plain, segments) = (stream(64), stream(64).of_segments());
    let stamp = Stamp { sequence: 12_345, flow: 345, slot: 6 };
    for bit in 0..512 {
        let flipped = |mut head: Head| {
            head[bit / 64] ^= 1 << (bit % 64);
            head
        };
        let wrong = flipped(plain.head::<false>(stamp));
        assert_ne!(wrong, plain.head::<false>(Stream::claimed::<false>(&wrong)), "bit {bit}");
        let wrong = flipped(segments.head::<true>(stamp));
        assert_ne!(wrong, segments.head::<true>(Stream::claimed::<true>(&wrong)), "bit {bit}");
    }
}

#[test]
fn streams_and_runs_disown_each_others_frames() {
    let stamp = Stamp { sequence: 5, flow: 5, slot: 5 };
    let (one, two) = (Addresses::new(1, 1), Addresses::new(2, 1));
    let there = Stream::new(1, &[64], 10, one, two);
    assert!(there.owns(&there.head::<false>(stamp)));
    assert!(!there.owns(&Stream::new(1, &[64], 10, two, one).head::<false>(stamp)));
    assert!(!there.owns(&Stream::new(2, &[64], 10, one, two).head::<false>(stamp)));
}

#[test]
fn bodies_differ_by_slot_and_repeat_exactly() {
    let stream = stream(1500);
    let (mut first, mut again, mut other) = ([0; 1436], [0; 1436], [0; 1436]);
    stream.body(1, &mut first);
    stream.body(1, &mut again);
    stream.body(2, &mut other);
    assert_eq!(first, again);
    assert!(first.chunks(8).zip(other.chunks(8)).all(|(one, two)| one != two));
}

#[test]
fn scattered_flows_have_addresses_and_ports_of_their_own() {
    let (one, two) = (Addresses::new(1, 1), Addresses::new(2, 1));
    let stream = Stream::new(7, &[64], 1 << 20, one, two).scattered();
    let mut tuples: Vec<_> = (0..1 << 20)
        .map(|flow| {
            let stamp = Stamp { sequence: u64::from(flow), flow, slot: 3 };
            let head = stream.head::<false>(stamp);
            assert_eq!(Stream::claimed::<false>(&head), stamp);
            let bytes = bytes(&head);
            assert_eq!((&bytes[..6], &bytes[6..12]), (&mac(2, 0)[..], &mac(1, 0)[..]));
            assert_eq!(header_sum(&bytes[14..34]), 0xffff);
            let [from, to] = [26, 30].map(|at| {
                let ip =
                    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Prefix::host(ip)
            });
            assert!(from.meets(one.prefix()) && to.meets(two.prefix()), "{from} {to}");
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            assert!(PORTS.contains(&port(34)) && PORTS.contains(&port(36)));
            (from.address, to.address, port(34), port(36))
        })
        .collect();
    tuples.sort_unstable();
    tuples.dedup();
    assert_eq!(tuples.len(), 1 << 20);
}

#[test]
fn prefixes_meet_where_one_lies_in_the_other() {
    let prefix = |text: &str| {
        let (address, length) = text.split_once('/').expect("a prefix");
        let address: Ipv4Addr = address.parse().expect("an address");
        Prefix::around(address.to_bits(), length.parse().expect("a length"))
    };
    assert_eq!(Addresses::new(2, 1).prefix(), prefix("10.4.0.0/15"));
    assert_eq!(prefix("10.5.255.255/15").to_string(), "10.4.0.0/15");
    assert!(prefix("10.4.0.0/15").meets(prefix("10.5.1.1/32")));
    assert!(prefix("10.5.1.1/32").meets(prefix("10.4.0.0/15")));
    assert!(!prefix("10.4.0.0/15").meets(prefix("10.6.0.0/15")));
    assert!(prefix("0.0.0.0/0").meets(prefix("255.255.255.255/32")));
}
