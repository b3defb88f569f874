//! Latency: how long frames take from guest to guest at a rate that the switch can carry.
//!
//! The load is open: each frame is due at a fixed time (see `pace`), alone, and its latency is from
//! then until the receiving guest has judged it. What the sender is late by is therefore part of
//! it, be it because the ring is full or because this thread looked elsewhere; nothing is
//! subtracted. Only what is overdue when the sender comes to it leaves together, up to a burst.
//! Both guests are one thread, so both times are of one clock.
//!
//! A virtual machine's cores stop now and then. The sending guest's own stops show as gaps between
//! two looks at the clock, and are counted; those of the switch's core cannot be told from a slow
//! switch, except by what the others show under the same load.

mod pace;
mod summary;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Clock;
use crate::generator::{Generator, QUIET, Span, flood, probe};
use crate::guest::{Arrivals, Faults, Guest};
use crate::machine;
use crate::scenario::Guests;

pub use pace::Pace;
pub use summary::{Capacities, Load, Summary, Turn, Undisturbed, Whose, summaries};
pub use table::{micros, table};

/// The most frames that a guest takes at once, and sends: who sent more than it takes would fill the
/// receiver's ring by itself.
const MOST_AT_ONCE: usize = 64;
/// Rounds of the loop for each look at the guests that should get nothing.
const BYSTANDER_INTERVAL: u64 = 1024;
/// Between two looks at the clock this thread does at most a burst each way, in some microseconds.
/// If it took longer than this, it was not running.
const GAP: Duration = Duration::from_micros(20);
/// The longest latency that is told from a longer one.
const LONGEST: Duration = Duration::from_secs(10);
/// Significant decimal digits of what the histogram tells.
const DIGITS: u8 = 2;
/// How long after the last frame was due the switch may go on.
const OVERTIME: Duration = Duration::from_secs(2);

/// What one run at a fixed rate gave.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Million frames due a second, both directions together.
    pub offered_mpps: f64,
    /// Frames due, settling included.
    pub due: u64,
    /// Frames due that never arrived, sent or not.
    pub lost: u64,
    /// What was wrong with what arrived.
    pub faults: Faults,
    /// From when a frame was due until it was judged; of the frames after settling.
    pub latency: Percentiles,
    /// The same of those frames only during whose way the guests' thread never stood still, so that
    /// what is long is the switch's; absent if there was none.
    pub undisturbed: Option<Percentiles>,
    /// From when a frame was due until its sender came to it, or to the one first due of several:
    /// part of its latency.
    pub sent_late: Percentiles,
    /// Share of the looks at which the ring to the switch had no room for what was due: above a few
    /// percent the switch did not carry the load.
    pub full_looks: f64,
    /// Mean time between two looks at the clock and the rings, in nanoseconds: how finely anything
    /// is seen here.
    pub look_ns: f64,
    /// Moments in which the guests' thread did not run, by gaps of more than 20 µs.
    pub gaps: u64,
    /// The longest of them, in microseconds.
    pub longest_gap_us: f64,
    /// Share of the run in which the kernel had the guests' thread wait for its core.
    pub generator_waited: f64,
}

/// Percentiles of times, in microseconds, to 1 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the frames took at most this.
    pub p50_us: f64,
    /// 90 % did.
    pub p90_us: f64,
    /// 99 % did.
    pub p99_us: f64,
    /// 99.9 % did.
    pub p999_us: f64,
    /// 99.99 % did.
    pub p9999_us: f64,
    /// All did.
    pub max_us: f64,
}

