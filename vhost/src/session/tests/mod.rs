//! Sessions driven by messages alone: what runs after which of them.

mod image;
mod memory;
mod refusal;

use super::*;
use crate::burst::{Burst, Received};
use crate::features::{device, protocol};
use crate::memory::RegionSpec;
use crate::message::{VringAddresses, VringDescriptor};
use crate::vring::RingLayout;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const REGION_BYTES: u64 = 0x10_0000;
const RING_STRIDE: u64 = 0x4000;
const SIZE: u16 = 256;
const MODERN: u64 =
    device::VERSION_1 | device::MRG_RXBUF | device::RING_EVENT_IDX | device::PROTOCOL_FEATURES;

fn region(index: u64) -> RegionSpec {
    RegionSpec {
        guest_address: GUEST + index * REGION_BYTES,
        bytes: REGION_BYTES,
        user_address: USER + index * 2 * REGION_BYTES,
        mmap_offset: 0,
    }
}

fn file(bytes: u64) -> OwnedFd {
    let file = memfd_create(c"session-test", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&file, bytes as i64).unwrap();
    file
}

fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()
}

fn state(queue: u32, number: u32) -> VringState {
    VringState { queue, number }
}

fn addresses(queue: u32) -> VringAddresses {
    let at = USER + u64::from(queue) * RING_STRIDE;
    VringAddresses {
        queue,
        flags: 0,
        descriptors: at,
        available: at + 0x1000,
        used: at + 0x2000,
        log: 0,
    }
}

fn kick(queue: u8) -> Request {
    Request::SetVringKick(VringDescriptor { queue, descriptor: Some(event().into()) })
}

/// A session and the front-end's side of it.
struct Talk {
    session: Session,
    device: Arc<Device>,
}

impl Talk {
    fn new(pairs_max: u16) -> Self {
        Self::with(pairs_max, SessionOptions::default())
    }

    fn with(pairs_max: u16, options: SessionOptions) -> Self {
        let device = Device::new(pairs_max);
        Self { session: Session::new(Arc::clone(&device), options), device }
    }

    fn send(&mut self, request: Request) {
        let reply = self.session.handle(request.encode(false)).unwrap();
        assert_eq!(reply, None);
    }

    fn ask(&mut self, request: Request) -> ReplyBody {
        self.session.handle(request.encode(false)).unwrap().unwrap().body
    }

    /// Whether a request whose acknowledgement is asked for was served.
    fn ask_whether(&mut self, request: Request) -> bool {
        let reply = self.session.handle(request.encode(true)).unwrap().unwrap();
        assert!(reply.body == ReplyBody::Number(0) || self.session.refusal().is_some());
        reply.body == ReplyBody::Number(0)
    }

    fn reason(&mut self, request: Request) -> String {
        self.session.handle(request.encode(false)).unwrap_err().to_string()
    }

    fn negotiate(&mut self) {
        self.send(Request::SetProtocolFeatures(features::protocol_offer(self.device.pairs_max())));
        self.send(Request::SetOwner);
        self.send(Request::SetFeatures(MODERN));
    }

    fn give_memory(&mut self) {
        self.send(Request::SetMemTable(vec![(region(0), file(REGION_BYTES))]));
    }

    fn set_up(&mut self, queue: u32) {
        self.send(Request::SetVringNum(state(queue, u32::from(SIZE))));
        self.send(Request::SetVringBase(state(queue, 0)));
        self.send(Request::SetVringAddr(addresses(queue)));
    }

    /// A session with its first queue pair running.
    fn running() -> Self {
        let mut talk = Self::new(1);
        talk.negotiate();
        talk.give_memory();
        for queue in 0..2 {
            talk.set_up(queue);
            talk.send(kick(queue as u8));
            talk.send(Request::SetVringEnable(state(queue, 1)));
        }
        assert!(talk.session.is_ready());
        talk
    }

    fn runs(&self, queue: usize) -> bool {
        self.device.ring_position(queue).is_some()
    }

