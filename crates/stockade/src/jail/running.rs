//! A jail with its VMM running.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::jail::exec::{Exec, start};
use crate::jail::exec_process::ExecProcess;
use crate::jail::locked::LockedJail;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::spec::ExitStatus;
use crate::state::Receipt;
use crate::sys::jail_root::JailRoot;
use crate::sys::process::PidFd;

/// A jail whose VMM was started. Dropping it leaves the VMM running, to be found by its receipt.
#[derive(Debug)]
pub struct Running {
    jail: LockedJail,
    process: PidFd,
    /// The VMM's parent, if that is not this process.
    monitor: Option<PidFd>,
    ended: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn new(jail: LockedJail, process: PidFd, monitor: Option<PidFd>) -> Self {
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

    pub(crate) fn jail_and_vmm(&mut self) -> (&mut LockedJail, &PidFd) {
        (&mut self.jail, &self.process)
    }

    pub(crate) fn tree(&self) -> Result<&JailRoot> {
        self.jail.ctx.tree()
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
        if self.ended.is_some() { Ok(()) } else { Ok(self.process.signal(signal)?) }
    }

    /// Waits for the VMM's end.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait(&mut self) -> Result<ExitStatus> {
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
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Where to wait for the VMM's end in an event loop: readable once [`Running::wait_timeout`] may have news.
    /// `None` once the end is known, and [`Running::wait`] returns it at once.
    ///
    /// A jail with a monitor has two such descriptors, one after the other: the VMM's pidfd, and then that of the
    /// monitor, which has the end to write down. With the `readable` of whatever runtime (tokio's `AsyncFd`, for
    /// instance) this waits for the end, can be cancelled at any await, and needs no thread:
    ///
    /// ```text
    /// while let Some(fd) = running.waits_at()? {
    ///     readable(fd).await?;
    /// }
    /// let ended = running.wait()?;
    /// ```
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn waits_at(&mut self) -> Result<Option<BorrowedFd<'_>>> {
        if self.wait_timeout(Duration::ZERO)?.is_some() {
            return Ok(None);
        }
        let monitor = self.monitor.as_ref().filter(|_| self.process.has_exited());
        Ok(Some(monitor.unwrap_or(&self.process).as_fd()))
    }

    pub(crate) fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.ended.is_some() || !self.process.wait_for_exit(deadline)? {
            return Ok(self.ended);
        }
        let status = match &self.monitor {
            // Not yet written down: the deadline came between the two ends.
            Some(monitor) if !monitor.wait_for_exit(deadline)? => return Ok(None),
            Some(monitor) => {
                monitor.reap()?;
                self.jail.lock.exit_status()
            }
            None => self.reap()?,
        };
        // Where this process is not the parent, or ignores SIGCHLD, all that is known is that it ended.
        self.ended = Some(status.unwrap_or(ExitStatus::Unknown));
        Ok(self.ended)
    }

    /// Takes the end of the VMM, this process's child, and writes it down for others.
    fn reap(&self) -> Result<Option<ExitStatus>> {
        let ended = self.process.reap()?;
        if let Some(ended) = ended {
            // This caller knows it in any case; a full disk must not keep it from that.
            let _ = self.jail.lock.write_exit_status(ended);
        }
        Ok(ended)
    }

    /// Leaves the jail standing by itself: how its VMM ended can be asked for until the jail is removed, whatever
    /// becomes of this process. For a jail with a monitor, as nobody else would write that down.
    ///
    /// # Errors
    /// What the kernel says of writing the receipt.
    pub fn detach(&mut self) -> Result<()> {
        self.jail.receipt.keeper = None;
        self.jail.lock.write(&self.jail.receipt)
    }

    /// Asks the VMM to end (SIGTERM), and kills it if it has not after `grace`.
    ///
    /// # Errors
    /// What the kernel says of signalling or waiting.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if self.wait_timeout(grace)?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait()
    }

    /// Runs a further program in the jail.
    ///
    /// # Errors
    /// [`Error::Enter`](crate::Error::Enter) with the step at which it failed and why.
    pub fn exec(&self, exec: Exec) -> Result<ExecProcess> {
        start(&self.jail.receipt, &self.process, exec)
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
