//! Headers that are believed and those that are not, and what completing makes of frames, against
//! a receiver that checks every length, number and checksum by itself.

mod rings;

use proptest::prelude::*;

use super::header::RawHeader;
use super::{NetHeader, NicOffload, Offload, Offloads};
use crate::burst::{Burst, HEAD_MAX, Received, Source, TagEdit};
use crate::features::device;
use crate::mock::Guest;
use crate::vring::{RingCounters, Vring, VringConfig};

const ALL: u64 = device::CSUM | device::HOST_TSO4 | device::HOST_TSO6 | device::HOST_ECN;

/// A TCP or UDP frame as a driver writes it.
#[derive(Clone, Debug)]
struct Plan {
    tags: Vec<u16>,
    ipv6: bool,
    udp: bool,
    /// Words of options in the IPv4 header, or 8-byte extension headers of IPv6.
    extra: usize,
    /// Words of TCP options.
    options: usize,
    flags: u8,
    payload: usize,
}

const PLAIN: Plan = Plan {
    tags: Vec::new(),
    ipv6: false,
    udp: false,
    extra: 0,
    options: 3,
    flags: 0x18,
    payload: 3000,
};

const SEQUENCE: u32 = 0xffff_fa00;
const IDENTIFICATION: u16 = 0xfffe;

impl Plan {
    fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    fn transport(&self) -> usize {
        let network = self.network();
        if self.ipv6 { network + 40 + 8 * self.extra } else { network + 20 + 4 * self.extra }
    }

    fn headers(&self) -> usize {
        self.transport() + if self.udp { 8 } else { 20 + 4 * self.options }
    }

