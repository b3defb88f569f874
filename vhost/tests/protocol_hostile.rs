//! Sessions with a front-end that means harm, or is broken: transcripts of good sessions, changed
//! at random, over real sockets with real descriptors.
//!
//! Whatever comes, the back-end ends the session with a reason or goes on; it never panics, and
//! afterwards it holds no descriptor, no mapping and no ring of that session. The seeds are fixed,
//! so what fails once fails again; `HOSTILE_SEED` and `HOSTILE_ROUNDS` search elsewhere.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, helpers included")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::message::{Message, Request, VringAddresses, VringDescriptor, VringState};
use vhost::session::{Session, SessionOptions};
use vhost::socket::Connection;
use vhost::{Burst, Device, Received, RegionSpec, Sent, Staged};

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const REGION_BYTES: u64 = 0x10_0000;
const DRIVER: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 15 | 1 << 30;
/// As that, with packed rings, in order.
const PACKED: u64 = DRIVER | 1 << 34 | 1 << 35;

/// Repeatable noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// A number that is often one at which something ends.
    fn number(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            2,
            3,
            7,
            255,
            256,
            257,
            32768,
            32769,
            65535,
            65536,
            REGION_BYTES,
            USER,
            u32::MAX as u64,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.next(),
            1 => EDGES[self.below(16)].wrapping_sub(1),
            _ => EDGES[self.below(16)],
        }
    }
}

fn region(index: u64) -> RegionSpec {
    RegionSpec {
        guest_address: GUEST + index * REGION_BYTES,
        bytes: REGION_BYTES,
        user_address: USER + index * REGION_BYTES,
        mmap_offset: 0,
    }
}

/// The files and eventfds that a transcript's messages carry.
struct Resources {
    memory: File,
    event: EventFd,
}

