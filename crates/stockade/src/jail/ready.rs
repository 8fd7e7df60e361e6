//! Waiting until a VMM accepts connections.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::fs::inotify::WatchFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::poll::wait_until;

use crate::error::{Context, Error, Operation, Result};
use crate::jail::running::Running;
use crate::spec::JailPath;
use crate::sys::inotify::Inotify;
use crate::sys::jail_root::JailRoot;

/// The delay before the next attempt at a socket that refuses connections. inotify reports the socket's
/// creation, but not the `listen` after it.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// The delay before the next look at a socket in a directory that does not exist yet.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The delay before the next look at a socket in a watched directory, which the VMM may replace by another one.
const LOOK_ANYWAY_AFTER: Duration = Duration::from_millis(100);

/// A timeout that never ends, and that can be added to any time.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 100);

/// The number of last log lines in an error.
const LAST_LINES: usize = 10;

enum Socket {
    Accepts,
    Refuses,
    Missing,
}

impl Running {
    /// Waits until the VMM accepts connections at a Unix socket in its jail, for example its API socket.
    ///
    /// The path may be too long for a socket's address, because the socket is opened by file descriptor.
    /// Nothing is sent.
    ///
    /// # Errors
    /// Returns [`Error::ExitedEarly`] with the exit status and the last lines of the log if the VMM exits first,
    /// [`Error::NotReady`] after `timeout`, otherwise the error of the kernel.
    pub fn wait_ready(&mut self, socket: &JailPath, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout.min(LONGEST);
        let changes = Inotify::new().context(Operation::Open, self.tree()?.host_path(socket))?;
        let mut is_watched = false;
        loop {
            is_watched = is_watched || self.watch_directory_of(socket, &changes)?;
            let again = match connect(self.tree()?, socket)? {
                Socket::Accepts => return Ok(()),
                Socket::Refuses => deadline.min(Instant::now() + TRY_AGAIN_AFTER),
                Socket::Missing if is_watched => deadline.min(Instant::now() + LOOK_ANYWAY_AFTER),
                Socket::Missing => deadline.min(Instant::now() + LOOK_AGAIN_AFTER),
            };
            if let Some(ended) = self.wait_timeout(Duration::ZERO)? {
                let id = self.receipt().id.clone();
                return Err(Error::ExitedEarly {
                    id,
                    status: ended,
                    last_lines: self.last_lines(LAST_LINES),
                });
            }
            if Instant::now() >= deadline {
                let id = self.receipt().id.clone();
                return Err(Error::NotReady { id, socket: socket.clone(), waited: timeout });
            }
            self.wait_for_change(&changes, again)?;
        }
    }

    /// Watches the socket's directory for new files. False if the VMM has not created it yet.
    fn watch_directory_of(&self, socket: &JailPath, changes: &Inotify) -> Result<bool> {
        let tree = self.tree()?;
        let Some(directory) = tree.directory_of(socket)? else { return Ok(false) };
        let events = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        // By file descriptor, because its path may lead elsewhere now.
        changes.watch(fd_path(&directory), events).context(Operation::Open, tree.host_path(socket))?;
        Ok(true)
    }

    /// Waits until the directory changes, the VMM exits, or the time `again` is reached.
    fn wait_for_change(&self, changes: &Inotify, again: Instant) -> Result<()> {
        let mut waiting =
            [PollFd::new(changes, PollFlags::IN), PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        wait_until(&mut waiting, Some(again)).context(Operation::Wait, self.pid())?;
        // The caller checks the socket again.
        changes.discard().context(Operation::Wait, self.pid())
    }
}

/// Tries to connect to the socket. A symbolic link is not followed.
fn connect(tree: &JailRoot, socket: &JailPath) -> Result<Socket> {
    let at = tree.host_path(socket);
    let Some(found) = tree.look(socket)? else { return Ok(Socket::Missing) };
    let facts = rustix::fs::fstat(&found).context(Operation::Inspect, &at)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::Socket {
        return Ok(Socket::Missing);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .context(Operation::Open, &at)?;
    let address = SocketAddrUnix::new(fd_path(&found)).context(Operation::Open, &at)?;
    match rustix::net::connect(&connection, &address) {
        // EAGAIN: the queue of connections is full.
        Ok(()) | Err(Errno::AGAIN) => Ok(Socket::Accepts),
        Err(Errno::CONNREFUSED) => Ok(Socket::Refuses),
        Err(Errno::NOENT) => Ok(Socket::Missing),
        Err(cause) => Err(cause).context(Operation::Open, at),
    }
}