    fn state_of(&self, queue: usize) -> String {
        let rings = self.session.summary().rings;
        rings.iter().find(|ring| ring.queue == queue).unwrap().state.to_string()
    }
}

#[test]
fn a_pair_runs_once_everything_has_come() {
    let mut talk = Talk::new(1);
    assert_eq!(talk.ask(Request::GetFeatures), ReplyBody::Number(features::device_offer(1)));
    let offer = ReplyBody::Number(features::protocol_offer(1));
    assert_eq!(talk.ask(Request::GetProtocolFeatures), offer);
    talk.negotiate();
    talk.give_memory();
    for queue in 0..2 {
        talk.set_up(queue);
        assert!(!talk.runs(queue as usize), "it was not kicked off");
        talk.send(kick(queue as u8));
        assert!(!talk.runs(queue as usize), "it was never enabled");
        assert!(!talk.session.is_ready());
        talk.send(Request::SetVringEnable(state(queue, 1)));
        assert!(talk.runs(queue as usize));
    }
    assert!(talk.session.is_ready());
    let summary = talk.session.summary();
    assert_eq!(summary.memory, [region(0)]);
    assert_eq!(summary.rings.len(), 2);
    let ring = &summary.rings[1];
    assert_eq!((ring.queue, ring.size, ring.state), (1, Some(SIZE), RingState::Running));
    assert!(ring.enabled && !ring.call && ring.next_used == Some(0));
    assert!(summary.features.unwrap().contains(&"VIRTIO_F_VERSION_1".to_owned()));

    talk.send(Request::SetVringEnable(state(0, 0)));
    assert!(talk.runs(0) && !talk.session.is_ready());
    let device = Arc::clone(&talk.device);
    drop(talk);
    assert!(device.ring_position(0).is_none() && device.ring_position(1).is_none());
}

#[test]
fn the_order_does_not_matter() {
    // Kicked off before there is anything to run on.
    let mut talk = Talk::new(1);
    talk.send(kick(0));
    assert_eq!(talk.state_of(0), "waiting for SET_VRING_NUM");
    talk.send(Request::SetVringNum(state(0, 256)));
    assert_eq!(talk.state_of(0), "waiting for SET_VRING_ADDR");
    talk.send(Request::SetVringAddr(addresses(0)));
    assert_eq!(talk.state_of(0), "waiting for SET_VRING_ENABLE");
    talk.send(Request::SetVringEnable(state(0, 1)));
    assert_eq!(talk.state_of(0), "waiting for SET_FEATURES");
    talk.send(Request::SetFeatures(MODERN));
    assert_eq!(talk.state_of(0), "waiting for the memory that it lies in");
    talk.give_memory();
    assert_eq!(talk.state_of(0), "running");
}

#[test]
fn without_protocol_features_rings_start_enabled() {
    let mut talk = Talk::new(1);
    talk.send(Request::SetFeatures(device::MRG_RXBUF));
    talk.give_memory();
    for queue in 0..2 {
        talk.set_up(queue);
        talk.send(kick(queue as u8));
    }
    assert!(talk.session.is_ready());
    talk.send(Request::ResetOwner);
    assert!(talk.runs(0) && !talk.session.is_ready(), "all rings are disabled");
}

#[test]
fn stopping_tells_the_position_and_starting_goes_on_from_it() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    // The used index in memory, 0, tells that what lies before 7 was never completed.
    assert_eq!(talk.ask(Request::GetVringBase(state(1, 99))), ReplyBody::Vring(state(1, 0)));
    talk.send(Request::SetVringBase(state(1, 7)));
    assert_eq!(talk.ask(Request::GetVringBase(state(1, 0))), ReplyBody::Vring(state(1, 7)));
    talk.give_memory();
    talk.set_up(1);
    talk.send(kick(1));
    talk.send(Request::SetVringEnable(state(1, 1)));
    assert!(talk.runs(1));
    assert_eq!(talk.ask(Request::GetVringBase(state(1, 0))), ReplyBody::Vring(state(1, 0)));
    assert!(!talk.runs(1));
    talk.send(Request::SetVringEnable(state(1, 0)));
    talk.send(Request::SetVringEnable(state(1, 1)));
    assert!(!talk.runs(1), "only a kick starts it again");
    talk.send(kick(1));
    assert!(talk.runs(1));
    // As a front-end does that pauses its guest: what is in the ring must wait, not be lost.
    talk.send(Request::SetVringEnable(state(1, 0)));
    assert!(talk.runs(1), "it discards");
    talk.ask(Request::GetVringBase(state(1, 0)));
    talk.send(kick(1));
    assert!(!talk.runs(1), "it waits");
    assert_eq!(talk.state_of(1), "waiting for SET_VRING_ENABLE");
}

