//! What the daemon answers at a time.

use std::path::Path;
use std::time::Instant;

use control::show::view::{DropView, PortView, Summary, WorkerView};
use control::show::{Answer, AskError, Query, ask};

/// All that rates are made of, at one time.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Instant,
    pub summary: Summary,
    pub ports: Vec<PortView>,
    pub workers: Vec<WorkerView>,
    pub drops: Vec<DropView>,
}

impl Reading {
    /// Asks the daemon.
    pub async fn take(socket: &Path) -> Result<Reading, AskError> {
        let Answer::Summary(summary) = ask(socket, &Query::Summary {}).await? else {
            unreachable!("{ASKED}")
        };
        let Answer::Ports(ports) = ask(socket, &Query::Ports {}).await? else {
            unreachable!("{ASKED}")
        };
        let Answer::Drops(drops) = ask(socket, &Query::Drops {}).await? else {
            unreachable!("{ASKED}")
        };
        let at = Instant::now();
        let Answer::Workers(workers) = ask(socket, &Query::Workers {}).await? else {
            unreachable!("{ASKED}")
        };
        Ok(Reading { at, summary: *summary, ports, workers, drops })
    }
}

/// `ask` gives the answer to its question or an error.
const ASKED: &str = "the answer is to the question";
