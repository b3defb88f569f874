//! Sockets of guests, with the guest's side played by hand.

use super::*;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener as Waiting;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::message::{Reply, Request, VringAddresses, VringDescriptor, VringState};
use vhost::socket::SocketError;
use vhost::{Burst, Received, RegionSpec};

/// VERSION_1, MRG_RXBUF and, for the front-end, PROTOCOL_FEATURES.
const DRIVER: u64 = 1 << 32 | 1 << 15 | 1 << 30;
const MEMORY_BYTES: u64 = 0x2_0000;
const AVAILABLE: u64 = 0x4000;

struct Port {
    folder: tempfile::TempDir,
    device: Arc<Device>,
}

impl Port {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), device: Device::new(1) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("guest.sock")
    }

    fn serve(&self, server: bool) -> GuestHandle {
        let port = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let options = GuestOptions { port, path: self.path(), server, mtu: None };
        let vhost = Vhost { reconnect_min_ms: 5, reconnect_max_ms: 20, ..Vhost::default() };
        GuestSocket::spawn(options, &vhost, Arc::clone(&self.device), false)
    }

    fn runs(&self) -> bool {
        self.device.ring_position(0).is_some() && self.device.ring_position(1).is_some()
    }
}

/// Waits for something to be so; a machine that is busy otherwise may take its time.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_reason(handle: &GuestHandle, part: &str) -> GuestStatus {
    until(part, || {
        let status = handle.status();
        let (GuestState::Unconnected { reason } | GuestState::Failed { reason }) = &status.state
        else {
            return None;
        };
        reason.contains(part).then_some(status)
    })
    .await
}

async fn until_connected(handle: &GuestHandle, wanted: bool) {
    let wanted = GuestState::Connected { ready: wanted };
    until("the state", || (handle.status().state == wanted).then_some(())).await;
}

/// Starts a queue pair; gives the guest's memory.
async fn start(front_end: &mut Connection) -> File {
    let memory = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap());
    memory.set_len(MEMORY_BYTES).unwrap();
    let region =
        RegionSpec { guest_address: 0, bytes: MEMORY_BYTES, user_address: 0, mmap_offset: 0 };
    let mut send = |request: Request| front_end.send(&request.encode(false)).unwrap();
    send(Request::SetFeatures(DRIVER));
    send(Request::SetMemTable(vec![(region, memory.try_clone().unwrap().into())]));
    for queue in 0..2 {
        let at = u64::from(queue) * 0x1_0000;
        send(Request::SetVringNum(VringState { queue, number: 256 }));
        send(Request::SetVringAddr(VringAddresses {
            queue,
            flags: 0,
            descriptors: at,
            available: at + AVAILABLE,
            used: at + 0x5000,
            log: 0,
        }));
        send(Request::SetVringKick(VringDescriptor { queue: queue as u8, descriptor: None }));
        send(Request::SetVringEnable(VringState { queue, number: 1 }));
    }
    send(Request::GetFeatures);
    let reply = until("a reply", || front_end.try_receive().unwrap()).await;
    Reply::decode(&reply).unwrap();
    memory
}

#[tokio::test]
async fn client_mode_connects_again_and_again() {
    let port = Port::new();
    let handle = port.serve(false);
    until_reason(&handle, "there is no socket").await;
    let waiting = Waiting::bind(port.path()).unwrap();
    waiting.set_nonblocking(true).unwrap();
    for session in 1..=3 {
        let (stream, _) = until("a connection", || waiting.accept().ok()).await;
        until_connected(&handle, false).await;
        let mut front_end = Connection::new(stream).unwrap();
        let _memory = start(&mut front_end).await;
        until_connected(&handle, true).await;
        assert!(port.runs());
        assert_eq!(handle.summary().unwrap().rings.len(), 2);
        drop(front_end);
        until("the end", || (!port.runs()).then_some(())).await;
        assert_eq!(handle.status().sessions, session);
    }
    drop(waiting);
    let status = until_reason(&handle, "nobody listens").await;
    assert_eq!(status.last_error.as_deref(), Some("the guest's process closed the connection"));
    handle.close().await;
}

