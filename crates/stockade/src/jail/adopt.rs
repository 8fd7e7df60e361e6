//! Jails that another program makes, `jailer` for one, and that are to be removed all the same.
//!
//! Such a program leaves no receipt and marks nothing. So whoever runs it has the jail adopted first: what the
//! program is going to make is written down by its name, and what is missing for it, the base, a network
//! namespace, a ramfs, is made. From then on the jail is removed like any other, by its keeper or, after the
//! keeper's death, by [`Store::collect`].

use std::path::Path;

use crate::error::{PlacementError, Result};
use crate::host::CgroupLayout;
use crate::jail::locked::{LockedJail, Owned};
use crate::jail::teardown::{Report, begun, undo};
use crate::plan::{Plan, method_of, placement as decide};
use crate::spec::{
    CgroupSetting, ExecFile, HostPath, How, JailId, JailSpec, Layout, NetnsName, Owner, ParentCgroup, Placed,
    Placement,
};
use crate::state::{Receipt, Store};
use crate::steps::{
    External, ExternalKind, NamedNetns, Ramfs, SharedDirectory, Step, StepContext, directory_and_processes,
    make_root,
};
use crate::sys::cache;

/// A jail that another program is going to make.
#[derive(Clone, Debug)]
pub struct AdoptSpec {
    /// What the receipt is called; the jail's id, unless that is none or another receipt has it.
    pub name: JailId,
    /// The directory that jails are made in; it is made if it is missing.
    pub base: HostPath,
    /// Where in it the jail will be; `None` if the other program will make none, as when it is to refuse.
    pub jail: Option<Layout>,
    /// What else there will be.
    pub wants: AdoptOptions,
}

/// What an adopted jail has besides its directory.
#[derive(Clone, Debug, Default)]
pub struct AdoptOptions {
    /// A network namespace of this name, made unless there is one; that of others stays.
    pub netns: Option<NetnsName>,
    /// A ramfs.
    pub ramfs: Option<Ramfs>,
    /// The settings that the other program is going to be given: where it will make cgroups.
    pub cgroups: Vec<CgroupSetting>,
    /// The cgroup that it will be told to make them in; `None` is the name of the executable.
    pub parent_cgroup: Option<ParentCgroup>,
}

/// A jail that another program makes. Dropping it removes the jail, by the process that adopted it alone.
#[derive(Debug)]
pub struct Adopted {
    jail: Owned,
}

impl Store {
    /// Adopts a jail: writes down what will be of it, and makes what is wanted. What a dead jail of the same
    /// name left is removed first.
    ///
    /// # Errors
    /// As of [`Store::create`]; nothing is left then.
    pub fn adopt(&self, spec: &AdoptSpec) -> Result<Adopted> {
        let (lock, _) = self.take_over(&spec.name)?;
        let receipt = receipt(spec)?;
        let mut adopted = Adopted { jail: Owned::new(LockedJail::new(lock, receipt)) };
        let shared = spec.jail.as_ref().map_or_else(|| spec.base.clone(), Layout::exec_dir);
        let mut steps = vec![SharedDirectory { path: shared }.into()];
        if let Some(layout) = &spec.jail {
            steps.extend(directory_and_processes(layout).map(Step::from));
        }
        // On failure the value is dropped, and with it goes what was made.
        steps.extend(wanted(&adopted.jail.get().receipt.layout, &spec.wants)?);
        adopted.carry_out(steps)?;
        Ok(adopted)
    }
}

