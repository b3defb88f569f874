//! A question and its answer, as lines of JSON.
//!
//! ```text
//! {"query":"fdb","network":"6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"}
//! {"version":"0.1.0","answer":{"fdb":{"statistics":{…},"entries":[…]}}}
//! {"version":"0.1.0","refusal":"…"}
//! ```
//!
//! Command and daemon may be of different versions: the daemon runs on while the program is replaced
//! on disk. A question that this version does not know in full is refused, never answered in part (a
//! filter that is passed over shows the wrong thing); an answer with more in it than this version
//! knows is read, and one that lacks something is told with both versions.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::view::{
    AcceptView, AclView, BondView, ConfigView, DomainView, DropView, ErrorView, ExplainView,
    FdbView, HandoverView, MemoryView, PortRef, PortView, RebalanceView, ReloadView, StoreView,
    Summary, TrialView, VhostView, WatchView, WorkerView,
};
use crate::model::{NetworkUuid, PortUuid};

/// The version of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Octets that a question may have, far above any.
pub(super) const QUERY_OCTETS_MAX: usize = 4096;

/// How long another process may take to be ready for a handover.
pub(crate) const HANDOVER_TIME: Duration = Duration::from_secs(60);

/// Octets that an answer may have: about a million addresses of the forwarding database.
pub(super) const ANSWER_OCTETS_MAX: usize = 256 << 20;

/// What can be asked. The empty braces are there so that serde refuses fields which it does not know;
/// for plain unit variants it passes them over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "lowercase", deny_unknown_fields)]
pub enum Query {
    /// The daemon at a glance.
    Summary {},
    /// All ports and uplinks.
    Ports {},
    /// All bonds of uplinks.
    Bonds {},
    /// All bridge domains.
    Domains {},
    /// The forwarding database.
    Fdb {
        /// Only the addresses of this network.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<NetworkUuid>,
    },
    /// The vhost-user side of ports.
    Vhost {
        /// Only of this port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<PortUuid>,
    },
    /// All workers, and their receive queues.
    Workers {},
    /// Give receive queues to workers by what they cost.
    Rebalance {
        /// Only tell how.
        dry_run: bool,
    },
    /// The configuration in force.
    Config {},
    /// Read the configuration anew and put it in force.
    Reload {
        /// Only tell what would be done.
        dry_run: bool,
        /// Do what can be done without a restart, although other changes need one.
        partly: bool,
    },
    /// Hand all over to a new process of the program that is installed.
    Handover {
        /// Only see whether it could be.
        dry_run: bool,
    },
    /// The compiled rules of all sets of groups that ports have.
    Acl {
        /// Only those of this port, whose port security must be on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<PortUuid>,
        /// Every rule too, with its hits.
        #[serde(default)]
        rules: bool,
    },
    /// What may enter and leave a port.
    Explain {
        /// Which one.
        port: PortUuid,
    },
    /// What would become of a frame.
    Trial {
        /// The port that it comes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<PortRef>,
        /// If it comes from none: the port that it is to go to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<PortRef>,
        /// The frame, as [`Sketch`](crate::frame::Sketch) reads it.
        frame: String,
    },
    /// Copies of frames, one [`Event`](super::view::Event) each, that follow the answer.
    Capture {
        /// The ports that they come from or go to; any if there is none.
        ports: Vec<PortRef>,
        /// Only those that are dropped.
        drops: bool,
        /// Only those that match, as [`filter`](crate::frame::filter) reads it.
        filter: String,
        /// The most octets of each.
        snaplen: u32,
        /// How many; no end if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// For how long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// What became of frames, one [`Event`](super::view::Event) each, that follow the answer.
    Trace {
        /// The ports that they come from; any if there is none.
        ports: Vec<PortRef>,
        /// Only those that match, as [`filter`](crate::frame::filter) reads it.
        filter: String,
        /// How many.
        count: u64,
        /// For how long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// What memory is used for.
    Memory {},
    /// The store.
    Store {},
    /// Take a store that was wiped at its word.
    Accept {},
    /// All drops, by port and reason.
    Drops {},
    /// All that is wrong with desired state.
    Errors {},
}

impl Query {
    /// Whether an answer is one to this question.
    pub fn is_answered_by(&self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (Query::Summary {}, Answer::Summary(_))
                | (Query::Ports {}, Answer::Ports(_))
                | (Query::Bonds {}, Answer::Bonds(_))
                | (Query::Domains {}, Answer::Domains(_))
                | (Query::Fdb { .. }, Answer::Fdb(_))
                | (Query::Vhost { .. }, Answer::Vhost(_))
                | (Query::Workers {}, Answer::Workers(_))
                | (Query::Rebalance { .. }, Answer::Rebalance(_))
                | (Query::Config {}, Answer::Config(_))
                | (Query::Reload { .. }, Answer::Reload(_))
                | (Query::Handover { .. }, Answer::Handover(_))
                | (Query::Acl { .. }, Answer::Acl(_))
                | (Query::Explain { .. }, Answer::Explain(_))
                | (Query::Trial { .. }, Answer::Trial(_))
                | (Query::Capture { .. }, Answer::Capture(_))
                | (Query::Trace { .. }, Answer::Trace(_))
                | (Query::Memory {}, Answer::Memory(_))
                | (Query::Store {}, Answer::Store(_))
                | (Query::Accept {}, Answer::Accept(_))
                | (Query::Drops {}, Answer::Drops(_))
                | (Query::Errors {}, Answer::Errors(_))
        )
    }
}

/// What is answered, each variant to the question of its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The daemon at a glance.
    Summary(Box<Summary>),
    /// Ports and uplinks.
    Ports(Vec<PortView>),
    /// Bonds of uplinks.
    Bonds(Vec<BondView>),
    /// Bridge domains.
    Domains(Vec<DomainView>),
    /// The forwarding database.
    Fdb(FdbView),
    /// The vhost-user side of ports.
    Vhost(Vec<VhostView>),
    /// Workers.
    Workers(Vec<WorkerView>),
    /// How queues are given to workers.
    Rebalance(RebalanceView),
    /// The configuration in force.
    Config(ConfigView),
    /// What a reload came to.
    Reload(ReloadView),
    /// What a handover came to.
    Handover(HandoverView),
    /// Compiled rules.
    Acl(Vec<AclView>),
    /// What may enter and leave a port.
    Explain(Box<ExplainView>),
    /// What would become of a frame.
    Trial(Box<TrialView>),
    /// Frames are captured, and follow.
    Capture(WatchView),
    /// Frames are traced, and follow.
    Trace(WatchView),
    /// What memory is used for.
    Memory(MemoryView),
    /// The store.
    Store(Box<StoreView>),
    /// What is let go.
    Accept(AcceptView),
    /// Drops that happened: reasons for which nothing was dropped at a port may be left out.
    Drops(Vec<DropView>),
    /// What is wrong with desired state.
    Errors(Vec<ErrorView>),
}

