//! Memory that comes, goes and changes under rings, and memory that is no good.

use super::*;

#[test]
fn memory_changes_under_running_rings() {
    let mut talk = Talk::running();
    talk.give_memory();
    assert!(talk.session.is_ready());
    talk.send(Request::AddMemReg(region(1), file(REGION_BYTES)));
    assert_eq!(talk.session.summary().memory, [region(0), region(1)]);
    talk.send(Request::RemMemReg(region(1)));
    assert!(talk.session.is_ready());

    // A region that grows is taken away and comes again.
    talk.send(Request::RemMemReg(region(0)));
    assert!(!talk.runs(0));
    assert_eq!(talk.state_of(0), "waiting for the memory that it lies in");
    talk.send(Request::AddMemReg(region(1), file(REGION_BYTES)));
    assert_eq!(talk.state_of(0), "waiting for the memory that it lies in");
    talk.send(Request::AddMemReg(region(0), file(REGION_BYTES)));
    assert!(talk.session.is_ready());
}

#[test]
fn what_is_said_once_for_each_pair_is_done_once() {
    let mut talk = Talk::running();
    for _pair in 0..2 {
        talk.send(Request::AddMemReg(region(1), file(REGION_BYTES)));
        assert_eq!(talk.session.summary().memory, [region(0), region(1)]);
    }
    for _pair in 0..2 {
        talk.send(Request::RemMemReg(region(1)));
        assert_eq!(talk.session.summary().memory, [region(0)]);
    }
    // The region that the rings lie in grows.
    let more = RegionSpec { bytes: 2 * REGION_BYTES, ..region(0) };
    for _pair in 0..2 {
        talk.send(Request::RemMemReg(region(0)));
        talk.send(Request::AddMemReg(more, file(2 * REGION_BYTES)));
        assert!(talk.session.is_ready());
    }
    assert_eq!(talk.session.summary().memory, [more]);
}

#[test]
fn a_table_without_a_running_ring_is_refused_and_the_old_one_stays() {
    let mut talk = Talk::running();
    let reason = talk.reason(Request::SetMemTable(vec![(region(1), file(REGION_BYTES))]));
    let wanted =
        "SET_MEM_TABLE: queue 0 cannot run: descriptor table at user address 0x7f0000000000";
    assert!(reason.starts_with(wanted), "{reason}");
    assert!(talk.session.is_ready());
    assert_eq!(talk.session.summary().memory, [region(0)]);
    assert!(!talk.ask_whether(Request::SetMemTable(vec![(region(1), file(REGION_BYTES))])));
    assert!(talk.session.is_ready());
    assert!(talk.session.refusal().unwrap().starts_with(wanted));
}

#[test]
fn bad_memory_is_refused() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.give_memory();
    let over = RegionSpec { bytes: 2 * REGION_BYTES, ..region(0) };
    let reason = talk.reason(Request::AddMemReg(over, file(2 * REGION_BYTES)));
    let wanted = "ADD_MEM_REG: memory regions at guest addresses 0x40000000 and 0x40000000 overlap";
    assert_eq!(reason, wanted);
    assert!(!talk.ask_whether(Request::AddMemReg(over, file(2 * REGION_BYTES))));
    assert!(!talk.ask_whether(Request::AddMemReg(region(1), file(4096))), "the file is too short");
    assert!(!talk.ask_whether(Request::AddMemReg(region(1), event().into())), "not a file");
    for index in 1..REGIONS_MAX as u64 {
        talk.send(Request::AddMemReg(region(index), file(REGION_BYTES)));
    }
    let reason = talk.reason(Request::AddMemReg(region(64), file(REGION_BYTES)));
    assert_eq!(reason, "ADD_MEM_REG: 65 memory regions, at most 64 are supported");
    assert_eq!(talk.ask(Request::GetMaxMemSlots), ReplyBody::Number(64));
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.give_memory();
    talk.set_up(0);
    let far = |change: fn(&mut VringAddresses)| {
        let mut request = addresses(0);
        change(&mut request);
        Request::SetVringAddr(request)
    };
    talk.send(far(|it| it.used = USER + REGION_BYTES - 64));
    talk.send(kick(0));
    let enable = || Request::SetVringEnable(state(0, 1));
    let reason = talk.reason(enable());
    assert!(reason.starts_with("SET_VRING_ENABLE: queue 0 cannot run: used ring at"), "{reason}");
    assert!(!talk.runs(0));
    assert_eq!(talk.state_of(0), "waiting for SET_VRING_ENABLE");
    talk.send(Request::SetVringAddr(addresses(0)));
    talk.send(enable());
    // A running ring that is moved to nowhere stays where it is.
    for request in [
        far(|it| it.descriptors = u64::MAX - 15),
        far(|it| it.available = 0),
        far(|it| it.used += 1),
    ] {
        assert!(!talk.ask_whether(request));
        assert!(talk.runs(0));
    }
    talk.send(far(|it| it.used += 4096));
    assert!(talk.runs(0));
}
