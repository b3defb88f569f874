//! The RARP request that announces a guest's address after it moved here.
//!
//! A guest that cannot announce itself (no `VIRTIO_NET_F_GUEST_ANNOUNCE`) has its VMM ask the
//! back-end to do it (vhost-user: `VHOST_USER_SEND_RARP`), so that switches learn the new place.

/// Bytes of the frame, padded to Ethernet's least.
pub(crate) const RARP_BYTES: usize = 60;

/// A broadcast RARP request of `mac` for itself (RFC 903, in the form that VMMs use).
pub(crate) fn request(mac: [u8; 6]) -> [u8; RARP_BYTES] {
    let mut frame = [0; RARP_BYTES];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&0x8035_u16.to_be_bytes());
    // Hardware type Ethernet, protocol type IPv4, their lengths, operation "request reverse".
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_broadcast_from_the_address_that_it_announces() {
        let frame = super::request([2, 0, 0, 0, 0, 7]);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..14], [2, 0, 0, 0, 0, 7, 0x80, 0x35]);
        assert_eq!(frame[20..28], [0, 3, 2, 0, 0, 0, 0, 7]);
    }
}