    /// The frame, with the pseudo header's sum where the checksum goes.
    fn frame(&self) -> Vec<u8> {
        let (network, transport) = (self.network(), self.transport());
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(if self.ipv6 { [0x86, 0xdd] } else { [8, 0] });
        frame.resize(transport, 0);
        let protocol = if self.udp { 17 } else { 6 };
        let behind = self.headers() - transport + self.payload;
        if self.ipv6 {
            frame[network] = 0x60;
            let bytes = (behind + 8 * self.extra) as u16;
            frame[network + 4..network + 6].copy_from_slice(&bytes.to_be_bytes());
            frame[network + 6] = if self.extra > 0 { 60 } else { protocol };
            frame[network + 8..network + 40].iter_mut().zip(1..).for_each(|(to, by)| *to = by);
            for extension in 0..self.extra {
                let last = extension + 1 == self.extra;
                frame[network + 40 + 8 * extension] = if last { protocol } else { 60 };
            }
        } else {
            frame[network] = 0x45 + self.extra as u8;
            let bytes = (behind + transport - network) as u16;
            frame[network + 2..network + 4].copy_from_slice(&bytes.to_be_bytes());
            frame[network + 4..network + 6].copy_from_slice(&IDENTIFICATION.to_be_bytes());
            frame[network + 6] = 0x40;
            frame[network + 8] = 64;
            frame[network + 9] = protocol;
            frame[network + 12..network + 20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !sum(&frame[network..transport]);
            frame[network + 10..network + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        frame.extend([0x30, 0x39, 0, 80]);
        if self.udp {
            frame.extend((behind as u16).to_be_bytes());
            frame.extend([0, 0]);
        } else {
            frame.extend(SEQUENCE.to_be_bytes());
            frame.extend([0, 0, 0, 9, ((5 + self.options) << 4) as u8, self.flags, 1, 0]);
            frame.extend([0, 0, 0, 0]);
            frame.extend(std::iter::repeat_n(1, 4 * self.options));
        }
        frame.extend((0..self.payload).map(|at| (at * 7 % 253) as u8));
        let field = transport + if self.udp { 6 } else { 16 };
        let pseudo = pseudo(&frame[network..], protocol, behind);
        frame[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        frame
    }

    fn raw(&self, gso: u8, segment: u16) -> RawHeader {
        let start = (self.transport() as u16).to_le_bytes();
        let [low, high] = segment.to_le_bytes();
        let word = u64::from_le_bytes([1, gso, 0xff, 0xff, low, high, start[0], start[1]]);
        RawHeader { word, offset: if self.udp { 6 } else { 16 } }
    }

    fn gso(&self) -> u8 {
        let cwr = if self.flags & 0x80 != 0 { 0x80 } else { 0 };
        cwr | if self.ipv6 { 4 } else { 1 }
    }
}

/// One's complement sum (RFC 1071), word by word.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum over the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
fn pseudo(packet: &[u8], protocol: u8, bytes: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 6 { &packet[8..40] } else { &packet[12..20] };
    let mut all = addresses.to_vec();
    all.extend((bytes as u32).to_be_bytes());
    all.extend([0, protocol]);
    sum(&all)
}

fn check(frame: &[u8], raw: RawHeader, features: u64) -> Offload {
    raw.check(&frame[..frame.len().min(HEAD_MAX)], frame.len(), Offloads::left_by(features))
}

fn refused(frame: &[u8], raw: RawHeader) -> bool {
    check(frame, raw, ALL).is_impossible()
}

/// The ring of a driver that may leave everything to us, without a device around it.
struct Sender(Vring);

impl Sender {
    /// With a frame in its ring behind a net header, both cut where `cuts` say.
    fn new(raw: RawHeader, frame: &[u8], cuts: &[usize]) -> Self {
        let mut guest = Guest::new(64);
        let config = VringConfig { left: Offloads::left_by(ALL), ..guest.config() };
        let mut header = raw.word.to_le_bytes().to_vec();
        header.extend(raw.offset.to_le_bytes());
        header.extend([0, 0]);
        guest.transmit_pieces(0, &header, frame, cuts);
        Self(Vring::new(guest.memory(), &config).unwrap())
    }
}

impl Source for Sender {
    fn fill(&mut self, burst: &mut Burst) {
        self.0.dequeue(burst, &RingCounters::default()).unwrap();
    }

    fn release(&mut self, _burst: &mut Burst) {
        self.0.complete(&RingCounters::default());
    }
}

/// The frames that completing makes, and the offload that was read.
fn complete(frame: &[u8], raw: RawHeader, cuts: &[usize], tag: TagEdit) -> (Offload, Vec<Vec<u8>>) {
    let mut source = Sender::new(raw, frame, cuts);
    let mut burst = Burst::default();
    let received = Received::take(&mut source, &mut burst);
    let frame = received.frames().frame(0);
    let mut completion = frame.completed(tag).unwrap();
    let mut parts = Vec::new();
    while let Some(part) = completion.next() {
        let mut bytes = vec![0; part.bytes()];
        // Into two pieces, as buffers of a receiver may be.
        let middle = bytes.len() / 3;
        let (left, right) = bytes.split_at_mut(middle);
        assert_eq!(part.copy_to_pieces([left, right]), 0);
        parts.push(bytes);
    }
    (frame.offload(), parts)
}

/// Looks at a frame as a receiver would. Returns what is behind its headers.
fn receive<'a>(plan: &Plan, frame: &'a [u8]) -> &'a [u8] {
    let (network, transport) = (plan.network(), plan.transport());
    let packet = &frame[network..];
    let length = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if plan.ipv6 {
        assert_eq!(length(4) + 40, packet.len(), "IPv6's length");
    } else {
        assert_eq!(length(2), packet.len(), "IPv4's length");
        assert_eq!(sum(&packet[..transport - network]), 0xffff, "IPv4's checksum");
    }
    let protocol = if plan.udp { 17 } else { 6 };
    let behind = &frame[transport..];
    let mut all = pseudo(packet, protocol, behind.len()).to_be_bytes().to_vec();
    all.extend(behind);
    assert_eq!(sum(&all), 0xffff, "the checksum");
    &frame[plan.headers()..]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_segment_is_cut_as_a_receiver_wants(
        ipv6: bool,
        tagged in 0_usize..3,
        extra in 0_usize..3,
        options in 0_usize..=10,
        flags: u8,
        payload in 1_usize..20_000,
        segment in 48_u16..9000,
        cuts in proptest::collection::vec(1_usize..3000, 0..5),
    ) {
        let tags = vec![0x2064; tagged];
        let plan = Plan { tags, ipv6, udp: false, extra, options, flags, payload };
        let frame = plan.frame();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(frame.len())).collect();
        cuts.sort_unstable();
        let (offload, parts) = complete(&frame, plan.raw(plan.gso(), segment), &cuts, TagEdit::Keep);
        prop_assert!(!offload.is_impossible());
        let longest = parts.iter().map(Vec::len).max();
        prop_assert_eq!(longest, Some(offload.wire_bytes(frame.len())), "what the MTU is held to");
        let mut payload = Vec::new();
        let last = parts.len() - 1;
        for (number, part) in parts.iter().enumerate() {
            let tcp = &part[plan.transport()..];
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            prop_assert_eq!(sequence, SEQUENCE.wrapping_add(payload.len() as u32));
            let mut wanted = flags;
            if number != last { wanted &= !0x09 }
            if number != 0 { wanted &= !0x80 }
            prop_assert_eq!(tcp[13], wanted, "segment {} of {}", number, last);
            if !ipv6 {
                let id = [part[plan.network() + 4], part[plan.network() + 5]];
                let wanted = IDENTIFICATION.wrapping_add(number as u16);
                prop_assert_eq!(u16::from_be_bytes(id), wanted);
            }
            let behind = receive(&plan, part);
            if number != last { prop_assert_eq!(behind.len(), usize::from(segment)) }
            payload.extend_from_slice(behind);
        }
        prop_assert_eq!(&payload[..], &frame[plan.headers()..], "nothing is lost");
    }

    #[test]
    fn a_checksum_is_filled_in(
        ipv6: bool,
        udp: bool,
        tagged in 0_usize..3,
        extra in 0_usize..3,
        payload in 0_usize..2000,
        cuts in proptest::collection::vec(1_usize..2000, 0..4),
    ) {
        let tags = vec![0x2064; tagged];
        let plan = Plan { tags, ipv6, udp, extra, payload, ..PLAIN };
        let frame = plan.frame();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(frame.len())).collect();
        cuts.sort_unstable();
        let (_, parts) = complete(&frame, plan.raw(0, 0), &cuts, TagEdit::Keep);
        prop_assert_eq!(parts.len(), 1);
        prop_assert_eq!(receive(&plan, &parts[0]), &frame[plan.headers()..]);
    }

