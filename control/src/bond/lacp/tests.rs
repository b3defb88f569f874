//! Each transition of the machines, and what two ends agree to over a bad link.

use proptest::prelude::*;

use super::pdu::{FRAME_BYTES, Information};
use super::*;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const RULES: LacpRules = LacpRules { fast: true, system_priority: 65535, fallback: true };
const UP: Look = Look { up: true, trusted: true };
const DOWN: Look = Look { up: false, trusted: false };
const ALL: [State; 8] = [
    State::ACTIVITY,
    State::TIMEOUT,
    State::AGGREGATION,
    State::SYNCHRONIZATION,
    State::COLLECTING,
    State::DISTRIBUTING,
    State::DEFAULTED,
    State::EXPIRED,
];

fn state(bits: &[State]) -> State {
    bits.iter().fold(State::default(), |state, bit| state.with(*bit, true))
}

/// One end whose partner is the test.
struct Bench {
    lacp: Lacp,
    begin: Instant,
    looks: Vec<Look>,
    /// What each member has sent, by the millisecond.
    sent: Vec<Vec<(u64, Lacpdu)>>,
}

impl Bench {
    fn new(members: usize) -> Bench {
        let begin = Instant::now();
        let mut lacp = Lacp::new(RULES, members, begin);
        lacp.identify(A);
        Bench { lacp, begin, looks: vec![UP; members], sent: vec![Vec::new(); members] }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    /// Runs at this millisecond, and sends what is due.
    fn run(&mut self, ms: u64) -> Carriers {
        let now = self.at(ms);
        self.lacp.run(now, &self.looks);
        for member in 0..self.looks.len() {
            if let Some(pdu) = self.lacp.due(member, now) {
                self.lacp.sent(member, now);
                self.sent[member].push((ms, pdu));
            }
        }
        self.lacp.carriers(Carriers::One(0))
    }

    fn last(&self, member: usize) -> Lacpdu {
        self.sent[member].last().expect("something was sent").1
    }

    /// What a partner says that knows all that was sent by the member last.
    fn partner(&self, member: usize, system: [u8; 6], key: u16, state: State) -> Lacpdu {
        let system = System { priority: 100, mac: system };
        let port = 7 + member as u16;
        let actor = Information { system, key, port_priority: 128, port, state };
        Lacpdu { actor, partner: self.last(member).actor }
    }

    fn hear(&mut self, ms: u64, member: usize, pdu: &Lacpdu) -> Carriers {
        let now = self.at(ms);
        self.lacp.hear(member, pdu, now);
        self.run(ms)
    }

    fn mux(&self, member: usize) -> Mux {
        self.lacp.ports[member].mux
    }

    fn receive(&self, member: usize) -> Receive {
        self.lacp.ports[member].receive
    }

    fn why(&self, member: usize) -> String {
        self.lacp.why(member).map(|why| why.to_string()).unwrap_or_default()
    }
}

const TALKING: &[State] = &[State::ACTIVITY, State::TIMEOUT, State::AGGREGATION];
const SYNC: &[State] =
    &[State::ACTIVITY, State::TIMEOUT, State::AGGREGATION, State::SYNCHRONIZATION];
const OPEN: &[State] = &[
    State::ACTIVITY,
    State::TIMEOUT,
    State::AGGREGATION,
    State::SYNCHRONIZATION,
    State::COLLECTING,
    State::DISTRIBUTING,
];

/// A bench both of whose members carry, at 1000 ms.
fn carrying() -> Bench {
    let mut bench = Bench::new(2);
    bench.run(0);
    for member in 0..2 {
        bench.hear(100, member, &bench.partner(member, B, 5, state(TALKING)));
    }
    for member in 0..2 {
        bench.hear(1000, member, &bench.partner(member, B, 5, state(OPEN)));
    }
    assert_eq!(bench.run(1000), Carriers::Agreed { send: 0b11, hear: 0b11 });
    bench
}

#[test]
fn a_link_opens_step_by_step() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.run(0), Carriers::Nobody);
    assert_eq!(bench.receive(0), Receive::Expired);
    let first = bench.last(0);
    let said = state(&[TALKING, &[State::DEFAULTED, State::EXPIRED]].concat());
    assert_eq!(first.actor.state, said, "{:?}", first.actor.state.words());
    assert_eq!((first.actor.system, first.actor.port), (System { priority: 65535, mac: A }, 1));
    assert_eq!(bench.why(0), "its partner has not spoken LACP yet");

    // A partner that is there: we are attached, and nothing is collected before it is in sync.
    assert_eq!(bench.hear(10, 0, &bench.partner(0, B, 5, state(TALKING))), Carriers::Nobody);
    assert_eq!((bench.receive(0), bench.mux(0)), (Receive::Current, Mux::Attached));
    assert_eq!(bench.last(0).actor.state, state(SYNC));
    assert_eq!(bench.why(0), "its partner keeps it on standby");
    let pdu = bench.partner(0, B, 5, state(SYNC));
    assert_eq!(bench.hear(20, 0, &pdu), Carriers::Agreed { send: 0, hear: 1 });
    assert_eq!(bench.mux(0), Mux::Collecting);
    assert_eq!(bench.last(0).actor.state, state(SYNC).with(State::COLLECTING, true));
    // It collects: we send.
    let pdu = bench.partner(0, B, 5, state(OPEN));
    assert_eq!(bench.hear(30, 0, &pdu), Carriers::Agreed { send: 1, hear: 1 });
    assert_eq!(bench.why(0), "");

    // What is taken back by the partner is by us, one step after the other.
    let pdu = bench.partner(0, B, 5, state(SYNC));
    assert_eq!(bench.hear(1500, 0, &pdu), Carriers::Agreed { send: 0, hear: 1 });
    assert_eq!(bench.why(0), "its partner does not take frames by it yet");
    let pdu = bench.partner(0, B, 5, state(TALKING));
    assert_eq!(bench.hear(1600, 0, &pdu), Carriers::Nobody);
    assert_eq!(bench.mux(0), Mux::Attached);
}

