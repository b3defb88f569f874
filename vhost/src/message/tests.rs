//! Messages: what is decoded is what was encoded, and anything else is refused with a reason.

use super::*;
use crate::memory::RegionSpec;

use nix::sys::eventfd::EventFd;
use proptest::prelude::*;

fn descriptor() -> OwnedFd {
    EventFd::new().unwrap().into()
}

fn region(at: u64) -> RegionSpec {
    RegionSpec { guest_address: at, bytes: 0x1000, user_address: at + 7, mmap_offset: 0x2000 }
}

/// One request of each kind that is served.
fn requests() -> Vec<Request> {
    let state = VringState { queue: 3, number: 256 };
    let addresses =
        VringAddresses { queue: 1, flags: 0, descriptors: 1, used: 2, available: 3, log: 4 };
    let with = |descriptor| VringDescriptor { queue: 255, descriptor };
    vec![
        Request::GetFeatures,
        Request::SetFeatures(u64::MAX),
        Request::SetOwner,
        Request::ResetOwner,
        Request::SetMemTable(vec![(region(0), descriptor()), (region(0x9000), descriptor())]),
        Request::SetMemTable(Vec::new()),
        Request::SetVringNum(state),
        Request::SetVringAddr(addresses),
        Request::SetVringBase(state),
        Request::GetVringBase(state),
        Request::SetVringKick(with(Some(descriptor()))),
        Request::SetVringKick(with(None)),
        Request::SetVringCall(with(Some(descriptor()))),
        Request::SetVringErr(with(None)),
        Request::GetProtocolFeatures,
        Request::SetProtocolFeatures(1 << 16),
        Request::GetQueueNum,
        Request::SetVringEnable(state),
        Request::SendRarp([2, 3, 4, 5, 6, 7]),
        Request::NetSetMtu(1500),
        Request::ResetDevice,
        Request::GetMaxMemSlots,
        Request::AddMemReg(region(0x5000), descriptor()),
        Request::RemMemReg(region(0x5000)),
        Request::SetStatus(15),
        Request::GetStatus,
    ]
}

fn message(code: Code, payload: &[u8], descriptors: usize) -> Message {
    let header =
        Header { code: code as u32, reply: false, need_reply: false, payload_bytes: payload.len() };
    let descriptors = (0..descriptors).map(|_| descriptor()).collect();
    Message { header, payload: payload.to_vec(), descriptors }
}

fn refused(code: Code, payload: &[u8], descriptors: usize) -> String {
    Request::decode(message(code, payload, descriptors)).unwrap_err().to_string()
}

