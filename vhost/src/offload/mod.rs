//! What a guest's driver leaves undone of a frame: its checksum, and cutting it into TCP segments
//! (virtio 1.2 §5.1.6).
//!
//! An [`Offload`] is what the net header before a frame said, once that was checked against the
//! frame's private head. It travels with the frame. A port that can take it as it is gets it as it
//! is; towards one that cannot, a [`Completion`] does what was left undone, for guests and NICs
//! alike, on the frame's way into their buffers.
//!
//! What the header alleges is not believed: an offload that fits no frame that a correct driver
//! sends is dropped, and counted. So neither can one guest's header reach into another's network
//! stack, nor can a checksum be written over what the decision about the frame rested on: it
//! always lies behind the addresses, the tags, the IP header, and the ports that follow it.

mod checksum;
mod complete;
mod header;

#[cfg(test)]
mod tests;

pub use complete::{Completion, Part};
pub(crate) use header::{NetHeader, RawHeader};

use crate::burst::TagEdit;
use crate::features::device;

/// What a frame needs of whoever gets it, and what a port can do: bits of one set.
mod need {
    /// A checksum is to be computed.
    pub(super) const CHECKSUM: u8 = 1;
    /// TCP over IPv4 is to be cut.
    pub(super) const TCP4: u8 = 2;
    /// TCP over IPv6 is to be cut.
    pub(super) const TCP6: u8 = 4;
    /// The first segment alone keeps CWR (RFC 3168 §6.1.2).
    pub(super) const ECN: u8 = 8;
    /// The header made no sense. Nothing can do this.
    pub(super) const IMPOSSIBLE: u8 = 0x80;
}

/// What one side of a device can do: a driver with frames that it gets, or we with frames that a
/// driver sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u8);

impl Offloads {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// What a driver that accepted these device features may leave to us.
    pub fn left_by(features: u64) -> Self {
        Self::of(features, [device::CSUM, device::HOST_TSO4, device::HOST_TSO6, device::HOST_ECN])
    }

    /// What may be left to a driver that accepted these device features.
    pub fn accepted_by(features: u64) -> Self {
        Self::of(
            features,
            [device::GUEST_CSUM, device::GUEST_TSO4, device::GUEST_TSO6, device::GUEST_ECN],
        )
    }

    fn of(features: u64, masks: [u64; 4]) -> Self {
        let bits = [need::CHECKSUM, need::TCP4, need::TCP6, need::ECN];
        let has = masks.iter().zip(bits).filter(|(mask, _)| features & **mask != 0);
        Self(has.fold(0, |all, (_, bit)| all | bit))
    }

    /// Whether the offload can be left to this side.
    #[inline(always)]
    pub(crate) fn take(self, offload: Offload) -> bool {
        offload.needs & !self.0 == 0
    }
}

/// What is left undone of a frame. Offsets count from the frame's first byte, as it was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Bits of [`need`]; 0 for a frame that is complete.
    needs: u8,
    /// Where the header behind Ethernet and tags begins.
    network: u8,
    /// From where to the frame's end the checksum is computed.
    start: u16,
    /// Where it goes, from there.
    offset: u16,
    /// Bytes of payload in each segment; 0 for a frame that is not to be cut.
    segment: u16,
    /// Bytes of all headers of a frame that is to be cut.
    headers: u16,
}

impl Offload {
    /// A frame that is complete.
    pub(crate) const NONE: Self =
        Self { needs: 0, network: 0, start: 0, offset: 0, segment: 0, headers: 0 };

    /// A frame whose header made no sense.
    const IMPOSSIBLE: Self = Self { needs: need::IMPOSSIBLE, ..Self::NONE };

    /// Makes it that of a complete frame, by one store.
    #[inline(always)]
    pub(crate) fn set_none(&mut self) {
        self.needs = 0;
    }

    /// Whether the frame is complete.
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.needs == 0
    }

    /// Whether the frame is to be dropped, since its header made no sense.
    #[inline]
    pub fn is_impossible(&self) -> bool {
        self.needs & need::IMPOSSIBLE != 0
    }

    /// Whether it is to be cut into segments.
    #[inline]
    pub fn is_segmented(&self) -> bool {
        self.segment != 0
    }

    /// Bytes of the longest frame that a frame of `bytes` bytes with this offload becomes on a
    /// wire: what an MTU limits.
    #[inline]
    pub fn wire_bytes(&self, bytes: usize) -> usize {
        let cut = usize::from(self.headers) + usize::from(self.segment);
        if self.is_segmented() { bytes.min(cut) } else { bytes }
    }

    /// The offload once `tag` has been done.
    #[inline]
    pub(crate) fn with(self, tag: TagEdit) -> Self {
        let move_by = match tag {
            TagEdit::Keep | TagEdit::Replace(_) => return self,
            TagEdit::Pop => -4_i16,
            TagEdit::Push(_) => 4,
        };
        let moved = |at: u16| at.saturating_add_signed(move_by);
        Self {
            network: moved(u16::from(self.network)) as u8,
            start: moved(self.start),
            headers: if self.is_segmented() { moved(self.headers) } else { 0 },
            ..self
        }
    }

    /// Where the checksum goes.
    fn field(&self) -> usize {
        usize::from(self.start) + usize::from(self.offset)
    }

    /// What a NIC has to know to do it, if it is what NICs can do: TCP or UDP right behind an IP
    /// header, without IPv6's extension headers. `head` is that of the frame as it was received,
    /// `tag` what is done to it.
    pub fn for_nic(&self, head: &[u8], tag: TagEdit) -> Option<NicOffload> {
        let network = usize::from(self.network);
        let [ipv6, protocol, bytes] = match head.get(network)? >> 4 {
            4 => [0, *head.get(network + 9)?, 4 * (head.get(network)? & 0xf)],
            6 => [1, *head.get(network + 6)?, 40],
            _ => return None,
        };
        if usize::from(self.start) != network + usize::from(bytes) {
            return None;
        }
        let udp = match (protocol, self.offset) {
            (6, 16) => false,
            (17, 6) => true,
            _ => return None,
        };
        let transport_bytes = if self.is_segmented() { self.headers - self.start } else { 0 };
        Some(NicOffload {
            ipv6: ipv6 == 1,
            udp,
            link_bytes: self.with(tag).network,
            network_bytes: bytes,
            transport_bytes: transport_bytes as u8,
            segment_bytes: self.segment,
        })
    }
}

/// An offload in the terms of NICs. See [`Offload::for_nic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicOffload {
    /// IPv6, otherwise IPv4.
    pub ipv6: bool,
    /// UDP, otherwise TCP.
    pub udp: bool,
    /// Bytes of Ethernet header and tags.
    pub link_bytes: u8,
    /// Bytes of the IP header.
    pub network_bytes: u8,
    /// Bytes of the TCP header of a frame that is to be cut, otherwise 0.
    pub transport_bytes: u8,
    /// Bytes of payload in each segment of a frame that is to be cut, otherwise 0.
    pub segment_bytes: u16,
}
