//! Who carries which frame, and that its order is kept.

use parking_lot::Mutex;

use super::*;
use vhost::{Received, StagedFrame};

/// Records the last byte of each frame that it is given.
#[derive(Default)]
struct Recorder(Mutex<Vec<u8>>);

impl TxPort for Recorder {
    fn send(&self, _: usize, frames: Frames<'_>, staged: &Staged<'_>, sent: &mut Sent) {
        let serial = |one: StagedFrame| frames.frame(usize::from(one.index)).head().last().copied();
        let mut record = self.0.try_lock().expect("one thread");
        record.extend(staged.iter().filter_map(serial));
        sent.frames += staged.len() as u64;
    }
}

impl Recorder {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.try_lock().expect("one thread"))
    }
}

fn bond(members: usize) -> (Arc<Bond>, BondPort, Vec<Arc<Recorder>>) {
    let bond = Bond::new(members);
    let recorders: Vec<Arc<Recorder>> = (0..members).map(|_| Arc::default()).collect();
    let open = recorders.iter().map(|it| Some(Arc::clone(it) as Arc<dyn TxPort>));
    let port = BondPort::new(Arc::clone(&bond), open.collect());
    (bond, port, recorders)
}

/// UDP of one flow, numbered.
fn frame(flow: u16, serial: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(flow.to_be_bytes());
    frame.extend([0, 80, 0, 9, 0, 0, serial]);
    frame
}

/// Which member each of 64 flows goes by.
fn places(port: &BondPort, recorders: &[Arc<Recorder>]) -> Vec<usize> {
    let frames: Vec<_> = (0..64).map(|flow| frame(u16::from(flow) * 7, flow)).collect();
    assert_eq!(port.announce(0, &frames), 64);
    let mut places = vec![usize::MAX; 64];
    for (member, recorder) in recorders.iter().enumerate() {
        let record = recorder.take();
        assert!(record.is_sorted(), "{record:?}");
        record.iter().for_each(|flow| places[usize::from(*flow)] = member);
    }
    assert!(places.iter().all(|place| *place < recorders.len()), "each was sent: {places:?}");
    places
}

#[test]
fn one_member_carries_everything_or_nobody_anything() {
    let (bond, port, recorders) = bond(2);
    assert_eq!(port.announce(0, &[frame(1, 1)]), 0, "nobody carries at first");
    for member in [1, 0, 1] {
        bond.steer(Carriers::One(member));
        assert!(places(&port, &recorders).iter().all(|place| *place == member));
    }
    bond.steer(Carriers::Nobody);
    assert_eq!(port.announce(0, &[frame(1, 1)]), 0);
    bond.steer(Carriers::Shared(0));
    assert_eq!(port.announce(0, &[frame(1, 1)]), 0);
    assert!(recorders.iter().all(|recorder| recorder.take().is_empty()));
}

#[test]
fn a_member_that_is_not_open_takes_nothing() {
    let bond = Bond::new(2);
    bond.steer(Carriers::One(1));
    let recorder = Arc::new(Recorder::default());
    for open in [false, true, false] {
        let member = open.then(|| Arc::clone(&recorder) as Arc<dyn TxPort>);
        let port = BondPort::new(Arc::clone(&bond), Box::new([None, member]));
        assert_eq!(port.announce(0, &[frame(1, 7)]), u64::from(open));
        assert_eq!(recorder.take(), if open { vec![7] } else { Vec::new() });
    }
    assert_eq!(Arc::strong_count(&recorder), 1, "it can be closed");
}

#[test]
fn a_flow_stays_with_its_member_and_in_order() {
    let (bond, port, recorders) = bond(2);
    bond.steer(Carriers::Shared(0b11));
    let before = places(&port, &recorders);
    assert!(before.contains(&0) && before.contains(&1), "{before:?}");
    // Several bursts of two flows that take turns.
    let apart = before.iter().position(|place| *place != before[0]).expect("both are used");
    let flows = [0, apart as u16 * 7];
    let frames: Vec<_> = (0..200).map(|at| frame(flows[usize::from(at) % 2], at)).collect();
    assert_eq!(port.announce(0, &frames), 200);
    for (flow, member) in [(0, before[0]), (1, before[apart])] {
        let expected: Vec<u8> = (0..200).filter(|at| at % 2 == flow).collect();
        assert_eq!(recorders[member].take(), expected);
    }
}

