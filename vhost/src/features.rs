//! Feature bits: what they are called, and which of them this back-end offers.
//!
//! Two sets are negotiated on a session. *Device features* (virtio 1.2 §2.2, §5.1.3, §6) pass
//! through the front-end to the guest's driver, which accepts what it wants of the common part.
//! *Protocol features* are between the front-end and us (vhost-user: "Protocol features").
//!
//! A bit is offered when it is honoured, and then only when somebody gains by it. Both offers are
//! one function each, below, and each absence that may surprise is explained there.

/// Device features, as masks.
pub mod device {
    /// Checksums are left to the device.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames whose checksum was left to it.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device can say which MTU to use.
    pub const MTU: u64 = 1 << 3;
    /// The driver takes TCP over IPv4 that is not cut into segments.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes TCP over IPv6 that is not cut into segments.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes such frames with CWR set (RFC 3168).
    pub const GUEST_ECN: u64 = 1 << 9;
    /// Cutting TCP over IPv4 is left to the device.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// Cutting TCP over IPv6 is left to the device.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// So is that of frames with CWR set (RFC 3168).
    pub const HOST_ECN: u64 = 1 << 13;
    /// A frame may be spread over several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The driver announces its address when it is asked to.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// There is more than one queue pair.
    pub const MQ: u64 = 1 << 22;
    /// Writes to guest memory are logged for live migration (vhost-user: "Migration").
    pub const LOG_ALL: u64 = 1 << 26;
    /// A frame may begin anywhere in a buffer chain.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Descriptor tables outside of the ring.
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are asked for by index.
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// Not for the guest: the front-end may negotiate protocol features.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// The device follows virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// Rings are packed.
    pub const RING_PACKED: u64 = 1 << 34;
    /// The device uses buffers in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
}

/// Protocol features, as masks.
pub mod protocol {
    /// More than one queue pair; `GET_QUEUE_NUM`.
    pub const MQ: u64 = 1 << 0;
    /// The dirty log comes as a descriptor.
    pub const LOG_SHMFD: u64 = 1 << 1;
    /// `SEND_RARP`.
    pub const RARP: u64 = 1 << 2;
    /// Any request may be acknowledged.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// `NET_SET_MTU`.
    pub const NET_MTU: u64 = 1 << 4;
    /// `RESET_DEVICE`.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// `GET_MAX_MEM_SLOTS`, `ADD_MEM_REG`, `REM_MEM_REG`.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// `SET_STATUS`, `GET_STATUS`.
    pub const STATUS: u64 = 1 << 16;
}

/// The device features that a device of up to `pairs_max` queue pairs offers.
///
/// A front-end masks what is not offered here only for the bits that it leaves to the back-end;
/// the address, the link status and the control queue's commands it serves itself.
///
/// Not offered:
/// * `LOG_ALL`: not honoured;
/// * `CTRL_GUEST_OFFLOADS`: what a driver asks for by it while it runs, the front-end serves, and no
///   message tells us;
/// * `HOST_UFO`, `GUEST_UFO`, `HOST_USO`, `GUEST_USO4`, `GUEST_USO6`: Linux has given up the former,
///   and QEMU keeps the latter from guests of vhost-user devices;
/// * `NOTIFY_ON_EMPTY`: would oblige us to interrupt a driver that asked for silence;
/// * `IOMMU_PLATFORM`: rings and buffers are found by guest addresses, never by IOVAs;
/// * `MTU`: the field that it announces is in the front-end's configuration space. QEMU shows it
///   to the guest without our consent and still asks by `NET_SET_MTU`; DPDK's virtio-user, when
///   the bit is offered, reads a field that it never filled in;
/// * `STATUS`, `MAC`: the front-end's own, which it offers to the guest without asking.
pub fn device_offer(pairs_max: u16) -> u64 {
    // Each of the first line can be left to us, as far as it goes in software, and each of the
    // second is a wish that we can do without.
    let offloads = device::CSUM
        | device::HOST_TSO4
        | device::HOST_TSO6
        | device::HOST_ECN
        | device::GUEST_CSUM
        | device::GUEST_TSO4
        | device::GUEST_TSO6
        | device::GUEST_ECN;
    let common = device::VERSION_1
        | offloads
        | device::MRG_RXBUF
        | device::ANY_LAYOUT
        | device::RING_INDIRECT_DESC
        | device::RING_EVENT_IDX
        // Both sides of a packed ring write to one place instead of three, so fewer lines go to
        // and fro. QEMU (`packed=on`) and DPDK's virtio-user (`packed_vq=1`) pass it on if they
        // are told to, to drivers of Linux since 5.0 and of DPDK.
        | device::RING_PACKED
        // Chains are completed in the order in which they came in any case: a frame that finds no
        // room takes none. So the chains that a guest sends are used by one entry a burst, and its
        // driver need not look at the others. QEMU passes it on since 9.1 (`in_order=on`), and
        // DPDK's virtio-user always does; of drivers, DPDK's gains by it, and Linux's of late.
        | device::IN_ORDER
        // The control queue is always the front-end's. Cloud-hypervisor makes one only if we
        // consent, and announces a migrated guest only if there is one.
        | device::CTRL_VQ
        // The driver announces itself by ordinary frames. If this were missing, QEMU would hide
        // it from the guest and ask for `SEND_RARP` instead, which knows no VLANs and no IPv6.
        | device::GUEST_ANNOUNCE
        | device::PROTOCOL_FEATURES;
    if pairs_max > 1 { common | device::MQ } else { common }
}

