//! A mount that is attached nowhere yet, and the mount namespace of another process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

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
    // SAFETY: the kernel reads an empty string and a whole `mount_attr` of the size it is told, which both
    // outlive the call; it writes to no memory of this process.
    let refused = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if refused == 0 { Ok(mount) } else { Err(last_errno()) }
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
