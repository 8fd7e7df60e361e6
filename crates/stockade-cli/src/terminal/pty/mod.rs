//! Pseudoterminals for programs in jails.
//!
//! A program in a jail never gets the operator's terminal: it could read the operator's keys, change the terminal's
//! modes, and insert input (`TIOCSTI`) that the operator's shell reads afterwards. It gets a pseudoterminal instead.

mod carrier;
mod exec;
mod keyboard;
mod pair;
mod relay;
mod stop_key;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::isatty;
use stockade_syscalls::poll::is_ready;

use crate::terminal::output::Failure;
use stockade::spec::reason;

pub(crate) use exec::run_exec;
pub(crate) use relay::Relay;

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Which of the command's streams are terminals.
fn terminals() -> [bool; 3] {
    streams().map(isatty)
}

/// Whether a read would not block, because of data or end of file.
fn is_readable(from: BorrowedFd<'_>) -> bool {
    is_ready(&mut [PollFd::from_borrowed_fd(from, PollFlags::IN)]).unwrap_or(false)
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(format!("cannot create a terminal for the jail: {}", reason(&error)))
}