#[test]
fn a_call_descriptor_is_tried_at_every_start() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.give_memory();
    talk.set_up(0);
    let call = event();
    let copy = call.as_fd().try_clone_to_owned().unwrap();
    talk.send(Request::SetVringCall(VringDescriptor { queue: 0, descriptor: Some(copy) }));
    talk.send(kick(0));
    assert!(call.read().is_err(), "nothing to tell yet");
    talk.send(Request::SetVringEnable(state(0, 1)));
    assert_eq!(call.read(), Ok(1));
    assert!(talk.session.summary().rings[0].call);
    talk.send(Request::SetVringCall(VringDescriptor { queue: 0, descriptor: None }));
    assert!(talk.runs(0) && !talk.session.summary().rings[0].call);

    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let request = Request::SetVringCall(VringDescriptor { queue: 0, descriptor: Some(pipe) });
    let reason = talk.reason(request);
    assert!(reason.starts_with("SET_VRING_CALL: queue 0: ") && reason.contains("not an eventfd"));
}

#[test]
fn an_error_descriptor_tells_of_a_broken_ring() {
    let mut talk = Talk::running();
    let error = event();
    let copy = error.as_fd().try_clone_to_owned().unwrap();
    talk.send(Request::SetVringErr(VringDescriptor { queue: 1, descriptor: Some(copy) }));
    talk.session.signal_error(0);
    talk.session.signal_error(17);
    assert!(error.read().is_err());
    talk.session.signal_error(1);
    assert_eq!(error.read(), Ok(1));
}

#[test]
fn a_reset_forgets_the_driver_and_keeps_the_front_end() {
    let mut talk = Talk::running();
    talk.send(Request::SetStatus(0xf));
    talk.send(Request::NetSetMtu(1400));
    assert_eq!(talk.ask(Request::GetStatus), ReplyBody::Number(0xf));
    let call = event();
    let copy = call.as_fd().try_clone_to_owned().unwrap();
    talk.send(Request::SetVringCall(VringDescriptor { queue: 0, descriptor: Some(copy) }));
    talk.send(Request::ResetDevice);
    assert!(!talk.runs(0) && !talk.runs(1));
    let summary = talk.session.summary();
    assert_eq!((summary.features, summary.driver_status, summary.mtu), (None, 0, None));
    assert_eq!(summary.memory, [region(0)]);
    assert!(summary.rings[0].call && summary.rings[0].size.is_none());
    assert!(!summary.protocol_features.is_empty());

    talk.send(Request::SetFeatures(MODERN));
    talk.set_up(0);
    talk.send(kick(0));
    assert!(!talk.runs(0), "the reset disabled it");
    talk.send(Request::SetVringEnable(state(0, 1)));
    assert!(talk.runs(0));
}

#[test]
fn pairs_are_counted_as_pairs() {
    let mut talk = Talk::new(4);
    assert_eq!(talk.ask(Request::GetQueueNum), ReplyBody::Number(4));
    talk.send(Request::SetVringNum(state(7, 64)));
    assert!(talk.reason(Request::SetVringNum(state(8, 64))).contains("no queue 8"));
    // For one pair there is nothing to ask.
    let one = Talk::new(1).ask(Request::GetProtocolFeatures);
    assert!(matches!(one, ReplyBody::Number(offer) if offer & protocol::MQ == 0));
}

