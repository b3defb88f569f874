//! What follows an answer, for as long as somebody reads it.
//!
//! Who reads slowly holds up a task of their own and nothing else: what they cannot take in time is
//! lost where it is made, and counted there. Who shuts their sending side asks for the end, and is told
//! what there is to tell of it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// How often it is looked for more.
const PACE: Duration = Duration::from_millis(5);

/// How long nothing may be read before that is taken for the end.
const STALL: Duration = Duration::from_secs(60);

/// What follows an answer.
pub trait Feed: Send {
    /// Adds to `octets` what there is, some hundred kilobytes at most. Returns whether more may come.
    /// `enough` says that the reader asks for the end.
    fn fill(&mut self, octets: &mut Vec<u8>, enough: bool) -> bool;
}

/// Writes all that the feed gives.
pub(super) async fn stream(mut socket: UnixStream, mut feed: Box<dyn Feed>) {
    let (reader, mut writer) = socket.split();
    let (mut octets, mut enough) = (Vec::new(), false);
    loop {
        octets.clear();
        let more = feed.fill(&mut octets, enough);
        if !octets.is_empty()
            && !matches!(timeout(STALL, writer.write_all(&octets)).await, Ok(Ok(())))
        {
            return;
        }
        if !more {
            return;
        }
        if octets.is_empty() {
            sleep(PACE).await;
        } else {
            // The next may be ready at once; others have their turn before.
            tokio::task::yield_now().await;
        }
        // What else is sent after the question has no meaning.
        match reader.try_read(&mut [0; 64]) {
            Ok(0) => enough = true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
