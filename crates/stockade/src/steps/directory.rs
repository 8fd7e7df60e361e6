//! Directories: those that jails share, a jail's own, and those in it.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{NOT_OWN, StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, Result, errno};
use crate::spec::{HostPath, JailPath, Layout, Owner};
use crate::sys::directory_names::names;
use crate::sys::jail_root::JailRoot;
use crate::sys::modes::{self, PRIVATE, PUBLIC};
use crate::sys::obstacle::{clear, make_subvolume_writable, unlink};
use crate::sys::open::{INSIDE, open_directory};
use crate::sys::owned_dir::{ATTEMPTS, ancestors, make_marked, remove_if_marked_and_empty, temporary_path};
use crate::sys::remove_tree::{Removal, remove_with_progress};
use crate::sys::rooted::rooted_at;

/// The mode of a jail's marker file, whose name is all that matters.
pub(super) const MARKER: u32 = 0;

/// A directory that all jails of an executable share, with the missing ones above it.
///
/// The last jail to be removed also removes those of them that stockade created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDirectory {
    /// Its path.
    pub path: HostPath,
}

impl StepKind for SharedDirectory {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        match &ctx.mark {
            Some(nonce) => Ok(make_marked(&self.path, nonce)?),
            // Without a receipt the directory is created for one root, and an error names that root.
            None => DirBuilder::new()
                .recursive(true)
                .mode(PUBLIC)
                .create(&self.path)
                .map_err(|e| if errno(&e) == Errno::EXIST { Errno::NOTDIR } else { errno(&e) })
                .context(Operation::CreateDirectory, ctx.layout.root()),
        }
    }
}

impl Undo for SharedDirectory {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        if let Some(nonce) = &ctx.mark {
            // Its creator may have been killed before it renamed the directory.
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

/// The jail's own directory, which belongs to root, with the root in it.
///
/// The root belongs to root until a [`Directory`] step changes its owner. Until then no other process can interfere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailDirectory {
    /// Its path.
    pub path: HostPath,
    /// Whether an existing directory is taken over, with everything in it.
    pub take_over: bool,
}

impl JailDirectory {
    /// Creates or takes over the directory and its root, by path.
    ///
    /// Every directory on the way belongs to root, and without a receipt nothing has to be marked.
    fn take_over(&self, ctx: &StepContext) -> Result<()> {
        let at = ctx.layout.root();
        let make = |path: &HostPath, mode| match rustix::fs::mkdir(path.as_path(), Mode::from_raw_mode(mode))
        {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(cause) => Err(cause).context(Operation::CreateDirectory, &at),
        };
        make(&self.path, PUBLIC)?;
        let is_new = make(&at, PRIVATE)?;
        let root = open_directory(CWD, at.as_path(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
            .context(Operation::CreateDirectory, &at)?;
        let tree = JailRoot::new(root, at, is_new, ctx.is_recorded());
        if !is_new {
            ensure_vacant(&tree, &ctx.layout)?;
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
        // The last jail's teardown may remove the shared directory above at this moment.
        for _ in 0..ATTEMPTS {
            match rustix::fs::mkdir(self.path.as_path(), Mode::from_raw_mode(PUBLIC)) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    return Err(Error::InTheWay { what: format!("directory '{}'", self.path) });
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
}

impl Undo for JailDirectory {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        let directory = match self.open() {
            Ok(directory) => directory,
            // A name that is too long cannot have been created.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(UndoOutcome::NeverThere),
            Err(cause) => return Err(cause).context(Operation::Open, &self.path),
        };
        if ctx.is_own()?
            && let Some((path, why)) = self.empty(directory.as_fd(), ctx)?
        {
            return Ok(UndoOutcome::Left(format!("{path}: {why}")));
        }
        // An empty one without a marker was being created or removed when its process was killed.
        let removed = match rustix::fs::rmdir(self.path.as_path()) {
            Err(Errno::PERM) if clear(directory.as_fd()) => rustix::fs::rmdir(self.path.as_path()),
            removed => removed,
        };
        match removed {
            Ok(()) => Ok(UndoOutcome::Removed),
            Err(Errno::NOENT) => Ok(UndoOutcome::NeverThere),
            Err(Errno::NOTEMPTY) => Ok(UndoOutcome::Kept(NOT_OWN.into())),
            Err(cause) => Err(cause).context(Operation::Remove, &self.path),
        }
    }
}

impl JailDirectory {
    /// Removes everything in the directory, and returns the first path that could not be removed, with the reason.
    ///
    /// The marker is last: if this process is killed, the directory is still marked.
    fn empty(&self, directory: BorrowedFd<'_>, ctx: &StepContext) -> Result<Option<(HostPath, String)>> {
        make_subvolume_writable(directory);
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
            let name = CString::new(marker.as_str()).unwrap_or_default();
            match unlink(directory, &name, AtFlags::empty()) {
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

/// Returns an error if processes live in the root, and removes the pid file of a process that has exited.
fn ensure_vacant(tree: &JailRoot, layout: &Layout) -> Result<()> {
    if expect_unoccupied_tree(tree, layout)? {
        // Its writer was in the root, and no process is there now, so that process has exited. If the file cannot be
        // removed, the write of the new one fails.
        let _ = rustix::fs::unlinkat(tree.root(), layout.pid_file(), AtFlags::empty());
    }
    Ok(())
}

/// Returns an error if processes live in the tree, and otherwise whether it has a pid file.
///
/// The processes are searched only if a jail has been in the root, that is if it has a pid file or an
/// executable. A root into which the caller has only put files has neither.
fn expect_unoccupied_tree(tree: &JailRoot, layout: &Layout) -> Result<bool> {
    let has = |path: &JailPath| {
        // A symbolic link, or another file that cannot be opened, exists too.
        !matches!(tree.look(path), Ok(None))
    };
    let executable = JailPath::new(layout.exec_name())?;
    let has_pid = has(&JailPath::new(layout.pid_file())?);
    if !has_pid && !has(&executable) {
        return Ok(false);
    }
    // Processes that cannot be inspected, here or in another pid namespace, still execute the file.
    if let Some(&pid) = rooted_at(tree.root()).unwrap_or_default().found.first() {
        return Err(Error::Running { id: layout.id(), pid });
    }
    if tree.links_of_busy(&executable).is_some() {
        return Err(Errno::TXTBSY).context(Operation::OpenPlaced, tree.host_path(&executable))?;
    }
    Ok(has_pid)
}

/// A directory in the jail that only its owner may enter. The root itself is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Its path in the jail.
    pub path: JailPath,
    /// Its owner.
    pub owner: Owner,
}

impl StepKind for Directory {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        Ok(ctx.tree()?.make_directory(&self.path, PRIVATE, self.owner)?)
    }
}

impl Undo for Directory {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        if self.path == JailPath::root() {
            // It is removed with the jail's directory.
            return Ok(UndoOutcome::NeverThere);
        }
        Ok(ctx.remove(&self.path)?.into())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {} in the jail, owner {}", self.path, self.owner)
    }
}
