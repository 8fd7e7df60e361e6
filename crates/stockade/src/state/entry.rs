//! The entry of one jail in the state directory: its lock, its receipt, and the files of its monitor.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use stockade_syscalls::monitor::files;

use super::files::{Found, is_file, open_file};
use super::receipt::Receipt;
use super::tombstone::Tombstone;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{ExitRecord, ExitStatus, HostPath, JailId};
use crate::sys::cache;
use crate::sys::directory_names::names;
use crate::sys::mark::{self, Mark};
use crate::sys::modes;
use crate::sys::open::open_directory;
use crate::sys::owned_dir::remove_if_marked_and_empty;
use crate::sys::procfs::read_file;

pub(crate) const RECEIPT: &str = "receipt.json";
const RECEIPT_NEW: &str = "receipt.json.new";

// The files of the monitor.
pub(crate) const EXIT_STATUS: &str = text(files::EXIT_STATUS);
const EXIT_STATUS_NEW: &str = text(files::NEW_EXIT_STATUS);
pub(crate) const LOG: &str = text(files::LOG);
pub(crate) const OLD_LOG: &str = text(files::OLD_LOG);
const LOST: &str = text(files::LOST);
const MONITOR_FILES: &[&str] = &[LOG, OLD_LOG, LOST, EXIT_STATUS_NEW, EXIT_STATUS];

/// The mode of the files in an entry, also of those that the monitor creates.
const FILE_MODE: u32 = 0o600;

/// The mark of a jail's entry on its directory.
pub(super) const ENTRY_MARK: &str = "place";

const fn text(name: &'static CStr) -> &'static str {
    match name.to_str() {
        Ok(name) => name,
        Err(_) => panic!("the name is no UTF-8"),
    }
}

/// The lock on a jail's entry in the state directory.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(super) directory: OwnedFd,
    pub(super) path: HostPath,
    pub(super) store: HostPath,
    pub(super) id: JailId,
}

impl Lock {
    pub(crate) fn read(&self) -> Result<Option<Receipt>> {
        read_receipt(&self.directory, &self.path, &self.id)
    }

    /// Replaces the receipt as a whole.
    ///
    /// It is not synced to disk: after a power failure only directories remain, and their paths are known.
    pub(crate) fn write(&self, receipt: &Receipt) -> Result<()> {
        let at = self.path.join(RECEIPT);
        log::debug!("write receipt {at}");
        let text = serde_json::to_vec(receipt)
            .map_err(|e| Error::Receipt { path: at.clone(), problem: format!("cannot be written: {e}") })?;
        self.replace(RECEIPT, RECEIPT_NEW, &text)
    }

    /// Replaces a file of the entry as a whole, by a rename.
    fn replace(&self, name: &str, new: &str, text: &[u8]) -> Result<()> {
        let at = self.path.join(name);
        // Not waiting for the reader of a FIFO.
        let create = || modes::create_file(&self.directory, new, OFlags::TRUNC | OFlags::NONBLOCK, FILE_MODE);
        let file = match create() {
            // A FIFO, socket or symbolic link; it would be replaced anyway.
            Err(Errno::NXIO | Errno::LOOP) => {
                self.unlink(new).and_then(|()| create().context(Operation::Open, &at))
            }
            created => created.context(Operation::Open, &at),
        }?;
        File::from(file).write_all(text).context(Operation::Write, &at)?;
        rustix::fs::renameat(&self.directory, new, &self.directory, name).context(Operation::Rename, at)
    }

    /// Opens the entry again, for the monitor to write in.
    ///
    /// A `flock` belongs to the open file, so with a copy of the locked one the monitor would keep the lock.
    pub(crate) fn entry(&self) -> Result<OwnedFd> {
        let directory = open_directory(self.directory.as_fd(), Path::new("."), ResolveFlags::empty());
        directory.context(Operation::Open, &self.path)
    }

    /// The last bytes of the VMM's log.
    pub(crate) fn log_end(&self, most: u64) -> Vec<u8> {
        log_end(&self.path, most)
    }

    /// The record of the VMM's exit, if it has been written.
    pub(crate) fn exit_record(&self) -> Option<ExitRecord> {
        read_exit_record(&self.path)
    }

