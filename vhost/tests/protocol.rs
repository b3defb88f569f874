//! Sessions over a real socket, with the front-end of rust-vmm: one that nobody here wrote.
//!
//! Each guest has real memory and rings, and a worker sends back whatever comes from it, so that
//! what is set up by the protocol is seen to work.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, helpers included")]

mod protocol_common;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;

use protocol_common::*;
use vhost::message::{Reply, ReplyBody, Request, VringDescriptor};
use vhost::socket::Connection;
use vhost::{Burst, Device, Received};
use vm_memory::Bytes;
use vmm_sys_util::eventfd::EventFd;
use vmm_vhost::VhostBackend;
use vmm_vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vmm_vhost::vhost_user::{Frontend, VhostUserFrontend};

const MEMORY: u64 = 0x10_0000;
const MEMORY_BYTES: usize = 0x20_0000;
const SIZE: u16 = 64;

/// VERSION_1, EVENT_IDX, INDIRECT_DESC, MRG_RXBUF and, for the front-end, PROTOCOL_FEATURES.
const DRIVER: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 15 | 1 << 30;

/// A guest with queue pairs in memory, as its front-end would have it.
struct Guest {
    memory: Memory,
    pairs: Vec<[Ring; 2]>,
    calls: Vec<EventFd>,
}

impl Guest {
    fn new(pairs: u64) -> Self {
        Self::with_memory(memory(&[(MEMORY, MEMORY_BYTES)]), pairs)
    }

    fn with_memory(memory: Memory, pairs: u64) -> Self {
        let ring = |queue: u64| {
            let buffers = MEMORY + 0x10_0000 + queue * 0x2_0000;
            Ring::new(MEMORY + queue * 0x8000, SIZE, buffers)
        };
        let pairs = (0..pairs).map(|pair| [ring(2 * pair), ring(2 * pair + 1)]).collect();
        Self { memory, pairs, calls: Vec::new() }
    }

    /// What QEMU and cloud-hypervisor do when they meet a back-end.
    fn negotiate(front_end: &mut Frontend) -> VhostUserProtocolFeatures {
        let offer = front_end.get_features().unwrap();
        assert_eq!(offer & DRIVER, DRIVER);
        let protocol = front_end.get_protocol_features().unwrap();
        front_end.set_protocol_features(protocol).unwrap();
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front_end.set_owner().unwrap();
        front_end.set_features(DRIVER).unwrap();
        protocol
    }

    /// Starts the rings where they stand, enabled.
    fn start(&mut self, front_end: &mut Frontend) {
        front_end.set_mem_table(&describe_all(&self.memory)).unwrap();
        self.start_rings(front_end);
    }

    fn start_rings(&mut self, front_end: &mut Frontend) {
        self.calls.clear();
        for (queue, ring) in self.pairs.iter().flatten().enumerate() {
            let call = EventFd::new(libc::EFD_NONBLOCK).unwrap();
            front_end.set_vring_num(queue, ring.size).unwrap();
            front_end.set_vring_base(queue, ring.position().1).unwrap();
            front_end.set_vring_addr(queue, &ring.config(&self.memory)).unwrap();
            front_end.set_vring_call(queue, &call).unwrap();
            front_end.set_vring_kick(queue, &EventFd::new(0).unwrap()).unwrap();
            self.calls.push(call);
        }
        for queue in 0..2 * self.pairs.len() {
            front_end.set_vring_enable(queue, true).unwrap();
        }
    }

    /// Sends frames on a queue pair and expects them back.
    fn echo(&mut self, pair: usize, count: usize) {
        let [receive, transmit] = &mut self.pairs[pair];
        for number in 0..count {
            let frame = [&[pair as u8; 60][..], &number.to_ne_bytes(), &vec![7; 1000]].concat();
            receive.supply(&self.memory);
            transmit.transmit(&self.memory, &frame);
            assert_eq!(transmit.complete(&self.memory), []);
            assert_eq!(receive.complete(&self.memory), frame, "frame {number} of pair {pair}");
        }
    }
}

