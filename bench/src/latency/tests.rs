//! Does the measurement see what it should? Latency's own arithmetic, and runs through a switch
//! that stands still on purpose.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::guest::Pages;
use crate::guest::tests::Device;
use crate::outcome::{Entrant, Outcome, State};
use crate::scenario::Scenario;

fn times() -> Times {
    Times::new(Clock::of_machine()).expect("a histogram of ten seconds")
}

/// A lane that begins at tick 1000 with sequence number 7, a frame each 100 ticks, the first two of
/// ten not measured.
fn lane() -> Lane {
    Lane {
        pace: Pace::new(1_000, 100.0),
        first: 7,
        settling: 2,
        total: 10,
        burst: 32,
        sent: 0,
        arrived: 0,
        full_looks: 0,
        arrivals: Arrivals::new(),
    }
}

#[test]
fn latency_counts_from_when_a_frame_was_due() {
    let (mut lane, mut times) = (lane(), times());
    // Frame 5 was due at 1500, whenever it was sent.
    lane.arrive(7 + 5, 1_720, &mut times);
    assert_eq!((times.undisturbed.len(), times.undisturbed.count_at(220)), (1, 1));
    assert_eq!(lane.arrived, 1);
}

#[test]
fn frames_under_way_while_the_guests_stood_still_are_kept_apart() {
    let (mut lane, mut times) = (lane(), times());
    times.disturbed_until = 1_600;
    // Due at 1500 and at 1600.
    lane.arrive(7 + 5, 1_720, &mut times);
    lane.arrive(7 + 6, 1_720, &mut times);
    let counts = |times: &Times| {
        let all = times.all().expect("histograms alike");
        (times.disturbed.count_at(220), times.undisturbed.count_at(120), all.len())
    };
    assert_eq!(counts(&times), (1, 1, 2));
}

#[test]
fn the_settlings_frames_count_but_not_their_times() {
    let (mut lane, mut times) = (lane(), times());
    lane.arrive(7 + 1, 1_720, &mut times);
    assert_eq!((lane.arrived, times.undisturbed.len()), (1, 0));
    // A frame that was sent before this run began.
    lane.arrive(6, 1_720, &mut times);
    assert_eq!((lane.arrived, times.undisturbed.len()), (1, 0));
}

#[test]
fn percentiles_are_right_to_a_hundredth() {
    let times = times();
    let mut histogram = times.undisturbed.clone();
    assert_eq!(times.percentiles(&histogram), None);
    let millisecond = times.clock.ticks(Duration::from_millis(1));
    (1..=2_000).for_each(|step| histogram.saturating_record(step * millisecond));
    let found = times.percentiles(&histogram).expect("2000 values");
    let expected = [1e6, 1.8e6, 1.98e6, 1.998e6, 2e6, 2e6];
    let [high, highest] = [found.p999_us, found.p9999_us];
    let found = [found.p50_us, found.p90_us, found.p99_us, high, highest, found.max_us];
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found / expected - 1.0).abs() < 0.01, "{found} us instead of {expected} us");
    }
}

#[test]
fn gaps_are_counted_with_the_longest() {
    let mut watch = Watch::new(100, 20);
    let stood = [110, 130, 151, 160, 260, 280].map(|now| watch.look(now));
    assert_eq!(stood, [false, false, true, false, true, false]);
    assert_eq!((watch.looks, watch.gaps, watch.longest), (6, 2, 100));
}

#[test]
fn loads_are_parts_of_the_capacity_in_the_same_state() {
    let mut all = Capacities::of(&[]);
    assert_eq!(all.within(0, State::Near), None);
    let mut add = |entrant: usize, round_trip_ns: f64, mpps: f64| {
        all.add(entrant, State::of(&[Some(round_trip_ns)]), mpps);
    };
    add(0, 110.0, 8.0);
    add(0, 110.0, 9.0);
    add(0, 110.0, 10.0);
    add(0, 330.0, 4.0);
    add(1, 330.0, 3.0);
    assert_eq!(all.within(0, State::Near), Some(9.0));
    assert_eq!(all.within(0, State::Far), Some(4.0));
    assert_eq!(all.within(1, State::Near), None);
    assert_eq!(all.overall(0), Some(8.5));
}

