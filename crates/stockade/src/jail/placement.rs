//! Placing things of the host into a jail, prepared or running, and taking them out again.

use rustix::fs::FileType;

use crate::entry::{Bind, EnterStep};
use crate::error::{Error, PlacementError, Result};
use crate::jail::create::Created;
use crate::jail::locked::LockedJail;
use crate::jail::running::Running;
use crate::plan::{method_of, placement, with_binds};
use crate::spec::{JailPath, Placed, Placement};
use crate::steps::{Step, UndoOutcome};
use crate::sys::OnProgress;
use crate::sys::process::PidFd;

impl Created {
    /// Places a file, directory or device of the host into the jail, by its path alone or as a [`Placement`]
    /// says. A file or device replaces a file or device of that name, at once.
    ///
    /// # Errors
    /// What was refused; [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec) if the source is missing
    /// or cannot be placed in this way. Nothing of it stays in the jail then.
    pub fn place(&mut self, placement: impl Into<Placement>) -> Result<Placed> {
        self.jail_mut().place(&placement.into(), None, None)
    }

    /// The same, telling how far a copy has come: every 16 MiB, and at the end of each file. What is told may break
    /// it off.
    ///
    /// # Errors
    /// As for [`Created::place`]; ECANCELED if it was broken off.
    pub fn place_with_progress(
        &mut self,
        placement: impl Into<Placement>,
        tell: &mut OnProgress<'_>,
    ) -> Result<Placed> {
        self.jail_mut().place(&placement.into(), Some(tell), None)
    }

    /// Takes out what was placed. The host's file stays as it is, however it was placed.
    ///
    /// # Errors
    /// [`PlacementError::NotPlaced`] for what was not placed, or is part of the jail itself; otherwise why it is
    /// still there.
    pub fn unplace(&mut self, path: &JailPath) -> Result<()> {
        self.jail_mut().unplace(path)
    }
}

impl Running {
    /// Places something into the running jail, as [`Created::place`] does: a drive to be plugged in, for one.
    ///
    /// # Errors
    /// As there.
    pub fn place(&mut self, placement: impl Into<Placement>) -> Result<Placed> {
        let (jail, vmm) = self.jail_and_vmm();
        jail.place(&placement.into(), None, Some(vmm))
    }

    /// The same, telling how far a copy has come, and whether it is to go on.
    ///
    /// # Errors
    /// As for [`Created::place`].
    pub fn place_with_progress(
        &mut self,
        placement: impl Into<Placement>,
        tell: &mut OnProgress<'_>,
    ) -> Result<Placed> {
        let (jail, vmm) = self.jail_and_vmm();
        jail.place(&placement.into(), Some(tell), Some(vmm))
    }

    /// Takes out what was placed, as [`Created::unplace`] does. What the VMM holds open it keeps.
    ///
    /// # Errors
    /// As there; also if the VMM has moved the folder that a bind is in, and so would keep it.
    pub fn unplace(&mut self, path: &JailPath) -> Result<()> {
        let (jail, vmm) = self.jail_and_vmm();
        if let Some(bind) = jail.placed(path).and_then(as_bind)
            && !bind.has_mount_point(&jail.ctx)?
            && jail.has_stray(&vmm.mount_points()?)
        {
            let reason = "the VMM has moved the folder it was in, and keeps it until it ends".to_owned();
            return Err(Error::NotTakenOut { path: path.clone(), reason });
        }
        jail.unplace(path)
    }
}

