//! Packets of every shape, cut at every byte.

use super::*;

fn parse(ethertype: u16, packet: &[u8]) -> Packet {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    let headers = Headers::parse_head(&frame, frame.len()).unwrap();
    Packet::parse(&frame, &headers)
}

/// An IPv4 packet: protocol, the field with the offset, options, and what follows.
fn v4(protocol: u8, fragment: u16, options: &[u8], rest: &[u8]) -> Vec<u8> {
    let header_bytes = 20 + options.len();
    let mut packet = vec![0x40 | (header_bytes / 4) as u8, 0];
    packet.extend(((header_bytes + rest.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(rest);
    packet
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(rest);
    packet
}

/// An extension header of `words` times 8 octets.
fn extension(next: u8, words: u8) -> Vec<u8> {
    let mut header = vec![0; usize::from(words) * 8];
    (header[0], header[1]) = (next, words - 1);
    header
}

fn fragment_header(next: u8, bits: u16) -> Vec<u8> {
    let [high, low] = bits.to_be_bytes();
    vec![next, 0, high, low, 0, 0, 0, 7]
}

const TCP_SYN: [u8; 20] = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];

fn transport(packet: Packet) -> Transport {
    match packet {
        Packet::V4(ip) => ip.transport,
        Packet::V6(ip) => ip.transport,
        other => panic!("{other:?} is not IP"),
    }
}

fn form(ethertype: u16, packet: &[u8]) -> Form {
    transport(parse(ethertype, packet)).form
}

#[test]
fn fields_of_whole_packets() {
    let Packet::V4(ip) = parse(0x0800, &v4(6, 0x4000, &[], &TCP_SYN)) else { panic!("IPv4") };
    assert_eq!((ip.source, ip.destination), (0x0a00_0001, 0x0a00_0002));
    let tcp = Transport {
        form: Form::Whole,
        plane: Plane::Tcp,
        protocol: 6,
        flags: 2,
        fragment: false,
        offset: 34,
        source_port: 12_345,
        selector: 80,
    };
    assert_eq!(ip.transport, tcp);
    let Packet::V4(ip) = parse(0x0800, &v4(6, 0, &[1; 40], &TCP_SYN)) else { panic!("IPv4") };
    assert_eq!(ip.transport, Transport { offset: 74, ..tcp }, "options are passed over");
    let ping = transport(parse(0x0800, &v4(1, 0, &[], &[8, 3, 0, 0, 0, 0, 0, 0])));
    assert_eq!((ping.selector, ping.source_port), (0x0803, 0));
    let gre = transport(parse(0x0800, &v4(47, 0, &[], &[])));
    assert_eq!((gre.form, gre.protocol), (Form::Whole, 47));

    let Packet::V6(ip) = parse(0x86dd, &v6(6, &TCP_SYN)) else { panic!("IPv6") };
    assert_eq!(ip.source, 0xfe80_0000_0000_0000_0000_0000_0000_0001);
    assert_eq!(ip.transport, Transport { offset: 54, ..tcp });
    assert_eq!(parse(0x0806, &[0; 28]), Packet::Arp);
    assert_eq!(parse(0x88cc, &[]), Packet::Other(0x88cc));
}

#[test]
fn a_tag_moves_the_packet() {
    let mut frame = vec![2; 12];
    frame.extend([0x81, 0, 0, 5, 8, 0]);
    frame.extend(v4(6, 0, &[], &TCP_SYN));
    let headers = Headers::parse_head(&frame, frame.len()).unwrap();
    assert_eq!(transport(Packet::parse(&frame, &headers)).offset, 38);
    // Of a second tag it is only seen that it is none of IP.
    frame.splice(12..12, [0x81, 0, 0, 0]);
    let headers = Headers::parse_head(&frame, frame.len()).unwrap();
    assert_eq!(Packet::parse(&frame, &headers), Packet::Other(0x8100));
}

#[test]
fn extension_headers_are_passed_over_and_counted() {
    let chain = [extension(60, 1), extension(43, 2), extension(6, 1)].concat();
    let tcp = transport(parse(0x86dd, &v6(0, &[&chain[..], &TCP_SYN].concat())));
    assert_eq!((tcp.form, tcp.protocol, tcp.selector), (Form::Whole, 6, 80));
    // RFC 4302: the authentication header counts in units of 4 octets.
    let ah = [[6, 4, 0, 0].as_slice(), &[0; 20]].concat();
    let tcp = transport(parse(0x86dd, &v6(51, &[&ah[..], &TCP_SYN].concat())));
    assert_eq!((tcp.form, tcp.selector), (Form::Whole, 80));
    let many = extension(60, 1).repeat(9);
    assert_eq!(form(0x86dd, &v6(60, &[&many[..], &TCP_SYN].concat())), Form::Deep);
    let mut eight = extension(60, 1).repeat(8);
    eight[56] = 6;
    assert_eq!(form(0x86dd, &v6(60, &[&eight[..], &TCP_SYN].concat())), Form::Whole);
    // What the sender says goes on beyond the packet.
    let lying = [6, 200, 0, 0, 0, 0, 0, 0];
    assert_eq!(form(0x86dd, &v6(60, &[&lying[..], &TCP_SYN].concat())), Form::Truncated);
    assert_eq!(form(0x86dd, &v6(59, &[])), Form::Whole, "no next header");
}

#[test]
fn fragments_are_whole_later_or_tiny() {
    let first = transport(parse(0x0800, &v4(6, 0x2000, &[], &TCP_SYN)));
    assert_eq!((first.form, first.selector, first.fragment), (Form::Whole, 80, true));
    assert_eq!(form(0x0800, &v4(6, 0x2000, &[], &TCP_SYN[..16])), Form::Tiny);
    assert_eq!(form(0x0800, &v4(17, 0x2000, &[], &[0; 8])), Form::Whole);
    for (position, expected) in
        [(1, Form::Tiny), (2, Form::Tiny), (3, Form::Later), (185, Form::Later)]
    {
        let packet = v4(6, 0x2000 | position, &[], &TCP_SYN);
        let later = transport(parse(0x0800, &packet));
        assert_eq!((later.form, later.selector), (expected, 6 << 8), "{position}");
    }

    let six = |bits: u16, rest: &[u8]| v6(44, &[&fragment_header(6, bits)[..], rest].concat());
    let atomic = transport(parse(0x86dd, &six(0, &TCP_SYN)));
    assert_eq!((atomic.form, atomic.selector, atomic.fragment), (Form::Whole, 80, true));
    assert_eq!(form(0x86dd, &six(1, &TCP_SYN)), Form::Whole);
    assert_eq!(form(0x86dd, &six(1, &TCP_SYN[..16])), Form::Tiny);
    assert_eq!(form(0x86dd, &six(8, &TCP_SYN)), Form::Tiny);
    assert_eq!(form(0x86dd, &six(24, &TCP_SYN)), Form::Later);
    // RFC 7112: a first fragment has the whole chain of headers.
    let cut = [fragment_header(60, 1), vec![6, 3, 0, 0]].concat();
    assert_eq!(form(0x86dd, &v6(44, &cut)), Form::Tiny);
    let nested = [fragment_header(44, 1), fragment_header(6, 0), TCP_SYN.to_vec()].concat();
    assert_eq!(form(0x86dd, &v6(44, &nested)), Form::Whole);
}

#[test]
fn what_is_cut_off_is_never_whole_and_nothing_panics() {
    let chain = [extension(43, 2), extension(6, 1)].concat();
    let packets = [
        (0x0800, v4(6, 0, &[1; 8], &TCP_SYN)),
        (0x0800, v4(17, 0, &[], &[0; 8])),
        (0x86dd, v6(6, &TCP_SYN)),
        (0x86dd, v6(0, &[&chain[..], &TCP_SYN].concat())),
        (0x86dd, v6(44, &[&fragment_header(17, 1)[..], &[0; 8]].concat())),
    ];
    for (ethertype, packet) in packets {
        assert_eq!(form(ethertype, &packet), Form::Whole);
        for cut in 0..packet.len() {
            let packet = parse(ethertype, &packet[..cut]);
            assert_ne!(transport(packet).form, Form::Whole, "{cut} {packet:?}");
        }
        // The lengths inside end it just as well.
        let mut lying = packet.clone();
        let at = if ethertype == 0x0800 { 2 } else { 4 };
        let said = u16::from_be_bytes([lying[at], lying[at + 1]]) - 1;
        lying[at..at + 2].copy_from_slice(&said.to_be_bytes());
        assert_ne!(form(ethertype, &lying), Form::Whole);
    }
    for (at, byte) in [(0, 0x55), (0, 0x44), (2, 0)] {
        let mut wrong = v4(17, 0, &[], &[0; 8]);
        wrong[at] = byte;
        if at == 2 {
            wrong[3] = 19;
        }
        assert_eq!(form(0x0800, &wrong), Form::Truncated, "{at}");
    }
}
