//! A mount that is attached nowhere yet, and the mount namespace of another process.

use std::ffi::{CStr, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags};

use crate::program::last_errno;

/// `struct mount_attr` of the kernel.
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

/// A private mount of an open file or directory, without the mounts below it: set-uid bits and device nodes
/// have no effect through it. It is in no mount table, and goes with its descriptor unless it is attached.
///
/// # Errors
/// What the kernel says of `open_tree` (EINVAL for what may not be bound) or `mount_setattr` (ENOSYS before
/// Linux 5.12).
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

/// Makes the mount at `path` and all below it slaves without set-uid bits: what is mounted here goes nowhere else,
/// and no program that is executed through them has more privileges than who executes it.
///
/// # Errors
/// ENOSYS before Linux 5.12, EINVAL if nothing is mounted there.
pub(crate) fn make_nosuid_slaves(path: &CStr) -> Result<(), Errno> {
    set_below(path, libc::MS_SLAVE)
}

/// Takes set-uid bits away from the mount at `path` and all below it.
///
/// # Errors
/// As for [`make_nosuid_slaves`].
pub(crate) fn make_nosuid(path: &CStr) -> Result<(), Errno> {
    set_below(path, 0)
}

fn set_below(path: &CStr, propagation: u64) -> Result<(), Errno> {
    let attributes = MountAttributes { set: MOUNT_ATTR_NOSUID, clear: 0, propagation, userns_fd: 0 };
    set_attributes(libc::AT_FDCWD, path, AT_RECURSIVE, &attributes)
}

/// The same for the mount of the working directory alone, where there is no `mount_setattr`.
pub(crate) fn remount_nosuid() -> Result<(), Errno> {
    let now = rustix::fs::statvfs(c".")?.f_flag;
    let kept = KEPT_BY_A_REMOUNT.iter().filter(|(state, _)| now.contains(*state));
    let flags = kept.fold(MountFlags::BIND | MountFlags::NOSUID, |flags, (_, flag)| flags | *flag);
    rustix::mount::mount_remount(c".", flags, c"")
}

/// A remount sets all of these, so those that are set have to be named.
const KEPT_BY_A_REMOUNT: [(StatVfsMountFlags, MountFlags); 5] = [
    (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
    (StatVfsMountFlags::NODEV, MountFlags::NODEV),
    (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
];

fn set_attributes(from: RawFd, path: &CStr, flags: c_int, attributes: &MountAttributes) -> Result<(), Errno> {
    // SAFETY: the kernel reads a string closed by a NUL and a whole `mount_attr` of the size it is told, which both
    // outlive the call; it writes to no memory of this process.
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

/// The mount namespace of a process, to attach something in it.
///
/// # Errors
/// What the kernel says of opening it. EPERM if the process has a user namespace of its own: there it could
/// make writable what was attached as read-only.
pub fn mount_namespace(pid: i32) -> Result<OwnedFd, Errno> {
    let open = |path: String| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let namespace = open(format!("/proc/{pid}/ns/mnt"))?;
    let ours = rustix::fs::statat(CWD, "/proc/self/ns/user", rustix::fs::AtFlags::empty())?;
    let owner = rustix::fs::fstat(owner(namespace.as_fd())?)?;
    if (owner.st_dev, owner.st_ino) == (ours.st_dev, ours.st_ino) { Ok(namespace) } else { Err(Errno::PERM) }
}

/// The user namespace that a namespace belongs to.
fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this request takes no argument and touches no memory of this process.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made the descriptor, so this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
