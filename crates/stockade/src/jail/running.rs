//! A running jail.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::jail::exec::{Exec, start};
use crate::jail::exec_process::ExecProcess;
use crate::jail::locked::LockedJail;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::spec::{ExitRecord, ExitStatus, Known};
use crate::state::Receipt;
use crate::sys::jail_root::JailRoot;
use crate::sys::process::{KILL_TIMEOUT, PidFd};
use crate::sys::unheeded::Unheeded;

/// A jail whose VMM was started.
///
/// Dropping the value does not stop the VMM, which can be found by the jail's receipt.
#[derive(Debug)]
pub struct Running {
    jail: LockedJail,
    process: PidFd,
    /// The VMM's parent; `None` if that is this process, or has exited.
    monitor: Option<PidFd>,
    status: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn new(jail: LockedJail, process: PidFd, monitor: Option<PidFd>) -> Self {
        Self { jail, process, monitor, status: None }
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

    /// The last lines of the VMM's log, at most `most`; empty if it was launched without a log.
    pub(crate) fn last_lines(&self, most: usize) -> Vec<String> {
        let text = lossy(self.jail.lock.log_end(LOG_END));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(most)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Sends a signal to the VMM, unless it has exited.
    ///
    /// # Errors
    /// Returns an error if the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() { Ok(()) } else { Ok(self.process.signal(signal)?) }
    }

    /// Waits until the VMM exits.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.wait_until(None)? {
                return Ok(status);
            }
        }
    }

    /// Waits until the VMM exits, at most for `timeout`; `None` if it is still running.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// The file descriptor to wait for in an event loop. It is readable once [`Running::wait_timeout`] has to
    /// be called again.
    ///
    /// Returns `None` once the exit status is known, and [`Running::wait`] returns it at once.
    ///
    /// A jail with a monitor has two such file descriptors, one after the other: the pidfd of the VMM, and
    /// that of the monitor, which then writes the exit status. With the `readable` function of a runtime, for
    /// example tokio's `AsyncFd`, this waits without a thread, and can be cancelled at any await:
    ///
    /// ```text
    /// while let Some(fd) = running.waits_at()? {
    ///     readable(fd).await?;
    /// }
    /// let ended = running.wait()?;
    /// ```
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn waits_at(&mut self) -> Result<Option<BorrowedFd<'_>>> {
        if self.wait_timeout(Duration::ZERO)?.is_some() {
            return Ok(None);
        }
        let monitor = self.monitor.as_ref().filter(|_| self.process.has_exited());
        Ok(Some(monitor.unwrap_or(&self.process).as_fd()))
    }

    pub(crate) fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.status.is_some() || !self.process.wait_for_exit(deadline)? {
            return Ok(self.status);
        }
        let status = match &self.monitor {
            // The monitor has not written the status yet: the deadline came between the two exits.
            Some(monitor) if !monitor.wait_for_exit(deadline)? => return Ok(None),
            Some(monitor) => {
                monitor.reap()?;
                self.jail.lock.exit_record().map(|record| record.status)
            }
            None => self.reap()?,
        };
        // The status is unknown if this process is not the parent, or ignores SIGCHLD.
        self.status = Some(status.unwrap_or(ExitStatus::Unknown));
        Ok(self.status)
    }

    /// Waits for the VMM, which is a child of this process, and writes its exit status for other processes.
    fn reap(&self) -> Result<Option<ExitStatus>> {
        // Other processes see the status of the zombie until it is recorded.
        let status = self.process.exit_status()?;
        if let Some(status) = status {
            let oom_kills = self.jail.receipt.oom_kills().and_then(|kills| kills.fact().copied());
            // The caller gets the status even if it cannot be written, for example on a full disk.
            let _ = self.jail.lock.write_exit_record(ExitRecord { status, oom_kills });
        }
        self.process.reap()?;
        Ok(status)
    }

    /// The number of processes of the jail that the kernel killed because memory ran out, up to the VMM's exit. `None` if
    /// no cgroup of the jail counts them. The VMM need not be one of them.
    pub fn oom_kills(&self) -> Option<Known<u64>> {
        let recorded = self.jail.lock.exit_record().and_then(|record| record.oom_kills);
        recorded.map(Known::Fact).or_else(|| self.jail.receipt.oom_kills())
    }

    /// Detaches the jail from this process.
    ///
    /// When this process exits, the jail is not abandoned. The exit status of its VMM remains until the jail
    /// is removed.
    ///
    /// Use it for a jail with a monitor, because no other process would write the exit status.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written.
    pub fn detach(&mut self) -> Result<()> {
        self.jail.receipt.keeper = None;
        self.jail.lock.write(&self.jail.receipt)
    }

    /// Sends SIGTERM to the VMM, and kills it if it has not exited after `grace`, or at once if the kernel drops the signal
    /// ([`Unheeded::Dropped`]). A frozen jail is thawed first.
    ///
    /// # Errors
    /// Returns [`Error::NotEnded`] if the VMM has not exited five seconds after it was killed, or an error if a signal
    /// cannot be sent or waiting fails.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        let grace = match self.ask_to_exit()? {
            Some(Unheeded::Dropped) => Duration::ZERO,
            Some(Unheeded::Ignored) | None => grace,
        };
        if let Some(status) = self.wait_timeout(grace)? {
            return Ok(status);
        }
        self.kill()?;
        self.wait_timeout(KILL_TIMEOUT)?.ok_or_else(|| self.jail.receipt.not_ended())
    }

    /// Sends SIGTERM to the VMM. A frozen jail is thawed first, so that the VMM can react.
    ///
    /// Returns the reason if the signal has no effect; `None` if it has one, or if that is unknown.
    ///
    /// # Errors
    /// Returns an error if a cgroup cannot be thawed or the signal cannot be sent.
    pub fn ask_to_exit(&self) -> Result<Option<Unheeded>> {
        let thawed = self.jail.receipt.thaw();
        let sent = self.signal(Signal::TERM);
        thawed.and(sent)?;
        Ok(if self.status.is_some() { None } else { self.process.unheeded(Signal::TERM) })
    }

    /// Kills the VMM and the other processes in the jail's cgroups, frozen ones too, without waiting for their exit.
    ///
    /// # Errors
    /// Returns an error if a cgroup cannot be read or a process cannot be killed.
    pub fn kill(&self) -> Result<()> {
        let killed = self.jail.receipt.kill_now();
        self.signal(Signal::KILL).and(killed)
    }

    /// The error of a VMM that was killed and has not exited, with the reason.
    pub fn not_ended(&self) -> Error {
        self.jail.receipt.not_ended()
    }

    /// Ends the patience for processes that were killed and do not exit: a teardown waits for none of them.
    pub fn give_up(&mut self) {
        self.jail.ctx.patience.end();
    }

    /// Runs another program in the jail.
    ///
    /// # Errors
    /// Returns [`Error::Enter`] with the step that failed and the reason, or
    /// [`Error::NotRunning`] if the VMM has exited.
    pub fn exec(&self, exec: Exec) -> Result<ExecProcess> {
        start(&self.jail.receipt, &self.process, exec)
    }

    /// Kills the VMM if it is running, and removes the jail.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written or removed. The report lists the parts of the jail
    /// that could not be removed.
    pub fn teardown(self) -> Result<Report> {
        self.jail.tear_down()
    }

    /// Stops the VMM and removes the jail with these options.
    ///
    /// # Errors
    /// Returns the errors of [`Running::teardown`], and of [`Running::stop`] with a grace period.
    pub fn teardown_with(mut self, options: TeardownOptions) -> Result<Report> {
        match options.grace.map(|grace| self.stop(grace)) {
            // The report names it.
            Some(Err(Error::NotEnded { .. })) => self.give_up(),
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => (),
        }
        self.jail.tear_down_with(options)
    }
}

/// The part of a log that its last lines are looked for in, in bytes.
const LOG_END: u64 = 64 << 10;

fn lossy(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl AsFd for Running {
    /// The VMM's pidfd, which is readable once the VMM has exited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
