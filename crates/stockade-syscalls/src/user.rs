//! Looking at files and processes with the rights of another user.

use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

/// Runs `work` in a thread that has the file rights of another user, and no other user's.
///
/// The kernel lets such a thread inspect the processes of that user, for which the caller itself would need
/// CAP_SYS_PTRACE. The caller's own rights, and those of its other threads, stay.
///
/// # Arguments
/// `uid` and `gid` are those of the user.
///
/// # Errors
/// Returns EPERM if the caller may not become this user (CAP_SETUID, CAP_SETGID), or an error if no thread can be
/// started.
pub fn as_user<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let before = dumpable_behavior();
    let done = std::thread::scope(|scope| {
        let become_user = move || {
            set(libc::SYS_setfsgid, gid)?;
            set(libc::SYS_setfsuid, uid)?;
            Ok(work())
        };
        let thread = std::thread::Builder::new().name("user".into()).spawn_scoped(scope, become_user)?;
        thread.join().map_err(|_| io::Error::other("a thread with another user panicked"))?
    });
    // The kernel makes the whole process undumpable when one of its threads changes its user.
    if before == Ok(DumpableBehavior::Dumpable) {
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    }
    done
}

/// Sets an id of this thread. The calls return no errors, only the id before.
fn set(call: libc::c_long, id: u32) -> Result<(), Errno> {
    /// No id: the call changes nothing.
    const NONE: u32 = u32::MAX;
    // SAFETY: the calls take a number, and change only the calling thread.
    unsafe { libc::syscall(call, id) };
    // SAFETY: as above.
    let now = unsafe { libc::syscall(call, NONE) };
    if now == i64::from(id) { Ok(()) } else { Err(Errno::PERM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_keeps_its_own_user() {
        let own = rustix::process::geteuid().as_raw();
        let test = std::any::type_name_of_val(&|| ());
        if !testkit::has(own == 0, test, "root") {
            return;
        }
        let user = || std::fs::read_to_string("/proc/thread-self/status").expect("its own status");
        let line = |text: &str| text.lines().find(|line| line.starts_with("Uid:")).map(str::to_owned);
        let (before, dumpable) = (line(&user()), dumpable_behavior());
        let inside = as_user(12_345, 12_346, user).expect("root may become any user");
        assert!(line(&inside).is_some_and(|uids| uids.ends_with("12345")), "{inside}");
        assert_eq!((line(&user()), dumpable_behavior()), (before, dumpable));
    }
}