#[test]
fn nothing_is_said_without_an_address_and_nothing_heard_on_a_dead_link() {
    let begin = Instant::now();
    let mut lacp = Lacp::new(RULES, 1, begin);
    lacp.run(begin, &[UP]);
    assert_eq!(lacp.due(0, begin), None);
    let why = lacp.status(begin).ports[0].why.as_ref().map(ToString::to_string);
    assert!(why.is_some_and(|why| why.starts_with("no device of the bond has an address")));
    lacp.identify(A);
    lacp.identify(B);
    assert_eq!(lacp.mac(), Some(A), "the first stays");

    let mut bench = Bench::new(1);
    bench.run(0);
    let pdu = bench.partner(0, B, 5, state(OPEN));
    bench.looks[0] = DOWN;
    bench.run(10);
    let before = bench.sent[0].len();
    bench.hear(20, 0, &pdu);
    assert_eq!((bench.receive(0), bench.mux(0)), (Receive::Disabled, Mux::Detached));
    for ms in (30..9_000).step_by(50) {
        bench.run(ms);
    }
    assert_eq!(bench.sent[0].len(), before, "nothing is sent by it");
}

#[test]
fn a_lost_link_is_left_at_once_and_comes_back_by_the_partner_that_is_known() {
    let mut bench = carrying();
    bench.looks[1] = DOWN;
    assert_eq!(bench.run(1010), Carriers::Agreed { send: 0b01, hear: 0b01 });
    bench.looks[1] = Look { up: true, trusted: false };
    assert_eq!(bench.run(2000), Carriers::Agreed { send: 0b01, hear: 0b01 });
    assert_eq!((bench.receive(1), bench.mux(1)), (Receive::Expired, Mux::Waiting));
    bench.hear(2100, 1, &bench.partner(1, B, 5, state(SYNC)));
    assert_eq!(bench.mux(1), Mux::Waiting);
    assert_eq!(bench.why(1), "its link was not up for long enough");
    bench.looks[1] = UP;
    bench.run(3000);
    assert_eq!(bench.mux(1), Mux::Collecting, "it is in sync, and does not collect");
    let pdu = bench.partner(1, B, 5, state(OPEN));
    assert_eq!(bench.hear(3200, 1, &pdu), Carriers::Agreed { send: 0b11, hear: 0b11 });
}

