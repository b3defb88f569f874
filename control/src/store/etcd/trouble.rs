//! What can go wrong with etcd, told from what its client says.
//!
//! The client's errors are gRPC's: a number and a text, and for what never reached a server a chain of
//! causes. Which of them mean that another server should be tried, that a login is due, or that
//! somebody has to do something, is decided here and nowhere else.

use std::error::Error as _;

use etcd_client::Error;

use super::super::StoreError;
use crate::problem::Problem;

/// Why something did not work, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub kind: Kind,
    location: String,
    what: String,
    remedy: &'static str,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server did not answer, or cannot at present: try another one, try again.
    Away,
    /// The cluster has no leader: as good as away.
    NoLeader,
    /// Its certificate is not trusted, or ours is not.
    Untrusted,
    /// A file of ours cannot be read.
    File,
    /// Wrong user or password.
    Login,
    /// The token has run out: log in again.
    Token,
    /// The user may not.
    Forbidden,
    /// The database is full.
    Full,
    /// The request is larger than the server takes.
    TooLarge,
    /// The revision that was asked for is not kept any more.
    Compacted,
    /// The lease has run out.
    NoLease,
    /// Something that should not be.
    Other,
}

impl Kind {
    /// Whether the same request may be answered by another server, or a moment later.
    pub fn passes(self) -> bool {
        matches!(self, Kind::Away | Kind::NoLeader)
    }

    fn remedy(self) -> &'static str {
        match self {
            Kind::Away => "start etcd, or correct `endpoints` of store.etcd and the way there",
            Kind::NoLeader => {
                "start more of its members: it works while more than half of them run"
            }
            Kind::Untrusted => {
                "correct `ca`, `certificate` or `key` of store.etcd, or the server's certificate"
            }
            Kind::File => {
                "correct the path in store.etcd, or let the user that runs viaduct read it"
            }
            Kind::Login => "correct `user` of store.etcd, or the password in its `password_file`",
            Kind::Token => "set `user` and `password_file` of store.etcd to a user of etcd",
            Kind::Forbidden => "grant the user's role what control-plane.md lists",
            Kind::Full => "compact and defragment etcd, then run `etcdctl alarm disarm`",
            Kind::TooLarge => "make the value smaller, or raise etcd's --max-request-bytes",
            Kind::Compacted | Kind::NoLease | Kind::Other => {
                "look at the log of etcd, then try again"
            }
        }
    }
}

impl Trouble {
    /// Trouble in these words.
    pub fn new(kind: Kind, location: &str, what: impl Into<String>) -> Trouble {
        Trouble { kind, location: location.to_owned(), what: what.into(), remedy: kind.remedy() }
    }

    /// What the client says about a server, when this was tried.
    pub fn told(error: &Error, location: &str, server: &str, doing: &str) -> Trouble {
        let (kind, detail) = judged(error);
        Trouble::worded(kind, &detail, location, server, doing)
    }

    fn worded(kind: Kind, detail: &str, location: &str, server: &str, doing: &str) -> Trouble {
        let what = match kind {
            Kind::Away => format!("{server} does not answer: {detail}"),
            Kind::NoLeader => format!("{server} answers that there is no leader"),
            Kind::Untrusted => format!("{server} is not trusted, or does not trust us: {detail}"),
            Kind::Login => format!("{server} refuses the login: {detail}"),
            Kind::Token => format!("{server} wants a user who is logged in, for {doing}"),
            Kind::Forbidden => format!("{doing} is not permitted"),
            Kind::Full => format!("{doing} failed: the database of etcd is full"),
            Kind::TooLarge => format!("{doing} failed: it is more than etcd takes at once"),
            Kind::File | Kind::Compacted | Kind::NoLease | Kind::Other => {
                format!("{doing} failed at {server}: {detail}")
            }
        };
        Trouble::new(kind, location, what)
    }

    /// That the server said nothing in time.
    pub fn silent(location: &str, server: &str) -> Trouble {
        Trouble::new(Kind::Away, location, format!("{server} does not answer: it is silent"))
    }