/// Offers `offered_mpps` for a while and measures, both directions together. `None` if none of the
/// measured frames arrived.
pub fn measure(
    generator: &Generator,
    guests: &mut Guests,
    offered_mpps: f64,
    span: Span,
) -> Result<Option<Run>> {
    ensure!(offered_mpps > 0.0, "without a rate there is no latency");
    let clock = Clock::of_machine();
    let mut times = Times::new(clock)?;
    let (faults, waited) = (guests.faults(), machine::waited_seconds());
    let began = clock.now();
    let mut lanes = lanes(generator, guests, offered_mpps, span, began);
    let mut watch = Watch::new(began, clock.ticks(GAP));
    run(guests, &mut lanes, &mut times, &mut watch, span)?;
    let ran = clock.seconds(watch.last - began);
    let waited = machine::waited_seconds() - waited;
    generator.drain(guests)?;
    let percentiles = (times.percentiles(&times.all()?), times.percentiles(&times.sent_late));
    let (Some(latency), Some(sent_late)) = percentiles else { return Ok(None) };
    Ok(Some(Run {
        offered_mpps,
        due: lanes.iter().map(|lane| lane.total).sum(),
        lost: lanes.iter().map(|lane| lane.total - lane.arrived).sum(),
        faults: guests.faults() - faults,
        latency,
        undisturbed: times.percentiles(&times.undisturbed),
        sent_late,
        full_looks: lanes.iter().map(|lane| lane.full_looks).sum::<u64>() as f64
            / watch.looks as f64,
        look_ns: ran * 1e9 / watch.looks as f64,
        gaps: watch.gaps,
        longest_gap_us: clock.seconds(watch.longest) * 1e6,
        generator_waited: waited / ran,
    }))
}

/// From A to B, and back with what is due there; nothing is if the scenario is one way.
fn lanes(
    generator: &Generator,
    guests: &Guests,
    offered_mpps: f64,
    span: Span,
    began: u64,
) -> [Lane; 2] {
    let directions = if generator.both_ways() { 2.0 } else { 1.0 };
    let second = Clock::of_machine().ticks(Duration::from_secs(1)) as f64;
    let interval = second * directions / (offered_mpps * 1e6);
    let frames = |time: Duration| (time.as_secs_f64() * second / interval) as u64;
    let (settling, total) = (frames(span.settle), frames(span.settle + span.measured));
    let lane = |sender: &Guest, began: u64, total: u64| Lane {
        pace: Pace::new(began, interval),
        first: sender.sender.sent(),
        settling,
        total,
        burst: generator.burst().min(MOST_AT_ONCE),
        sent: 0,
        arrived: 0,
        full_looks: 0,
        arrivals: Arrivals::new(),
    };
    let back = if generator.both_ways() { total } else { 0 };
    // Half an interval apart, so that the two senders do not come at once.
    [lane(&guests.a, began, total), lane(&guests.b, began + (interval / 2.0) as u64, back)]
}

