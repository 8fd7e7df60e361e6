//! Jails that another program, for example `jailer`, creates, and that stockade removes.
//!
//! Such a program leaves no receipt and marks nothing. So its caller adopts the jail first: the objects that
//! the program is going to create are written to a receipt by their names, and those that it needs (the base,
//! a network namespace, a ramfs) are created. From then on the jail is removed like any other, by its owning
//! process or, if that has exited, by [`Store::collect`].

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{PlacementError, Result};
use crate::host::CgroupLayout;
use crate::jail::locked::{LockedJail, Owned};
use crate::jail::teardown::{Report, begun, undo};
use crate::plan::{Plan, Sharing, decide_placement, decide_sharing, method_of, owner_of, path_in_root};
use crate::spec::{
    CgroupSetting, ExecFile, HostPath, How, JailId, JailPath, JailSpec, Layout, NetnsName, Owner,
    ParentCgroup, Placed, Placement,
};
use crate::state::{Receipt, Store};
use crate::steps::{
    External, ExternalKind, NamedNetns, PlacedFile, Ramfs, SharedDirectory, Step, StepContext,
    directory_and_processes, expect_roots_own, make_root,
};
use crate::sys::cache;

/// The description of a jail that another program is going to create.
#[derive(Clone, Debug)]
pub struct AdoptSpec {
    /// The name of the receipt: the jail's id, unless that is not a valid id, or another receipt has it.
    pub name: JailId,
    /// The base, which is created if it is missing.
    pub base: HostPath,
    /// The jail's paths; `None` if the other program will not create a jail, for example because it reports an error.
    pub jail: Option<Layout>,
    /// The other objects of the jail.
    pub options: AdoptOptions,
}

/// The objects that an adopted jail has besides its directory.
#[derive(Clone, Debug, Default)]
pub struct AdoptOptions {
    /// A network namespace with this name. It is created and removed, unless it exists already.
    pub netns: Option<NetnsName>,
    /// A ramfs.
    pub ramfs: Option<Ramfs>,
    /// The cgroup settings of the other program. They determine in which hierarchies it creates cgroups.
    pub cgroups: Vec<CgroupSetting>,
    /// The parent cgroup of the other program; `None` means the name of the executable.
    pub parent_cgroup: Option<ParentCgroup>,
}

/// A jail that another program creates. Dropping the value removes the jail, but only in the process that adopted it.
#[derive(Debug)]
pub struct Adopted {
    jail: Owned,
}

impl Store {
    /// Adopts a jail: writes its receipt, and creates the objects in `spec.options`. An abandoned jail of the
    /// same name is removed first.
    ///
    /// # Errors
    /// Returns the errors of [`Store::create`], and leaves nothing behind.
    pub fn adopt(&self, spec: &AdoptSpec) -> Result<Adopted> {
        let receipt = receipt(spec)?;
        let (lock, _) = self.take_over(&spec.name)?;
        let mut adopted = Adopted { jail: Owned::new(LockedJail::new(lock, receipt)) };
        let shared = spec.jail.as_ref().map_or_else(|| spec.base.clone(), Layout::exec_dir);
        let mut steps = vec![SharedDirectory { path: shared }.into()];
        if let Some(layout) = &spec.jail {
            if layout.has_lone_root() {
                expect_roots_own(layout.base(), Path::new(layout.exec_name()))?;
            }
            steps.extend(directory_and_processes(layout).into_iter().map(Step::from));
        }
        // After an error the value is dropped, which removes the jail.
        steps.extend(requested(&adopted.jail.get().receipt.layout, &spec.options)?);
        adopted.apply(steps)?;
        Ok(adopted)
    }
}

