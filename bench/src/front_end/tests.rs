//! The front-end against a back-end that plays a part and writes down what it heard.

use std::io::{IoSliceMut, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use nix::sys::socket::{ControlMessageOwned, recvmsg};

use super::*;
use crate::guest::{Pages, Ring};
use crate::scenario::{Guests, Scenario};

/// A request as the back-end heard it.
struct Heard {
    request: u32,
    needs_reply: bool,
    payload: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Heard {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.payload[at..at + 8].try_into().expect("eight bytes"))
    }
}

/// What the back-end says.
#[derive(Clone, Copy)]
struct Part {
    features: u64,
    protocol: u64,
    /// The request that it refuses.
    refuses: Option<Request>,
}

const WILLING: Part = Part {
    features: FEATURE_VERSION_1 | FEATURE_PROTOCOL | FEATURE_MERGEABLE | FEATURES_SEGMENTS,
    protocol: PROTOCOL_MULTIQUEUE | PROTOCOL_REPLY_ACK | PROTOCOL_STATUS,
    refuses: None,
};

/// Answers on a connection until it is closed.
fn play(part: Part, mut stream: UnixStream) -> Vec<Heard> {
    let mut all = Vec::new();
    while let Some(heard) = hear(&stream) {
        let answer = match heard.request {
            1 => Some(part.features),
            15 => Some(part.protocol),
            17 => Some(2),
            11 => Some(0),
            request if heard.needs_reply => {
                Some(u64::from(part.refuses.is_some_and(|refused| refused as u32 == request)))
            }
            _ => None,
        };
        if let Some(answer) = answer {
            let mut bytes = Vec::new();
            for word in [heard.request, 0b101, 8] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(answer.to_ne_bytes());
            stream.write_all(&bytes).expect("the front-end listens");
        }
        all.push(heard);
    }
    all
}

fn hear(mut stream: &UnixStream) -> Option<Heard> {
    let mut header = [0; HEADER_BYTES];
    let mut files = Vec::new();
    {
        let mut pieces = [IoSliceMut::new(&mut header)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 8]);
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut pieces,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = message.ok().filter(|message| message.bytes == HEADER_BYTES)?;
        for control in message.cmsgs().expect("room for all control messages") {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for us alone.
                files.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
    }
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(4) & 0b111, 1, "version 1 and no reply");
    let mut payload = vec![0; word(8) as usize];
    stream.read_exact(&mut payload).expect("the payload that the header promises");
    Some(Heard { request: word(0), needs_reply: word(4) & 8 != 0, payload, files })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A guest, and a front-end that is connected to a back-end with that part.
fn session(part: Part) -> (Guests, FrontEnd, JoinHandle<Vec<Heard>>) {
    session_for(&Scenario::one_way("test", 64), part)
}

fn session_for(scenario: &Scenario, part: Part) -> (Guests, FrontEnd, JoinHandle<Vec<Heard>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a new socket");
    let back_end = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the front-end connects");
        play(part, stream)
    });
    let front_end = FrontEnd::connect(&path, soon()).expect("somebody listens");
    let guests = Guests::new(scenario, 2, 1, Pages::Normal).expect("two guests");
    (guests, front_end, back_end)
}

fn refusal(part: Part) -> String {
    let (guests, mut front_end, back_end) = session(part);
    let error = front_end.start(&guests.a).expect_err("it cannot work with this back-end");
    drop(front_end);
    back_end.join().expect("the back-end's checks");
    format!("{error:#}")
}

#[test]
fn a_session_says_everything_in_order_and_ends_with_a_good_bye() {
    let (guests, mut front_end, back_end) = session(WILLING);
    front_end.start(&guests.a).expect("a willing back-end");
    drop(front_end);
    let heard = back_end.join().expect("the back-end's checks");
    let requests: Vec<u32> = heard.iter().map(|one| one.request).collect();
    let ring = [8, 10, 9, 13, 12];
    let expected = [&[1, 15, 16, 17, 3, 2, 5][..], &ring, &ring, &[39, 18, 18, 11, 11]].concat();
    assert_eq!(requests, expected);
    assert_eq!(heard[5].u64(0), WILLING.features & !FEATURES_SEGMENTS);
    assert_eq!(heard[2].u64(0), WILLING.protocol);
    assert!(!heard[2].needs_reply, "acknowledgements are not agreed on before this request");
    let acknowledged = heard[4..].iter().filter(|one| one.request != 11);
    assert!(acknowledged.into_iter().all(|one| one.needs_reply));
}

#[test]
fn who_sends_segments_takes_them_too() {
    let scenario = Scenario { segments: true, ..Scenario::one_way("test", 64_294) };
    let (guests, mut front_end, back_end) = session_for(&scenario, WILLING);
    front_end.start(&guests.a).expect("a willing back-end");
    drop(front_end);
    let heard = back_end.join().expect("the back-end's checks");
    // CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF, protocol features, VERSION_1.
    assert_eq!(heard[5].u64(0), 1 | 2 | 1 << 7 | 1 << 11 | 1 << 15 | 1 << 30 | 1 << 32);
}

