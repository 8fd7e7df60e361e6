//! File descriptors above those of the standard streams, which a program may replace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;

/// The first number that is no standard stream's.
const FIRST: i32 = 3;

/// The same file descriptor if its number is above 2, otherwise a copy above 2 that ends with the exec.
///
/// # Errors
/// EMFILE.
pub fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST { Ok(fd) } else { copy_above_standard(fd) }
}

/// A copy above 2 that ends with the exec, whatever the original's flags are.
///
/// # Errors
/// EMFILE.
pub fn copy_above_standard(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST)
}
