//! Why a command did not do what it was asked, and how that is told.

use std::io::{self, ErrorKind, Write};

use control::config::ConfigErrors;
use control::edit::EditError;
use control::show::AskError;
use control::store::StoreError;

use super::Exit;
use crate::render;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The arguments do not parse, or they ask for help or the version, which is none.
    Usage(clap::Error),
    /// The command line is wrong in a way that only the command knows.
    Wrong(String),
    /// The configuration is wrong.
    Configuration(ConfigErrors),
    /// It could not be done.
    Failed(String),
    /// It could not be done, and why is told already.
    Told,
    /// Nobody reads the output any more, as `head` does when it has enough.
    Unread,
}

impl Failure {
    /// Tells it, and says what to end with.
    pub fn tell(self, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
        // Where errors cannot be written, there is nobody to tell that to.
        let mut say = |text: &str| {
            let _ = writeln!(err, "{text}");
        };
        match self {
            Failure::Usage(error) if error.use_stderr() => {
                say(error.render().to_string().trim_end());
                Exit::Wrong
            }
            Failure::Usage(help) => {
                match write!(out, "{}", help.render()).and_then(|()| out.flush()) {
                    Ok(()) => Exit::Done,
                    Err(error) => Failure::from(error).tell(&mut io::sink(), err),
                }
            }
            Failure::Wrong(why) => {
                say(&format!("error: {why}"));
                Exit::Wrong
            }
            Failure::Configuration(errors) => {
                for problem in &errors.problems {
                    say(&render::problem(problem));
                }
                Exit::Wrong
            }
            Failure::Failed(why) => {
                for line in why.lines() {
                    say(&format!("error: {line}"));
                }
                Exit::Failed
            }
            Failure::Told => Exit::Failed,
            Failure::Unread => Exit::Done,
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Failure {
        Failure::Configuration(errors)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// What goes wrong with the output.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(format!("writing the output: {error}")),
        }
    }
}
