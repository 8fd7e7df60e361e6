//! Preparing a jail: plan, receipt, apply.

use std::borrow::Cow;
use std::ffi::OsString;

use crate::entry::EnterStep;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jail::locked::{LockedJail, Owned};
use crate::jail::pool::PoolGuard;
use crate::jail::teardown::{Report, TeardownOptions, begun, tear_down, undo};
use crate::plan::{LaunchMode, plan};
use crate::spec::clock::monotonic_us;
use crate::spec::{HostPath, JailId, JailSpec, Netns, Stripped};
use crate::state::entry::Lock;
use crate::state::{JailState, Receipt, Store};
use crate::steps::Step;

/// A jail that is made and waits for its VMM. Dropping it tears it down, unless it stands by itself (see
/// [`Created::persist`]).
#[derive(Debug)]
pub struct Created {
    jail: Owned,
    taken_over: Option<Report>,
    stripped: Vec<Stripped>,
    /// Of which pool, if of any, until it is launched.
    taken: Option<PoolGuard>,
}

impl Created {
    pub(crate) fn reopened(jail: LockedJail) -> Self {
        Self { jail: Owned::new(jail), taken_over: None, stripped: Vec::new(), taken: None }
    }
}

impl Store {
    /// Makes a jail: works out the plan, writes it down, and carries it out. If a step fails, those before
    /// it are undone. What a dead jail of the same id left is removed first.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Locked`] or [`Error::Exists`] if the id is in use, otherwise what was
    /// refused at which step.
    pub fn create(&self, spec: &JailSpec) -> Result<Created> {
        let spec = &*self.without_abandoned(spec)?;
        let host = Host::read_for(spec)?;
        let plan = plan(spec, &host, LaunchMode::Spawn)?;
        let (lock, taken_over) = self.take_over(&spec.id)?;
        let receipt = Receipt::new(spec.clone(), host.boot_id, plan);
        if let Err(error) = lock.write(&receipt) {
            // Nothing was made; a place without a receipt is nothing to keep.
            let _ = lock.remove(None);
            return Err(error);
        }
        let mut created = Created::reopened(apply(LockedJail::new(lock, receipt))?);
        created.taken_over = taken_over;
        // Dropped on an error, it takes the jail with it.
        created.jail.get_mut().place_all(spec.placements())?;
        created.stripped = created.jail.get().ctx.take_stripped();
        Ok(created)
    }

    /// The specification as it is once a dead jail of the id is removed: a network namespace that this has made
    /// goes with it, and so is one to make, though there is one to join now.
    fn without_abandoned<'s>(&self, spec: &'s JailSpec) -> Result<Cow<'s, JailSpec>> {
        let Netns::Join(path) = &spec.netns else { return Ok(Cow::Borrowed(spec)) };
        let dead = self.read(&spec.id)?.filter(|receipt| receipt.state() == JailState::Abandoned);
        let made = dead.iter().flat_map(|receipt| &receipt.steps).find_map(|step| match step {
            Step::NamedNetns(netns) if netns.name.path() == *path => Some(netns.name.clone()),
            _ => None,
        });
        Ok(match made {
            Some(name) => Cow::Owned(JailSpec { netns: Netns::Make(name), ..spec.clone() }),
            None => Cow::Borrowed(spec),
        })
    }

    /// Locks the id, and clears away what a dead jail of that id left.
    pub(crate) fn take_over(&self, id: &JailId) -> Result<(Lock, Option<Report>)> {
        let mut removed = None;
        loop {
            let lock = self.lock(id)?;
            let Some(receipt) = lock.read()? else { return Ok((lock, removed)) };
            match (receipt.state(), receipt.vmm()) {
                (JailState::Running, Some(vmm)) => {
                    return Err(Error::Running { id: id.clone(), pid: vmm.pid });
                }
                (JailState::Exited, _) => return Err(Error::Exited(id.clone())),
                (JailState::Foreign, _) => return Err(Error::Foreign(id.clone())),
                (JailState::Abandoned, _) => {
                    let ctx = receipt.step_context();
                    let report = tear_down(lock, receipt, &ctx, TeardownOptions::default())?;
                    if let Some(left) = report.left.first() {
                        let what = format!("{} ({})", left.what, left.reason);
                        return Err(Error::InTheWay { what });
                    }
                    // The lock went with the place, and another may have made a jail of this id before it is had
                    // again.
                    removed = Some(report);
                }
                _ => return Err(Error::Exists(id.clone())),
            }
        }
    }
}

