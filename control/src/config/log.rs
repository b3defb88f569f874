//! `[log]`: what is logged.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::problem::{Misfit, quoted};
use crate::text::{Text, text_type};

/// `[log]`: what is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`; `PART=LEVEL` for one part of the
    /// program, several of these with commas between. `viaduct run --log` holds in its place.
    pub level: LogLevel,
}

/// Levels of the log, for all of the program and for parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

/// The levels, and none at all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

text_type!(
    LogLevel,
    "A level, `PART=LEVEL`, or several of these with commas between.",
    "^[A-Za-z0-9_:=,]+$",
    "write error, warn, info, debug or trace, or PART=LEVEL"
);

impl Default for LogLevel {
    fn default() -> Self {
        LogLevel("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = Misfit;

    fn from_str(text: &str) -> Result<LogLevel, Misfit> {
        let is_level = |word: &str| LEVELS.contains(&word);
        let is_part = |word: &str| {
            let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            !word.is_empty() && word.chars().all(letter)
        };
        let is_directive = |directive: &str| match directive.split_once('=') {
            Some((part, level)) => is_part(part) && is_level(level),
            None => is_level(directive),
        };
        if text.split(',').all(is_directive) {
            return Ok(LogLevel(text.to_owned()));
        }
        Err(Misfit::new(format!("{} is no level of the log", quoted(text)), Self::REMEDY))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `[log]`.
pub(super) fn read(mut fields: Fields<'_>) -> LogConfig {
    let level = fields.text("level").unwrap_or_default();
    fields.finish();
    LogConfig { level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_of_all_or_of_parts() {
        for good in ["info", "off", "warn,vhost=debug", "viaduct_control::switch=trace"] {
            assert_eq!(
                good.parse::<LogLevel>().map(|level| level.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in ["", "loud", "vhost", "vhost=", "=info", "info,", "vhost=loud", "a b=info"] {
            let misfit = bad.parse::<LogLevel>().expect_err(bad);
            assert_eq!(misfit.what, format!("{} is no level of the log", quoted(bad)));
        }
    }
}
