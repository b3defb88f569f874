//! A guest as the switch sees it: memory, a transmit and a receive ring, and a driver that polls.
//!
//! It stands for a virtio-net driver that keeps up: no interrupts, bursts, buffers of its own that
//! it does not wait for. What it sends is a [`Stream`], what it receives is judged against the
//! stream that the other guest sends. It is not an operating system: there is no stack above it.

mod judge;
mod memory;
mod receive;
mod ring;
mod rota;
mod slots;
#[cfg(test)]
pub(crate) mod tests;
mod transmit;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

use judge::Clerk;
pub use judge::{Arrivals, Faults, Judge};
pub use memory::{GuestMemory, Pages};
pub use receive::Receive;
pub use ring::{Descriptor, Layout, NEXT, NO_NOTIFY, Ring, Used};
pub use slots::HEADER_BYTES;
pub use transmit::{Sender, Transmit};

use crate::frame::Stream;
use slots::Slots;

/// The receive ring's number in a queue pair (virtio 1.2 §5.1.2).
pub const RECEIVE_QUEUE: usize = 0;
/// The transmit ring's number in a queue pair.
pub const TRANSMIT_QUEUE: usize = 1;

/// How a guest is built.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Descriptors in each ring, a power of two.
    pub ring: u16,
    /// Bytes between receive buffers; a frame longer than one takes several.
    pub receive_stride: usize,
    /// Whether several receive buffers may be merged for one frame (VIRTIO_NET_F_MRG_RXBUF).
    pub mergeable: bool,
    /// What backs the memory.
    pub pages: Pages,
}

/// One guest with one queue pair.
#[derive(Debug)]
pub struct Guest {
    /// The ring to the switch.
    pub transmit: Transmit,
    /// The ring from the switch.
    pub receive: Receive,
    /// What goes out.
    pub sender: Sender,
    /// What should come in.
    pub judge: Judge,
    memory: Arc<GuestMemory>,
    layouts: [Layout; 2],
    mergeable: bool,
    segments: bool,
    /// Never read: polled rings get no calls. Some switches want the descriptor nevertheless.
    calls: [EventFd; 2],
}

impl Guest {
    /// A guest that sends `outgoing` and expects `incoming`, with its receive buffers offered.
    pub fn new(shape: Shape, outgoing: Stream, incoming: Stream) -> Result<Self> {
        let segments = outgoing.has_segments();
        let receive_layout = Layout::at(0, shape.ring);
        let transmit_layout = Layout::at(receive_layout.end, shape.ring);
        let transmit_stride = match transmit::chain_length(&outgoing) {
            1 => slots::stride_for(HEADER_BYTES + outgoing.longest_frame()),
            _ => PAGE_STRIDE,
        };
        let receive_bytes = shape.receive_stride * usize::from(shape.ring);
        let transmit_bytes = transmit_stride * usize::from(shape.ring);
        let buffer_bytes = receive_bytes + transmit_bytes;
        let memory = GuestMemory::new(transmit_layout.end, buffer_bytes, shape.pages)?;
        let buffers = memory.buffer_offset();
        let receive_slots = Slots::new(&memory, buffers, shape.receive_stride);
        let transmit_slots = Slots::new(&memory, buffers + receive_bytes, transmit_stride);
        let receive_ring = Ring::new(&memory, receive_layout)?;
        let transmit_ring = Ring::new(&memory, transmit_layout)?;
        Ok(Self {
            receive: Receive::new(receive_ring, receive_slots, eventfd()?, shape.mergeable),
            transmit: Transmit::new(transmit_ring, transmit_slots, eventfd()?, &outgoing),
            sender: Sender::new(outgoing),
            judge: Judge::new(incoming),
            layouts: [receive_layout, transmit_layout],
            mergeable: shape.mergeable,
            segments,
            calls: [eventfd()?, eventfd()?],
            memory,
        })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Where the rings lie, by queue number.
    pub fn layouts(&self) -> [Layout; 2] {
        self.layouts
    }

    /// Whether the driver can take a frame in several buffers.
    pub fn is_mergeable(&self) -> bool {
        self.mergeable
    }

    /// Whether the driver sends and takes frames whose checksum and segmentation are left to do.
    pub fn leaves_work(&self) -> bool {
        self.segments
    }

    /// What the guest writes to when a ring's device wants to be woken, by queue number.
    pub fn kick(&self, queue: usize) -> BorrowedFd<'_> {
        match queue {
            RECEIVE_QUEUE => self.receive.bell().kick(),
            _ => self.transmit.bell().kick(),
        }
    }

    /// What the switch would write to to interrupt the guest, by queue number.
    pub fn call(&self, queue: usize) -> BorrowedFd<'_> {
        self.calls[queue].as_fd()
    }

    /// Sends up to `most` frames, as far as buffers are free. Returns how many.
    #[inline(always)]
    pub fn send(&mut self, most: usize) -> usize {
        self.transmit.send(most, &mut self.sender)
    }

    /// Receives and judges up to `most` frames. Returns how many.
    #[inline(always)]
    pub fn receive(&mut self, most: usize) -> usize {
        self.receive.poll(most, &mut self.judge)
    }

    /// The same for up to `N` frames, and tells the sequence numbers of those that are right and
    /// came for the first time.
    #[inline(always)]
    pub fn receive_each<const N: usize>(&mut self, arrivals: &mut Arrivals<N>) -> usize {
        arrivals.count = 0;
        self.receive.poll(N, &mut Clerk { judge: &mut self.judge, arrivals })
    }

    /// How often the switch had to be woken, on both rings.
    pub fn kicks(&self) -> u64 {
        self.transmit.bell().kicks() + self.receive.bell().kicks()
    }

    /// Everything wrong that was noticed since the guest was made, on both rings.
    pub fn faults(&self) -> Faults {
        let mut faults = self.judge.faults();
        faults.ring += self.transmit.violations() + self.receive.violations();
        faults
    }
}

fn eventfd() -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("eventfd")
}

/// Bytes between receive buffers that hold a frame of `frame_bytes` in one piece.
pub fn whole_frame_stride(frame_bytes: usize) -> usize {
    slots::stride_for(HEADER_BYTES + frame_bytes)
}

/// Bytes between buffers of a page, odd in cache lines.
pub const PAGE_STRIDE: usize = slots::PAGE_BYTES + 64;

/// Bytes between buffers of ordinary size.
pub const ORDINARY_STRIDE: usize = slots::ORDINARY_STRIDE;
