//! The state directory: one entry per jail, with its receipt. The entry itself carries the lock.

use std::fs::DirEntry;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use rustix::fs::{CWD, ResolveFlags};
use rustix::io::Errno;

use super::entry::{
    ENTRY_MARK, EXIT_STATUS, Lock, Parser, RECEIPT, has_log, lock_holder, log_end, logs, lost_output,
    parse_receipt, read_exit_record,
};
use super::files::open_file;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::clock::unix_ms;
use crate::spec::{ExitRecord, ExitStatus, HostPath, JailId, Nonce, SpecError};
use crate::state::receipt::{JailState, Receipt, ReceiptSummary};
use crate::sys::ProcessRef;
use crate::sys::dir_lock::{DirLock, is_locked, try_lock};
use crate::sys::mark::{self, Mark};
use crate::sys::modes::PRIVATE;
use crate::sys::open::open_directory;
use crate::sys::owned_dir::{ATTEMPTS, make_marked, make_with_mark};

/// The default state directory.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/stockade";

/// A state directory. The first jail creates it, and the removal of the last jail removes it.
#[derive(Clone, Debug)]
pub struct Store {
    directory: HostPath,
}

impl Store {
    /// The state directory at `path`, which need not exist.
    ///
    /// # Errors
    /// Returns [`SpecError::NotADirectory`] if the path exists and is not a directory.
    pub fn new(path: &Path) -> std::result::Result<Self, SpecError> {
        Ok(Self { directory: HostPath::future_directory(path)? })
    }

    /// The state directory in the environment variable `STOCKADE_STATE_DIR`, or [`DEFAULT_STATE_DIRECTORY`].
    ///
    /// # Errors
    /// Returns the errors of [`Store::new`].
    pub fn from_environment() -> std::result::Result<Self, SpecError> {
        let directory = std::env::var_os("STOCKADE_STATE_DIR");
        Self::new(Path::new(directory.as_deref().unwrap_or(DEFAULT_STATE_DIRECTORY.as_ref())))
    }

    /// Its path.
    pub fn directory(&self) -> &HostPath {
        &self.directory
    }

    /// The path of a jail's entry, whether it exists or not.
    pub(crate) fn entry_path(&self, id: &JailId) -> HostPath {
        self.directory.join(id.as_str())
    }

