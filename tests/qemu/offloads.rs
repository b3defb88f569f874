//! What guests leave undone of their frames is passed on to who takes it, and done for who does
//! not: on the way to another guest, and on the way to the wire.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::unistd::geteuid;
use serde_json::json;

use crate::common::daemon::{Daemon, network_key};
use crate::common::guest::{self, Guest, SHORT};
use crate::common::namespace::Namespace;
use crate::common::process::eventually;
use crate::traffic::throughput;
use crate::{Plan, boot, number, reaches, skip};

const A: Plan = Plan { name: "a", network: "red", mac: "52:54:00:00:00:0a", ip: "10.0.0.1" };
const B: Plan = Plan { name: "b", network: "red", mac: "52:54:00:00:00:0b", ip: "10.0.0.2" };
const C: Plan = Plan { name: "c", network: "red", mac: "52:54:00:00:00:0c", ip: "10.0.0.3" };

/// What the guests are called by IPv6.
const A6: &str = "fd00::1";
const C6: &str = "fd00::3";

/// A device whose driver leaves nothing to others, and takes nothing that others left.
const PLAIN: &str = "csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
                     guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// The longest frame that an MTU of 1500 allows.
const FRAME_BYTES_MAX: u64 = 1514;

/// Frames and bytes sent to a port, and what software did for it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    frames: u64,
    bytes: u64,
    checksums: u64,
    segments: u64,
}

impl Sent {
    fn to(switch: &Daemon, name: &str) -> Sent {
        let port = switch.show_port("ports", name);
        let count = |what: &str| port[what].as_u64().expect("a count");
        Sent {
            frames: count("sent_frames"),
            bytes: count("sent_bytes"),
            checksums: count("software_checksums"),
            segments: count("software_segments"),
        }
    }

    fn since(self, before: Sent) -> Sent {
        Sent {
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
            checksums: self.checksums - before.checksums,
            segments: self.segments - before.segments,
        }
    }
}

/// Sends by TCP from one guest to another, and says what the switch did.
#[track_caller]
fn sends(switch: &Daemon, from: &Guest, to: (&Guest, &Plan, &str)) -> Sent {
    let (guest, plan, address) = to;
    let before = Sent::to(switch, plan.name);
    assert!(throughput(from, guest, address, 1, 1) > 0.0);
    assert_eq!(bad_checksums(guest), 0, "{} has got wrong checksums", plan.name);
    Sent::to(switch, plan.name).since(before)
}

#[test]
fn between_guests_a_segment_crosses_whole_or_complete() {
    if !guest::available() {
        return;
    }
    let mut switch = Daemon::builder().start();
    switch.local_network("red");
    for plan in [&A, &B, &C] {
        plan.add_port(&switch);
    }
    let guest = |plan: &Plan, ip6: &str| {
        let addresses = format!("{}/24,{ip6}/64", plan.ip);
        Guest::builder(plan.name).socket(&switch.socket(plan.name)).mac(plan.mac).ip(&addresses)
    };
    let [a, b, c] = boot([guest(&A, A6), guest(&B, "fd00::2"), guest(&C, C6).device(PLAIN)]);
    reaches(&a, B.ip);
    reaches(&a, C.ip);

    let accepted = |name: &str, feature: &str| {
        let vhost = switch.show_port("vhost", name);
        let features = vhost["features"].as_array().expect("negotiated").clone();
        features.iter().any(|name| name.as_str() == Some(&format!("VIRTIO_NET_F_{feature}")))
    };
    for feature in ["CSUM", "HOST_TSO4", "HOST_TSO6", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"] {
        assert!(accepted("a", feature) && accepted("b", feature), "{feature}");
        assert!(!accepted("c", feature), "{feature}");
    }

    // Both drivers do all: frames far beyond the MTU, untouched, both ways.
    for (from, to) in [(&a, (&b, &B, B.ip)), (&b, (&a, &A, A.ip))] {
        let sent = sends(&switch, from, to);
        assert!(sent.bytes / sent.frames > 2 * FRAME_BYTES_MAX, "{sent:?}");
        assert_eq!((sent.checksums, sent.segments), (0, 0), "{sent:?}");
    }

    // A driver that takes nothing gets complete frames, whose checksums it looks at itself.
    for address in [C.ip, C6] {
        let sent = sends(&switch, &a, (&c, &C, address));
        assert!(sent.segments > sent.frames && sent.checksums >= sent.segments, "{sent:?}");
        let mtu = "cat /sys/class/net/eth0/mtu";
        assert_eq!(number(&c, mtu), 1500, "it has no room for more");
    }
    for address in [A.ip, A6] {
        let sent = sends(&switch, &c, (&a, &A, address));
        assert!(sent.bytes / sent.frames <= FRAME_BYTES_MAX, "{sent:?}");
        assert_eq!((sent.checksums, sent.segments), (0, 0), "{sent:?}");
    }

    // Both drivers do nothing any more, and the frames are as long as the MTU allows.
    for guest in [&a, &b] {
        guest.run("ethtool -K eth0 tx off sg off tso off gso off gro off", SHORT).success();
    }
    for (from, to) in [(&a, (&b, &B, B.ip)), (&b, (&a, &A, A.ip))] {
        let sent = sends(&switch, from, to);
        assert!(sent.bytes / sent.frames <= FRAME_BYTES_MAX, "{sent:?}");
        assert_eq!((sent.checksums, sent.segments), (0, 0), "{sent:?}");
    }
    no_bad_offloads(&switch);
    switch.stop();
}

