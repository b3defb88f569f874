//! A configuration together with the file that it was read from.
//!
//! The daemon keeps the place of its file, and the machine as it was when the daemon began: a daemon
//! that has put its threads on their CPUs sees fewer CPUs than it was given.

use std::path::{Path, PathBuf};

use super::document::Document;
use super::{Config, ConfigErrors, Machine, read};

/// A configuration that was read, and the line of each key.
#[derive(Debug)]
pub struct ConfigFile {
    /// What it says.
    pub config: Config,
    /// Where it was read from.
    pub path: PathBuf,
    document: Document,
}

impl ConfigFile {
    /// Reads a configuration and judges it against this machine, as [`Config::load`] does.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(path: &Path, machine: &Machine) -> Result<ConfigFile, ConfigErrors> {
        let judge = |config: &mut _, faults: &mut _| machine.judge(config, faults);
        let (config, document) = read::from_file(path, &machine.host, judge)?;
        Ok(ConfigFile { config, path: path.to_owned(), document })
    }

    /// The line of a key, or of the nearest table around it if it is absent.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.document.line(key)
    }
}
