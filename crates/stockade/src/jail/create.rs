//! Creating a jail: plan, receipt, steps.

use std::borrow::Cow;
use std::ffi::OsString;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::entry::EnterStep;
use crate::error::{Context, Error, Operation, Result};
use crate::host::Host;
use crate::jail::locked::{LockedJail, Owned};
use crate::jail::pool::PoolGuard;
use crate::jail::teardown::{Report, TeardownOptions, begun, tear_down, undo};
use crate::plan::{LaunchMode, plan};
use crate::spec::clock::monotonic_us;
use crate::spec::{HostPath, JailId, JailSpec, Netns, SpecError, Stripped};
use crate::state::entry::Lock;
use crate::state::{JailState, Receipt, Store};
use crate::steps::{NamedNetns, Note, SharedNetns, Step};
use crate::sys::netns_users::users_of;

/// A jail whose VMM was not started yet.
///
/// Dropping the value tears the jail down, unless it is persistent (see [`Created::persist`]).
#[derive(Debug)]
pub struct Created {
    jail: Owned,
    taken_over: Option<Report>,
    stripped: Vec<Stripped>,
    notes: Vec<Note>,
    /// The guard of the pool that the jail was taken from, until it is launched.
    pool_guard: Option<PoolGuard>,
}

impl Created {
    pub(crate) fn new(jail: LockedJail) -> Self {
        let (stripped, notes) = (Vec::new(), jail.ctx.take_notes());
        Self { jail: Owned::new(jail), taken_over: None, stripped, notes, pool_guard: None }
    }
}

impl Store {
    /// Creates a jail: plans it, writes its receipt, and applies its steps. If a step fails, the steps before
    /// it are undone. An abandoned jail with the same id is removed first.
    ///
    /// # Errors
    /// Returns [`Error::Running`], [`Error::Locked`], [`Error::Exited`], [`Error::Foreign`] or
    /// [`Error::Exists`] if the id is in use, otherwise the error of the failed step.
    pub fn create(&self, spec: &JailSpec) -> Result<Created> {
        let spec = &*self.without_abandoned(spec)?;
        let host = Host::read_for(spec)?;
        let plan = plan(spec, &host, LaunchMode::Spawn)?;
        let receipt = Receipt::new(spec.clone(), host.boot_id, plan)?;
        let (lock, taken_over) = self.take_over(&spec.id)?;
        if let Err(error) = expect_namespace(&spec.netns) {
            let _ = lock.remove(None);
            return Err(error);
        }
        if let Err(error) = lock.write(&receipt) {
            // Nothing was created, and an entry without a receipt is of no use.
            let _ = lock.remove(None);
            return Err(error);
        }
        let mut created = Created::new(apply(LockedJail::new(lock, receipt))?);
        created.taken_over = taken_over;
        // After an error the value is dropped, which removes the jail.
        created.jail.get_mut().place_all(spec.placements())?;
        created.stripped = created.jail.get().ctx.take_stripped();
        Ok(created)
    }

    /// The specification that holds after an abandoned jail with this id is removed.
    ///
    /// If that jail created the network namespace to be joined, the namespace is removed with it. Then the
    /// new jail has to create it.
    fn without_abandoned<'s>(&self, spec: &'s JailSpec) -> Result<Cow<'s, JailSpec>> {
        let Netns::Join(path) = &spec.netns else { return Ok(Cow::Borrowed(spec)) };
        let abandoned = self.read(&spec.id)?.filter(|receipt| receipt.state() == JailState::Abandoned);
        let created = abandoned.iter().flat_map(|receipt| &receipt.steps).find_map(|step| match step {
            Step::NamedNetns(NamedNetns { name }) | Step::SharedNetns(SharedNetns { name })
                if name.path() == *path =>
            {
                Some(name.clone())
            }
            _ => None,
        });
        // With other jails that use it, it stays.
        let created = created.filter(|name| users_of(name).len() <= 1);
        Ok(match created {
            Some(name) => Cow::Owned(JailSpec { netns: Netns::Make(name), ..spec.clone() }),
            None => Cow::Borrowed(spec),
        })
    }

    /// Locks the id, and removes an abandoned jail that has it.
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
                    // The lock was removed with the entry, and before it is taken again, another process may have
                    // created a jail with this id.
                    removed = Some(report);
                }
                (JailState::Created | JailState::Running | JailState::Corrupt, _) => {
                    return Err(Error::Exists(id.clone()));
                }
            }
        }
    }
}

