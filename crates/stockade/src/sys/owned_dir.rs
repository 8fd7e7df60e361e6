//! Directories that carry stockade's mark from the moment they have their name.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{Context, Operation, Result};
use crate::spec::{HostPath, Nonce};
use crate::sys::directory_names::entries;
use crate::sys::mark::{self, Mark};
use crate::sys::modes::{self, PUBLIC};
use crate::sys::open::open_directory;
use crate::sys::own_name::{is_own_name, own_name};
use crate::sys::remove_tree::Removal;

/// How often something is created again in a directory that another jail's teardown may remove.
pub(crate) const ATTEMPTS: u32 = 1000;

/// The mark of directories that many jails use.
const SHARED: &str = "shared";

pub(crate) fn ancestors(path: &HostPath) -> impl Iterator<Item = &Path> {
    path.as_path().ancestors().filter(|path| path.parent().is_some())
}

pub(crate) fn temporary_path(path: &Path, nonce: &Nonce) -> HostPath {
    path.with_file_name(own_name(nonce)).into()
}

/// Removes directories in `path`, and in those above it, whose creator was killed before it renamed them.
pub(crate) fn remove_temporary(path: &HostPath) {
    for parent in path.as_path().ancestors() {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_own_name) {
                // Fails unless it is empty. If its creator is still running, it creates the directory again.
                let _ = rustix::fs::rmdir(entry.path());
            }
        }
    }
}

/// Creates a directory and the missing ones above it, each marked before it gets its name.
pub(crate) fn make_marked(path: &HostPath, nonce: &Nonce) -> Result<()> {
    // Another jail's teardown may remove an empty parent while its child is being created.
    let mut last = Errno::AGAIN;
    for _ in 0..ATTEMPTS {
        match rustix::fs::stat(path.as_path()) {
            Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() => return Ok(()),
            Ok(_) => return Err(Errno::NOTDIR).context(Operation::CreateDirectory, path),
            Err(Errno::NOENT) => (),
            Err(cause) => return Err(cause).context(Operation::CreateDirectory, path),
        }
        if let Some(parent) = path.as_path().parent() {
            make_marked(&parent.to_owned().into(), nonce)?;
        }
        match make_with_mark(path, PUBLIC, SHARED, nonce) {
            Err(error) if matches!(error.cause, Errno::NOENT | Errno::EXIST) => last = error.cause,
            created => return created,
        }
    }
    Err(last).context(Operation::CreateDirectory, path)
}

/// Creates a directory that carries `text` as its mark from the moment it has its name.
pub(crate) fn make_with_mark(path: &HostPath, mode: u32, text: &str, nonce: &Nonce) -> Result<()> {
    let temporary_path = temporary_path(path.as_path(), nonce);
    match rustix::fs::mkdir(temporary_path.as_path(), Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(cause) => return Err(cause).context(Operation::CreateDirectory, path),
    }
    let created = mark_and_name(temporary_path.as_path(), path, mode, text);
    if created.is_err() {
        let _ = rustix::fs::rmdir(temporary_path.as_path());
    }
    created
}

/// Gives a new directory its mode, its mark and its name.
fn mark_and_name(temporary: &Path, path: &HostPath, mode: u32, text: &str) -> Result<()> {
    let directory = open_directory(CWD, temporary, ResolveFlags::empty());
    let directory = directory.context(Operation::CreateDirectory, path)?;
    modes::set_mode(&directory, mode).context(Operation::CreateDirectory, path)?;
    mark::set(directory.as_fd(), text).context(Operation::Mark, path)?;
    rustix::fs::renameat_with(CWD, temporary, CWD, path.as_path(), RenameFlags::NOREPLACE)
        .context(Operation::CreateDirectory, path)
}

/// Removes a directory if it is empty and carries stockade's mark, then those above it on the same conditions.
pub(crate) fn remove_if_marked_and_empty(path: &HostPath) -> Result<Removal> {
    let requested = path.as_path();
    let keep = |path: &Path, outcome, why: &str| {
        // The outcome is that of the requested directory, even if one above it stays.
        if path == requested { Removal::Kept(why.to_owned()) } else { outcome }
    };
    let mut outcome = Removal::NeverThere;
    for path in ancestors(path) {
        let directory = match open_directory(CWD, path, ResolveFlags::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(cause) => return Err(cause).context(Operation::Open, path.display()),
        };
        match mark::read(directory.as_fd()) {
            Ok(mark) if mark == Mark::Is(SHARED.into()) => (),
            Ok(_) => return Ok(keep(path, outcome, "stockade did not create it")),
            // It stays, with whatever mark.
            Err(Errno::PERM) if entries(directory.as_fd(), 1).is_ok_and(|one| !one.is_empty()) => {
                return Ok(keep(path, outcome, "other jails use it"));
            }
            Err(cause) => return Err(cause).context(Operation::ReadMark, path.display()),
        }
        match rustix::fs::rmdir(path) {
            Ok(()) => outcome = Removal::Removed,
            Err(Errno::NOENT) => (),
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(keep(path, outcome, "other jails use it")),
            Err(cause) => return Err(cause).context(Operation::Remove, path.display()),
        }
    }
    Ok(outcome)
}
