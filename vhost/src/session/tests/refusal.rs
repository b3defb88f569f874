//! What is refused, with which words, and whether the session goes on.

use super::*;

#[test]
fn a_front_end_that_cannot_be_talked_to_is_told_why() {
    let mut talk = Talk::running();
    let offer = features::protocol_offer(1);
    let table: [(Request, &str); 15] = [
        (
            Request::SetFeatures(MODERN | device::LOG_ALL | 1 << 45),
            "SET_FEATURES accepts what was not offered: VHOST_F_LOG_ALL, bit 45",
        ),
        (
            Request::SetFeatures(MODERN & !device::MRG_RXBUF),
            "SET_FEATURES while queue 0 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetProtocolFeatures(offer | protocol::LOG_SHMFD),
            "SET_PROTOCOL_FEATURES accepts what was not offered: VHOST_USER_PROTOCOL_F_LOG_SHMFD",
        ),
        (
            Request::SetVringNum(state(2, 256)),
            "SET_VRING_NUM: there is no queue 2, the device has 2 (1 pairs)",
        ),
        (
            Request::GetVringBase(state(u32::MAX, 0)),
            "GET_VRING_BASE: there is no queue 4294967295, the device has 2 (1 pairs)",
        ),
        (kick(200), "SET_VRING_KICK: there is no queue 200, the device has 2 (1 pairs)"),
        (
            Request::SetVringNum(state(0, 512)),
            "SET_VRING_NUM while queue 0 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetVringBase(state(1, 0)),
            "SET_VRING_BASE while queue 1 runs; stop it by GET_VRING_BASE first",
        ),
        (
            Request::SetVringAddr(VringAddresses { flags: 1, ..addresses(0) }),
            "SET_VRING_ADDR: flags 0x1 of queue 0 are not supported (no dirty log)",
        ),
        (
            Request::SetVringEnable(state(0, 2)),
            "SET_VRING_ENABLE: queue 0 cannot be set to 2, only to 0 or 1",
        ),
        (Request::NetSetMtu(67), "NET_SET_MTU: 67 is not between 68 and the network's 65535"),
        (
            Request::NetSetMtu(1 << 32 | 1500),
            "NET_SET_MTU: 4294968796 is not between 68 and the network's 65535",
        ),
        (Request::SetStatus(256), "SET_STATUS: 0x100 has more than eight bits"),
        (
            Request::SetMemTable(Vec::new()),
            "SET_MEM_TABLE: queue 0 cannot run: descriptor table at user address 0x7f0000000000 \
             with 4096 bytes is not inside one memory region",
        ),
        (
            Request::SetVringAddr(addresses(7)),
            "SET_VRING_ADDR: there is no queue 7, the device has 2 (1 pairs)",
        ),
    ];
    for (request, reason) in table {
        assert_eq!(talk.reason(request), reason);
        assert!(talk.session.is_ready(), "nothing has changed");
    }
}

#[test]
fn ring_sizes_and_positions_are_checked() {
    let mut talk = Talk::new(1);
    talk.negotiate();
    for size in [0, 3, 257, 65536, 32769, u32::MAX] {
        let reason = talk.reason(Request::SetVringNum(state(0, size)));
        let wanted = format!(
            "SET_VRING_NUM: queue 0 cannot have {size} entries, only a power of two up to 32768"
        );
        assert_eq!(reason, wanted);
    }
    for size in [1, 2, 256, 32768] {
        talk.send(Request::SetVringNum(state(0, size)));
    }
    talk.send(Request::SetVringBase(state(0, 65535)));
    let reason = talk.reason(Request::SetVringBase(state(0, 65536)));
    assert_eq!(reason, "SET_VRING_BASE: queue 0 cannot begin at 65536, positions go up to 65535");

    talk.send(Request::SetFeatures(MODERN | device::RING_PACKED));
    for size in [1, 3, 257, 32767, 32768] {
        talk.send(Request::SetVringNum(state(0, size)));
    }
    let reason = talk.reason(Request::SetVringNum(state(0, 32769)));
    assert_eq!(reason, "SET_VRING_NUM: queue 0 cannot have 32769 entries, only 1 to 32768");
    talk.give_memory();
    talk.send(Request::SetVringNum(state(0, 100)));
    talk.send(Request::SetVringAddr(addresses(0)));
    talk.send(Request::SetVringBase(state(0, 0x8064_8064)));
    talk.send(Request::SetVringEnable(state(0, 1)));
    let reason = talk.reason(kick(0));
    assert!(reason.ends_with("a ring of 100 entries cannot begin at 0x80648064"), "{reason}");
}

#[test]
fn acknowledgements_come_when_negotiated_and_asked_for() {
    let mut talk = Talk::new(1);
    let silent = talk.session.handle(Request::SetOwner.encode(true)).unwrap();
    assert_eq!(silent, None, "not negotiated yet");
    assert!(talk.ask_whether(Request::SetProtocolFeatures(features::protocol_offer(1))));
    assert!(talk.ask_whether(Request::SetOwner));
    talk.send(Request::SetOwner);
    let features = talk.session.handle(Request::GetFeatures.encode(true)).unwrap().unwrap();
    assert_eq!(features.body, ReplyBody::Number(features::device_offer(1)), "as ever");
    // What cannot be talked to is not talked to, however it asks.
    let strange = Request::SetVringNum(state(0, 0)).encode(true);
    assert!(talk.session.handle(strange).is_err());
}

#[test]
fn what_is_not_offered_is_refused_politely() {
    let mut talk = Talk::running();
    let log = |need_reply| {
        let mut message = Request::SetStatus(0).encode(need_reply);
        message.header.code = Code::SetLogFd as u32;
        message.payload.clear();
        message.descriptors.push(event().into());
        message
    };
    let reply = talk.session.handle(log(true)).unwrap().unwrap();
    assert_eq!(reply, Reply::acknowledge(Code::SetLogFd, false));
    let reason = "SET_LOG_FD belongs to VHOST_F_LOG_ALL, which is not offered";
    assert_eq!(talk.session.refusal(), Some(reason));
    assert_eq!(talk.session.handle(log(false)).unwrap_err().to_string(), reason);
    let mut unknown = Request::GetFeatures.encode(true);
    unknown.header.code = 4711;
    assert_eq!(talk.session.handle(unknown).unwrap_err().to_string(), "request 4711 is unknown");
}

#[test]
fn the_mtu_is_the_networks_at_most() {
    let mut talk = Talk::with(1, SessionOptions { mtu_max: Some(1500) });
    talk.negotiate();
    assert!(talk.ask_whether(Request::NetSetMtu(1500)));
    assert!(!talk.ask_whether(Request::NetSetMtu(9000)));
    let summary = talk.session.summary();
    assert_eq!(summary.mtu, Some(1500), "as before");
    let refusal = "NET_SET_MTU: 9000 is not between 68 and the network's 1500";
    assert_eq!(summary.refusal.as_deref(), Some(refusal));
}
