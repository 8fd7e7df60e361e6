//! Mounts in a jail's directory, as the mount table tells of them.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result};
use crate::sys::jail_root::{INSIDE, open_directory};
use crate::sys::procfs::{read, unescape};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u64,
    parent: u64,
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    source: String,
}

impl Mount {
    /// A line of mountinfo: `ID PARENT DEVICE ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE …`.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let (id, parent) = (before.next()?.parse().ok()?, before.next()?.parse().ok()?);
        let point = unescape(before.nth(2)?).into();
        let mut after = after.split(' ');
        Some(Self { id, parent, point, kind: after.next()?.to_owned(), source: unescape(after.next()?) })
    }

    /// Whether it is a ramfs that stockade calls so.
    pub(crate) fn is_ramfs(&self, name: &str) -> bool {
        self.kind == "ramfs" && self.source == name
    }

    /// Whether it is the ramfs of some jail.
    pub(crate) fn is_ramfs_of_jail(&self) -> bool {
        self.kind == "ramfs" && self.source.starts_with("ramfs-")
    }

    /// Takes it away, by a descriptor of its root: the path may lead elsewhere by now, and what is unmounted is
    /// what was looked at. `above` is a directory of root's that it is in; nothing in the mount is touched.
    pub(crate) fn unmount(&self, above: &HostPath) -> Result<()> {
        let at = self.point.display();
        let below = self.point.strip_prefix(above.as_path()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = open_directory(CWD, above.as_path(), ResolveFlags::empty())
            .and_then(|above| rustix::fs::openat2(above, below, flags, Mode::empty(), INSIDE))
            .context(Operation::Unmount, &at)?;
        let (id, is_root) = mount_of(std::os::fd::AsFd::as_fd(&root)).context(Operation::Unmount, &at)?;
        if id != self.id || !is_root {
            return Err(Errno::STALE).context(Operation::Unmount, &at);
        }
        let by_descriptor = format!("/proc/self/fd/{}", root.as_raw_fd());
        rustix::mount::unmount(by_descriptor, UnmountFlags::DETACH).context(Operation::Unmount, &at)
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mount {} ({}, {})", self.point.display(), self.kind, self.source)
    }
}

/// The mount that an open file is on, by its number in the mount table, and whether the file is its root.
pub(crate) fn mount_of(file: BorrowedFd<'_>) -> std::result::Result<(u64, bool), Errno> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let facts = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, mask)?;
    Ok((facts.stx_mnt_id, facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
}

/// Every mount that this process sees, in the order in which they were made.
pub(crate) fn table() -> Result<Vec<Mount>> {
    Ok(read("/proc/self/mountinfo")?.lines().filter_map(Mount::parse).collect())
}

/// The mount with this number.
pub(crate) fn find(id: u64) -> Result<Option<Mount>> {
    Ok(table()?.into_iter().find(|mount| mount.id == id))
}

/// Whether anything is mounted in the mount with this number.
pub(crate) fn has_children(id: u64) -> Result<bool> {
    Ok(table()?.iter().any(|mount| mount.parent == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_from_its_line() {
        let line =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).expect("a line of mountinfo");
        assert_eq!(
            (mount.id, mount.parent, mount.to_string().as_str()),
            (36, 35, "mount /mnt 2 (ext3, /dev/root)")
        );
        assert_eq!(Mount::parse("36 35 98:0 /"), None);
    }
}
