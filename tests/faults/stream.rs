//! Frames that pass through the switch, one after the other, all of them counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use crate::common::wire::Wire;

/// Between two frames. What is sent faster than a busy machine moves would be lost at the interfaces,
/// which have small rings.
const PACE: Duration = Duration::from_millis(2);

/// What the ends of the stream are.
pub const LEFT: ([u8; 6], [u8; 4]) = ([0x52, 0x54, 0, 0, 2, 1], [10, 0, 0, 1]);
/// See [`LEFT`].
pub const RIGHT: ([u8; 6], [u8; 4]) = ([0x52, 0x54, 0, 0, 2, 2], [10, 0, 0, 2]);

/// A stream from one wire to the other, until it is ended.
pub struct Stream {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(Vec<u64>, Wire, Wire)>,
}

impl Stream {
    /// Begins, and waits until frames arrive.
    #[track_caller]
    pub fn begin(from: Wire, to: Wire) -> Stream {
        // The switch may not have all in force yet: what is lost before the first arrival is not
        // counted.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            from.send(&frame(u64::MAX));
            if to.receive(Duration::from_millis(50)).as_deref().and_then(number).is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "no frame arrives");
        }
        while to.receive(Duration::from_millis(200)).is_some() {}
        let stop = Arc::new(AtomicBool::new(false));
        let task = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut arrived = Vec::new();
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let next_one = Instant::now() + PACE;
                    from.send(&frame(sent));
                    sent += 1;
                    while let Some(left) = next_one.checked_duration_since(Instant::now()) {
                        let next = to.receive(left);
                        arrived.extend(next.as_deref().and_then(number));
                    }
                }
                let last = Instant::now() + Duration::from_secs(10);
                while arrived.len() < sent as usize && Instant::now() < last {
                    let next = to.receive(Duration::from_millis(100));
                    arrived.extend(next.as_deref().and_then(number));
                }
                let seen: BTreeSet<u64> = arrived.iter().copied().collect();
                let missing: Vec<u64> = (0..sent).filter(|it| !seen.contains(it)).collect();
                assert!(missing.is_empty(), "of {sent} frames these were lost: {missing:?}");
                (arrived, from, to)
            }
        });
        Stream { stop, task }
    }

    /// Ends it. Every frame must have arrived, in order. Returns the wires.
    #[track_caller]
    pub fn end(self) -> (Wire, Wire) {
        self.stop.store(true, Ordering::Relaxed);
        let (arrived, from, to) = self.task.join().expect("every frame arrives once");
        assert!(arrived.iter().copied().eq(0..arrived.len() as u64), "frames overtook each other");
        (from, to)
    }
}

/// A frame from the left to the right end, with a number.
fn frame(number: u64) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(LEFT.0, RIGHT.0).ipv4(LEFT.1, RIGHT.1, 64).udp(7, 9);
    let mut frame = Vec::new();
    builder.write(&mut frame, &number.to_be_bytes()).expect("a vector takes it");
    frame
}

/// The number of a frame of the stream.
fn number(frame: &[u8]) -> Option<u64> {
    let payload = frame.get(42..50)?;
    let ours = frame[..6] == RIGHT.0 && frame[6..12] == LEFT.0;
    ours.then(|| u64::from_be_bytes(payload.try_into().expect("eight octets")))
}