    /// Writes the record of the VMM's exit as a monitor does, whole or not at all.
    pub(crate) fn write_exit_record(&self, record: ExitRecord) -> Result<()> {
        if record.status == ExitStatus::Unknown {
            return Ok(());
        }
        let (text, at) = (record.to_text() + "\n", self.path.join(EXIT_STATUS));
        // Over the reserved bytes; what is left of them is cut off.
        let file = modes::create_file(&self.directory, EXIT_STATUS_NEW, OFlags::NONBLOCK, FILE_MODE)
            .context(Operation::Open, &at)?;
        let written = File::from(file.try_clone().context(Operation::Open, &at)?).write_all(text.as_bytes());
        written.context(Operation::Write, &at)?;
        let length = u64::try_from(text.len()).unwrap_or_default();
        rustix::fs::ftruncate(&file, length).context(Operation::Write, &at)?;
        rustix::fs::renameat(&self.directory, EXIT_STATUS_NEW, &self.directory, EXIT_STATUS)
            .context(Operation::Rename, at)
    }

    /// Reserves the room for what is written when the VMM has exited, because the disk may be full when it exits.
    ///
    /// # Arguments
    /// `with_log`: whether a monitor keeps a log, and counts what it cannot write.
    pub(crate) fn reserve(&self, with_log: bool) -> Result<()> {
        let record = (EXIT_STATUS_NEW, files::RESERVED_RECORD);
        let reserved = [Some(record), with_log.then_some((LOST, files::RESERVED))];
        reserved.into_iter().flatten().try_for_each(|(name, size)| {
            let at = || self.path.join(name);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(FILE_MODE);
            let file = openat2(&self.directory, name, flags, mode, ResolveFlags::NO_SYMLINKS)
                .context(Operation::Open, at())?;
            modes::set_mode(&file, FILE_MODE).context(Operation::ChangeMode, at())?;
            File::from(file).write_all(&vec![b'0'; size]).context(Operation::Write, at())
        })
    }

    /// Removes the files of the monitor of an earlier launch.
    pub(crate) fn remove_monitor_files(&self) -> Result<()> {
        MONITOR_FILES.iter().try_for_each(|name| self.unlink(name))
    }

    /// Removes the entry.
    ///
    /// The receipt is removed late, so that an entry that cannot be removed is still known as one. It is
    /// removed before the exit status: a subscriber that finds a receipt and no exit status knows that none
    /// was written.
    ///
    /// # Arguments
    /// `tombstone` is the last name of the entry, which subscribers read.
    pub(crate) fn remove(self, tombstone: Option<&Tombstone>) -> Result<()> {
        let found = names(self.entry()?.as_fd()).context(Operation::Read, &self.path)?;
        let (own, foreign): (Vec<_>, Vec<_>) = found
            .iter()
            .map(|name| name.to_string_lossy())
            .partition(|name| MONITOR_FILES.iter().chain(&[RECEIPT_NEW, RECEIPT]).any(|own| name == own));
        let first = own.iter().filter(|name| ![RECEIPT, EXIT_STATUS].contains(&name.as_ref()));
        first.into_iter().try_for_each(|name| self.unlink(name))?;
        if let Some(foreign) = foreign.first() {
            return Err(Errno::NOTEMPTY).context(Operation::Remove, self.path.join(foreign.as_ref()));
        }
        let last = [RECEIPT, EXIT_STATUS].into_iter().filter(|last| own.iter().any(|name| name == last));
        last.into_iter().try_for_each(|name| self.unlink(name))?;
        let renamed = tombstone.map(|tombstone| self.store.join(tombstone.name()));
        // If the rename fails, subscribers learn of the removal without the exit status.
        let renamed = renamed.filter(|to| rustix::fs::rename(self.path.as_path(), to.as_path()).is_ok());
        self.remove_empty(renamed.as_ref().unwrap_or(&self.path))
    }

    /// Removes an entry without a receipt, if stockade created it.
    ///
    /// Its creator was killed before it created anything else, or after it had removed everything else. Other
    /// directories in the state directory are not touched.
    pub(crate) fn remove_unused(self) -> Result<()> {
        if mark::read(self.directory.as_fd()).context(Operation::ReadMark, &self.path)?
            != Mark::Is(ENTRY_MARK.into())
        {
            return Ok(());
        }
        self.unlink(RECEIPT_NEW)?;
        self.unlink(EXIT_STATUS)?;
        self.remove_empty(&self.path)
    }

