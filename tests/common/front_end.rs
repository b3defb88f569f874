//! The process of a guest that listens for the switch as QEMU does, without a guest: a front-end of
//! rust-vmm's, memory, and one ring, split or packed, for each direction and pair of queues.
//!
//! It is for what a real guest is too slow or too well-behaved for. Frames go through real rings, so
//! what is seen here, a guest would see.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use vmm_vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vmm_vhost::vhost_user::{Frontend, VhostUserFrontend};
use vmm_vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::daemon::SOON;
use super::process::eventually;

/// `VIRTIO_F_VERSION_1`, `VIRTIO_NET_F_CSUM` and, for the front-end, `PROTOCOL_FEATURES`.
const DRIVER: u64 = 1 << 32 | 1 << 30 | 1;

/// `VIRTIO_F_RING_PACKED`.
const PACKED: u64 = 1 << 34;

/// Flags of a packed ring's descriptors (virtio 1.2 §2.8.1).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

const MEMORY: u64 = 0x10_0000;
const QUEUE_BYTES: u64 = 0x4_0000;
const SIZE: u16 = 64;
const BUFFER_BYTES: u64 = 2048;
const HEADER_BYTES: usize = 12;

/// The net header of a frame that is complete, and has nothing left to us.
const COMPLETE: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// A socket that waits for the switch.
pub struct Waiting {
    listener: UnixListener,
    path: PathBuf,
}

/// A guest's process that is connected. Dropping it ends the connection and leaves the socket.
pub struct FrontEnd {
    waiting: Waiting,
    front_end: Frontend,
    memory: GuestMemoryMmap<()>,
    queues: Vec<Ring>,
    calls: Vec<EventFd>,
    features: u64,
}

/// The driver's side of one ring, one buffer for each descriptor.
struct Ring {
    at: u64,
    next_available: u16,
    next_used: u16,
    packed: bool,
}

impl Waiting {
    /// Makes the socket.
    #[track_caller]
    pub fn new(path: &Path) -> Waiting {
        let listener = UnixListener::bind(path).expect("a free path");
        listener.set_nonblocking(true).expect("a socket of ours");
        Waiting { listener, path: path.to_owned() }
    }

    /// Whether the switch has connected since this was asked last.
    pub fn is_connected_again(&self) -> bool {
        self.listener.accept().is_ok()
    }

    /// Waits for the switch, and negotiates as QEMU does for a guest with so many pairs of queues.
    #[track_caller]
    pub fn connect(self, pairs: u16) -> FrontEnd {
        self.connect_with(pairs, DRIVER)
    }

    /// The same for a guest with packed rings.
    #[track_caller]
    pub fn connect_packed(self, pairs: u16) -> FrontEnd {
        self.connect_with(pairs, DRIVER | PACKED)
    }

