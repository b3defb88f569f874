//! What most frames are, read at fixed places: whole TCP or UDP in IPv4 without options or tag.
//!
//! A burst is looked at frame after frame before anything is decided, so that what rules ask of it
//! lies close together. What is not plain is read by [`Packet::parse`](super::Packet::parse), which
//! says the same of plain packets.

use vhost::{BURST_MAX, Frames, HEAD_MAX};

use super::{GUARDED_BYTES, Plane, protocol};

/// What rules ask of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Asked {
    /// See [`Plane`].
    pub selector: u16,
    /// The source port.
    pub source_port: u16,
    /// See [`Plane`].
    pub plane: Plane,
    /// TCP's flags.
    pub flags: u8,
}

/// A plain packet. Addresses and ports are laid out as the processor has them when it has read both at
/// once, so that it can write them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Look {
    /// Destination address.
    pub destination: u32,
    /// Source address.
    pub source: u32,
    /// What rules ask; [`Plane::Nothing`] if the packet is not plain.
    pub asked: Asked,
}

/// The looks of a burst's frames.
#[derive(Debug)]
pub struct Looks {
    /// By the frames' indexes.
    looks: [Look; BURST_MAX],
    /// Which frames are plain, a bit for each.
    plain: u64,
    /// Those that are known to be from one address, and that.
    from_one: (u64, u32),
}

impl Default for Looks {
    fn default() -> Self {
        Self { looks: [Look::NOT_PLAIN; BURST_MAX], plain: 0, from_one: (0, 0) }
    }
}

impl Looks {
    /// Looks at the frames of a burst. Returns which of those that are plain pass `judge`, a bit for each.
    ///
    /// A loop without anything else, so that the processor works at several frames at once.
    #[inline(always)]
    pub fn read(
        &mut self,
        frames: Frames<'_>,
        judge: impl Fn(&[u8; HEAD_MAX], &Look) -> bool,
    ) -> u64 {
        let (mut passed, mut others) = (0, 0);
        for (index, (frame, place)) in frames.iter().zip(&mut self.looks).enumerate() {
            let (head, bytes) = frame.fixed_head();
            match Look::read(head, bytes) {
                Some(look) => {
                    *place = look;
                    passed |= u64::from(judge(head, &look)) << index;
                }
                None => {
                    place.asked.plane = Plane::Nothing;
                    others |= 1_u64 << index;
                }
            }
        }
        self.plain = frames.all() & !others;
        self.from_one = (0, 0);
        passed
    }

    /// That of the frame with this index, below [`BURST_MAX`].
    #[inline(always)]
    pub fn of(&self, index: u8) -> &Look {
        &self.looks[usize::from(index) % BURST_MAX]
    }

    /// All of them, also those from earlier bursts, behind the present one's.
    #[inline(always)]
    pub fn all(&self) -> &[Look; BURST_MAX] {
        &self.looks
    }

    /// Takes note that these frames, a bit for each, are plain and from this address.
    #[inline(always)]
    pub fn know(&mut self, frames: u64, address: u32) {
        debug_assert!(self.looks.iter().enumerate().all(|(index, look)| {
            frames >> index & 1 == 0 || (look.is_plain() && look.source == address)
        }));
        self.from_one = (frames, address);
    }

    /// The source address of all these frames, a bit for each, if it is known to be the same.
    #[inline(always)]
    pub fn source_of(&self, frames: u64) -> Option<u32> {
        let (known, address) = self.from_one;
        (frames & !known == 0).then_some(address)
    }

    /// Which frames are plain, a bit for each.
    #[inline(always)]
    pub fn plain(&self) -> u64 {
        self.plain
    }
}

impl Look {
    /// Of what is not plain.
    pub const NOT_PLAIN: Self = Self {
        source: 0,
        destination: 0,
        asked: Asked { plane: Plane::Nothing, flags: 0, source_port: 0, selector: 0 },
    };

    /// Whether the packet is plain.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        !matches!(self.asked.plane, Plane::Nothing)
    }

    /// Looks at a frame by its head, of which `bytes` are the frame's. None if it is not plain.
    #[inline(always)]
    pub fn read(head: &[u8; HEAD_MAX], bytes: usize) -> Option<Self> {
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // Ethertype, version, and length of the header; then that there is no fragment.
        let odd = (word(12) ^ 0x0800_4500) & 0xffff_ff00 | word(20) & 0x3fff_0000;
        // Ethernet, IPv4 and TCP: what holds these of UDP holds all of its header too.
        if odd != 0 || bytes < 54 {
            return None;
        }
        let (plane, flags, needed) = match head[23] {
            protocol::TCP => (Plane::Tcp, head[47], GUARDED_BYTES),
            protocol::UDP => (Plane::Udp, 0, 8),
            _ => return None,
        };
        if usize::from(u16::from_be_bytes([head[16], head[17]])) < 20 + needed {
            return None;
        }
        let (addresses, ports) = (u64::from(word(26)) << 32 | u64::from(word(30)), word(34));
        let (source_port, selector) = ((ports >> 16) as u16, ports as u16);
        let asked = Asked { plane, flags, source_port, selector };
        Some(Self { source: (addresses >> 32) as u32, destination: addresses as u32, asked })
    }
}
