//! A watch that a server has accepted: one change, when it comes.

use std::time::Duration;

use reqwest::Response;
use tokio::time::timeout;

use super::{Event, index_of};

/// Octets of one change, at most: etcd takes no request above 1.5 MiB, and a change tells the former
/// value too.
const CHANGE_OCTETS_MAX: usize = 8 << 20;

/// A long poll under way.
#[derive(Debug)]
pub struct Waiting {
    response: Response,
    index: u64,
}

impl Waiting {
    /// The poll behind this response, of which nothing but the head has come.
    pub(super) fn new(response: Response) -> Result<Waiting, String> {
        match index_of(&response) {
            Some(index) => Ok(Waiting { response, index }),
            None => Err("a server accepts a watch without telling its index".to_owned()),
        }
    }

    /// The index of the store when it accepted. A change up to there would have been told at once, so
    /// that when none comes, the next watch may begin after it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The change; `None` if none comes in this time.
    pub async fn event(self, within: Duration) -> Result<Option<Event>, String> {
        let Ok(body) = timeout(within, body(self.response, CHANGE_OCTETS_MAX)).await else {
            return Ok(None);
        };
        let body = body?;
        // A server that is stopped ends its watches in order, with nothing said.
        if body.is_empty() {
            return Ok(None);
        }
        let event = serde_json::from_slice(&body);
        event.map(Some).map_err(|error| format!("a server tells a change that is none: {error}"))
    }
}

/// All of a body, unless it is larger than it may be.
pub(super) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if all.len() + chunk.len() > most => {
                return Err(format!("a server's answer has more than {most} octets"));
            }
            Ok(Some(chunk)) => all.extend_from_slice(&chunk),
            Ok(None) => return Ok(all),
            Err(error) => return Err(format!("an answer is cut off: {}", super::words(&error))),
        }
    }
}
