//! Files of the host that are placed into the jail, as the VMM's executable is.

use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::fd_path;

use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, PlacementError, Result};
use crate::spec::{FilePrivileges, HostPath, JailPath, Owner, Stripped};
use crate::sys::OnProgress;
use crate::sys::copy::{Extent, copy};
use crate::sys::open::open_source;
use crate::sys::remove_tree::Removal;

/// A file of the host that is placed into the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Its path on the host.
    pub source: HostPath,
    /// Its path in the jail; missing directories on the way are created.
    pub path: JailPath,
    /// Its owner in the jail.
    pub owner: Owner,
    /// The placement method.
    pub how: FileHow,
    /// Whether only a regular file with one hard link may be replaced. Otherwise a symbolic link is replaced too, and
    /// never followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expect_plain: bool,
    /// Whether it is read-only: its owner and group may only read it, and execute it if the source is
    /// executable. Others have no access.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// The placement method of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// A hard link to a file whose owner and mode are right. They are never changed, because others use the file too.
    Link,
    /// A hard link to a file, socket or named pipe that was created for the jail, and gets the owner. It keeps its mode.
    Share,
    /// A copy with the source's mode.
    Copy,
    /// A copy that shares the source's blocks until one of the two is written.
    Reflink,
}

impl PlacedFile {
    /// A copy with the source's mode.
    pub fn copy(source: HostPath, path: JailPath, owner: Owner) -> Self {
        Self { source, path, owner, how: FileHow::Copy, expect_plain: false, read_only: false }
    }

    fn put(&self, ctx: &StepContext, on_progress: &mut OnProgress<'_>) -> Result<()> {
        if matches!(self.how, FileHow::Link | FileHow::Share) {
            return self.link(ctx);
        }
        let tree = ctx.tree()?;
        let source = self.open(ctx)?;
        let facts = source.metadata().context(Operation::Inspect, &self.source)?;
        if !facts.is_file() {
            return Err(PlacementError::Exchanged(self.source.as_path().to_owned()).into());
        }
        tree.make_parents(&self.path, self.owner)?;
        let mode = if self.read_only { read_only(facts.mode()) } else { facts.mode() & PERMISSIONS };
        let mut fill = |target: BorrowedFd<'_>| {
            let filled = if self.how == FileHow::Reflink {
                rustix::fs::ioctl_ficlone(target, &source).map_err(Into::into)
            } else {
                copy(
                    source.as_fd(),
                    target,
                    Extent { size: facts.len(), blocks: facts.blocks() },
                    on_progress,
                )
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
        tree.write_file(&self.path, mode, Some(self.owner), |_, target| fill(target))
    }
}

impl PlacedFile {
    /// The path of a source that is in the jail's root.
    fn in_root(&self, ctx: &StepContext) -> Option<JailPath> {
        let below = self.source.as_path().strip_prefix(ctx.layout.root().as_path());
        JailPath::new(below.ok()?).ok()
    }

    /// Opens the source. In the jail's root no symbolic link is followed, since its uid may have created that.
    fn open(&self, ctx: &StepContext) -> Result<File> {
        let opened = match self.in_root(ctx) {
            Some(below) => ctx.tree()?.open_file(&below),
            None => open_source(self.source.as_path()),
        };
        Ok(File::from(opened.context(Operation::OpenPlaced, &self.source)?))
    }

    /// Creates the hard link. The source was checked for the plan; here it is one open file, which cannot be replaced.
    fn link(&self, ctx: &StepContext) -> Result<()> {
        let (tree, path) = (ctx.tree()?, self.source.as_path());
        // Without O_PATH, opening a named pipe would have an effect on its other end.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = match self.in_root(ctx) {
            Some(below) => tree.look(&below)?.ok_or(Errno::NOENT),
            None => rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS),
        };
        let source = source.context(Operation::OpenPlaced, &self.source)?;
        let facts = rustix::fs::fstat(&source).context(Operation::Inspect, &self.source)?;
        if !may_be_linked(FileType::from_raw_mode(facts.st_mode)) {
            return Err(PlacementError::Exchanged(path.to_owned()).into());
        }
        let privileges = FilePrivileges::at(Path::new(&fd_path(&source)), facts.st_mode);
        if privileges.forbid_link() {
            return Err(PlacementError::LinkPrivileges(path.to_owned(), privileges).into());
        }
        let owner = match self.how {
            FileHow::Share => share_with(path, &facts, self.owner)?,
            FileHow::Link | FileHow::Copy | FileHow::Reflink => None,
        };
        tree.make_parents(&self.path, self.owner)?;
        Ok(tree.link_file(source.as_fd(), &self.path, owner)?)
    }

    /// The privileges that a copy does not have; `None` for a hard link, which has all of them.
    pub(super) fn strips(&self) -> Option<Stripped> {
        if matches!(self.how, FileHow::Link | FileHow::Share) {
            return None;
        }
        let facts = self.source.as_path().metadata().ok()?;
        Stripped::of(&self.source, FilePrivileges::at(self.source.as_path(), facts.mode()))
    }
}

/// Whether a file of this kind can be a hard link in a jail.
pub(crate) fn may_be_linked(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Socket | FileType::Fifo)
}

/// The owner that a file to be shared has to get; `None` if it has that owner.
///
/// # Errors
/// Returns [`PlacementError::ShareLinks`] if the file has other names, whose owner would change too.
pub(crate) fn share_with(path: &Path, facts: &Stat, owner: Owner) -> Result<Option<Owner>> {
    if (facts.st_uid, facts.st_gid) == (owner.uid, owner.gid) {
        return Ok(None);
    }
    if facts.st_nlink > 1 {
        return Err(PlacementError::ShareLinks(path.to_owned(), owner).into());
    }
    Ok(Some(owner))
}

/// The bits of a mode that a copy keeps, without the special mode bits.
pub(super) const PERMISSIONS: u32 = 0o777;

/// The mode of a read-only file or directory. The group can neither write it nor change its mode.
pub(super) fn read_only(mode: u32) -> u32 {
    if mode & 0o111 == 0 { 0o440 } else { 0o550 }
}

impl StepKind for PlacedFile {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        self.put(ctx, &mut |_| ControlFlow::Continue(()))
    }

    fn apply_with_progress(&self, ctx: &StepContext, on_progress: &mut OnProgress<'_>) -> Result<()> {
        self.put(ctx, on_progress)
    }
}

impl Undo for PlacedFile {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        take_out(ctx, &self.path)
    }
}

/// Removes a placement, and the temporary files of interrupted ones.
pub(super) fn take_out(ctx: &StepContext, path: &JailPath) -> Result<UndoOutcome> {
    let interrupted = ctx.remove_temporaries(path)?;
    match ctx.remove(path)? {
        Removal::NeverThere => Ok(interrupted.into()),
        removal => Ok(removal.into()),
    }
}

impl fmt::Display for PlacedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            FileHow::Link => "hard link to",
            FileHow::Share => "hard link shared with",
            FileHow::Copy => "copy of",
            FileHow::Reflink => "reflink of",
        };
        write!(f, "file {}, a {how} {}", self.path, self.source)?;
        if !(self.how == FileHow::Link && self.read_only) {
            // The owner of a read-only hard link is any but the jail's.
            write!(f, ", owner {}", self.owner)?;
        }
        f.write_str(if self.read_only { ", read-only" } else { "" })
    }
}
