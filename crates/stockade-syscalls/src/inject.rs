//! Injecting input into a terminal, as a hostile program does with its caller's terminal.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Injects a byte into the terminal's input, as if it had been typed (`TIOCSTI`).
///
/// # Errors
/// Returns EPERM or EIO if the kernel forbids the injection, ENOTTY if `fd` is no terminal.
pub fn type_at(fd: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    // SAFETY: TIOCSTI reads one byte, which outlives the call.
    let refused = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