#[test]
fn an_earlier_sessions_violation_is_forgotten() {
    let mut talk = Talk::running();
    let memory = std::fs::File::from(file(REGION_BYTES));
    let copy = memory.try_clone().unwrap().into();
    talk.send(Request::SetMemTable(vec![(region(0), copy)]));
    // Queue 1's available index jumps further than its ring is long.
    let index = addresses(1).available - USER + 2;
    memory.write_all_at(&(SIZE + 1).to_le_bytes(), index).unwrap();
    let poll = |device: &Arc<Device>| {
        drop(Received::take(&mut device.rxq(0), &mut Burst::default()));
    };
    poll(&talk.device);
    let violation = talk.device.take_violation().unwrap();
    assert_eq!(violation.queue, 1);

    // Found once more in the ring that is built anew, and never asked for.
    talk.send(Request::SetVringEnable(state(1, 0)));
    poll(&talk.device);
    let device = Arc::clone(&talk.device);
    drop(talk);
    let _next = Session::new(Arc::clone(&device), SessionOptions::default());
    assert!(device.take_violation().is_none());
}

#[test]
fn a_packed_ring_is_stopped_with_both_its_places() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.send(Request::SetFeatures(MODERN | device::RING_PACKED | device::IN_ORDER));
    let memory = std::fs::File::from(file(REGION_BYTES));
    let copy = memory.try_clone().unwrap().into();
    talk.send(Request::SetMemTable(vec![(region(0), copy)]));
    // Of queue 1 it is said where it begins: in the second lap, at its last entry but one.
    let (size, place) = (100_u16, 98_u16);
    for queue in 0..2 {
        talk.send(Request::SetVringNum(state(queue, u32::from(size))));
        talk.send(Request::SetVringAddr(addresses(queue)));
        talk.send(kick(queue as u8));
    }
    let ring = addresses(1).descriptors - USER;
    for index in 0..u64::from(size) {
        // Used in the second lap, and what is left of the first.
        let flags: u16 = if index < u64::from(place) { 0 } else { 0x8080 };
        memory.write_all_at(&flags.to_le_bytes(), ring + 16 * index + 14).unwrap();
    }
    for at in [98, 99, 0_u64] {
        let buffer = GUEST + 0x8_0000 + at * 2048;
        let lap: u16 = if at == 0 { 0x0080 } else { 0x8000 };
        let fields = [&buffer.to_le_bytes()[..], &76_u32.to_le_bytes(), &[at as u8, 0]].concat();
        memory.write_all_at(&fields, ring + 16 * at).unwrap();
        memory.write_all_at(&lap.to_le_bytes(), ring + 16 * at + 14).unwrap();
    }
    talk.send(Request::SetVringBase(state(1, u32::from(place) | u32::from(place) << 16)));
    for queue in 0..2 {
        talk.send(Request::SetVringEnable(state(queue, 1)));
    }
    assert!(talk.session.is_ready());
    let summary = talk.session.summary();
    let ring_1 = &summary.rings[1];
    assert_eq!((ring_1.layout, ring_1.next_used), (Some(RingLayout::Packed), Some(98)));

    let mut rxq = talk.device.rxq(0);
    let mut burst = Burst::default();
    assert_eq!(Received::take(&mut rxq, &mut burst).frames().len(), 3);
    // Replaced while it runs, it goes on where it stands.
    talk.send(Request::SetVringCall(VringDescriptor { queue: 1, descriptor: None }));
    assert_eq!(Received::take(&mut rxq, &mut burst).frames().len(), 0);
    let base = talk.ask(Request::GetVringBase(state(1, 0)));
    // One entry of the first lap's successor, whose wrap counter is 1 again.
    assert_eq!(base, ReplyBody::Vring(state(1, 0x8001_8001)));
    let never_used = talk.ask(Request::GetVringBase(state(0, 0)));
    assert_eq!(never_used, ReplyBody::Vring(state(0, 0x8000_8000)));
}
