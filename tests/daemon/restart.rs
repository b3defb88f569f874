//! The switch ends, in order or not, and the next one goes on: guests stay up, frames are numbered.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::daemon::{Daemon, SOON, guest_port, port_key, uuid};
use crate::common::front_end::{FrontEnd, Waiting};
use crate::common::process::eventually;

const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x0a];
const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x0b];

/// Receive buffers that the front-end has: so many frames may be under way that none finds it full.
const WINDOW: u32 = 32;

/// An ethertype for experiments (IEEE 802 §9.2.4).
const NUMBERED: [u8; 2] = [0x88, 0xb5];

fn address(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn frame(to: [u8; 6], from: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = [&to[..], &from, &NUMBERED, &number.to_be_bytes()].concat();
    frame.resize(60, 0);
    frame
}

fn number(frame: &[u8]) -> u32 {
    assert_eq!(frame[12..14], NUMBERED, "somebody else's frame: {frame:02x?}");
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

/// Two guests, the first of which sends numbered frames to the second.
struct Pair {
    a: FrontEnd,
    b: FrontEnd,
    /// The number of the next frame.
    next: u32,
    /// Numbers in the order in which they came.
    heard: Vec<u32>,
    /// Frames that may still be under way.
    open: u32,
}

impl Pair {
    fn start(switch: &Daemon) -> Pair {
        let [a, b] = ["a", "b"].map(|name| {
            let waiting = Waiting::new(&switch.socket(name));
            let mut front_end = waiting.connect(1);
            front_end.start();
            front_end
        });
        for name in ["a", "b"] {
            switch.wait_ready(name);
        }
        Pair { a, b, next: 0, heard: Vec::new(), open: 0 }
    }

    fn send(&mut self) {
        self.a.send(0, &frame(B, A, self.next));
        self.next += 1;
        self.open += 1;
    }

    fn hear(&mut self, timeout: Duration) -> bool {
        let frame = self.b.receive(timeout);
        if let Some(frame) = &frame {
            self.heard.push(number(frame));
            self.open = self.open.saturating_sub(1);
        }
        frame.is_some()
    }

    /// Sends as much as the second guest has buffers for, but for one, all the time.
    fn keep_sending(&mut self, until: &AtomicBool) {
        while !until.load(Ordering::Relaxed) {
            while self.open < WINDOW - 1 {
                self.send();
            }
            self.hear(Duration::from_millis(1));
        }
    }

    /// The next switch has connected: what is under way comes, and all descriptors are where they
    /// should be. Returns how many frames were lost.
    fn settle(&mut self) -> usize {
        // The one that is sent to comes first: what waits in the other's ring is not for nobody.
        self.b.reconnect();
        self.a.reconnect();
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
fn end_under_traffic(switch: &mut Daemon, pair: &mut Pair, end: fn(&mut Daemon)) {
    let (ended, before) = (AtomicBool::new(false), pair.heard.len());
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| pair.keep_sending(&ended));
        std::thread::sleep(Duration::from_millis(200));
        end(switch);
        ended.store(true, Ordering::Relaxed);
        traffic.join().expect("the traffic goes on");
    });
    assert!(pair.heard.len() > before + 100, "there was hardly any traffic");
}

fn two_guests() -> Daemon {
    let switch = Daemon::builder().start();
    switch.local_network("n");
    switch.guest_port("a", "n", &address(A));
    switch.guest_port("b", "n", &address(B));
    switch
}

#[test]
fn a_restart_loses_no_frame_and_repeats_none() {
    let mut switch = two_guests();
    let mut pair = Pair::start(&switch);
    for _ in 0..4 {
        end_under_traffic(&mut switch, &mut pair, Daemon::stop);
        switch.start();
        assert_eq!(pair.settle(), 0, "frames were lost");
    }
    switch.stop();
}

#[test]
fn a_killed_switch_repeats_no_frame_and_loses_no_descriptor() {
    let mut switch = two_guests();
    let mut pair = Pair::start(&switch);
    let mut lost = 0;
    for _ in 0..6 {
        end_under_traffic(&mut switch, &mut pair, Daemon::kill);
        switch.start();
        let now = pair.settle();
        // Those of the burst that the worker had taken.
        assert!(now - lost <= 64, "{} frames were lost", now - lost);
        lost = now;
    }
    switch.stop();
}

#[test]
fn a_port_stays_closed_until_its_policy_is_in_force() {
    let mut switch = two_guests();
    let rules = json!([{"direction": "egress", "ethertype": "ipv4"}]);
    let key = format!("security-groups/{}", uuid("g"));
    switch.put(&key, &json!({"name": "g", "rules": rules}));
    let mut port = guest_port("a", "n", &address(A));
    port["port_security"] = json!(true);
    port["fixed_ips"] = json!(["10.0.0.1"]);
    port["security_groups"] = json!([uuid("g")]);
    switch.put(&port_key("a"), &port);
    let mut pair = Pair::start(&switch);
    // 10.0.0.SOURCE sends UDP to 10.0.0.2.
    let ip = |source: u8| {
        let header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 0, 0, 2];
        let mut frame = [&B[..], &A, &[8, 0], &header, &[0, 9, 0, 9, 0, 8, 0, 0]].concat();
        frame.resize(60, 0);
        frame
    };
    eventually("the port's own address passes", SOON, || {
        pair.a.send(0, &ip(1));
        pair.b.receive(Duration::from_millis(100)).is_some()
    });
    while pair.b.receive(Duration::from_millis(100)).is_some() {}
    for end in [Daemon::stop, Daemon::kill] {
        end(&mut switch);
        // These wait for the next switch; the last one tells that it has seen to those before.
        for _ in 0..10 {
            pair.a.send(0, &ip(66));
        }
        pair.a.send(0, &ip(1));
        switch.start();
        pair.b.reconnect();
        pair.a.reconnect();
        let frame = pair.b.receive(SOON).expect("the port's own address passes");
        assert_eq!(frame[26..30], [10, 0, 0, 1], "a forged address came through");
        assert_eq!(pair.b.receive(Duration::from_millis(50)), None);
    }
    switch.stop();
}