#[test]
fn requests_survive_encoding() {
    let mut seen = Vec::new();
    for request in requests() {
        seen.push(request.code());
        // `Debug` shows everything, descriptors' numbers included: they are moved, not copied.
        let before = format!("{request:?}");
        let message = request.encode(true);
        let bytes = message.bytes();
        let header = Header::decode(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(header, message.header);
        assert!(header.need_reply && header.payload_bytes == bytes.len() - HEADER_BYTES);
        assert_eq!(format!("{:?}", Request::decode(message).unwrap()), before);
    }
    for code in Code::ALL.iter().filter(|code| code.unoffered_feature().is_none()) {
        assert!(seen.contains(code), "{code} is missing above");
    }
}

#[test]
fn the_wire_is_the_specifications() {
    let message = Request::SetVringNum(VringState { queue: 1, number: 256 }).encode(false);
    let words: Vec<u32> = message
        .bytes()
        .chunks(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(words, [8, 1, 8, 1, 256]);
    let message =
        Request::SetVringKick(VringDescriptor { queue: 3, descriptor: None }).encode(true);
    assert_eq!(message.header.encode()[4..8], 9_u32.to_ne_bytes());
    assert_eq!(message.payload, 0x103_u64.to_ne_bytes());
    let reply = Reply::number(Code::GetFeatures, 7).encode();
    assert_eq!(reply.header.encode()[4..8], 5_u32.to_ne_bytes());
}

#[test]
fn replies_survive_encoding() {
    let position = ReplyBody::Vring(VringState { queue: 1, number: 77 });
    for reply in [
        Reply::number(Code::GetFeatures, u64::MAX),
        Reply::acknowledge(Code::SetMemTable, false),
        Reply { code: Code::GetVringBase, body: position },
    ] {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
    assert_eq!(Reply::acknowledge(Code::SetMemTable, true).body, ReplyBody::Number(0));
    let request = Request::GetFeatures.encode(false);
    assert_eq!(
        Reply::decode(&request).unwrap_err().to_string(),
        "message 1 is a request, not a reply"
    );
}

#[test]
fn bad_headers_are_refused() {
    let refused = |code: u32, flags: u32, bytes: u32| {
        let words = [code.to_ne_bytes(), flags.to_ne_bytes(), bytes.to_ne_bytes()].concat();
        Header::decode(words.first_chunk().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(refused(1, 0, 0), "message 1 has protocol version 0, only version 1 exists");
    assert_eq!(refused(1, 2, 0), "message 1 has protocol version 2, only version 1 exists");
    assert_eq!(refused(1, 0x11, 0), "message 1 has flags 0x11, of which only 0xf have a meaning");
    assert_eq!(
        refused(5, 1, 4097),
        "message 5 has 4097 bytes of payload, at most 4096 are accepted"
    );
    assert!(refused(5, 1, u32::MAX).contains("4294967295 bytes"));
}

#[test]
fn bad_requests_are_refused() {
    let mut reply = message(Code::GetFeatures, &[], 0);
    reply.header.reply = true;
    let error = Request::decode(reply).unwrap_err().to_string();
    assert_eq!(error, "message 1 is a reply, not a request");
    assert_eq!(
        refused(Code::SetLogBase, &[0; 16], 1),
        "SET_LOG_BASE belongs to VHOST_F_LOG_ALL, which is not offered"
    );
    assert_eq!(
        refused(Code::SetFeatures, &[0; 7], 0),
        "SET_FEATURES has 7 bytes of payload, not 8"
    );
    assert_eq!(
        refused(Code::GetFeatures, &[], 1),
        "GET_FEATURES came with 1 file descriptors, not 0"
    );
    assert_eq!(
        refused(Code::SetVringCall, &0x200_u64.to_ne_bytes(), 0),
        "SET_VRING_CALL: the ring is 0x200, only bits 0 to 8 have a meaning"
    );
    let wanted = "SET_VRING_KICK came with 0 file descriptors, not 1";
    assert_eq!(refused(Code::SetVringKick, &0_u64.to_ne_bytes(), 0), wanted);
    let unwanted = "SET_VRING_KICK came with 1 file descriptors, not 0";
    assert_eq!(refused(Code::SetVringKick, &0x100_u64.to_ne_bytes(), 1), unwanted);
}

#[test]
fn bad_memory_messages_are_refused() {
    let table = |regions: u32, bytes: usize| {
        let mut payload = vec![0; bytes];
        payload[..4].copy_from_slice(&regions.to_ne_bytes());
        payload
    };
    assert_eq!(
        refused(Code::SetMemTable, &[1; 4], 0),
        "SET_MEM_TABLE has 4 bytes of payload, not 40"
    );
    assert_eq!(
        refused(Code::SetMemTable, &table(2, 40), 2),
        "SET_MEM_TABLE has 40 bytes of payload, not 72"
    );
    assert_eq!(
        refused(Code::SetMemTable, &table(2, 72), 1),
        "SET_MEM_TABLE came with 1 file descriptors, not 2"
    );
    assert_eq!(
        refused(Code::SetMemTable, &table(u32::MAX, 8), 0),
        "SET_MEM_TABLE has 4294967295 memory regions, at most 64 are supported"
    );
    assert!(refused(Code::AddMemReg, &[0; 40], 2).contains("2 file descriptors, not 1"));
    assert!(refused(Code::AddMemReg, &[0; 32], 1).contains("32 bytes of payload, not 40"));
    assert!(Request::decode(message(Code::RemMemReg, &[0; 40], 1)).is_ok(), "one is tolerated");
    assert!(refused(Code::RemMemReg, &[0; 40], 2).contains("2 file descriptors, not 1"));
}

#[test]
fn a_refused_message_closes_its_descriptors() {
    let (ours, theirs) = nix::unistd::pipe().unwrap();
    let mut message = message(Code::GetFeatures, &[], 0);
    message.descriptors.push(theirs);
    Request::decode(message).unwrap_err();
    // The pipe's only writer is gone, so a read does not wait but tells the end.
    assert_eq!(nix::unistd::read(&ours, &mut [0]), Ok(0));
}

proptest! {
    #[test]
    fn any_header_is_decoded_or_refused(bytes: [u8; HEADER_BYTES]) {
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn any_message_is_decoded_or_refused(
        code in 0_u32..50,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        descriptors in 0_usize..3,
    ) {
        let mut message = message(Code::GetFeatures, &payload, descriptors);
        message.header.code = code;
        if let Ok(request) = Request::decode(message) {
            prop_assert_eq!(request.code() as u32, code);
        }
    }
}
