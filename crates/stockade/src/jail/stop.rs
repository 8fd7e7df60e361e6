//! Stopping many VMMs at once, with all other processes in their jails.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::jail::open::VmmHandle;
use crate::spec::ExitStatus;
use crate::state::Receipt;
use crate::steps;

/// Sends SIGTERM to VMMs, kills those that have not exited after `grace`, and returns their exit statuses.
///
/// The grace period starts now for all of them. Then the other processes in the jails are killed: children of
/// the VMM and exec processes.
///
/// # Errors
/// Returns an error if a signal cannot be sent or waiting fails.
pub fn stop_all(jails: &[VmmHandle], grace: Duration) -> Result<Vec<ExitStatus>> {
    let deadline = Instant::now().checked_add(grace);
    jails.iter().try_for_each(|jail| jail.signal(Signal::TERM))?;
    for jail in jails {
        if jail.wait_until(deadline)?.is_none() {
            jail.signal(Signal::KILL)?;
        }
    }
    let statuses = jails.iter().map(|jail| Ok(jail.wait_until(None)?.unwrap_or(ExitStatus::Unknown)));
    let statuses = statuses.collect::<Result<_>>()?;
    jails.iter().try_for_each(|jail| jail.receipt().kill_members()).map(|()| statuses)
}

impl Receipt {
    /// Kills the processes in the jail's own cgroups, and waits until they have exited.
    ///
    /// Children of the VMM and exec processes may outlive the VMM.
    ///
    /// # Errors
    /// Returns an error if a cgroup cannot be read or a process cannot be killed.
    pub fn kill_members(&self) -> Result<()> {
        self.cgroups().try_for_each(|cgroup| steps::kill_members(&cgroup, &self.nonce))
    }
}
