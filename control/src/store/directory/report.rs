//! Actual state under `state/<host>/`, written by the one process that has the host's lock.
//!
//! The lock (flock(2) on `state/<host>/.lock`) is this store's lease: it ends with the process, however
//! that ends. After a crash the files stay and may be out of date until the next start, which replaces
//! them; whether the lock is held tells the two apart.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::{Pending, Reporter, StoreError, holder};
use super::{blocking, write};
use crate::key::Key;
use crate::model::{ActualState, HostName, json};

/// The claim to report for a host.
pub(super) struct Claim(Arc<Mutex<Reported>>);

/// What stands under `state/<host>/`.
struct Reported {
    root: PathBuf,
    host: HostName,
    /// Held for its effect: unlocked when dropped.
    _lock: Flock<File>,
    /// What this process wrote, or found when it began.
    written: BTreeMap<Key, Vec<u8>>,
    alive: Value,
}

impl Claim {
    /// Takes the lock and says that the host is alive.
    pub fn take(root: PathBuf, host: HostName) -> Result<Claim, StoreError> {
        Ok(Claim(Arc::new(Mutex::new(Reported::begin(root, host)?))))
    }
}

impl Reported {
    fn begin(root: PathBuf, host: HostName) -> Result<Reported, StoreError> {
        let alive_file = Key::Alive { host: host.clone() }.file(&root);
        let folder = write::make_folder(&root, &alive_file)?;
        let lock = lock(&folder.join(".lock"), &host)?;
        let alive = json(&holder::this_process());
        let mut reported = Reported { root, host, _lock: lock, written: BTreeMap::new(), alive };
        reported.written = reported.found(&folder)?;
        reported.write(&Key::Alive { host: reported.host.clone() }, &reported.alive.clone())?;
        Ok(reported)
    }

    /// What an earlier process left.
    fn found(&self, folder: &Path) -> Result<BTreeMap<Key, Vec<u8>>, StoreError> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let failed = |source| write::failed("reading", &folder, source);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() && folder == *self.state_folder() {
                    folders.push(path);
                } else if let Ok(inside) = path.strip_prefix(&self.root)
                    && let Ok(key) = Key::from_file(inside)
                {
                    // What cannot be read counts as different, hence is replaced.
                    found.insert(key, fs::read(&path).unwrap_or_default());
                }
            }
        }
        Ok(found)
    }

    fn state_folder(&self) -> PathBuf {
        self.root.join(Key::state_prefix(&self.host).trim_end_matches('/'))
    }

    fn report(&mut self, state: &ActualState) -> Result<usize, StoreError> {
        let mut values = state.values(&self.host);
        values.insert(Key::Alive { host: self.host.clone() }, self.alive.clone());
        let gone: Vec<Key> =
            self.written.keys().filter(|key| !values.contains_key(*key)).cloned().collect();
        let mut changes = 0;
        for key in gone {
            changes += usize::from(write::delete(&self.root, &key, write::Durable::No)?);
            self.written.remove(&key);
        }
        for (key, value) in &values {
            changes += usize::from(self.write(key, value)?);
        }
        Ok(changes)
    }

    /// Writes a value unless it stands there already.
    fn write(&mut self, key: &Key, value: &Value) -> Result<bool, StoreError> {
        let bytes = write::pretty(value);
        let stands = |bytes: &Vec<u8>| {
            let found = fs::metadata(key.file(&self.root));
            found.is_ok_and(|found| found.is_file() && found.len() == bytes.len() as u64)
        };
        if self.written.get(key) == Some(&bytes) && stands(&bytes) {
            return Ok(false);
        }
        write::put(&self.root, key, &bytes, write::Durable::No)?;
        self.written.insert(key.clone(), bytes);
        Ok(true)
    }

    fn withdraw(&mut self) -> Result<(), StoreError> {
        while let Some((key, bytes)) = self.written.pop_last() {
            if let Err(error) = write::delete(&self.root, &key, write::Durable::No) {
                self.written.insert(key, bytes);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Reporter for Claim {
    fn report<'a>(&'a mut self, state: &'a ActualState) -> Pending<'a, usize> {
        let (reported, state) = (Arc::clone(&self.0), state.clone());
        blocking(move || reported.blocking_lock().report(&state))
    }

    fn withdraw(self: Box<Self>) -> Pending<'static, ()> {
        // The lock of the host goes with the last owner, which is this closure.
        blocking(move || self.0.blocking_lock().withdraw())
    }
}

/// Takes the lock of a host and writes the process into it.
fn lock(path: &Path, host: &HostName) -> Result<Flock<File>, StoreError> {
    let failed = |source| write::failed("locking", path, source);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path).map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).map_err(failed)?;
            writeln!(lock, "{}", std::process::id()).map_err(failed)?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let holder = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
                _ => "another process".to_owned(),
            };
            let place = path.display().to_string();
            Err(StoreError::Claimed { host: host.clone(), holder, place })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}