#[test]
fn on_the_wire_a_segment_is_cut_and_its_checksums_are_right() {
    if !guest::available() {
        return;
    }
    if !geteuid().is_root() {
        return skip("making a network namespace needs root");
    }
    let host = Namespace::new("offloads");
    let (outside, inside) = (format!("vo{}", std::process::id()), "in0");
    host.veth(&outside, inside);
    host.run(&format!("ip addr add {}/24 dev {inside}", B.ip), SHORT).success();
    let device = format!("net_af_packet0,iface={outside}");
    let mut switch = Daemon::builder().physnet("w", &device).start();
    switch.put(&network_key("red"), &json!({"type": "flat", "physnet": "w"}));
    A.add_port(&switch);
    let [a] = boot([A.guest(&switch)]);
    reaches(&a, B.ip);

    let folder = tempfile::tempdir().expect("a folder in /tmp");
    let file = folder.path().join("frames");
    let capture =
        format!("exec tcpdump -i {inside} -s 0 -B 16384 -U -Z root -w {} ip", file.display());
    let mut tcpdump = host.start(&capture);
    eventually("tcpdump listens", SHORT, || tcpdump.text().contains("listening on"));
    let server = host.start("exec iperf3 --server --forceflush");
    for options in ["--bytes 1M", "--bytes 1M --reverse", "--bytes 150K --udp --length 1400"] {
        let client = format!(
            "for try in 1 2 3 4 5; do \
               iperf3 --client {} {options} && exit 0; sleep 1; done; exit 1",
            B.ip
        );
        a.run(&format!("({client})"), Duration::from_secs(90)).success();
    }
    drop(server);
    // 1 MB in frames of 1448 bytes at most, acknowledgements of as much, and most of 150 KB of datagrams.
    eventually("the capture has all of it", SHORT, || {
        let seen = look_at(&std::fs::read(&file).expect("tcpdump has written"));
        seen.tcp > 700 && seen.udp > 50 && seen.full > 100
    });
    tcpdump.kill();

    let uplink = switch.show("ports");
    let uplink = uplink.as_array().expect("a list").iter().find(|port| port["kind"] == "uplink");
    let uplink = uplink.expect("it is shown");
    let count = |what: &str| uplink[what].as_u64().expect("a count");
    assert!(count("software_segments") > 20, "{uplink:#}");
    assert!(count("software_checksums") > count("software_segments"), "{uplink:#}");
    no_bad_offloads(&switch);
    switch.stop();
}

/// Segments that the guest's stack has thrown away for their checksums.
#[track_caller]
fn bad_checksums(guest: &Guest) -> u64 {
    number(
        guest,
        "awk '/^Tcp:/ { if (!at) { for (i = 1; i <= NF; i++) if ($i == \"InCsumErrors\") at = i } \
         else print $at }' /proc/net/snmp",
    )
}

/// No guest's header was found to be wrong.
#[track_caller]
fn no_bad_offloads(switch: &Daemon) {
    let drops = switch.show("drops");
    let drops = drops.as_array().expect("a list");
    let bad = drops
        .iter()
        .find(|drop| ["bad-offload", "unfinished"].iter().any(|it| drop["reason"] == *it));
    assert!(bad.is_none(), "{bad:#?}");
}

/// What was on the wire from the guest.
#[derive(Debug, Default)]
struct Seen {
    tcp: u32,
    udp: u32,
    /// Frames as long as the MTU allows.
    full: u32,
}

/// Looks at each frame of a capture (pcap, as tcpdump writes it) that came from the guest: its
/// lengths and checksums must be right.
fn look_at(capture: &[u8]) -> Seen {
    assert_eq!(capture[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "a capture with microseconds");
    let mut seen = Seen::default();
    let mut rest = &capture[24..];
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let (bytes, whole) = (word(8) as usize, word(12));
        // The last one may be half written.
        let Some(frame) = rest.get(16..16 + bytes) else { break };
        assert_eq!(whole as usize, bytes, "the capture is whole");
        rest = &rest[16 + bytes..];
        let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { continue };
        let header = ip.header();
        if header.source() != [10, 0, 0, 1] {
            continue;
        }
        assert!(bytes as u64 <= FRAME_BYTES_MAX, "{bytes} bytes on the wire");
        let expected = header.to_header().calc_header_checksum();
        assert_eq!(header.header_checksum(), expected, "{header:?}");
        seen.full += u32::from(bytes as u64 == FRAME_BYTES_MAX);
        match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let expected = tcp.calc_checksum_ipv4(header.source(), header.destination());
                assert_eq!(tcp.checksum(), expected.expect("it is short"), "{tcp:?}");
                seen.tcp += 1;
            }
            Some(TransportSlice::Udp(udp)) => {
                let expected = udp.to_header().calc_checksum_ipv4_raw(
                    header.source(),
                    header.destination(),
                    udp.payload(),
                );
                assert_eq!(udp.checksum(), expected.expect("it is short"), "{udp:?}");
                seen.udp += 1;
            }
            _ => {}
        }
    }
    seen
}
