//! Brings what EAL and the drivers log into `tracing`, target `dpdk`.
//!
//! DPDK writes text to a C stream, several pieces to a line at times and from any thread. The C
//! side hands each piece to [`sink`], which puts lines together per thread and emits them with the
//! level that DPDK gave. Error lines are also what explains a failed call, since DPDK's return
//! values say little: [`listen`] returns those that a call has caused on the calling thread.
//!
//! Workers cause no log lines while all goes well; a driver that complains in a burst call does so
//! through the subscriber, in the worker's time.

use std::cell::RefCell;
use std::ffi::c_char;
use std::panic;
use std::slice;

use tracing::{debug, error, info, warn};

/// Longer lines are cut here, so that a stream without line ends takes no memory without bound.
const LINE_MAX: usize = 4096;

/// Error lines kept of one call. More repeat themselves.
const COMPLAINTS_MAX: usize = 6;

/// Error lines that EAL adds to every failed probe, after the driver's own that says why.
const HOLLOW: [&str; 2] =
    ["Driver cannot attach the device", "Failed to attach device on primary process"];

thread_local! {
    /// The line that this thread has begun.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Error lines of the call that this thread listens to, if it does.
    static COMPLAINTS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Sends DPDK's logs to `tracing` from now on; false if the C library has no memory for a stream.
pub(super) fn redirect() -> bool {
    // SAFETY: sink matches the C type, never unwinds, and lives as long as the program.
    unsafe { dpdk_sys::viaduct_log_redirect(Some(sink)) == 0 }
}

/// Runs `call` and returns with its result what DPDK complained of meanwhile on this thread, as one
/// text; empty if it said nothing.
pub(super) fn listen<R>(call: impl FnOnce() -> R) -> (R, String) {
    COMPLAINTS.with(|complaints| complaints.replace(Some(Vec::new())));
    let result = call();
    let lines = COMPLAINTS.with(|complaints| complaints.take()).unwrap_or_default();
    (result, lines.join("; "))
}

/// Takes one piece of text from C.
extern "C" fn sink(level: u32, text: *const c_char, length: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: the C library hands over `length` readable bytes at `text` for the time of the call.
    let piece = unsafe { slice::from_raw_parts(text.cast::<u8>(), length) };
    // A panic of a subscriber must not unwind into C. It has been reported by the panic hook, and
    // the line that it was about is lost.
    let _ = panic::catch_unwind(|| collect(level, piece));
}

/// Adds a piece to the thread's line and emits the lines that it completes.
fn collect(level: u32, mut piece: &[u8]) {
    // A thread that is ending has no thread-locals any more; then the piece is a line of its own.
    let kept = LINE.try_with(|line| {
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            line.borrow_mut().extend_from_slice(&piece[..end]);
            piece = &piece[end + 1..];
            let whole = line.take();
            emit(level, &whole);
        }
        line.borrow_mut().extend_from_slice(piece);
        if line.borrow().len() > LINE_MAX {
            let cut = line.take();
            emit(level, &cut);
        }
    });
    if kept.is_err() {
        emit(level, piece);
    }
}

fn emit(level: u32, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    match level {
        dpdk_sys::RTE_LOG_WARNING => warn!(target: "dpdk", "{text}"),
        dpdk_sys::RTE_LOG_NOTICE | dpdk_sys::RTE_LOG_INFO => info!(target: "dpdk", "{text}"),
        dpdk_sys::RTE_LOG_DEBUG => debug!(target: "dpdk", "{text}"),
        // Errors, and the graver levels below them.
        _ => {
            complain(text);
            error!(target: "dpdk", "{text}");
        }
    }
}

fn complain(text: &str) {
    let text = text.trim_start_matches("EAL: ").trim_start_matches("FATAL: ");
    if HOLLOW.iter().any(|hollow| text.starts_with(hollow)) {
        return;
    }
    // A thread that is ending listens to nothing.
    let _ = COMPLAINTS.try_with(|complaints| {
        if let Some(lines) = complaints.borrow_mut().as_mut()
            && lines.len() < COMPLAINTS_MAX
            && !lines.iter().any(|line| line == text)
        {
            lines.push(text.to_owned());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lines_are_heard_by_the_thread_that_listens() {
        let ((), said) = listen(|| {
            collect(dpdk_sys::RTE_LOG_ERR, b"EAL: cannot ");
            collect(dpdk_sys::RTE_LOG_ERR, b"open x\nEAL: give up\nEAL: give up\nhal");
            collect(dpdk_sys::RTE_LOG_INFO, b"f a line\n");
            collect(dpdk_sys::RTE_LOG_ERR, b"EAL: Driver cannot attach the device (x)\n");
        });
        assert_eq!(said, "cannot open x; give up");
        let ((), said) = listen(|| ());
        assert_eq!(said, "");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let ((), said) = listen(|| collect(dpdk_sys::RTE_LOG_ERR, &[b'x'; LINE_MAX + 1]));
        assert_eq!(said.len(), LINE_MAX + 1);
        assert_eq!(LINE.with(|line| line.borrow().len()), 0);
    }
}
