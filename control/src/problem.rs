//! What is wrong, where, and what to do about it.
//!
//! Everything that a person writes for Viaduct (the configuration, desired state, a command) is judged
//! somewhere in this crate, and every judgement has the shape of [`Problem`]: the log, `viaduct show
//! errors`, `viaduct check` and the actual state of an object all say the same words. Not for what
//! goes wrong while running (a socket that cannot be bound): that is the error of who tried.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong with what somebody wrote.
///
/// Printed as `OBJECT:LINE: FIELD: WHAT; REMEDY`, without the parts that are not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// What is wrong: the key of an object, or the path of a file or directory.
    pub object: String,
    /// Line in the file, counted from 1, where the format tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Path of the field inside the object, such as `workers.cores[1]`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether the object is refused for it.
    pub severity: Severity,
}

/// How much a problem weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object, or the new value of it, is not in force.
    Error,
    /// The object is in force, or nothing on this host depends on it.
    Warning,
}

impl Problem {
    /// A problem of a whole object, such as a file that cannot be read.
    pub fn whole(
        object: impl ToString,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Fault::new("", what, remedy).at(object)
    }

    /// The same, as a warning.
    pub fn warning(self) -> Self {
        Problem { severity: Severity::Warning, ..self }
    }

    /// Whether the object is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// Why a text or a number does not fit its type, and what would. Not yet tied to a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Misfit {
    /// What is wrong with it.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

impl Misfit {
    /// A misfit in these words.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Misfit { what: what.into(), remedy: remedy.into() }
    }
}

/// A problem of one field of an object whose key or file is known only to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub field: String,
    pub what: String,
    pub remedy: String,
    pub severity: Severity,
}

impl Fault {
    pub fn new(
        field: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Fault {
            field: field.into(),
            what: what.into(),
            remedy: remedy.into(),
            severity: Severity::Error,
        }
    }

    pub fn misfit(field: impl Into<String>, misfit: Misfit) -> Self {
        Fault::new(field, misfit.what, misfit.remedy)
    }

    pub fn warning(self) -> Self {
        Fault { severity: Severity::Warning, ..self }
    }

    /// Ties the fault to the object that has it.
    pub fn at(self, object: impl ToString) -> Problem {
        Problem {
            object: object.to_string(),
            line: None,
            field: self.field,
            what: self.what,
            remedy: self.remedy,
            severity: self.severity,
        }
    }
}

/// A text as it stands in a message: quoted, on one line, and cut where it becomes unreadable.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut problem = Fault::new("mtu", "5 is too small", "write 68 or more").at("networks/x");
        assert_eq!(problem.to_string(), "networks/x: mtu: 5 is too small; write 68 or more");
        problem.line = Some(3);
        assert_eq!(problem.to_string(), "networks/x:3: mtu: 5 is too small; write 68 or more");
        let whole = Problem::whole("a.json", "is empty", "delete it");
        assert_eq!(whole.to_string(), "a.json: is empty; delete it");
    }

    #[test]
    fn quoted_text_stays_on_one_line_and_is_cut() {
        assert_eq!(quoted("a\nb\u{7}"), "`a\\nb\\u{7}`");
        assert_eq!(quoted(&"x".repeat(200)).chars().count(), 120 + 3);
    }
}