impl Adopted {
    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail.get().receipt
    }

    /// Adds objects to the jail: those that it does not have yet are written to the receipt and created.
    ///
    /// # Errors
    /// Returns the error of the first object that cannot be created, and removes the new ones.
    pub fn add(&mut self, options: &AdoptOptions) -> Result<()> {
        let steps = requested(&self.jail.get().receipt.layout, options)?;
        self.apply(steps)
    }

    /// Adds a network namespace that another program creates for the jail, to be removed with it.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written.
    pub fn expect_netns(&mut self, name: &NetnsName) -> Result<()> {
        let own = |step: &Step| matches!(step, Step::NamedNetns(own) if own.name == *name);
        if self.jail.get().receipt.steps.iter().any(own) {
            return Ok(());
        }
        let path = name.path();
        self.apply(vec![External { what: ExternalKind::Netns, path }.into()])
    }

    /// Creates the jail's directory and its root, unless the other program has created them.
    ///
    /// # Errors
    /// Returns [`Error::InTheWay`](crate::Error::InTheWay) if the directory belongs to another jail, or the
    /// error of creating it.
    pub fn make_root(&mut self) -> Result<()> {
        make_root(&self.jail.get().receipt.step_context())
    }

    /// Creates the missing directories on the way to `path` in the jail's existing root.
    ///
    /// # Errors
    /// Returns an error if there is no root, or if a directory cannot be created.
    pub fn make_parents(&self, path: &JailPath, owner: Owner) -> Result<()> {
        Ok(self.jail.get().receipt.step_context().tree()?.make_parents(path, owner)?)
    }

    /// Places a file or device of the host into the jail's existing root, and replaces an existing file.
    ///
    /// A bind is not possible, because only the VMM's process can attach one.
    ///
    /// # Errors
    /// Returns the errors of [`Created::place`](crate::Created::place).
    pub fn place(&mut self, placement: impl Into<Placement>, owner: Owner) -> Result<Placed> {
        let ctx = self.jail.get().receipt.step_context();
        let tree = ctx.tree()?;
        let placement = placement.into();
        let (path, step) = match path_in_root(&ctx.layout, placement.source())? {
            // Opened beneath the root, and never resolved: the jail's uid may replace it at any time.
            Some(below) => {
                if !matches!(placement.how, How::Auto | How::Copy) {
                    return Err(PlacementError::UnsupportedMethod(below.absolute(), placement.how).into());
                }
                let (source, path) =
                    (ctx.layout.root().join(below.relative()), placement.target_or(below.relative())?);
                let (owner, read_only) = (owner_of(owner, &placement)?, placement.read_only);
                let copy = PlacedFile { read_only, ..PlacedFile::copy(source, path.clone(), owner) };
                (path, copy.into())
            }
            None => (placement.target()?, decide_placement(owner, &ctx.layout.root(), &placement)?),
        };
        if let Step::Bind(bind) = &step {
            return Err(PlacementError::UnsupportedMethod(bind.source.as_path().to_owned(), How::Bind).into());
        }
        tree.make_parents(&path, owner)?;
        step.apply(&ctx)?;
        Ok(Placed { path, how: method_of(&step), stripped: ctx.take_stripped().pop() })
    }

    /// Shares a regular file, socket or named pipe of the host with the jail: a hard link in the existing root, which gets
    /// this owner, and replaces an existing file. The owner is the host's file's too.
    ///
    /// A symbolic link that the jail's uid may have created is never followed. A file with a set-uid or set-gid bit or
    /// with capabilities is never shared.
    ///
    /// # Arguments
    /// `sharing`: which files may get another owner.
    ///
    /// # Errors
    /// * [`PlacementError::NotShared`] if a socket or named pipe was not created for the jail
    /// * [`PlacementError::SharedElsewhere`] if a socket or named pipe is on another mount
    /// * [`PlacementError::SymlinkInJail`] if the path leads through the jail's root by a symbolic link
    /// * the errors of [`Created::place`](crate::Created::place)
    ///
    /// Returns `None` for a file of another kind, one that may not be shared, or one on another mount: it is not shared,
    /// and [`Self::place`] places it.
    pub fn share(
        &mut self,
        placement: impl Into<Placement>,
        owner: Owner,
        sharing: Sharing,
    ) -> Result<Option<Placed>> {
        let ctx = self.jail.get().receipt.step_context();
        let (tree, placement) = (ctx.tree()?, placement.into());
        let path = placement.target_or(placement.source())?;
        let Some(shared) = decide_sharing(&ctx, placement.source(), &path, owner, sharing)? else {
            return Ok(None);
        };
        tree.make_parents(&path, owner)?;
        match tree.link_file(shared.file.as_fd(), &path, shared.needs_owner.then_some(owner)) {
            Err(error) if error.cause == Errno::XDEV && shared.only_linked => {
                Err(PlacementError::SharedElsewhere(placement.source().to_owned()).into())
            }
            Err(error) if error.cause == Errno::XDEV => Ok(None),
            linked => {
                linked?;
                Ok(Some(Placed { path, how: How::Link, stripped: None }))
            }
        }
    }

    /// Removes the jail: kills the processes in it, and undoes all steps on its receipt.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be written or removed. The report lists the parts of the jail
    /// that could not be removed.
    pub fn teardown(mut self) -> Result<Report> {
        self.jail.take().tear_down()
    }

    /// Writes new steps to the receipt and applies them, all or none.
    fn apply(&mut self, steps: Vec<Step>) -> Result<()> {
        let LockedJail { lock, receipt, .. } = self.jail.get_mut();
        // A new context opens the tree again: the other program or its caller may have replaced the root.
        let ctx = &receipt.step_context();
        let known = receipt.steps.clone();
        let mut new: Vec<Step> = steps.into_iter().filter(|step| !known.contains(step)).collect();
        if !new.is_empty() || known.is_empty() {
            receipt.steps.extend(new.iter().cloned());
            // The processes are last, so that they are killed before the objects that they use are removed.
            receipt.steps.sort_by_key(|step| {
                matches!(step, Step::External(External { what: ExternalKind::Processes, .. }))
            });
            lock.write(receipt)?;
        }
        // Objects that were removed since, as after a test of its own removal, are created again.
        new.extend(known.iter().filter(|step| is_missing(step)).cloned());
        for (index, step) in new.iter().enumerate() {
            let Err(error) = apply_one(step, ctx) else { continue };
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
        // A forked child of the owning process has a copy of this value, and must not remove the jail.
        let own_pid = rustix::process::getpid().as_raw_nonzero().get();
        if jail.receipt.keeper.is_some_and(|keeper| keeper.pid == own_pid) {
            // Steps that cannot be undone now stay on the receipt.
            let _ = jail.tear_down();
        }
    }
}

