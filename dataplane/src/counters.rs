//! What is counted: frames and bytes by port, drops by port and reason, a worker's own work.
//!
//! Each worker has counters of its own, which it alone writes (plain stores, no locked
//! instructions) and anybody reads. A drop reason is one line in the table below, which yields the
//! enum, its name, the side it is counted on and its help text.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::snapshot::{PORTS_MAX, PortId};

macro_rules! drop_reasons {
    ($($(#[doc = $help:literal])+ $reason:ident, $name:literal, $side:ident;)+) => {
        /// Why a frame was dropped. Counted once per frame, at the port on the reason's side.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason { $($(#[doc = $help])+ $reason,)+ }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$reason,)+];

            /// The name in commands, metrics and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)+ }
            }

            /// Whether it is counted at the port that the frame came from or was to go to.
            pub const fn side(self) -> Side {
                match self { $(Self::$reason => Side::$side,)+ }
            }

            /// What it means and what to do about it.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$reason => concat!($($help),+),)+ }
            }
        }
    };
}

/// See [`DropReason::side`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The port that the frame came from.
    Ingress,
    /// The port that the frame was to go to.
    Egress,
}

impl DropReason {
    /// How many frames were dropped as they were sent, by each reason that there is for it.
    #[inline(always)]
    fn all_of(sent: &vhost::Sent) -> [(Self, u64); 6] {
        [
            (Self::RingFull, sent.full),
            (Self::BufferTooSmall, sent.too_big),
            (Self::QueueDown, sent.down),
            (Self::QueueBusy, sent.busy),
            (Self::NoBuffer, sent.no_buffer),
            (Self::Unfinished, sent.unfinished),
        ]
    }

    /// Why a frame was dropped that was sent by itself, if it was.
    pub(crate) fn of(sent: &vhost::Sent) -> Option<Self> {
        let dropped = Self::all_of(sent).into_iter().find(|(_, frames)| *frames > 0);
        dropped.map(|(reason, _)| reason)
    }
}