#[test]
fn a_guest_is_set_up_talks_and_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, session) = back_end.connect();
    let mut guest = Guest::new(1);
    let protocol = Guest::negotiate(&mut front_end);
    assert!(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));
    assert!(!protocol.contains(VhostUserProtocolFeatures::LOG_SHMFD));
    guest.start(&mut front_end);
    // More frames than either ring is long.
    guest.echo(0, 3 * usize::from(SIZE));
    assert!(guest.calls[0].read().unwrap() >= 1, "the driver was interrupted");

    assert_eq!(front_end.get_vring_base(0).unwrap(), 3 * u32::from(SIZE));
    assert_eq!(front_end.get_vring_base(1).unwrap(), 3 * u32::from(SIZE));
    assert!(back_end.device.ring_position(0).is_none());
    // And again, as after a reboot of the guest, with the same memory.
    guest.start_rings(&mut front_end);
    guest.echo(0, 10);
    drop(front_end);
    let (reason, summary) = session.join().unwrap();
    assert_eq!(reason, "the front-end closed the connection");
    assert_eq!((summary.rings.len(), summary.memory.len()), (2, 1));
    assert!(back_end.device.ring_position(1).is_none(), "nothing runs without a session");
}

#[test]
fn a_disabled_ring_discards_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, _session) = back_end.connect();
    let mut guest = Guest::new(1);
    Guest::negotiate(&mut front_end);
    guest.start(&mut front_end);
    guest.echo(0, 1);
    front_end.set_vring_enable(1, false).unwrap();
    let [_, transmit] = &mut guest.pairs[0];
    transmit.transmit(&guest.memory, &[1; 60]);
    transmit.complete(&guest.memory);
    wait("the discard to be counted", || back_end.device.statistics(1).discarded == 1);
    front_end.set_vring_enable(1, true).unwrap();
    guest.echo(0, 1);
}

#[test]
fn memory_slots_come_and_go_under_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, _session) = back_end.connect();
    let more = MEMORY + MEMORY_BYTES as u64;
    let mut guest = Guest::with_memory(memory(&[(MEMORY, MEMORY_BYTES), (more, 0x4_0000)]), 1);
    Guest::negotiate(&mut front_end);
    assert_eq!(front_end.get_max_mem_slots().unwrap(), 64);
    let [low, high] = [0, 1].map(|index| describe(&guest.memory, index));
    front_end.add_mem_region(&low).unwrap();
    guest.start_rings(&mut front_end);
    guest.echo(0, 10);

    for _ in 0..20 {
        front_end.add_mem_region(&high).unwrap();
        guest.pairs[0][1].buffers = more;
        guest.echo(0, 10);
        guest.pairs[0][1].buffers = MEMORY + 0x10_0000 + 0x2_0000;
        guest.echo(0, 10);
        front_end.remove_mem_region(&high).unwrap();
        guest.echo(0, 10);
        // The region with the rings themselves, as when a VMM merges or splits it.
        front_end.remove_mem_region(&low).unwrap();
        assert!(back_end.device.ring_position(0).is_none());
        front_end.add_mem_region(&low).unwrap();
        front_end.set_mem_table(&describe_all(&guest.memory)).unwrap();
        front_end.set_mem_table(&[low]).unwrap();
        guest.echo(0, 10);
    }
}

