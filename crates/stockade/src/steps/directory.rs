//! Directories: those that jails share, a jail's own, and the folders in it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, UndoOutcome};
use crate::error::{Context, Error, Operation, Result, errno};
use crate::spec::{HostPath, JailPath, Layout, Owner};
use crate::sys::directory_names::names;
use crate::sys::jail_root::{INSIDE, JailRoot, open_directory};
use crate::sys::modes::{self, PRIVATE, PUBLIC};
use crate::sys::owned_dir::{ATTEMPTS, ancestors, make_marked, remove_if_marked_and_empty, temporary_path};
use crate::sys::process::rooted_at;
use crate::sys::remove_tree::{Removal, remove_with_progress};

/// The mode of a jail's marker: it only has to be there.
pub(super) const MARKER: u32 = 0;

/// A directory that all jails of an executable share, with those above it that are missing. The last jail
/// to go takes along what stockade made of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDirectory {
    /// Where it is.
    pub path: HostPath,
}

impl StepKind for SharedDirectory {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        match &ctx.mark {
            Some(nonce) => Ok(make_marked(&self.path, nonce)?),
            // Without a receipt it is made for one root, which is what its failure is told of.
            None => DirBuilder::new()
                .recursive(true)
                .mode(PUBLIC)
                .create(&self.path)
                .map_err(|e| if errno(&e) == Errno::EXIST { Errno::NOTDIR } else { errno(&e) })
                .context(Operation::CreateDirectory, ctx.layout.root()),
        }
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        if let Some(nonce) = &ctx.mark {
            // A directory that was made but not yet named when its maker was killed.
            for path in ancestors(&self.path) {
                let _ = rustix::fs::rmdir(temporary_path(path, nonce).as_path());
            }
        }
        Ok(remove_if_marked_and_empty(&self.path)?.into())
    }
}

impl fmt::Display for SharedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {} (shared with other jails)", self.path)
    }
}

/// The jail's own directory, which belongs to root, and its root in it.
///
/// The root stays root's until a [`Directory`] step gives it away, so that until then nobody else can come in
/// between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailDirectory {
    /// Where it is.
    pub path: HostPath,
    /// Whether a directory that is there already is taken over, with what is in it.
    pub take_over: bool,
}

impl JailDirectory {
    /// Makes or takes over the directory and its root by name: all on the way is root's, and nothing has to
    /// be marked.
    fn take_over(&self, ctx: &StepContext) -> Result<()> {
        let at = ctx.layout.root();
        let make = |path: &HostPath, mode| match rustix::fs::mkdir(path.as_path(), Mode::from_raw_mode(mode))
        {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(cause) => Err(cause).context(Operation::CreateDirectory, &at),
        };
        make(&self.path, PUBLIC)?;
        let made = make(&at, PRIVATE)?;
        let root = open_directory(CWD, at.as_path(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
            .context(Operation::CreateDirectory, &at)?;
        let tree = JailRoot::new(root, at, made, ctx.is_recorded());
        if !made {
            ensure_vacant(&tree, ctx)?;
        }
        ctx.set_tree(tree);
        Ok(())
    }

    fn open(&self) -> std::result::Result<OwnedFd, Errno> {
        let (Some(parent), Some(name)) = (self.path.as_path().parent(), self.path.as_path().file_name())
        else {
            return Err(Errno::INVAL);
        };
        let parent = open_directory(CWD, parent, ResolveFlags::empty())?;
        open_directory(parent.as_fd(), Path::new(name), INSIDE)
    }
}

impl StepKind for JailDirectory {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        if self.take_over {
            return self.take_over(ctx);
        }
        // The shared directory above may vanish with the last jail before it is entered here.
        for _ in 0..ATTEMPTS {
            match rustix::fs::mkdir(self.path.as_path(), Mode::from_raw_mode(PUBLIC)) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    return Err(Error::InTheWay { what: format!("directory {}", self.path) });
                }
                Err(Errno::NOENT) => {
                    SharedDirectory { path: ctx.layout.exec_dir() }.apply(ctx)?;
                }
                Err(cause) => return Err(cause).context(Operation::CreateDirectory, &self.path),
            }
        }
        let directory = self.open().context(Operation::CreateDirectory, &self.path)?;
        modes::set_mode(&directory, PUBLIC).context(Operation::ChangeMode, &self.path)?;
        if let Some(marker) = ctx.marker() {
            modes::create_file(&directory, &marker, OFlags::EXCL, MARKER)
                .context(Operation::CreateDirectory, self.path.join(marker))?;
        }
        let at = ctx.layout.root();
        rustix::fs::mkdirat(&directory, Layout::ROOT, Mode::from_raw_mode(PRIVATE))
            .context(Operation::CreateDirectory, &at)?;
        let root = open_directory(directory.as_fd(), Path::new(Layout::ROOT), INSIDE)
            .context(Operation::CreateDirectory, &at)?;
        ctx.set_tree(JailRoot::new(root, at, true, ctx.is_recorded()));
        Ok(())
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        let directory = match self.open() {
            Ok(directory) => directory,
            // A name that is too long cannot have been made.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(UndoOutcome::NeverThere),
            Err(cause) => return Err(cause).context(Operation::Open, &self.path),
        };
        if ctx.is_own()?
            && let Some((path, why)) = self.empty(directory.as_fd(), ctx)?
        {
            return Ok(UndoOutcome::Left(format!("{path}: {why}")));
        }
        // One without a marker that is empty was just being made or removed.
        match rustix::fs::rmdir(self.path.as_path()) {
            Ok(()) => Ok(UndoOutcome::Removed),
            Err(Errno::NOENT) => Ok(UndoOutcome::NeverThere),
            Err(Errno::NOTEMPTY) => Ok(UndoOutcome::Kept("it was not made for this jail".into())),
            Err(cause) => Err(cause).context(Operation::Remove, &self.path),
        }
    }
}