    #[test]
    fn no_header_whatever_does_harm(
        word: u64,
        offset: u16,
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        real: bool,
        ipv6: bool,
        gso in 0_usize..8,
        near in -3_i16..3,
    ) {
        let plan = Plan { ipv6, payload: noise.len(), ..PLAIN };
        let frame = if real { plan.frame() } else { noise };
        let mut bytes = word.to_le_bytes();
        // Near the truth more often than chance would have it.
        (bytes[0], bytes[1]) = (bytes[0] | 1, [0, 1, 4, 0x81, 0x84, 3, 5, bytes[1]][gso]);
        let mut raw = RawHeader { word: u64::from_le_bytes(bytes), offset };
        if real {
            let start = (plan.transport() as i16 + near) as u16;
            raw.word = raw.word & 0xffff_ffff_ffff | u64::from(start) << 48;
            raw.offset = offset % 24;
        }
        let offload = check(&frame, raw, ALL);
        if !offload.is_impossible() {
            let (_, parts) = complete(&frame, raw, &[], TagEdit::Keep);
            prop_assert!(!parts.is_empty());
            for part in parts {
                prop_assert_eq!(&part[..14], &frame[..14], "what was decided on is what is sent");
            }
        }
    }
}

#[test]
fn tags_are_edited_while_a_frame_is_completed() {
    for (tags, tag, after) in [
        (vec![], TagEdit::Push(0x6064), vec![0x6064]),
        (vec![0x64], TagEdit::Pop, vec![]),
        (vec![0x64], TagEdit::Replace(0x65), vec![0x65]),
        (vec![0x64, 0x65], TagEdit::Pop, vec![0x65]),
    ] {
        for ipv6 in [false, true] {
            let plan = Plan { tags: tags.clone(), ipv6, ..PLAIN };
            let out = Plan { tags: after.clone(), ipv6, ..PLAIN };
            let (frame, wanted) = (plan.frame(), out.frame());
            let (_, parts) = complete(&frame, plan.raw(plan.gso(), 1448), &[70], tag);
            let mut payload: Vec<u8> = Vec::new();
            for part in &parts {
                assert_eq!(part[..out.network()], wanted[..out.network()], "{tag:?}");
                payload.extend(receive(&out, part));
            }
            assert_eq!(payload, wanted[out.headers()..]);
            let (_, parts) = complete(&frame, plan.raw(0, 0), &[], tag);
            receive(&out, &parts[0]);
        }
    }
}

