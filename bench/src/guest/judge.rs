//! Decides of each received frame whether it is one that should have come.

use std::ops::{AddAssign, Sub};

use serde::Serialize;

use super::receive::{Jury, Received};
use crate::frame::{HEAD_BYTES, Head, Stamp, Stream};
use crate::segment::Offload;
use crate::tracker::Tracker;

/// Among how many frames one is compared to its last byte; the others up to their 64th. A prime, so
/// that no pattern of buffers or flows escapes for ever.
const WHOLE_FRAME_EVERY: u32 = 509;

/// What was wrong with what a switch delivered, as counts. All zero for a switch that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Frames that came once more.
    pub duplicated: u64,
    /// Frames overtaken within their flow.
    pub reordered: u64,
    /// Frames with bytes that nobody sent, a wrong length or a wrong virtio-net header.
    pub corrupt: u64,
    /// Good frames at a guest that they were not for.
    pub misdelivered: u64,
    /// Violations of the ring's rules.
    pub ring: u64,
}

impl Faults {
    /// All faults together.
    pub fn total(&self) -> u64 {
        self.duplicated + self.reordered + self.corrupt + self.misdelivered + self.ring
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.misdelivered += other.misdelivered;
        self.ring += other.ring;
    }
}

impl Sub for Faults {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            duplicated: self.duplicated - earlier.duplicated,
            reordered: self.reordered - earlier.reordered,
            corrupt: self.corrupt - earlier.corrupt,
            misdelivered: self.misdelivered - earlier.misdelivered,
            ring: self.ring - earlier.ring,
        }
    }
}

/// Compares what arrives at a guest with a stream.
#[derive(Debug)]
pub struct Judge {
    stream: Stream,
    tracker: Tracker,
    /// Streams whose frames may turn up by flooding; they are for somebody else.
    others: Vec<Stream>,
    probes: Option<Probes>,
    corrupt: u64,
    misdelivered: u64,
    until_whole: u32,
    expected_body: Vec<u8>,
    found_body: Vec<u8>,
}

impl Judge {
    /// Expects `stream` and nothing else.
    pub fn new(stream: Stream) -> Self {
        let body = vec![0; stream.longest_frame() - HEAD_BYTES];
        Self {
            tracker: Tracker::new(stream.flows()),
            stream,
            others: Vec::new(),
            probes: None,
            corrupt: 0,
            misdelivered: 0,
            // The very first frame is compared whole.
            until_whole: 0,
            expected_body: body.clone(),
            found_body: body,
        }
    }

    /// Names a stream whose frames count as misdelivered here, instead of as corrupt.
    pub fn disown(&mut self, stream: Stream) {
        self.others.push(stream);
    }

    /// Takes frames of a stream for probes, which are no fault whether they come or not.
    pub fn expect_probes(&mut self, stream: Stream) {
        self.probes = Some(Probes { stream, next: None, stops: 0 });
    }

    /// How often probes have stopped coming and come again since.
    pub fn probe_stops(&self) -> u64 {
        self.probes.as_ref().map_or(0, |probes| probes.stops)
    }

    /// Expects a segment's sum of the pseudo-header as a switch leaves it that computes it anew, for
    /// a network card ([`Stream::with_short_sums`]).
    pub fn expect_short_sums(&mut self) {
        self.stream = self.stream.clone().with_short_sums();
    }

    /// How many different good frames have come.
    pub fn arrived(&self) -> u64 {
        self.tracker.arrived
    }

    /// What was wrong so far; `ring` is not the judge's and stays 0.
    pub fn faults(&self) -> Faults {
        Faults {
            // A frame too late to be told from a duplicate is one to the user: he waited for
            // neither.
            duplicated: self.tracker.duplicated + self.tracker.stale,
            reordered: self.tracker.reordered,
            corrupt: self.corrupt,
            misdelivered: self.misdelivered,
            ring: 0,
        }
    }

