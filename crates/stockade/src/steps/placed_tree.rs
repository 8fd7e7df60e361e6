//! Directories of the host that are placed into the jail with everything in them: firmware, modules, scripts.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::file::{PERMISSIONS, read_only, take_out};
use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Operation, PlacementError, Result};
use crate::spec::{FilePrivileges, HostPath, JailPath, Owner, Stripped};
use crate::sys::copy::{Extent, copy};
use crate::sys::directory_names::names;
use crate::sys::file_id::FileId;
use crate::sys::modes::{change_owner, set_mode_and_owner};
use crate::sys::open::{INSIDE, NEW_FILE, open_directory};
use crate::sys::{OnProgress, Progress};

/// A directory of the host that is copied into the jail.
///
/// Files, directories and symbolic links get the source's permissions and the jail's owner. A symbolic link
/// must not lead out of the directory. Devices, sockets and named pipes are not allowed in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTree {
    /// Its path on the host.
    pub source: HostPath,
    /// Its path in the jail, which must not exist; missing directories on the way are created.
    pub path: JailPath,
    /// Its owner in the jail.
    pub owner: Owner,
    /// Whether it is read-only: its owner and group may only read it, and others have no access.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl PlacedTree {
    /// Copies the directory.
    ///
    /// # Arguments
    /// With `count` the total size is computed first, for the reports of progress.
    fn put(&self, ctx: &StepContext, count: bool, on_progress: &mut OnProgress<'_>) -> Result<()> {
        let tree = ctx.tree()?;
        let top = open_directory(CWD, self.source.as_path(), ResolveFlags::NO_SYMLINKS)
            .context(Operation::Open, &self.source)?;
        let mode = inspect(&top, &self.source)?.st_mode;
        let root = FileId::of(tree.root()).context(Operation::Inspect, ctx.layout.root())?;
        let total = if count { bytes_below(top.as_fd()) } else { 0 };
        let stripped = Stripped::of(&self.source, FilePrivileges::of_mode(mode));
        let mut copying = Copying {
            top: top.as_fd(),
            step: self,
            source: &self.source,
            root,
            stripped,
            done: 0,
            total,
            on_progress,
        };
        tree.make_parents(&self.path, self.owner)?;
        tree.write_directory(&self.path, self.mode(mode), self.owner, |_, target| {
            copying.contents(top.as_fd(), target, Path::new(""))
        })?;
        ctx.note_stripped(copying.stripped);
        Ok(())
    }

    /// The privileges that its copy does not have.
    pub(super) fn strips(&self) -> Option<Stripped> {
        let top = open_directory(CWD, self.source.as_path(), ResolveFlags::NO_SYMLINKS).ok()?;
        let mut found =
            Stripped::of(&self.source, FilePrivileges::of_mode(rustix::fs::fstat(&top).ok()?.st_mode));
        add_privileges_below(top.as_fd(), &self.source, &mut found);
        found
    }

    fn mode(&self, mode: u32) -> u32 {
        if self.read_only { read_only(mode) } else { mode & PERMISSIONS }
    }
}

impl StepKind for PlacedTree {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        self.put(ctx, false, &mut |_| ControlFlow::Continue(()))
    }

    fn apply_with_progress(&self, ctx: &StepContext, on_progress: &mut OnProgress<'_>) -> Result<()> {
        self.put(ctx, true, on_progress)
    }
}

impl Undo for PlacedTree {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        take_out(ctx, &self.path)
    }
}

impl fmt::Display for PlacedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}, a copy of {}, owner {}", self.path, self.source, self.owner)?;
        f.write_str(if self.read_only { ", read-only" } else { "" })
    }
}

/// A copy under way. Until it is complete, only root can access its target, so no other process changes it.
struct Copying<'a> {
    top: BorrowedFd<'a>,
    step: &'a PlacedTree,
    source: &'a HostPath,
    /// The jail's own root, which must not be in the directory.
    root: FileId,
    /// The privileges that the copies do not have.
    stripped: Option<Stripped>,
    /// The bytes of all copied files.
    done: u64,
    /// The bytes of all files.
    total: u64,
    on_progress: &'a mut OnProgress<'a>,
}

