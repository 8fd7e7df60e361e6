//! The start of a program without the standard library's runtime.
//!
//! That runtime looks for the guard page of the stack and installs handlers that report its overflow: some
//! twenty system calls, a quarter of the limit for a jail's start. This module has the part that a program of
//! one thread needs.

use std::io::Write;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::program::last_errno;

/// Defines the `main` of a `#![no_main]` program: a call of `$run`, a function without arguments that returns an
/// exit code.
#[macro_export]
macro_rules! start {
    ($run:path) => {
        // SAFETY: the C library starts every program with the function of this name; in a `no_main` program the
        // standard library defines none.
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
            match $crate::start::prepare() {
                Ok(()) => i32::from($run()),
                Err(cause) => $crate::start::report_failure(cause),
            }
        }
    };
}

/// Prints why [`prepare`] failed, and returns the exit code.
pub fn report_failure(cause: Errno) -> i32 {
    // If stderr is closed, the exit code must do.
    let _ = writeln!(std::io::stderr(), "Failed to prepare the standard streams: {cause}");
    1
}

/// Opens closed standard streams and ignores SIGPIPE.
///
/// The kernel then never assigns a stream's number to another file, and a write to a pipe without a reader fails
/// instead of ending the process.
///
/// # Errors
/// Returns the errors of `poll`, of opening `/dev/null`, and of `sigaction`.
pub fn prepare() -> Result<(), Errno> {
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let mut standard = [&stdin, &stdout, &stderr].map(|fd| PollFd::new(fd, PollFlags::empty()));
    rustix::io::retry_on_intr(|| poll(&mut standard, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    let closed = standard.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL)).count();
    for _ in 0..closed {
        // The kernel assigns the lowest free number, which is that of a closed stream.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?;
        std::mem::forget(null);
    }
    // SAFETY: SIG_IGN installs no handler, so the signal runs no code of this process.
    let refused = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR;
    if refused { Err(last_errno()) } else { Ok(()) }
}