drop_reasons! {
    /// The frame is shorter than its Ethernet header.
    Runt, "runt", Ingress;
    /// The port is administratively down, or no longer in the plan.
    PortDown, "port-down", Ingress;
    /// It came by a member of a bond that carries nothing now, so it came by another too.
    InactiveMember, "inactive-member", Ingress;
    /// The source address is a group address or zero, which no sender may use.
    BadSource, "bad-source", Ingress;
    /// The destination is a link-local group address, which bridges do not forward (802.1Q 8.6.3).
    ReservedGroup, "reserved-group", Ingress;
    /// A tagged frame on a port that is untagged.
    TaggedOnAccess, "tagged-on-access", Ingress;
    /// A VLAN that no network on this uplink uses.
    UnknownVlan, "unknown-vlan", Ingress;
    /// An untagged frame on an uplink without a flat network.
    Untagged, "untagged", Ingress;
    /// The guest left a checksum or the cutting into segments to the switch in a way that does not fit the frame, or that its driver did not negotiate.
    BadOffload, "bad-offload", Ingress;
    /// The frame is longer than the network's MTU allows.
    OverMtu, "over-mtu", Ingress;
    /// Port security: the source MAC address is none of the port's.
    SpoofMac, "spoof-mac", Ingress;
    /// Port security: the source IP address is none of the port's.
    SpoofIp, "spoof-ip", Ingress;
    /// Port security: ARP from an address that is none of the port's, or not of Ethernet and IPv4.
    SpoofArp, "spoof-arp", Ingress;
    /// Port security: neighbour discovery that speaks of an address that is none of the port's, or that is malformed (RFC 4861).
    SpoofNd, "spoof-nd", Ingress;
    /// Port security: neighbour discovery in a fragment (RFC 6980).
    NdFragment, "nd-fragment", Ingress;
    /// Port security: a router advertisement or redirect, which only routers send (RFC 7113).
    RouterAdvertisement, "router-advertisement", Ingress;
    /// Port security: an answer of a DHCP or DHCPv6 server.
    DhcpServer, "dhcp-server", Ingress;
    /// Port security: neither IP nor ARP, nor an ethertype that is permitted; a second tag is such.
    Ethertype, "ethertype", Ingress;
    /// Port security: a header that ends too early or contradicts itself.
    TruncatedHeader, "truncated-header", Ingress;
    /// Port security: a fragment that hides its transport header or could overlap it (RFC 1858, RFC 5722, RFC 7112).
    TinyFragment, "tiny-fragment", Ingress;
    /// Port security: more IPv6 extension headers than are looked at.
    HeaderChain, "header-chain", Ingress;
    /// No rule permits the port to send it, or one denies it.
    AclOut, "acl-egress", Ingress;
    /// A fragment without ports, and no rule permits the port to send all of its protocol.
    FragmentOut, "acl-egress-fragment", Ingress;
    /// The destination is behind the port that the frame came from.
    Hairpin, "hairpin", Ingress;
    /// The destination is unknown and the network does not flood.
    NoFlooding, "no-flooding", Ingress;
    /// The domain has no other port.
    NoListener, "no-listener", Ingress;
    /// No rule permits the port to be sent it, or one denies it.
    AclIn, "acl-ingress", Egress;
    /// A fragment without ports, and no rule permits the port to be sent all of its protocol.
    FragmentIn, "acl-ingress-fragment", Egress;
    /// A packet to a port with port security whose transport header cannot be seen.
    MalformedIn, "acl-ingress-malformed", Egress;
    /// Neither IP nor ARP, nor an ethertype that is permitted, to a port with port security.
    EthertypeIn, "acl-ingress-ethertype", Egress;
    /// The guest or NIC had no free receive buffer.
    RingFull, "ring-full", Egress;
    /// None of the guest's receive buffers can hold the frame.
    BufferTooSmall, "buffer-too-small", Egress;
    /// The port's queue is not running: no guest is connected, or its driver has not started.
    QueueDown, "queue-down", Egress;
    /// Another worker held the port's queue for too long.
    QueueBusy, "queue-busy", Egress;
    /// The pool had no buffer for a frame to a NIC; raise dpdk.pool_frames.
    NoBuffer, "no-buffer", Egress;
    /// The sender left a checksum to others that stands too deep in the frame to be computed for this port.
    Unfinished, "unfinished", Egress;
}

/// One worker's counts for one port.
#[derive(Debug)]
pub struct PortCounters {
    received_frames: AtomicU64,
    received_bytes: AtomicU64,
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    flooded: AtomicU64,
    checksums: AtomicU64,
    segments: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
}

/// Sums over workers for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTotals {
    /// Frames received from the port.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames sent to the port.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Received frames that were flooded.
    pub flooded: u64,
    /// Checksums computed in software for frames that were sent to the port.
    pub checksums: u64,
    /// Segments that frames were cut into in software for the port.
    pub segments: u64,
    /// Drops by reason, in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Default for PortTotals {
    fn default() -> Self {
        PortCounters::new().totals()
    }
}

impl PortTotals {
    /// Drops for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.received_frames += other.received_frames;
        self.received_bytes += other.received_bytes;
        self.sent_frames += other.sent_frames;
        self.sent_bytes += other.sent_bytes;
        self.flooded += other.flooded;
        self.checksums += other.checksums;
        self.segments += other.segments;
        for (sum, more) in self.drops.iter_mut().zip(other.drops) {
            *sum += more;
        }
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut drops = self.drops;
        for (now, before) in drops.iter_mut().zip(earlier.drops) {
            *now -= before;
        }
        Self {
            received_frames: self.received_frames - earlier.received_frames,
            received_bytes: self.received_bytes - earlier.received_bytes,
            sent_frames: self.sent_frames - earlier.sent_frames,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            flooded: self.flooded - earlier.flooded,
            checksums: self.checksums - earlier.checksums,
            segments: self.segments - earlier.segments,
            drops,
        }
    }
}

