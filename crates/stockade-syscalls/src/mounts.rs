//! Detached mounts, mount attributes, and the mount namespaces of other processes.

use std::ffi::{CStr, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags};

use crate::namespace::namespace_file;
use crate::program::last_errno;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const AT_RECURSIVE: c_int = 0x8000;

/// Creates a detached, private mount of an open file or directory, without the mounts below it.
///
/// The mount is nosuid and nodev. It is in no mount table, and the kernel removes it with its file descriptor unless
/// it was attached.
///
/// # Errors
/// Returns the errors of `open_tree` (EINVAL if the source cannot be bound) and `mount_setattr` (ENOSYS before Linux
/// 5.12).
pub fn detached(source: BorrowedFd<'_>, read_only: bool) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(source, c"", flags)?;
    let read_only = if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = MountAttributes {
        set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | read_only,
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    set_attributes(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH, &attributes)?;
    Ok(mount)
}

/// Makes the mount at `path` and all mounts below it nosuid slaves.
///
/// Later mounts here do not propagate, and no program on these mounts gains privileges by an exec.
///
/// # Errors
/// Returns ENOSYS before Linux 5.12, EINVAL if `path` is no mount point.
pub(crate) fn make_nosuid_slaves(path: &CStr) -> Result<(), Errno> {
    set_below(path, libc::MS_SLAVE)
}

/// Makes the mount at `path` and all mounts below it nosuid.
///
/// # Errors
/// See [`make_nosuid_slaves`].
pub(crate) fn make_nosuid(path: &CStr) -> Result<(), Errno> {
    set_below(path, 0)
}

fn set_below(path: &CStr, propagation: u64) -> Result<(), Errno> {
    let attributes = MountAttributes { set: MOUNT_ATTR_NOSUID, clear: 0, propagation, userns_fd: 0 };
    set_attributes(libc::AT_FDCWD, path, AT_RECURSIVE, &attributes)
}

/// Makes the mount of the working directory nosuid without `mount_setattr`.
pub(crate) fn remount_nosuid() -> Result<(), Errno> {
    let now = rustix::fs::statvfs(c".")?.f_flag;
    let kept = KEPT_BY_A_REMOUNT.iter().filter(|(state, _)| now.contains(*state));
    let flags = kept.fold(MountFlags::BIND | MountFlags::NOSUID, |flags, (_, flag)| flags | *flag);
    rustix::mount::mount_remount(c".", flags, c"")
}

/// A remount replaces all of these flags, so it must name the current ones.
const KEPT_BY_A_REMOUNT: [(StatVfsMountFlags, MountFlags); 5] = [
    (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
];

fn set_attributes(from: RawFd, path: &CStr, flags: c_int, attributes: &MountAttributes) -> Result<(), Errno> {
    // SAFETY: the kernel reads a NUL-terminated string and a whole `mount_attr` of the stated size, which both outlive
    // the call; it writes to no memory of this process.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            from,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Opens a mount namespace by its file for attaching mounts.
///
/// # Errors
/// Returns the errors of opening the namespace. Returns EPERM if another user namespace owns it: a process there could
/// remount a read-only mount as writable there.
pub fn mount_namespace(file: &str) -> Result<OwnedFd, Errno> {
    let namespace = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let own = rustix::fs::stat(namespace_file("self", "user"))?;
    let owner = rustix::fs::fstat(owner(namespace.as_fd())?)?;
    if (owner.st_dev, owner.st_ino) == (own.st_dev, own.st_ino) { Ok(namespace) } else { Err(Errno::PERM) }
}

/// The user namespace that owns a namespace.
fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this request takes no argument and touches no memory of this process.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the file descriptor is new, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
