//! Placements into a created or running jail, and their removal.

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::entry::{Bind, EnterStep};
use crate::error::{Error, Operation, PlacementError, Result};
use crate::jail::create::Created;
use crate::jail::locked::LockedJail;
use crate::jail::running::Running;
use crate::plan::{decide_placement, method_of, with_binds};
use crate::spec::{How, JailPath, Placed, Placement};
use crate::steps::{Step, UndoOutcome};
use crate::sys::OnProgress;
use crate::sys::jail_root::EXCHANGED;
use crate::sys::own_name::is_own_name;
use crate::sys::process::PidFd;

impl Created {
    /// Places a file, directory or device of the host into the jail.
    ///
    /// # Arguments
    /// `placement` is a path, or a [`Placement`] with options. A file or device atomically replaces an
    /// existing one of the same name.
    ///
    /// # Errors
    /// Returns an error of kind [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec) if the source does
    /// not exist or cannot be placed with this method, otherwise the error of the kernel. Nothing of it stays
    /// in the jail.
    pub fn place(&mut self, placement: impl Into<Placement>) -> Result<Placed> {
        self.jail_mut().place(&placement.into(), None, None)
    }

    /// The same, with reports of a copy's progress after every 16 MiB and at the end of each file.
    ///
    /// # Arguments
    /// `on_progress` can break the copy off.
    ///
    /// # Errors
    /// Returns the errors of [`Created::place`], and ECANCELED if the copy was broken off.
    pub fn place_with_progress(
        &mut self,
        placement: impl Into<Placement>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Placed> {
        self.jail_mut().place(&placement.into(), Some(on_progress), None)
    }

    /// Removes a placement from the jail. The host's file is not changed, whatever the placement method.
    ///
    /// # Errors
    /// Returns [`PlacementError::NotPlaced`] if the path was not placed or is part of the jail itself, and
    /// [`Error::NotTakenOut`] with the reason if it cannot be removed.
    pub fn unplace(&mut self, path: &JailPath) -> Result<()> {
        self.jail_mut().unplace(path)
    }
}

impl Running {
    /// Places a file, directory or device of the host into the running jail, for example a drive to be hot-plugged.
    ///
    /// # Errors
    /// Returns the errors of [`Created::place`].
    pub fn place(&mut self, placement: impl Into<Placement>) -> Result<Placed> {
        let (jail, vmm) = self.jail_and_vmm();
        jail.place(&placement.into(), None, Some(vmm))
    }

    /// The same, with reports of progress as for [`Created::place_with_progress`].
    ///
    /// # Errors
    /// Returns the errors of [`Created::place_with_progress`].
    pub fn place_with_progress(
        &mut self,
        placement: impl Into<Placement>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Placed> {
        let (jail, vmm) = self.jail_and_vmm();
        jail.place(&placement.into(), Some(on_progress), Some(vmm))
    }

    /// Removes a placement from the jail. The VMM keeps files that it has open.
    ///
    /// # Errors
    /// Returns the errors of [`Created::unplace`], and [`Error::NotTakenOut`] if the VMM has moved the
    /// directory that a bind is in, because it would keep the bind.
    pub fn unplace(&mut self, path: &JailPath) -> Result<()> {
        let (jail, vmm) = self.jail_and_vmm();
        if let Some(bind) = jail.placed(path).and_then(as_bind)
            && !bind.has_mount_point(&jail.ctx)?
            && jail.has_moved_bind(&vmm.mount_points()?)
        {
            let reason = "the VMM has moved its directory, and keeps the bind until it exits".to_owned();
            return Err(Error::NotTakenOut { path: path.clone(), reason });
        }
        jail.unplace(path)
    }
}

impl LockedJail {
    /// Applies the placements of the specification, which are written to the receipt at once. After an error
    /// the caller removes the jail.
    pub(crate) fn place_all(&mut self, placements: impl IntoIterator<Item = Placement>) -> Result<()> {
        let (owner, root, before) = (self.receipt.spec.owner, self.receipt.root(), self.receipt.steps.len());
        for placement in placements {
            let step = decide_placement(owner, &root, &placement)?;
            self.ensure_free(step.placed_at().unwrap_or(&JailPath::root()), &step)?;
            self.receipt.steps.push(step);
        }
        if self.receipt.steps.len() > before {
            self.lock.write(&self.receipt)?;
        }
        self.receipt.steps[before..].iter().try_for_each(|step| {
            if let Some(path) = step.placed_at() {
                self.ctx.tree()?.make_parents(path, owner)?;
            }
            step.apply(&self.ctx)
        })
    }

