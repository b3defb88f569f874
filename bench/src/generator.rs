//! The load generator: one thread that is both guests' processors.
//!
//! It polls A's transmit ring and B's receive ring (and the reverse, when both send) without rest.
//! What it finds nothing to do in is counted as idle time: a share near zero means that the bench
//! measured itself. Rates are counted in windows of 5 ms of which the median stands for the run, so
//! that a moment in which the machine did something else does not count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::clock::Clock;
use crate::guest::{Faults, Guest};
use crate::machine;
use crate::scenario::{Guests, Scenario};

/// Frames that a guest sends at once before the measurement.
const WARM_UP_BURST: usize = 32;
/// Frames that a guest takes at once.
const RECEIVE_BURST: usize = 64;
/// Length of a window.
const WINDOW: Duration = Duration::from_millis(5);
/// Polls of the busy guests between two looks at the clock, which costs as much as several polls.
const CLOCK_INTERVAL: u32 = 32;
/// Looks at the clock for each poll of the guests that are not busy.
const BYSTANDER_INTERVAL: u32 = 32;
/// Between bursts of the warm-up: slow enough (0.6 million frames a second) for a switch that
/// learns on a slow path.
const WARM_UP_GAP: Duration = Duration::from_micros(50);
/// The share of the frames that has to arrive at the warm-up's rate.
const LEARNT: f64 = 0.9;
/// The most frames of a pass: enough for each address that a guest can have.
const PASS_MOST: u32 = 1 << 17;
/// How long a pass of random flows may take.
const RANDOM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a switch may take from its start to the first frame delivered.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long frames may be under way after the last was sent before they count as lost.
pub const QUIET: Duration = Duration::from_millis(20);
/// How long a switch may go on delivering after the last frame was sent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a run takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Span {
    /// Load before the measurement, for caches and the core's clock to settle.
    pub settle: Duration,
    /// Load that is measured.
    pub measured: Duration,
}

/// What one run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Million frames delivered a second: the median window's rate, both directions together. Where
    /// flows are random and most windows are empty, the mean.
    pub mpps: f64,
    /// The lower and upper quartile of the windows' rates.
    pub mpps_quartiles: [f64; 2],
    /// Frames sent, settling included.
    pub sent: u64,
    /// Frames sent that never arrived; negative when late ones of an earlier run did.
    pub lost: i64,
    /// What was wrong with what arrived.
    pub faults: Faults,
    /// Frames that came to guests that they were not for, by flooding.
    pub flooded: u64,
    /// Frames that a guest found at once, on average.
    pub burst: f64,
    /// Share of the measured time in which the generator found nothing to do.
    pub generator_idle: f64,
    /// Share of the run in which the generator's thread was ready but had no core.
    pub generator_waited: f64,
    /// How often the switch had to be woken; a polling switch needs none.
    pub kicks: u64,
}

/// Drives the guests of one switch at a time.
#[derive(Debug)]
pub struct Generator {
    clock: Clock,
    both_ways: bool,
    /// Whether flows are random, so that there is nothing to learn that would help later.
    random: bool,
    /// Frames that a guest sends at once.
    burst: usize,
}

impl Generator {
    /// A generator for the calling thread, which should be bound to a core.
    pub fn new(scenario: &Scenario) -> Self {
        let Scenario { both_ways, random, burst, .. } = *scenario;
        Self { clock: Clock::of_machine(), both_ways, random, burst: usize::from(burst) }
    }

    /// Whether both guests send.
    pub fn both_ways(&self) -> bool {
        self.both_ways
    }

    /// The most frames that a guest sends at once.
    pub fn burst(&self) -> usize {
        self.burst
    }

    /// Waits until the switch forwards both ways, then sends every flow each way, the answers after
    /// the questions, twice or until nearly all arrive, so that a switch that learns has learnt. Random
    /// flows are not awaited: a switch that can only learn them one by one would do so for ever.
    pub fn warm_up(&self, guests: &mut Guests) -> Result<()> {
        self.await_forwarding(&mut guests.a, &mut guests.b).context("from A to B")?;
        self.await_forwarding(&mut guests.b, &mut guests.a).context("from B to A")?;
        // Passes are repeated for switches that learn on a slow path and lose meanwhile.
        let deadline = Instant::now() + READY_TIMEOUT;
        for round in 0.. {
            let there = self.pass(&mut guests.a, &mut guests.b)?;
            let back = self.pass(&mut guests.b, &mut guests.a)?;
            if round > 0 && (self.random || there.min(back) >= LEARNT) {
                break;
            }
            ensure!(
                round == 0 || Instant::now() < deadline,
                "at a low rate only {:.1} % of the frames from A to B arrive, and {:.1} % from B to A",
                there * 100.0,
                back * 100.0
            );
        }
        if guests.floods {
            // Its target is not known yet; what goes to an unknown address would go to everybody.
            guests.bystanders[1].send(1);
        }
        self.drain(guests)
    }

