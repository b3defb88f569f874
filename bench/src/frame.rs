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

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::segment;

/// The first 64 bytes of a frame, as eight words in memory order (little-endian values).
pub type Head = [u64; 8];

/// Bytes that [`Head`] covers; also the shortest frame.
pub const HEAD_BYTES: usize = 64;

/// The longest frame, so that 16 bits hold its length and IPv4's.
pub const LONGEST_FRAME: usize = 65_535;

/// The most addresses of one guest: the room of its prefix, a /15 within 10.0.0.0/8.
pub const MOST_ADDRESSES: u32 = 1 << 17;

/// The UDP ports of all frames, above those that firmware and well-known services listen on.
pub const PORTS: RangeInclusive<u16> = 0x4000..=0x7fff;

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

    /// The guest's own prefix, in which all addresses lie that it could have.
    pub fn prefix(&self) -> Prefix {
        Prefix { address: self.ip(0), length: 32 - MOST_ADDRESSES.ilog2() as u8 }
    }

    /// Which address a flow uses.
    #[inline(always)]
    fn index(&self, flow: u32) -> u32 {
        if self.count == 1 { 0 } else { flow % self.count }
    }
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The first, whose bits after the prefix are zero.
    pub address: u32,
    /// Bits that all have in common, 0 to 32.
    pub length: u8,
}

impl Prefix {
    /// The prefix of that length that an address lies in.
    pub fn around(address: u32, length: u8) -> Self {
        Self { address: address & Self::mask(length), length }
    }

    /// A single address.
    pub fn host(address: u32) -> Self {
        Self { address, length: 32 }
    }

    /// Whether there is an address in both, which is so if one lies in the other.
    pub fn meets(self, other: Self) -> bool {
        let common = Self::mask(self.length.min(other.length));
        (self.address ^ other.address) & common == 0
    }

    fn mask(length: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from_bits(self.address), self.length)
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
    /// See [`Self::scattered`].
    scattered: bool,
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
            scattered: false,
            segments: false,
            short_sums: false,
        };
        stream.with_templates()
    }

    /// The same stream of TCP segments instead of UDP datagrams.
    pub fn of_segments(self) -> Self {
        Self { segments: true, ..self }.with_templates()
    }

    /// The same datagrams with IP addresses and ports that are as good as random: each flow's are
    /// drawn from all that the guests' prefixes hold, and from all ports.
    pub fn scattered(self) -> Self {
        assert!(!self.segments, "segments have ports by which they are known");
        Self { varies: true, scattered: true, ..self }
    }

    /// The same segments with a pseudo-header's sum that leaves the length out, as network cards
    /// want it (virtio wants it in).
    pub fn with_short_sums(self) -> Self {
        Self { short_sums: true, ..self }
    }

    fn with_templates(self) -> Self {
        let headers = |size: &usize| match self.segments {
            true => self.headers::<true>(*size, 0, [0; 2]),
            false => self.headers::<false>(*size, 0, [0; 2]),
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
        let mut ports = flow;
        let [word0, word1, word2, word3, word4] = if self.varies {
            let mut hosts = [self.source.index(flow), self.destination.index(flow)];
            if self.scattered {
                (hosts, ports) = scatter(flow);
            }
            self.headers::<SEGMENTS>(self.frame_bytes(sequence), flow, hosts)
        } else {
            self.templates[self.turn(sequence)]
        };
        // 14 bits each: [`PORTS`].
        let source_port = u64::from((0x4000 | ports as u16 & 0x3fff).swap_bytes());
        let destination_port = u64::from((0x4000 | (ports >> 14) as u16 & 0x3fff).swap_bytes());
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

    /// The first 40 bytes of a flow's frames, but for the ports: Ethernet, IPv4 from and to the
    /// addresses of those indices, UDP's length.
    #[inline(always)]
    fn headers<const SEGMENTS: bool>(
        &self,
        frame_bytes: usize,
        flow: u32,
        hosts: [u32; 2],
    ) -> [u64; 5] {
        let Self { source, destination, .. } = self;
        let (from, to) = (source.index(flow), destination.index(flow));
        let destination_mac = (destination.mac(to) << 16).swap_bytes();
        let source_mac = (source.mac(from) << 16).swap_bytes();
        let (source_ip, destination_ip) = (source.ip(hosts[0]), destination.ip(hosts[1]));
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

/// The indices of a scattered flow's addresses, and 28 bits of ports.
#[inline(always)]
fn scatter(flow: u32) -> ([u32; 2], u32) {
    let word = mix(u64::from(flow));
    let host = |shift: u32| (word >> shift) as u32 & (MOST_ADDRESSES - 1);
    ([host(0), host(17)], (word >> 34) as u32 & 0x0fff_ffff)
}

/// A bijection that spreads every bit over the word (the finaliser of splitmix64).
#[inline(always)]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests;
