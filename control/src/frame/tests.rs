//! What is written is what the data plane reads, and what is not understood is told apart.

use dataplane::headers::{Headers, Mac};
use dataplane::packet::{Form, Packet};
use proptest::prelude::*;

use super::*;

const ONE: MacBytes = [2, 0, 0, 0, 0, 1];
const TWO: MacBytes = [2, 0, 0, 0, 0, 2];

fn read(line: &str) -> (Vec<u8>, Headers, Packet) {
    let sketch: Sketch = line.parse().unwrap_or_else(|misfit| panic!("{line}: {misfit}"));
    let bytes = sketch.bytes(ONE, TWO);
    let headers = Headers::parse_head(&bytes, bytes.len()).expect("a whole frame");
    let packet = Packet::parse(&bytes, &headers);
    (bytes, headers, packet)
}

/// What the data plane sees of a packet: addresses, form, protocol, ports or type and code, flags.
fn seen(line: &str) -> String {
    fn transport(it: &dataplane::packet::Transport) -> String {
        let part = if it.fragment { " fragment" } else { "" };
        format!(
            "{:?}{part} {} {} {} {:#x}",
            it.form, it.protocol, it.source_port, it.selector, it.flags
        )
    }
    match read(line).2 {
        Packet::V4(ip) => format!(
            "{} {} {}",
            Ipv4Addr::from(ip.source),
            Ipv4Addr::from(ip.destination),
            transport(&ip.transport)
        ),
        Packet::V6(ip) => format!(
            "{} {} {}",
            Ipv6Addr::from(ip.source),
            Ipv6Addr::from(ip.destination),
            transport(&ip.transport)
        ),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_data_plane_reads_what_was_written() {
    for (line, packet) in [
        ("tcp 10.0.0.1:1234 > 10.0.0.2:80 syn", "10.0.0.1 10.0.0.2 Whole 6 1234 80 0x2"),
        ("tcp 10.0.0.1:1234>10.0.0.2:80", "10.0.0.1 10.0.0.2 Whole 6 1234 80 0x2"),
        ("TCP 10.0.0.1:1 > 10.0.0.2:2 syn,ack", "10.0.0.1 10.0.0.2 Whole 6 1 2 0x12"),
        ("tcp 10.0.0.1:1 > 10.0.0.2:2 none", "10.0.0.1 10.0.0.2 Whole 6 1 2 0x0"),
        ("udp 10.0.0.1:68 > 10.0.0.2:67", "10.0.0.1 10.0.0.2 Whole 17 68 67 0x0"),
        ("sctp 10.0.0.1:1 > 10.0.0.2:2", "10.0.0.1 10.0.0.2 Whole 132 1 2 0x0"),
        ("tcp [2001:db8::1]:1 > [2001:db8::2]:80 ack", "2001:db8::1 2001:db8::2 Whole 6 1 80 0x10"),
        ("icmp 8/0 10.0.0.1 > 10.0.0.2", "10.0.0.1 10.0.0.2 Whole 1 0 2048 0x0"),
        ("icmp 128 ::1 > ::2", "::1 ::2 Whole 58 0 32768 0x0"),
        ("icmpv6 3/1 ::1 > ::2", "::1 ::2 Whole 58 0 769 0x0"),
        ("gre 10.0.0.1 > 10.0.0.2", "10.0.0.1 10.0.0.2 Whole 47 0 12032 0x0"),
        ("protocol 89 ::1 > ::2", "::1 ::2 Whole 89 0 22784 0x0"),
        (
            "tcp 10.0.0.1:1 > 10.0.0.2:2 fragment first",
            "10.0.0.1 10.0.0.2 Whole fragment 6 1 2 0x2",
        ),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 fragment 1480",
            "10.0.0.1 10.0.0.2 Later fragment 17 0 4352 0x0",
        ),
        ("udp [::1]:1 > [::2]:2 fragment 1480", "::1 ::2 Later fragment 17 0 4352 0x0"),
        ("udp [::1]:1 > [::2]:2 fragment first", "::1 ::2 Whole fragment 17 1 2 0x0"),
        ("tcp 10.0.0.1:1 > 10.0.0.2:2 fragment 8", "10.0.0.1 10.0.0.2 Tiny fragment 6 0 1536 0x0"),
        ("arp who-has 10.0.0.2 tell 10.0.0.1", "Arp"),
    ] {
        assert_eq!(seen(line), packet, "{line}");
    }
}

#[test]
fn stations_are_those_that_are_written_or_follow() {
    for (line, source, destination) in [
        ("udp 10.0.0.1:1 > 10.0.0.2:2", ONE, TWO),
        ("udp 10.0.0.1:1 > 10.0.0.2:2 mac > 02:00:00:00:00:09", ONE, [2, 0, 0, 0, 0, 9]),
        ("udp 10.0.0.1:1 > 10.0.0.2:2 mac 02:00:00:00:00:09", [2, 0, 0, 0, 0, 9], TWO),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 mac 02:00:00:00:00:08>02:00:00:00:00:09 vlan 5",
            [2, 0, 0, 0, 0, 8],
            [2, 0, 0, 0, 0, 9],
        ),
        ("udp 0.0.0.0:68 > 255.255.255.255:67", ONE, [0xff; 6]),
        ("udp 10.0.0.1:1 > 239.129.2.3:2", ONE, [1, 0, 0x5e, 1, 2, 3]),
        ("icmpv6 135 fe80::1 > ff02::1:ff00:2", ONE, [0x33, 0x33, 0xff, 0, 0, 2]),
        ("arp 10.0.0.1 is-at 02:00:00:00:00:07 vlan 5", [2, 0, 0, 0, 0, 7], [0xff; 6]),
        ("raw 020000000009 020000000008 88cc", [2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]),
    ] {
        let (_, headers, _) = read(line);
        assert_eq!(headers.source, Mac::new(source), "{line}");
        assert_eq!(headers.destination, Mac::new(destination), "{line}");
        assert_eq!(headers.tag.map(|tag| tag.vid()), line.contains("vlan").then_some(5), "{line}");
    }
}