    /// As an outage of which the store's user is told, since when.
    pub fn outage(&self, since: &str) -> Problem {
        let what = format!("{}; since {since} what was read last stays in force", self.what);
        Problem::whole(&self.location, what, self.remedy)
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> StoreError {
        let Trouble { location, what, remedy, .. } = trouble;
        StoreError::Remote { location, what, remedy }
    }
}

/// gRPC's numbers (statuscodes.md of gRPC).
const CANCELLED: i32 = 1;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// What the error means, and its words.
fn judged(error: &Error) -> (Kind, String) {
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::TransportError(error) => {
            let detail = innermost(error);
            return (transport(&detail), detail);
        }
        // A lease that is gone has no error of its own in this client.
        Error::LeaseKeepAliveError(text) if text.contains("not found") => {
            return (Kind::NoLease, text.clone());
        }
        Error::IoError(_) | Error::WatchError(_) | Error::LeaseKeepAliveError(_) => {
            return (Kind::Away, error.to_string());
        }
        other => return (Kind::Other, other.to_string()),
    };
    let text = status.message().trim_start_matches("etcdserver: ").to_owned();
    let has = |part: &str| text.contains(part);
    let kind = match i32::from(status.code()) {
        _ if has("no leader") => Kind::NoLeader,
        UNAUTHENTICATED => Kind::Token,
        _ if has("invalid auth token") => Kind::Token,
        // No token was sent to a cluster that wants one, or one from before the users were changed.
        INVALID_ARGUMENT if has("user name is empty") || has("auth store is old") => Kind::Token,
        INVALID_ARGUMENT if has("invalid user ID or password") => Kind::Login,
        INVALID_ARGUMENT if has("too large") => Kind::TooLarge,
        PERMISSION_DENIED => Kind::Forbidden,
        RESOURCE_EXHAUSTED if has("space exceeded") => Kind::Full,
        RESOURCE_EXHAUSTED if has("larger than max") => Kind::TooLarge,
        RESOURCE_EXHAUSTED => Kind::Away,
        OUT_OF_RANGE if has("compacted") => Kind::Compacted,
        NOT_FOUND if has("lease") => Kind::NoLease,
        UNAVAILABLE if status.source().is_some() => {
            let detail = innermost(status);
            return (transport(&detail), detail);
        }
        // A connection that breaks under a request comes as any of these.
        CANCELLED | DEADLINE_EXCEEDED | UNAVAILABLE => Kind::Away,
        _ if status.source().is_some() => {
            let detail = innermost(status);
            return (transport(&detail), detail);
        }
        INTERNAL => Kind::Away,
        // The connection's own task is gone, as with the runtime that it was on.
        _ if has("Service was not ready") => Kind::Away,
        _ => Kind::Other,
    };
    (kind, text)
}

/// What did not get to a server: for want of trust, or of a server.
fn transport(detail: &str) -> Kind {
    let signs = ["certificate", "fatal alert", "UnknownIssuer", "NotValidForName"];
    if signs.iter().any(|sign| detail.contains(sign)) { Kind::Untrusted } else { Kind::Away }
}

/// The words of the cause of all causes, which alone says something.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented::assert_documented;

    #[test]
    fn every_trouble_is_documented() {
        let (location, server) = ("etcd http://a:1", "http://a:1");
        let lease = Error::LeaseKeepAliveError("lease not found".to_owned());
        let lost = Error::WatchError("closed".to_owned());
        assert_eq!(Trouble::told(&lease, location, server, "x").kind, Kind::NoLease);
        assert_eq!(Trouble::told(&lost, location, server, "x").kind, Kind::Away);
        let kinds = [
            Kind::Away,
            Kind::NoLeader,
            Kind::Untrusted,
            Kind::Login,
            Kind::Token,
            Kind::Forbidden,
            Kind::Full,
            Kind::TooLarge,
            Kind::Compacted,
            Kind::NoLease,
            Kind::Other,
        ];
        let worded = kinds.map(|kind| Trouble::worded(kind, "why", location, server, "reading x"));
        for trouble in worded.into_iter().chain([Trouble::silent(location, server)]) {
            assert_documented(&trouble.outage("2024-05-01T10:00:00Z"));
            assert_documented(&StoreError::from(trouble).problem());
        }
    }

    #[test]
    fn what_is_not_trusted_is_told_from_what_is_away() {
        for (detail, kind) in [
            ("Connection refused (os error 111)", Kind::Away),
            ("invalid peer certificate: UnknownIssuer", Kind::Untrusted),
            ("received fatal alert: CertificateRequired", Kind::Untrusted),
        ] {
            assert_eq!(transport(detail), kind, "{detail}");
        }
    }
}
