//! Reads all desired values under the directory, and only what changed since the last time.
//!
//! Files are known by inode, size and times, so a look at a thousand unchanged files is a thousand
//! calls of stat(2). A file that was changed a moment ago may change again without a trace (times have
//! the grain of a clock tick), so it is read again until it is older. Whatever lies there that is no
//! value is named, and stops nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use super::super::{Listing, StoreError, VALUE_OCTETS_MAX, too_large};
use crate::key::{Folder, Key, KeyError};
use crate::model::RawValue;
use crate::problem::{Misfit, Problem};

/// A file changed less than this long ago is read again at the next look. Covers the two seconds of
/// the coarsest file systems.
const UNSETTLED_NANOSECONDS: i128 = 2_000_000_000;

/// What is known of the directory from the looks up to now.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    revision: u64,
    files: BTreeMap<Key, Known>,
    problems: Vec<Problem>,
    /// Whether the store itself could not be read at the last look.
    away: bool,
}

#[derive(Debug)]
struct Known {
    /// `None`: to be read again whatever the file looks like.
    stamp: Option<Stamp>,
    value: RawValue,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
    changed: i128,
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed: nanoseconds(found.ctime(), found.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: i128) -> bool {
        self.modified.max(self.changed) + UNSETTLED_NANOSECONDS < now
    }
}

/// One look at the directory.
struct Look<'a> {
    old: BTreeMap<Key, Known>,
    new: BTreeMap<Key, Known>,
    problems: Vec<Problem>,
    now: i128,
    /// Called with each folder before it is read, so that what changes after is an event.
    enter: &'a mut dyn FnMut(&Path),
}

impl Scanner {
    pub fn new(root: PathBuf) -> Scanner {
        Scanner { root, revision: 0, files: BTreeMap::new(), problems: Vec::new(), away: false }
    }

    /// A scanner that found this before; all files will be read again.
    pub fn after(root: PathBuf, listing: &Listing) -> Scanner {
        let known = |value: &RawValue| Known { stamp: None, value: value.clone() };
        Scanner {
            root,
            revision: listing.revision,
            files: listing.values.iter().map(|(key, value)| (key.clone(), known(value))).collect(),
            problems: listing.problems.clone(),
            away: listing.away,
        }
    }

    /// What was found at the last look.
    pub fn listing(&self) -> Listing {
        Listing {
            revision: self.revision,
            values: self
                .files
                .iter()
                .map(|(key, file)| (key.clone(), file.value.clone()))
                .collect(),
            problems: self.problems.clone(),
            // It belongs to this host alone: one that was made empty is the wish that nothing be.
            void: false,
            away: self.away,
        }
    }

    /// Looks at everything. Returns whether anything is different.
    ///
    /// A directory that is not there or cannot be read is an error and leaves what was known.
    pub fn scan(&mut self, enter: &mut dyn FnMut(&Path)) -> Result<bool, StoreError> {
        let root = self.root.clone();
        enter(&root);
        let entries = fs::read_dir(&root).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Missing(root.clone()),
            _ => StoreError::Io {
                doing: "reading",
                path: root.clone(),
                source,
                remedy: "let the user that runs viaduct read and enter it",
            },
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let mut look = Look {
            old: std::mem::take(&mut self.files),
            new: BTreeMap::new(),
            problems: Vec::new(),
            now: i128::try_from(now).unwrap_or(i128::MAX),
            enter,
        };
        let before: Vec<(Key, RawValue)> =
            look.old.iter().map(|(key, file)| (key.clone(), file.value.clone())).collect();
        look.folder(&root, &mut Vec::new(), entries);
        look.problems.sort();

        let values = |files: &BTreeMap<Key, Known>| {
            files.len() == before.len()
                && files
                    .iter()
                    .zip(&before)
                    .all(|((a, file), (b, value))| a == b && file.value == *value)
        };
        let changed = !values(&look.new) || look.problems != self.problems;
        self.files = look.new;
        self.problems = look.problems;
        self.away = false;
        self.revision += u64::from(changed);
        Ok(changed)
    }

    /// Notes that the store itself cannot be read. Returns whether that is news.
    pub fn note_outage(&mut self, error: &StoreError) -> bool {
        let mut problem = error.problem();
        problem.what.push_str("; what was read last stays in force");
        let problems = vec![problem];
        let news = self.problems != problems;
        self.away = true;
        self.problems = problems;
        self.revision += u64::from(news);
        news
    }
}

