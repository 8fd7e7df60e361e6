//! A program that runs in a jail beside its VMM.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::spec::ExitStatus;
use crate::sys::process::PidFd;

/// A program in a jail beside its VMM, a child of this process. Dropping it leaves it there, until the jail goes.
#[derive(Debug)]
pub struct ExecProcess {
    process: PidFd,
    ended: Cell<Option<ExitStatus>>,
}

impl ExecProcess {
    pub(crate) fn new(process: PidFd) -> Self {
        Self { process, ended: Cell::new(None) }
    }

    /// Its pid, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Sends it a signal; one that has ended needs none.
    ///
    /// # Errors
    /// What the kernel says of sending it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.get().is_some() { Ok(()) } else { Ok(self.process.signal(signal)?) }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait(&self) -> Result<ExitStatus> {
        Ok(self.wait_until(None)?.unwrap_or(ExitStatus::Unknown))
    }

    /// Waits for its end, at most for `timeout`; `None` if it still runs.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.ended.get().is_none() && self.process.wait_for_exit(deadline)? {
            self.ended.set(Some(self.process.reap()?.unwrap_or(ExitStatus::Unknown)));
        }
        Ok(self.ended.get())
    }
}

impl AsFd for ExecProcess {
    /// Its pidfd: readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
