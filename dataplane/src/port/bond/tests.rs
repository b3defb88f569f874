//! Who carries which frame, and that its order is kept.

use parking_lot::Mutex;

use super::*;

/// Records the last byte of each frame that it is given.
#[derive(Default)]
struct Recorder(Mutex<Vec<u8>>);

impl TxPort for Recorder {
    fn send(&self, _: usize, frames: Frames<'_>, staged: &[Staged]) -> Sent {
        let serial = |one: &Staged| frames.frame(usize::from(one.index)).head().last().copied();
        let mut record = self.0.try_lock().expect("one thread");
        record.extend(staged.iter().filter_map(serial));
        Sent { frames: staged.len() as u64, ..Sent::default() }
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