impl Adopted {
    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.get().receipt
    }

    /// Writes down and makes what is wanted now and was not before. What was made stays until the end.
    ///
    /// # Errors
    /// What was refused; of what is new nothing stays then.
    pub fn want(&mut self, wants: &AdoptOptions) -> Result<()> {
        let steps = wanted(&self.jail.get().receipt.layout, wants)?;
        self.carry_out(steps)
    }

    /// Has a network namespace removed with the jail that somebody else makes for it.
    ///
    /// # Errors
    /// What the kernel says of writing the receipt.
    pub fn expect_netns(&mut self, name: &NetnsName) -> Result<()> {
        let own = |step: &Step| matches!(step, Step::NamedNetns(own) if own.name == *name);
        if self.jail.get().receipt.steps.iter().any(own) {
            return Ok(());
        }
        let path = name.path();
        self.carry_out(vec![External { what: ExternalKind::Netns, path }.into()])
    }

    /// Makes the jail's directory and its root, unless the other program has.
    ///
    /// # Errors
    /// What was refused; [`Error::InTheWay`] for the directory of another jail.
    pub fn make_root(&mut self) -> Result<()> {
        make_root(&self.jail.get().receipt.step_context())
    }

    /// Places a file or device of the host into the jail's root, which has to be there, in the place of
    /// whatever has its name. Nothing can be bound: that takes the process that becomes the VMM.
    ///
    /// # Errors
    /// As of [`Created::place`](crate::Created::place).
    pub fn place(&mut self, placement: impl Into<Placement>, owner: Owner) -> Result<Placed> {
        let ctx = self.jail.get().receipt.step_context();
        let tree = ctx.tree()?;
        let asked = placement.into();
        let step = decide(owner, &ctx.layout.root(), &asked)?;
        if let Step::Bind(bind) = &step {
            return Err(PlacementError::NoSuchWay(bind.source.as_path().to_owned(), How::Bind).into());
        }
        let path = asked.target()?;
        tree.make_parents(&path, owner)?;
        step.apply(&ctx)?;
        Ok(Placed { path, how: method_of(&step), stripped: ctx.take_stripped().pop() })
    }

    /// Removes the jail: kills what runs in it, and undoes everything on its receipt.
    ///
    /// # Errors
    /// What the kernel says of removing the receipt; what could not be removed of the jail is in the
    /// report.
    pub fn teardown(mut self) -> Result<Report> {
        self.jail.take().tear_down()
    }

    /// Puts steps that are not yet on the receipt on it, and applies them; all, or none of them.
    fn carry_out(&mut self, steps: Vec<Step>) -> Result<()> {
        let LockedJail { lock, receipt, .. } = self.jail.get_mut();
        // The tree opened anew, since the other program, or whoever runs it, may have replaced the root.
        let ctx = &receipt.step_context();
        let known = receipt.steps.clone();
        let mut new: Vec<Step> = steps.into_iter().filter(|step| !known.contains(step)).collect();
        if !new.is_empty() || known.is_empty() {
            receipt.steps.extend(new.iter().cloned());
            // Whatever uses the rest ends first.
            receipt.steps.sort_by_key(|step| {
                matches!(step, Step::External(External { what: ExternalKind::Processes, .. }))
            });
            lock.write(receipt)?;
        }
        // What was made once and is gone, as after a test of its own removal, is made again.
        new.extend(known.iter().filter(|step| is_missing(step)).cloned());
        for (index, step) in new.iter().enumerate() {
            let Err(error) = apply(step, ctx) else { continue };
            let mut remaining = known;
            undo(&receipt.id, begun(&new, index, &error), ctx, &mut remaining);
            receipt.steps = remaining;
            lock.write(receipt)?;
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        let Some(jail) = self.jail.take_unless_consumed() else { return };
        // A forked copy of the keeper has a copy of this value, and nothing to remove.
        let mine = rustix::process::getpid().as_raw_nonzero().get();
        if jail.receipt.keeper.is_some_and(|keeper| keeper.pid == mine) {
            // What cannot be removed now stays on the receipt.
            let _ = jail.tear_down();
        }
    }
}

fn receipt(spec: &AdoptSpec) -> Result<Receipt> {
    let layout = match &spec.jail {
        Some(layout) => layout.clone(),
        // Nothing is made there.
        None => Layout::named(spec.base.clone(), spec.name.as_str(), spec.name.as_str())?,
    };
    let exec_file = ExecFile::unseen(Path::new(layout.exec_name()));
    let adopted = JailSpec::new(spec.name.clone(), exec_file, spec.base.clone());
    let mut receipt =
        Receipt::new(adopted, cache::boot_id()?, Plan { prepare: Vec::new(), enter: Vec::new() });
    receipt.layout = layout;
    Ok(receipt)
}

/// The steps that are wanted, a namespace of others left out.
fn wanted(layout: &Layout, wants: &AdoptOptions) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    steps.extend(wants.ramfs.iter().cloned().map(Step::from));
    if let Some(name) = &wants.netns
        && !name.path().as_path().exists()
    {
        steps.push(NamedNetns { name: name.clone() }.into());
    }
    if !wants.cgroups.is_empty() {
        let parent =
            wants.parent_cgroup.as_ref().map_or(Path::new(layout.exec_name()), ParentCgroup::as_path);
        let below = parent.join(layout.id().as_str());
        let cgroups = CgroupLayout::read_mounts()?;
        // Which version the other program will choose is its own affair.
        let v1 = wants.cgroups.iter().filter_map(|setting| cgroups.v1_with(setting.controller()));
        let mut mounts: Vec<&HostPath> = v1.map(|hierarchy| &hierarchy.mount).collect();
        mounts.extend(cgroups.v2.as_ref().map(|unified| &unified.mount));
        mounts.sort();
        mounts.dedup();
        let by_name =
            |mount: &HostPath| External { what: ExternalKind::Cgroup, path: mount.join(&below) }.into();
        steps.extend(mounts.into_iter().map(by_name));
    }
    Ok(steps)
}

fn apply(step: &Step, ctx: &StepContext) -> Result<()> {
    if let Step::Ramfs(ramfs) = step {
        make_root(ctx)?;
        ctx.tree()?.make_parents(&ramfs.path, ramfs.owner)?;
    }
    step.apply(ctx)
}

fn is_missing(step: &Step) -> bool {
    match step {
        Step::SharedDirectory(directory) => !directory.path.as_path().exists(),
        Step::NamedNetns(netns) => !netns.name.path().as_path().exists(),
        _ => false,
    }
}