impl Copying<'_> {
    /// Copies the contents of a directory.
    ///
    /// # Arguments
    /// `below` is its path from the top.
    fn contents(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, below: &Path) -> Result<()> {
        for name in names(from).context(Operation::Read, self.source.join(below))? {
            let below = below.join(OsStr::from_bytes(name.to_bytes()));
            let at = self.source.join(&below);
            let facts = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW);
            match FileType::from_raw_mode(facts.context(Operation::Inspect, &at)?.st_mode) {
                FileType::Directory => self.directory(from, to, &name, &below)?,
                FileType::RegularFile => self.file(from, to, &name, &at)?,
                FileType::Symlink => self.symbolic_link(from, to, &name, &below)?,
                _ => return Err(PlacementError::TreeSpecial(at.as_path().to_owned()).into()),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        below: &Path,
    ) -> Result<()> {
        let at = self.source.join(below);
        let source = open(from, name, OFlags::DIRECTORY).context(Operation::Open, &at)?;
        let facts = inspect(&source, &at)?;
        if FileId::from(&facts) == self.root {
            return Err(PlacementError::TreeHoldsJail(self.source.as_path().to_owned()).into());
        }
        Stripped::add(&mut self.stripped, Stripped::of(&at, FilePrivileges::of_mode(facts.st_mode)));
        let created =
            rustix::fs::mkdirat(to, name, Mode::RWXU).and_then(|()| open(to, name, OFlags::DIRECTORY));
        let target = created.context(Operation::Copy, &at)?;
        self.contents(source.as_fd(), target.as_fd(), below)?;
        Ok(set_mode_and_owner(target.as_fd(), self.step.mode(facts.st_mode), self.step.owner, &at)?)
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, at: &HostPath) -> Result<()> {
        // O_NONBLOCK: if it was replaced by a named pipe, the open does not wait for a writer.
        let source = open(from, name, OFlags::NONBLOCK).context(Operation::Open, at)?;
        let facts = inspect(&source, at)?;
        if !FileType::from_raw_mode(facts.st_mode).is_file() {
            return Err(PlacementError::TreeSpecial(at.as_path().to_owned()).into());
        }
        Stripped::add(&mut self.stripped, Stripped::of(at, FilePrivileges::of_file(&source, facts.st_mode)));
        let target = rustix::fs::openat2(to, name, NEW_FILE, Mode::RUSR | Mode::WUSR, INSIDE);
        let target = target.context(Operation::Copy, at)?;
        let extent = Extent { size: facts.st_size.unsigned_abs(), blocks: facts.st_blocks.unsigned_abs() };
        let (before, total) = (self.done, self.total);
        let mut on_progress = |Progress { done, .. }| {
            (self.on_progress)(Progress { done: before + done, total: total.max(before + done) })
        };
        copy(source.as_fd(), target.as_fd(), extent, &mut on_progress).context(Operation::Copy, at)?;
        self.done += extent.size;
        let mode = Mode::from_raw_mode(self.step.mode(facts.st_mode));
        rustix::fs::fchmod(&target, mode).context(Operation::ChangeMode, at)?;
        change_owner(target.as_fd(), self.step.owner).context(Operation::ChangeOwner, at)
    }

    fn symbolic_link(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        below: &Path,
    ) -> Result<()> {
        let at = self.source.join(below);
        let target = rustix::fs::readlinkat(from, name, Vec::new()).context(Operation::Read, &at)?;
        let leads_to = Path::new(OsStr::from_bytes(target.to_bytes()));
        if !self.stays_inside(below, leads_to).context(Operation::Inspect, &at)? {
            return Err(PlacementError::TreeLink(at.as_path().to_owned(), leads_to.to_owned()).into());
        }
        let (uid, gid) =
            (rustix::fs::Uid::from_raw(self.step.owner.uid), rustix::fs::Gid::from_raw(self.step.owner.gid));
        rustix::fs::symlinkat(&target, to, name).context(Operation::Copy, &at)?;
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .context(Operation::ChangeOwner, &at)
    }

    /// Whether the symbolic link at `below` leads into the tree.
    ///
    /// The kernel resolves it, together with other symbolic links on the way. If it leads nowhere, its text decides.
    fn stays_inside(&self, below: &Path, leads_to: &Path) -> std::result::Result<bool, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(self.top, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(_) => Ok(true),
            Err(Errno::XDEV) => Ok(false),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(climbs_no_higher(below, leads_to)),
            Err(cause) => Err(cause),
        }
    }
}

/// Whether the target `leads_to` of the symbolic link at `below` stays below the top at every step.
fn climbs_no_higher(below: &Path, leads_to: &Path) -> bool {
    let mut depth = below.components().count() - 1;
    leads_to.components().all(|part| match part {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => {
            let stays = depth > 0;
            depth = depth.saturating_sub(1);
            stays
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

/// Opens a file or directory for reading, unless it is a symbolic link.
fn open(from: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(from, name, flags, Mode::empty(), INSIDE)
}

fn inspect(file: &OwnedFd, at: &HostPath) -> Result<Stat> {
    rustix::fs::fstat(file).context(Operation::Inspect, at)
}

/// The bytes of all readable files below a directory. Only the copy itself has to be exact.
fn bytes_below(directory: BorrowedFd<'_>) -> u64 {
    let below = |name: &CString| match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) if FileType::from_raw_mode(facts.st_mode).is_dir() => {
            open(directory, name, OFlags::DIRECTORY).map_or(0, |below| bytes_below(below.as_fd()))
        }
        Ok(facts) if FileType::from_raw_mode(facts.st_mode).is_file() => facts.st_size.unsigned_abs(),
        _ => 0,
    };
    let names = names(directory).unwrap_or_default();
    // The copy reads the directory again.
    let _ = rustix::fs::seek(directory, SeekFrom::Start(0));
    names.iter().map(below).sum()
}

/// Collects the privileges of the readable files and directories below a directory.
fn add_privileges_below(directory: BorrowedFd<'_>, at: &HostPath, found: &mut Option<Stripped>) {
    for name in names(directory).unwrap_or_default() {
        let at = at.join(OsStr::from_bytes(name.to_bytes()));
        let Ok(facts) = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => {
                Stripped::add(found, Stripped::of(&at, FilePrivileges::of_mode(facts.st_mode)));
                if let Ok(below) = open(directory, &name, OFlags::DIRECTORY) {
                    add_privileges_below(below.as_fd(), &at, found);
                }
            }
            FileType::RegularFile => {
                let privileges = FilePrivileges::at(at.as_path(), facts.st_mode);
                Stripped::add(found, Stripped::of(&at, privileges));
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangling_symbolic_link_must_not_climb_above_the_top() {
        for (below, leads_to, stays) in [
            ("a/link", "../b", true),
            ("a/link", "b/../../c", true),
            ("a/link", "../../b", false),
            ("link", "..", false),
            ("link", "./b", true),
            ("link", "/b", false),
        ] {
            assert_eq!(
                climbs_no_higher(Path::new(below), Path::new(leads_to)),
                stays,
                "{below} -> {leads_to}"
            );
        }
    }
}