/// The loop: sends what is due, receives what is there, until all has arrived or no more comes.
fn run(
    guests: &mut Guests,
    [there, back]: &mut [Lane; 2],
    times: &mut Times,
    watch: &mut Watch,
    span: Span,
) -> Result<()> {
    let clock = times.clock;
    let quiet = clock.ticks(QUIET);
    let deadline = watch.last + clock.ticks(span.settle + span.measured + OVERTIME);
    let mut last_work = watch.last;
    loop {
        let now = clock.now();
        if watch.look(now) {
            times.disturbed_until = now;
        }
        let mut work = there.send(&mut guests.a, now, times);
        work += there.receive(&mut guests.b, times);
        if back.total > 0 {
            work += back.send(&mut guests.b, now, times);
            work += back.receive(&mut guests.a, times);
        }
        if guests.floods {
            flood(guests, MOST_AT_ONCE / 2);
        }
        if work > 0 {
            last_work = now;
        }
        let all_sent = there.sent == there.total && back.sent == back.total;
        let all_arrived = there.arrived == there.total && back.arrived == back.total;
        if all_arrived || all_sent && now > last_work + quiet || now > deadline {
            return Ok(());
        }
        if watch.looks.is_multiple_of(BYSTANDER_INTERVAL) {
            machine::check_interrupt()?;
            if back.total == 0 {
                guests.a.receive(MOST_AT_ONCE);
            }
            for guest in &mut guests.bystanders {
                guest.receive(MOST_AT_ONCE);
            }
            if guests.probes {
                probe(guests);
            }
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    pace: Pace,
    /// The sequence number of the first frame.
    first: u64,
    /// Frames at the beginning that are not measured.
    settling: u64,
    total: u64,
    /// The most frames that are sent at once.
    burst: usize,
    sent: u64,
    arrived: u64,
    /// Looks at which the ring had no room for what was due.
    full_looks: u64,
    /// What the last poll found, kept to spare clearing it.
    arrivals: Arrivals<MOST_AT_ONCE>,
}

impl Lane {
    /// Sends what is due, at most a burst, once there is room for all of that: a guest that fills
    /// each place as it comes free only slows the switch down. Returns 0 if there was nothing to do.
    #[inline(always)]
    fn send(&mut self, from: &mut Guest, now: u64, times: &mut Times) -> usize {
        let reclaimed = from.transmit.reclaim();
        let most = self.burst.min((self.total - self.sent) as usize);
        let overdue = self.pace.overdue(self.sent, now, most);
        if overdue == 0 {
            return reclaimed;
        }
        if from.transmit.room() < overdue {
            self.full_looks += 1;
            return reclaimed;
        }
        if self.sent >= self.settling {
            let late = now - self.pace.due_at(self.sent);
            times.sent_late.saturating_record_n(late, overdue as u32);
        }
        self.sent += from.send(overdue) as u64;
        reclaimed + overdue
    }

    /// Receives, and notes the latency of all that came with one look at the clock after the last,
    /// which costs as much as judging several frames.
    #[inline(always)]
    fn receive(&mut self, to: &mut Guest, times: &mut Times) -> usize {
        let received = to.receive_each(&mut self.arrivals);
        if received > 0 {
            let now = times.clock.now_after();
            for place in 0..self.arrivals.sequences().len() {
                self.arrive(self.arrivals.sequences()[place], now, times);
            }
        }
        received
    }

    /// Notes a frame that has come, unless it is of an earlier run. Those of the settling count, but
    /// not their times.
    #[inline(always)]
    fn arrive(&mut self, sequence: u64, now: u64, times: &mut Times) {
        let Some(frame) = sequence.checked_sub(self.first) else { return };
        self.arrived += 1;
        if frame >= self.settling {
            times.note(self.pace.due_at(frame), now);
        }
    }
}

/// All times of a run, in ticks.
struct Times {
    clock: Clock,
    /// Latencies of frames on whose way the guests' thread stood still.
    disturbed: Histogram<u32>,
    /// Those of all others.
    undisturbed: Histogram<u32>,
    sent_late: Histogram<u32>,
    /// When this thread last came back after it had stood still.
    disturbed_until: u64,
}

impl Times {
    fn new(clock: Clock) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, clock.ticks(LONGEST), DIGITS);
        Ok(Self {
            clock,
            disturbed: histogram()?,
            undisturbed: histogram()?,
            sent_late: histogram()?,
            disturbed_until: 0,
        })
    }

    /// Notes a frame that was due then and judged now.
    #[inline(always)]
    fn note(&mut self, due: u64, now: u64) {
        let histogram =
            if due < self.disturbed_until { &mut self.disturbed } else { &mut self.undisturbed };
        histogram.saturating_record(now.saturating_sub(due));
    }

    /// All latencies.
    fn all(&self) -> Result<Histogram<u32>> {
        let mut all = self.disturbed.clone();
        all.add(&self.undisturbed)?;
        Ok(all)
    }

    fn percentiles(&self, histogram: &Histogram<u32>) -> Option<Percentiles> {
        if histogram.is_empty() {
            return None;
        }
        let us = |ticks: u64| self.clock.seconds(ticks) * 1e6;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
        Some(Percentiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: us(histogram.max()),
        })
    }
}

/// Notices when this thread was not running.
struct Watch {
    last: u64,
    limit: u64,
    looks: u64,
    gaps: u64,
    longest: u64,
}

impl Watch {
    fn new(began: u64, limit: u64) -> Self {
        Self { last: began, limit, looks: 0, gaps: 0, longest: 0 }
    }

    /// Notes a look. Returns whether the thread stood still before it.
    #[inline(always)]
    fn look(&mut self, now: u64) -> bool {
        let since = now.saturating_sub(self.last);
        self.last = now;
        self.looks += 1;
        if since > self.limit {
            self.gaps += 1;
            self.longest = self.longest.max(since);
        }
        since > self.limit
    }
}

#[cfg(test)]
mod tests;
