//! One stream of watches: requests go out while responses come in.
//!
//! A server stops reading requests while its responses are not read, so a thousand watches cannot be
//! asked for first and listened to afterwards: both are done in [`Stream::next`].

use std::collections::VecDeque;

use etcd_client::{
    Error, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream, WatchStream,
};

use super::super::connect::Connection;
use super::super::trouble::Trouble;
use super::closure::{Begin, Closure};
use crate::config::Prefix;

/// See the [module's head](self).
pub(super) struct Stream {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    waiting: VecDeque<Request>,
    prefix: Prefix,
}

enum Request {
    Begin(Begin),
    End(i64),
    Progress,
}

/// That a stream has ended, with an error or without.
pub(super) struct Ended;

impl Stream {
    /// Opens a stream that watches all that is known, each range from where it was left.
    pub async fn open(
        connection: &Connection,
        prefix: &Prefix,
        closure: &mut Closure,
    ) -> Result<Stream, Trouble> {
        closure.unwatched();
        closure.forget();
        let mut begin = VecDeque::from(closure.begin());
        let Some(first) = begin.pop_front() else {
            // The ports of the host are always known by now.
            return Err(connection.leave_current());
        };
        let doing = format!("watching {}", first.range.in_etcd(prefix));
        let stream = connection.call(&doing, |mut link| {
            let (key, options) = (first.range.in_etcd(prefix), options(&first));
            async move { link.watch.watch(key, Some(options)).await as Result<WatchStream, Error> }
        });
        let (requests, responses) = stream.await?.split();
        let waiting = begin.into_iter().map(Request::Begin).collect();
        Ok(Stream { requests, responses, waiting, prefix: prefix.clone() })
    }

    /// Ends watches of what is not needed any more, and begins those of what is.
    pub fn update(&mut self, closure: &mut Closure) {
        self.waiting.extend(closure.forget().into_iter().map(Request::End));
        self.waiting.extend(closure.begin().into_iter().map(Request::Begin));
    }

    /// Asks the server for a sign of life.
    ///
    /// What it says of progress is true of no watch in particular: servers before 3.4.25 say it before
    /// they have sent all that was up to there (etcd issue 15220).
    pub fn ask_for_progress(&mut self) {
        self.waiting.push_back(Request::Progress);
    }

    /// The next response. Nothing is lost if the waiting is given up.
    pub async fn next(&mut self) -> Result<WatchResponse, Ended> {
        loop {
            let Stream { requests, responses, waiting, prefix } = self;
            tokio::select! {
                response = responses.message() => return match response {
                    Ok(Some(response)) => Ok(response),
                    Ok(None) | Err(_) => Err(Ended),
                },
                // A request that was not sent when the waiting is given up is still the first.
                sent = send(requests, waiting.front(), prefix) => {
                    sent.map_err(|_| Ended)?;
                    waiting.pop_front();
                }
            }
        }
    }
}

async fn send(
    requests: &mut WatchRequestSender,
    request: Option<&Request>,
    prefix: &Prefix,
) -> Result<(), Error> {
    match request {
        Some(Request::Begin(begin)) => {
            requests.watch(begin.range.in_etcd(prefix), Some(options(begin))).await
        }
        Some(Request::End(id)) => requests.cancel(*id).await,
        Some(Request::Progress) => requests.request_progress().await,
        None => std::future::pending().await,
    }
}

fn options(begin: &Begin) -> WatchOptions {
    let options = WatchOptions::new()
        .with_watch_id(begin.id)
        .with_start_revision(begin.from)
        .with_fragment()
        .with_progress_notify();
    if begin.range.is_folder() { options.with_prefix() } else { options }
}