#[test]
fn what_is_refused_is_told_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, session) = back_end.connect();
    let mut guest = Guest::new(1);
    Guest::negotiate(&mut front_end);
    guest.start(&mut front_end);
    let region = describe(&guest.memory, 0);
    let again = vmm_vhost::VhostUserMemoryRegionInfo { userspace_addr: 0, ..region };
    front_end.add_mem_region(&again).unwrap_err();
    let beyond = vmm_vhost::VhostUserMemoryRegionInfo {
        guest_phys_addr: 0x1000_0000,
        mmap_offset: 0x1000,
        ..region
    };
    front_end.add_mem_region(&beyond).unwrap_err();
    front_end.set_mem_table(&[beyond]).unwrap_err();
    front_end.set_log_fd(0).unwrap_err();
    let mut nowhere = guest.pairs[0][0].config(&guest.memory);
    nowhere.avail_ring_addr += MEMORY_BYTES as u64;
    front_end.set_vring_addr(0, &nowhere).unwrap_err();
    guest.echo(0, 10);
    drop(front_end);
    let (_, summary) = session.join().unwrap();
    assert!(summary.refusal.unwrap().starts_with("SET_VRING_ADDR: queue 0 cannot run: available"));
}

#[test]
fn several_queue_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 4);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, session) = back_end.connect();
    // This front-end takes the answer, 4 pairs, for 4 rings.
    let mut guest = Guest::new(2);
    let protocol = Guest::negotiate(&mut front_end);
    assert!(protocol.contains(VhostUserProtocolFeatures::MQ));
    assert_eq!(front_end.get_queue_num().unwrap(), 4);
    guest.start(&mut front_end);
    for _ in 0..10 {
        guest.echo(0, 10);
        guest.echo(1, 10);
    }
    front_end.set_vring_enable(2, false).unwrap();
    // What would go to pair 1 goes to a pair that takes it.
    let [transmit, receive] = [(1, 1), (0, 0)];
    guest.pairs[receive.0][receive.1].supply(&guest.memory);
    guest.pairs[transmit.0][transmit.1].transmit(&guest.memory, &[9; 64]);
    assert_eq!(guest.pairs[receive.0][receive.1].complete(&guest.memory), [9; 64]);
    drop(front_end);
    assert_eq!(session.join().unwrap().1.rings.len(), 4);
}

#[test]
fn a_front_end_that_comes_again_finds_its_rings_where_they_stood() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let mut guest = Guest::new(1);
    for _ in 0..5 {
        let (mut front_end, session) = back_end.connect();
        Guest::negotiate(&mut front_end);
        guest.start(&mut front_end);
        guest.echo(0, 20);
        drop(front_end);
        session.join().unwrap();
        // Sent while nobody was there: taken up by the next session.
        let [receive, transmit] = &mut guest.pairs[0];
        receive.supply(&guest.memory);
        transmit.transmit(&guest.memory, &[3; 100]);
        let (mut front_end, session) = back_end.connect();
        Guest::negotiate(&mut front_end);
        guest.start(&mut front_end);
        let [receive, transmit] = &mut guest.pairs[0];
        transmit.complete(&guest.memory);
        assert_eq!(receive.complete(&guest.memory), [3; 100]);
        drop(front_end);
        session.join().unwrap();
    }
}

#[test]
fn client_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest");
    let listener = UnixListener::bind(&path).unwrap();
    let device = Device::new(1);
    let _worker = Echo::start(&device);
    let mut guest = Guest::new(1);
    for _ in 0..3 {
        let connection = Connection::connect(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let session = {
            let device = Arc::clone(&device);
            thread::spawn(move || serve(connection, device))
        };
        let mut front_end = Frontend::from_stream(stream, 2);
        Guest::negotiate(&mut front_end);
        guest.start(&mut front_end);
        guest.echo(0, 20);
        drop(front_end);
        session.join().unwrap();
    }
}