fn receipt(spec: &AdoptSpec) -> Result<Receipt> {
    let layout = match &spec.jail {
        Some(layout) => layout.clone(),
        // The layout of a jail that is never created.
        None => Layout::named(spec.base.clone(), spec.name.as_str(), spec.name.as_str())?,
    };
    let exec_file = ExecFile::unseen(Path::new(layout.exec_name()));
    let adopted = JailSpec::new(spec.name.clone(), exec_file, spec.base.clone());
    let mut receipt =
        Receipt::new(adopted, cache::boot_id()?, Plan { prepare: Vec::new(), enter: Vec::new() })?;
    receipt.layout = layout;
    Ok(receipt)
}

/// The steps for these objects, without a network namespace that exists already.
fn requested(layout: &Layout, options: &AdoptOptions) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    steps.extend(options.ramfs.iter().cloned().map(Step::from));
    if let Some(name) = &options.netns
        && !name.path().as_path().exists()
    {
        steps.push(NamedNetns { name: name.clone() }.into());
    }
    // A lone root has no cgroup: its path would be that of all jails of the executable.
    if !options.cgroups.is_empty() && !layout.has_lone_root() {
        let parent =
            options.parent_cgroup.as_ref().map_or(Path::new(layout.exec_name()), ParentCgroup::as_path);
        let below = parent.join(layout.id().as_str());
        let cgroups = CgroupLayout::read_mounts()?;
        // In every hierarchy that it may use, because the cgroup version is the choice of the other program.
        let v1 = options.cgroups.iter().filter_map(|setting| cgroups.v1_with(setting.controller()));
        let mut mounts: Vec<&HostPath> = v1.map(|hierarchy| &hierarchy.mount).collect();
        mounts.extend(cgroups.v2.as_ref().map(|unified| &unified.mount));
        mounts.sort();
        mounts.dedup();
        let external =
            |mount: &HostPath| External { what: ExternalKind::Cgroup, path: mount.join(&below) }.into();
        steps.extend(mounts.into_iter().map(external));
    }
    Ok(steps)
}

fn apply_one(step: &Step, ctx: &StepContext) -> Result<()> {
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
