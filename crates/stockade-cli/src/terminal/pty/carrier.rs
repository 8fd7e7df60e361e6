//! The process that shows a VMM's terminal output.
//!
//! The command cannot do this itself, because Ctrl-Z stops it: a terminal buffers only a few KB, and a VMM that writes
//! more would block. The process leads its own session, so that no key of the operator's terminal signals it. It exits
//! when the VMM's side is closed, even if the command was killed before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;
use stockade_syscalls::call::Call;
use stockade_syscalls::descriptors::{copy_above_standard, null};
use stockade_syscalls::poll::{is_ready, wait_for};
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, Released, spawn};

/// Time limit for the terminal of a removed jail. Only a process that escaped from the jail still holds it.
const OPEN_TERMINAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for the operator's terminal to accept the rest of the output.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(4);

/// Time limit for the process to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for the killed process to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A child process that copies a VMM's terminal output.
pub(super) struct Carrier {
    pid: Pid,
    process: OwnedFd,
    from: OwnedFd,
    to: OwnedFd,
}

impl Carrier {
    /// Starts the process.
    ///
    /// # Arguments
    /// `from`: the command's side of the VMM's terminal. `to`: the operator's terminal.
    pub(super) fn new(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<Self> {
        let (from, to) = (from.try_clone_to_owned()?, to.try_clone_to_owned()?);
        let (pid, process) = start(&from, &to)?;
        Ok(Self { pid, process, from, to })
    }

    /// Whether the output is still shown. A killed process is replaced, so that the VMM does not block.
    pub(super) fn is_running(&mut self) -> io::Result<bool> {
        if !self.wait(Duration::ZERO) {
            return Ok(true);
        }
        if self.reap() == Some(0) {
            return Ok(false);
        }
        (self.pid, self.process) = start(&self.from, &self.to)?;
        Ok(true)
    }

    /// The pid of the process.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until all output is shown, at most for this time.
    pub(super) fn wait(&self, time: Duration) -> bool {
        wait_for(&mut [PollFd::new(&self.process, PollFlags::IN)], time).unwrap_or(false)
    }

    /// Takes the exit code of the process, if it has exited and was not killed.
    fn reap(&self) -> Option<i32> {
        let status = WaitId::PidFd(self.process.as_fd());
        rustix::process::waitid(status, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??.exit_status()
    }
}

impl Drop for Carrier {
    /// Waits until all output is shown, within time limits, and then kills the process.
    fn drop(&mut self) {
        let is_closed = || is_ready(&mut [PollFd::new(&self.from, PollFlags::empty())]).unwrap_or(false);
        let is_done = self.wait(OPEN_TERMINAL_TIMEOUT) || (is_closed() && self.wait(SLOW_READER_TIMEOUT));
        if !is_done {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
            self.wait(KILL_TIMEOUT);
        }
        self.reap();
    }
}

impl AsFd for Carrier {
    /// Readable when the process has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// Starts the process, with uid 0 and without capabilities.
///
/// No process can trace it, not even uid 0 in a jail. It inherits this process's blocked signals: it exits with its
/// input, or is killed.
fn start(from: &OwnedFd, to: &OwnedFd) -> io::Result<(Pid, OwnedFd)> {
    let mut program = Program::new(vec![
        Call::WaitForRelease,
        Call::CloseOthers,
        Call::NewSession,
        Call::ChangeToRoot,
        Call::Redirect([Some(null()?), Some(null()?), Some(null()?)]),
        // Before the capabilities are dropped: from then on, other processes of uid 0 could trace it.
        Call::BecomeUndumpable,
        Call::KeepCapabilities(CapabilitySet::empty()),
        Call::Copy { from: copy_above_standard(from)?, to: copy_above_standard(to)? },
        Call::End,
    ]);
    let child = spawn(&mut program, CloneOptions::default())?;
    let pid = child.pid;
    match child.release_and_wait(&mut |waited| waited >= START_TIMEOUT) {
        (process, Ok(Released::Executed)) => Ok((pid, process)),
        (_, Ok(Released::Failed(failure))) => Err(failure.errno.into()),
        (_, Ok(Released::GivenUp)) => Err(Errno::TIMEDOUT.into()),
        (_, Err(cause)) => Err(cause.into()),
    }
}
