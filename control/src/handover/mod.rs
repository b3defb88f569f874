//! A daemon that goes on in another process, of another version perhaps, while its guests run.
//!
//! ```text
//! old                              new
//! starts it                        reads configuration and desired state, starts DPDK, compiles rules
//!                        hello ──▶
//! guests, sockets, learned ──────▶ maps memory, attaches ports; its workers wait
//!                        ready ──▶
//! workers pause, rings halt
//! what changed, where rings are ─▶
//!                     ◀── taken    from here on the new one has the guests
//! closes devices                   rings go on
//! released ──────────────────────▶ opens devices, answers commands, reports
//!                   ◀── flowing
//! ends
//! ```
//!
//! Up to `taken` the old one goes on whatever happens to the new one, and says why; after it, the new one
//! has all, and its end is that of any daemon. A daemon that is told `taken` touches nothing of the guests
//! any more. The socket between the two is a pair that the old one makes and that nobody else has an end
//! of: it is the new one's standard input.
//!
//! Messages are JSON. They belong to a [`FORMAT`]; of another format only the greeting can be relied on.

mod channel;
mod giving;
mod taking;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bond::LacpRecord;
use crate::guest::GuestRecord;
use crate::learned::Learned;
use crate::model::{HostName, PhysnetName, PortUuid};

pub(crate) use channel::{Channel, ChannelError};
pub use giving::CommandLine;
pub(crate) use giving::{Successor, Word};
pub use taking::Predecessor;

/// The format of messages: another number whenever one of them, or what is in it, changes its meaning.
pub(crate) const FORMAT: u32 = 1;

/// Who greets. The format and the version are in the greeting of every format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) format: u32,
    pub(crate) version: String,
    /// What the new one's configuration says; guests can be handed over only where it is the same.
    #[serde(default)]
    pub(crate) same: Option<Same>,
}

/// What must be the same for both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Same {
    pub(crate) host: HostName,
    pub(crate) socket_directory: PathBuf,
    pub(crate) control_socket: PathBuf,
}

/// What is said after the greeting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Message {
    /// A guest, or what became of one. Its descriptors go beside.
    Guest(Box<GuestRecord>),
    /// Addresses that were learned.
    Learned(Learned),
    /// All guests were told of; the sockets of the daemon itself go beside.
    Offered(Offered),
    /// The new one could go on from here.
    Ready {},
    /// Where the rings of each guest stand that is connected; others are gone.
    Halted {
        rings: BTreeMap<PortUuid, Vec<u32>>,
        /// When the workers were told to pause, by the time-stamp counter.
        since: u64,
    },
    /// The new one has the guests.
    Taken {},
    /// The old one has closed its devices, and does not answer commands.
    Released {
        /// How LACP stands on the bonds that speak it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        bonds: BTreeMap<PhysnetName, LacpRecord>,
    },
    /// Frames move again.
    Flowing {
        /// For so long they did not.
        pause_us: u64,
        guests: u32,
    },
    /// It was only to be seen whether it could.
    Enough {},
    /// It does not happen; why, is a sentence.
    Refused { why: String },
}

/// The daemon's own sockets, and who it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offered {
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// Where metrics are served, if the socket comes beside, behind that for commands.
    pub(crate) metrics: Option<String>,
}

/// Why a daemon of another format cannot be talked to.
pub(crate) fn stranger(hello: &Hello) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "viaduct {} hands over in format {}, and viaduct {version}, which runs, in format {FORMAT}: \
         restart it instead",
        hello.version, hello.format
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_of_any_format_can_be_read() {
        let later = r#"{"format":7,"version":"3.1.0","same":null,"colour":"red"}"#;
        let hello: Hello = serde_json::from_str(later).expect("a greeting");
        let why = stranger(&hello);
        assert!(why.contains("viaduct 3.1.0") && why.contains("format 7"), "{why}");
        assert!(why.ends_with("restart it instead"), "{why}");
    }

    #[test]
    fn what_is_not_known_is_no_message() {
        let known = serde_json::to_string(&Message::Taken {}).expect("JSON");
        assert_eq!(serde_json::from_str::<Message>(&known).ok(), Some(Message::Taken {}));
        for strange in [r#"{"taken":{"now":1}}"#, r#"{"given":{}}"#, r#""taken""#, ""] {
            assert!(serde_json::from_str::<Message>(strange).is_err(), "{strange}");
        }
    }
}
