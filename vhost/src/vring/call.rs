//! The eventfd by which a driver is interrupted (vhost-user: `SET_VRING_CALL`).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A descriptor that was checked to be an eventfd and can never block its writer.
#[derive(Debug)]
pub struct Call {
    event: OwnedFd,
}

/// Why a descriptor is no use as a [`Call`].
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Writing to anything else could block a worker.
    #[error("the descriptor is {0:?}, not an eventfd")]
    NotEvent(String),
    /// The kernel's answer.
    #[error("inspecting the descriptor: {0}")]
    Kernel(#[from] std::io::Error),
}

impl Call {
    /// Checks the descriptor and makes it non-blocking.
    pub fn new(event: OwnedFd) -> Result<Self, CallError> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", event.as_raw_fd()))?;
        let link = link.to_string_lossy().into_owned();
        if !link.starts_with("anon_inode:[eventfd") {
            return Err(CallError::NotEvent(link));
        }
        let flags = fcntl(&event, FcntlArg::F_GETFL).map_err(std::io::Error::from)?;
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
        fcntl(&event, FcntlArg::F_SETFL(flags)).map_err(std::io::Error::from)?;
        Ok(Self { event })
    }

    /// Another descriptor of the same eventfd.
    pub fn copy(&self) -> std::io::Result<OwnedFd> {
        self.event.try_clone()
    }

    /// Interrupts the driver. The one system call of a worker; the descriptor does not block, and
    /// if its counter is full the driver has been told already.
    #[inline]
    pub(crate) fn ring(&self) {
        let _ = nix::unistd::write(&self.event, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;
    use std::os::fd::AsFd;

    #[test]
    fn only_an_eventfd_will_do() {
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(Call::new(pipe).unwrap_err().to_string().contains("not an eventfd"));
    }

    #[test]
    fn ringing_counts_and_never_blocks() {
        let event = EventFd::new().unwrap();
        let call = Call::new(event.as_fd().try_clone_to_owned().unwrap()).unwrap();
        call.ring();
        call.ring();
        assert_eq!(event.read().unwrap(), 2);
        event.write(u64::MAX - 1).unwrap();
        call.ring();
    }
}