#[test]
fn a_silent_partner_is_left_after_three_periods_and_forgotten_after_three_more() {
    let mut bench = carrying();
    bench.hear(2000, 0, &bench.partner(0, B, 5, state(OPEN)));
    assert_eq!(bench.run(3999), Carriers::Agreed { send: 0b11, hear: 0b11 });
    assert_eq!(bench.run(4000), Carriers::Agreed { send: 0b01, hear: 0b01 });
    assert_eq!(bench.receive(1), Receive::Expired);
    assert_eq!(bench.why(1), "its partner has spoken LACP and fallen silent");
    assert!(bench.last(1).actor.state.has(State::EXPIRED), "the partner is told");
    // Only when nobody speaks any more does one carry alone.
    assert_eq!(bench.run(5000), Carriers::Nobody);
    assert_eq!(bench.run(7000), Carriers::Nobody);
    assert_eq!((bench.receive(0), bench.receive(1)), (Receive::Expired, Receive::Defaulted));
    assert_eq!(bench.run(8000), Carriers::One(0));
    assert!(bench.last(0).actor.state.has(State::DEFAULTED));
    assert!(bench.lacp.status(bench.at(8000)).fallback);
    // And when it speaks again, that ends.
    bench.hear(9500, 1, &bench.partner(1, B, 5, state(TALKING)));
    assert_eq!(bench.lacp.carriers(Carriers::One(0)), Carriers::Nobody);
}

#[test]
fn without_a_partner_one_member_carries_or_nobody() {
    for fallback in [true, false] {
        let mut bench = Bench::new(2);
        bench.lacp.set_rules(LacpRules { fallback, ..RULES });
        assert_eq!(bench.run(0), Carriers::Nobody);
        assert_eq!(bench.run(2999), Carriers::Nobody);
        let expected = if fallback { Carriers::One(0) } else { Carriers::Nobody };
        assert_eq!(bench.run(3000), expected);
        assert!(bench.why(0).starts_with("its partner does not speak LACP"), "{}", bench.why(0));
        bench.looks = vec![DOWN; 2];
        bench.run(3100);
        assert_eq!(bench.lacp.carriers(Carriers::Nobody), Carriers::Nobody);
    }
}

#[test]
fn a_slow_partner_is_waited_for_for_90_seconds() {
    let mut bench = Bench::new(1);
    bench.lacp.set_rules(LacpRules { fast: false, ..RULES });
    bench.run(0);
    assert!(!bench.last(0).actor.state.has(State::TIMEOUT), "it need not be fast");
    bench.hear(100, 0, &bench.partner(0, B, 5, state(OPEN)));
    bench.run(90_099);
    assert_eq!(bench.receive(0), Receive::Current);
    bench.run(90_100);
    assert_eq!(bench.receive(0), Receive::Expired);
}

#[test]
fn lacpdus_are_sent_as_often_as_the_partner_wants() {
    let slow = state(OPEN).with(State::TIMEOUT, false);
    for (wish, expected) in [(state(OPEN), 30), (slow, 1)] {
        let mut bench = Bench::new(1);
        bench.run(0);
        let heard = |bench: &mut Bench, ms| {
            let pdu = bench.partner(0, B, 5, wish);
            bench.hear(ms, 0, &pdu);
        };
        (100..=2000).step_by(100).for_each(|ms| heard(&mut bench, ms));
        let before = bench.sent[0].len();
        (2100..=32_000).step_by(100).for_each(|ms| heard(&mut bench, ms));
        let sent = bench.sent[0].len() - before;
        assert!(sent.abs_diff(expected) <= 1, "{sent} in 30 s");
    }
    // One that wants them fast is not kept waiting.
    let mut bench = Bench::new(1);
    bench.run(0);
    (100..=3000).step_by(100).for_each(|ms| {
        let pdu = bench.partner(0, B, 5, slow);
        bench.hear(ms, 0, &pdu);
    });
    let before = bench.sent[0].len();
    let pdu = bench.partner(0, B, 5, state(OPEN));
    bench.hear(3100, 0, &pdu);
    assert_eq!(bench.sent[0].len(), before + 1);
}

