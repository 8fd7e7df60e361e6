//! Terminals. The operator's is never given away: a program in a jail could read what is typed there, set it, and
//! type what the operator's shell would read afterwards. A program gets one of its own in its place.

mod carrier;
mod exec;
mod keyboard;
mod pair;
mod relay;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::isatty;

use crate::terminal::output::Failure;
use crate::terminal::poll::is_ready;

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
    is_ready(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)]).unwrap_or(false)
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(format!("failed to make a terminal for the jail: {error}"))
}