    /// Sends as fast as the switch takes frames, and measures.
    pub fn run(&self, guests: &mut Guests, span: Span) -> Result<Run> {
        let before = Totals::of(guests);
        let waited_before = machine::waited_seconds();
        let began = Instant::now();
        self.load(guests, span.settle)?;
        let load = self.load(guests, span.measured)?;
        let ran = began.elapsed().as_secs_f64();
        let waited = machine::waited_seconds() - waited_before;
        self.drain(guests)?;
        let after = Totals::of(guests);
        let mean = load.window_rates.iter().sum::<f64>() / load.window_rates.len().max(1) as f64;
        let [low, mut median, high] = quartiles(load.window_rates)
            .context("the run was too short for a single window: give it more time")?;
        if self.random && median == 0.0 {
            // A switch that takes a slow path for each of them delivers less than a frame a window,
            // which is not the same as one that stands still.
            median = mean;
        }
        Ok(Run {
            mpps: median / 1e6,
            mpps_quartiles: [low / 1e6, high / 1e6],
            sent: after.sent - before.sent,
            lost: (after.sent - before.sent) as i64 - (after.arrived - before.arrived) as i64,
            faults: after.faults - before.faults,
            flooded: after.flooded - before.flooded,
            burst: (after.arrived - before.arrived) as f64
                / (after.bursts - before.bursts).max(1) as f64,
            generator_idle: load.idle_share,
            generator_waited: waited / ran,
            kicks: after.kicks - before.kicks,
        })
    }

    /// After a run without frames: how long it takes until one comes.
    pub fn await_recovery(&self, guests: &mut Guests) -> Result<Duration> {
        let began = Instant::now();
        self.await_forwarding(&mut guests.a, &mut guests.b)?;
        let delay = began.elapsed();
        self.drain(guests)?;
        Ok(delay)
    }

    /// The hot loop: full load for a while.
    fn load(&self, guests: &mut Guests, duration: Duration) -> Result<Load> {
        let window_ticks = self.clock.ticks(WINDOW);
        let began = self.clock.now();
        let end = began + self.clock.ticks(duration);
        let mut window_rates = Vec::with_capacity(1 + (duration.as_millis() / 5) as usize);
        let (mut window_began, mut window_end) = (began, began + window_ticks);
        let mut arrived_before = arrived(guests);
        let (mut now, mut idle_ticks) = (began, 0);
        // The end of the last poll that found nothing; 0 if the last poll found something.
        let mut idle_since = 0;
        let (mut until_clock, mut until_bystanders) = (CLOCK_INTERVAL, BYSTANDER_INTERVAL);
        while now < end {
            let mut work = offer(&mut guests.a, self.burst);
            work += guests.b.receive(RECEIVE_BURST);
            if self.both_ways {
                work += offer(&mut guests.b, self.burst);
                work += guests.a.receive(RECEIVE_BURST);
            }
            if guests.floods {
                work += flood(guests, self.burst);
            }
            if work > 0 {
                idle_since = 0;
            } else {
                // Who has nothing to do has time for the clock.
                let turn = self.clock.now();
                if idle_since != 0 {
                    idle_ticks += turn - idle_since;
                }
                idle_since = turn;
            }
            until_clock -= 1;
            if until_clock > 0 {
                continue;
            }
            until_clock = CLOCK_INTERVAL;
            until_bystanders -= 1;
            if until_bystanders == 0 {
                until_bystanders = BYSTANDER_INTERVAL;
                guests.a.receive(RECEIVE_BURST);
                for guest in &mut guests.bystanders {
                    guest.receive(RECEIVE_BURST);
                }
                if guests.probes {
                    probe(guests);
                }
            }
            now = self.clock.now();
            if now >= window_end {
                let arrived_now = arrived(guests);
                let seconds = self.clock.seconds(now - window_began);
                window_rates.push((arrived_now - arrived_before) as f64 / seconds);
                arrived_before = arrived_now;
                (window_began, window_end) = (now, now + window_ticks);
                machine::check_interrupt()?;
            }
        }
        Ok(Load { window_rates, idle_share: idle_ticks as f64 / (now - began) as f64 })
    }

    /// Sends single frames until one arrives.
    fn await_forwarding(&self, from: &mut Guest, to: &mut Guest) -> Result<()> {
        let arrived = to.judge.arrived();
        let deadline = Instant::now() + READY_TIMEOUT;
        while to.judge.arrived() == arrived {
            machine::check_interrupt()?;
            ensure!(
                Instant::now() < deadline,
                "no frame arrived within {} s ({} sent, {:?})",
                READY_TIMEOUT.as_secs(),
                from.sender.sent(),
                to.faults()
            );
            from.transmit.reclaim();
            from.send(1);
            let next = Instant::now() + Duration::from_millis(5);
            while Instant::now() < next && to.judge.arrived() == arrived {
                to.receive(RECEIVE_BURST);
            }
        }
        Ok(())
    }