#[test]
fn raw_is_taken_octet_by_octet() {
    let (bytes, headers, packet) = read("raw ffffffffffff 020000000001 88cc 01");
    assert_eq!((bytes.len(), headers.bytes), (15, 15));
    assert_eq!(packet, Packet::Other(0x88cc));
}

#[test]
fn neighbour_discovery_says_what_a_station_would() {
    let (bytes, headers, packet) = read("icmpv6 135 fe80::1 > ff02::1:ff00:2 target fe80::2");
    let Packet::V6(ip) = packet else { panic!("{packet:?}") };
    assert_eq!((ip.transport.form, ip.transport.icmp_type()), (Form::Whole, 135));
    let message = &bytes[headers.payload_offset() + 40..];
    assert_eq!(message[8..24], "fe80::2".parse::<Ipv6Addr>().expect("an address").octets());
    assert_eq!(message[24..32], [1, 1, 2, 0, 0, 0, 0, 1]);
}

#[test]
fn what_is_not_understood_is_told_apart() {
    for (line, message) in [
        ("", "the frame is empty; write a frame such as `tcp 10.0.0.1:1234 > 10.0.0.2:80 syn`"),
        (
            "tcp 10.0.0.1 > 10.0.0.2:80",
            "`10.0.0.1` is not an address with a port; write one such as 10.0.0.1:80 or [2001:db8::1]:80",
        ),
        (
            "tcp 2001:db8::1:80 > [::2]:80",
            "`2001:db8::1:80` is not an address with a port; write one such as 10.0.0.1:80 or [2001:db8::1]:80",
        ),
        (
            "tcp 10.0.0.1:80 10.0.0.2:80",
            "`10.0.0.2:80` stands where `>` should; write a frame such as `tcp 10.0.0.1:1234 > 10.0.0.2:80 syn`",
        ),
        (
            "icmp 10.0.0.1 > 10.0.0.2",
            "`10.0.0.1` is not a type and code of ICMP; write these first: `icmp 8/0 10.0.0.1 > 10.0.0.2`",
        ),
        ("icmpv6 1 10.0.0.1 > 10.0.0.2", "`icmpv6` is not sent over IPv4; write `icmp`"),
        (
            "udp 10.0.0.1:1 > [::1]:2",
            "10.0.0.1 and ::1 are not of one version of IP; write two addresses of the same",
        ),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 syn",
            "`syn` is not understood there; write `mac`, `vlan` or `fragment`, and flags only after tcp",
        ),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 vlan 4096",
            "`4096` stands after `vlan`; write a VLAN from 0 to 4095",
        ),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 fragment 9",
            "no fragment begins 9 octets into its packet; write `first`, or where it begins in its packet: a multiple of 8 up to 65528",
        ),
        (
            "arp 10.0.0.1",
            "`10.0.0.1` is not ARP; write `arp who-has 10.0.0.2 tell 10.0.0.1` or `arp 10.0.0.1 is-at 52:54:00:00:00:01`",
        ),
        (
            "udp 10.0.0.1:1 > 10.0.0.2:2 mac 02:00:00:00:00",
            "`02:00:00:00:00` is not a MAC address; write six pairs of digits, such as 52:54:00:12:34:56",
        ),
        (
            "raw 0x12",
            "`0x12` are not octets; write each octet as two hexadecimal digits, with or without blanks between",
        ),
        (
            "gre 10.0.0.1:1 > 10.0.0.2",
            "`10.0.0.1:1` is not an address, as gre has it; write an address such as 10.0.0.1 or 2001:db8::1",
        ),
    ] {
        let misfit = line.parse::<Sketch>().expect_err(line);
        assert_eq!(misfit.to_string(), message, "{line}");
    }
}

proptest! {
    #[test]
    fn no_line_panics_and_what_parses_makes_a_frame(
        line in "\\PC{0,60}|((tcp|udp|icmp|arp|who-has|tell|is-at|10.0.0.1:1|10.0.0.1|::1|\\[::1\\]:9|\
                 >|8/0|syn|mac|02:00:00:00:00:01|vlan|fragment|first|8|target|raw|ff|protocol) ){0,9}"
    ) {
        if let Ok(sketch) = line.parse::<Sketch>() {
            let bytes = sketch.bytes(ONE, TWO);
            prop_assert!(line.trim_start().to_ascii_lowercase().starts_with("raw") || bytes.len() >= 60);
        }
    }
}