/// The protocol features that a device of up to `pairs_max` queue pairs offers.
///
/// Not offered:
/// * `LOG_SHMFD`: no dirty log yet; QEMU refuses to migrate the guest and says why;
/// * `INFLIGHT_SHMFD`: chains are completed in order and within a burst, so after a crash the used
///   index tells where to go on, and a packed ring its descriptors; QEMU does not use it for net
///   devices either;
/// * `BACKEND_REQ`, `BACKEND_SEND_FD`: there is nothing to ask of a front-end without an IOMMU,
///   configuration changes or host notifiers;
/// * `CONFIG`: QEMU warns when a net device has it, nobody needs it;
/// * `PAGEFAULT`: no postcopy. `DEVICE_STATE`: there is no state but the rings' positions.
pub fn protocol_offer(pairs_max: u16) -> u64 {
    let common = protocol::REPLY_ACK
        | protocol::RARP
        | protocol::NET_MTU
        | protocol::STATUS
        | protocol::RESET_DEVICE
        | protocol::CONFIGURE_MEM_SLOTS;
    // With MQ, a front-end asks for the number of queues. The answer is in pairs, as QEMU and DPDK
    // have it, but cloud-hypervisor takes it for single rings: for one pair, having nothing to
    // say suits them all.
    if pairs_max > 1 { common | protocol::MQ } else { common }
}

/// The names of the device features in `bits`, lowest first, as the specification writes them.
pub fn device_names(bits: u64) -> Vec<String> {
    names(bits, DEVICE_NAMES)
}

/// The names of the protocol features in `bits`, lowest first, as the specification writes them.
pub fn protocol_names(bits: u64) -> Vec<String> {
    names(bits, PROTOCOL_NAMES)
}

