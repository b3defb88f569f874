//! Two guests, one of which sends numbered frames to the other while something happens to the switch:
//! what was lost, what came twice, and which descriptor did not come back.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::daemon::{Daemon, SOON};
use crate::common::front_end::{FrontEnd, Waiting};

pub const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x0a];
pub const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x0b];

/// Receive buffers that the front-end has: so many frames may be under way that none finds it full.
const WINDOW: u32 = 32;

/// An ethertype for experiments (IEEE 802 §9.2.4).
const NUMBERED: [u8; 2] = [0x88, 0xb5];

pub fn address(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

pub fn frame(to: [u8; 6], from: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = [&to[..], &from, &NUMBERED, &number.to_be_bytes()].concat();
    frame.resize(60, 0);
    frame
}

pub fn number(frame: &[u8]) -> u32 {
    assert_eq!(frame[12..14], NUMBERED, "somebody else's frame: {frame:02x?}");
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

/// Two guests, the first of which sends numbered frames to the second.
pub struct Pair {
    pub a: FrontEnd,
    pub b: FrontEnd,
    /// The number of the next frame.
    pub next: u32,
    /// Numbers in the order in which they came.
    pub heard: Vec<u32>,
    /// Frames that may still be under way.
    pub open: u32,
}

impl Pair {
    pub fn start(switch: &Daemon) -> Pair {
        Pair::connect(switch, |waiting| waiting.connect(1))
    }

    /// The same with packed rings.
    pub fn start_packed(switch: &Daemon) -> Pair {
        Pair::connect(switch, |waiting| waiting.connect_packed(1))
    }

    fn connect(switch: &Daemon, connect: fn(Waiting) -> FrontEnd) -> Pair {
        let [a, b] = ["a", "b"].map(|name| {
            let waiting = Waiting::new(&switch.socket(name));
            let mut front_end = connect(waiting);
            front_end.start();
            front_end
        });
        for name in ["a", "b"] {
            switch.wait_ready(name);
        }
        Pair { a, b, next: 0, heard: Vec::new(), open: 0 }
    }

    pub fn send(&mut self) {
        self.a.send(0, &frame(B, A, self.next));
        self.next += 1;
        self.open += 1;
    }

    pub fn hear(&mut self, timeout: Duration) -> bool {
        let frame = self.b.receive(timeout);
        if let Some(frame) = &frame {
            self.heard.push(number(frame));
            self.open = self.open.saturating_sub(1);
        }
        frame.is_some()
    }

    /// Sends as much as the second guest has buffers for, but for one, all the time.
    pub fn keep_sending(&mut self, until: &AtomicBool) {
        while !until.load(Ordering::Relaxed) {
            while self.open < WINDOW - 1 {
                self.send();
            }
            self.hear(Duration::from_millis(1));
        }
    }

    /// The next switch has connected: what is under way comes, and all descriptors are where they
    /// should be. Returns how many frames were lost.
    pub fn settle(&mut self) -> usize {
        // The one that is sent to comes first: what waits in the other's ring is not for nobody.
        self.b.reconnect();
        self.a.reconnect();
        self.check()
    }

    /// Nobody has connected again: what is under way comes, and all descriptors are where they should be.
    /// Returns how many frames were lost.
    pub fn check(&mut self) -> usize {
        let last = self.next;
        self.send();
        let deadline = Instant::now() + SOON;
        while self.heard.last() != Some(&last) {
            assert!(self.hear(deadline.saturating_duration_since(Instant::now())), "nothing moves");
        }
        assert!(!self.hear(Duration::from_millis(50)), "a frame behind the last one");
        self.open = 0;
        assert_eq!(self.a.untaken(0), 0, "a descriptor was not given back");
        // All of the receiver's buffers are where they can be filled, or these find no room.
        for _ in 0..WINDOW {
            self.send();
        }
        while self.open > 0 {
            assert!(self.hear(SOON), "{} of {WINDOW} frames found no buffer", self.open);
        }
        let order: Vec<_> = self.heard.windows(2).filter(|pair| pair[0] >= pair[1]).collect();
        assert!(order.is_empty(), "came twice or out of order: {order:?}");
        self.next as usize - self.heard.len()
    }
}

/// Traffic at full speed while `end` ends the switch.
pub fn end_under_traffic(switch: &mut Daemon, pair: &mut Pair, end: impl FnOnce(&mut Daemon)) {
    let (ended, before) = (AtomicBool::new(false), pair.heard.len());
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| pair.keep_sending(&ended));
        std::thread::sleep(Duration::from_millis(200));
        // A test that fails there is not to wait for traffic without an end.
        let outcome = catch_unwind(AssertUnwindSafe(|| end(switch)));
        ended.store(true, Ordering::Relaxed);
        let traffic = traffic.join();
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        traffic.expect("the traffic goes on");
    });
    assert!(pair.heard.len() > before + 100, "there was hardly any traffic");
}

/// A switch with ports for both.
pub fn two_guests() -> Daemon {
    let switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("a", "n", &address(A));
    switch.guest_port("b", "n", &address(B));
    switch
}
