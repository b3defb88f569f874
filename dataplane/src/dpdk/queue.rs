//! The queues of a started device: where a worker takes frames and where it leaves them.
//!
//! A handle is one queue, used by one thread at a time (`&mut self`); it keeps the device started
//! and its pool alive. The numbers of a queue are all it holds: DPDK looks the rest up in each call,
//! because stopping a device changes it.

use std::sync::Arc;

use dpdk_sys::rte_mbuf;

use super::Mbuf;
use super::ethdev::Device;

/// A receive queue.
#[derive(Debug)]
pub struct RxQueue {
    device: Arc<Device>,
    port: u16,
    queue: u16,
}

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    device: Arc<Device>,
    port: u16,
    queue: u16,
}

impl RxQueue {
    /// A handle on queue `queue`.
    ///
    /// The caller makes one handle for a queue, of a device that is started, and leaves the device
    /// started until the handle is gone.
    pub(super) fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { port: device.port(), device, queue }
    }

    /// Takes what has arrived, as much as `into` has capacity left, and appends it; returns how
    /// many frames that was. Never waits, never allocates.
    ///
    /// Leave room for 32 or more: vectorised drivers return nothing when asked for a few.
    #[inline]
    pub fn rx_burst(&mut self, into: &mut Vec<Mbuf>) -> usize {
        // SAFETY: the device is started as long as this handle lives, and `&mut self` keeps other
        // threads out of the queue.
        unsafe { receive(self.port, self.queue, into) }
    }

    /// The name of the device.
    pub fn device(&self) -> &str {
        self.device.name()
    }

    /// The queue's number on its device.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

impl TxQueue {
    /// As [`RxQueue::new`].
    pub(super) fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { port: device.port(), device, queue }
    }

    /// Hands frames to the device from the front of `frames`, as many as it takes, and removes
    /// them; returns how many that was. The rest stays, in order, to be tried again or dropped.
    ///
    /// A frame of several segments is taken only by a device that
    /// [says so](super::Applied::multi_segment_tx).
    #[inline]
    pub fn tx_burst(&mut self, frames: &mut Vec<Mbuf>) -> usize {
        let count = u16::try_from(frames.len()).unwrap_or(u16::MAX);
        if count == 0 {
            return 0;
        }
        // SAFETY: the vector's first `count` elements are transparent pointers to frames that it
        // owns. DPDK takes the first `sent` over; the others are moved to the front and the length
        // shrinks before anything can look. Device and queue as in rx_burst.
        unsafe {
            let array = frames.as_mut_ptr();
            let first = array.cast::<*mut rte_mbuf>();
            let sent = dpdk_sys::rte_eth_tx_burst(self.port, self.queue, first, count);
            let sent = usize::from(sent.min(count));
            let left = frames.len() - sent;
            std::ptr::copy(array.add(sent), array, left);
            frames.set_len(left);
            sent
        }
    }

    /// The numbers of device and queue, for DPDK.
    #[inline]
    pub(super) fn numbers(&self) -> (u16, u16) {
        (self.port, self.queue)
    }

    /// The name of the device.
    pub fn device(&self) -> &str {
        self.device.name()
    }

    /// The queue's number on its device.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

/// Takes what waits in a receive queue, as much as `into` has capacity left.
///
/// # Safety
/// The port is started, the queue is one of its own, and no other thread uses the queue.
#[inline]
pub(super) unsafe fn receive(port: u16, queue: u16, into: &mut Vec<Mbuf>) -> usize {
    let room = u16::try_from(into.capacity() - into.len()).unwrap_or(u16::MAX);
    if room == 0 {
        return 0;
    }
    // SAFETY: the vector has room for `room` pointers behind its length, and Mbuf is a transparent
    // pointer. What a driver returns are whole frames that it has given up, as Mbuf::from_raw asks.
    unsafe {
        let free = into.as_mut_ptr().add(into.len()).cast::<*mut rte_mbuf>();
        let taken = dpdk_sys::rte_eth_rx_burst(port, queue, free, room);
        let taken = usize::from(taken.min(room));
        into.set_len(into.len() + taken);
        taken
    }
}
