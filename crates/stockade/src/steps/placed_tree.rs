//! Directories of the host placed into the jail with everything in them: firmware, modules, scripts.

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
use super::{StepContext, StepKind, UndoOutcome};
use crate::error::{Context, Operation, PlacementError, Result};
use crate::spec::{FilePrivileges, HostPath, JailPath, Owner, Stripped};
use crate::sys::copy::{Extent, copy};
use crate::sys::directory_names::names;
use crate::sys::jail_root::{INSIDE, NEW_FILE, change_owner, open_directory, set_mode_and_owner};
use crate::sys::{OnProgress, Progress};

/// A directory of the host that is copied into the jail.
///
/// Files, directories and links have the source's permissions and the jail's owner. A link may lead nowhere
/// but into the directory itself, and there may be nothing else in it: no device, socket or pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTree {
    /// Where it is on the host.
    pub source: HostPath,
    /// Where it goes in the jail; missing folders on the way are made, and it must not be there yet.
    pub path: JailPath,
    /// Who owns it there.
    pub owner: Owner,
    /// Whether its group may only read it, and nobody else anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl PlacedTree {
    /// Copies it, telling of each file how much of all is done; `count` first finds out how much that is.
    fn put(&self, ctx: &StepContext, count: bool, tell: &mut OnProgress<'_>) -> Result<()> {
        let tree = ctx.tree()?;
        let top = open_directory(CWD, self.source.as_path(), ResolveFlags::NO_SYMLINKS)
            .context(Operation::Open, &self.source)?;
        let mode = inspect(&top, &self.source)?.st_mode;
        let root = rustix::fs::fstat(tree.root()).context(Operation::Inspect, ctx.layout.root())?;
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
            tell,
        };
        tree.make_parents(&self.path, self.owner)?;
        tree.write_directory(&self.path, &ctx.temporary_name(), self.mode(mode), self.owner, |target| {
            copying.contents(top.as_fd(), target, Path::new(""))
        })?;
        ctx.note_stripped(copying.stripped);
        Ok(())
    }

    /// What its copy has not.
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

    fn apply_with_progress(&self, ctx: &StepContext, tell: &mut OnProgress<'_>) -> Result<()> {
        self.put(ctx, true, tell)
    }

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

/// One tree on its way. Its target is root's alone until it is complete, so no one changes it meanwhile.
struct Copying<'a> {
    top: BorrowedFd<'a>,
    step: &'a PlacedTree,
    source: &'a HostPath,
    /// The jail's own root, which must not be met on the way.
    root: Stat,
    /// What the copies have not.
    stripped: Option<Stripped>,
    /// The bytes of the files that are copied already.
    done: u64,
    /// The bytes of all files.
    total: u64,
    tell: &'a mut OnProgress<'a>,
}

