//! The user namespace of this process.

use rustix::io::Errno;
use stockade_syscalls::namespace::namespace_file;

/// The inode of the initial user namespace, which is the same in every kernel (`PROC_USER_INIT_INO`).
const INITIAL: u64 = 0xefff_fffd;

/// Whether this process is in the initial user namespace.
///
/// # Errors
/// Returns the errors of `stat`.
pub(crate) fn try_is_initial() -> Result<bool, Errno> {
    rustix::fs::stat(namespace_file("self", "user")).map(|facts| facts.st_ino == INITIAL)
}

/// Whether this process is certainly in the initial user namespace.
pub(crate) fn is_in_initial_user_namespace() -> bool {
    try_is_initial() == Ok(true)
}