    /// Sends every flow once, slowly, or the first [`PASS_MOST`] of them. Returns the share that arrived.
    fn pass(&self, from: &mut Guest, to: &mut Guest) -> Result<f64> {
        let (sent, arrived) = (from.sender.sent(), to.judge.arrived());
        let frames = u64::from(from.sender.flows().clamp(256, PASS_MOST));
        // A hundred times what it takes at the warm-up's own pace.
        let patience = READY_TIMEOUT + WARM_UP_GAP * (frames * 3) as u32;
        let deadline = Instant::now() + if self.random { RANDOM_TIMEOUT } else { patience };
        while from.sender.sent() < sent + frames {
            machine::check_interrupt()?;
            if self.random && Instant::now() > deadline {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "after {} frames the switch takes no more",
                from.sender.sent()
            );
            from.transmit.reclaim();
            from.send(WARM_UP_BURST);
            let next = Instant::now() + WARM_UP_GAP;
            while Instant::now() < next {
                to.receive(RECEIVE_BURST);
            }
        }
        let mut last = Instant::now();
        while to.judge.arrived() - arrived < from.sender.sent() - sent && last.elapsed() < QUIET {
            from.transmit.reclaim();
            if to.receive(RECEIVE_BURST) > 0 {
                last = Instant::now();
            }
        }
        Ok((to.judge.arrived() - arrived) as f64 / (from.sender.sent() - sent).max(1) as f64)
    }

    /// Receives until nothing comes any more, so that the next run begins with empty rings.
    pub fn drain(&self, guests: &mut Guests) -> Result<()> {
        let began = Instant::now();
        let mut last = began;
        while last.elapsed() < QUIET && began.elapsed() < DRAIN_TIMEOUT {
            machine::check_interrupt()?;
            let mut work = guests.a.receive(RECEIVE_BURST) + guests.b.receive(RECEIVE_BURST);
            work += guests.a.transmit.reclaim() + guests.b.transmit.reclaim();
            work +=
                guests.bystanders.iter_mut().map(|one| one.receive(RECEIVE_BURST)).sum::<usize>();
            if work > 0 {
                last = Instant::now();
            }
            let totals = Totals::of(guests);
            if totals.sent == totals.arrived && totals.outstanding == 0 {
                break;
            }
        }
        Ok(())
    }
}

struct Load {
    /// Frames a second, one for each window.
    window_rates: Vec<f64>,
    idle_share: f64,
}

/// Counters of all guests of a switch since they were made.
struct Totals {
    sent: u64,
    arrived: u64,
    outstanding: usize,
    /// Polls that found frames.
    bursts: u64,
    faults: Faults,
    flooded: u64,
    kicks: u64,
}

impl Totals {
    fn of(guests: &Guests) -> Self {
        let kicks = guests.all().map(Guest::kicks).sum();
        Self {
            sent: guests.a.sender.sent() + guests.b.sender.sent(),
            arrived: arrived(guests),
            outstanding: guests.a.transmit.outstanding() + guests.b.transmit.outstanding(),
            bursts: guests.a.receive.bursts() + guests.b.receive.bursts(),
            faults: guests.faults(),
            flooded: guests.flooded(),
            kicks,
        }
    }
}

/// Takes back what the switch is done with and sends a burst once there is room for a whole one, as
/// a saturated guest does. Returns 0 if there was nothing to do.
#[inline(always)]
fn offer(guest: &mut Guest, burst: usize) -> usize {
    let reclaimed = guest.transmit.reclaim();
    if guest.transmit.room() < burst {
        return reclaimed;
    }
    reclaimed + guest.send(burst)
}

/// The first bystander sends what the second's rules drop. Apart from [`offer`], as the loop is fast
/// when it is small.
#[cold]
#[inline(never)]
pub fn flood(guests: &mut Guests, burst: usize) -> usize {
    offer(&mut guests.bystanders[0], burst)
}

/// The first bystander sends a frame to A, whose rules let it through or not.
#[cold]
#[inline(never)]
pub fn probe(guests: &mut Guests) {
    let prober = &mut guests.bystanders[0];
    prober.transmit.reclaim();
    prober.send(1);
}

fn arrived(guests: &Guests) -> u64 {
    guests.a.judge.arrived() + guests.b.judge.arrived()
}

/// Lower quartile, median and upper quartile, if there is anything.
pub fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    // Linear between the two neighbours.
    let at = |part: f64| {
        let place = part * last as f64;
        let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some([at(0.25), at(0.5), at(0.75)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_few_values() {
        assert_eq!(quartiles(vec![]), None);
        assert_eq!(quartiles(vec![3.0]), Some([3.0; 3]));
        assert_eq!(quartiles(vec![4.0, 1.0]), Some([1.75, 2.5, 3.25]));
        assert_eq!(quartiles(vec![5.0, 1.0, 3.0, 2.0, 4.0]), Some([2.0, 3.0, 4.0]));
    }
}
