//! A program that runs in a jail beside its VMM.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::spec::{ExitStatus, JailId};
use crate::sys::process::{KILL_TIMEOUT, PidFd};
use crate::sys::stuck::why_alive;

/// An exec process, which is a child of this process.
///
/// It keeps running when the value is dropped, until it exits or the jail is removed.
#[derive(Debug)]
pub struct ExecProcess {
    jail: JailId,
    process: PidFd,
    status: Cell<Option<ExitStatus>>,
}

impl ExecProcess {
    pub(crate) fn new(jail: JailId, process: PidFd) -> Self {
        Self { jail, process, status: Cell::new(None) }
    }

    /// The pid, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Sends a signal, unless the process has exited.
    ///
    /// # Errors
    /// Returns an error if the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.get().is_some() { Ok(()) } else { Ok(self.process.signal(signal)?) }
    }

    /// Waits until the process exits.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn wait(&self) -> Result<ExitStatus> {
        Ok(self.wait_until(None)?.unwrap_or(ExitStatus::Unknown))
    }

    /// Waits until the process exits, at most for `timeout`; `None` if it is still running.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Kills the process, and waits at most five seconds until it exits.
    ///
    /// # Errors
    /// Returns [`Error::NotEnded`] with the reason if it does not exit, or an error if the signal cannot be sent.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let (jail, pid) = (&self.jail, self.pid());
        let not_ended = || Error::NotEnded { id: jail.clone(), pid, reason: why_alive(pid) };
        self.wait_timeout(KILL_TIMEOUT)?.ok_or_else(not_ended)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.status.get().is_none() && self.process.wait_for_exit(deadline)? {
            self.status.set(Some(self.process.reap()?.unwrap_or(ExitStatus::Unknown)));
        }
        Ok(self.status.get())
    }
}

impl AsFd for ExecProcess {
    /// The pidfd, which is readable once the process has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