#[test]
fn no_more_than_three_are_sent_in_a_second_and_the_last_is_as_it_is_then() {
    let mut bench = Bench::new(1);
    bench.run(0);
    for ms in (10..=5000_u64).step_by(10) {
        let on = ms / 10 % 2 == 0;
        let pdu = bench.partner(0, B, 5, state(if on { OPEN } else { TALKING }));
        bench.hear(ms, 0, &pdu);
    }
    for (at, (ms, _)) in bench.sent[0].iter().enumerate().skip(3) {
        assert!(ms - bench.sent[0][at - 3].0 >= 1000, "{:?}", bench.sent[0]);
    }
    bench.hear(7000, 0, &bench.partner(0, B, 5, state(OPEN)));
    bench.run(8000);
    assert_eq!(bench.last(0).actor.state, state(OPEN));
    assert_eq!(bench.last(0).partner.state, state(OPEN));
}

#[test]
fn a_partner_that_does_not_know_us_is_told_and_not_in_sync() {
    let mut bench = Bench::new(1);
    bench.run(0);
    let good = bench.partner(0, B, 5, state(OPEN));
    let wrong: [fn(&mut Information); 5] = [
        |it| it.system.mac = B,
        |it| it.system.priority = 9,
        |it| it.key = 9,
        |it| it.port = 9,
        |it| it.state = it.state.with(State::AGGREGATION, false),
    ];
    for (at, spoil) in wrong.into_iter().enumerate() {
        let ms = 2000 * (at as u64 + 1);
        let mut pdu = Lacpdu { partner: bench.last(0).actor, ..good };
        spoil(&mut pdu.partner);
        let before = bench.sent[0].len();
        bench.hear(ms, 0, &pdu);
        assert_eq!(bench.mux(0), Mux::Attached, "{pdu:?}");
        assert!(bench.sent[0].len() > before, "it is told");
        assert_eq!(bench.last(0).partner.system.mac, B);
    }
    let pdu = Lacpdu { partner: bench.last(0).actor, ..good };
    bench.hear(12_000, 0, &pdu);
    assert_eq!(bench.mux(0), Mux::Distributing);
}

#[test]
fn a_partner_that_cannot_aggregate_has_one_link_that_is_used_alone() {
    let mut bench = Bench::new(2);
    bench.run(0);
    let individual = state(OPEN).with(State::AGGREGATION, false);
    for member in 0..2 {
        bench.hear(100, member, &bench.partner(member, B, 5, individual));
    }
    assert_eq!(bench.run(200), Carriers::Agreed { send: 0b01, hear: 0b01 });
    assert!(bench.why(1).starts_with("its partner does not aggregate it"), "{}", bench.why(1));
}

#[test]
fn links_to_two_systems_are_not_one_and_the_first_is_stayed_with() {
    const C: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
    let mut bench = Bench::new(3);
    bench.run(0);
    let say = |bench: &mut Bench, ms, systems: [[u8; 6]; 3]| {
        for (member, system) in systems.into_iter().enumerate() {
            let pdu = bench.partner(member, system, 5, state(OPEN));
            bench.hear(ms, member, &pdu);
        }
    };
    // Both are ready at once: the one with more links is taken.
    bench.looks = vec![Look { trusted: false, ..UP }; 3];
    for ms in [100, 1100] {
        say(&mut bench, ms, [B, C, C]);
    }
    bench.looks = vec![UP; 3];
    bench.run(1200);
    say(&mut bench, 2200, [B, C, C]);
    assert_eq!(bench.run(2200), Carriers::Agreed { send: 0b110, hear: 0b110 });
    let why = bench.why(0);
    assert!(why.contains("another system (02:00:00:00:00:0b)"), "{why}");
    assert!(why.contains("(02:00:00:00:00:0c)"), "{why}");
    assert!(!bench.last(0).actor.state.has(State::SYNCHRONIZATION), "it is told to stay out");
    // With one link against one, what carries stays.
    bench.looks[2] = DOWN;
    assert_eq!(bench.run(2300), Carriers::Agreed { send: 0b010, hear: 0b010 });
    // When that is lost, the other system's is used.
    bench.looks[1] = DOWN;
    bench.run(2400);
    assert_eq!(bench.mux(0), Mux::Distributing);
    assert_eq!(bench.lacp.carriers(Carriers::One(0)), Carriers::Agreed { send: 1, hear: 1 });
}