fn names(bits: u64, table: &[(u32, &str)]) -> Vec<String> {
    let name = |bit: u32| {
        let known = table.iter().find(|(number, _)| *number == bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

/// virtio 1.2 §5.1.3, §6; vhost-user for bits 26 and 30.
const DEVICE_NAMES: &[(u32, &str)] = &[
    (0, "VIRTIO_NET_F_CSUM"),
    (1, "VIRTIO_NET_F_GUEST_CSUM"),
    (2, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS"),
    (3, "VIRTIO_NET_F_MTU"),
    (5, "VIRTIO_NET_F_MAC"),
    (6, "VIRTIO_NET_F_GSO"),
    (7, "VIRTIO_NET_F_GUEST_TSO4"),
    (8, "VIRTIO_NET_F_GUEST_TSO6"),
    (9, "VIRTIO_NET_F_GUEST_ECN"),
    (10, "VIRTIO_NET_F_GUEST_UFO"),
    (11, "VIRTIO_NET_F_HOST_TSO4"),
    (12, "VIRTIO_NET_F_HOST_TSO6"),
    (13, "VIRTIO_NET_F_HOST_ECN"),
    (14, "VIRTIO_NET_F_HOST_UFO"),
    (15, "VIRTIO_NET_F_MRG_RXBUF"),
    (16, "VIRTIO_NET_F_STATUS"),
    (17, "VIRTIO_NET_F_CTRL_VQ"),
    (18, "VIRTIO_NET_F_CTRL_RX"),
    (19, "VIRTIO_NET_F_CTRL_VLAN"),
    (20, "VIRTIO_NET_F_CTRL_RX_EXTRA"),
    (21, "VIRTIO_NET_F_GUEST_ANNOUNCE"),
    (22, "VIRTIO_NET_F_MQ"),
    (23, "VIRTIO_NET_F_CTRL_MAC_ADDR"),
    (24, "VIRTIO_F_NOTIFY_ON_EMPTY"),
    (26, "VHOST_F_LOG_ALL"),
    (27, "VIRTIO_F_ANY_LAYOUT"),
    (28, "VIRTIO_F_RING_INDIRECT_DESC"),
    (29, "VIRTIO_F_RING_EVENT_IDX"),
    (30, "VHOST_USER_F_PROTOCOL_FEATURES"),
    (32, "VIRTIO_F_VERSION_1"),
    (33, "VIRTIO_F_ACCESS_PLATFORM"),
    (34, "VIRTIO_F_RING_PACKED"),
    (35, "VIRTIO_F_IN_ORDER"),
    (36, "VIRTIO_F_ORDER_PLATFORM"),
    (37, "VIRTIO_F_SR_IOV"),
    (38, "VIRTIO_F_NOTIFICATION_DATA"),
    (39, "VIRTIO_F_NOTIF_CONFIG_DATA"),
    (40, "VIRTIO_F_RING_RESET"),
    (54, "VIRTIO_NET_F_GUEST_USO4"),
    (55, "VIRTIO_NET_F_GUEST_USO6"),
    (56, "VIRTIO_NET_F_HOST_USO"),
    (57, "VIRTIO_NET_F_HASH_REPORT"),
    (59, "VIRTIO_NET_F_GUEST_HDRLEN"),
    (60, "VIRTIO_NET_F_RSS"),
    (61, "VIRTIO_NET_F_RSC_EXT"),
    (62, "VIRTIO_NET_F_STANDBY"),
    (63, "VIRTIO_NET_F_SPEED_DUPLEX"),
];

/// vhost-user, "Protocol features".
const PROTOCOL_NAMES: &[(u32, &str)] = &[
    (0, "VHOST_USER_PROTOCOL_F_MQ"),
    (1, "VHOST_USER_PROTOCOL_F_LOG_SHMFD"),
    (2, "VHOST_USER_PROTOCOL_F_RARP"),
    (3, "VHOST_USER_PROTOCOL_F_REPLY_ACK"),
    (4, "VHOST_USER_PROTOCOL_F_NET_MTU"),
    (5, "VHOST_USER_PROTOCOL_F_BACKEND_REQ"),
    (6, "VHOST_USER_PROTOCOL_F_CROSS_ENDIAN"),
    (7, "VHOST_USER_PROTOCOL_F_CRYPTO_SESSION"),
    (8, "VHOST_USER_PROTOCOL_F_PAGEFAULT"),
    (9, "VHOST_USER_PROTOCOL_F_CONFIG"),
    (10, "VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD"),
    (11, "VHOST_USER_PROTOCOL_F_HOST_NOTIFIER"),
    (12, "VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD"),
    (13, "VHOST_USER_PROTOCOL_F_RESET_DEVICE"),
    (14, "VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS"),
    (15, "VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS"),
    (16, "VHOST_USER_PROTOCOL_F_STATUS"),
    (17, "VHOST_USER_PROTOCOL_F_XEN_MMAP"),
    (18, "VHOST_USER_PROTOCOL_F_SHARED_OBJECT"),
    (19, "VHOST_USER_PROTOCOL_F_DEVICE_STATE"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_the_specifications_numbers() {
        // Written as numbers on purpose: the offer is what a front-end sees on the wire.
        assert_eq!(device_offer(1), 0xd_7822_bb83);
        assert_eq!(device_offer(2), 0xd_7862_bb83);
        assert_eq!(protocol_offer(1), 0x1_a01c);
        assert_eq!(protocol_offer(2), 0x1_a01d);
    }

    #[test]
    fn every_offered_bit_has_a_name() {
        let unnamed = |names: Vec<String>| names.iter().any(|name| name.starts_with("bit"));
        assert!(!unnamed(device_names(device_offer(2))));
        assert!(!unnamed(protocol_names(protocol_offer(2))));
    }

    #[test]
    fn names_come_lowest_first_and_strangers_by_number() {
        let bits = device::VERSION_1 | device::CSUM | 1 << 45;
        assert_eq!(device_names(bits), ["VIRTIO_NET_F_CSUM", "VIRTIO_F_VERSION_1", "bit 45"]);
        assert_eq!(protocol_names(1 << 63), ["bit 63"]);
        assert!(device_names(0).is_empty());
    }
}
