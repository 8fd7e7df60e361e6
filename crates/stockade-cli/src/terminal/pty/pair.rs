//! The pseudoterminal of a program in a jail.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use stockade::Streams;

/// Both sides of a pseudoterminal: the command's (master) and the program's (slave).
pub(super) struct Pty {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

impl Pty {
    /// Creates a pseudoterminal with the size of the operator's terminal.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        // Not opened by its path: the kernel opens the slave of exactly this master, whatever is mounted at /dev/pts.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        resize(master.as_fd());
        Ok(Self { master, slave })
    }

    /// Returns the program's side for each of the command's streams that is a terminal.
    pub(super) fn streams_for(&self, terminals: [bool; 3]) -> io::Result<Streams> {
        let copy = |wanted: bool| wanted.then(|| self.slave.try_clone()).transpose();
        Ok(Streams { stdin: copy(terminals[0])?, stdout: copy(terminals[1])?, stderr: copy(terminals[2])? })
    }
}

/// Gives the program's terminal the size of the operator's.
pub(super) fn resize(master: BorrowedFd<'_>) {
    let size = super::streams().into_iter().find_map(|stream| tcgetwinsize(stream).ok());
    // A terminal of another size still works.
    let _ = size.map(|size| tcsetwinsize(master, size));
}
