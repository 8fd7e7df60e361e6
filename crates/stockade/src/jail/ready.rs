//! Waiting until a VMM can be talked to.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, inotify};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Context, Error, Operation, Result};
use crate::jail::running::Running;
use crate::spec::JailPath;
use crate::sys::jail_root::JailRoot;
use crate::sys::process::remaining;

/// How soon a socket that is there, but at which nobody listens yet, is tried again: the kernel tells of the
/// first and not of the second.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// How many lines of a VMM's last words are told.
const LAST_LINES: usize = 10;

enum Socket {
    Accepts,
    Refuses,
    NotThere,
}

impl Running {
    /// Waits until the VMM accepts connections at a Unix socket in its jail, as at its API socket.
    ///
    /// The socket may be at a path that is too long for a socket's address: it is reached by descriptor.
    /// Nothing is sent.
    ///
    /// # Errors
    /// [`Error::ExitedEarly`] with the VMM's end and the last lines of its log if it ends first,
    /// [`Error::NotReady`] after `timeout`, otherwise what the kernel says.
    pub fn wait_ready(&mut self, socket: &JailPath, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let changes = self.watch_directory_of(socket)?;
        loop {
            let again = match look(self.tree()?, socket)? {
                Socket::Accepts => return Ok(()),
                Socket::Refuses => deadline.min(Instant::now() + TRY_AGAIN_AFTER),
                Socket::NotThere => deadline,
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

    /// Opens a descriptor that tells when something in the socket's folder changes.
    fn watch_directory_of(&self, socket: &JailPath) -> Result<OwnedFd> {
        let tree = self.tree()?;
        let folder = tree.directory_of(socket)?;
        let at = tree.host_path(socket);
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context(Operation::Open, &at)?;
        let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        // By descriptor: whatever its name leads to by now.
        inotify::add_watch(&changes, format!("/proc/self/fd/{}", folder.as_raw_fd()), events)
            .context(Operation::Open, &at)?;
        Ok(changes)
    }

    /// Waits until the folder changes, the VMM ends, or it is time to look again.
    fn wait_for_change(&self, changes: &OwnedFd, again: Instant) -> Result<()> {
        let mut waiting =
            [PollFd::new(changes, PollFlags::IN), PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        match poll(&mut waiting, Some(&remaining(again))) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(cause) => return Err(cause).context(Operation::Wait, self.pid()),
        }
        // What changed does not matter; the socket is looked at again.
        let mut events = [0_u8; 4096];
        while rustix::io::read(changes, &mut events).is_ok() {}
        Ok(())
    }
}

/// Tries to connect to the socket itself: a link in its place is not followed.
fn look(tree: &JailRoot, socket: &JailPath) -> Result<Socket> {
    let at = tree.host_path(socket);
    let Some(found) = tree.look(socket)? else { return Ok(Socket::NotThere) };
    let facts = rustix::fs::fstat(&found).context(Operation::Inspect, &at)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::Socket {
        return Ok(Socket::NotThere);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .context(Operation::Open, &at)?;
    let address =
        SocketAddrUnix::new(format!("/proc/self/fd/{}", found.as_raw_fd())).context(Operation::Open, &at)?;
    match rustix::net::connect(&connection, &address) {
        // EAGAIN: so many wait to be accepted that the queue is full.
        Ok(()) | Err(Errno::AGAIN) => Ok(Socket::Accepts),
        Err(Errno::CONNREFUSED) => Ok(Socket::Refuses),
        Err(Errno::NOENT) => Ok(Socket::NotThere),
        Err(cause) => Err(cause).context(Operation::Open, at),
    }
}
