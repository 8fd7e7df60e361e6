//! A named network namespace, created as `ip netns add` does, without running `ip`.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::fd_path;

use super::{NOT_OWN, StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, NETNS_DIRECTORY, NetnsName};
use crate::sys::modes::{self, PUBLIC};
use crate::sys::open::open_directory;

/// A network namespace mounted on a file of [`NETNS_DIRECTORY`].
///
/// The file under the mount contains the mark of the jail, so that a namespace of the same name that belongs
/// to another program is never removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNetns {
    /// Its name.
    pub name: NetnsName,
}

impl NamedNetns {
    /// Creates a marked file under the namespace's name.
    ///
    /// # Errors
    /// Returns `InTheWay` if the name exists.
    fn claim(&self, ctx: &StepContext, directory: &OwnedFd) -> Result<()> {
        let path = self.name.path();
        let temporary = ctx.own_name();
        // Mode 0, as with `ip netns add`: the file is only a mount point.
        let file =
            modes::create_file(directory, &temporary, OFlags::empty(), 0).context(Operation::Open, &path)?;
        rustix::io::write(&file, mark(ctx).as_bytes()).context(Operation::Write, &path)?;
        match rustix::fs::renameat_with(
            directory,
            &temporary,
            directory,
            self.name.as_str(),
            RenameFlags::NOREPLACE,
        ) {
            Err(Errno::EXIST) => {
                let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
                Err(Error::InTheWay { what: format!("network namespace '{}'", self.name) })
            }
            renamed => renamed.context(Operation::Rename, &path),
        }
    }
}

impl StepKind for NamedNetns {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let path = self.name.path();
        let directory = shared_directory()?;
        self.claim(ctx, &directory)?;
        let netns = ctx.network().context(Operation::CreateNetns, &self.name)?;
        let by_descriptor = fd_path(&netns);
        rustix::mount::mount_bind(by_descriptor, path.as_path()).context(Operation::Mount, &path)
    }
}

impl Undo for NamedNetns {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        remove(self.name.as_str(), ctx, |found| found == mark(ctx))
    }
}

/// Removes the namespace with this name if `is_removable` accepts the mark in the file under the mount.
pub(super) fn remove(
    name: &str,
    ctx: &StepContext,
    is_removable: impl Fn(&str) -> bool,
) -> Result<UndoOutcome> {
    let path: HostPath = Path::new(NETNS_DIRECTORY).join(name).into();
    let directory = match open_directory(CWD, Path::new(NETNS_DIRECTORY), ResolveFlags::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(UndoOutcome::NeverThere),
        Err(cause) => return Err(cause).context(Operation::Open, NETNS_DIRECTORY),
    };
    let _ = rustix::fs::unlinkat(&directory, ctx.own_name(), AtFlags::empty());
    match mark_below(&directory, name) {
        Ok(found) if is_removable(&found) => (),
        Ok(_) => return Ok(UndoOutcome::Kept(NOT_OWN.into())),
        Err(Errno::NOENT) => return Ok(UndoOutcome::NeverThere),
        Err(cause) => return Err(cause).context(Operation::Read, &path),
    }
    match rustix::mount::unmount(path.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: not a mount, because its creator was interrupted before.
        Ok(()) | Err(Errno::INVAL) => (),
        Err(cause) => return Err(cause).context(Operation::Unmount, &path),
    }
    rustix::fs::unlinkat(&directory, name, AtFlags::empty()).context(Operation::Remove, &path)?;
    Ok(UndoOutcome::Removed)
}

impl fmt::Display for NamedNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.name)
    }
}

/// The beginning of every mark.
pub(super) const MARKED: &str = "stockade ";

pub(super) fn mark(ctx: &StepContext) -> String {
    format!("{MARKED}{}\n", ctx.own_name())
}

/// Reads the file under the mount, through a clone of the directory without the mounts below it.
fn mark_below(directory: &OwnedFd, name: &str) -> std::result::Result<String, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let bare = rustix::mount::open_tree(directory, c"", flags)?;
    let file =
        rustix::fs::openat(&bare, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 128];
    let length = rustix::io::read(file, &mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Opens the directory of namespaces, and creates it as `ip netns add` does on its first use after boot.
///
/// It is a shared mount of its own, so that every mount namespace sees the names.
fn shared_directory() -> Result<OwnedFd> {
    let at: HostPath = Path::new(NETNS_DIRECTORY).to_owned().into();
    modes::make_directories(at.as_path(), PUBLIC).context(Operation::CreateDirectory, &at)?;
    let share = || {
        let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        rustix::mount::mount_change(at.as_path(), flags)
    };
    let mount = || rustix::mount::mount_bind_recursive(at.as_path(), at.as_path()).and_then(|()| share());
    match share() {
        // EINVAL: not a mount yet. Two concurrent first uses would mount it twice, so they take turns. But
        // any process can open and lock a directory, so the wait is short.
        Err(Errno::INVAL) => {
            let lock =
                open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, &at)?;
            let deadline = Instant::now() + Duration::from_secs(1);
            while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
                && share().is_err()
                && Instant::now() < deadline
            {
                std::thread::yield_now();
            }
            share().or_else(|_| mount())
        }
        shared => shared,
    }
    .context(Operation::Mount, &at)?;
    open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, &at)
}
