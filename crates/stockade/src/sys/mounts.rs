//! Mounts: reading the mount table, finding the mount of a file, and unmounting.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::mount_table::{self, OWN_TABLE};

pub(crate) use stockade_syscalls::mount_table::{Mount, id_of};

use super::error::{Context, Operation, Result};
use super::open::{open_directory, open_path};
use crate::spec::HostPath;

/// All mounts that this process sees, in the order of creation.
pub(crate) fn table() -> Result<Vec<Mount>> {
    mount_table::read(OWN_TABLE).context(Operation::Read, OWN_TABLE)
}

/// The mount that an open file is on; `None` if this process does not see it.
pub(crate) fn mount_of(file: BorrowedFd<'_>) -> Result<Option<Mount>> {
    mount_table::mount_of(file).context(Operation::Read, OWN_TABLE)
}

/// Whether an open directory is the root of a mount.
pub(crate) fn is_mount_point(directory: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    id_of(directory).map(|(_, is_root)| is_root)
}

/// Whether the mount that an open file is on has child mounts.
pub(crate) fn has_children(file: BorrowedFd<'_>) -> Result<bool> {
    mount_table::has_children(file).context(Operation::Read, OWN_TABLE)
}

/// Whether a mount is the ramfs with this name.
pub(crate) fn is_ramfs(mount: &Mount, name: &str) -> bool {
    mount.fs_type == "ramfs" && mount.source.as_deref().is_some_and(|source| source == name)
}

/// Whether a mount is the ramfs of any jail.
pub(crate) fn is_ramfs_of_jail(mount: &Mount) -> bool {
    let named = |source: &str| source.starts_with("ramfs-");
    mount.fs_type == "ramfs" && mount.source.as_deref().and_then(|source| source.to_str()).is_some_and(named)
}

/// Unmounts a mount of the table, and nothing in it.
///
/// It is unmounted by a file descriptor of its root, because its path may lead to another mount now.
///
/// # Arguments
/// `above` is a directory that belongs to root and contains the mount.
pub(crate) fn unmount(mount: &Mount, above: &HostPath) -> Result<()> {
    let at = mount.point.display();
    let below = mount.point.strip_prefix(above.as_path()).unwrap_or(Path::new("."));
    let root = open_directory(CWD, above.as_path(), ResolveFlags::empty())
        .and_then(|above| open_path(above.as_fd(), below))
        .context(Operation::Unmount, &at)?;
    let (id, is_root) = id_of(root.as_fd()).context(Operation::Unmount, &at)?;
    if id != mount.id || !is_root {
        return Err(Errno::STALE).context(Operation::Unmount, &at);
    }
    let by_descriptor = fd_path(&root);
    rustix::mount::unmount(by_descriptor, UnmountFlags::DETACH).context(Operation::Unmount, &at)
}

/// The text of a mount in messages.
pub(crate) struct Described<'m>(pub(crate) &'m Mount);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mount { point, fs_type, source, .. } = self.0;
        let source = source.as_deref().unwrap_or_default();
        write!(f, "mount {} ({fs_type}, {})", point.display(), source.display())
    }
}
