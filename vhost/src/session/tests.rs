//! Sessions driven by messages alone: what runs after which of them, and what is refused and why.

use super::*;
use crate::features::{device, protocol};
use crate::memory::RegionSpec;
use crate::message::{VringAddresses, VringDescriptor};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsFd, OwnedFd};

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const REGION_BYTES: u64 = 0x10_0000;
const RING_STRIDE: u64 = 0x4000;
const SIZE: u16 = 256;
const MODERN: u64 = device::VERSION_1
    | device::MRG_RXBUF
    | device::RING_EVENT_IDX
    | device::PROTOCOL_FEATURES;

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
        assert!(talk.runs(queue as usize));
        assert!(!talk.session.is_ready(), "it is not enabled");
        talk.send(Request::SetVringEnable(state(queue, 1)));
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
    assert!(talk.runs(1));
    assert_eq!(talk.ask(Request::GetVringBase(state(1, 0))), ReplyBody::Vring(state(1, 0)));
    assert!(!talk.runs(1));
    talk.send(Request::SetVringEnable(state(1, 1)));
    assert!(!talk.runs(1), "only a kick starts it again");
    talk.send(kick(1));
    assert!(talk.runs(1));
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
    assert!(call.read().is_err(), "nothing to tell yet");
    talk.send(kick(0));
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
fn memory_changes_under_running_rings() {
    let mut talk = Talk::running();
    talk.give_memory();
    assert!(talk.session.is_ready());
    talk.send(Request::AddMemReg(region(1), file(REGION_BYTES)));
    assert_eq!(talk.session.summary().memory, [region(0), region(1)]);
    talk.send(Request::RemMemReg(region(1)));
    assert!(talk.session.is_ready());

    // A region that grows is taken away and comes again.
    talk.send(Request::RemMemReg(region(0)));
    assert!(!talk.runs(0));
    assert_eq!(talk.state_of(0), "waiting for the memory that it lies in");
    talk.send(Request::AddMemReg(region(1), file(REGION_BYTES)));
    assert_eq!(talk.state_of(0), "waiting for the memory that it lies in");
    talk.send(Request::AddMemReg(region(0), file(REGION_BYTES)));
    assert!(talk.session.is_ready());
}

#[test]
fn a_table_without_a_running_ring_is_refused_and_the_old_one_stays() {
    let mut talk = Talk::running();
    let reason = talk.reason(Request::SetMemTable(vec![(region(1), file(REGION_BYTES))]));
    let wanted = "SET_MEM_TABLE: queue 0 cannot run: descriptor table at user address 0x7f0000000000";
    assert!(reason.starts_with(wanted), "{reason}");
    assert!(talk.session.is_ready());
    assert_eq!(talk.session.summary().memory, [region(0)]);
    assert!(!talk.ask_whether(Request::SetMemTable(vec![(region(1), file(REGION_BYTES))])));
    assert!(talk.session.is_ready());
    assert!(talk.session.refusal().unwrap().starts_with(wanted));
}

#[test]
fn bad_memory_is_refused() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.give_memory();
    let reason = talk.reason(Request::AddMemReg(region(0), file(REGION_BYTES)));
    let wanted = "ADD_MEM_REG: memory regions at guest addresses 0x40000000 and 0x40000000 overlap";
    assert_eq!(reason, wanted);
    assert!(!talk.ask_whether(Request::AddMemReg(region(0), file(REGION_BYTES))));
    assert!(!talk.ask_whether(Request::AddMemReg(region(1), file(4096))), "the file is too short");
    assert!(!talk.ask_whether(Request::AddMemReg(region(1), event().into())), "not a file");
    assert!(!talk.ask_whether(Request::RemMemReg(region(1))));
    let refusal = talk.session.refusal().unwrap();
    assert!(refusal.starts_with("REM_MEM_REG: no memory region"), "{refusal}");
    for index in 1..REGIONS_MAX as u64 {
        talk.send(Request::AddMemReg(region(index), file(REGION_BYTES)));
    }
    let reason = talk.reason(Request::AddMemReg(region(64), file(REGION_BYTES)));
    assert_eq!(reason, "ADD_MEM_REG: 65 memory regions, at most 64 are supported");
    assert_eq!(talk.ask(Request::GetMaxMemSlots), ReplyBody::Number(64));
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.give_memory();
    talk.set_up(0);
    let far = |change: fn(&mut VringAddresses)| {
        let mut request = addresses(0);
        change(&mut request);
        Request::SetVringAddr(request)
    };
    talk.send(far(|it| it.used = USER + REGION_BYTES - 64));
    let reason = talk.reason(kick(0));
    assert!(reason.starts_with("SET_VRING_KICK: queue 0 cannot run: used ring at"), "{reason}");
    assert!(!talk.runs(0));
    talk.send(Request::SetVringAddr(addresses(0)));
    talk.send(kick(0));
    // A running ring that is moved to nowhere stays where it is.
    for request in [
        far(|it| it.descriptors = u64::MAX - 15),
        far(|it| it.available = 0),
        far(|it| it.used += 1),
    ] {
        assert!(!talk.ask_whether(request));
        assert!(talk.runs(0));
    }
    talk.send(far(|it| it.used += 4096));
    assert!(talk.runs(0));
}

