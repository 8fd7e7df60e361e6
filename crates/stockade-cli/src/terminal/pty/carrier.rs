//! The process that shows what a VMM writes to its terminal.
//!
//! It is not the command itself, which Ctrl-Z stops: a terminal holds a few KB, and a VMM that writes more would wait.
//! It leads a session of its own, so that no key of the operator's terminal reaches it, and ends when the VMM's
//! side is closed, whatever has become of the command by then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;
use stockade_syscalls::call::Call;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::terminal::poll::wait_for;

/// How long a terminal that somebody still holds when the jail is gone is shown. Only a process that has got out of
/// the jail does.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the operator's terminal has to take the rest of what was written.
const PATIENCE_WITH_THE_READER: Duration = Duration::from_secs(4);

/// That process, a child of this one.
pub(super) struct Carrier {
    process: OwnedFd,
    from: OwnedFd,
    to: OwnedFd,
}

impl Carrier {
    /// Starts it: what comes from the VMM's terminal, of which `from` is our side, is shown on `to`.
    pub(super) fn new(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<Self> {
        let (from, to) = (from.try_clone_to_owned()?, to.try_clone_to_owned()?);
        Ok(Self { process: start(&from, &to)?, from, to })
    }

    /// Whether it still runs, perhaps as another process: one that was killed has left the VMM alone.
    pub(super) fn is_running(&mut self) -> io::Result<bool> {
        if !is_ready(&self.process, PollFlags::IN, Duration::ZERO) {
            return Ok(true);
        }
        if self.reap() == Some(0) {
            return Ok(false);
        }
        self.process = start(&self.from, &self.to)?;
        Ok(true)
    }

    /// Waits until all is shown, at most for this time.
    pub(super) fn wait(&self, time: Duration) -> bool {
        is_ready(&self.process, PollFlags::IN, time)
    }

    /// Its exit code, when it has ended.
    fn reap(&self) -> Option<i32> {
        let status = WaitId::PidFd(self.process.as_fd());
        rustix::process::waitid(status, WaitIdOptions::EXITED).ok()??.exit_status()
    }
}

impl Drop for Carrier {
    /// Waits until all is shown, and ends it in any case.
    fn drop(&mut self) {
        let is_closed = || is_ready(&self.from, PollFlags::empty(), Duration::ZERO);
        let is_done = self.wait(PATIENCE) || (is_closed() && self.wait(PATIENCE_WITH_THE_READER));
        if !is_done {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
        self.reap();
    }
}

impl AsFd for Carrier {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// It keeps uid 0 and no capability. No process can trace it, not even one of uid 0 in a jail. Its signals are those that this process has
/// blocked: it ends with what it reads from, or is killed.
fn start(from: &OwnedFd, to: &OwnedFd) -> io::Result<OwnedFd> {
    let clear = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let null = || clear(&rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
    let mut program = Program::new(vec![
        Call::WaitForRelease,
        Call::CloseOthers,
        Call::NewSession,
        Call::ChangeToRoot,
        Call::Redirect([Some(null()?), Some(null()?), Some(null()?)]),
        // First, for without capabilities it is another process of root's to trace.
        Call::BecomeUndumpable,
        Call::KeepCapabilities(CapabilitySet::empty()),
        Call::Copy { from: clear(from)?, to: clear(to)? },
        Call::End,
    ]);
    let (process, outcome) = spawn(&mut program, CloneOptions::default())?.release_and_wait();
    match outcome {
        Ok(None) => Ok(process),
        Ok(Some(failure)) => Err(failure.errno.into()),
        Err(cause) => Err(cause.into()),
    }
}

/// Waits until there is this to a descriptor, an end or an error, at most for this time.
fn is_ready(fd: &impl AsFd, what: PollFlags, time: Duration) -> bool {
    wait_for(&mut [PollFd::new(fd, what)], time).unwrap_or(false)
}
