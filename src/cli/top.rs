//! `viaduct top`: a live screen, or tables for scripts.

use std::io::Write;

use super::arguments::TopArguments;
use super::failure::Failure;
use super::place;
use crate::top::{self, BatchError, Wishes};

/// Shows what ports and workers do, until it is left.
pub fn top(arguments: &TopArguments, out: &mut dyn Write) -> Result<(), Failure> {
    let wishes = Wishes {
        socket: place::socket(&arguments.daemon)?,
        interval: arguments.interval,
        sort: arguments.sort,
        filter: arguments.filter.clone(),
    };
    if !arguments.batch {
        return top::top(wishes).map_err(|error| Failure::Failed(error.to_string()));
    }
    top::batch(&wishes, arguments.count, arguments.json, out).map_err(|error| match error {
        BatchError::NoDaemon(why) => Failure::Failed(why),
        BatchError::Output(error) => error.into(),
    })
}