#[test]
fn a_front_end_that_cannot_be_talked_to_is_told_why() {
    let mut talk = Talk::running();
    let offer = features::protocol_offer(1);
    let table: [(Request, &str); 16] = [
        (
            Request::SetFeatures(MODERN | device::CSUM | 1 << 45),
            "SET_FEATURES accepts what was not offered: VIRTIO_NET_F_CSUM, bit 45",
        ),
        (
            Request::SetFeatures(MODERN & !device::MRG_RXBUF),
            "SET_FEATURES while queue 0 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetProtocolFeatures(offer | protocol::LOG_SHMFD),
            "SET_PROTOCOL_FEATURES accepts what was not offered: VHOST_USER_PROTOCOL_F_LOG_SHMFD",
        ),
        (
            Request::SetVringNum(state(2, 256)),
            "SET_VRING_NUM: there is no queue 2, the device has 2 (1 pairs)",
        ),
        (
            Request::GetVringBase(state(u32::MAX, 0)),
            "GET_VRING_BASE: there is no queue 4294967295, the device has 2 (1 pairs)",
        ),
        (kick(200), "SET_VRING_KICK: there is no queue 200, the device has 2 (1 pairs)"),
        (
            Request::SetVringNum(state(0, 512)),
            "SET_VRING_NUM while queue 0 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetVringBase(state(1, 0)),
            "SET_VRING_BASE while queue 1 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetVringAddr(VringAddresses { flags: 1, ..addresses(0) }),
            "SET_VRING_ADDR: flags 0x1 of queue 0 are not supported (no dirty log)",
        ),
        (
            Request::SetVringEnable(state(0, 2)),
            "SET_VRING_ENABLE: queue 0 cannot be set to 2, only to 0 or 1",
        ),
        (Request::NetSetMtu(67), "NET_SET_MTU: 67 is not between 68 and the network's 65535"),
        (
            Request::NetSetMtu(1 << 32 | 1500),
            "NET_SET_MTU: 4294968796 is not between 68 and the network's 65535",
        ),
        (Request::SetStatus(256), "SET_STATUS: 0x100 has more than eight bits"),
        (
            Request::RemMemReg(region(9)),
            "REM_MEM_REG: no memory region at guest address 0x40900000 with 0x100000 bytes is mapped",
        ),
        (
            Request::SetMemTable(Vec::new()),
            "",
        ),
        (Request::SetVringAddr(addresses(7)), "SET_VRING_ADDR: there is no queue 7, the device has 2 (1 pairs)"),
    ];
    for (request, reason) in table {
        let name = format!("{request:?}");
        match talk.session.handle(request.encode(false)) {
            Err(error) => assert_eq!(error.to_string(), reason),
            Ok(reply) => assert!(reason.is_empty() && reply.is_none(), "{name}"),
        }
    }
}

#[test]
fn ring_sizes_and_positions_are_checked() {
    let mut talk = Talk::new(1);
    for size in [0, 3, 257, 65536, 32769, u32::MAX] {
        let reason = talk.reason(Request::SetVringNum(state(0, size)));
        let wanted = format!(
            "SET_VRING_NUM: queue 0 cannot have {size} entries, only a power of two up to 32768"
        );
        assert_eq!(reason, wanted);
    }
    for size in [1, 2, 256, 32768] {
        talk.send(Request::SetVringNum(state(0, size)));
    }
    talk.send(Request::SetVringBase(state(0, 65535)));
    let reason = talk.reason(Request::SetVringBase(state(0, 65536)));
    assert_eq!(reason, "SET_VRING_BASE: queue 0 cannot begin at 65536, positions go up to 65535");
}

#[test]
fn acknowledgements_come_when_negotiated_and_asked_for() {
    let mut talk = Talk::new(1);
    let silent = talk.session.handle(Request::SetOwner.encode(true)).unwrap();
    assert_eq!(silent, None, "not negotiated yet");
    assert!(talk.ask_whether(Request::SetProtocolFeatures(features::protocol_offer(1))));
    assert!(talk.ask_whether(Request::SetOwner));
    talk.send(Request::SetOwner);
    let features = talk.session.handle(Request::GetFeatures.encode(true)).unwrap().unwrap();
    assert_eq!(features.body, ReplyBody::Number(features::device_offer(1)), "as ever");
    // What cannot be talked to is not talked to, however it asks.
    let strange = Request::SetVringNum(state(0, 3)).encode(true);
    assert!(talk.session.handle(strange).is_err());
}

#[test]
fn what_is_not_offered_is_refused_politely() {
    let mut talk = Talk::running();
    let log = |need_reply| {
        let mut message = Request::SetStatus(0).encode(need_reply);
        message.header.code = Code::SetLogFd as u32;
        message.payload.clear();
        message.descriptors.push(event().into());
        message
    };
    let reply = talk.session.handle(log(true)).unwrap().unwrap();
    assert_eq!(reply, Reply::acknowledge(Code::SetLogFd, false));
    let reason = "SET_LOG_FD belongs to VHOST_F_LOG_ALL, which is not offered";
    assert_eq!(talk.session.refusal(), Some(reason));
    assert_eq!(talk.session.handle(log(false)).unwrap_err().to_string(), reason);
    let mut unknown = Request::GetFeatures.encode(true);
    unknown.header.code = 4711;
    assert_eq!(talk.session.handle(unknown).unwrap_err().to_string(), "request 4711 is unknown");
}

#[test]
fn the_mtu_is_the_networks_at_most() {
    let mut talk = Talk::with(1, SessionOptions { mtu_max: Some(1500) });
    talk.negotiate();
    assert!(talk.ask_whether(Request::NetSetMtu(1500)));
    assert!(!talk.ask_whether(Request::NetSetMtu(9000)));
    let summary = talk.session.summary();
    assert_eq!(summary.mtu, Some(1500), "as before");
    let refusal = "NET_SET_MTU: 9000 is not between 68 and the network's 1500";
    assert_eq!(summary.refusal.as_deref(), Some(refusal));
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
    let talk = Talk::running();
    let device = Arc::clone(&talk.device);
    drop(talk);
    let _next = Session::new(Arc::clone(&device), SessionOptions::default());
    assert!(device.take_violation().is_none());
}