#[test]
fn another_key_is_another_aggregation() {
    let mut bench = carrying();
    let pdu = bench.partner(1, B, 6, state(OPEN));
    assert_eq!(bench.hear(1500, 1, &pdu), Carriers::Agreed { send: 0b01, hear: 0b01 });
    let why = bench.why(1);
    assert!(why.contains("key 6") && why.contains("key 5"), "{why}");
    let pdu = bench.partner(1, B, 5, state(OPEN));
    bench.hear(2500, 1, &pdu);
    let pdu = bench.partner(1, B, 5, state(OPEN));
    assert_eq!(bench.hear(3500, 1, &pdu), Carriers::Agreed { send: 0b11, hear: 0b11 });
}

#[test]
fn a_link_to_ourselves_carries_nothing() {
    let mut bench = Bench::new(2);
    bench.run(0);
    let (one, other) = (bench.last(0), bench.last(1));
    bench.hear(10, 0, &other);
    bench.hear(10, 1, &one);
    assert_eq!(bench.run(10), Carriers::Nobody);
    assert_eq!(bench.why(0), "it is linked to a member of the same bond: a loop");
}

#[test]
fn another_process_goes_on_as_if_nothing_had_happened() {
    let bench = carrying();
    let before = bench.last(1);
    let record = bench.lacp.record(bench.at(1100)).expect("it has an address");
    let text = serde_json::to_string(&record).expect("JSON");
    let record: LacpRecord = serde_json::from_str(&text).expect("what was written");
    let mut next = Bench::new(2);
    next.lacp = Lacp::new(RULES, 2, next.begin);
    next.lacp.resume(&record, next.begin);
    next.looks = vec![DOWN; 2];
    assert_eq!(next.run(50), Carriers::Nobody, "no device is open yet");
    next.looks = vec![Look { up: true, trusted: false }; 2];
    assert_eq!(next.run(100), Carriers::Agreed { send: 0b11, hear: 0b11 });
    assert_eq!(next.last(1), before, "the partner hears what it heard before");
    // The partner's silence is counted from when it spoke.
    assert_eq!(next.run(2899), Carriers::Agreed { send: 0b11, hear: 0b11 });
    assert_eq!(next.run(2900), Carriers::Nobody);
    // What is too old is worth nothing.
    let mut late = Bench::new(2);
    late.lacp.resume(&record, late.begin);
    assert_eq!(late.run(4000), Carriers::Nobody);
    assert_eq!(late.receive(0), Receive::Expired);
}