/// All counters of one worker.
#[derive(Debug)]
pub struct WorkerCounters {
    ports: Box<[PortCounters]>,
    /// Iterations of the poll loop.
    pub polls: AtomicU64,
    /// Iterations that found at least one frame.
    pub busy_polls: AtomicU64,
    /// Cycles spent in those, up to their last burst.
    pub busy_cycles: AtomicU64,
    /// Frames received in all.
    pub frames: AtomicU64,
    /// Times that the worker rested.
    pub rests: AtomicU64,
    /// Bursts by size: 1, 2–3, 4–7, 8–15, 16–31, 32–63, 64.
    pub bursts: [AtomicU64; BURST_CLASSES],
}

/// What one receive queue has cost, whichever workers polled it. Written by the one that has it, on
/// a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RxqCounters {
    /// Cycles from taking a burst to having sent all of it, and of looking at empty queues before.
    pub cycles: AtomicU64,
    /// Frames received.
    pub frames: AtomicU64,
    /// Bursts that they came in.
    pub bursts: AtomicU64,
}

impl RxqCounters {
    #[inline(always)]
    pub(crate) fn burst(&self, frames: usize, cycles: u64) {
        count(&self.cycles, cycles);
        count(&self.frames, frames as u64);
        count(&self.bursts, 1);
    }
}

/// Classes in the histogram of burst sizes.
pub const BURST_CLASSES: usize = 7;

/// Adds to a counter that only this thread writes.
#[inline(always)]
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            ports: (0..PORTS_MAX).map(|_| PortCounters::new()).collect(),
            polls: AtomicU64::new(0),
            busy_polls: AtomicU64::new(0),
            busy_cycles: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            rests: AtomicU64::new(0),
            bursts: Default::default(),
        }
    }
}

impl WorkerCounters {
    /// What was counted for a port.
    pub fn port(&self, port: PortId) -> PortTotals {
        self.ports[port.index()].totals()
    }

    #[inline(always)]
    pub(crate) fn of(&self, port: PortId) -> &PortCounters {
        &self.ports[port.index()]
    }

    #[inline(always)]
    pub(crate) fn burst(&self, frames: usize) {
        let class = (usize::BITS - 1 - frames.max(1).leading_zeros()) as usize;
        count(&self.bursts[class.min(BURST_CLASSES - 1)], 1);
    }
}

impl PortCounters {
    fn new() -> Self {
        Self {
            received_frames: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_frames: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            flooded: AtomicU64::new(0),
            checksums: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline(always)]
    pub(crate) fn received(&self, frames: u64, bytes: u64) {
        count(&self.received_frames, frames);
        count(&self.received_bytes, bytes);
    }

    #[inline(always)]
    pub(crate) fn flooded(&self) {
        count(&self.flooded, 1);
    }

    #[inline(always)]
    pub(crate) fn dropped(&self, reason: DropReason, frames: u64) {
        count(&self.drops[reason as usize], frames);
    }

    #[inline(always)]
    pub(crate) fn sent(&self, staged: u64, sent: &vhost::Sent) {
        count(&self.sent_frames, sent.frames);
        count(&self.sent_bytes, sent.bytes);
        if sent.checksums != 0 {
            count(&self.checksums, sent.checksums);
            count(&self.segments, sent.segments);
        }
        if sent.frames != staged {
            for (reason, frames) in DropReason::all_of(sent) {
                self.dropped(reason, frames);
            }
        }
    }

    fn totals(&self) -> PortTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PortTotals {
            received_frames: read(&self.received_frames),
            received_bytes: read(&self.received_bytes),
            sent_frames: read(&self.sent_frames),
            sent_bytes: read(&self.sent_bytes),
            flooded: read(&self.flooded),
            checksums: read(&self.checksums),
            segments: read(&self.segments),
            drops: std::array::from_fn(|at| read(&self.drops[at])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_and_help() {
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            assert!(reason.help().trim_end().ends_with('.'), "{reason:?}: {}", reason.help());
            assert!(!reason.help().starts_with("  "));
        }
    }

    #[test]
    fn bursts_fall_into_classes() {
        let counters = WorkerCounters::default();
        for frames in [1, 2, 3, 4, 63, 64] {
            counters.burst(frames);
        }
        let classes: Vec<_> =
            counters.bursts.iter().map(|class| class.load(Ordering::Relaxed)).collect();
        assert_eq!(classes, [1, 2, 1, 0, 0, 1, 1]);
    }
}
