//! The log of a VMM's output, read while it grows.
//!
//! It is two files: when `log` is half of what the log may hold, the monitor gives it the name `log.1`, at the
//! cost of the older one, and begins a new `log`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, JailId};
use crate::state::Store;
use crate::state::entry::read_receipt;
use crate::sys::jail_root::open_directory;
use crate::sys::process::{PidFd, remaining};

/// What a VMM has written and writes, if it was launched with a log.
#[derive(Debug)]
pub struct Log {
    id: JailId,
    /// The jail's place, held: another jail of this id has another.
    place: OwnedFd,
    path: HostPath,
    /// The file that was read last.
    current: Option<File>,
    changes: OwnedFd,
    /// The process that ends when the log is complete, once it is known.
    writer: Option<PidFd>,
    complete: bool,
}

impl Store {
    /// The log of a jail's VMM, from its beginning as far as it was kept; `None` if there is no such jail.
    ///
    /// # Errors
    /// What the kernel says of opening and watching the jail's place.
    pub fn log(&self, id: &JailId) -> Result<Option<Log>> {
        let path = self.directory().join(id.as_str());
        let place = match open_directory(CWD, path.as_path(), ResolveFlags::NO_SYMLINKS) {
            Ok(place) => place,
            Err(Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(cause).context(Operation::Open, path),
        };
        if read_receipt(&place, &path, id)?.is_none() {
            return Ok(None);
        }
        let changes = watch(&place).context(Operation::Watch, &path)?;
        let id = id.clone();
        Ok(Some(Log { id, place, path, current: None, changes, writer: None, complete: false }))
    }
}

impl Log {
    /// What was written since the last call. A part that the log has dropped before it was read is missing.
    ///
    /// # Errors
    /// What the kernel says of reading.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            // First the next file: what is read of this one then is its end, since it is closed by then.
            let next = self.following()?;
            if let Some(current) = &mut self.current {
                current.read_to_end(&mut text).context(Operation::Read, &self.path)?;
            }
            let Some(next) = next else { return Ok(text) };
            self.current = Some(next);
        }
    }

    /// Waits until there may be more to read, at most until `deadline`; false if there will be no more.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<bool> {
        if self.complete {
            return Ok(false);
        }
        if self.writer.is_none() && !self.find_writer()? {
            // What was written up to now is still to be read.
            self.complete = true;
            return Ok(true);
        }
        let ended = self.writer.as_ref().map_or(self.changes.as_fd(), PidFd::as_fd);
        let mut waiting =
            [PollFd::new(&self.changes, PollFlags::IN), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        match poll(&mut waiting, deadline.map(remaining).as_ref()) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(cause) => return Err(cause).context(Operation::Wait, &self.path),
        }
        if !waiting[1].revents().is_empty() && self.writer.is_some() {
            self.writer = None;
        }
        // What has changed does not matter; the files are looked at again.
        let mut notes = [0_u8; 4096];
        while rustix::io::read(&self.changes, &mut notes).is_ok() {}
        Ok(true)
    }

    /// Finds the process that ends when the log is complete; false if there is none, and will be none.
    fn find_writer(&mut self) -> Result<bool> {
        let Some(receipt) = read_receipt(&self.place, &self.path, &self.id)? else { return Ok(false) };
        let Some(vmm) = receipt.vmm_step().filter(|_| receipt.is_here()) else {
            // It may yet be started, which changes its place.
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

    /// The file that comes after the current one, if that is not the last.
    fn following(&self) -> Result<Option<File>> {
        let same = |file: &File| {
            let (Some(current), Ok(facts)) = (&self.current, file.metadata()) else { return false };
            current.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (facts.dev(), facts.ino()))
        };
        let newer = self.open("log")?;
        if newer.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let older = self.open("log.1")?;
        Ok(older.filter(|file| !same(file)).or(newer))
    }

    fn open(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.place, Path::new(name), flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Open, self.path.join(name)),
        }
    }
}

fn watch(place: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    inotify::add_watch(&changes, format!("/proc/self/fd/{}", place.as_raw_fd()), events)?;
    Ok(changes)
}
