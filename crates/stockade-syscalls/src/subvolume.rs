//! Subvolumes of btrfs: whether one is read-only.
//!
//! The owner of a directory may create subvolumes in it and make them read-only, without any privilege.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::program::last_errno;

/// `BTRFS_IOC_SUBVOL_GETFLAGS`: `_IOR(0x94, 25, __u64)`.
const GET_FLAGS: libc::c_ulong = 0x8008_9419;
/// `BTRFS_IOC_SUBVOL_SETFLAGS`: `_IOW(0x94, 26, __u64)`.
const SET_FLAGS: libc::c_ulong = 0x4008_941a;
/// `BTRFS_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 2;

/// The inode number of the root directory of each subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
pub const ROOT_INODE: u64 = 256;

/// Whether an open directory is the root of a read-only subvolume.
///
/// # Errors
/// Returns ENOTTY if the directory is not on btrfs, EINVAL if it is not the root of a subvolume.
pub fn is_read_only(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    flags(root).map(|flags| flags & READ_ONLY != 0)
}

/// Makes the subvolume writable whose root is open.
///
/// # Errors
/// Returns EROFS if the filesystem is mounted read-only, EPERM if the caller is neither the owner nor privileged, or
/// while the subvolume is being sent.
pub fn make_writable(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = flags(root)? & !READ_ONLY;
    // SAFETY: the kernel reads 8 bytes from `flags`, which outlives the call.
    let refused = unsafe { libc::ioctl(root.as_raw_fd(), SET_FLAGS, &raw const flags) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

fn flags(root: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut flags = 0_u64;
    // SAFETY: the kernel writes 8 bytes to `flags`, which outlives the call.
    let refused = unsafe { libc::ioctl(root.as_raw_fd(), GET_FLAGS, &raw mut flags) };
    if refused == 0 { Ok(flags) } else { Err(last_errno()) }
}