/// What comes back for a question: an answer, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The daemon's version.
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// What every version's reply has.
#[derive(Deserialize)]
pub(super) struct Sender {
    pub version: String,
}

impl Query {
    /// How long its answer may take, which is `usual` for most.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        match self {
            // Another process starts meanwhile.
            Query::Handover { .. } => usual + HANDOVER_TIME,
            _ => usual,
        }
    }

    /// Reads a question, or says why it is none.
    pub(super) fn parse(line: &[u8]) -> Result<Query, String> {
        serde_json::from_slice(line).map_err(|error| {
            format!(
                "viaduct {VERSION} does not understand the question: {error}; ask with the \
                 `viaduct` of the version that runs, or restart the daemon after an update"
            )
        })
    }

    /// The question as a line.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a question is JSON: names and UUIDs");
        line.push(b'\n');
        line
    }
}

impl Reply {
    pub fn answer(answer: Answer) -> Reply {
        Reply { version: VERSION.to_owned(), answer: Some(answer), refusal: None }
    }

    pub fn refusal(why: impl Into<String>) -> Reply {
        Reply { version: VERSION.to_owned(), answer: None, refusal: Some(why.into()) }
    }

    /// The reply as a line, or a refusal as a line if it would be longer than an answer may be.
    pub fn line(&self) -> Vec<u8> {
        self.line_within(ANSWER_OCTETS_MAX)
    }

    fn line_within(&self, most: usize) -> Vec<u8> {
        let mut line = Bounded { octets: Vec::new(), most };
        let written = serde_json::to_writer(&mut line, self);
        let Bounded { octets: mut line, .. } = line;
        if let Err(error) = written {
            // What else can fail is a path that is not UTF-8, and paths come from texts.
            let why = format!("{error}; ask for less: `viaduct show fdb --network X`");
            line = serde_json::to_vec(&Reply::refusal(why)).expect("two texts are JSON");
        }
        line.push(b'\n');
        line
    }
}

/// Takes octets up to a bound.
struct Bounded {
    octets: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.octets.len() + octets.len() > self.most {
            return Err(io::Error::other(format!("the answer is over {} octets", self.most)));
        }
        self.octets.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_becomes_a_refusal() {
        let reply = Reply::answer(Answer::Ports(Vec::new()));
        let line = String::from_utf8(reply.line_within(100)).expect("JSON");
        assert_eq!(line, format!("{{\"version\":\"{VERSION}\",\"answer\":{{\"ports\":[]}}}}\n"));
        let line = String::from_utf8(reply.line_within(20)).expect("JSON");
        assert_eq!(
            line,
            format!(
                "{{\"version\":\"{VERSION}\",\"refusal\":\"the answer is over 20 octets; ask for \
                 less: `viaduct show fdb --network X`\"}}\n"
            )
        );
    }
}