#[test]
fn a_lost_member_takes_along_its_own_flows_only_and_gets_them_back() {
    let (bond, port, recorders) = bond(3);
    bond.steer(Carriers::Shared(0b111));
    let whole = places(&port, &recorders);
    bond.steer(Carriers::Shared(0b101));
    let without = places(&port, &recorders);
    for (before, now) in whole.iter().zip(&without) {
        assert!(if *before == 1 { *now != 1 } else { now == before }, "{whole:?} {without:?}");
    }
    bond.steer(Carriers::Shared(0b111));
    assert_eq!(places(&port, &recorders), whole);
}

#[test]
fn classes_move_with_their_member_only_and_are_spread_evenly() {
    for members in 1..=MEMBERS_MAX {
        for usable in 1..=u8::MAX >> (MEMBERS_MAX - members) {
            let place = |class: usize| share(class, members, usable);
            let mut counts = [0; MEMBERS_MAX];
            for class in 0..CLASSES {
                let carrier = place(class).expect("one is usable");
                assert_eq!(usable >> carrier & 1, 1);
                counts[carrier] += 1;
                for lost in (0..members).filter(|lost| usable >> lost & 1 == 1 && *lost != carrier)
                {
                    assert_eq!(share(class, members, usable & !(1 << lost)), Some(carrier));
                }
            }
            if usable.count_ones() as usize == members {
                let even = CLASSES / members;
                assert!(counts[..members].iter().all(|n| n - even <= 1), "{counts:?}");
            } else if usable.count_ones() as usize + 1 == members {
                let even = CLASSES / (members - 1);
                let used = counts.iter().filter(|n| **n > 0);
                assert!(used.clone().all(|n| n.abs_diff(even) <= even / 8), "{counts:?}");
            }
        }
        assert_eq!(share(0, members, 0), None);
    }
}

#[test]
fn what_comes_by_a_member_that_is_not_heard_is_released_and_counted() {
    struct Counting(Arc<AtomicU64>);
    impl Source for Counting {
        fn fill(&mut self, burst: &mut Burst) {
            burst.push_private(&frame(1, 1));
            burst.push_private(&frame(2, 2));
        }
        fn release(&mut self, burst: &mut Burst) {
            self.0.fetch_add(burst.len() as u64, Ordering::Relaxed);
        }
    }
    let bond = Bond::new(2);
    let released = Arc::new(AtomicU64::new(0));
    let source = Box::new(Counting(Arc::clone(&released)));
    let mut source = BondSource::new(Arc::clone(&bond), 1, source);
    let mut burst = Burst::default();
    let mut receive = || Received::take(&mut source, &mut burst).frames().len();
    assert_eq!(receive(), 0, "nobody is heard at first");
    bond.steer(Carriers::One(0));
    assert_eq!(receive(), 0);
    assert_eq!((bond.ignored(1), bond.ignored(0), released.load(Ordering::Relaxed)), (4, 0, 4));
    bond.steer(Carriers::One(1));
    assert_eq!(receive(), 2);
    bond.steer(Carriers::Shared(0b01));
    assert_eq!(receive(), 2, "it may carry nothing and still be sent something");
    assert_eq!((bond.ignored(1), released.load(Ordering::Relaxed)), (4, 8));
}

#[test]
fn what_was_agreed_says_who_sends_and_who_is_heard() {
    let (bond, port, recorders) = bond(3);
    bond.steer(Carriers::Agreed { send: 0b101, hear: 0b111 });
    let used = places(&port, &recorders);
    assert!(used.contains(&0) && used.contains(&2) && !used.contains(&1), "{used:?}");
    let heard = |bond: &Bond| {
        bond.members.iter().map(|it| it.heard.load(Ordering::Relaxed)).collect::<Vec<_>>()
    };
    assert_eq!(heard(&bond), [true; 3]);
    bond.steer(Carriers::Agreed { send: 0, hear: 0b010 });
    assert_eq!(heard(&bond), [false, true, false]);
    assert_eq!(port.announce(0, &[frame(1, 1)]), 0, "nobody sends");
    let senders = [
        Carriers::Nobody,
        Carriers::One(2),
        Carriers::Shared(3),
        Carriers::Agreed { send: 5, hear: 7 },
    ];
    assert_eq!(senders.map(Carriers::senders), [0, 4, 3, 5]);
    // One member is sent by whoever carries.
    assert!(port.send_first(1, 0, &frame(1, 7)) && port.send_by_member(1, 0, &frame(1, 8)));
    assert_eq!(recorders[1].take(), [7, 8]);
    assert!(!port.send_first(3, 0, &frame(1, 7)), "there is no such member");
}

