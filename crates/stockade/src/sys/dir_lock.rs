//! A lock on a directory that counts only while the directory keeps its name.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FlockOperation, ResolveFlags};
use rustix::io::Errno;

use super::error::{Context, Operation, Result};
use crate::spec::HostPath;
use crate::sys::file_id::FileId;
use crate::sys::open::open_directory;

/// The result of an attempt to lock a directory.
#[derive(Debug)]
pub(crate) enum DirLock {
    /// The directory, locked by this process until the file descriptor is closed.
    Held(OwnedFd),
    /// Another process has locked it; the file descriptor is of the same directory.
    Busy(OwnedFd),
    /// There is no such directory, or it lost its name before it was locked.
    Missing,
}

/// Whether a process holds the lock on a directory, in any pid namespace. `/proc/locks` shows only those of the own one.
/// True also if that cannot be found out.
///
/// It takes a shared lock for a moment, so it is for rare questions.
pub(crate) fn is_locked(path: &HostPath) -> bool {
    match open_directory(CWD, path.as_path(), ResolveFlags::NO_SYMLINKS) {
        Ok(directory) => rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared).is_err(),
        Err(cause) => cause != Errno::NOENT,
    }
}

/// Tries to lock a directory.
///
/// # Errors
/// Returns any error of `openat2` other than ENOENT, and of `flock` other than EWOULDBLOCK.
pub(crate) fn try_lock(path: &HostPath) -> Result<DirLock> {
    let directory = match open_directory(CWD, path.as_path(), ResolveFlags::NO_SYMLINKS) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(DirLock::Missing),
        Err(cause) => return Err(cause).context(Operation::Open, path),
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => return Ok(DirLock::Busy(directory)),
        Err(cause) => return Err(cause).context(Operation::Lock, path),
    }
    let held = FileId::of(&directory).context(Operation::Inspect, path)?;
    let named = match FileId::of_name(path.as_path()) {
        Ok(named) => Some(named),
        Err(Errno::NOENT) => None,
        Err(cause) => return Err(cause).context(Operation::Inspect, path),
    };
    Ok(if named == Some(held) { DirLock::Held(directory) } else { DirLock::Missing })
}
