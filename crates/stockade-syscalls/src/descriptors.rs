//! File descriptors above the standard streams, which a program may replace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::program::last_errno;

/// The first number above the standard streams.
pub const FIRST: RawFd = 3;

/// A path of an open file or directory, for system calls that take no file descriptor.
pub fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns the file descriptor itself if its number is above 2, otherwise a close-on-exec duplicate above 2.
///
/// # Errors
/// Returns EMFILE.
pub fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() >= FIRST { Ok(fd) } else { copy_above_standard(fd) }
}

/// Duplicates a file descriptor to a number above 2, always close-on-exec.
///
/// # Errors
/// Returns EMFILE.
pub fn copy_above_standard(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST)
}

/// Opens `/dev/null` for reading and writing, at a number above 2 and close-on-exec.
///
/// # Errors
/// Returns the errors of `open`.
pub fn null() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).and_then(above_standard)
}

/// The hard limit of this process's open file descriptors; `None` if there is none.
///
/// # Errors
/// Returns the errors of `getrlimit`; the kernel reports none, but a seccomp filter may.
pub fn hard_limit() -> Result<Option<u64>, Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for writing an rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(last_errno());
    }
    Ok((limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max))
}
