//! What the load is made of: UDP frames (or TCP segments, see `segment`) that can be told apart.
//!
//! A bench that cannot notice a wrong frame measures nothing: a switch that drops the hard ones, or
//! delivers them twice, would look fast. So the first 64 bytes of each frame carry a sequence
//! number, a flow, the sender's buffer and a check word under the stream's own key, and the bytes
//! after them follow a pattern that depends on stream and buffer. The receiver can therefore
//! rebuild every byte that it should have got.
//!
//! Addresses and ports are functions of the flow's number, nothing is stored per flow: a table of
//! 100 000 flows would make the generator's caches part of the measurement.

use crate::segment;

/// The first 64 bytes of a frame, as eight words in memory order (little-endian values).
pub type Head = [u64; 8];

/// Bytes that [`Head`] covers; also the shortest frame.
pub const HEAD_BYTES: usize = 64;

/// The longest frame, so that 16 bits hold its length and IPv4's.
pub const LONGEST_FRAME: usize = 65_535;

/// The most addresses of one guest: the room of its prefix, 10.x.0.0/15.
pub const MOST_ADDRESSES: u32 = 1 << 17;

const ETHERNET_HEADER_BYTES: u16 = 14;
const IPV4_HEADER_BYTES: u16 = 20;
const UDP_PROTOCOL: u8 = 17;

/// One end of a stream: a range of addresses that belong to one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Which guest; 1 to 127.
    guest: u8,
    /// How many addresses it uses, at least 1.
    count: u32,
}

impl Addresses {
    /// The addresses of guest `guest` (1 to 127), of which there are `count` (1 to [`MOST_ADDRESSES`]).
    pub fn new(guest: u8, count: u32) -> Self {
        assert!((1..128).contains(&guest) && (1..=MOST_ADDRESSES).contains(&count));
        Self { guest, count }
    }

    /// The MAC address of index `index`, as 48 bits: locally administered, unicast.
    #[inline(always)]
    pub fn mac(&self, index: u32) -> u64 {
        0x0200_0000_0000 | u64::from(self.guest) << 32 | u64::from(index)
    }

    /// The IPv4 address of index `index`, within 10.0.0.0/8.
    #[inline(always)]
    pub fn ip(&self, index: u32) -> u32 {
        10 << 24 | u32::from(self.guest) << 17 | index
    }

    /// Which address a flow uses.
    #[inline(always)]
    fn index(&self, flow: u32) -> u32 {
        if self.count == 1 { 0 } else { flow % self.count }
    }
}

/// What tells one frame of a stream from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the stream's frames from 0.
    pub sequence: u64,
    /// The flow, below the stream's number of flows.
    pub flow: u32,
    /// The sender's buffer, which selects the pattern of the body.
    pub slot: u16,
}

/// All frames from one guest to another.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    /// The frames' lengths in bytes, which repeat in this order.
    sizes: Box<[usize]>,
    flows: u32,
    source: Addresses,
    destination: Addresses,
    /// For each of `sizes` the first five words for the first address of each side, without ports.
    templates: Box<[[u64; 5]]>,
    /// Whether a side has more than one address, so that the template does not always hold.
    varies: bool,
    /// Whether the frames are TCP segments to be cut by somebody else, if at all.
    segments: bool,
    /// See [`Self::with_short_sums`].
    short_sums: bool,
}

impl Stream {
    /// A stream of `flows` flows whose frames have the lengths `sizes` by turns, in bytes without
    /// preamble and check sequence (64 to [`LONGEST_FRAME`]).
    ///
    /// `nonce` goes into every frame's check word, so that frames left in memory by an earlier run
    /// cannot pass for frames of this one.
    pub fn new(
        nonce: u64,
        sizes: &[usize],
        flows: u32,
        source: Addresses,
        destination: Addresses,
    ) -> Self {
        assert!(!sizes.is_empty() && flows > 0);
        assert!(sizes.iter().all(|size| (HEAD_BYTES..=LONGEST_FRAME).contains(size)));
        let key = mix(nonce ^ u64::from(source.guest) << 8 ^ u64::from(destination.guest));
        let varies = source.count > 1 || destination.count > 1;
        let stream = Self {
            key,
            sizes: sizes.into(),
            flows,
            source,
            destination,
            templates: Box::default(),
            varies,
            segments: false,
            short_sums: false,
        };
        stream.with_templates()
    }

    /// The same stream of TCP segments instead of UDP datagrams.
    pub fn of_segments(self) -> Self {
        Self { segments: true, ..self }.with_templates()
    }

    /// The same segments with a pseudo-header's sum that leaves the length out, as network cards
    /// want it (virtio wants it in).
    pub fn with_short_sums(self) -> Self {
        Self { short_sums: true, ..self }
    }

    fn with_templates(self) -> Self {
        let headers = |size: &usize| match self.segments {
            true => self.headers::<true>(*size, 0),
            false => self.headers::<false>(*size, 0),
        };
        let templates = self.sizes.iter().map(headers).collect();
        Self { templates, ..self }
    }

    /// Whether the frames are TCP segments.
    #[inline(always)]
    pub fn has_segments(&self) -> bool {
        self.segments
    }

    /// The stamp that a frame claims to carry; [`Self::head`] tells whether it is true. `SEGMENTS`
    /// is [`Self::has_segments`].
    #[inline(always)]
    pub fn claimed<const SEGMENTS: bool>(head: &Head) -> Stamp {
        if SEGMENTS {
            return segment::stamp([head[4], head[5], head[6]]);
        }
        Stamp { sequence: head[6], flow: (head[5] >> 32) as u32, slot: (head[5] >> 16) as u16 }
    }

