//! A jail with its VMM running.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::prepare::{Held, How};
use crate::process::{Ended, PidFd};
use crate::receipt::Receipt;
use crate::spec::JailPath;
use crate::teardown::{Report, TeardownOptions};
use crate::tree::Tree;

/// A jail whose VMM was started. Dropping it leaves the VMM running, to be found by its receipt.
#[derive(Debug)]
pub struct Running {
    jail: Held,
    process: PidFd,
    /// The VMM's parent, if that is not this process.
    monitor: Option<PidFd>,
    ended: Option<Ended>,
}

impl Running {
    pub(crate) fn new(jail: Held, process: PidFd, monitor: Option<PidFd>) -> Self {
        Self { jail, process, monitor, ended: None }
    }

    /// The VMM's pid, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.jail.receipt.vmm().map_or(0, |vmm| vmm.pid)
    }

    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.receipt
    }

    /// Places a file or device into the running jail, as [`Prepared::place`](crate::Prepared::place) does.
    ///
    /// # Errors
    /// As there.
    pub fn place(&mut self, source: &Path, name: Option<&Path>, how: How) -> Result<JailPath> {
        self.jail.place(source, name, how)
    }

    pub(crate) fn tree(&self) -> Result<&Tree> {
        self.jail.site.tree()
    }

    /// The end of what the VMM has written, if it is launched with a log.
    pub(crate) fn last_lines(&self, most: usize) -> Vec<String> {
        let parts = self.jail.lock.logs().into_iter();
        let text: String = parts.map(|part| std::fs::read(&part).unwrap_or_default()).map(lossy).collect();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(most)..].iter().map(|line| (*line).to_owned()).collect()
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
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<Ended>> {
        if self.ended.is_some() || !self.process.wait_until_ended(deadline)? {
            return Ok(self.ended);
        }
        let status = match &self.monitor {
            // Not yet written down: the deadline came between the two ends.
            Some(monitor) if !monitor.wait_until_ended(deadline)? => return Ok(None),
            Some(monitor) => {
                monitor.reap()?;
                self.jail.lock.ended()
            }
            None => self.process.reap()?,
        };
        // Where this process is not the parent, or ignores SIGCHLD, all that is known is that it ended.
        self.ended = Some(status.unwrap_or(Ended::Unknown));
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

    /// Ends the VMM and removes the jail in this way.
    ///
    /// # Errors
    /// As for [`Running::teardown`], and what the kernel says of waiting for the VMM.
    pub fn teardown_with(mut self, options: TeardownOptions) -> Result<Report> {
        if let Some(grace) = options.grace {
            self.stop(grace)?;
        }
        self.jail.tear_down_with(options)
    }
}

fn lossy(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl AsFd for Running {
    /// The VMM's pidfd: readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