#[test]
fn learned_addresses_are_known_again() {
    const BEHIND: [u8; 6] = [0x52, 0x54, 0, 0, 9, 9];
    let builder = Daemon::builder();
    let file = builder.folder().join("fdb.json");
    let mut switch = builder.set("fdb.file", &format!("'{}'", file.display())).start();
    switch.local_network("n");
    switch.guest_port("a", "n", &address(A));
    switch.guest_port("b", "n", &address(B));
    let mut pair = Pair::start(&switch);
    pair.a.send(0, &frame(B, BEHIND, 1));
    pair.b.receives(|frame| number(frame) == 1);
    let learned = |switch: &Daemon| -> Vec<Value> {
        let view = switch.show("fdb");
        let entries = view["entries"].as_array().expect("a list").iter();
        entries.filter(|entry| entry["origin"] == "learned").cloned().collect()
    };
    eventually("it is learned", SOON, || learned(&switch).len() == 1);

    // Killed, it has what was written last; ended in order, what it knew.
    eventually("it is kept", SOON, || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&address(BEHIND)))
    });
    for end in [Daemon::kill, Daemon::stop] {
        std::thread::sleep(Duration::from_secs(2));
        end(&mut switch);
        switch.start();
        eventually("desired state is in force", SOON, || learned(&switch).len() == 1);
        let entry = &learned(&switch)[0];
        assert_eq!(entry["mac"], json!(address(BEHIND)));
        assert!(entry["port"].to_string().contains(&uuid("a")), "{entry:#}");
        assert!(entry["age_seconds"].as_u64().is_some_and(|age| age >= 2), "{entry:#}");
    }

    // Whose port has gone is nobody's.
    switch.stop();
    switch.delete(&port_key("a"));
    switch.start();
    switch.wait_gone("a");
    assert_eq!(learned(&switch), Vec::<Value>::new());

    // A damaged file is told, and is no reason not to start.
    switch.stop();
    fs::write(&file, "{\"written\": 1, ").expect("our own folder");
    switch.start();
    eventually("the file is named", SOON, || {
        switch.log().contains("fdb.json: is not what a daemon keeps")
    });
    switch.stop();
}
