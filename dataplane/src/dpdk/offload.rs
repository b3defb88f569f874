//! Checksums and segmentation that are left to a device.
//!
//! A device says which of it it can do; those are switched on when it is configured, and a frame
//! asks for them by flags and lengths in its mbuf. Drivers that do in software what we do as well
//! ourselves, with fewer gaps, are not asked.

use dpdk_sys::rte_eth_dev_info;

use super::{Mbuf, TxQueue};

/// Drivers whose offloads are software. That of net_tap cuts no IPv6.
const SOFTWARE: [&str; 1] = ["net_tap"];

/// Where the checksum stands in a TCP header, and in an IPv4 header.
const TCP_CHECKSUM: usize = 16;
const IPV4_CHECKSUM: usize = 10;

/// Bytes of payload in a segment below which no device is asked to cut a frame: some take it for
/// an attack and stop the queue (i40e).
const SEGMENT_MIN: u16 = 256;

/// Offloads that a device was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffloads(u64);

/// What is left to a device of a frame of TCP or UDP right behind Ethernet, tags and IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
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

impl TxOffloads {
    /// What is asked of a device of `driver` that says this of itself.
    pub(super) fn wanted(info: &rte_eth_dev_info, driver: &str) -> Self {
        if SOFTWARE.contains(&driver) {
            return Self(0);
        }
        let offered = info.tx_offload_capa;
        let checksums = dpdk_sys::VIADUCT_TX_TCP_CHECKSUM | dpdk_sys::VIADUCT_TX_UDP_CHECKSUM;
        let all =
            checksums | dpdk_sys::VIADUCT_TX_IPV4_CHECKSUM | dpdk_sys::VIADUCT_TX_TCP_SEGMENTS;
        Self(offered & all)
    }

    /// DPDK's bits of them.
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Whether the device does this.
    #[inline]
    pub fn take(self, leave: &Leave) -> bool {
        let checksum = if leave.udp {
            dpdk_sys::VIADUCT_TX_UDP_CHECKSUM
        } else {
            dpdk_sys::VIADUCT_TX_TCP_CHECKSUM
        };
        let needed = match leave.segment_bytes {
            0 => checksum,
            SEGMENT_MIN.. if !leave.udp => checksum | dpdk_sys::VIADUCT_TX_TCP_SEGMENTS,
            _ => return false,
        };
        needed & !self.0 == 0
    }
}

impl Mbuf {
    /// Leaves work on this frame to a device with `offloads`, which [takes](TxOffloads::take) it.
    /// Where the checksum goes stands the sum over the pseudo header. False, and nothing is done,
    /// if the frame's headers are not whole in its first segment.
    #[inline]
    pub fn leave(&mut self, leave: &Leave, offloads: TxOffloads) -> bool {
        let network = usize::from(leave.link_bytes);
        let transport = network + usize::from(leave.network_bytes);
        let length = self.len();
        let headers = transport + usize::from(leave.transport_bytes);
        if self.data().len() < headers.max(transport + 8) {
            return false;
        }
        let mut flags = match (leave.ipv6, leave.udp) {
            (false, _) => dpdk_sys::VIADUCT_MBUF_TX_IPV4,
            (true, _) => dpdk_sys::VIADUCT_MBUF_TX_IPV6,
        };
        flags |= if leave.udp {
            dpdk_sys::VIADUCT_MBUF_TX_UDP_CHECKSUM
        } else {
            dpdk_sys::VIADUCT_MBUF_TX_TCP_CHECKSUM
        };
        if leave.segment_bytes != 0 {
            flags |= dpdk_sys::VIADUCT_MBUF_TX_TCP_SEGMENTS;
            let data = self.data_mut();
            // DPDK wants the sum over the pseudo header without the length, which differs between
            // segments: it is taken off in one's complement.
            let checksum = &mut data[transport + TCP_CHECKSUM..][..2];
            let sum = u32::from(u16::from_be_bytes([checksum[0], checksum[1]]));
            let sum = sum + u32::from(!((length - transport) as u16));
            let sum = (sum & 0xffff) + (sum >> 16);
            checksum.copy_from_slice(&(sum as u16).to_be_bytes());
            if !leave.ipv6 && offloads.0 & dpdk_sys::VIADUCT_TX_IPV4_CHECKSUM != 0 {
                flags |= dpdk_sys::VIADUCT_MBUF_TX_IP_CHECKSUM;
                data[network + IPV4_CHECKSUM..][..2].fill(0);
            }
        }
        // SAFETY: the frame is ours, and its description is all that is written.
        unsafe {
            dpdk_sys::viaduct_mbuf_leave(
                self.as_ptr(),
                flags,
                leave.link_bytes.into(),
                leave.network_bytes.into(),
                leave.transport_bytes.into(),
                leave.segment_bytes,
            );
        }
        true
    }
}

impl TxQueue {
    /// Has the driver look at frames of which something is left to the device, which it wants
    /// before they are handed over, once each. Returns how many it found fit, from the front; the
    /// next one, if there is one, it would not take.
    #[inline]
    pub fn prepare(&mut self, frames: &mut [Mbuf]) -> usize {
        let count = u16::try_from(frames.len()).unwrap_or(u16::MAX);
        let array = frames.as_mut_ptr().cast();
        let (port, queue) = self.numbers();
        // SAFETY: the slice's elements are transparent pointers to frames that it owns; the driver
        // changes them and keeps none. Device and queue as in tx_burst.
        let fit = unsafe { dpdk_sys::rte_eth_tx_prepare(port, queue, array, count) };
        usize::from(fit.min(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Leave = Leave {
        ipv6: false,
        udp: false,
        link_bytes: 14,
        network_bytes: 20,
        transport_bytes: 0,
        segment_bytes: 0,
    };

    #[test]
    fn a_device_is_asked_for_what_it_said() {
        let tcp = TxOffloads(dpdk_sys::VIADUCT_TX_TCP_CHECKSUM);
        assert!(tcp.take(&TCP));
        assert!(!tcp.take(&Leave { udp: true, ..TCP }));
        let cut = Leave { transport_bytes: 20, segment_bytes: 1448, ..TCP };
        assert!(!tcp.take(&cut));
        let all = TxOffloads(tcp.0 | dpdk_sys::VIADUCT_TX_TCP_SEGMENTS);
        assert!(all.take(&cut));
        assert!(!all.take(&Leave { segment_bytes: 255, ..cut }), "too small for some");
        assert!(!TxOffloads::default().take(&TCP));
    }
}