    #[track_caller]
    fn connect_with(self, pairs: u16, features: u64) -> FrontEnd {
        let front_end = self.negotiate(pairs, features);
        let bytes = 2 * u64::from(pairs) * QUEUE_BYTES;
        let file = memfd_create(c"front-end", MFdFlags::MFD_CLOEXEC).expect("memory");
        nix::unistd::ftruncate(&file, bytes as i64).expect("memory");
        let region = (GuestAddress(MEMORY), bytes as usize, Some(FileOffset::new(file.into(), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([region]).expect("memory");
        let packed = features & PACKED != 0;
        let ring = |queue| Ring {
            at: MEMORY + queue * QUEUE_BYTES,
            next_available: 0,
            next_used: 0,
            packed,
        };
        let queues = (0..2 * u64::from(pairs)).map(ring).collect();
        FrontEnd { waiting: self, front_end, memory, queues, calls: Vec::new(), features }
    }

    /// Waits for the switch, and agrees with it on features.
    #[track_caller]
    fn negotiate(&self, pairs: u16, features: u64) -> Frontend {
        let mut stream = None;
        eventually("the switch connects", SOON, || {
            stream = self.listener.accept().ok().map(|(stream, _)| stream);
            stream.is_some()
        });
        let stream = stream.expect("it was just there");
        stream.set_nonblocking(false).expect("a socket of ours");
        let mut front_end = Frontend::from_stream(stream, 32);
        assert_eq!(front_end.get_features().expect("they are answered") & features, features);
        let protocol = front_end.get_protocol_features().expect("they are answered");
        front_end.set_protocol_features(protocol).expect("they were offered");
        let several = protocol.contains(VhostUserProtocolFeatures::MQ);
        let offered = if several { front_end.get_queue_num().expect("MQ was offered") } else { 1 };
        assert!(
            offered >= u64::from(pairs),
            "QEMU would not start with {pairs} of {offered} pairs"
        );
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front_end.set_owner().expect("it is acknowledged");
        front_end.set_features(features).expect("they were offered");
        front_end
    }
}

impl FrontEnd {
    /// What a guest's driver causes when it starts: memory and rings, all with buffers to receive into.
    #[track_caller]
    pub fn start(&mut self) {
        for ring in self.queues.iter_mut().step_by(2) {
            (0..SIZE / 2).for_each(|_| ring.offer(&self.memory, BUFFER_BYTES as u32, 2));
        }
        self.hand_over();
    }

    /// Waits for the next switch after one that has ended, and hands over memory and rings as they
    /// are: as QEMU does when its socket has been closed, the driver knowing nothing of it.
    #[track_caller]
    pub fn reconnect(&mut self) {
        self.front_end = self.waiting.negotiate((self.queues.len() / 2) as u16, self.features);
        self.hand_over();
    }

    /// Hands over memory and rings. Where a ring goes on, QEMU reads from its used index when the
    /// back-end has gone.
    #[track_caller]
    fn hand_over(&mut self) {
        self.calls.clear();
        let region = self.memory.iter().next().expect("there is one");
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).expect("it has a file");
        self.front_end.set_mem_table(&[region]).expect("it is acknowledged");
        for (queue, ring) in self.queues.iter().enumerate() {
            let call = EventFd::new(libc::EFD_NONBLOCK).expect("an eventfd");
            let front_end = &mut self.front_end;
            front_end.set_vring_num(queue, SIZE).expect("it is acknowledged");
            // A packed ring begins with wrap counters of 1 (virtio 1.2 §2.8.1).
            let base = if ring.packed { 1 << 15 } else { ring.used_index(&self.memory) };
            front_end.set_vring_base(queue, base).expect("it is acknowledged");
            front_end.set_vring_addr(queue, &ring.config(&self.memory)).expect("acknowledged");
            front_end.set_vring_call(queue, &call).expect("it is acknowledged");
            let kick = EventFd::new(0).expect("an eventfd");
            front_end.set_vring_kick(queue, &kick).expect("it is acknowledged");
            self.calls.push(call);
        }
        for queue in 0..self.queues.len() {
            self.front_end.set_vring_enable(queue, true).expect("it is acknowledged");
        }
    }

    /// Sends a complete frame on a pair of queues.
    pub fn send(&mut self, pair: usize, frame: &[u8]) {
        self.send_with(pair, COMPLETE, frame);
    }

    /// Sends a frame with this net header.
    pub fn send_with(&mut self, pair: usize, header: [u8; HEADER_BYTES], frame: &[u8]) {
        if self.features & PACKED != 0 {
            // Whether a descriptor was used can be seen for one lap.
            self.untaken(pair);
        }
        let ring = &mut self.queues[2 * pair + 1];
        let buffer = GuestAddress(ring.buffer(ring.next_available));
        self.memory.write_slice(&[&header, frame].concat(), buffer).expect("it fits a buffer");
        ring.offer(&self.memory, (HEADER_BYTES + frame.len()) as u32, 0);
    }

    /// Enables or disables all of the guest's rings, as its driver causes when it changes their number.
    #[track_caller]
    pub fn enable(&mut self, enabled: bool) {
        for queue in 0..self.queues.len() {
            self.front_end.set_vring_enable(queue, enabled).expect("it is acknowledged");
        }
    }

    /// How many frames that were sent on a pair of queues the switch has not taken.
    pub fn untaken(&mut self, pair: usize) -> u16 {
        let ring = &mut self.queues[2 * pair + 1];
        if !ring.packed {
            return ring.next_available.wrapping_sub(ring.used_index(&self.memory));
        }
        while ring.next_used != ring.next_available && ring.used_at_next(&self.memory).is_some() {
            ring.next_used = ring.next_used.wrapping_add(1);
        }
        ring.next_available.wrapping_sub(ring.next_used)
    }

    /// The next frame that comes in on any pair, or none within `timeout`.
    pub fn receive(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            for ring in self.queues.iter_mut().step_by(2) {
                if let Some(frame) = ring.received(&self.memory) {
                    return Some(frame);
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a frame for which `wanted` holds; others are passed over.
    #[track_caller]
    pub fn receives(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.receive(left).expect("the frame never came");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Ends the connection, as the end of QEMU would; its socket stays, and waits for another.
    pub fn disconnect(self) -> Waiting {
        self.waiting
    }

    /// Whether the switch has connected a second time.
    pub fn is_connected_again(&self) -> bool {
        self.waiting.is_connected_again()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Ring {
    fn available_at(&self) -> u64 {
        self.at + 0x1000
    }

    fn used_at(&self) -> u64 {
        self.at + 0x2000
    }

    fn buffer(&self, index: u16) -> u64 {
        self.at + 0x4000 + BUFFER_BYTES * u64::from(index % SIZE)
    }

    fn config(&self, memory: &GuestMemoryMmap<()>) -> VringConfigData {
        let host = |at| memory.get_host_address(GuestAddress(at)).expect("it is there") as u64;
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: host(self.at),
            used_ring_addr: host(self.used_at()),
            avail_ring_addr: host(self.available_at()),
            log_addr: None,
        }
    }

    fn offer(&mut self, memory: &GuestMemoryMmap<()>, bytes: u32, flags: u16) {
        let index = self.next_available % SIZE;
        let at = self.at + 16 * u64::from(index);
        if self.packed {
            let lap = if self.lap(self.next_available) { AVAIL } else { USED };
            let write = |value: &[u8], at| {
                memory.write_slice(value, GuestAddress(at)).expect("memory");
            };
            write(&self.buffer(index).to_le_bytes(), at);
            write(&bytes.to_le_bytes(), at + 8);
            write(&index.to_le_bytes(), at + 12);
            memory.store(flags | lap, GuestAddress(at + 14), Ordering::Release).expect("memory");
            self.next_available = self.next_available.wrapping_add(1);
            return;
        }
        let write = |value: &[u8], at| memory.write_slice(value, GuestAddress(at)).expect("memory");
        write(&self.buffer(index).to_le_bytes(), at);
        write(&bytes.to_le_bytes(), at + 8);
        write(&flags.to_le_bytes(), at + 12);
        write(&index.to_le_bytes(), self.available_at() + 4 + 2 * u64::from(index));
        self.next_available = self.next_available.wrapping_add(1);
        let index_at = GuestAddress(self.available_at() + 2);
        memory.store(self.next_available, index_at, Ordering::Release).expect("memory");
    }

    fn used_index(&self, memory: &GuestMemoryMmap<()>) -> u16 {
        memory.load(GuestAddress(self.used_at() + 2), Ordering::Acquire).expect("memory")
    }

    /// The wrap counter of a packed ring at a place, which counts up for ever.
    fn lap(&self, place: u16) -> bool {
        (place / SIZE).is_multiple_of(2)
    }

    /// What the next descriptor of a packed ring was used with: its buffer's number and octets.
    fn used_at_next(&self, memory: &GuestMemoryMmap<()>) -> Option<[u32; 2]> {
        let at = self.at + 16 * u64::from(self.next_used % SIZE);
        let flags: u16 = memory.load(GuestAddress(at + 14), Ordering::Acquire).expect("memory");
        let lap = if self.lap(self.next_used) { AVAIL | USED } else { 0 };
        let number = || memory.read_obj::<u16>(GuestAddress(at + 12)).expect("memory").into();
        let octets = || memory.read_obj(GuestAddress(at + 8)).expect("memory");
        (flags & (AVAIL | USED) == lap).then(|| [number(), octets()])
    }

    fn used_at_index(&self, memory: &GuestMemoryMmap<()>) -> Option<[u32; 2]> {
        if self.used_index(memory) == self.next_used {
            return None;
        }
        let element = self.used_at() + 4 + 8 * u64::from(self.next_used % SIZE);
        Some(memory.read_obj(GuestAddress(element)).expect("memory"))
    }

    /// The next frame that was received, whose buffer is offered again.
    fn received(&mut self, memory: &GuestMemoryMmap<()>) -> Option<Vec<u8>> {
        let [head, bytes] = match self.packed {
            true => self.used_at_next(memory)?,
            false => self.used_at_index(memory)?,
        };
        self.next_used = self.next_used.wrapping_add(1);
        let mut frame = vec![0; (bytes as usize).saturating_sub(HEADER_BYTES)];
        let at = GuestAddress(self.buffer(head as u16) + HEADER_BYTES as u64);
        memory.read_slice(&mut frame, at).expect("memory");
        self.offer(memory, BUFFER_BYTES as u32, 2);
        Some(frame)
    }
}
