//! The log of a VMM's output, which can be read while it grows.
//!
//! It consists of two files. When `log` reaches half of the log's size limit, the monitor renames it to `log.1`, which
//! replaces the older file, and begins a new `log`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::WatchFlags;
use rustix::fs::{CWD, ResolveFlags};
use rustix::io::Errno;
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::poll::wait_until;

use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, JailId};
use crate::state::Store;
use crate::state::entry::{LOG, OLD_LOG, read_receipt};
use crate::state::files::{Found, open_file};
use crate::sys::file_id::FileId;
use crate::sys::inotify::Inotify;
use crate::sys::open::open_directory;
use crate::sys::process::PidFd;

/// The output of a VMM that was launched with a log.
#[derive(Debug)]
pub struct Log {
    id: JailId,
    /// The jail's entry, opened once: a later jail of this id has another entry.
    entry: OwnedFd,
    path: HostPath,
    /// The file that was read last.
    current: Option<File>,
    changes: Inotify,
    /// The process whose exit completes the log, once it is known.
    writer: Option<PidFd>,
    complete: bool,
}

impl Store {
    /// Opens the log of a jail's VMM, from its oldest kept part; `None` if no jail has this id.
    ///
    /// # Errors
    /// Returns an error if the jail's entry cannot be opened or watched, or if its receipt cannot be read.
    pub fn log(&self, id: &JailId) -> Result<Option<Log>> {
        let path = self.entry_path(id);
        let entry = match open_directory(CWD, path.as_path(), ResolveFlags::NO_SYMLINKS) {
            Ok(entry) => entry,
            Err(Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(cause).context(Operation::Open, path),
        };
        if read_receipt(&entry, &path, id)?.is_none() {
            return Ok(None);
        }
        let changes = watch(&entry).context(Operation::Watch, &path)?;
        let id = id.clone();
        Ok(Some(Log { id, entry, path, current: None, changes, writer: None, complete: false }))
    }
}

impl Log {
    /// Skips all output but its last bytes. Call it before the first [`Log::read`].
    ///
    /// # Arguments
    /// `most` is the number of bytes to keep.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn skip_to_last(&mut self, most: u64) -> Result<()> {
        let mut left = most;
        for name in [LOG, OLD_LOG] {
            let Some(mut file) = self.open(name)? else { continue };
            let size = file.metadata().context(Operation::Inspect, self.path.join(name))?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(left))).context(Operation::Read, &self.path)?;
            self.current = Some(file);
            left = left.saturating_sub(size);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads the next output, at most 1 MiB, without a part that was dropped before it was read. It is empty if there
    /// is none at the moment.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        const MOST: usize = 1 << 20;
        let mut text = Vec::new();
        loop {
            // First the next file: if it exists, the monitor has closed the current one, and the read reaches its end.
            let next = self.next_file()?;
            if let Some(current) = &mut self.current {
                let left = u64::try_from(MOST - text.len()).unwrap_or(0);
                current.take(left).read_to_end(&mut text).context(Operation::Read, &self.path)?;
            }
            if text.len() == MOST {
                return Ok(text);
            }
            let Some(next) = next else { return Ok(text) };
            self.current = Some(next);
        }
    }

    /// Waits until there may be more output, at most until `deadline`; false if the log is complete.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be read, or if the log or a process cannot be watched.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<bool> {
        if self.complete {
            return Ok(false);
        }
        if self.writer.is_none() && !self.find_writer()? {
            // The caller still has to read the output up to now.
            self.complete = true;
            return Ok(true);
        }
        let writer = self.writer.as_ref().map_or(self.changes.as_fd(), PidFd::as_fd);
        let mut waiting =
            [PollFd::new(&self.changes, PollFlags::IN), PollFd::from_borrowed_fd(writer, PollFlags::IN)];
        wait_until(&mut waiting, deadline).context(Operation::Wait, &self.path)?;
        if !waiting[1].revents().is_empty() && self.writer.is_some() {
            self.writer = None;
        }
        // The next read examines both files.
        self.changes.discard().context(Operation::Wait, &self.path)?;
        Ok(true)
    }

    /// Finds the process whose exit completes the log; false if there is none and will be none.
    fn find_writer(&mut self) -> Result<bool> {
        let Some(receipt) = read_receipt(&self.entry, &self.path, &self.id)? else { return Ok(false) };
        let Some(vmm) = receipt.vmm_step().filter(|_| receipt.is_here()) else {
            // The VMM may still be started, which changes the jail's entry.
            return Ok(receipt.is_here() && receipt.keeper.is_none_or(|keeper| keeper.is_alive()));
        };
        for process in [vmm.monitor, Some(vmm.process)].into_iter().flatten() {
            self.writer = process.open()?;
            if self.writer.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens the file after the current one; `None` if the current one is the last.
    fn next_file(&self) -> Result<Option<File>> {
        let same = |file: &File| {
            let current = self.current.as_ref().map(FileId::of);
            current.is_some_and(|current| current.is_ok() && current == FileId::of(file))
        };
        let newer = self.open(LOG)?;
        if newer.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let older = self.open(OLD_LOG)?;
        Ok(older.filter(|file| !same(file)).or(newer))
    }

    fn open(&self, name: &str) -> Result<Option<File>> {
        let at = || self.path.join(name);
        match open_file(self.entry.as_fd(), Path::new(name)).context(Operation::Open, at())? {
            Found::File(file, _) => Ok(Some(file)),
            Found::Nothing => Ok(None),
            Found::Other => Err(Error::NotAFile(at())),
        }
    }
}

fn watch(entry: &OwnedFd) -> std::result::Result<Inotify, Errno> {
    let changes = Inotify::new()?;
    let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    changes.watch(fd_path(entry), events)?;
    Ok(changes)
}
