//! A terminal that a program in a jail has of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use stockade::Streams;

/// Both sides of one: ours and the program's.
pub(super) struct Pty {
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

impl Pty {
    /// One as large as the operator's.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        resize(ours.as_fd());
        Ok(Self { ours, theirs })
    }

    /// The program's side in the place of each of our streams that is a terminal.
    pub(super) fn in_place_of(&self, terminals: [bool; 3]) -> io::Result<Streams> {
        let copy = |wanted: bool| wanted.then(|| self.theirs.try_clone()).transpose();
        Ok(Streams { stdin: copy(terminals[0])?, stdout: copy(terminals[1])?, stderr: copy(terminals[2])? })
    }
}

/// Makes the program's terminal as large as the operator's.
pub(super) fn resize(ours: BorrowedFd<'_>) {
    let size = super::streams().into_iter().find_map(|stream| tcgetwinsize(stream).ok());
    // One of another size is a terminal all the same.
    let _ = size.map(|size| tcsetwinsize(ours, size));
}
