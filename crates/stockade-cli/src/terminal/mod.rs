//! Terminals. The operator's is never given away: a program in a jail could read what is typed there, set it, and
//! type what the operator's shell would read afterwards. A program gets one of its own in its place.

mod keyboard;
mod pty;
mod visit;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::termios::isatty;

use crate::output::Failure;

pub(crate) use keyboard::Kept;
pub(crate) use visit::attend;

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Which of our streams are a terminal.
fn terminals() -> [bool; 3] {
    streams().map(isatty)
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(format!("failed to make a terminal for the jail: {error}"))
}