/// Runs two guests for 0.2 s, half of that settling, at 10 000 frames a second in each direction, on
/// a thread that forwards all frames but each `lost_each`th and stands still for a time after 0.12 s.
fn through_a_bad_switch(still: Duration, lost_each: u64, both_ways: bool) -> Run {
    // Far fewer descriptors than frames due while the switch stands.
    let scenario = Scenario { ring: 64, both_ways, ..Scenario::one_way("test", 64) };
    let mut guests = Guests::new(&scenario, 2, 1, Pages::Normal).expect("two guests");
    let (mut a, mut b) = (Device::of(&guests.a), Device::of(&guests.b));
    let directions = if both_ways { 2 } else { 1 };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut frames, mut stood) = (0, false);
            while !over.load(Ordering::Relaxed) {
                let before = frames;
                forward(&mut a, &mut b, &mut frames, lost_each);
                forward(&mut b, &mut a, &mut frames, lost_each);
                if frames >= 1_200 * directions && !stood {
                    thread::sleep(still);
                    stood = true;
                }
                if frames == before {
                    // The guests may have no core but this one.
                    thread::yield_now();
                }
            }
        });
        let half = Duration::from_millis(100);
        let span = Span { settle: half, measured: half };
        let run = measure(&Generator::new(&scenario), &mut guests, 0.01 * directions as f64, span);
        over.store(true, Ordering::Relaxed);
        run.expect("no interrupt").expect("frames arrived")
    })
}

fn forward(from: &mut Device, to: &mut Device, frames: &mut u64, lost_each: u64) {
    while to.has_room() {
        let Some(frame) = from.take() else { break };
        *frames += 1;
        if !frames.is_multiple_of(lost_each) {
            to.put(&frame);
        }
    }
}

#[test]
fn frames_that_a_standing_switch_kept_from_being_sent_have_waited_too() {
    for both_ways in [false, true] {
        let run = through_a_bad_switch(Duration::from_millis(60), u64::MAX, both_ways);
        assert_eq!(run.due, if both_ways { 4_000 } else { 2_000 });
        assert_eq!(run.faults.total(), 0, "{run:?}");
        // 60 % of the frames were due while it stood. Who begins to count only when there is room
        // would have seen the 64 of a ring wait, of 1000, and next to nothing at 90 %.
        assert!(run.latency.p90_us > 40_000.0, "{run:?}");
        assert!(run.latency.max_us > 55_000.0, "{run:?}");
        assert!(run.sent_late.p90_us > 30_000.0 && run.full_looks > 0.0, "{run:?}");
    }
}

#[test]
fn frames_that_never_come_are_counted_and_not_awaited() {
    let run = through_a_bad_switch(Duration::ZERO, 10, false);
    assert!(run.lost >= 200 && run.lost < run.due, "{run:?}");
    assert_eq!((run.due, run.faults.total()), (2_000, 0), "{run:?}");
}

/// A run in which everything took `scale` microseconds, or the percentile's multiple of that.
fn turn(entrant: usize, load: Load, round_trip_ns: f64, scale: f64) -> Turn {
    let percentiles = |scale: f64| Percentiles {
        p50_us: scale,
        p90_us: scale * 2.0,
        p99_us: scale * 3.0,
        p999_us: scale * 4.0,
        p9999_us: scale * 4.5,
        max_us: scale * 5.0,
    };
    let run = Run {
        offered_mpps: 2.0,
        due: 100,
        lost: 1,
        faults: Faults::default(),
        latency: percentiles(scale),
        undisturbed: (scale < 9.0).then(|| percentiles(scale / 2.0)),
        sent_late: percentiles(scale / 10.0),
        full_looks: 0.0,
        look_ns: 20.0,
        gaps: 2,
        longest_gap_us: 30.0,
        generator_waited: 0.0,
    };
    let round_trip_ns = [Some(round_trip_ns); 2];
    Turn { entrant, load, capacity_mpps: 4.0, round_trip_ns, run }
}

