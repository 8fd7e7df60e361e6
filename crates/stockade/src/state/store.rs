//! The state directory: one directory a jail, with its receipt in it and the lock on itself.

use std::fs::DirEntry;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{CWD, Mode, ResolveFlags};
use rustix::io::Errno;

use super::entry::{
    ENTRY_MARK, EXIT_STATUS, Lock, Parser, RECEIPT, RECEIPT_FLAGS, lock_holder, logs, parse_receipt,
    read_exit_status,
};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{ExitStatus, HostPath, JailId, Nonce, SpecError};
use crate::state::receipt::{JailState, Receipt, ReceiptSummary};
use crate::sys::dir_lock::{DirLock, try_lock};
use crate::sys::jail_root::open_directory;
use crate::sys::mark::{self, Mark};
use crate::sys::modes::PRIVATE;
use crate::sys::owned_dir::{ATTEMPTS, make_marked, make_with_mark};

/// Where receipts are kept unless told otherwise.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/stockade";

/// A state directory. It is made with the first jail, and goes with the last.
#[derive(Clone, Debug)]
pub struct Store {
    directory: HostPath,
}

impl Store {
    /// The state directory at `path`, which need not exist.
    ///
    /// # Errors
    /// [`SpecError::NotADirectory`] if something else is there.
    pub fn new(path: &Path) -> std::result::Result<Self, SpecError> {
        Ok(Self { directory: HostPath::future_directory(path)? })
    }

    /// The state directory that `STOCKADE_STATE_DIR` names, as for the command; `/var/lib/stockade` without it.
    ///
    /// # Errors
    /// As for [`Store::new`].
    pub fn from_environment() -> std::result::Result<Self, SpecError> {
        let directory = std::env::var_os("STOCKADE_STATE_DIR");
        Self::new(Path::new(directory.as_deref().unwrap_or(DEFAULT_STATE_DIRECTORY.as_ref())))
    }

    /// Where it is.
    pub fn directory(&self) -> &HostPath {
        &self.directory
    }

    /// The ids of all jails with a place here, in order.
    ///
    /// # Errors
    /// What the kernel says of reading the directory.
    pub fn ids(&self) -> Result<Vec<JailId>> {
        let places = self.entries()?.into_iter().filter(is_directory);
        let mut ids: Vec<JailId> =
            places.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// What is here and was not made by stockade, in order; what cannot be read is not told.
    pub(crate) fn strays(&self) -> Vec<PathBuf> {
        let entries = self.entries().unwrap_or_default().into_iter();
        // Behind a dot are directories in the making, those that go, and subscribers.
        let foreign = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let mut strays: Vec<PathBuf> =
            foreign.filter(|entry| !is_entry(entry)).map(|entry| entry.path()).collect();
        strays.sort();
        strays
    }

    fn entries(&self) -> Result<Vec<DirEntry>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).context(Operation::Read, &self.directory),
        };
        Ok(entries.flatten().collect())
    }

    /// The receipt of a jail, without locking it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Receipt`] for one that cannot be understood or is not root's.
    pub fn read(&self, id: &JailId) -> Result<Option<Receipt>> {
        self.read_as(id, Receipt::parse)
    }

    /// What a list tells of a jail, for whose receipt the same holds.
    pub(crate) fn summary(&self, id: &JailId) -> Result<Option<ReceiptSummary>> {
        self.read_as(id, ReceiptSummary::parse)
    }

    fn read_as<T>(&self, id: &JailId, parse: Parser<T>) -> Result<Option<T>> {
        let at = self.directory.join(id.as_str()).join(RECEIPT);
        let resolve = ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(CWD, at.as_path(), RECEIPT_FLAGS, Mode::empty(), resolve);
        parse_receipt(file, at, id, parse)
    }

    /// When a jail's VMM ended, in milliseconds since 1970, if it was watched and has.
    pub(crate) fn ended_ms(&self, id: &JailId) -> Option<u64> {
        let written =
            std::fs::metadata(self.directory.join(id.as_str()).join(EXIT_STATUS)).ok()?.modified().ok()?;
        u64::try_from(written.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }

    /// How a jail's VMM ended, if it was watched and has.
    pub fn ended(&self, id: &JailId) -> Option<ExitStatus> {
        read_exit_status(&self.directory.join(id.as_str()))
    }

    /// Where the output of a jail's VMM is, if it was launched with a log: the older part, then the newer.
    pub fn logs(&self, id: &JailId) -> Vec<HostPath> {
        logs(&self.directory.join(id.as_str()))
    }

    /// Takes the lock of a jail, making its place here.
    pub(crate) fn lock(&self, id: &JailId) -> Result<Lock> {
        let path = self.directory.join(id.as_str());
        let nonce = Nonce::new();
        // Whoever removes a jail removes its place; then another has to be made.
        for _ in 0..ATTEMPTS {
            make_marked(&self.directory, &nonce)?;
            match make_with_mark(&path, PRIVATE, ENTRY_MARK, &nonce) {
                Ok(()) | Err(Errno::EXIST) => (),
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause).context(Operation::CreateDirectory, path),
            }
            if let Some(lock) = self.try_lock(id)? {
                return Ok(lock);
            }
        }
        Err(Errno::AGAIN).context(Operation::Lock, path)
    }

    /// Takes the lock of a jail that has its place here; `None` if it has none any more.
    pub(crate) fn try_lock(&self, id: &JailId) -> Result<Option<Lock>> {
        let path = self.directory.join(id.as_str());
        match try_lock(&path)? {
            DirLock::Held(directory) => {
                Ok(Some(Lock { directory, path, store: self.directory.clone(), id: id.clone() }))
            }
            DirLock::Busy(directory) => Err(self.in_use(id, &directory)),
            DirLock::Missing => Ok(None),
        }
    }

    /// Why a lock cannot be had: the jail runs, or somebody else is at work on it.
    fn in_use(&self, id: &JailId, directory: &OwnedFd) -> Error {
        let receipt = self.read(id).ok().flatten().filter(|receipt| receipt.state() == JailState::Running);
        match receipt.and_then(|receipt| receipt.vmm()) {
            Some(vmm) => Error::Running { id: id.clone(), pid: vmm.pid },
            None => Error::Locked { id: id.clone(), pid: lock_holder(directory).unwrap_or_default() },
        }
    }
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Whether a jail has this for its place, or had it, or will have.
fn is_entry(entry: &DirEntry) -> bool {
    // Whoever may not look into it cannot say that there is no receipt.
    let has_receipt = || match entry.path().join(RECEIPT).symlink_metadata() {
        Ok(_) => true,
        Err(cause) => cause.kind() != std::io::ErrorKind::NotFound,
    };
    let is_marked = || {
        let directory = open_directory(CWD, &entry.path(), ResolveFlags::NO_SYMLINKS);
        directory.and_then(|directory| mark::read(directory.as_fd())) == Ok(Mark::Is(ENTRY_MARK.into()))
    };
    is_directory(entry) && (has_receipt() || is_marked())
}
