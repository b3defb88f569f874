//! VLAN tags put into and taken out of a frame where it lies (802.1Q §9.3).
//!
//! The tag stands behind the two addresses. The 12 bytes of the addresses move, the rest of the
//! frame stays: cheaper than a device's offload once the headers are in the cache, and it works on
//! every device alike.

use super::Mbuf;

/// Bytes of the two MAC addresses, after which the tag stands.
const ADDRESSES: usize = 12;

/// Bytes of a tag: its type and its control information.
const TAG: usize = 4;

/// Types that begin a tag: customer (802.1Q) and service tags (802.1ad).
const TAG_TYPES: [u16; 2] = [0x8100, 0x88a8];

impl Mbuf {
    /// Puts a tag with type `tpid` (0x8100 for 802.1Q) and control information `tci` (priority and
    /// VLAN id) before the frame's type; false, and nothing is done, if the first segment does not
    /// hold the addresses or there is no headroom.
    #[inline]
    pub fn push_vlan(&mut self, tpid: u16, tci: u16) -> bool {
        if self.data().len() < ADDRESSES || self.prepend(TAG).is_none() {
            return false;
        }
        let data = self.data_mut();
        data.copy_within(TAG..TAG + ADDRESSES, 0);
        data[ADDRESSES..ADDRESSES + 2].copy_from_slice(&tpid.to_be_bytes());
        data[ADDRESSES + 2..ADDRESSES + TAG].copy_from_slice(&tci.to_be_bytes());
        true
    }

    /// Takes the outermost tag out and returns its control information; `None`, and nothing is
    /// done, if the frame has no tag, or not within its first segment.
    #[inline]
    pub fn pop_vlan(&mut self) -> Option<u16> {
        let data = self.data_mut();
        let tag = data.get(ADDRESSES..ADDRESSES + TAG)?;
        let (tpid, tci) = ([tag[0], tag[1]], [tag[2], tag[3]]);
        if !TAG_TYPES.contains(&u16::from_be_bytes(tpid)) {
            return None;
        }
        data.copy_within(0..ADDRESSES, TAG);
        self.adj(TAG);
        Some(u16::from_be_bytes(tci))
    }
}