#[test]
fn frames_are_as_the_standard_has_them() {
    let mut bench = Bench::new(1);
    bench.run(0);
    bench.hear(10, 0, &bench.partner(0, B, 0x0506, state(OPEN)));
    let pdu = bench.last(0);
    let frame = pdu.frame([2, 0, 0, 0, 0, 0x1a]);
    assert_eq!(frame[..16], [1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 0x1a, 0x88, 9, 1, 1]);
    let actor = [1, 20, 0xff, 0xff, 2, 0, 0, 0, 0, 0xa, 0, 1, 0x80, 0, 0, 1];
    assert_eq!(frame[16..32], actor);
    let partner = [2, 20, 0, 100, 2, 0, 0, 0, 0, 0xb, 5, 6, 0, 128, 0, 7];
    assert_eq!(frame[36..52], partner);
    assert_eq!((frame[32], frame[52]), (pdu.actor.state.0, pdu.partner.state.0));
    assert_eq!(frame[56..60], [3, 16, 0, 0]);
    assert!(frame[60..].iter().all(|octet| *octet == 0));
    assert_eq!(SlowPdu::parse(&frame), Ok(SlowPdu::Lacp(pdu)));
    assert_eq!(
        pdu.actor.state.words().join(" "),
        "active fast aggregatable in-sync collecting distributing"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut bench = Bench::new(1);
    bench.run(0);
    let good = bench.last(0).frame(A);
    let spoilt = |at: usize, value: u8| {
        let mut frame = good;
        frame[at] = value;
        SlowPdu::parse(&frame).expect_err("it is spoilt").to_string()
    };
    assert_eq!(spoilt(16, 9), "the actor's information is not where version 1 has it");
    assert_eq!(spoilt(17, 9), "the actor's information is not where version 1 has it");
    assert_eq!(spoilt(37, 9), "the partner's information is not where version 1 has it");
    assert_eq!(spoilt(14, 3), "it is of no slow protocol");
    assert_eq!(spoilt(20, 3), "it comes from a system without an address of its own");
    let short = SlowPdu::parse(&good[..123]).expect_err("it is short").to_string();
    assert_eq!(short, "it ends after 123 octets of 124");
    // A later version has more behind.
    let mut later = good;
    (later[15], later[60]) = (2, 4);
    assert!(matches!(SlowPdu::parse(&later), Ok(SlowPdu::Lacp(_))));
}

#[test]
fn a_marker_is_answered_by_itself() {
    let mut marker = [0; FRAME_BYTES];
    marker[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 2]);
    marker[6..12].copy_from_slice(&B);
    marker[12..18].copy_from_slice(&[0x88, 9, 2, 1, 1, 16]);
    marker[18..32].copy_from_slice(&[0, 7, 2, 0, 0, 0, 0, 0xb, 1, 2, 3, 4, 0, 0]);
    let Ok(SlowPdu::Marker(answer)) = SlowPdu::parse(&marker) else { panic!("it is a marker") };
    let mut expected = marker;
    expected[16] = 2;
    assert_eq!(answer, expected);
    assert_eq!(SlowPdu::parse(&answer), Ok(SlowPdu::MarkerResponse), "and no answer to that");
    marker[17] = 15;
    assert_eq!(SlowPdu::parse(&marker), Err(Malformed::Field("marker's")));
}

/// Two ends with a wire for each member, on which frames take their time or are lost.
struct Pair {
    ends: [Lacp; 2],
    begin: Instant,
    /// When a frame arrives, at which end, by which member.
    wire: Vec<(u64, usize, usize, Lacpdu)>,
}

impl Pair {
    fn new(members: usize) -> Pair {
        let begin = Instant::now();
        let end = |mac| {
            let mut lacp = Lacp::new(RULES, members, begin);
            lacp.identify(mac);
            lacp
        };
        Pair { ends: [end(A), end(B)], begin, wire: Vec::new() }
    }

    /// Lets 10 ms go by. `fate` says of each frame how many milliseconds it takes; none if it is lost.
    fn step(&mut self, ms: u64, looks: &[Look], fate: &mut dyn FnMut() -> Option<u64>) {
        let now = self.begin + Duration::from_millis(ms);
        let (arrived, under_way) = self.wire.iter().partition(|(at, ..)| *at <= ms);
        self.wire = under_way;
        let arrived: Vec<(u64, usize, usize, Lacpdu)> = arrived;
        for (_, end, member, pdu) in arrived {
            self.ends[end].hear(member, &pdu, now);
        }
        for (end, lacp) in self.ends.iter_mut().enumerate() {
            lacp.run(now, looks);
            for (member, look) in looks.iter().enumerate() {
                let Some(pdu) = lacp.due(member, now) else { continue };
                lacp.sent(member, now);
                if let Some(delay) = fate().filter(|_| look.up) {
                    // As it is read from the wire.
                    let frame = pdu.frame(A);
                    let Ok(SlowPdu::Lacp(read)) = SlowPdu::parse(&frame) else {
                        panic!("what is sent makes sense: {pdu:?}")
                    };
                    assert_eq!(read, pdu);
                    self.wire.push((ms + delay, 1 - end, member, pdu));
                }
            }
        }
    }