    /// The length of the longest frames, in bytes.
    pub fn longest_frame(&self) -> usize {
        self.sizes.iter().copied().max().unwrap_or(HEAD_BYTES)
    }

    /// The length of the frame with that sequence number, in bytes.
    #[inline(always)]
    pub fn frame_bytes(&self, sequence: u64) -> usize {
        self.sizes[self.turn(sequence)]
    }

    /// Which of the lengths the frame with that sequence number has.
    #[inline(always)]
    fn turn(&self, sequence: u64) -> usize {
        if self.sizes.len() == 1 { 0 } else { (sequence % self.sizes.len() as u64) as usize }
    }

    /// The number of flows; flow `sequence % flows` is the one that a sequence number belongs to.
    pub fn flows(&self) -> u32 {
        self.flows
    }

    /// The first 64 bytes of the frame with that stamp: Ethernet, IPv4 with a right checksum, UDP
    /// without one (RFC 768 allows 0) or TCP with a partial one, the stamp and its check word.
    ///
    /// `SEGMENTS` is [`Self::has_segments`]. It is a constant here because the words stay in
    /// registers so: a choice for each frame costs a quarter of the load that 64-byte frames can be.
    #[inline(always)]
    pub fn head<const SEGMENTS: bool>(&self, stamp: Stamp) -> Head {
        let Stamp { sequence, flow, slot } = stamp;
        let [word0, word1, word2, word3, word4] = if self.varies {
            self.headers::<SEGMENTS>(self.frame_bytes(sequence), flow)
        } else {
            self.templates[self.turn(sequence)]
        };
        // 14 bits each, above the ports that firmware and well-known services listen on.
        let source_port = u64::from((0x4000 | flow as u16 & 0x3fff).swap_bytes());
        let destination_port = u64::from((0x4000 | (flow >> 14) as u16 & 0x3fff).swap_bytes());
        let word4 = word4 | source_port << 16 | destination_port << 32;
        let [word4, word5, word6] = if SEGMENTS {
            let headers = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
            let length =
                if self.short_sums { 0 } else { self.frame_bytes(sequence) as u16 - headers };
            let (from, to) = (self.source.index(flow), self.destination.index(flow));
            segment::words(stamp, length, word4, self.source.ip(from), self.destination.ip(to))
        } else {
            [word4, u64::from(slot) << 16 | u64::from(flow) << 32, sequence]
        };
        [word0, word1, word2, word3, word4, word5, word6, self.check(stamp)]
    }

    /// Whether a head carries this stream's check word, whatever its other bytes are.
    pub fn owns(&self, head: &Head) -> bool {
        let claimed = match self.segments {
            true => Self::claimed::<true>(head),
            false => Self::claimed::<false>(head),
        };
        head[7] == self.check(claimed)
    }

    /// The pattern behind the head, in the sender's buffer `slot`: `into` is filled as the frame's
    /// bytes from `HEAD_BYTES` on.
    pub fn body(&self, slot: u16, into: &mut [u8]) {
        let seed = mix(self.key ^ u64::from(slot));
        for (index, chunk) in into.chunks_mut(8).enumerate() {
            let word = seed.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }

    /// The first 40 bytes of a flow's frames, but for the ports: Ethernet, IPv4, UDP's length.
    #[inline(always)]
    fn headers<const SEGMENTS: bool>(&self, frame_bytes: usize, flow: u32) -> [u64; 5] {
        let Self { source, destination, .. } = self;
        let (from, to) = (source.index(flow), destination.index(flow));
        let destination_mac = (destination.mac(to) << 16).swap_bytes();
        let source_mac = (source.mac(from) << 16).swap_bytes();
        let (source_ip, destination_ip) = (source.ip(from), destination.ip(to));
        let total = frame_bytes as u16 - ETHERNET_HEADER_BYTES;
        let udp = u64::from((total - IPV4_HEADER_BYTES).swap_bytes());
        let (protocol, length) =
            if SEGMENTS { (segment::PROTOCOL, 0) } else { (UDP_PROTOCOL, udp) };
        let checksum = header_checksum(total, protocol, source_ip, destination_ip);
        let source_ip = u64::from(source_ip.swap_bytes());
        let destination_ip = u64::from(destination_ip.swap_bytes());
        [
            destination_mac | source_mac << 48,
            // EtherType IPv4; version 4 with a header of five words.
            source_mac >> 16 | 0x0008 << 32 | 0x0045 << 48,
            // "Don't fragment", TTL 64.
            u64::from(total.swap_bytes()) | 0x0040 << 32 | 64 << 48 | u64::from(protocol) << 56,
            u64::from(checksum.swap_bytes()) | source_ip << 16 | destination_ip << 48,
            destination_ip >> 16 | length << 48,
        ]
    }

    #[inline(always)]
    fn check(&self, stamp: Stamp) -> u64 {
        let place = u64::from(stamp.flow) << 16 | u64::from(stamp.slot);
        mix(self.key ^ stamp.sequence.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ place)
    }
}

/// RFC 1071 over the IPv4 header that [`Stream::headers`] makes.
#[inline(always)]
fn header_checksum(total: u16, protocol: u8, source_ip: u32, destination_ip: u32) -> u16 {
    let constant = 0x4500 + 0x4000 + 0x4000 + u64::from(protocol);
    let addresses = u64::from(source_ip) + u64::from(destination_ip);
    let mut sum = constant + u64::from(total) + addresses;
    // Three folds suffice for a sum of so few halfwords.
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// A bijection that spreads every bit over the word (the finaliser of splitmix64).
#[inline(always)]
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
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
}
