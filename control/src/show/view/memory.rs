//! What memory is used for.

use serde::{Deserialize, Serialize};

use super::PortRef;

/// What memory is used for. Guests' memory is theirs: it is mapped here, not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// Memory of the daemon's process on ordinary pages, in octets; null if the kernel does not tell.
    pub resident_bytes: Option<u64>,
    /// Memory of the process on huge pages, in octets, mapped memory of guests among it.
    pub huge_bytes: Option<u64>,
    /// The pool that DPDK devices receive into.
    pub pool: PoolView,
    /// Huge pages of 2 MiB that the configuration needs, for DPDK and the forwarding database.
    pub hugepages_needed: u64,
    /// What is set aside of the pool for open devices.
    pub devices: Vec<DeviceMemoryView>,
    /// Memory of the forwarding database, in octets.
    pub fdb_bytes: u64,
    /// Memory of compiled rules, in octets.
    pub acl_bytes: u64,
    /// Memory of guests that is mapped, by port.
    pub guests: Vec<GuestMemoryView>,
}

/// A pool of buffers for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its buffers.
    pub frames: u32,
    /// Those that nobody holds at present; a device holds as many as its receive queue has places.
    pub free_frames: u32,
    /// Room for a frame in one buffer, in octets.
    pub frame_bytes: u16,
    /// Buffers that are set aside for the workers' caches.
    pub cache_frames: u32,
    /// Buffers that are set aside for nobody: a device that may hold more is refused.
    pub unclaimed_frames: u32,
}

/// What is set aside of the pool for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemoryView {
    /// The port of the device.
    pub port: PortRef,
    /// Buffers that wait for frames.
    pub receive_frames: u32,
    /// Buffers that are being sent, at most.
    pub transmit_frames: u32,
    /// The memory of both in octets, rounded up to MiB.
    pub bytes: u64,
}

/// Memory of one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemoryView {
    /// The guest's port.
    pub port: PortRef,
    /// What is mapped of it, in octets.
    pub bytes: u64,
    /// In how many regions.
    pub regions: u32,
}
