//! The lock of a subscriber, which keeps the state directory in existence.
//!
//! Otherwise the state directory is removed with the last jail. A subscriber that had to wait for a new one
//! would miss the jails created before it found it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::tombstone::Tombstone;
use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, Nonce};
use crate::sys::dir_lock::{DirLock, try_lock};
use crate::sys::modes::{PRIVATE, make_directory};
use crate::sys::owned_dir::{ATTEMPTS, make_marked, remove_if_marked_and_empty};

/// The prefix of its name; a nonce follows.
const PREFIX: &str = ".events-";

/// An empty directory that the subscriber locks while it listens.
///
/// The kernel releases the lock of a killed subscriber, and [`Store::collect`](crate::Store::collect) removes the
/// directory.
#[derive(Debug)]
pub(crate) struct SubscriberLock {
    path: HostPath,
    directory: HostPath,
    _lock: OwnedFd,
}

impl SubscriberLock {
    /// Creates the state directory if it is missing, and keeps it in existence.
    pub(crate) fn in_directory(directory: &HostPath) -> Result<Self> {
        let nonce = Nonce::new();
        let path = directory.join(format!("{PREFIX}{nonce}"));
        // The last teardown may remove the state directory, and a collection this directory before it is locked.
        for _ in 0..ATTEMPTS {
            make_marked(directory, &nonce)?;
            match make_directory(path.as_path(), PRIVATE) {
                Ok(_) => (),
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause).context(Operation::CreateDirectory, path),
            }
            if let DirLock::Held(lock) = try_lock(&path)? {
                return Ok(Self { path, directory: directory.clone(), _lock: lock });
            }
        }
        Err(Errno::AGAIN).context(Operation::Lock, path)
    }
}

impl Drop for SubscriberLock {
    fn drop(&mut self) {
        // If one cannot be removed now, the next collection removes it.
        let _ = rustix::fs::rmdir(self.path.as_path());
        let _ = remove_if_marked_and_empty(&self.directory);
    }
}

/// Removes the directories of killed subscribers, and tombstones whose process was killed before it removed them.
pub(crate) fn remove_strays(directory: &HostPath) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = directory.join(name);
        let is_subscriber_lock = name.strip_prefix(PREFIX).is_some_and(Nonce::is_one);
        // Either removal fails unless the directory is empty.
        if Tombstone::parse(name).is_some()
            || is_subscriber_lock && matches!(try_lock(&path), Ok(DirLock::Held(_)))
        {
            let _ = rustix::fs::rmdir(path.as_path());
        }
    }
}
