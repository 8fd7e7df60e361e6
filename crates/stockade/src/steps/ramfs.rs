//! A ramfs in the jail.

use std::fmt;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::fd_path;

use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Operation, Result};
use crate::spec::{JailPath, Owner};
use crate::sys::jail_root::JailRoot;
use crate::sys::modes::change_owner;
use crate::sys::mounts;

/// A ramfs on a directory of the jail: memory that is never swapped out.
///
/// The kernel records the size of a ramfs without enforcing it. A memory cgroup limits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramfs {
    /// Its path in the jail.
    pub path: JailPath,
    /// Its source in the mount table.
    pub name: String,
    /// Its nominal size in bytes.
    pub size: u64,
    /// The owner of its root.
    pub owner: Owner,
}

impl StepKind for Ramfs {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let tree = ctx.tree()?;
        let at = tree.host_path(&self.path);
        tree.make_directory(&self.path, 0o700, self.owner)?;
        let directory = tree.look(&self.path)?.ok_or(Errno::NOENT).context(Operation::Open, &at)?;
        let mount = || {
            let context = rustix::mount::fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&context, "source", self.name.as_str())?;
            rustix::mount::fsconfig_set_string(&context, "size", self.size.to_string())?;
            rustix::mount::fsconfig_set_string(&context, "mode", "700")?;
            rustix::mount::fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let ramfs = mount().context(Operation::Mount, &at)?;
        change_owner(ramfs.as_fd(), self.owner).context(Operation::ChangeOwner, &at)?;
        // Onto the open directory, whatever its path leads to now.
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&ramfs, c"", &directory, c"", flags).context(Operation::Mount, &at)
    }
}

impl Undo for Ramfs {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        let Some(tree) = ctx.own_tree()? else { return Ok(UndoOutcome::NeverThere) };
        let unmounted = self.unmount(tree)?;
        let removal = tree.remove(&self.path)?;
        Ok(if unmounted == UndoOutcome::Removed { unmounted } else { removal.into() })
    }
}

impl Ramfs {
    fn unmount(&self, tree: &JailRoot) -> Result<UndoOutcome> {
        let Some(root) = tree.look(&self.path)? else { return Ok(UndoOutcome::NeverThere) };
        let at = tree.host_path(&self.path);
        let (_, is_root) = mounts::id_of(root.as_fd()).context(Operation::Inspect, &at)?;
        if !is_root {
            return Ok(UndoOutcome::NeverThere);
        }
        if !mounts::mount_of(root.as_fd())?.is_some_and(|mount| mounts::is_ramfs(&mount, &self.name)) {
            return Ok(UndoOutcome::Left(format!("{at}: another filesystem is mounted there")));
        }
        if mounts::has_children(root.as_fd())? {
            return Ok(UndoOutcome::Left(format!("{at}: something is mounted in it")));
        }
        // By file descriptor, so that exactly the inspected mount is unmounted.
        let by_descriptor = fd_path(&root);
        rustix::mount::unmount(by_descriptor, UnmountFlags::DETACH).context(Operation::Unmount, &at)?;
        Ok(UndoOutcome::Removed)
    }
}

impl fmt::Display for Ramfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ramfs {} on {} ({} bytes), owner {}", self.name, self.path, self.size, self.owner)
    }
}