impl Copying<'_> {
    /// Copies what is in a directory. `below` is its path, from the top.
    fn contents(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, below: &Path) -> Result<()> {
        for name in names(from).context(Operation::Read, self.source.join(below))? {
            let below = below.join(OsStr::from_bytes(name.to_bytes()));
            let at = self.source.join(&below);
            let facts = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW);
            match FileType::from_raw_mode(facts.context(Operation::Inspect, &at)?.st_mode) {
                FileType::Directory => self.folder(from, to, &name, &below)?,
                FileType::RegularFile => self.file(from, to, &name, &at)?,
                FileType::Symlink => self.link(from, to, &name, &below)?,
                _ => return Err(PlacementError::TreeSpecial(at.as_path().to_owned()).into()),
            }
        }
        Ok(())
    }

    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, below: &Path) -> Result<()> {
        let at = self.source.join(below);
        let source = open(from, name, OFlags::DIRECTORY).context(Operation::Open, &at)?;
        let facts = inspect(&source, &at)?;
        if (facts.st_dev, facts.st_ino) == (self.root.st_dev, self.root.st_ino) {
            return Err(PlacementError::TreeHoldsJail(self.source.as_path().to_owned()).into());
        }
        Stripped::add(&mut self.stripped, Stripped::of(&at, FilePrivileges::of_mode(facts.st_mode)));
        let made = rustix::fs::mkdirat(to, name, Mode::RWXU).and_then(|()| open(to, name, OFlags::DIRECTORY));
        let target = made.context(Operation::Copy, &at)?;
        self.contents(source.as_fd(), target.as_fd(), below)?;
        Ok(set_mode_and_owner(target.as_fd(), self.step.mode(facts.st_mode), self.step.owner, &at)?)
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, at: &HostPath) -> Result<()> {
        // Should it have become a pipe meanwhile, opening does not wait for a writer.
        let source = open(from, name, OFlags::NONBLOCK).context(Operation::Open, at)?;
        let facts = inspect(&source, at)?;
        if !FileType::from_raw_mode(facts.st_mode).is_file() {
            return Err(PlacementError::TreeSpecial(at.as_path().to_owned()).into());
        }
        Stripped::add(&mut self.stripped, Stripped::of(at, FilePrivileges::of_file(&source, facts.st_mode)));
        let target = rustix::fs::openat2(to, name, NEW_FILE, Mode::RUSR | Mode::WUSR, INSIDE);
        let target = target.context(Operation::Copy, at)?;
        let seen = Extent { size: facts.st_size.unsigned_abs(), blocks: facts.st_blocks.unsigned_abs() };
        let (before, total) = (self.done, self.total);
        let mut tell = |Progress { done, .. }| {
            (self.tell)(Progress { done: before + done, total: total.max(before + done) })
        };
        copy(source.as_fd(), target.as_fd(), seen, &mut tell).context(Operation::Copy, at)?;
        self.done += seen.size;
        let mode = Mode::from_raw_mode(self.step.mode(facts.st_mode));
        rustix::fs::fchmod(&target, mode).context(Operation::ChangeMode, at)?;
        change_owner(target.as_fd(), self.step.owner).context(Operation::ChangeOwner, at)
    }

    fn link(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, below: &Path) -> Result<()> {
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

    /// Whether the link at `below` leads into the tree. The kernel decides, since only it knows what other
    /// links on the way do; for one that leads nowhere its text does.
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

/// Whether `leads_to`, seen from the link at `below`, takes no more steps up than it has above it.
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

/// Opens an entry of a directory for reading, if it is no link.
fn open(from: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(from, name, flags, Mode::empty(), INSIDE)
}

fn inspect(file: &OwnedFd, at: &HostPath) -> Result<Stat> {
    rustix::fs::fstat(file).context(Operation::Inspect, at)
}

/// The bytes of all files below a directory, as far as it can be read: only the copy has to be exact.
fn bytes_below(folder: BorrowedFd<'_>) -> u64 {
    let below = |name: &CString| match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) if FileType::from_raw_mode(facts.st_mode).is_dir() => {
            open(folder, name, OFlags::DIRECTORY).map_or(0, |folder| bytes_below(folder.as_fd()))
        }
        Ok(facts) if FileType::from_raw_mode(facts.st_mode).is_file() => facts.st_size.unsigned_abs(),
        _ => 0,
    };
    let names = names(folder).unwrap_or_default();
    // They are read once more for the copy.
    let _ = rustix::fs::seek(folder, SeekFrom::Start(0));
    names.iter().map(below).sum()
}

/// Finds the powers of what is in a directory, as far as it can be read.
fn add_privileges_below(folder: BorrowedFd<'_>, at: &HostPath, found: &mut Option<Stripped>) {
    for name in names(folder).unwrap_or_default() {
        let at = at.join(OsStr::from_bytes(name.to_bytes()));
        let Ok(facts) = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => {
                Stripped::add(found, Stripped::of(&at, FilePrivileges::of_mode(facts.st_mode)));
                if let Ok(folder) = open(folder, &name, OFlags::DIRECTORY) {
                    add_privileges_below(folder.as_fd(), &at, found);
                }
            }
            FileType::RegularFile => {
                let powers = FilePrivileges::at(at.as_path(), facts.st_mode);
                Stripped::add(found, Stripped::of(&at, powers));
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_may_not_climb_above_the_top() {
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