    /// Places something. If stockade chose a hard link, and the kernel cannot create one there, it is copied.
    fn place(
        &mut self,
        placement: &Placement,
        mut on_progress: Option<&mut OnProgress<'_>>,
        vmm: Option<&PidFd>,
    ) -> Result<Placed> {
        match self.place_once(placement, on_progress.as_deref_mut(), vmm) {
            Err(Error::Placement(PlacementError::LinkAcross(_))) if placement.how == How::Auto => {
                self.place_once(&placement.clone().how(How::Copy), on_progress, vmm)
            }
            placed => placed,
        }
    }

    /// Chooses the method of a placement, writes the step to the receipt, and applies it.
    fn place_once(
        &mut self,
        placement: &Placement,
        on_progress: Option<&mut OnProgress<'_>>,
        vmm: Option<&PidFd>,
    ) -> Result<Placed> {
        let owner = self.receipt.spec.owner;
        let step = decide_placement(owner, &self.receipt.root(), placement)?;
        let path = step.placed_at().cloned().unwrap_or_else(JailPath::root);
        let mut placed = Placed { path, how: method_of(&step), stripped: None };
        self.ensure_free(&placed.path, &step)?;
        if let (Some(vmm), Step::Bind(_)) = (vmm, &step) {
            self.ctx.mounts = Some(vmm.mount_namespace()?);
        }
        self.append(step.clone())?;
        let parents = self.ctx.tree().and_then(|tree| Ok(tree.make_parents(&placed.path, owner)?));
        let apply = || match on_progress {
            Some(on_progress) => step.apply_with_progress(&self.ctx, on_progress),
            None => step.apply(&self.ctx),
        };
        let applied = parents.and_then(|()| apply());
        placed.stripped = self.ctx.take_stripped().pop();
        if let Err(error) = applied {
            // Nothing was placed, and an existing file stays. Only the step is removed from the receipt.
            self.receipt.steps.pop();
            self.lock.write(&self.receipt)?;
            return Err(self.explained(error, &placed.path, placement));
        }
        // This placement has replaced an earlier one, which is neither attached nor removed any more.
        self.forget(&placed.path, self.receipt.steps.len() - 1)?;
        Ok(placed)
    }

    /// Names the directory or file of the jail that cannot be changed, if that is the cause of an error.
    fn explained(&self, error: Error, path: &JailPath, placement: &Placement) -> Error {
        if let Error::Operation { operation: Operation::Link, cause: Errno::XDEV, .. } = error {
            return PlacementError::LinkAcross(placement.source.clone()).into();
        }
        if let Error::Operation { cause: EXCHANGED, .. } | Error::Enter { cause: EXCHANGED, .. } = error {
            return PlacementError::Swapped(path.clone()).into();
        }
        let Error::Operation { cause: Errno::PERM | Errno::ROFS, .. } = error else { return error };
        let Ok(Some(tree)) = self.ctx.find_tree() else { return error };
        let Some((at, obstacle, fix)) = tree.obstacle(path) else { return error };
        let at = at.as_path().to_owned();
        PlacementError::Obstructed { path: path.clone(), at, obstacle: obstacle.to_string(), fix }.into()
    }