    fn remove_empty(&self, path: &HostPath) -> Result<()> {
        match rustix::fs::rmdir(path.as_path()) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(cause) => return Err(cause).context(Operation::Remove, path),
        }
        remove_if_marked_and_empty(&self.store)?;
        Ok(())
    }

    fn unlink(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(cause) => Err(cause).context(Operation::Remove, self.path.join(name)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just cloned has a copy of the file
        // descriptor, and with it the lock, until it executes its program.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

pub(crate) fn read_receipt(directory: &OwnedFd, path: &HostPath, id: &JailId) -> Result<Option<Receipt>> {
    let at = path.join(RECEIPT);
    parse_receipt(open_file(directory.as_fd(), Path::new(RECEIPT)), at, id, Receipt::parse)
}

/// A function that parses the text of a receipt.
pub(super) type Parser<T> = fn(&[u8], &JailId) -> std::result::Result<T, String>;

/// The largest receipt that is read, in MiB. A step needs some hundred bytes.
const LARGEST_RECEIPT_MIB: u64 = 64;

pub(super) fn parse_receipt<T>(
    found: rustix::io::Result<Found>,
    at: HostPath,
    id: &JailId,
    parse: Parser<T>,
) -> Result<Option<T>> {
    let (file, facts) = match found.context(Operation::Open, &at)? {
        Found::File(file, facts) => (file, facts),
        // Also a file that is not a jail's entry.
        Found::Nothing => return Ok(None),
        Found::Other => return Err(Error::Receipt { path: at, problem: "is not a file".to_owned() }),
    };
    let (mine, most) = (rustix::process::geteuid().as_raw(), LARGEST_RECEIPT_MIB << 20);
    let size = facts.st_size.unsigned_abs();
    if facts.st_uid != 0 && facts.st_uid != mine {
        let problem = format!("belongs to uid {}, not to root", facts.st_uid);
        return Err(Error::Receipt { path: at, problem });
    }
    if size > most {
        return Err(Error::Receipt {
            path: at,
            problem: format!("is larger than {LARGEST_RECEIPT_MIB} MiB"),
        });
    }
    // Through `take`, which does not query the size, because that is known.
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(most).read_to_end(&mut text).context(Operation::Read, &at)?;
    let receipt = parse(&text, id).map_err(|problem| Error::Receipt { path: at, problem })?;
    // Without the id of this boot every jail would look like one of an earlier boot, which has no processes.
    cache::boot_id()?;
    Ok(Some(receipt))
}

/// The files of the log in an entry, the older first.
pub(super) fn logs(entry: &HostPath) -> Vec<HostPath> {
    let parts = [OLD_LOG, LOG].into_iter().map(|name| entry.join(name));
    parts.filter(is_file).collect()
}

/// Whether a monitor keeps a log in an entry. Before the first output there is only the room for the count of lost bytes.
pub(super) fn has_log(entry: &HostPath) -> bool {
    let exists = |name: &&str| !matches!(open_file(CWD, entry.join(*name).as_path()), Ok(Found::Nothing));
    [LOG, OLD_LOG, LOST].iter().any(exists)
}

/// The last bytes of the log in an entry, at most `most`.
pub(super) fn log_end(entry: &HostPath, most: u64) -> Vec<u8> {
    let (mut parts, mut left) = (Vec::new(), most);
    for name in [LOG, OLD_LOG] {
        let Ok(Found::File(mut file, facts)) = open_file(CWD, entry.join(name).as_path()) else { continue };
        let size = facts.st_size.unsigned_abs();
        let mut part = Vec::new();
        let begin = SeekFrom::Start(size.saturating_sub(left));
        // The log may grow between these calls.
        if file.seek(begin).and_then(|_| file.take(left).read_to_end(&mut part)).is_ok() {
            parts.push(part);
        }
        left = left.saturating_sub(size);
    }
    parts.into_iter().rev().flatten().collect()
}

/// The number of bytes of output that could not be written to the log in an entry.
pub(super) fn lost_output(entry: &HostPath) -> u64 {
    let Ok(Found::File(file, _)) = open_file(CWD, entry.join(LOST).as_path()) else { return 0 };
    let mut text = String::new();
    // A 64-bit number has at most 20 digits.
    let read = file.take(files::RESERVED as u64).read_to_string(&mut text);
    read.ok().and_then(|_| text.parse().ok()).unwrap_or(0)
}

/// The record of an exit in an entry, as a monitor writes it: `exited CODE` or `killed SIGNAL`, and ` oom NUMBER`.
pub(super) fn read_exit_record(entry: &HostPath) -> Option<ExitRecord> {
    const LONGEST: u64 = 64;
    let Ok(Found::File(file, _)) = open_file(CWD, entry.join(EXIT_STATUS).as_path()) else { return None };
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    ExitRecord::from_text(text.trim_end())
}

/// The pid of the process that holds the lock on a directory, from `/proc/locks`.
pub(crate) fn lock_holder(directory: &OwnedFd) -> Option<i32> {
    let facts = rustix::fs::fstat(directory.as_fd()).ok()?;
    let (major, minor) = (rustix::fs::major(facts.st_dev), rustix::fs::minor(facts.st_dev));
    let wanted = format!("{major:02x}:{minor:02x}:{}", facts.st_ino);
    let locks = read_file("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK").skip(3);
        let pid = fields.next()?.parse().ok()?;
        (fields.next()? == wanted).then_some(pid)
    })
}