fn outcome(latency: Vec<Turn>) -> Outcome {
    let entrants = ["testpmd", "x"].map(|name| Entrant {
        name: name.to_owned(),
        command: String::new(),
        ports: 2,
        huge_pages: true,
        faults: Faults::default(),
        stalls_seconds: Vec::new(),
        swaps: None,
    });
    let (scenario, entrants) = (Scenario::one_way("s", 64), entrants.to_vec());
    Outcome { scenario, entrants, turns: Vec::new(), latency }
}

#[test]
fn a_result_is_the_median_of_runs_in_one_state_and_the_longest_of_all() {
    let [low, high] = [Load::ALL[0], Load::ALL[2]];
    let scales = [1.0, 2.0, 9.0];
    let mut turns: Vec<_> = scales.map(|scale| turn(1, low, 110.0, scale)).into();
    turns.push(turn(1, low, 330.0, 7.0));
    turns.push(turn(1, high, 110.0, 8.0));
    turns.push(turn(0, low, 110.0, 0.5));
    let all = summaries(&outcome(turns));
    let of = |switch: &str, load: Load, state: State| {
        let found: Vec<_> = all
            .iter()
            .filter(|one| (one.switch.as_str(), one.load, one.state) == (switch, load, state))
            .collect();
        assert_eq!(found.len(), 1, "{switch} {}", load.name());
        found[0]
    };
    assert_eq!(all.len(), 4);
    let x = of("x", low, State::Near);
    assert_eq!((x.runs, x.p50_us, x.p90_us, x.p99_us, x.p999_us), (3, 2.0, 4.0, 6.0, 8.0));
    assert_eq!((x.p9999_us, x.max_us, x.gaps, x.lost), (9.0, 45.0, 6, 0.01));
    // Of the two runs that have any.
    assert_eq!(x.undisturbed, Some(Undisturbed { p9999_us: 3.375, max_us: 5.0 }));
    assert_eq!(of("x", low, State::Far).p50_us, 7.0);
    assert_eq!(of("x", high, State::Near).p50_us, 8.0);
    assert_eq!(of("testpmd", low, State::Near).p50_us, 0.5);
}

#[test]
fn the_table_leaves_out_states_hardly_seen_where_there_are_others() {
    let load = Load::ALL[0];
    let mut turns = vec![turn(0, load, 330.0, 1.0)];
    turns.extend([110.0; 3].map(|ns| turn(1, load, ns, 1.0)));
    turns.push(turn(1, load, 330.0, 1.0));
    let text = table(&summaries(&outcome(turns))).expect("two rows");
    let rows = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!((rows("| testpmd | far "), rows("| x       | near "), rows("ns |")), (1, 1, 2));
}

#[test]
fn the_table_marks_who_could_not_keep_up() {
    assert_eq!(table(&[]), None);
    let load = Load { percent: 50, of: Whose::Reference };
    let mut turns = vec![turn(0, load, 110.0, 1.0), turn(1, load, 110.0, 123.4)];
    let row = |turns: &[Turn], switch: &str| {
        let text = table(&summaries(&outcome(turns.to_vec()))).expect("two rows");
        let row = text.lines().find(|line| line.contains(switch)).map(str::to_owned);
        row.expect("a row for each switch")
    };
    let x = row(&turns, "| x ");
    for part in ["50 % of testpmd", "near 110 ns", " 2.00 ", " 123 ", " 494 ", " 617 ", "1.00 %"] {
        assert!(x.contains(part), "{part:?} in {x}");
    }
    assert!(x.contains("12.3 / 37.0") && !x.contains('#') && !x.contains('+'), "{x}");
    turns[1].run.sent_late.p50_us = 100.0;
    assert!(row(&turns, "| x ").contains("| + "));
    turns[1].run.full_looks = 0.2;
    assert!(row(&turns, "| x ").contains("| # "));
    assert!(!row(&turns, "| testpmd ").contains(['#', '+']));
}
