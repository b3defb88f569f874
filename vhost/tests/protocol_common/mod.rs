//! A back-end that serves one connection, and a guest with real memory and rings to talk to it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::session::{Session, SessionOptions, SessionSummary};
use vhost::socket::{Access, Connection, Listener};
use vhost::{Burst, Device, Received, Sent, Staged};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_vhost::vhost_user::Frontend;
use vmm_vhost::{VhostUserMemoryRegionInfo, VringConfigData};

/// Serves a connection until it ends; says why it did.
pub fn serve(mut connection: Connection, device: Arc<Device>) -> (String, SessionSummary) {
    let mut session = Session::new(device, SessionOptions { mtu_max: Some(1500) });
    let events = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    events.add(connection.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
    let reason = loop {
        if let Some(violation) = session.device().take_violation() {
            session.signal_error(violation.queue);
            break violation.to_string();
        }
        match connection.try_receive() {
            Ok(None) => {
                events.wait(&mut [EpollEvent::empty()], EpollTimeout::from(20_u8)).unwrap();
            }
            Ok(Some(message)) => match session.handle(message) {
                Ok(None) => {}
                Ok(Some(reply)) => {
                    if let Err(error) = connection.send(&reply.encode()) {
                        break error.to_string();
                    }
                }
                Err(error) => break error.to_string(),
            },
            Err(error) => break error.to_string(),
        }
    };
    (reason, session.summary())
}

/// A back-end in server mode: each connection is served to its end, then the next.
pub struct BackEnd {
    listener: Listener,
    pub device: Arc<Device>,
}

impl BackEnd {
    pub fn new(path: &Path, pairs_max: u16) -> Self {
        let listener = Listener::bind(path, Access::default()).unwrap();
        Self { listener, device: Device::new(pairs_max) }
    }

    /// Connects a front-end of rust-vmm's and serves it.
    pub fn connect(&self) -> (Frontend, JoinHandle<(String, SessionSummary)>) {
        let queues = 2 * u64::from(self.device.pairs_max());
        let front_end = Frontend::connect(self.listener.path(), queues).unwrap();
        let connection = self.listener.try_accept().unwrap().expect("it just connected");
        let device = Arc::clone(&self.device);
        (front_end, thread::spawn(move || serve(connection, device)))
    }
}

/// A worker that sends back to the guest whatever comes from it.
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(device: &Arc<Device>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (device, stopped) = (Arc::clone(device), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut queues: Vec<_> = (0..device.pairs_max()).map(|it| device.rxq(it)).collect();
            let mut burst = Burst::default();
            while !stopped.load(Ordering::Relaxed) {
                let mut moved = 0;
                for queue in &mut queues {
                    let received = Received::take(queue, &mut burst);
                    let staged = Staged::new(received.frames().all());
                    moved += staged.len();
                    if !staged.is_empty() {
                        device.send(received.frames(), &staged, &mut Sent::default());
                    }
                }
                if moved == 0 {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub type Memory = GuestMemoryMmap<()>;

/// Guest memory with files behind it, from guest addresses and sizes.
pub fn memory(regions: &[(u64, usize)]) -> Memory {
    let regions = regions.iter().map(|&(at, bytes)| {
        let file = memfd_create(c"protocol-test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, bytes as i64).unwrap();
        (GuestAddress(at), bytes, Some(FileOffset::new(file.into(), 0)))
    });
    Memory::from_ranges_with_files(regions).unwrap()
}

/// A region as the front-end describes it.
pub fn describe(memory: &Memory, index: usize) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo::from_guest_region(memory.iter().nth(index).unwrap()).unwrap()
}

pub fn describe_all(memory: &Memory) -> Vec<VhostUserMemoryRegionInfo> {
    (0..memory.num_regions()).map(|index| describe(memory, index)).collect()
}

/// The driver's side of one split ring, one buffer for each descriptor.
pub struct Ring {
    pub at: u64,
    pub size: u16,
    /// Where its buffers are.
    pub buffers: u64,
    next_available: u16,
    next_used: u16,
}

const BUFFER_BYTES: u64 = 2048;
const HEADER_BYTES: usize = 12;

impl Ring {
    pub fn new(at: u64, size: u16, buffers: u64) -> Self {
        Self { at, size, buffers, next_available: 0, next_used: 0 }
    }

    fn available_at(&self) -> u64 {
        self.at + 0x4000
    }

    fn used_at(&self) -> u64 {
        self.at + 0x5000
    }

    /// What the front-end tells about it.
    pub fn config(&self, memory: &Memory) -> VringConfigData {
        let host = |at| memory.get_host_address(GuestAddress(at)).unwrap() as u64;
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: host(self.at),
            used_ring_addr: host(self.used_at()),
            avail_ring_addr: host(self.available_at()),
            log_addr: None,
        }
    }

    fn buffer(&self, index: u16) -> u64 {
        self.buffers + BUFFER_BYTES * u64::from(index % self.size)
    }

    fn offer(&mut self, memory: &Memory, bytes: u32, flags: u16) {
        let index = self.next_available % self.size;
        let descriptor = self.at + 16 * u64::from(index);
        memory.write_obj(self.buffer(index), GuestAddress(descriptor)).unwrap();
        memory.write_obj(bytes, GuestAddress(descriptor + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(descriptor + 12)).unwrap();
        let entry = self.available_at() + 4 + 2 * u64::from(index);
        memory.write_obj(index, GuestAddress(entry)).unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        let index_at = GuestAddress(self.available_at() + 2);
        memory.store(self.next_available, index_at, Ordering::Release).unwrap();
    }

    /// Makes a buffer available for a frame to come.
    pub fn supply(&mut self, memory: &Memory) {
        self.offer(memory, BUFFER_BYTES as u32, 2);
    }

    /// Sends a frame.
    pub fn transmit(&mut self, memory: &Memory, frame: &[u8]) {
        let buffer = self.buffer(self.next_available);
        memory.write_slice(&[0; HEADER_BYTES], GuestAddress(buffer)).unwrap();
        memory.write_slice(frame, GuestAddress(buffer + HEADER_BYTES as u64)).unwrap();
        self.offer(memory, (HEADER_BYTES + frame.len()) as u32, 0);
    }

    /// The next completed buffer's frame, waited for.
    pub fn complete(&mut self, memory: &Memory) -> Vec<u8> {
        let index_at = GuestAddress(self.used_at() + 2);
        wait("a used buffer", || {
            memory.load::<u16>(index_at, Ordering::Acquire).unwrap() != self.next_used
        });
        let element = self.used_at() + 4 + 8 * u64::from(self.next_used % self.size);
        let [head, bytes]: [u32; 2] = memory.read_obj(GuestAddress(element)).unwrap();
        self.next_used = self.next_used.wrapping_add(1);
        let mut frame = vec![0; (bytes as usize).saturating_sub(HEADER_BYTES)];
        let at = GuestAddress(self.buffer(head as u16) + HEADER_BYTES as u64);
        memory.read_slice(&mut frame, at).unwrap();
        frame
    }

    /// How many buffers were made available and completed.
    pub fn position(&self) -> (u16, u16) {
        (self.next_available, self.next_used)
    }
}

/// Waits until something is so; a machine that is busy otherwise may take its time.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_micros(100));
    }
}
