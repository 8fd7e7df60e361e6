//! The sources of a subscriber's notifications: inotify for the state directory and each jail's entry, and pidfds for
//! the exits of processes. One epoll instance covers all of them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::fs::inotify::{ReadFlags, WatchFlags};
use rustix::io::Errno;
use stockade_syscalls::poll::wait_until;

use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, JailId};
use crate::state::entry::{EXIT_STATUS, RECEIPT};
use crate::state::{Store, Tombstone};
use crate::sys::ProcessRef;
use crate::sys::inotify::Inotify;
use crate::sys::process::PidFd;

/// A hint that a jail has to be examined, or that it was removed.
#[derive(Debug)]
pub(super) enum Notification {
    /// This jail has changed.
    Changed(JailId),
    /// A jail was removed.
    Removed(Tombstone),
    /// The kernel's queue was full, and notifications were lost.
    Overflow,
    /// The state directory was removed or renamed, although it exists as long as a jail or a subscriber.
    DirectoryRemoved,
}

#[derive(Debug)]
pub(super) struct Sources {
    store: Store,
    epoll: OwnedFd,
    inotify: Inotify,
    /// The inotify watch of the state directory.
    watch: i32,
    /// The jails by the inotify watches of their entries.
    entries: HashMap<i32, JailId>,
    /// The one watched process of each jail, with its epoll token.
    processes: HashMap<JailId, (ProcessRef, PidFd, u64)>,
    /// The jails by the epoll tokens of their processes.
    tokens: HashMap<u64, JailId>,
    last_token: u64,
}

/// The epoll token of inotify.
const INOTIFY: u64 = 0;

impl Sources {
    pub(super) fn of(store: &Store) -> Result<Self> {
        let (epoll, inotify, watch) = open(store.directory()).context(Operation::Watch, store.directory())?;
        let (entries, processes, tokens) = (HashMap::new(), HashMap::new(), HashMap::new());
        let store = store.clone();
        Ok(Self { store, epoll, inotify, watch, entries, processes, tokens, last_token: INOTIFY })
    }

    /// Watches a jail's entry from now on, unless the entry does not exist.
    pub(super) fn watch_entry(&mut self, id: &JailId) -> Result<()> {
        let entry = self.store.entry_path(id);
        let flags = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match self.inotify.watch(entry.as_path(), flags) {
            Ok(watch) => {
                self.entries.insert(watch, id.clone());
                Ok(())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(cause) => Err(cause).context(Operation::Watch, entry),
        }
    }

    /// Watches this process of a jail instead of the previous one; false if it has exited.
    pub(super) fn watch_process(&mut self, id: &JailId, process: Option<ProcessRef>) -> Result<bool> {
        if process.is_some() && self.processes.get(id).map(|(watched, ..)| *watched) == process {
            return Ok(true);
        }
        self.unwatch_process(id);
        let Some(process) = process else { return Ok(false) };
        let Some(pidfd) = process.open()? else { return Ok(false) };
        self.last_token += 1;
        let token = epoll::EventData::new_u64(self.last_token);
        epoll::add(&self.epoll, pidfd.as_fd(), token, epoll::EventFlags::IN)
            .context(Operation::Wait, process.pid)?;
        self.tokens.insert(self.last_token, id.clone());
        self.processes.insert(id.clone(), (process, pidfd, self.last_token));
        Ok(true)
    }

    /// Stops watching a jail's process.
    pub(super) fn unwatch_process(&mut self, id: &JailId) {
        if let Some((_, pidfd, token)) = self.processes.remove(id) {
            // To close the pidfd is not enough: a child that was just cloned may have it open a moment longer.
            let _ = epoll::delete(&self.epoll, pidfd.as_fd());
            self.tokens.remove(&token);
        }
    }

    /// Waits for a notification, at most until `deadline`; false if there is none.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let ready = wait_until(&mut [PollFd::new(&self.epoll, PollFlags::IN)], deadline);
        ready.context(Operation::Watch, self.store.directory())
    }

    /// Takes all notifications, without waiting.
    pub(super) fn take(&mut self) -> Result<Vec<Notification>> {
        let mut ready = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(cause) => return Err(cause).context(Operation::Watch, self.store.directory()),
        }
        let mut notifications = self.take_inotify()?;
        for event in ready {
            if let Some(id) = self.tokens.get(&event.data.u64()).cloned() {
                self.unwatch_process(&id);
                notifications.push(Notification::Changed(id));
            }
        }
        Ok(notifications)
    }

    /// Takes the notifications of inotify, in the order of the changes.
    pub(super) fn take_inotify(&mut self) -> Result<Vec<Notification>> {
        let Self { store, inotify, watch, entries, .. } = self;
        let mut notifications = Vec::new();
        let taken = inotify.take(|event| {
            let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
            let kind = event.events();
            if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
                notifications.push(Notification::Overflow);
            } else if event.wd() == *watch {
                if kind.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                    notifications.push(Notification::DirectoryRemoved);
                } else if let Some(tombstone) =
                    Tombstone::parse(name).filter(|_| kind.contains(ReadFlags::MOVED_TO))
                {
                    notifications.push(Notification::Removed(tombstone));
                } else if let Ok(id) = name.parse() {
                    notifications.push(Notification::Changed(id));
                }
            } else if kind.contains(ReadFlags::IGNORED) {
                entries.remove(&event.wd());
            } else if let Some(id) =
                entries.get(&event.wd()).filter(|_| [RECEIPT, EXIT_STATUS].contains(&name))
            {
                notifications.push(Notification::Changed(id.clone()));
            }
        });
        taken.context(Operation::Watch, store.directory())?;
        Ok(notifications)
    }
}

/// Opens epoll and inotify, and watches the state directory.
fn open(directory: &HostPath) -> std::result::Result<(OwnedFd, Inotify, i32), Errno> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let inotify = Inotify::new()?;
    epoll::add(&epoll, &inotify, epoll::EventData::new_u64(INOTIFY), epoll::EventFlags::IN)?;
    let entries = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
    let flags = entries | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    let watch = inotify.watch(directory.as_path(), flags)?;
    Ok((epoll, inotify, watch))
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
