//! Typing at a terminal that is somebody else's, as a program tries that was given one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the terminal behind `fd` take a byte as if it had been typed (`TIOCSTI`).
///
/// # Errors
/// What the kernel answers: `EPERM` or `EIO` where it does not let this process do so, `ENOTTY` if this is no
/// terminal.
pub fn type_at(fd: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    // SAFETY: TIOCSTI reads one byte, from a pointer to one that outlives the call.
    let refused = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