/// The filesystem of namespaces (`NSFS_MAGIC` of `linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Refuses something else under the path of the namespace to join, for example one that was left without its mount.
fn expect_namespace(netns: &Netns) -> Result<()> {
    let Netns::Join(path) = netns else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(path.as_path(), flags, Mode::empty()) {
        // A socket.
        Err(Errno::NXIO) => None,
        opened => Some(opened.context(Operation::Open, path)?),
    };
    let facts = opened.map(rustix::fs::fstatfs).transpose().context(Operation::Inspect, path)?;
    match facts {
        Some(facts) if u64::try_from(facts.f_type) == Ok(NSFS_MAGIC) => Ok(()),
        Some(_) | None => Err(SpecError::NotANetns(path.clone()).into()),
    }
}

/// Applies all steps, or none.
fn apply(jail: LockedJail) -> Result<LockedJail> {
    if jail.receipt.steps.iter().any(|step| matches!(step, Step::NamedNetns(_))) {
        // This takes the kernel as long as all other steps together, and they do not depend on it.
        jail.ctx.begin_network();
    }
    for (index, step) in jail.receipt.steps.iter().enumerate() {
        let Err(error) = step.apply(&jail.ctx) else { continue };
        let mut remaining = Vec::new();
        jail.ctx.close();
        undo(&jail.receipt.id, begun(&jail.receipt.steps, index, &error), &jail.ctx, &mut remaining);
        jail.ctx.remove_parents();
        let LockedJail { lock, mut receipt, .. } = jail;
        // The first error is returned. Steps that could not be undone stay on the receipt for `gc`.
        receipt.steps = remaining;
        receipt.over = true;
        let _ = if receipt.steps.is_empty() {
            lock.remove(Some(&receipt.tombstone(None, None)))
        } else {
            lock.write(&receipt)
        };
        return Err(error);
    }
    Ok(jail)
}

impl Created {
    /// The report on the abandoned jail with the same id that was removed first, if there was one.
    pub fn taken_over(&self) -> Option<&Report> {
        self.taken_over.as_ref()
    }

    /// The privileges that the files placed at creation have lost: the executable, its shared libraries, and
    /// the files of its profile. For later placements see [`Placed::stripped`](crate::Placed::stripped).
    pub fn stripped(&self) -> &[Stripped] {
        &self.stripped
    }

    /// What a person should know about the creation: a cgroup that was replaced, a device that the jail lacks.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.get().receipt
    }

    /// The jail's root on the host.
    pub fn root(&self) -> HostPath {
        self.jail.get().receipt.root()
    }

    /// Makes the jail persistent: it remains when this value is dropped or this process exits, until it is
    /// opened again (see [`Store::open`]).
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written. The jail is torn down then.
    pub fn persist(mut self) -> Result<()> {
        let mut jail = self.take();
        jail.receipt.keeper = None;
        let written = jail.lock.write(&jail.receipt);
        if written.is_err() {
            // The first error is returned.
            let _ = jail.tear_down();
        }
        written
    }

    /// Replaces the VMM's own arguments.
    pub fn set_arguments(&mut self, arguments: Vec<OsString>) {
        let receipt = &mut self.jail.get_mut().receipt;
        receipt.spec.arguments = arguments;
        renew_arguments(receipt);
    }

    /// Marks a jail as taken from a pool. The start time of its VMM, which is among the arguments, is now,
    /// and not when the pool created the jail.
    pub(crate) fn set_pool_guard(&mut self, guard: PoolGuard) {
        self.pool_guard = Some(guard);
        let receipt = &mut self.jail.get_mut().receipt;
        receipt.spec.started_us = monotonic_us();
        renew_arguments(receipt);
    }

    /// Removes the jail.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written or removed. The report lists the parts of the jail
    /// that could not be removed.
    pub fn teardown(mut self) -> Result<Report> {
        self.take().tear_down()
    }

    /// Removes the jail with these options. The grace period is not used, because no VMM is running.
    ///
    /// # Errors
    /// Returns the errors of [`Created::teardown`].
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
        // A persistent jail remains.
        if let Some(jail) = self.jail.take_unless_consumed().filter(|jail| jail.receipt.keeper.is_some()) {
            // Steps that cannot be undone now stay on the receipt.
            let _ = jail.tear_down();
        }
    }
}

/// Computes the VMM's arguments again after a change of the specification.
pub(crate) fn renew_arguments(receipt: &mut Receipt) {
    for step in &mut receipt.enter {
        if let EnterStep::Execute { arguments, .. } = step {
            *arguments = crate::plan::arguments(&receipt.spec);
        }
    }
}