    fn carriers(&self) -> [Carriers; 2] {
        self.ends.each_ref().map(|end| end.carriers(Carriers::One(0)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However bad the links were, and whichever came and went: once they are good the ends agree that
    /// all that are up carry, and stay with that.
    #[test]
    fn two_ends_agree_over_links_that_lose_frames(
        members in 1_usize..=4,
        fates in prop::collection::vec(prop::option::weighted(0.5, 0_u64..400), 1..64),
        flaps in prop::collection::vec((0_usize..4, 0_u64..12_000), 0..12),
        last in prop::collection::vec(any::<bool>(), 4),
    ) {
        let mut pair = Pair::new(members);
        let mut looks = vec![UP; members];
        let mut next = 0;
        let mut bad = || {
            next += 1;
            fates[next % fates.len()]
        };
        for ms in (0..12_000).step_by(10) {
            for (member, _) in flaps.iter().filter(|(_, at)| at / 10 * 10 == ms) {
                let look = &mut looks[member % members];
                *look = if look.up { DOWN } else { UP };
            }
            pair.step(ms, &looks, &mut bad);
        }
        for (look, up) in looks.iter_mut().zip(&last) {
            *look = if *up { UP } else { DOWN };
        }
        let mask = looks.iter().enumerate().fold(0, |mask, (at, look)| mask | u8::from(look.up) << at);
        let agreed = if mask == 0 { Carriers::One(0) } else { Carriers::Agreed { send: mask, hear: mask } };
        for ms in (12_000..60_000).step_by(10) {
            pair.step(ms, &looks, &mut || Some(5));
            if ms >= 20_000 && mask != 0 {
                prop_assert_eq!(pair.carriers(), [agreed, agreed], "at {} ms", ms);
            }
        }
    }

    /// At no time does one end send by a link before the other takes frames by it, if no frame is lost.
    #[test]
    fn nobody_sends_to_who_does_not_listen(delay in 0_u64..200, members in 1_usize..=4) {
        let mut pair = Pair::new(members);
        let looks = vec![UP; members];
        for ms in (0..5_000).step_by(10) {
            pair.step(ms, &looks, &mut || Some(delay));
            for [one, other] in [[0, 1], [1, 0]] {
                let send = pair.ends[one].carriers(Carriers::Nobody).senders();
                let hear = match pair.ends[other].carriers(Carriers::Nobody) {
                    Carriers::Agreed { hear, .. } => hear,
                    _ => 0,
                };
                prop_assert_eq!(send & !hear, 0, "at {} ms", ms);
            }
        }
        prop_assert_eq!(pair.carriers()[0].senders().count_ones() as usize, members);
    }

    /// Any bytes are read or refused, and what is read can be taken; nothing of it panics, and what is
    /// then said makes sense.
    #[test]
    fn any_frame_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..128),
        patches in prop::collection::vec((0_usize..FRAME_BYTES, any::<u8>()), 0..6),
        gaps in prop::collection::vec(0_u64..5_000, 1..8),
    ) {
        let _ = SlowPdu::parse(&bytes);
        let mut bench = Bench::new(2);
        bench.run(0);
        let mut ms = 0;
        for (at, gap) in gaps.iter().enumerate() {
            let mut frame = bench.partner(0, B, 5, state(OPEN)).frame(B);
            for (place, value) in &patches[..patches.len().min(at)] {
                frame[*place] = *value;
            }
            let mut filled = frame;
            let tail = bytes.len().min(FRAME_BYTES - 18);
            if at % 2 == 1 {
                filled[18..18 + tail].copy_from_slice(&bytes[..tail]);
            }
            ms += gap;
            if let Ok(SlowPdu::Lacp(pdu)) = SlowPdu::parse(&filled) {
                bench.hear(ms, at % 2, &pdu);
            }
            for member in 0..2 {
                let sent = bench.last(member).frame(A);
                prop_assert!(matches!(SlowPdu::parse(&sent), Ok(SlowPdu::Lacp(_))));
            }
        }
    }
}

#[test]
fn every_bit_of_a_state_has_a_word() {
    let words: Vec<_> = ALL.iter().flat_map(|bit| bit.words()).collect();
    assert_eq!(words.len(), 8);
    assert_eq!(state(&ALL).words(), words);
}
