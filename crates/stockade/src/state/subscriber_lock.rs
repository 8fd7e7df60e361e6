//! A subscriber's presence in the state directory, which keeps that there: it goes with the last jail, and a
//! subscriber who had to follow it to its successor would miss the jails in between.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::tombstone::Tombstone;
use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, Nonce};
use crate::sys::dir_lock::{DirLock, try_lock};
use crate::sys::modes::{PRIVATE, make_directory};
use crate::sys::owned_dir::{ATTEMPTS, make_marked, remove_if_marked_and_empty};

/// What the name of a presence begins with; a nonce follows.
const PREFIX: &str = ".events-";

/// An empty directory of this subscriber's, locked as long as it lives. One whose subscriber was killed is not
/// locked any more, and [`Store::collect`](crate::Store::collect) removes it.
#[derive(Debug)]
pub(crate) struct SubscriberLock {
    path: HostPath,
    directory: HostPath,
    _lock: OwnedFd,
}

impl SubscriberLock {
    /// Makes the state directory if it is missing, and keeps it.
    pub(crate) fn in_directory(directory: &HostPath) -> Result<Self> {
        let nonce = Nonce::new();
        let path = directory.join(format!("{PREFIX}{nonce}"));
        // The last jail may take the directory along, or a collection this presence before it is locked.
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
        // What cannot be removed now is removed by the next collection.
        let _ = rustix::fs::rmdir(self.path.as_path());
        let _ = remove_if_marked_and_empty(&self.directory);
    }
}

/// Removes what subscribers left that were killed, and places that were about to be removed.
pub(crate) fn remove_strays(directory: &HostPath) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = directory.join(name);
        let is_subscriber_lock = name.strip_prefix(PREFIX).is_some_and(Nonce::is_one);
        // Only an empty directory goes in either case.
        if Tombstone::parse(name).is_some()
            || is_subscriber_lock && matches!(try_lock(&path), Ok(DirLock::Held(_)))
        {
            let _ = rustix::fs::rmdir(path.as_path());
        }
    }
}
