//! Where a subscriber hears of things: the kernel's notes on the state directory and on each jail's place, and
//! the ends of processes. One descriptor tells of all.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, JailId};
use crate::state::Tombstone;
use crate::state::entry::{EXIT_STATUS, RECEIPT};
use crate::sys::ProcessRef;
use crate::sys::process::{PidFd, remaining};

/// What was heard.
#[derive(Debug)]
pub(super) enum Notification {
    /// Something about this jail has changed.
    Changed(JailId),
    /// A jail has gone.
    Removed(Tombstone),
    /// The kernel's queue was full, and something was lost.
    Overflow,
    /// The state directory itself is gone, against all custom.
    DirectoryGone,
}

/// Everything that is listened to.
#[derive(Debug)]
pub(super) struct Sources {
    directory: HostPath,
    poll: OwnedFd,
    notes: OwnedFd,
    /// The watch on the state directory.
    watch: i32,
    /// The watches on places.
    places: HashMap<i32, JailId>,
    /// The one process of each jail whose end is waited for, with its token.
    processes: HashMap<JailId, (ProcessRef, PidFd, u64)>,
    /// The jails by what the descriptor tells of their processes.
    tokens: HashMap<u64, JailId>,
    last_token: u64,
}

/// What the descriptor tells of the notes.
const NOTES: u64 = 0;

impl Sources {
    pub(super) fn of(directory: &HostPath) -> Result<Self> {
        let (poll, notes, watch) = open(directory).context(Operation::Watch, directory)?;
        let (places, processes, tokens) = (HashMap::new(), HashMap::new(), HashMap::new());
        let directory = directory.clone();
        Ok(Self { directory, poll, notes, watch, places, processes, tokens, last_token: NOTES })
    }

    /// Listens to what happens in a jail's place from here on. One that is not there has nothing to tell.
    pub(super) fn watch_place(&mut self, id: &JailId) -> Result<()> {
        let place = self.directory.join(id.as_str());
        let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.notes, place.as_path(), flags) {
            Ok(watch) => {
                self.places.insert(watch, id.clone());
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(cause) => Err(cause).context(Operation::Watch, place),
        }
    }

    /// Waits for the end of this process on behalf of a jail, and of no other; false if it has ended.
    pub(super) fn watch_process(&mut self, id: &JailId, process: Option<ProcessRef>) -> Result<bool> {
        if process.is_some() && self.processes.get(id).map(|(attended, ..)| *attended) == process {
            return Ok(true);
        }
        self.leave(id);
        let Some(process) = process else { return Ok(false) };
        let Some(held) = process.open()? else { return Ok(false) };
        self.last_token += 1;
        let token = epoll::EventData::new_u64(self.last_token);
        epoll::add(&self.poll, held.as_fd(), token, epoll::EventFlags::IN)
            .context(Operation::Wait, process.pid)?;
        self.tokens.insert(self.last_token, id.clone());
        self.processes.insert(id.clone(), (process, held, self.last_token));
        Ok(true)
    }

    /// Waits no longer for the end of a jail's process.
    pub(super) fn leave(&mut self, id: &JailId) {
        if let Some((_, held, token)) = self.processes.remove(id) {
            // Not by closing alone: a child that was just cloned may hold it a moment longer.
            let _ = epoll::delete(&self.poll, held.as_fd());
            self.tokens.remove(&token);
        }
    }

    /// Waits until there is something to hear, at most until `deadline`; false if there is not.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let mut ready = [MaybeUninit::uninit(); 1];
        loop {
            let left = deadline.map(remaining);
            match epoll::wait(&self.poll, &mut ready[..], left.as_ref()) {
                Ok((ready, _)) => return Ok(!ready.is_empty()),
                Err(Errno::INTR) => (),
                Err(cause) => return Err(cause).context(Operation::Watch, &self.directory),
            }
        }
    }

    /// Takes what there is to hear, without waiting.
    pub(super) fn take(&mut self) -> Result<Vec<Notification>> {
        let mut ready = Vec::with_capacity(64);
        let now = Instant::now();
        match epoll::wait(&self.poll, spare_capacity(&mut ready), Some(&remaining(now))) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(cause) => return Err(cause).context(Operation::Watch, &self.directory),
        }
        let mut heard = self.take_notes()?;
        for event in ready {
            if let Some(id) = self.tokens.get(&event.data.u64()).cloned() {
                self.leave(&id);
                heard.push(Notification::Changed(id));
            }
        }
        Ok(heard)
    }

    /// Takes what the kernel has noted, in the order in which it happened.
    pub(super) fn take_notes(&mut self) -> Result<Vec<Notification>> {
        let mut heard = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); 1 << 16];
        let mut notes = inotify::Reader::new(&self.notes, &mut buffer);
        loop {
            let note = match notes.next() {
                Ok(note) => note,
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => continue,
                Err(cause) => return Err(cause).context(Operation::Watch, &self.directory),
            };
            let name = note.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
            let kind = note.events();
            if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
                heard.push(Notification::Overflow);
            } else if note.wd() == self.watch {
                if kind.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                    heard.push(Notification::DirectoryGone);
                } else if let Some(tombstone) =
                    Tombstone::parse(name).filter(|_| kind.contains(ReadFlags::MOVED_TO))
                {
                    heard.push(Notification::Removed(tombstone));
                } else if let Ok(id) = name.parse() {
                    heard.push(Notification::Changed(id));
                }
            } else if kind.contains(ReadFlags::IGNORED) {
                self.places.remove(&note.wd());
            } else if let Some(id) =
                self.places.get(&note.wd()).filter(|_| [RECEIPT, EXIT_STATUS].contains(&name))
            {
                heard.push(Notification::Changed(id.clone()));
            }
        }
    }
}

/// The descriptor that tells of all, that of the notes, and the watch on the state directory.
fn open(directory: &HostPath) -> std::result::Result<(OwnedFd, OwnedFd, i32), Errno> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let notes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    epoll::add(&poll, &notes, epoll::EventData::new_u64(NOTES), epoll::EventFlags::IN)?;
    let entries = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
    let flags = entries | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    let watch = inotify::add_watch(&notes, directory.as_path(), flags)?;
    Ok((poll, notes, watch))
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}
