//! Many VMMs asked to end at once, and all that runs in their jails with them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::jail::open::VmmHandle;
use crate::spec::ExitStatus;
use crate::state::Receipt;
use crate::steps;

/// Asks VMMs to end (SIGTERM), and kills those that have not after `grace`, which they share: it begins for all
/// of them now. What else runs in a jail then, children of the VMM and visitors, is killed. Tells how each VMM ended.
///
/// # Errors
/// What the kernel says of signalling or waiting.
pub fn stop_all(jails: &[VmmHandle], grace: Duration) -> Result<Vec<ExitStatus>> {
    let deadline = Instant::now().checked_add(grace);
    jails.iter().try_for_each(|jail| jail.signal(Signal::TERM))?;
    for jail in jails {
        if jail.wait_until(deadline)?.is_none() {
            jail.signal(Signal::KILL)?;
        }
    }
    let ended = jails.iter().map(|jail| Ok(jail.wait_until(None)?.unwrap_or(ExitStatus::Unknown)));
    let ended = ended.collect::<Result<_>>()?;
    jails.iter().try_for_each(|jail| jail.receipt().kill_members()).map(|()| ended)
}

impl Receipt {
    /// Kills what is in the jail's own cgroups, and waits for its end: with the VMM's end not all of its children have
    /// ended, nor have visitors.
    ///
    /// # Errors
    /// What the kernel says of reading the cgroups, or of killing.
    pub fn kill_members(&self) -> Result<()> {
        self.cgroups().try_for_each(|cgroup| steps::kill_members(&cgroup, self.nonce.as_str()))
    }
}