#[tokio::test]
async fn server_mode_takes_one_guest_at_a_time() {
    let port = Port::new();
    let handle = port.serve(true);
    until_reason(&handle, "waiting for the guest's process").await;
    let mut first = Connection::connect(&port.path()).unwrap();
    let _memory = start(&mut first).await;
    let mut second = Connection::connect(&port.path()).unwrap();
    let end = until("the second to be sent away", || second.try_receive().err()).await;
    assert!(matches!(end, SocketError::Closed));
    assert_eq!(handle.status().sent_away, 1);
    until_connected(&handle, true).await;
    assert!(port.runs(), "the first one noticed nothing");

    // The first one says what nobody understands.
    let mut message = Request::GetFeatures.encode(true);
    message.header.code = 4711;
    first.send(&message).unwrap();
    let status = until_reason(&handle, "request 4711 is unknown").await;
    let reason = "the session was ended: request 4711 is unknown";
    assert_eq!(status.last_error.as_deref(), Some(reason));
    assert!(!port.runs());
    let mut third = Connection::connect(&port.path()).unwrap();
    let _memory = start(&mut third).await;
    until_connected(&handle, true).await;
    assert_eq!(handle.status().sessions, 2);

    handle.close().await;
    assert!(!port.runs() && !port.path().exists());
    until("the end", || third.try_receive().err()).await;
}

#[tokio::test]
async fn a_guest_may_be_told_the_mtu_that_its_network_has_now() {
    let port = Port::new();
    let handle = port.serve(true);
    until_reason(&handle, "waiting for the guest's process").await;
    handle.limit_mtu(Some(1500));
    let mut front_end = Connection::connect(&port.path()).unwrap();
    let _memory = start(&mut front_end).await;
    let acknowledge = 1 << 3;
    front_end.send(&Request::SetProtocolFeatures(acknowledge).encode(false)).unwrap();
    for (limit, status) in [(None, 1), (Some(9000), 0), (Some(8999), 1)] {
        if limit.is_some() {
            handle.limit_mtu(limit);
        }
        front_end.send(&Request::NetSetMtu(9000).encode(true)).unwrap();
        let reply = until("a reply", || front_end.try_receive().unwrap()).await;
        assert_eq!(reply.payload, u64::to_le_bytes(status), "with {limit:?}");
    }
    handle.close().await;
}

#[tokio::test]
async fn a_broken_ring_ends_its_session() {
    let port = Port::new();
    let handle = port.serve(true);
    until_reason(&handle, "waiting for the guest's process").await;
    let mut front_end = Connection::connect(&port.path()).unwrap();
    let memory = start(&mut front_end).await;
    memory.write_all_at(&500_u16.to_le_bytes(), 0x1_0000 + AVAILABLE + 2).unwrap();
    drop(Received::take(&mut port.device.rxq(0), &mut Burst::default()));
    let status = until_reason(&handle, "available index").await;
    let reason =
        "the session was ended: queue 1: available index jumped from 0 to 500 in a ring of 256";
    assert_eq!(status.last_error.as_deref(), Some(reason));
    assert!(!port.runs());
    handle.close().await;
}

#[tokio::test]
async fn a_forgotten_handle_ends_its_session_too() {
    let port = Port::new();
    let handle = port.serve(true);
    until_reason(&handle, "waiting for the guest's process").await;
    let mut front_end = Connection::connect(&port.path()).unwrap();
    let _memory = start(&mut front_end).await;
    drop(handle);
    until("the end", || front_end.try_receive().err()).await;
    until("the rings", || (!port.runs()).then_some(())).await;
}

#[tokio::test]
async fn a_path_that_is_taken_is_told_and_tried_again() {
    let port = Port::new();
    let taken = Waiting::bind(port.path()).unwrap();
    let handle = port.serve(true);
    until_reason(&handle, "is in use by another process").await;
    drop(taken);
    until_reason(&handle, "waiting for the guest's process").await;
    handle.close().await;
}

#[test]
fn pauses_grow_to_their_bound() {
    let mut backoff = Backoff::new(100, 350);
    for least in [100, 200, 350, 350] {
        let least = Duration::from_millis(least);
        let pause = backoff.next();
        assert!(pause >= least && pause <= least * 5 / 4, "{pause:?}");
    }
    backoff.reset();
    assert!(backoff.next() < Duration::from_millis(126));
}
