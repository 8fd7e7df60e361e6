//! Obstacles of the filesystem in a jail's tree: immutable and append-only files, and read-only subvolumes of btrfs.
//!
//! An unprivileged owner can make a read-only subvolume. The other attributes need CAP_LINUX_IMMUTABLE, so they are the
//! operator's. A tree that is removed as a whole loses them with its files. They never change on a file that has
//! another hard link, since that may be a file of the host.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags, StatxAttributes,
    StatxFlags,
};
use rustix::io::Errno;
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::subvolume;

use crate::spec::HostPath;
use crate::sys::file_id::FileId;
use crate::sys::open::INSIDE;

const FORBIDDING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// The cause of EPERM or EROFS in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The file or directory has the attribute `i`.
    Immutable,
    /// The file or directory has the attribute `a`.
    AppendOnly,
    /// The subvolume of the directory is read-only.
    ReadOnlySubvolume,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immutable => "is immutable",
            Self::AppendOnly => "is append-only",
            Self::ReadOnlySubvolume => "is in a read-only btrfs subvolume, which the VMM may have created",
        })
    }
}

impl Obstacle {
    /// The obstacle that an open file or directory is itself, or that its subvolume is.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Option<Self> {
        let facts = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
        if facts.stx_attributes.contains(StatxAttributes::IMMUTABLE) {
            return Some(Self::Immutable);
        }
        if facts.stx_attributes.contains(StatxAttributes::APPEND) {
            return Some(Self::AppendOnly);
        }
        None
    }

    /// The command that removes the obstacle at this path.
    pub(crate) fn fix(self, path: &dyn fmt::Display) -> String {
        match self {
            Self::Immutable => format!("chattr -i {path}"),
            Self::AppendOnly => format!("chattr -a {path}"),
            Self::ReadOnlySubvolume => format!("btrfs property set -ts {path} ro false"),
        }
    }
}

/// Whether an open directory is the root of a read-only subvolume.
pub(crate) fn is_read_only_subvolume(directory: BorrowedFd<'_>) -> bool {
    // On other filesystems any directory may have this number, and the request is refused.
    rustix::fs::fstat(directory).is_ok_and(|facts| facts.st_ino == subvolume::ROOT_INODE)
        && subvolume::is_read_only(directory).is_ok_and(|read_only| read_only)
}

/// Makes an open directory's subvolume writable, if the directory is its root. Returns whether that changed anything.
pub(crate) fn make_subvolume_writable(directory: BorrowedFd<'_>) -> bool {
    is_read_only_subvolume(directory) && subvolume::make_writable(directory).is_ok()
}

/// Removes a name from a directory of a jail's tree. Attributes of the file or of the directory that forbid it are
/// cleared.
pub(crate) fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, flags) {
        // Not `||`: both may forbid it.
        Err(Errno::PERM) if clear(parent) | clear_entry(parent, name) => {
            rustix::fs::unlinkat(parent, name, flags)
        }
        unlinked => unlinked,
    }
}

/// Clears the attributes of an open file or directory that forbid a removal. Returns whether that changed anything.
pub(crate) fn clear(file: BorrowedFd<'_>) -> bool {
    let Ok(flags) = rustix::fs::ioctl_getflags(file) else { return false };
    flags.intersects(FORBIDDING) && rustix::fs::ioctl_setflags(file, flags.difference(FORBIDDING)).is_ok()
}

fn clear_entry(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    let Ok((entry, facts)) = entry(parent, name) else { return false };
    let may_change = match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => facts.st_nlink == 1,
        // They cannot be opened without an effect, and no tool sets these attributes on them.
        _ => false,
    };
    // By file descriptor, so that no other file is opened. O_NONBLOCK: a lease is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    may_change
        && rustix::fs::open(fd_path(&entry), flags, Mode::empty()).is_ok_and(|entry| clear(entry.as_fd()))
}

fn entry(parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = INSIDE.union(ResolveFlags::NO_XDEV);
    let entry = rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?;
    let facts = rustix::fs::fstat(&entry)?;
    Ok((entry, facts))
}

/// Why a name in an open directory of a jail's tree cannot be removed.
///
/// # Arguments
/// `at` is its path, for messages.
pub(crate) fn why_left(parent: BorrowedFd<'_>, name: &CStr, at: &HostPath, cause: Errno) -> String {
    match cause {
        Errno::XDEV | Errno::BUSY => "something is mounted there".to_owned(),
        Errno::PERM => why_forbidden(parent, name, at).unwrap_or_else(|| cause.to_string()),
        Errno::ROFS if is_in_read_only_subvolume(parent) => {
            "it is in a read-only btrfs subvolume; make that writable with 'btrfs property set'".to_owned()
        }
        other => other.to_string(),
    }
}

fn why_forbidden(parent: BorrowedFd<'_>, name: &CStr, at: &HostPath) -> Option<String> {
    if let Some(obstacle) = Obstacle::of(parent) {
        let directory = at.as_path().parent()?.display();
        return Some(format!("its directory {obstacle}; run '{}'", obstacle.fix(&directory)));
    }
    let (entry, facts) = entry(parent, name).ok()?;
    let is_file = FileType::from_raw_mode(facts.st_mode).is_file();
    if let Some(obstacle) = Obstacle::of(entry.as_fd()) {
        let linked = if is_file && facts.st_nlink > 1 { " and a hard link of a file elsewhere" } else { "" };
        return Some(format!("it {obstacle}{linked}; run '{}'", obstacle.fix(at)));
    }
    is_swap(FileId::from(&facts)).then(|| format!("it is an active swap file; run 'swapoff {at}'"))
}

fn is_swap(file: FileId) -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut paths = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths.any(|path| FileId::at(path).is_ok_and(|swap| swap == file))
}

/// Whether EROFS in this directory comes from its subvolume, and not from its mount or filesystem.
pub(crate) fn is_in_read_only_subvolume(directory: BorrowedFd<'_>) -> bool {
    const BTRFS: u64 = 0x9123_683e;
    let is_btrfs = rustix::fs::fstatfs(directory).is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(BTRFS));
    is_btrfs
        && rustix::fs::fstatvfs(directory)
            .is_ok_and(|facts| !facts.f_flag.contains(StatVfsMountFlags::RDONLY))
}
