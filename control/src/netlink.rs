//! What requests to the kernel's netlink have in common: a time in which they must be answered, and
//! words for what the kernel says.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use nix::errno::Errno;

/// Time for one request. The kernel needs microseconds, unless somebody holds its lock on interfaces.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for an answer, but not for ever.
pub(crate) async fn within<T>(doing: &str, answer: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.map_err(|_| format!("{doing}: the kernel does not answer"))
}

/// The kernel's number for what failed, if it was the kernel that refused.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.to_io().raw_os_error().map(Errno::from_raw)
        }
        _ => None,
    }
}

/// What failed, and what to do where that is known.
pub(crate) fn sentence(doing: &(impl Display + ?Sized), error: &rtnetlink::Error) -> String {
    match errno(error) {
        Some(Errno::EPERM) => format!("{doing}: no permission; run viaduct with CAP_NET_ADMIN"),
        Some(errno) => format!("{doing}: {}", errno.desc()),
        None => format!("{doing}: {error}"),
    }
}
