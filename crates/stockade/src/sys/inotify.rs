//! Notifications of changed directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, Event, Reader, WatchFlags};
use rustix::io::Errno;

/// A queue of notifications, which no read waits for.
#[derive(Debug)]
pub(crate) struct Inotify(OwnedFd);

impl Inotify {
    pub(crate) fn new() -> Result<Self, Errno> {
        inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map(Self)
    }

    /// Watches a directory from now on, and returns the number of the watch.
    pub(crate) fn watch(&self, path: impl rustix::path::Arg, events: WatchFlags) -> Result<i32, Errno> {
        inotify::add_watch(&self.0, path, events)
    }

    /// Takes all notifications, in the order of the changes.
    pub(crate) fn take(&self, mut action: impl FnMut(&Event<'_>)) -> Result<(), Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); 1 << 16];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => action(&event),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => (),
                Err(cause) => return Err(cause),
            }
        }
    }

    /// Discards all notifications, for a caller that examines the directory itself.
    pub(crate) fn discard(&self) -> Result<(), Errno> {
        self.take(|_| ())
    }
}

impl AsFd for Inotify {
    /// Readable while there is a notification.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
