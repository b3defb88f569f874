//! Connections over real sockets: messages in pieces, descriptors, ends; and paths of all kinds.

use super::*;
use crate::message::{Code, Reply, Request};

use nix::sys::eventfd::EventFd;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

fn pair() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Connection::new(ours).unwrap(), theirs)
}

fn events(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| EventFd::new().unwrap().into()).collect()
}

fn write(stream: &UnixStream, bytes: &[u8], descriptors: usize) {
    let sent = ancillary::send(stream.as_fd(), bytes, &events(descriptors)).unwrap();
    assert_eq!(sent, bytes.len());
}

fn reason<T>(outcome: Result<T, impl std::error::Error>) -> String {
    outcome.err().expect("an error").to_string()
}

#[test]
fn messages_arrive_whole_with_their_own_descriptors() {
    let (mut ours, theirs) = pair();
    assert!(ours.try_receive().unwrap().is_none());
    // Sent at one go and read one by one: no message takes the next one's descriptors.
    let first = Request::SetFeatures(7).encode(false).bytes();
    let second = Request::SetMemTable(Vec::new()).encode(true).bytes();
    write(&theirs, &first, 0);
    write(&theirs, &second, 3);
    write(&theirs, &first, 1);
    let message = ours.try_receive().unwrap().unwrap();
    assert_eq!((message.bytes(), message.descriptors.len()), (first.clone(), 0));
    let message = ours.try_receive().unwrap().unwrap();
    assert_eq!((message.bytes(), message.descriptors.len()), (second, 3));
    let message = ours.try_receive().unwrap().unwrap();
    assert_eq!((message.bytes(), message.descriptors.len()), (first, 1));
    assert!(ours.try_receive().unwrap().is_none());
}

#[test]
fn messages_may_come_in_pieces() {
    let (mut ours, theirs) = pair();
    let bytes = Request::SetFeatures(7).encode(false).bytes();
    for byte in &bytes[..bytes.len() - 1] {
        write(&theirs, &[*byte], 1);
        assert!(ours.try_receive().unwrap().is_none());
    }
    write(&theirs, &bytes[bytes.len() - 1..], 0);
    let message = ours.try_receive().unwrap().unwrap();
    assert_eq!((message.bytes(), message.descriptors.len()), (bytes.clone(), bytes.len() - 1));
}

#[test]
fn ends_are_told_apart() {
    let (mut ours, theirs) = pair();
    write(&theirs, &Request::SetOwner.encode(false).bytes(), 0);
    drop(theirs);
    assert!(ours.try_receive().unwrap().is_some(), "what was sent before the end counts");
    assert!(matches!(ours.try_receive(), Err(SocketError::Closed)));
    for bytes in [5, HEADER_BYTES, HEADER_BYTES + 3] {
        let (mut ours, theirs) = pair();
        write(&theirs, &Request::SetFeatures(0).encode(false).bytes()[..bytes], 0);
        drop(theirs);
        assert!(matches!(ours.try_receive(), Err(SocketError::ClosedMidway)), "{bytes}");
    }
}

#[test]
fn headers_are_checked_before_anything_is_allocated() {
    let (mut ours, theirs) = pair();
    write(&theirs, &[0xff; HEADER_BYTES], 0);
    assert!(reason(ours.try_receive()).contains("protocol version 3"));
    let (mut ours, theirs) = pair();
    let header = [1_u32, 1, u32::MAX].map(u32::to_ne_bytes).concat();
    write(&theirs, &header, 0);
    assert!(reason(ours.try_receive()).contains("4294967295 bytes of payload"));
}

#[test]
fn too_many_descriptors_are_an_error() {
    let bytes = Request::SetFeatures(0).encode(false).bytes();
    let (mut ours, theirs) = pair();
    write(&theirs, &bytes, DESCRIPTORS_MAX);
    let message = ours.try_receive().unwrap().unwrap();
    assert_eq!(message.descriptors.len(), DESCRIPTORS_MAX);

    write(&theirs, &bytes, DESCRIPTORS_MAX + 2);
    assert!(matches!(ours.try_receive(), Err(SocketError::DescriptorsLost)));

    let (mut ours, theirs) = pair();
    write(&theirs, &bytes[..4], DESCRIPTORS_MAX);
    write(&theirs, &bytes[4..8], DESCRIPTORS_MAX);
    assert!(matches!(ours.try_receive(), Err(SocketError::TooManyDescriptors)));
}