#[test]
fn a_violation_ends_the_session_and_the_front_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let back_end = BackEnd::new(&folder.path().join("guest"), 1);
    let _worker = Echo::start(&back_end.device);
    let (mut front_end, session) = back_end.connect();
    let mut guest = Guest::new(1);
    Guest::negotiate(&mut front_end);
    let error = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    front_end.set_vring_err(1, &error).unwrap();
    guest.start(&mut front_end);
    let index = vm_memory::GuestAddress(guest.pairs[0][1].at + 0x4002);
    guest.memory.write_obj(SIZE + 1, index).unwrap();
    let (reason, _) = session.join().unwrap();
    assert_eq!(reason, "queue 1: available index jumped from 0 to 65 in a ring of 64");
    assert_eq!(error.read().unwrap(), 1);
    assert!(back_end.device.ring_position(1).is_none());
    front_end.get_features().unwrap_err();
}

/// What rust-vmm's front-end cannot say, said by our own types.
#[test]
fn status_mtu_and_rarp() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut front_end = Connection::new(theirs).unwrap();
    let device = Device::new(1);
    let session = {
        let (connection, device) = (Connection::new(ours).unwrap(), Arc::clone(&device));
        thread::spawn(move || serve(connection, device))
    };
    let mut ask = |request: Request, need_reply| {
        front_end.send(&request.encode(need_reply)).unwrap();
        let mut reply = None;
        wait("a reply", || {
            reply = front_end.try_receive().unwrap();
            reply.is_some()
        });
        match Reply::decode(&reply.unwrap()).unwrap().body {
            ReplyBody::Number(number) => number,
            ReplyBody::Vring(state) => u64::from(state.number),
        }
    };
    let offer = ask(Request::GetProtocolFeatures, false);
    assert_eq!(ask(Request::SetProtocolFeatures(offer), true), 0);
    assert_eq!(ask(Request::SetStatus(0xb), true), 0);
    assert_eq!(ask(Request::GetStatus, false), 0xb);
    assert_eq!(ask(Request::NetSetMtu(1500), true), 0);
    assert_eq!(ask(Request::NetSetMtu(1501), true), 1);

    // The guest's RARP comes out of its receive side, once.
    let guest = Guest::new(1);
    let region = describe(&guest.memory, 0);
    let file = {
        use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
        let region = guest.memory.iter().next().unwrap();
        region.file_offset().unwrap().file().try_clone().unwrap()
    };
    let spec = vhost::RegionSpec {
        guest_address: region.guest_phys_addr,
        bytes: region.memory_size,
        user_address: region.userspace_addr,
        mmap_offset: 0,
    };
    assert_eq!(ask(Request::SetFeatures(DRIVER), true), 0);
    assert_eq!(ask(Request::AddMemReg(spec, file.into()), true), 0);
    let config = guest.pairs[0][1].config(&guest.memory);
    let size = vhost::message::VringState { queue: 1, number: u32::from(SIZE) };
    assert_eq!(ask(Request::SetVringNum(size), true), 0);
    let addresses = vhost::message::VringAddresses {
        queue: 1,
        flags: 0,
        descriptors: config.desc_table_addr,
        used: config.used_ring_addr,
        available: config.avail_ring_addr,
        log: 0,
    };
    assert_eq!(ask(Request::SetVringAddr(addresses), true), 0);
    let polled = VringDescriptor { queue: 1, descriptor: None };
    assert_eq!(ask(Request::SetVringKick(polled), true), 0);
    let enable = vhost::message::VringState { queue: 1, number: 1 };
    assert_eq!(ask(Request::SetVringEnable(enable), true), 0);
    assert_eq!(ask(Request::SendRarp([2, 0, 0, 0, 0, 9]), true), 0);
    let (mut queue, mut burst) = (device.rxq(0), Burst::default());
    let received = Received::take(&mut queue, &mut burst);
    assert_eq!(received.frames().len(), 1);
    let head = received.frames().frame(0).head();
    assert_eq!(head[6..14], [2, 0, 0, 0, 0, 9, 0x80, 0x35]);
    drop(received);
    assert!(Received::take(&mut queue, &mut burst).frames().is_empty());
    drop(front_end);
    let (_, summary) = session.join().unwrap();
    assert_eq!((summary.driver_status, summary.mtu), (0xb, Some(1500)));
}
