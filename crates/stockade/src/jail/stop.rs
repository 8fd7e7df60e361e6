//! Stopping many VMMs at once, with all other processes in their jails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::entry::EnterStep;
use crate::error::{Error, Result};
use crate::jail::open::VmmHandle;
use crate::spec::{ExitStatus, HostPath};
use crate::state::Receipt;
use crate::steps::{Vmm, unseen, with_own};
use crate::sys::cgroup::{self, Frozen};
use crate::sys::process::KILL_TIMEOUT;
use crate::sys::rooted::kill_rooted_at;
use crate::sys::stuck::why_alive;
use crate::sys::unheeded::Unheeded;

/// Sends SIGTERM to VMMs, kills those that have not exited after `grace`, and returns their exit statuses in the order of
/// the jails.
///
/// Frozen jails are thawed first. The grace period starts now for all of them. Then the other processes in the jails are
/// killed: children of the VMM and exec processes. Killed processes have five seconds to exit. A VMM for which the kernel
/// drops SIGTERM ([`Unheeded::Dropped`]) is killed at once.
///
/// # Errors
/// A status is [`Error::NotEnded`] if a process of that jail does not exit. It is another error if a signal cannot be
/// sent or waiting fails.
pub fn stop_all(jails: &[VmmHandle], grace: Duration) -> Vec<Result<ExitStatus>> {
    stop_all_with_notes(jails, grace, &mut |_, _| ())
}

/// The same, and calls `on_unheeded` at once for each VMM on which SIGTERM has no effect.
///
/// # Errors
/// As for [`stop_all`].
pub fn stop_all_with_notes(
    jails: &[VmmHandle],
    grace: Duration,
    on_unheeded: &mut dyn FnMut(&Receipt, Unheeded),
) -> Vec<Result<ExitStatus>> {
    let mut ask = |jail: &VmmHandle| {
        let unheeded = jail.ask_to_exit()?;
        if let Some(unheeded) = unheeded {
            on_unheeded(jail.receipt(), unheeded);
        }
        if unheeded == Some(Unheeded::Dropped) {
            jail.kill();
        }
        Ok(())
    };
    let asked: Vec<Result<()>> = jails.iter().map(&mut ask).collect();
    let deadline = Instant::now().checked_add(grace);
    let in_time = |jail: &VmmHandle| matches!(jail.wait_until(deadline), Ok(Some(_)));
    let late: Vec<&VmmHandle> = jails.iter().filter(|jail| !in_time(jail)).collect();
    // All of them first, so that their exits overlap. An error shows again when the jail is waited for.
    late.into_iter().for_each(VmmHandle::kill);
    let deadline = Instant::now() + KILL_TIMEOUT;
    jails.iter().zip(asked).map(|(jail, asked)| asked.and_then(|()| jail.finish(deadline))).collect()
}

impl VmmHandle {
    fn ask_to_exit(&self) -> Result<Option<Unheeded>> {
        let thawed = self.receipt().thaw();
        let sent = self.signal(Signal::TERM);
        thawed.and(sent)?;
        Ok(self.unheeded(Signal::TERM))
    }

    /// Kills the VMM and the processes in its jail's cgroups. An error shows again when the jail is waited for.
    fn kill(&self) {
        let _ = self.receipt().kill_now();
        let _ = self.signal(Signal::KILL);
    }

    /// Waits for a killed VMM and for the other processes in its jail.
    fn finish(&self, deadline: Instant) -> Result<ExitStatus> {
        let status = self.wait_until(Some(deadline))?;
        self.receipt().kill_members_until(deadline)?;
        status.ok_or_else(|| self.receipt().not_ended())
    }
}

impl Receipt {
    /// Fails if a cgroup that the jail's processes enter is frozen. In cgroup v1 a process that joins it could not even be
    /// killed.
    pub(crate) fn expect_thawed(&self) -> Result<()> {
        let entered: BTreeSet<HostPath> = self.cgroups().chain(self.joined_cgroups()).collect();
        entered.iter().try_for_each(|cgroup| match cgroup::frozen_by(cgroup)? {
            Some(Frozen { file, thaw }) => Err(Error::Frozen { file, thaw }),
            None => Ok(()),
        })
    }

    /// The cgroups that the VMM joins or is cloned into, also those that the jail does not own.
    fn joined_cgroups(&self) -> impl Iterator<Item = HostPath> {
        self.enter.iter().filter_map(|step| match step {
            EnterStep::JoinCgroup { file } => Some(file.as_path().parent()?.to_owned().into()),
            EnterStep::Clone { cgroup, .. } => cgroup.clone(),
            _ => None,
        })
    }

    /// Thaws the jail's own cgroups, so that its processes react to signals.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.cgroups().try_for_each(|cgroup| with_own(&cgroup, &self.nonce, cgroup::thaw).map(drop))
    }

    /// Kills the processes in the jail's own cgroups, frozen ones too, without waiting for their exit.
    pub(crate) fn kill_now(&self) -> Result<()> {
        self.cgroups().try_for_each(|cgroup| with_own(&cgroup, &self.nonce, cgroup::kill).map(drop))
    }

    /// Kills the processes in the jail's own cgroups, or without any in its tree, and waits at most five seconds until they have exited.
    ///
    /// Children of the VMM and exec processes may outlive the VMM.
    ///
    /// # Errors
    /// Returns [`Error::NotEnded`] if a process does not exit, [`Error::Unseen`] if one cannot be inspected, or an error if a cgroup cannot be read or a process cannot
    /// be killed.
    pub fn kill_members(&self) -> Result<()> {
        self.kill_members_until(Instant::now() + KILL_TIMEOUT)
    }

    fn kill_members_until(&self, deadline: Instant) -> Result<()> {
        self.cgroups().try_for_each(|cgroup| {
            let survivor = with_own(&cgroup, &self.nonce, |own| cgroup::kill_members(own, deadline))?;
            survivor.flatten().map_or(Ok(()), |pid| Err(self.process_not_ended(pid)))
        })?;
        match self.vmm_step() {
            Some(vmm) if vmm.search => self.kill_in_tree(vmm, deadline),
            Some(_) | None => Ok(()),
        }
    }

    /// Kills the processes in the jail's tree: no cgroup and no pid namespace contains them.
    fn kill_in_tree(&self, vmm: &Vmm, deadline: Instant) -> Result<()> {
        let ctx = self.step_context();
        let Some(tree) = ctx.own_tree()? else { return Ok(()) };
        let killed = kill_rooted_at(tree.root(), deadline)?;
        if let Some(survivor) = killed.survivor {
            return Err(self.process_not_ended(survivor));
        }
        match killed.unseen.into_iter().find(|pid| vmm.may_have_started(*pid, ctx.uid)) {
            Some(pid) => Err(Error::Unseen { id: self.id.clone(), reason: unseen(pid) }),
            None => Ok(()),
        }
    }

    /// The error of a VMM that was killed and does not exit.
    pub(crate) fn not_ended(&self) -> Error {
        self.process_not_ended(self.vmm().map_or(0, |vmm| vmm.pid))
    }

    fn process_not_ended(&self, pid: i32) -> Error {
        Error::NotEnded { id: self.id.clone(), pid, reason: why_alive(pid) }
    }
}