/// A frame of slow protocols: LACP is subtype 1.
fn slow(subtype: u8, serial: u8) -> Vec<u8> {
    let mut frame =
        [&slow::GROUP[..], &[2, 0, 0, 0, 0, 9], &slow::ETHERTYPE.to_be_bytes()].concat();
    frame.push(subtype);
    frame.resize(124, serial);
    frame
}

/// Gives frames, each of which lies in something, and takes note of what was released.
struct Lending(Vec<Vec<u8>>, Arc<Mutex<Vec<usize>>>);

impl Source for Lending {
    fn fill(&mut self, burst: &mut Burst) {
        for frame in &self.0 {
            assert!(burst.push_private(frame));
        }
    }
    fn release(&mut self, burst: &mut Burst) {
        let last = |at| burst.head(at).last().copied().expect("no frame is empty");
        let serials = (0..burst.len()).map(|at| usize::from(last(at)));
        self.1.try_lock().expect("one thread").extend(serials);
    }
}

#[test]
fn frames_of_slow_protocols_are_taken_out_and_the_others_keep_their_order() {
    let bond = Bond::new(2);
    bond.steer(Carriers::Shared(0b11));
    let released = Arc::new(Mutex::new(Vec::new()));
    // The last two are of a protocol that is not spoken, and of none at all.
    let mut stray = slow(1, 7);
    stray[13] = 8;
    let frames =
        vec![slow(1, 1), frame(1, 2), slow(2, 3), slow(1, 4), frame(1, 5), slow(10, 6), stray];
    let lending = Lending(frames.clone(), Arc::clone(&released));
    let mut source = BondSource::new(Arc::clone(&bond), 1, Box::new(lending));
    let mut burst = Burst::default();
    let mut receive = || -> Vec<u8> {
        let received = Received::take(&mut source, &mut burst);
        received.frames().iter().filter_map(|frame| frame.head().last().copied()).collect()
    };
    assert_eq!(receive(), [1, 2, 3, 4, 5, 6, 7], "where it is not spoken, all are alike");
    assert!(bond.slow(1).is_none());
    bond.speak(true);
    released.try_lock().expect("one thread").clear();
    assert_eq!(receive(), [2, 5, 6, 7]);
    let mut all = std::mem::take(&mut *released.try_lock().expect("one thread"));
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7], "each is released once");
    let taken: Vec<_> = std::iter::from_fn(|| bond.slow(1)).map(|it| it.bytes().to_vec()).collect();
    assert_eq!(taken, [frames[0].clone(), frames[2].clone(), frames[3].clone()]);
    assert!(bond.slow(0).is_none(), "it came by the other member");

    // By a member that carries nothing it comes all the same.
    bond.steer(Carriers::Nobody);
    assert_eq!(receive(), [0; 0]);
    assert_eq!((bond.ignored(1), std::iter::from_fn(|| bond.slow(1)).count()), (4, 3));
    // What nobody reads is lost, and counted.
    for _ in 0..10 {
        receive();
    }
    assert_eq!(std::iter::from_fn(|| bond.slow(1)).count() as u64 + bond.slow_lost(1), 30);
    assert!(bond.slow_lost(1) > 0 && bond.slow_lost(0) == 0);
    // A burst of nothing else is none.
    let lending = Lending(vec![slow(1, 1)], Arc::clone(&released));
    let mut source = BondSource::new(Arc::clone(&bond), 0, Box::new(lending));
    released.try_lock().expect("one thread").clear();
    assert!(Received::take(&mut source, &mut burst).frames().is_empty());
    assert_eq!(*released.try_lock().expect("one thread"), [1]);
}