#[test]
fn the_memory_that_is_shared_holds_the_rings() {
    let (guests, mut front_end, back_end) = session(WILLING);
    front_end.start(&guests.a).expect("a willing back-end");
    drop(front_end);
    let heard = back_end.join().expect("the back-end's checks");
    let table = heard.iter().find(|one| one.request == 5).expect("SET_MEM_TABLE");
    assert_eq!((table.u32(0), table.files.len(), table.payload.len()), (2, 2, 8 + 2 * 32));
    let region = |index: usize| {
        let [guest, length, user, offset] = [0, 8, 16, 24].map(|at| table.u64(8 + index * 32 + at));
        (guest, length, user, offset)
    };
    assert_ne!(region(0).0, region(1).0);
    assert_eq!(
        region(1).3,
        region(0).1,
        "the second region begins in the file where the first ends"
    );
    for (queue, address) in heard.iter().filter(|one| one.request == 9).enumerate() {
        let (guest, length, user, _) = region(0);
        assert_eq!(address.u32(0) as usize, queue);
        for at in [8, 16, 24] {
            let offset = address.u64(at) - user;
            assert!(offset < length && guests.a.memory().guest_address(offset as usize) >= guest);
        }
        let offset = (address.u64(8) - user) as usize;
        assert_eq!(offset, guests.a.layouts()[queue].descriptors);
    }
    let size = heard.iter().find(|one| one.request == 8).expect("SET_VRING_NUM");
    assert_eq!(size.u32(4), 1024);
    // The descriptor that was passed is the guest's memory, seen from another mapping.
    let layout = guests.a.layouts()[0];
    let ring = Ring::new(guests.a.memory(), layout).expect("the guest's own layout");
    let mut index = [0; 2];
    nix::sys::uio::pread(&table.files[0], &mut index, layout.available as i64 + 2)
        .expect("a memfd can be read");
    assert_eq!(u16::from_ne_bytes(index), ring.available_index.acquire());
    assert_eq!(u16::from_ne_bytes(index), 1024, "all receive buffers are offered");
    let kicks = heard.iter().filter(|one| matches!(one.request, 12 | 13));
    assert!(kicks.into_iter().all(|one| one.files.len() == 1));
}

#[test]
fn without_acknowledgements_none_are_asked_for() {
    let part = Part { protocol: 0, ..WILLING };
    let (guests, mut front_end, back_end) = session(part);
    front_end.start(&guests.a).expect("a willing back-end");
    drop(front_end);
    let heard = back_end.join().expect("the back-end's checks");
    assert!(heard.iter().all(|one| !one.needs_reply));
    assert!(heard.iter().all(|one| !matches!(one.request, 17 | 39)));
}

#[test]
fn what_a_switch_lacks_or_refuses_is_named() {
    let without = |feature: u64| Part { features: WILLING.features & !feature, ..WILLING };
    assert!(refusal(without(FEATURE_VERSION_1)).contains("VERSION_1"));
    assert!(refusal(without(FEATURE_PROTOCOL)).contains("bit 30"));
    assert!(refusal(without(FEATURE_MERGEABLE)).contains("MRG_RXBUF"));
    let scenario = Scenario { segments: true, ..Scenario::one_way("test", 64_294) };
    let (guests, mut front_end, back_end) = session_for(&scenario, without(1 << 7));
    let error = front_end.start(&guests.a).expect_err("the guest sends segments");
    assert!(format!("{error:#}").contains("GUEST_TSO4"), "{error:#}");
    drop(front_end);
    back_end.join().expect("the back-end's checks");
    let refuses = |request| Part { refuses: Some(request), ..WILLING };
    assert!(refusal(refuses(Request::SetMemoryTable)).contains("refused SetMemoryTable"));
    assert!(refusal(refuses(Request::SetRingEnable)).contains("refused SetRingEnable"));
}

#[test]
fn a_switch_that_connects_is_served_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = Listener::bind(&path).expect("a new socket");
    assert!(Listener::bind(&path).is_err(), "the path is taken");
    let other_end = path.clone();
    let back_end = thread::spawn(move || {
        play(WILLING, UnixStream::connect(other_end).expect("somebody listens"))
    });
    let mut front_end = listener.accept(soon()).expect("the back-end connects");
    let guests = Guests::new(&Scenario::one_way("test", 64), 2, 1, Pages::Normal);
    front_end.start(&guests.expect("two guests").a).expect("a willing back-end");
    drop(front_end);
    assert!(back_end.join().expect("the back-end's checks").len() > 10);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn waiting_ends_at_the_deadline() {
    let directory = tempfile::tempdir().expect("a directory");
    let past = Instant::now();
    let error =
        FrontEnd::connect(&directory.path().join("none"), past).expect_err("nobody listens");
    assert!(error.to_string().contains("in time"), "{error}");
    let listener = Listener::bind(&directory.path().join("socket")).expect("a new socket");
    let error = listener.accept(past).expect_err("nobody connects");
    assert!(error.to_string().contains("in time"), "{error}");
}
