//! A named network namespace, created as `ip netns add` does, without running `ip`.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::fd_path;

use super::{NOT_OWN, StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, NETNS_DIRECTORY, NetnsName};
use crate::sys::flock;
use crate::sys::modes::{self, PUBLIC};
use crate::sys::netns_users::{NetnsUser, NetnsUsers};
use crate::sys::open::open_directory;

/// A network namespace mounted on a file of [`NETNS_DIRECTORY`].
///
/// The file under the mount lists the jails that use it, so that a namespace of the same name that belongs to another
/// program is never removed, and one that several jails use goes with the last of them.
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
        rustix::io::write(&file, user(ctx).line().as_bytes()).context(Operation::Write, &path)?;
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
        remove(self.name.as_str(), ctx, Foreign::Keep)
    }
}

/// What is done with a namespace that no jail has marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    Keep,
    /// Another program has created it for this jail.
    Remove,
}

/// Removes a namespace that this jail uses, unless other jails use it too.
pub(super) fn remove(name: &str, ctx: &StepContext, foreign: Foreign) -> Result<UndoOutcome> {
    let path: HostPath = Path::new(NETNS_DIRECTORY).join(name).into();
    let directory = match open_directory(CWD, Path::new(NETNS_DIRECTORY), ResolveFlags::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(UndoOutcome::NeverThere),
        Err(cause) => return Err(cause).context(Operation::Open, NETNS_DIRECTORY),
    };
    let _ = rustix::fs::unlinkat(&directory, ctx.own_name(), AtFlags::empty());
    let mut list = match NetnsUsers::lock(&directory, name) {
        Ok(list) => list,
        Err(Errno::NOENT) => return Ok(UndoOutcome::NeverThere),
        Err(Errno::INVAL | Errno::LOOP | Errno::NXIO) => return Ok(UndoOutcome::Kept(NOT_OWN.into())),
        Err(Errno::WOULDBLOCK) => return Err(Errno::WOULDBLOCK).context(Operation::Lock, &path),
        Err(cause) => return Err(cause).context(Operation::Read, &path),
    };
    let own = ctx.own_name();
    let (mine, others): (Vec<_>, Vec<_>) = list.users.iter().cloned().partition(|user| user.mark == own);
    match (mine.is_empty(), &others[..]) {
        (true, []) if foreign == Foreign::Remove => (),
        (true, _) => return Ok(UndoOutcome::Kept(NOT_OWN.into())),
        (false, []) => (),
        (false, others) => {
            let reason = used_by(others);
            list.remove(&own).context(Operation::Write, &path)?;
            return Ok(UndoOutcome::Kept(reason));
        }
    }
    match rustix::mount::unmount(path.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: not a mount, because its creator was interrupted before.
        Ok(()) | Err(Errno::INVAL) => (),
        Err(cause) => return Err(cause).context(Operation::Unmount, &path),
    }
    rustix::fs::unlinkat(&directory, name, AtFlags::empty()).context(Operation::Remove, &path)?;
    Ok(UndoOutcome::Removed)
}

fn used_by(others: &[NetnsUser]) -> String {
    let more = match others.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("used by jail '{}'{more}, and removed with the last of them", others[0].id)
}

impl fmt::Display for NamedNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.name)
    }
}

/// This jail in the list of those that use a namespace.
pub(super) fn user(ctx: &StepContext) -> NetnsUser {
    NetnsUser { mark: ctx.own_name(), id: ctx.layout.id().to_string() }
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
        // EINVAL: not a mount yet. Two concurrent first uses would mount it twice, so they take turns. Without
        // the lock it is mounted too: twice is better than never.
        Err(Errno::INVAL) => {
            let lock =
                open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, &at)?;
            let _ = flock::lock(&lock);
            share().or_else(|_| mount())
        }
        shared => shared,
    }
    .context(Operation::Mount, &at)?;
    open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, &at)
}