    /// The ids of all jails with an entry here, sorted.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<JailId>> {
        let entries = self.entries()?.into_iter().filter(is_directory);
        let mut ids: Vec<JailId> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The paths in the directory that stockade did not create, sorted; empty if it cannot be read.
    pub(crate) fn strays(&self) -> Vec<PathBuf> {
        let entries = self.entries().unwrap_or_default().into_iter();
        // Names with a dot are those of new entries, tombstones and subscriber locks.
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
    /// Returns [`Error::Receipt`] if the receipt cannot be understood or does not belong to root.
    pub fn read(&self, id: &JailId) -> Result<Option<Receipt>> {
        let mut receipt = self.read_as(id, Receipt::parse)?;
        if let Some(receipt) = receipt.as_mut().filter(|receipt| !receipt.has_this_boot_id()) {
            receipt.locked = is_locked(&self.entry_path(id));
        }
        Ok(receipt)
    }

    /// The summary of a receipt, with the same errors as [`Store::read`].
    pub(crate) fn summary(&self, id: &JailId) -> Result<Option<ReceiptSummary>> {
        self.read_as(id, ReceiptSummary::parse)
    }

    fn read_as<T>(&self, id: &JailId, parse: Parser<T>) -> Result<Option<T>> {
        let at = self.entry_path(id).join(RECEIPT);
        parse_receipt(open_file(CWD, at.as_path()), at, id, parse)
    }

    /// The time at which the receipt of a jail was last written. An unchanged receipt need not be read again.
    ///
    /// # Errors
    /// Returns an error if there is no receipt, or if it cannot be inspected.
    pub fn receipt_written(&self, id: &JailId) -> Result<SystemTime> {
        let receipt = self.entry_path(id).join(RECEIPT);
        let facts = std::fs::symlink_metadata(&receipt).and_then(|facts| facts.modified());
        facts.context(Operation::Inspect, receipt)
    }

    /// The time at which a VMM's exit status was written, in milliseconds since 1970.
    pub(crate) fn ended_ms(&self, id: &JailId) -> Option<u64> {
        unix_ms(std::fs::symlink_metadata(self.entry_path(id).join(EXIT_STATUS)).ok()?.modified().ok()?)
    }

    /// The exit status of a jail's VMM; `None` if its monitor or launcher has not written one.
    pub fn ended(&self, id: &JailId) -> Option<ExitStatus> {
        self.exit_record(id).map(|record| record.status)
    }

    /// The record of the exit of a jail's VMM.
    pub(crate) fn exit_record(&self, id: &JailId) -> Option<ExitRecord> {
        read_exit_record(&self.entry_path(id))
    }

    /// Whether a jail's VMM was launched with a log, which may be empty.
    pub(crate) fn has_log(&self, id: &JailId) -> bool {
        has_log(&self.entry_path(id))
    }

    /// The files of the log of a jail's VMM, the older first; empty if it was launched without a log.
    pub fn logs(&self, id: &JailId) -> Vec<HostPath> {
        logs(&self.entry_path(id))
    }

    /// The exit status of a jail's exited VMM, which its monitor may be about to write.
    ///
    /// # Arguments
    /// `monitor`: the VMM's monitor, if it has one. It is waited for until `deadline`.
    pub(crate) fn ended_soon(
        &self,
        id: &JailId,
        monitor: Option<ProcessRef>,
        deadline: Instant,
    ) -> Option<ExitStatus> {
        self.ended(id).or_else(|| {
            if let Ok(Some(monitor)) = monitor?.open() {
                let _ = monitor.wait_for_exit(Some(deadline));
            }
            self.ended(id)
        })
    }

    /// The number of bytes of a jail's output that could not be written to its log, for example on a full disk.
    pub fn lost_output(&self, id: &JailId) -> u64 {
        lost_output(&self.entry_path(id))
    }

    /// The last bytes of the log of a jail's VMM, for a display; empty if there is none.
    ///
    /// # Arguments
    /// `most` is the number of bytes.
    pub fn log_end(&self, id: &JailId, most: u64) -> Vec<u8> {
        log_end(&self.entry_path(id), most)
    }

    /// Locks a jail, and creates its entry if it has none.
    pub(crate) fn lock(&self, id: &JailId) -> Result<Lock> {
        let path = self.entry_path(id);
        let nonce = Nonce::new();
        // Another process may remove the entry with its jail before it is locked here.
        for _ in 0..ATTEMPTS {
            make_marked(&self.directory, &nonce)?;
            match make_with_mark(&path, PRIVATE, ENTRY_MARK, &nonce) {
                Ok(()) => (),
                Err(error) if error.cause == Errno::EXIST => (),
                Err(error) if error.cause == Errno::NOENT => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(lock) = self.try_lock(id)? {
                return Ok(lock);
            }
        }
        Err(Errno::AGAIN).context(Operation::Lock, path)
    }

    /// Locks a jail; `None` if it has no entry.
    pub(crate) fn try_lock(&self, id: &JailId) -> Result<Option<Lock>> {
        let path = self.entry_path(id);
        match try_lock(&path)? {
            DirLock::Held(directory) => {
                Ok(Some(Lock { directory, path, store: self.directory.clone(), id: id.clone() }))
            }
            DirLock::Busy(directory) => Err(self.in_use(id, &directory)),
            DirLock::Missing => Ok(None),
        }
    }

    /// The error for a lock that another process holds.
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

/// Whether this is a jail's entry, including one being created or removed.
fn is_entry(entry: &DirEntry) -> bool {
    // Without permission to read the directory, a receipt may exist in it.
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
