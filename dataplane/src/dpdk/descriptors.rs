//! What DPDK has opened stays this process's own.
//!
//! DPDK opens devices (groups of VFIO, `/dev/net/tun`) so that programs which are started from here have
//! them open too. A device that two processes have is free only when both have ended: the one that goes
//! on in the place of this one could not open it, since it holds it already.

use std::io;

/// Has no program that is started from now on inherit a descriptor of this process, the standard streams
/// apart.
///
/// # Errors
/// The kernel has no such call: it is older than Linux 5.11.
pub fn keep_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: a flag is set on descriptors, none is closed; the call takes numbers alone.
    let status = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_a_library_has_opened_is_not_inherited() {
        let file = File::open("/dev/null").expect("it is there");
        let flags = |descriptor: i32| {
            // SAFETY: reads or sets a flag of a descriptor of ours.
            unsafe { libc::fcntl(descriptor, libc::F_GETFD) }
        };
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        assert_eq!(flags(file.as_raw_fd()) & libc::FD_CLOEXEC, 0, "as C opens it");
        keep_descriptors().expect("Linux 5.11");
        assert_eq!(flags(file.as_raw_fd()) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        assert_eq!(flags(2) & libc::FD_CLOEXEC, 0, "the standard streams are");
    }
}
