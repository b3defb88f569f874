//! What the daemon answers, for people: tables that align, and that `grep` and `awk` can take apart.
//!
//! Pure functions from views to text. One object is one line, words in a cell have no spaces where
//! that can be helped, free text is in the last column, `-` stands for nothing. Numbers are rounded
//! and UUIDs shortened as far as they stay apart; `--json` is there for exact ones.

mod acl;
mod bonds;
mod config;
mod course;
mod drops;
mod explain;
mod fdb;
mod handover;
pub mod labels;
mod memory;
mod mirrors;
mod nics;
mod ports;
mod setup;
mod store;
mod summary;
pub mod table;
mod trial;
pub mod units;
mod vhost;
mod workers;

use control::problem::Problem;
use control::show::view::{ErrorView, Severity};

pub use self::acl::{acl, acl_rules};
pub use self::bonds::bonds;
pub use self::config::{config, reload};
pub use self::course::{course, end, frame, port_name};
pub use self::drops::drops;
pub use self::explain::explain;
pub use self::fdb::fdb;
pub use self::handover::handover;
pub use self::memory::memory;
pub use self::mirrors::mirrors;
pub use self::nics::nics;
pub use self::ports::{domains, ports};
pub use self::setup::setup;
pub use self::store::store;
pub use self::summary::summary;
pub use self::trial::trial;
pub use self::vhost::{vhost, vhost_session};
pub use self::workers::{rebalance, rxqs, workers};

/// What is wrong, a line each.
pub fn errors(views: &[ErrorView]) -> String {
    if views.is_empty() {
        return "nothing is wrong\n".to_owned();
    }
    views.iter().map(|view| error(view) + "\n").collect()
}

/// A problem on one line.
pub fn problem(problem: &Problem) -> String {
    error(&ErrorView::from(problem))
}

fn error(view: &ErrorView) -> String {
    let severity = match view.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let ErrorView { object, line, field, what, remedy, .. } = view;
    let line = line.map(|line| format!(":{line}")).unwrap_or_default();
    let field = if field.is_empty() { String::new() } else { format!(": {field}") };
    table::plain(&format!("{severity}: {object}{line}{field}: {what}; {remedy}"))
}