    /// Returns an error if the path is a directory, a part of the jail itself, or below a bind, which would hide the
    /// placement. A directory also needs a free path.
    fn ensure_free(&self, path: &JailPath, step: &Step) -> Result<()> {
        let (made, placed) = self.receipt.steps.split_at(self.receipt.made);
        let part_of_jail = made.iter().any(|step| step.placed_at() == Some(path))
            || path == &JailPath::new(self.receipt.layout.pid_file())?;
        let above =
            placed.iter().filter_map(as_bind).find(|bind| bind.path != *path && bind.path.holds(path));
        if let Some(bind) = above {
            return Err(PlacementError::BelowBind(path.clone(), bind.path.clone()).into());
        }
        let is_directory = |found| {
            rustix::fs::fstat(found).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode).is_dir())
        };
        let found = self.ctx.tree()?.look(path)?;
        let needs_free_path =
            matches!(step, Step::PlacedTree(_)) || as_bind(step).is_some_and(|bind| bind.inode.directory);
        if found.is_some() && needs_free_path {
            return Err(PlacementError::TreeTaken(path.clone()).into());
        }
        // Temporary names are removed with each placement beside them.
        let is_reserved = path.split().1.to_str().is_some_and(is_own_name);
        if part_of_jail || is_reserved || found.is_some_and(is_directory) {
            return Err(PlacementError::Taken(path.clone()).into());
        }
        Ok(())
    }

    /// Removes the placements at `path` among the first `end` steps from the receipt.
    fn forget(&mut self, path: &JailPath, end: usize) -> Result<()> {
        let (before, placements) = (self.receipt.steps.len(), self.receipt.made..end);
        let mut index = 0;
        self.receipt.steps.retain(|step| {
            let is_forgotten = placements.contains(&index) && step.placed_at() == Some(path);
            index += 1;
            !is_forgotten
        });
        if self.receipt.steps.len() < before { self.lock.write(&self.receipt) } else { Ok(()) }
    }

    fn placed(&self, path: &JailPath) -> Option<&Step> {
        let placed = &self.receipt.steps[self.receipt.made..];
        placed.iter().rev().find(|step| step.placed_at() == Some(path))
    }

    /// Removes a placement, and then its step from the receipt.
    fn unplace(&mut self, path: &JailPath) -> Result<()> {
        let step = self.placed(path).cloned().ok_or_else(|| PlacementError::NotPlaced(path.clone()))?;
        if let UndoOutcome::Left(reason) = step.undo(&self.ctx) {
            return Err(Error::NotTakenOut { path: path.clone(), reason });
        }
        self.forget(path, self.receipt.steps.len())
    }

    /// Whether the VMM has a mount point at which stockade mounted nothing for it.
    fn has_moved_bind(&self, mount_points: &[JailPath]) -> bool {
        let is_known = |point: &JailPath| {
            let mounted = |step: &Step| match step {
                Step::Ramfs(ramfs) => ramfs.path == *point,
                // Or at a temporary name, if its placement was interrupted.
                Step::Bind(bind) => bind.path == *point || is_temporary_of(&bind.path, point),
                _ => false,
            };
            *point == JailPath::root() || self.receipt.steps.iter().any(mounted)
        };
        !mount_points.iter().all(is_known)
    }

    /// The enter steps of the VMM's process with its binds, whose mount points are created if they are missing.
    pub(crate) fn entry(&self) -> Result<Vec<EnterStep>> {
        let last = |bind: &&Bind| self.placed(&bind.path).and_then(as_bind) == Some(*bind);
        let binds: Vec<&Bind> = self.receipt.steps.iter().filter_map(as_bind).filter(last).collect();
        for bind in &binds {
            self.ctx.tree()?.make_parents(&bind.path, self.receipt.spec.owner)?;
            bind.ensure_mount_point(&self.ctx)?;
        }
        Ok(with_binds(&self.receipt.enter, binds))
    }
}

/// Whether a path has a temporary name in the directory of a placement.
fn is_temporary_of(placement: &JailPath, path: &JailPath) -> bool {
    let ((directory, _), (parent, name)) = (placement.split(), path.split());
    directory == parent && name.to_str().is_some_and(is_own_name)
}

fn as_bind(step: &Step) -> Option<&Bind> {
    match step {
        Step::Bind(bind) => Some(bind),
        _ => None,
    }
}
