//! A guest that lives on when the switch ends, and when what happened to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::frame::{Addresses, HEAD_BYTES, Stream};
use crate::front_end::{FrontEnd, Listener};
use crate::guest::{Faults, Guest, ORDINARY_STRIDE, Pages, Shape};

/// Between two looks at the rings.
const LOOK: Duration = Duration::from_micros(500);
/// How long the switch may stay away before the guest looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(200);
/// Frames that a guest takes at once.
const BURST: usize = 64;
/// Frames that may be under way, fewer than buffers.
const WINDOW: usize = 4;

/// A guest with its thread. See the [module's head](self).
pub struct Resident {
    pub milestones: Arc<Milestones>,
    thread: JoinHandle<Result<Faults>>,
}

/// When what happened last to a guest.
#[derive(Debug, Default)]
pub struct Milestones(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last frame of the former session.
    last: Option<Instant>,
    connected: Option<Instant>,
    attached: Option<Instant>,
    /// The first frame of the present one.
    first: Option<Instant>,
    /// The latest frame.
    latest: Option<Instant>,
    /// The longest time between two frames since it was asked to forget.
    silence: Duration,
    /// How often the switch has connected.
    sessions: u32,
    failure: Option<String>,
}

/// The milestones of one blackout.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    pub last: Instant,
    pub connected: Instant,
    pub attached: Instant,
    pub first: Instant,
}

impl Milestones {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        // A thread that panicked ends the measurement by its join.
        change(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// The switch is about to be ended.
    pub fn forget(&self) {
        self.with(|state| {
            (state.connected, state.attached, state.first) = (None, None, None);
        });
    }

    /// Begins to look for the longest silence.
    pub fn listen(&self) {
        self.with(|state| state.silence = Duration::ZERO);
    }

    /// The longest silence so far, one that lasts included, and how often the switch has connected.
    pub fn silence(&self) -> (Duration, u32) {
        self.with(|state| {
            let present = state.latest.map_or(Duration::MAX, |latest| latest.elapsed());
            (state.silence.max(present), state.sessions)
        })
    }

    /// Whether frames come from the present switch.
    pub fn flows(&self) -> bool {
        self.with(|state| state.first.is_some() && state.attached.is_some())
    }

    /// What kept the guest from going on.
    pub fn failure(&self) -> Option<String> {
        self.with(|state| state.failure.clone())
    }

    /// When what happened, if all of it has.
    pub fn spans(&self) -> Option<Spans> {
        self.with(|state| {
            Some(Spans {
                last: state.last?,
                connected: state.connected?,
                attached: state.attached?,
                first: state.first?,
            })
        })
    }

    fn heard(&self) {
        let now = Instant::now();
        self.with(|state| {
            let before = state.latest.replace(now);
            let silence = before.map_or(Duration::ZERO, |before| now - before);
            state.silence = state.silence.max(silence);
            if state.attached.is_some() {
                state.first.get_or_insert(now);
            }
        });
    }

    fn attach(&self, connected: Instant) {
        self.with(|state| {
            state.last = state.latest;
            (state.connected, state.attached) = (Some(connected), Some(Instant::now()));
            state.first = None;
            state.sessions += 1;
        });
    }
}

impl Resident {
    /// A guest on port `number`, which listens for the switch as QEMU does.
    pub fn start(directory: &Path, number: u16, stop: Arc<AtomicBool>) -> Result<Self> {
        let listener = Listener::bind(&super::store::socket(directory, number))?;
        let milestones = Arc::new(Milestones::default());
        let of_thread = Arc::clone(&milestones);
        let thread = std::thread::Builder::new().name(format!("guest-{number}"));
        let thread = thread.spawn(move || {
            let outcome = live(&listener, number, &of_thread, &stop);
            if let Err(error) = &outcome {
                of_thread.with(|state| state.failure = Some(format!("guest {number}: {error:#}")));
            }
            outcome
        })?;
        Ok(Self { milestones, thread })
    }

    /// Waits for the guest's end, and tells what was wrong with what it got.
    pub fn finish(self) -> Result<Faults> {
        self.thread.join().map_err(|_| anyhow!("a guest's thread panicked"))?
    }
}

/// The addresses of the guest on a port.
pub fn addresses(number: u16) -> Addresses {
    Addresses::new(number as u8 + 1, 1)
}

fn live(
    listener: &Listener,
    number: u16,
    milestones: &Milestones,
    stop: &AtomicBool,
) -> Result<Faults> {
    let (own, neighbour) = (addresses(number), addresses(number ^ 1));
    let stream = |from, to| Stream::new(0, &[HEAD_BYTES], 1, from, to);
    let shape =
        Shape { ring: 256, receive_stride: ORDINARY_STRIDE, mergeable: true, pages: Pages::Normal };
    let mut guest = Guest::new(shape, stream(own, neighbour), stream(neighbour, own))?;
    let mut session: Option<FrontEnd> = None;
    while !stop.load(Ordering::Relaxed) {
        if session.as_ref().is_some_and(FrontEnd::is_over) {
            session = None;
        }
        if session.is_none() {
            // A switch that is not there yet is no failure.
            let Ok(mut front_end) = listener.accept(Instant::now() + PATIENCE) else { continue };
            let connected = Instant::now();
            match front_end.start(&guest) {
                Ok(()) => milestones.attach(connected),
                // It was ended meanwhile.
                Err(_) if front_end.is_over() => continue,
                Err(error) => return Err(error),
            }
            session = Some(front_end);
        }
        guest.transmit.reclaim();
        if guest.transmit.outstanding() < WINDOW {
            guest.send(1);
        }
        if guest.receive(BURST) > 0 {
            milestones.heard();
        }
        std::thread::sleep(LOOK);
    }
    Ok(guest.faults())
}