impl LockedJail {
    /// Places what a jail that is being made begins with, all of it written down at once. After an error the jail
    /// has to go.
    pub(crate) fn place_all(&mut self, asked: impl IntoIterator<Item = Placement>) -> Result<()> {
        let (owner, root, before) = (self.receipt.spec.owner, self.receipt.root(), self.receipt.steps.len());
        for asked in asked {
            let step = placement(owner, &root, &asked)?;
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

    /// Decides how to place something, writes that down, and does it.
    fn place(
        &mut self,
        asked: &Placement,
        tell: Option<&mut OnProgress<'_>>,
        vmm: Option<&PidFd>,
    ) -> Result<Placed> {
        let owner = self.receipt.spec.owner;
        let step = placement(owner, &self.receipt.root(), asked)?;
        let path = step.placed_at().cloned().unwrap_or_else(JailPath::root);
        let mut placed = Placed { path, how: method_of(&step), stripped: None };
        self.ensure_free(&placed.path, &step)?;
        if let (Some(vmm), Step::Bind(_)) = (vmm, &step) {
            self.ctx.mounts = Some(vmm.mount_namespace()?);
        }
        self.append(step.clone())?;
        let parents = self.ctx.tree().and_then(|tree| Ok(tree.make_parents(&placed.path, owner)?));
        let apply = || match tell {
            Some(tell) => step.apply_with_progress(&self.ctx, tell),
            None => step.apply(&self.ctx),
        };
        let applied = parents.and_then(|()| apply());
        placed.stripped = self.ctx.take_stripped().pop();
        if let Err(error) = applied {
            // Nothing was placed, and what was there before stays; it is only taken off the list again.
            self.receipt.steps.pop();
            self.lock.write(&self.receipt)?;
            return Err(error);
        }
        // Replaced by this placement, and so neither to be attached nor to be taken out.
        self.forget(&placed.path, self.receipt.steps.len() - 1)?;
        Ok(placed)
    }

    /// Refuses to place something over a folder, over what the jail itself is made of, or below a bind, which
    /// would hide it; and a directory where anything is.
    fn ensure_free(&self, path: &JailPath, step: &Step) -> Result<()> {
        let (made, placed) = self.receipt.steps.split_at(self.receipt.made);
        let part_of_jail = made.iter().any(|step| step.placed_at() == Some(path))
            || path == &JailPath::new(self.receipt.layout.pid_file())?;
        let above =
            placed.iter().filter_map(as_bind).find(|bind| bind.path != *path && bind.path.holds(path));
        if let Some(bind) = above {
            return Err(PlacementError::BelowBind(path.clone(), bind.path.clone()).into());
        }
        let is_folder = |found| {
            rustix::fs::fstat(found).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode).is_dir())
        };
        let found = self.ctx.tree()?.look(path)?;
        let wants_nothing_there =
            matches!(step, Step::PlacedTree(_)) || as_bind(step).is_some_and(|bind| bind.inode.directory);
        if found.is_some() && wants_nothing_there {
            return Err(PlacementError::TreeTaken(path.clone()).into());
        }
        if part_of_jail || found.is_some_and(is_folder) {
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

    /// Takes out what was placed; only then it leaves the list.
    fn unplace(&mut self, path: &JailPath) -> Result<()> {
        let step = self.placed(path).cloned().ok_or_else(|| PlacementError::NotPlaced(path.clone()))?;
        if let UndoOutcome::Left(reason) = step.undo(&self.ctx) {
            return Err(Error::NotTakenOut { path: path.clone(), reason });
        }
        self.forget(path, self.receipt.steps.len())
    }

    /// Whether one of a VMM's mount points is where nothing was mounted for it.
    fn has_stray(&self, mount_points: &[JailPath]) -> bool {
        let temporary = self.ctx.temporary_name();
        let is_known = |point: &JailPath| {
            let mounted = |step: &Step| match step {
                Step::Ramfs(ramfs) => ramfs.path == *point,
                // Or at the name that it has until it is complete.
                Step::Bind(bind) => bind.path == *point || bind.path.beside(&temporary) == *point,
                _ => false,
            };
            *point == JailPath::root() || self.receipt.steps.iter().any(mounted)
        };
        !mount_points.iter().all(is_known)
    }

    /// What the VMM's process does to itself, every bind attached; the mount points are there then.
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

fn as_bind(step: &Step) -> Option<&Bind> {
    match step {
        Step::Bind(bind) => Some(bind),
        _ => None,
    }
}
