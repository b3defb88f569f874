//! A session goes on in another one, as it does in another process.

use super::*;

fn call(queue: u8) -> Request {
    Request::SetVringCall(VringDescriptor { queue, descriptor: Some(event().into()) })
}

fn resume(pairs: u16, image: &SessionImage, descriptors: Vec<OwnedFd>) -> Result<Talk, ImageError> {
    let device = Device::new(pairs);
    let options = SessionOptions::default();
    let session = Session::resume(Arc::clone(&device), options, image, descriptors)?;
    Ok(Talk { session, device })
}

#[test]
fn it_goes_on_where_it_stood() {
    let mut talk = Talk::running();
    (0..2).for_each(|queue| talk.send(call(queue)));
    talk.send(Request::NetSetMtu(1400));
    let before = talk.session.summary();
    let (image, descriptors) = talk.session.image().unwrap();
    assert!(talk.session.is_ready(), "to tell of it changes nothing");
    let bases = talk.session.halt();
    assert!(!talk.runs(0) && !talk.runs(1));

    let mut next = resume(1, &image, descriptors).unwrap();
    assert!(!next.runs(0) && !next.runs(1), "the former one may still have them");
    next.session.place(&bases);
    next.session.go_on(Side::Receive).unwrap();
    assert!(next.runs(0) && !next.runs(1), "who receives goes first");
    next.session.go_on(Side::Transmit).unwrap();
    assert!(next.session.is_ready());
    assert_eq!(next.session.summary(), before);
    // The front-end says on what it would have said to the former one.
    next.send(Request::SetVringEnable(state(0, 0)));
    next.send(Request::SetVringEnable(state(0, 1)));
    let stopped = next.ask(Request::GetVringBase(state(1, 0)));
    assert_eq!(stopped, ReplyBody::Vring(state(1, bases[1])));
    assert!(!next.runs(1));

    // If it does not come to that, the former one goes on.
    for side in [Side::Receive, Side::Transmit] {
        talk.session.go_on(side).unwrap();
    }
    assert_eq!(talk.session.summary(), before);
}

#[test]
fn rings_that_did_not_run_wait_as_before() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    talk.set_up(0);
    talk.send(kick(0));
    let (image, descriptors) = talk.session.image().unwrap();
    let bases = talk.session.halt();
    let mut next = resume(1, &image, descriptors).unwrap();
    next.session.place(&bases);
    for side in [Side::Receive, Side::Transmit] {
        next.session.go_on(side).unwrap();
    }
    assert_eq!(next.state_of(0), talk.state_of(0));
    next.give_memory();
    next.send(Request::SetVringEnable(state(0, 1)));
    assert!(next.runs(0));
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let mut talk = Talk::running();
    talk.send(call(1));
    let whole = || talk.session.image().unwrap();
    let (image, mut descriptors) = whole();
    descriptors.pop();
    let refused = |outcome: Result<Talk, ImageError>| outcome.err().unwrap().to_string();
    assert!(refused(resume(1, &image, descriptors)).contains("1 file descriptors are missing"));
    let (image, mut descriptors) = whole();
    descriptors[1] = file(4096);
    assert!(refused(resume(1, &image, descriptors)).contains("not an eventfd"));
    let (image, mut descriptors) = whole();
    descriptors[0] = file(4096);
    assert!(refused(resume(1, &image, descriptors)).contains("bytes of its file"));

    let mut several = Talk::new(2);
    several.negotiate();
    several.give_memory();
    several.set_up(3);
    let (image, descriptors) = several.session.image().unwrap();
    let refused = refused(resume(1, &image, descriptors));
    assert!(refused.contains("features that this version does not offer"), "{refused}");
    assert!(whole().0 == talk.session.image().unwrap().0, "to tell of it changes nothing");
}
