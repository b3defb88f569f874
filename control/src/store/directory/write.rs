//! Writes and deletes single values: all of a value is seen or nothing of it.
//!
//! A value goes to a hidden file beside its place first and is renamed onto it. Folders are made as
//! needed, but never the store's own directory: to make it anew and empty would be to wish that nothing
//! be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::super::StoreError;
use crate::key::Key;

/// Whether a change must outlast a power failure. Reports need not: they are written again, and a disk
/// may take tens of milliseconds for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    No,
}

/// A value as people like to read it.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Writes a value at its key.
pub(super) fn put(
    root: &Path,
    key: &Key,
    bytes: &[u8],
    durable: Durable,
) -> Result<(), StoreError> {
    let file = key.file(root);
    let folder = make_folder(root, &file)?;
    let temporary = temporary_beside(&file);
    let written = write_new(&temporary, bytes, durable)
        .and_then(|()| fs::rename(&temporary, &file))
        .and_then(|()| if durable == Durable::Yes { sync_folder(&folder) } else { Ok(()) });
    written.map_err(|source| {
        // Best effort: a leftover is hidden and harms nobody.
        let _ = fs::remove_file(&temporary);
        failed("writing", &file, source)
    })
}

/// Deletes the value at a key. Returns whether there was one.
pub(super) fn delete(root: &Path, key: &Key, durable: Durable) -> Result<bool, StoreError> {
    let file = key.file(root);
    match fs::remove_file(&file) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Nothing to delete, or no store to delete from?
            return if root.is_dir() { Ok(false) } else { Err(StoreError::Missing(root.into())) };
        }
        Err(source) => return Err(failed("deleting", &file, source)),
    }
    if durable == Durable::Yes {
        let folder = file.parent().unwrap_or(root);
        sync_folder(folder).map_err(|source| failed("deleting", &file, source))?;
    }
    Ok(true)
}

/// Makes the folders between the store's directory and the file. Returns the innermost.
pub(super) fn make_folder(root: &Path, file: &Path) -> Result<PathBuf, StoreError> {
    let folder = file.parent().unwrap_or(root);
    let mut path = root.to_path_buf();
    for part in folder.strip_prefix(root).into_iter().flat_map(Path::iter) {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !root.is_dir() => {
                return Err(StoreError::Missing(root.into()));
            }
            Err(source) => return Err(failed("making the folder", &path, source)),
        }
    }
    Ok(path)
}

/// A hidden name in the same folder, that no other writer has.
fn temporary_beside(file: &Path) -> PathBuf {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let count = WRITES.fetch_add(1, Ordering::Relaxed);
    file.with_file_name(format!(".{}-{count}.tmp", std::process::id()))
}

fn write_new(path: &Path, bytes: &[u8], durable: Durable) -> io::Result<()> {
    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match open() {
        // Left by a process of the same number that died while writing.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    if durable == Durable::Yes { file.sync_all() } else { Ok(()) }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    let remedy = match source.kind() {
        io::ErrorKind::PermissionDenied => "run as a user that may write there",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the file system",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system writable",
        _ => "look at the file system, then try again",
    };
    StoreError::Io { doing, path: path.into(), source, remedy }
}
