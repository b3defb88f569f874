//! What a guest's driver can do wrong with a ring.

/// A rule of the virtio specification that a driver broke. Ends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// virtio 1.2 §2.7.13.3: the index grows by the chains added, of which a ring holds `size`.
    #[error("available index jumped from {from} to {to} in a ring of {size}")]
    AvailableJump {
        /// The next entry that we would have taken.
        from: u16,
        /// What the driver wrote.
        to: u16,
        /// The ring's size.
        size: u16,
    },
    /// virtio 1.2 §2.8.21: a descriptor is made available again only after it was used.
    #[error("more descriptors are available at a time than the ring's {size}")]
    Lapped {
        /// The ring's size.
        size: u16,
    },
    /// virtio 1.2 §2.7.6: entries of the available ring are indexes of descriptors.
    #[error("descriptor {index} is outside of a table of {size}")]
    DescriptorIndex {
        /// What the driver wrote.
        index: u16,
        /// The table's size.
        size: u16,
    },
    /// virtio 1.2 §2.7.5.2: no chain is longer than the queue; this also finds loops.
    #[error("descriptor chain is longer than {limit}")]
    ChainLength {
        /// The most descriptors that a chain may have here.
        limit: u16,
    },
    /// virtio 1.2 §2.7.5.3.1: an indirect table refers to no other one, nor is it chained.
    #[error("indirect descriptor inside an indirect table or with NEXT set")]
    IndirectNested,
    /// virtio 1.2 §2.7.5.3.2: a table is a number of whole descriptors, not more than the queue.
    #[error("indirect table of {bytes} bytes is empty, not a multiple of 16, or too long")]
    IndirectTable {
        /// What the driver wrote.
        bytes: u32,
    },
    /// A buffer or table is not in memory that the guest has.
    #[error("address {address:#x} with {bytes} bytes is outside of the guest's memory")]
    Address {
        /// What the driver wrote.
        address: u64,
        /// What the driver wrote.
        bytes: u32,
    },
    /// virtio 1.2 §5.1.6.2: buffers of the transmitq are for the device to read.
    #[error("device-writable buffer in a transmit queue")]
    Writable,
    /// virtio 1.2 §5.1.6.3: buffers of the receiveq are for the device to write.
    #[error("device-readable buffer in a receive queue")]
    Readable,
    /// virtio 1.2 §5.1.6.2: each frame is preceded by the net header.
    #[error("chain of {bytes} bytes is shorter than the net header of {header}")]
    ShortHeader {
        /// Bytes in the chain.
        bytes: u64,
        /// Bytes of the header.
        header: u32,
    },
    /// No frame is as long as this chain.
    #[error("chain of {bytes} bytes is longer than any frame")]
    ChainBytes {
        /// Bytes in the chain, as far as they were counted.
        bytes: u64,
    },
}
