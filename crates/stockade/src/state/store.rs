//! The state directory: one directory a jail, with its receipt in it and the lock on itself.

use std::fs::{DirEntry, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Operation, Result};
use crate::spec::{Ended, HostPath, JailId, Nonce, SpecError};
use crate::state::Parting;
use crate::state::receipt::{Glance, JailState, Receipt};
use crate::sys::dir_lock::{DirLock, try_lock};
use crate::sys::jail_root::open_directory;
use crate::sys::mark::{self, Mark};
use crate::sys::modes::{self, PRIVATE};
use crate::sys::owned_dir::{make_marked, make_one, remove_if_ours_and_empty};
use crate::sys::remove_tree;

/// Where receipts are kept unless told otherwise.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/stockade";

pub(crate) const RECEIPT: &str = "receipt.json";
pub(crate) const ENDED: &str = "ended";

const RECEIPT_NEW: &str = "receipt.json.new";

/// The mode of what is in a jail's place; the monitor has the same.
const FILE: u32 = 0o600;

const ENDED_NEW: &str = "ended.new";

/// What the monitor writes into a jail's place.
const MONITOR_FILES: &[&str] = &["log", "log.1", ENDED_NEW, ENDED];

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
            foreign.filter(|entry| !is_place(entry)).map(|entry| entry.path()).collect();
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
    pub(crate) fn glance(&self, id: &JailId) -> Result<Option<Glance>> {
        self.read_as(id, Glance::parse)
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
            std::fs::metadata(self.directory.join(id.as_str()).join(ENDED)).ok()?.modified().ok()?;
        u64::try_from(written.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }

    /// How a jail's VMM ended, if it was watched and has.
    pub fn ended(&self, id: &JailId) -> Option<Ended> {
        read_ended(&self.directory.join(id.as_str()))
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
        for _ in 0..1000 {
            make_marked(&self.directory, &nonce)?;
            match make_one(&path, PRIVATE, PLACE, &nonce) {
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

/// A jail's place in the state directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct Lock {
    directory: OwnedFd,
    path: HostPath,
    store: HostPath,
    id: JailId,
}

impl Lock {
    pub(crate) fn read(&self) -> Result<Option<Receipt>> {
        read_receipt(&self.directory, &self.path, &self.id)
    }

    /// Replaces the receipt as a whole. No sync to disk: after a power failure only directories remain, and
    /// their place is known.
    pub(crate) fn write(&self, receipt: &Receipt) -> Result<()> {
        let at = self.path.join(RECEIPT);
        log::debug!("write receipt {at}");
        let text = serde_json::to_vec(receipt)
            .map_err(|e| Error::Receipt { path: at.clone(), problem: format!("cannot be written: {e}") })?;
        self.replace(RECEIPT, RECEIPT_NEW, &text)
    }

    /// Replaces a file of the place as a whole, by way of another name.
    fn replace(&self, name: &str, new: &str, text: &[u8]) -> Result<()> {
        let at = self.path.join(name);
        let file =
            modes::create_file(&self.directory, new, OFlags::TRUNC, FILE).context(Operation::Open, &at)?;
        File::from(file).write_all(text).context(Operation::Write, &at)?;
        rustix::fs::renameat(&self.directory, new, &self.directory, name).context(Operation::Rename, at)
    }

    /// The jail's place, for the monitor to write in: opened anew, since the lock belongs to what was opened
    /// first and would live as long as the monitor.
    pub(crate) fn place(&self) -> Result<OwnedFd> {
        let directory = open_directory(self.directory.as_fd(), Path::new("."), ResolveFlags::empty());
        directory.context(Operation::Open, &self.path)
    }

    /// The parts of the VMM's log, the older first.
    pub(crate) fn logs(&self) -> Vec<HostPath> {
        logs(&self.path)
    }

    /// How the VMM ended, if its monitor has written that down.
    pub(crate) fn ended(&self) -> Option<Ended> {
        read_ended(&self.path)
    }

    /// Writes down how the VMM ended, as a monitor does, whole or not at all.
    pub(crate) fn write_end(&self, ended: Ended) -> Result<()> {
        let text = match ended {
            Ended::Exited(code) => format!("exited {code}\n"),
            Ended::Killed(signal) => format!("killed {signal}\n"),
            Ended::Unknown => return Ok(()),
        };
        self.replace(ENDED, ENDED_NEW, text.as_bytes())
    }

    /// Removes what a monitor has written for a VMM that was started before.
    pub(crate) fn forget_end(&self) -> Result<()> {
        MONITOR_FILES.iter().try_for_each(|name| self.unlink(name))
    }

    /// Removes the jail's place: it is gone without a trace. The receipt goes late, so that a place that
    /// cannot be removed is still known; yet before the VMM's end, so that whoever finds a receipt and no end
    /// knows that none was written. With `parting`, subscribers are told of it (see [`Parting`]).
    pub(crate) fn remove(self, parting: Option<&Parting>) -> Result<()> {
        let place = open_directory(self.directory.as_fd(), Path::new("."), ResolveFlags::empty());
        let names =
            place.and_then(|place| remove_tree::names(place.as_fd())).context(Operation::Read, &self.path)?;
        let (ours, foreign): (Vec<_>, Vec<_>) = names
            .iter()
            .map(|name| name.to_string_lossy())
            .partition(|name| MONITOR_FILES.iter().chain(&[RECEIPT_NEW, RECEIPT]).any(|ours| name == ours));
        let passing = ours.iter().filter(|name| ![RECEIPT, ENDED].contains(&name.as_ref()));
        passing.into_iter().try_for_each(|name| self.unlink(name))?;
        if let Some(foreign) = foreign.first() {
            return Err(Errno::NOTEMPTY).context(Operation::Remove, self.path.join(foreign.as_ref()));
        }
        let last = [RECEIPT, ENDED].into_iter().filter(|last| ours.iter().any(|name| name == last));
        last.into_iter().try_for_each(|name| self.unlink(name))?;
        let last = parting.map(|parting| self.store.join(parting.name()));
        // Where it cannot be renamed subscribers are told less.
        let last = last.filter(|last| rustix::fs::rename(self.path.as_path(), last.as_path()).is_ok());
        self.remove_empty(last.as_ref().unwrap_or(&self.path))
    }

    /// Removes a place that has no receipt, if stockade made it: whoever made it was killed before anything
    /// else was made, or after everything was removed. Anything else in the state directory is not ours to touch.
    pub(crate) fn remove_unused(self) -> Result<()> {
        if mark::read(self.directory.as_fd()).context(Operation::Inspect, &self.path)?
            != Mark::Is(PLACE.into())
        {
            return Ok(());
        }
        self.unlink(RECEIPT_NEW)?;
        self.unlink(ENDED)?;
        self.remove_empty(&self.path)
    }

    fn remove_empty(&self, place: &HostPath) -> Result<()> {
        match rustix::fs::rmdir(place.as_path()) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(cause) => return Err(cause).context(Operation::Remove, place),
        }
        remove_if_ours_and_empty(&self.store)?;
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
        // Not by closing alone: a child that another thread has just cloned holds a copy of the descriptor until
        // it executes its program, and with it the lock.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

fn is_directory(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Whether a jail has this for its place, or had it, or will have.
fn is_place(entry: &DirEntry) -> bool {
    // Whoever may not look into it cannot say that there is no receipt.
    let has_receipt = || match entry.path().join(RECEIPT).symlink_metadata() {
        Ok(_) => true,
        Err(cause) => cause.kind() != std::io::ErrorKind::NotFound,
    };
    let is_marked = || {
        let directory = open_directory(CWD, &entry.path(), ResolveFlags::NO_SYMLINKS);
        directory.and_then(|directory| mark::read(directory.as_fd())) == Ok(Mark::Is(PLACE.into()))
    };
    is_directory(entry) && (has_receipt() || is_marked())
}

/// What tells that a directory in the state directory is a jail's place.
const PLACE: &str = "place";

pub(crate) fn read_receipt(directory: &OwnedFd, path: &HostPath, id: &JailId) -> Result<Option<Receipt>> {
    let at = path.join(RECEIPT);
    parse_receipt(
        rustix::fs::openat(directory, RECEIPT, RECEIPT_FLAGS, Mode::empty()),
        at,
        id,
        Receipt::parse,
    )
}

/// Reads the text of a receipt.
type Parser<T> = fn(&[u8], &JailId) -> std::result::Result<T, String>;

const RECEIPT_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn parse_receipt<T>(
    opened: rustix::io::Result<OwnedFd>,
    at: HostPath,
    id: &JailId,
    parse: Parser<T>,
) -> Result<Option<T>> {
    let file = match opened {
        Ok(file) => File::from(file),
        // Something that is no directory is no jail's place.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(cause) => return Err(cause).context(Operation::Open, at),
    };
    let facts = file.metadata().context(Operation::Inspect, &at)?;
    let mine = rustix::process::geteuid().as_raw();
    if facts.uid() != 0 && facts.uid() != mine {
        let problem = format!("belongs to uid {}, not to root", facts.uid());
        return Err(Error::Receipt { path: at, problem });
    }
    // Through `take`, which asks for no size: it is known.
    let mut text = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0).saturating_add(1));
    file.take(u64::MAX).read_to_end(&mut text).context(Operation::Read, &at)?;
    parse(&text, id).map(Some).map_err(|problem| Error::Receipt { path: at, problem })
}

/// The parts of the log in a jail's place, the older first.
fn logs(place: &HostPath) -> Vec<HostPath> {
    let parts = ["log.1", "log"].into_iter().map(|name| place.join(name));
    parts.filter(|path| path.as_path().is_file()).collect()
}

/// What a monitor wrote: `exited CODE` or `killed SIGNAL`.
fn read_ended(place: &HostPath) -> Option<Ended> {
    let text = std::fs::read_to_string(place.join(ENDED)).ok()?;
    let (word, number) = text.trim_end().split_once(' ')?;
    let number = number.parse().ok()?;
    match word {
        "exited" => Some(Ended::Exited(number)),
        "killed" => Some(Ended::Killed(number)),
        _ => None,
    }
}

/// Who holds the lock, as `/proc/locks` tells.
pub(crate) fn lock_holder(directory: &OwnedFd) -> Option<i32> {
    let facts = rustix::fs::fstat(directory.as_fd()).ok()?;
    let (major, minor) = (rustix::fs::major(facts.st_dev), rustix::fs::minor(facts.st_dev));
    let wanted = format!("{major:02x}:{minor:02x}:{}", facts.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != "FLOCK").skip(3);
        let pid = fields.next()?.parse().ok()?;
        (fields.next()? == wanted).then_some(pid)
    })
}