impl Resources {
    fn new() -> Self {
        let memory = memfd_create(c"hostile-test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&memory, 2 * REGION_BYTES as i64).unwrap();
        Self { memory: memory.into(), event: EventFd::new().unwrap() }
    }

    fn memory(&self) -> OwnedFd {
        self.memory.as_fd().try_clone_to_owned().unwrap()
    }

    fn event(&self) -> OwnedFd {
        self.event.as_fd().try_clone_to_owned().unwrap()
    }

    /// Descriptors of kinds that do not belong where they are sent.
    fn strange(&self, noise: &mut Noise) -> OwnedFd {
        match noise.below(4) {
            0 => self.memory(),
            1 => self.event(),
            2 => File::open("/").unwrap().into(),
            _ => nix::unistd::pipe().unwrap().0,
        }
    }

    /// What a good front-end with two queue pairs says, from the first word to the last, with
    /// memory as a table or by slots, and split or packed rings.
    fn transcript(&self, slots: bool, packed: bool) -> Vec<Message> {
        let state = |queue, number| VringState { queue, number };
        let addresses = |queue: u32| {
            // What one layout leaves in memory, the other must not take for its own.
            let at = USER + u64::from(queue) * 0x8000 + if packed { 0x4_0000 } else { 0 };
            let (used, available) = (at + 0x5000, at + 0x4000);
            VringAddresses { queue, flags: 0, descriptors: at, used, available, log: 0 }
        };
        let event =
            |queue: u32| VringDescriptor { queue: queue as u8, descriptor: Some(self.event()) };
        let mut talk = vec![
            Request::GetFeatures,
            Request::GetProtocolFeatures,
            Request::SetProtocolFeatures(0x1_a01d),
            Request::GetQueueNum,
            Request::GetMaxMemSlots,
            Request::SetOwner,
            Request::SetVringCall(event(0)),
            Request::SetFeatures(if packed { PACKED } else { DRIVER }),
            Request::SetStatus(0xb),
        ];
        if slots {
            talk.push(Request::AddMemReg(region(0), self.memory()));
        } else {
            talk.push(Request::SetMemTable(vec![(region(0), self.memory())]));
        }
        for queue in 0..4 {
            talk.push(Request::SetVringNum(state(queue, if packed { 250 } else { 256 })));
            talk.push(Request::SetVringBase(state(queue, if packed { 0x8000_8000 } else { 0 })));
            talk.push(Request::SetVringAddr(addresses(queue)));
            talk.push(Request::SetVringKick(event(queue)));
            talk.push(Request::SetVringCall(event(queue)));
            talk.push(Request::SetVringErr(event(queue)));
            talk.push(Request::SetVringEnable(state(queue, 1)));
        }
        talk.extend([
            Request::NetSetMtu(1500),
            Request::SetStatus(0xf),
            Request::GetStatus,
            Request::AddMemReg(region(1), self.memory()),
            Request::SendRarp([2, 0, 0, 0, 0, 1]),
            Request::RemMemReg(region(1)),
            Request::SetMemTable(vec![(region(0), self.memory()), (region(1), self.memory())]),
            Request::SetVringEnable(state(2, 0)),
            Request::GetVringBase(state(2, 0)),
            Request::GetVringBase(state(3, 0)),
            Request::ResetOwner,
            Request::ResetDevice,
        ]);
        talk.into_iter().map(|request| request.encode(true)).collect()
    }

    /// Makes up to four changes to a transcript.
    fn spoil(&self, talk: &mut Vec<Message>, noise: &mut Noise) {
        for _ in 0..=noise.below(4) {
            let at = noise.below(talk.len());
            match noise.below(10) {
                0 => {
                    let other = noise.below(talk.len());
                    talk.swap(at, other);
                }
                1 => drop(talk.remove(at)),
                2 => talk[at].header.need_reply ^= true,
                3 => talk[at].header.code = noise.number() as u32 % 50,
                4 => talk[at].descriptors.clear(),
                5 => {
                    for _ in 0..=noise.below(70) {
                        let strange = self.strange(noise);
                        talk[at].descriptors.push(strange);
                    }
                }
                6 => {
                    let strange = self.strange(noise);
                    talk[at].descriptors.truncate(noise.below(2));
                    talk[at].descriptors.push(strange);
                }
                7 => {
                    // A payload that is longer or shorter than it should be, and says so.
                    talk[at].payload.resize(noise.below(5000), 0xa5);
                    talk[at].header.payload_bytes = talk[at].payload.len();
                }
                // A field with another value: most of what a message says.
                _ if talk[at].payload.len() >= 8 => {
                    let field = noise.below(talk[at].payload.len() / 4);
                    let bytes = if noise.below(2) == 0 { 4 } else { 8 };
                    let value = noise.number().to_ne_bytes();
                    let end = (4 * field + bytes).min(talk[at].payload.len());
                    let part = &mut talk[at].payload[4 * field..end];
                    let take = part.len();
                    part.copy_from_slice(&value[..take]);
                }
                _ => talk[at].header.reply = true,
            }
        }
    }
}

/// Plays a transcript and says how it ended; "went on" if the session outlived it.
fn play(device: &Arc<Device>, talk: Vec<Message>, noise: &mut Noise) -> String {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut back_end = Connection::new(ours).unwrap();
    let mut front_end = Connection::new(theirs).unwrap();
    let mut session = Session::new(Arc::clone(device), SessionOptions { mtu_max: Some(1500) });
    let (mut first, mut second) = (device.rxq(0), device.rxq(1));
    let mut burst = Burst::default();
    for mut message in talk {
        // Beside the changes above: bytes that are no message at all, and headers that lie.
        if noise.below(200) == 0 {
            message.header.payload_bytes = noise.below(5000);
        }
        if let Err(error) = front_end.send(&message) {
            return error.to_string();
        }
        drop(message);
        loop {
            match back_end.try_receive() {
                Ok(None) => break,
                Ok(Some(message)) => match session.handle(message) {
                    Ok(Some(reply)) => back_end.send(&reply.encode()).unwrap(),
                    Ok(None) => {}
                    Err(error) => return error.to_string(),
                },
                Err(error) => return error.to_string(),
            }
        }
        // A worker uses whatever runs by now.
        for queue in [&mut first, &mut second] {
            let received = Received::take(queue, &mut burst);
            if !received.frames().is_empty() {
                device.send(received.frames(), &Staged::new(1), &mut Sent::default());
            }
        }
        if let Some(violation) = device.take_violation() {
            return violation.to_string();
        }
        session.summary();
        while let Ok(Some(_)) = front_end.try_receive() {}
    }
    "went on".to_owned()
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("hostile-test")).count()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// The only test in this program: another one would open and close descriptors while this one
/// counts them.
#[test]
fn spoilt_sessions_end_with_a_reason_and_leave_nothing_behind() {
    let (seed, rounds) = (setting("HOSTILE_SEED", 1), setting("HOSTILE_ROUNDS", 3000));
    let resources = Resources::new();
    let device = Device::new(2);
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for slots in [false, true] {
        for packed in [false, true] {
            let outcome = play(&device, resources.transcript(slots, packed), &mut Noise(1));
            assert_eq!(outcome, "went on", "the transcripts themselves are good");
        }
    }
    let (before, mut reasons) = (open_descriptors(), BTreeMap::<String, u32>::new());
    for round in 0..rounds {
        let mut talk = resources.transcript(round % 2 == 0, round % 4 < 2);
        // Without an acknowledgement to say so in, what is refused ends the session.
        talk.iter_mut().for_each(|message| message.header.need_reply = round % 3 == 0);
        resources.spoil(&mut talk, &mut noise);
        let reason = play(&device, talk, &mut noise);
        assert_eq!(open_descriptors(), before, "round {round} of seed {seed}: {reason}");
        assert_eq!(mappings(), 0, "round {round} of seed {seed}: {reason}");
        let runs = (0..4).any(|queue| device.ring_position(queue).is_some());
        assert!(!runs, "round {round} of seed {seed}: {reason}");
        // Numbers apart, to count the kinds.
        let words = reason.split(' ').filter(|word| !word.contains(|it: char| it.is_ascii_digit()));
        *reasons.entry(words.collect::<Vec<_>>().join(" ")).or_default() += 1;
    }
    // The search would be worth nothing if it never got beyond the first checks, or never failed.
    if rounds >= 3000 {
        for wanted in ["went on", "cannot run", "not offered", "no queue", "descriptors", "payload"]
        {
            assert!(reasons.keys().any(|kind| kind.contains(wanted)), "{wanted}: {reasons:#?}");
        }
        assert!(reasons.len() >= 25, "{reasons:#?}");
    }
}
