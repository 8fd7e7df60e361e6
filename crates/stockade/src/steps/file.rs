//! Files of the host placed into the jail, the VMM's executable first of all.

use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, UndoOutcome};
use crate::error::{Context, Error, Operation, PlacementError, Result};
use crate::spec::{FilePrivileges, HostPath, JailPath, Owner, Stripped};
use crate::sys::OnProgress;
use crate::sys::copy::{Extent, copy};
use crate::sys::remove_tree::Removal;

/// A file of the host that is placed into the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Where it is on the host.
    pub source: HostPath,
    /// Where it goes in the jail; missing folders on the way are made.
    pub path: JailPath,
    /// Who owns it there.
    pub owner: Owner,
    /// How it gets there.
    pub how: FileHow,
    /// Whether only a plain file of one name may be replaced; a link is replaced otherwise, never followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expect_plain: bool,
    /// Whether its group may only read it, and execute it if the source is executable, and nobody else
    /// anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// How a file gets into a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// A further name of the same file, whose owner and mode are right already: those of a file that others
    /// use are never changed.
    Link,
    /// A copy with the source's mode.
    Copy,
    /// A copy that shares the source's blocks until one of the two is written to.
    Reflink,
}

impl PlacedFile {
    /// A copy with the source's mode.
    pub fn copy(source: HostPath, path: JailPath, owner: Owner) -> Self {
        Self { source, path, owner, how: FileHow::Copy, expect_plain: false, read_only: false }
    }

    fn put(&self, ctx: &StepContext, tell: &mut OnProgress<'_>) -> Result<()> {
        let tree = ctx.tree()?;
        let source = File::open(&self.source).context(Operation::OpenPlaced, &self.source)?;
        let facts = source.metadata().context(Operation::Inspect, &self.source)?;
        tree.make_parents(&self.path, self.owner)?;
        if self.how == FileHow::Link {
            self.ensure_linkable(FilePrivileges::of_file(&source, facts.mode()))?;
            return Ok(tree.link_file(source.as_fd(), &self.path, &ctx.temporary_name())?);
        }
        let mode = if self.read_only { read_only(facts.mode()) } else { facts.mode() & PERMISSIONS };
        let fill = |target: BorrowedFd<'_>| {
            let filled = if self.how == FileHow::Reflink {
                rustix::fs::ioctl_ficlone(target, &source).map_err(Into::into)
            } else {
                copy(source.as_fd(), target, Extent { size: facts.len(), blocks: facts.blocks() }, tell)
            };
            filled.context(Operation::Copy, format!("{} to {}", self.source, tree.host_path(&self.path)))
        };
        if ctx.is_recorded() {
            ctx.note_stripped(Stripped::of(&self.source, FilePrivileges::of_file(&source, facts.mode())));
        }
        if tree.is_private() {
            return tree.write_private_file(&self.path, mode, self.owner, fill);
        }
        if self.expect_plain && !tree.expect_plain(&self.path)? {
            return Err(Error::HardLink { path: tree.host_path(&self.path) });
        }
        tree.write_file(&self.path, &ctx.temporary_name(), mode, Some(self.owner), fill)
    }
}

impl PlacedFile {
    /// Refuses to link a file that has powers: it may have got them, or its name, since that was decided.
    fn ensure_linkable(&self, powers: FilePrivileges) -> Result<()> {
        if powers.forbid_link() {
            return Err(PlacementError::LinkPrivileges(self.source.as_path().to_owned(), powers).into());
        }
        Ok(())
    }

    /// What the copy has not; a link has everything.
    pub(super) fn strips(&self) -> Option<Stripped> {
        if self.how == FileHow::Link {
            return None;
        }
        let facts = self.source.as_path().metadata().ok()?;
        Stripped::of(&self.source, FilePrivileges::at(self.source.as_path(), facts.mode()))
    }
}

/// What of a mode is kept: who may read, write and execute, and nothing that makes a file more powerful.
pub(super) const PERMISSIONS: u32 = 0o777;

/// The mode of what its group may only read: whoever is in it can neither write it nor change that.
pub(super) fn read_only(mode: u32) -> u32 {
    if mode & 0o111 == 0 { 0o440 } else { 0o550 }
}

impl StepKind for PlacedFile {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        self.put(ctx, &mut |_| ControlFlow::Continue(()))
    }

    fn apply_with_progress(&self, ctx: &StepContext, tell: &mut OnProgress<'_>) -> Result<()> {
        self.put(ctx, tell)
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        take_out(ctx, &self.path)
    }
}

/// Takes out what was placed, and what is left of it if it was cut off.
pub(super) fn take_out(ctx: &StepContext, path: &JailPath) -> Result<UndoOutcome> {
    let cut_off = ctx.remove(&path.beside(&ctx.temporary_name()))?;
    match ctx.remove(path)? {
        Removal::NeverThere => Ok(cut_off.into()),
        removal => Ok(removal.into()),
    }
}

impl fmt::Display for PlacedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            FileHow::Link => "link",
            FileHow::Copy => "copy",
            FileHow::Reflink => "reflink",
        };
        write!(f, "file {}, a {how} of {}", self.path, self.source)?;
        if !(self.how == FileHow::Link && self.read_only) {
            // Of such a link it only matters that the owner is another.
            write!(f, ", owner {}", self.owner)?;
        }
        f.write_str(if self.read_only { ", read-only" } else { "" })
    }
}
