//! Terminals. The operator's is never given away: a program in a jail could read what is typed there, set it, and
//! type what the operator's shell would read afterwards. A program gets one of its own in its place.

mod carrier;
mod exec;
mod keyboard;
mod pair;
mod relay;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::isatty;

use crate::terminal::output::Failure;

pub(crate) use exec::run_exec;
pub(crate) use relay::Relay;

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Which of our streams are a terminal.
fn terminals() -> [bool; 3] {
    streams().map(isatty)
}

/// Whether something can be read now, or an end be seen.
fn is_readable(from: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(format!("failed to make a terminal for the jail: {error}"))
}
