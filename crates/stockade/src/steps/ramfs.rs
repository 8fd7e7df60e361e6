//! A ramfs in the jail.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, UndoOutcome};
use crate::error::{Context, Operation, Result};
use crate::spec::{JailPath, Owner};
use crate::sys::jail_root::{JailRoot, change_owner};
use crate::sys::mounts;

/// A ramfs on a folder of the jail: memory that is never swapped out.
///
/// The kernel takes note of a ramfs's size and enforces nothing; a memory cgroup does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramfs {
    /// Where it is in the jail.
    pub path: JailPath,
    /// What the mount table calls it.
    pub name: String,
    /// Its nominal size in bytes.
    pub size: u64,
    /// Who owns its root.
    pub owner: Owner,
}

impl StepKind for Ramfs {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let tree = ctx.tree()?;
        let at = tree.host_path(&self.path);
        tree.make_directory(&self.path, 0o700, self.owner)?;
        let folder = tree.look(&self.path)?.ok_or(Errno::NOENT).context(Operation::Open, &at)?;
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
        // Onto the folder that was opened, whatever its name leads to by now.
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&ramfs, c"", &folder, c"", flags).context(Operation::Mount, &at)
    }

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
        // Through the descriptor, so that exactly what was looked at is unmounted.
        let by_descriptor = format!("/proc/self/fd/{}", root.as_raw_fd());
        rustix::mount::unmount(by_descriptor, UnmountFlags::DETACH).context(Operation::Unmount, &at)?;
        Ok(UndoOutcome::Removed)
    }
}

impl fmt::Display for Ramfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ramfs {} on {} ({} bytes), owner {}", self.name, self.path, self.size, self.owner)
    }
}