impl Look<'_> {
    fn folder(&mut self, path: &Path, parts: &mut Vec<String>, entries: fs::ReadDir) {
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.keep(path, parts, &error);
                    return;
                }
            };
            if is_ignored(&entry.file_name()) {
                continue;
            }
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                let what = "the name is not UTF-8";
                self.problem(&entry.path(), what, "rename it or move it out of the store");
                continue;
            };
            parts.push(name);
            self.entry(&entry.path(), parts);
            parts.pop();
        }
    }

    fn entry(&mut self, path: &Path, parts: &mut Vec<String>) {
        let is_value = path.extension() == Some(OsStr::new("json"));
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => self.enter(path, parts),
            Ok(found) if is_value => self.value(path, parts, &found),
            // What no key can mean may lie here: a README, a licence.
            Ok(_) => {}
            // Gone since the folder was read, unless it is a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_value && fs::symlink_metadata(path).is_ok() {
                    let what = "is a link that leads nowhere";
                    self.refuse(path, parts, Misfit::new(what, "correct or delete it"));
                }
            }
            Err(error) if is_value => self.refuse(path, parts, unreadable(&error)),
            Err(error) => {
                if folder_of(parts).is_ok_and(|folder| folder != Folder::State) {
                    self.keep(path, parts, &error);
                }
            }
        }
    }

    fn enter(&mut self, path: &Path, parts: &mut Vec<String>) {
        match folder_of(parts) {
            Ok(Folder::State) => return,
            Ok(Folder::Folders | Folder::Values) => {}
            Err(error) => {
                self.problem(path, error.misfit.what, error.misfit.remedy);
                return;
            }
        }
        (self.enter)(path);
        match fs::read_dir(path) {
            Ok(entries) => self.folder(path, parts, entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.keep(path, parts, &error),
        }
    }

    /// Reports a folder that cannot be read. What was in it is unknown, which is not the same as gone.
    fn keep(&mut self, path: &Path, parts: &[String], error: &io::Error) {
        let what = format!("cannot be read: {error}; what was read there last stays in force");
        self.problem(path, what, "let the user that runs viaduct read and enter it");
        let old = std::mem::take(&mut self.old);
        for (key, file) in old {
            if key.lies_in(parts) {
                self.new.entry(key).or_insert(file);
            } else {
                self.old.insert(key, file);
            }
        }
    }

    fn value(&mut self, path: &Path, parts: &[String], found: &Metadata) {
        let Some(key) = self.key(path, parts) else { return };
        let stamp = Stamp::of(found);
        if let Some(known) = self.old.remove(&key)
            && known.stamp == Some(stamp)
            && stamp.is_settled(self.now)
        {
            self.new.insert(key, known);
            return;
        }
        match read(path) {
            Ok(Some(value)) => drop(self.new.insert(key, Known { stamp: Some(stamp), value })),
            // Deleted since: another look follows the event.
            Ok(None) => {}
            Err(misfit) => {
                let value = RawValue::Unreadable(misfit);
                self.new.insert(key, Known { stamp: None, value });
            }
        }
    }

    fn refuse(&mut self, path: &Path, parts: &[String], misfit: Misfit) {
        let Some(key) = self.key(path, parts) else { return };
        self.new.insert(key, Known { stamp: None, value: RawValue::Unreadable(misfit) });
    }

    /// The key of a file, if it is one that somebody may wish something at.
    fn key(&mut self, path: &Path, parts: &[String]) -> Option<Key> {
        match Key::from_file(&parts.iter().collect::<PathBuf>()) {
            Ok(key) if key.is_desired() => Some(key),
            // Folder::of lets no look into `state`; a key of it cannot lie elsewhere.
            Ok(_) => None,
            Err(error) => {
                self.problem(path, error.misfit.what, error.misfit.remedy);
                None
            }
        }
    }

    fn problem(&mut self, path: &Path, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::whole(path.display(), what, remedy));
    }
}

fn folder_of(parts: &[String]) -> Result<Folder, KeyError> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Folder::of(&parts)
}

/// Hidden files, what editors leave behind, and what a file system has of its own.
fn is_ignored(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".")
        || name.starts_with(b"#")
        || name.ends_with(b"~")
        || name == b"lost+found"
}

/// Reads a file that should be regular and small; `None` if it is gone.
fn read(path: &Path) -> Result<Option<RawValue>, Misfit> {
    // Without O_NONBLOCK the opening of a pipe would wait for its other end.
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let opened = options.open(path).and_then(|file: File| Ok((file.metadata()?, file)));
    let (found, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    if !found.is_file() {
        return Err(Misfit::new("is not a regular file", "replace it by one, or delete it"));
    }
    let most = VALUE_OCTETS_MAX as u64;
    let mut bytes = Vec::new();
    // One more octet than allowed tells too large from just right, even if the file grows.
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(Some(RawValue::Json(Arc::from(bytes))))
}

fn unreadable(error: &io::Error) -> Misfit {
    let what = format!("cannot be read: {error}");
    Misfit::new(what, "make it readable for the user that runs viaduct")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_just_written_is_read_again_though_it_looks_the_same() {
        let directory = tempfile::TempDir::new().expect("a directory for the test");
        let text = "networks/11111111-1111-4111-8111-111111111111";
        let key: Key = text.parse().expect("a key");
        let file = key.file(directory.path());
        fs::create_dir(file.parent().expect("a folder")).expect("it can be written");
        fs::write(&file, "2").expect("it can be written");
        let mut scanner = Scanner::new(directory.path().into());
        scanner.scan(&mut |_| {}).expect("the directory is there");

        // As if the file had been read between two writes within one tick of the clock.
        let read_between = RawValue::Json(Arc::from(*b"1"));
        scanner.files.get_mut(&key).expect("it was read").value = read_between.clone();
        assert!(scanner.scan(&mut |_| {}).expect("the directory is there"));
        assert_ne!(scanner.files[&key].value, read_between);

        let stamp = Stamp { device: 0, inode: 0, size: 1, modified: 5, changed: 7 };
        for (since, settled) in [(0, false), (UNSETTLED_NANOSECONDS, false), (i128::MAX - 7, true)]
        {
            assert_eq!(stamp.is_settled(7 + since), settled, "{since}");
        }
        // Nor is one from the future, which a wrong clock makes.
        assert!(!stamp.is_settled(0));
    }
}