#[test]
fn udp_has_no_checksum_of_zero() {
    let mut plan = Plan { udp: true, payload: 2, ..PLAIN };
    let mut frame = plan.frame();
    let end = frame.len();
    frame[end - 2..].fill(0);
    let total = sum(&frame[plan.transport()..]);
    frame[end - 2..].copy_from_slice(&(!total).to_be_bytes());
    let (_, parts) = complete(&frame, plan.raw(0, 0), &[], TagEdit::Keep);
    assert_eq!(parts[0][plan.transport() + 6..plan.transport() + 8], [0xff, 0xff]);
    plan.payload = 2;
    receive(&plan, &parts[0]);
}

#[test]
fn the_checksum_of_a_tunnels_inside_is_no_different() {
    // Whatever is before it: UDP with VXLAN, say, of which the sender has done the outer checksum.
    let inner = Plan { payload: 400, ..PLAIN };
    let outer = Plan { udp: true, payload: 8 + inner.frame().len(), ..PLAIN };
    let mut frame = outer.frame();
    frame.truncate(outer.headers() + 8);
    frame.extend(inner.frame());
    let start = (outer.headers() + 8 + inner.transport()) as u64;
    let raw = RawHeader { word: 1 | start << 48, offset: 16 };
    let (offload, parts) = complete(&frame, raw, &[40, 200], TagEdit::Push(5));
    receive(&inner, &parts[0][outer.headers() + 8 + 4..]);
    assert_eq!(offload.for_nic(&frame[..HEAD_MAX], TagEdit::Keep), None, "too deep for NICs");

    // As deep as it is let through to others, it is not computed.
    let deep = RawHeader { word: 1 | 300 << 48, offset: 16 };
    assert!(!refused(&frame, deep));
    let mut source = Sender::new(deep, &frame, &[]);
    let mut burst = Burst::default();
    let received = Received::take(&mut source, &mut burst);
    assert!(received.frames().frame(0).completed(TagEdit::Keep).is_none());
}

#[test]
fn what_no_correct_driver_sends_is_refused() {
    let plan = PLAIN;
    let frame = plan.frame();
    let good = plan.raw(1, 1448);
    assert!(!refused(&frame, good));
    let word = |at: usize, value: u8| {
        let mut bytes = good.word.to_le_bytes();
        bytes[at] = value;
        RawHeader { word: u64::from_le_bytes(bytes), ..good }
    };
    assert!(refused(&frame, word(0, 0)), "segmentation without a checksum");
    for gso in [2, 3, 4, 5, 0x80, 0x41] {
        assert!(refused(&frame, word(1, gso)), "segmentation of kind {gso}");
    }
    for size in [0, 1, 47] {
        assert!(refused(&frame, plan.raw(1, size)), "segments of {size}");
    }
    assert!(!refused(&frame, plan.raw(1, 48)));
    for offset in [0, 3, 4, 15, 17, 3100, u16::MAX] {
        assert!(refused(&frame, RawHeader { offset, ..good }), "a checksum at {offset}");
    }
    for start in [0, 6, 13, 14, 33, 35, 3066, 0xffff] {
        let word = good.word & 0xffff_ffff_ffff | start << 48;
        assert!(refused(&frame, RawHeader { word, ..good }), "TCP at {start}");
        let plain = RawHeader { word: 1 | start << 48, offset: 16 };
        assert_eq!(refused(&frame, plain), start != 35, "a checksum from {start} on");
    }
    let changed = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        frame
    };
    for (at, value, why) in [
        (12, 0x86, "neither IP"),
        (14, 0x44, "an IPv4 header of 16 bytes"),
        (14, 0x46, "TCP inside of the IPv4 header"),
        (20, 0x20, "a fragment that has more behind it"),
        (21, 1, "a fragment that has some before it"),
        (23, 17, "UDP"),
        (46, 0x40, "a TCP header of 16 bytes"),
    ] {
        assert!(refused(&changed(at, value), good), "{why}");
    }
    assert!(refused(&frame[..plan.headers()], good), "no payload");
    assert!(refused(&frame[..plan.headers() - 1], good), "headers that end after the frame");
    let long = Plan { payload: 65_536 - 52, ..PLAIN };
    assert!(refused(&long.frame(), good), "more than IPv4 can say");
    assert!(!refused(&Plan { payload: 65_535 - 52, ..PLAIN }.frame(), good));

    let plan = Plan { ipv6: true, extra: 1, ..PLAIN };
    let (frame, good) = (plan.frame(), plan.raw(4, 1428));
    assert!(!refused(&frame, good));
    assert!(refused(&frame, plan.raw(1, 1428)), "IPv6 as IPv4");
    let mut fragment = frame.clone();
    fragment[20] = 44;
    assert!(refused(&fragment, good), "a fragment header");
    fragment[20] = 60;
    fragment[55] = 200;
    assert!(refused(&fragment, good), "an extension header longer than the frame's head");
    let tags = Plan { tags: vec![1, 2, 3], ..PLAIN };
    assert!(refused(&tags.frame(), tags.raw(1, 1448)), "more tags than two");
}