/// Carries out all steps, or none.
fn apply(jail: LockedJail) -> Result<LockedJail> {
    if jail.receipt.steps.iter().any(|step| matches!(step, Step::NamedNetns(_))) {
        // It takes the kernel as long as all the rest, which needs nothing of it.
        jail.ctx.begin_network();
    }
    for (index, step) in jail.receipt.steps.iter().enumerate() {
        let Err(error) = step.apply(&jail.ctx) else { continue };
        let mut remaining = Vec::new();
        jail.ctx.close();
        undo(&jail.receipt.id, begun(&jail.receipt.steps, index, &error), &jail.ctx, &mut remaining);
        jail.ctx.remove_parents();
        let LockedJail { lock, mut receipt, .. } = jail;
        // The first error is the one to tell; what is left stays on the receipt for gc.
        receipt.steps = remaining;
        receipt.over = true;
        let _ = if receipt.steps.is_empty() {
            lock.remove(Some(&receipt.tombstone(None)))
        } else {
            lock.write(&receipt)
        };
        return Err(error);
    }
    Ok(jail)
}

impl Created {
    /// What was removed of a dead jail of the same id, if there was one.
    pub fn taken_over(&self) -> Option<&Report> {
        self.taken_over.as_ref()
    }

    /// What was taken away from the files that the jail was made with: the executable, its libraries, and what its
    /// profile places. What is placed later says so itself ([`Placed::stripped`](crate::Placed::stripped)).
    pub fn stripped(&self) -> &[Stripped] {
        &self.stripped
    }

    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.get().receipt
    }

    /// The jail's root on the host.
    pub fn root(&self) -> HostPath {
        self.jail.get().receipt.root()
    }

    /// Leaves the jail standing by itself: it is no longer torn down with this value or this process, and
    /// waits to be opened again (see [`Store::open`]).
    ///
    /// # Errors
    /// What the kernel says of writing the receipt; the jail is torn down then.
    pub fn persist(mut self) -> Result<()> {
        let mut jail = self.take();
        jail.receipt.keeper = None;
        let left = jail.lock.write(&jail.receipt);
        if left.is_err() {
            // The first error is the one to tell.
            let _ = jail.tear_down();
        }
        left
    }

    /// Sets the VMM's own arguments, in the place of those that the specification had.
    pub fn set_arguments(&mut self, arguments: Vec<OsString>) {
        let receipt = &mut self.jail.get_mut().receipt;
        receipt.spec.arguments = arguments;
        renew_arguments(receipt);
    }

    /// Has the start asked for now, for a jail of a pool, which was made before somebody did.
    pub(crate) fn set_pool_guard(&mut self, taken: PoolGuard) {
        self.taken = Some(taken);
        let receipt = &mut self.jail.get_mut().receipt;
        receipt.spec.started_us = monotonic_us();
        renew_arguments(receipt);
    }

    /// Removes the jail.
    ///
    /// # Errors
    /// What the kernel says of removing the receipt; what could not be removed of the jail is in the
    /// report.
    pub fn teardown(mut self) -> Result<Report> {
        self.take().tear_down()
    }

    /// Removes the jail in this way; there is no VMM yet for a grace period.
    ///
    /// # Errors
    /// As for [`Created::teardown`].
    pub fn teardown_with(mut self, options: TeardownOptions) -> Result<Report> {
        self.take().tear_down_with(options)
    }

    /// Takes the jail out; the value is never used again.
    pub(crate) fn take(&mut self) -> LockedJail {
        self.jail.take()
    }

    pub(crate) fn jail_mut(&mut self) -> &mut LockedJail {
        self.jail.get_mut()
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        // A jail that stands by itself is not this value's to remove.
        if let Some(jail) = self.jail.take_unless_consumed().filter(|jail| jail.receipt.keeper.is_some()) {
            // What cannot be removed now stays on the receipt.
            let _ = jail.tear_down();
        }
    }
}

/// Works the VMM's arguments out again, after something that is among them has changed.
pub(crate) fn renew_arguments(receipt: &mut Receipt) {
    for step in &mut receipt.enter {
        if let EnterStep::Execute { arguments, .. } = step {
            *arguments = crate::plan::arguments(&receipt.spec);
        }
    }
}
