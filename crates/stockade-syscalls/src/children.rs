//! Children that have exited, also those that were left to this process.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::program::last_errno;

/// A child that has exited and was not waited for; `None` if there is none. It stays a zombie.
///
/// # Errors
/// Returns the errors of `waitid` other than ECHILD.
pub fn exited_child() -> Result<Option<Pid>, Errno> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is a structure of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for writing a siginfo_t.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
        return match last_errno() {
            Errno::CHILD => Ok(None),
            cause => Err(cause),
        };
    }
    // SAFETY: waitid has filled the fields of a child, or left the pid zero.
    Ok(Pid::from_raw(unsafe { info.si_pid() }))
}

/// Waits for a child that has exited.
///
/// # Errors
/// Returns the errors of `waitpid`.
pub fn reap(child: Pid) -> Result<(), Errno> {
    waitpid(Some(child), WaitOptions::NOHANG).map(drop)
}