impl JailDirectory {
    /// Removes everything in the directory, its marker last: who is killed here finds it marked again.
    /// Returns what could not be removed.
    fn empty(&self, directory: BorrowedFd<'_>, ctx: &StepContext) -> Result<Option<(HostPath, String)>> {
        let marker = ctx.marker();
        for name in names(directory).context(Operation::Read, &self.path)? {
            let name = OsStr::from_bytes(name.to_bytes());
            if marker.as_deref().is_some_and(|marker| name == marker) {
                continue;
            }
            let at = self.path.join(name);
            let removal = remove_with_progress(directory, name, &at, &mut |path| ctx.note_removed(path));
            if let Removal::Left(path, why) = removal {
                return Ok(Some((path, why)));
            }
        }
        if let Some(marker) = marker {
            match rustix::fs::unlinkat(directory, &marker, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => (),
                Err(cause) => return Err(cause).context(Operation::Remove, self.path.join(marker)),
            }
        }
        Ok(None)
    }
}

impl fmt::Display for JailDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jail directory {}", self.path)
    }
}

/// Refuses a root that a jail still lives in, and takes away the pid of a dead one.
///
/// Only a root that a jail has been in is looked at so closely: one that the caller has merely put files
/// into has neither a pid file nor an executable.
fn ensure_vacant(tree: &JailRoot, ctx: &StepContext) -> Result<()> {
    let there = |name: &str| {
        let path = JailPath::new(name)?;
        // A link, or whatever else cannot be opened, is there.
        Ok(!matches!(tree.look(&path), Ok(None)))
    };
    let pid_file = ctx.layout.pid_file();
    let has_pid: Result<bool> = there(&pid_file);
    let has_pid = has_pid?;
    let has_executable: Result<bool> = there(ctx.layout.exec_name());
    if !has_pid && !has_executable? {
        return Ok(());
    }
    if let Some(&pid) = rooted_at(tree.root()).first() {
        return Err(Error::Running { id: ctx.layout.id(), pid });
    }
    if has_pid {
        // Whoever wrote it was in the root by then, so it is the number of a dead process. If it cannot be
        // removed it is in the way of the new one, which says so.
        let _ = rustix::fs::unlinkat(tree.root(), &pid_file, AtFlags::empty());
    }
    Ok(())
}

/// A folder in the jail, for its owner alone; the root itself among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Where it is in the jail.
    pub path: JailPath,
    /// Who owns it.
    pub owner: Owner,
}

impl StepKind for Directory {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        Ok(ctx.tree()?.make_directory(&self.path, PRIVATE, self.owner)?)
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        if self.path == JailPath::root() {
            // It goes with the jail's directory.
            return Ok(UndoOutcome::NeverThere);
        }
        Ok(ctx.remove(&self.path)?.into())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {} in the jail, owner {}", self.path, self.owner)
    }
}
