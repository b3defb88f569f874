//! Bytes together with descriptors, over one system call each (unix(7), `SCM_RIGHTS`).
//!
//! Receiving is done on libc: when the kernel reports that it cut the control data short, it has
//! installed some descriptors all the same, and they must be taken over to be closed.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::message::DESCRIPTORS_MAX;

/// Room for the control data of [`DESCRIPTORS_MAX`] descriptors, in words, which align it.
const CONTROL_WORDS: usize = {
    let bytes = size_of::<RawFd>() * DESCRIPTORS_MAX;
    // SAFETY: computes a number from a number; that it is unsafe is an accident of its binding.
    let space = unsafe { libc::CMSG_SPACE(bytes as u32) } as usize;
    space.div_ceil(size_of::<u64>())
};

/// What one read brought.
pub(super) struct Received {
    /// Bytes, 0 at the end of the stream.
    pub(super) bytes: usize,
    pub(super) descriptors: Vec<OwnedFd>,
    /// There were more descriptors than could be received.
    pub(super) truncated: bool,
}

/// Reads what is there, into a `buffer` that is not empty. Descriptors are not inherited by
/// programs that this process starts.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is plain integers and pointers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let bytes = loop {
        // SAFETY: `message` points to `parts`, `buffer` and `control`, all of which outlive the
        // call and are as long as it says.
        let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        match usize::try_from(bytes) {
            Ok(bytes) => break bytes,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled `control` and wrote its length to `message`; the two macros stay
    // within it and return null at its end.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !header.is_null() {
        // SAFETY: not null, so a header that the kernel wrote and that lies within `control`.
        let head = unsafe { ptr::read_unaligned(header) };
        if (head.cmsg_level, head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above; the data begins behind the header and ends where its length says.
            let (first, lead) = unsafe {
                let first = libc::CMSG_DATA(header);
                (first, first.offset_from_unsigned(header.cast()))
            };
            let count = (head.cmsg_len).saturating_sub(lead) / size_of::<RawFd>();
            for at in 0..count {
                // SAFETY: within the data, see above. The kernel made this descriptor for us in
                // this call, so nobody else owns it.
                let descriptor =
                    unsafe { OwnedFd::from_raw_fd(first.cast::<RawFd>().add(at).read_unaligned()) };
                descriptors.push(descriptor);
            }
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(&message, header) };
    }
    let truncated = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Received { bytes, descriptors, truncated })
}

/// Writes what there is room for; the descriptors go with the first byte.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[] } else { rights.as_slice() };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None);
        match sent {
            Err(nix::errno::Errno::EINTR) => {}
            sent => return sent.map_err(io::Error::from),
        }
    }
}