#[test]
fn only_what_was_negotiated_is_taken() {
    use device::{CSUM, HOST_ECN, HOST_TSO4, HOST_TSO6};
    let four = Plan { flags: 0x10, ..PLAIN };
    let six = Plan { ipv6: true, ..four.clone() };
    let cwr = Plan { flags: 0x90, ..PLAIN };
    for (plan, gso, needed) in [
        (&four, 0, CSUM),
        (&four, 1, CSUM | HOST_TSO4),
        (&six, 4, CSUM | HOST_TSO6),
        (&cwr, 0x81, CSUM | HOST_TSO4 | HOST_ECN),
    ] {
        let (frame, raw) = (plan.frame(), plan.raw(gso, 1000));
        assert!(!check(&frame, raw, needed).is_impossible());
        for bit in [CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN] {
            let refused = check(&frame, raw, ALL & !bit).is_impossible();
            assert_eq!(refused, needed & bit != 0, "kind {gso} without {bit:#x}");
        }
    }
    let offload = check(&cwr.frame(), cwr.raw(0x81, 1000), ALL);
    use device::{GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6};
    assert!(Offloads::accepted_by(GUEST_CSUM | GUEST_TSO4 | GUEST_ECN).take(offload));
    assert!(!Offloads::accepted_by(GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6).take(offload));
    assert!(!Offloads::accepted_by(GUEST_TSO4 | GUEST_ECN).take(offload));
    assert!(Offloads::NONE.take(Offload::NONE));
}

#[test]
fn a_header_is_passed_on_as_it_is_true() {
    let plan = Plan { tags: vec![100], flags: 0x90, ..PLAIN };
    let frame = plan.frame();
    let offload = check(&frame, plan.raw(0x81, 1448), ALL);
    let headers = plan.headers() as u16;
    let wanted = |headers: u16, start: u16| {
        let mut wanted = vec![1, 0x81];
        wanted.extend(headers.to_le_bytes());
        wanted.extend(1448_u16.to_le_bytes());
        wanted.extend(start.to_le_bytes());
        wanted.extend([16, 0, 44, 0]);
        wanted
    };
    let passing = |tag| NetHeader::passing(offload, tag).bytes(44).to_vec();
    assert_eq!(passing(TagEdit::Keep), wanted(headers, 38), "the length is ours, not the driver's");
    assert_eq!(passing(TagEdit::Replace(7)), wanted(headers, 38));
    assert_eq!(passing(TagEdit::Pop), wanted(headers - 4, 34));
    assert_eq!(passing(TagEdit::Push(7)), wanted(headers + 4, 42));
    assert_eq!(NetHeader::PLAIN.bytes(1), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let (word, last) = NetHeader::passing(offload, TagEdit::Keep).words(44);
    assert_eq!([&word.to_le_bytes()[..], &last.to_le_bytes()].concat(), passing(TagEdit::Keep));
    assert_eq!(offload.wire_bytes(frame.len()), usize::from(headers) + 1448);
    assert_eq!(offload.wire_bytes(100), 100, "a frame of one segment is as long as it is");

    let nic = offload.for_nic(&frame[..HEAD_MAX], TagEdit::Pop);
    let wanted = NicOffload {
        ipv6: false,
        udp: false,
        link_bytes: 14,
        network_bytes: 20,
        transport_bytes: 32,
        segment_bytes: 1448,
    };
    assert_eq!(nic, Some(wanted));
}
