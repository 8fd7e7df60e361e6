//! Opening from a file descriptor, without following links.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The flags with which everything in a jail is opened.
pub(crate) const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The flags with which a new file is opened.
pub(crate) const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens something of any kind but a symbolic link, to inspect it (`O_PATH`).
pub(crate) fn open_path(from: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(from, path, flags, Mode::empty(), INSIDE)
}

/// Opens a file of the host for reading.
///
/// If it was replaced by a named pipe, the open does not wait for a writer. It waits for the end of a lease on a file,
/// as every open does; the kernel ends it after `/proc/sys/fs/lease-break-time`.
pub(crate) fn open_source(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::AGAIN) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

/// Opens a directory, to read it or to open paths from it.
pub(crate) fn open_directory(
    from: BorrowedFd<'_>,
    path: &Path,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(from, path, flags, Mode::empty(), resolve)
}