    /// Notes a frame. `SEGMENTS` is [`Jury::has_segments`]. Returns its sequence number if it is right
    /// and came for the first time.
    #[inline(always)]
    fn decide<const SEGMENTS: bool>(&mut self, frame: &Received<'_>) -> Option<u64> {
        let stamp = Stream::claimed::<SEGMENTS>(&frame.head);
        let header = Offload::of(SEGMENTS).allows(frame.header.offload);
        let whole = frame.length() == self.stream.frame_bytes(stamp.sequence);
        if !(header && whole && is_same(&frame.head, &self.stream.head::<SEGMENTS>(stamp))) {
            self.refuse(frame);
            return None;
        }
        if self.until_whole == 0 {
            self.until_whole = WHOLE_FRAME_EVERY;
            if !self.body_is_right(frame, stamp) {
                self.corrupt += 1;
                return None;
            }
        }
        self.until_whole -= 1;
        self.tracker.record(stamp.sequence).then_some(stamp.sequence)
    }

    #[cold]
    fn refuse(&mut self, frame: &Received<'_>) {
        if let Some(probes) = &mut self.probes
            && frame.length() >= HEAD_BYTES
            && probes.stream.owns(&frame.head)
        {
            probes.note(Stream::claimed::<false>(&frame.head).sequence);
            return;
        }
        let lost_its_way = frame.length() >= HEAD_BYTES
            && self.others.iter().any(|stream| stream.owns(&frame.head));
        if lost_its_way {
            self.misdelivered += 1;
        } else {
            self.corrupt += 1;
        }
    }

    #[cold]
    fn body_is_right(&mut self, frame: &Received<'_>, stamp: Stamp) -> bool {
        let length = self.stream.frame_bytes(stamp.sequence) - HEAD_BYTES;
        let (expected, found) = (&mut self.expected_body[..length], &mut self.found_body[..length]);
        self.stream.body(stamp.slot, expected);
        frame.body(found);
        expected == found
    }
}

/// Frames by which it is seen which rules are in force: one set permits them, the other does not.
#[derive(Debug)]
struct Probes {
    stream: Stream,
    /// The sequence number after the last that came.
    next: Option<u64>,
    stops: u64,
}

impl Probes {
    fn note(&mut self, sequence: u64) {
        self.stops += u64::from(self.next.is_some_and(|next| next != sequence));
        self.next = Some(sequence + 1);
    }
}

impl Jury for Judge {
    #[inline(always)]
    fn has_segments(&self) -> bool {
        self.stream.has_segments()
    }

    #[inline(always)]
    fn judge<const SEGMENTS: bool>(&mut self, frame: &Received<'_>) {
        self.decide::<SEGMENTS>(frame);
    }
}

/// The sequence numbers of the frames that one poll found.
#[derive(Debug)]
pub struct Arrivals<const N: usize> {
    sequences: [u64; N],
    pub(super) count: usize,
}

impl<const N: usize> Arrivals<N> {
    /// None.
    pub fn new() -> Self {
        Self { sequences: [0; N], count: 0 }
    }

    /// In the order in which they came.
    #[inline(always)]
    pub fn sequences(&self) -> &[u64] {
        &self.sequences[..self.count]
    }
}

/// Judges, and takes down what came.
pub(super) struct Clerk<'a, const N: usize> {
    pub(super) judge: &'a mut Judge,
    pub(super) arrivals: &'a mut Arrivals<N>,
}

impl<const N: usize> Jury for Clerk<'_, N> {
    #[inline(always)]
    fn has_segments(&self) -> bool {
        self.judge.has_segments()
    }

    #[inline(always)]
    fn judge<const SEGMENTS: bool>(&mut self, frame: &Received<'_>) {
        if let Some(sequence) = self.judge.decide::<SEGMENTS>(frame) {
            self.arrivals.sequences[self.arrivals.count] = sequence;
            self.arrivals.count += 1;
        }
    }
}

/// Equality without a branch a word or a call, which `==` on arrays is.
#[inline(always)]
fn is_same(one: &Head, two: &Head) -> bool {
    one.iter().zip(two).fold(0, |difference, (one, two)| difference | one ^ two) == 0
}
