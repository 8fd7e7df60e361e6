//! A jail with its VMM running.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::prepare::Jail;
use crate::process::{Ended, PidFd};
use crate::receipt::Receipt;
use crate::teardown::Report;

/// A jail whose VMM was started. Dropping it leaves the VMM running, to be found by its receipt.
#[derive(Debug)]
pub struct Running {
    jail: Jail,
    process: PidFd,
    ended: Option<Ended>,
}

impl Running {
    pub(crate) fn new(jail: Jail, process: PidFd) -> Self {
        Self { jail, process, ended: None }
    }

    /// The VMM's pid, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.jail.receipt.vmm().map_or(0, |vmm| vmm.pid)
    }

    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.receipt
    }

    /// Sends a signal to the VMM; one that has ended needs none.
    ///
    /// # Errors
    /// What the kernel says of sending it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() { Ok(()) } else { self.process.signal(signal) }
    }

    /// Waits for the VMM's end.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait(&mut self) -> Result<Ended> {
        loop {
            if let Some(ended) = self.wait_until(None)? {
                return Ok(ended);
            }
        }
    }

    /// Waits for the VMM's end, at most for `timeout`; `None` if it still runs.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<Ended>> {
        self.wait_until(Some(Instant::now() + timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<Ended>> {
        if self.ended.is_none() && self.process.wait_until_ended(deadline)? {
            // Where the host process ignores SIGCHLD the kernel keeps no status; all that is known then is
            // that it ended.
            self.ended = Some(self.process.reap()?.unwrap_or(Ended::Unknown));
        }
        Ok(self.ended)
    }

    /// Asks the VMM to end (SIGTERM), and kills it if it has not after `grace`.
    ///
    /// # Errors
    /// What the kernel says of signalling or waiting.
    pub fn stop(&mut self, grace: Duration) -> Result<Ended> {
        self.signal(Signal::TERM)?;
        if self.wait_timeout(grace)?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait()
    }

    /// Kills the VMM if it runs, and removes the jail.
    ///
    /// # Errors
    /// What the kernel says of removing the receipt; what could not be removed of the jail is in the
    /// report.
    pub fn teardown(self) -> Result<Report> {
        self.jail.tear_down()
    }
}

impl AsFd for Running {
    /// The VMM's pidfd: readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