#[test]
fn replies_are_sent_with_descriptors_or_not_at_all() {
    let (mut ours, theirs) = pair();
    let mut theirs = Connection::new(theirs).unwrap();
    let mut message = Reply::number(Code::GetFeatures, 5).encode();
    message.descriptors = events(2);
    ours.send(&message).unwrap();
    let received = theirs.try_receive().unwrap().unwrap();
    assert_eq!(received.descriptors.len(), 2);
    assert_eq!(Reply::decode(&received), Ok(Reply::number(Code::GetFeatures, 5)));

    let reply = Reply::number(Code::GetFeatures, 5).encode();
    let unread = (0..100_000).find_map(|_| ours.send(&reply).err()).unwrap();
    assert!(matches!(unread, SocketError::NotReading), "{unread}");
    drop(theirs);
    assert!(matches!(ours.send(&reply), Err(SocketError::Closed)));
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.sock");
    (folder, path)
}

#[test]
fn connecting_tells_what_is_in_the_way() {
    let (folder, path) = folder();
    let long = folder.path().join("x".repeat(PATH_BYTES_MAX));
    assert!(reason(Connection::connect(&long)).contains("bytes; 1 to 107 are possible"));
    assert!(reason(Connection::connect(&PathBuf::new())).contains("has 0 bytes"));
    assert!(matches!(Connection::connect(&path), Err(ConnectError::Missing(_))));
    fs::write(&path, "").unwrap();
    assert!(matches!(Connection::connect(&path), Err(ConnectError::NotASocket(_))));
    fs::remove_file(&path).unwrap();
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(Connection::connect(&path), Err(ConnectError::NotASocket(_))));
    drop(datagrams);
    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(Connection::connect(&path), Err(ConnectError::NobodyListens(_))));
}

#[test]
fn connecting_never_waits() {
    let (_folder, path) = folder();
    let listener = Listener::bind(&path, Access::default()).unwrap();
    let mut waiting = Vec::new();
    let busy = (0..10).find_map(|_| match Connection::connect(&path) {
        Ok(connection) => {
            waiting.push(connection);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(busy, Some(ConnectError::Busy(_))), "the queue of waiting ones is short");
    for _ in &waiting {
        assert!(listener.try_accept().unwrap().is_some());
    }
    assert!(listener.try_accept().unwrap().is_none());
}

#[test]
fn listening_takes_and_leaves_a_clean_path() {
    let (_folder, path) = folder();
    let access = Access { mode: 0o606, ..Access::default() };
    let listener = Listener::bind(&path, access).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o606);
    let mut theirs = UnixStream::connect(&path).unwrap();
    let mut ours = listener.try_accept().unwrap().unwrap();
    theirs.write_all(&Request::SetOwner.encode(false).bytes()).unwrap();
    assert!(ours.try_receive().unwrap().is_some());
    drop(listener);
    assert!(!path.exists());

    // A listener that died without tidying up.
    drop(UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(&path, access).unwrap();
    // Somebody takes the path over: that file is not ours to remove.
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn listening_refuses_what_is_not_ours() {
    let (folder, path) = folder();
    let bind = || reason(Listener::bind(&path, Access::default()));
    fs::write(&path, "precious").unwrap();
    assert!(bind().ends_with("exists and is not a socket; remove it or choose another path"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    let other = UnixListener::bind(&path).unwrap();
    assert!(bind().contains("is in use by another process; stop that"));
    drop(other);

    let long = folder.path().join("x".repeat(PATH_BYTES_MAX));
    let reason = reason(Listener::bind(&long, Access::default()));
    assert!(reason.contains("1 to 107 are possible"));
    let nowhere = folder.path().join("missing/guest.sock");
    assert!(Listener::bind(&nowhere, Access::default()).is_err());
}

#[test]
fn a_foreign_stale_socket_is_left_alone_unless_it_was_given_away_by_us() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can give a file away.
        return;
    }
    let (_folder, path) = folder();
    drop(UnixListener::bind(&path).unwrap());
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    let refused = reason(Listener::bind(&path, Access::default()));
    assert!(refused.contains("belongs to user 4711"), "{refused}");
    let access = Access { owner: Some(4711), group: Some(4712), ..Access::default() };
    let _listener = Listener::bind(&path, access).unwrap();
    let made = fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((made.uid(), made.gid()), (4711, 4712));
}
