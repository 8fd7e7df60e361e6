//! The beginning of a program that does without the standard library's runtime.
//!
//! That runtime looks for the guard page of the stack and installs handlers that tell of its overflow: some
//! twenty system calls, a quarter of all that a jail's start may make. What a program of one thread needs of
//! it is here.

use std::io::Write;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::program::last_errno;

/// Makes `$run`, a function without arguments that returns an exit code, the `main` of a program that is
/// marked `#![no_main]`.
#[macro_export]
macro_rules! start {
    ($run:path) => {
        // SAFETY: the name is that of the one function which the C library starts every program with; the
        // standard library defines none where the program is marked `no_main`.
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
            match $crate::start::settle() {
                Ok(()) => i32::from($run()),
                Err(cause) => $crate::start::unsettled(cause),
            }
        }
    };
}

/// Tells why a program does not begin, and returns its exit code.
pub fn unsettled(cause: Errno) -> i32 {
    // If stderr is among what is not open there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "Failed to prepare the standard streams: {cause}");
    1
}

/// Does what the rest of a program relies on: each of the three standard descriptors is open, so that none
/// of their numbers is ever given to another file, and writing to a pipe that nobody reads is an error
/// instead of the end.
///
/// # Errors
/// What the kernel says of `poll`, of opening `/dev/null`, or of `sigaction`.
pub fn settle() -> Result<(), Errno> {
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let mut standard = [&stdin, &stdout, &stderr].map(|fd| PollFd::new(fd, PollFlags::empty()));
    rustix::io::retry_on_intr(|| poll(&mut standard, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    let closed = standard.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL)).count();
    for _ in 0..closed {
        // The lowest free number is taken, so it lands where one is missing, and stays there.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?;
        std::mem::forget(null);
    }
    // SAFETY: SIG_IGN installs no handler, so no code of ours can be run by it.
    let refused = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR;
    if refused { Err(last_errno()) } else { Ok(()) }
}
