//! Ten attempts to escape from the jail. Each is harmless if it succeeds, even outside a jail.

use crate::{errno, writable};
use rustix::io::Errno;
use rustix::process::{Pid, getpid, getppid};
use serde::Serialize;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use stockade_syscalls::attempt::{self, Attempt, Outcome};

/// The result of one attempt.
#[derive(Debug, Serialize)]
pub(crate) struct Escape {
    name: &'static str,
    what: &'static str,
    /// `SUCCEEDED`, the name of the error, `KILLED BY SIGNAL n` or `NOT TRIED: ` and an error's name.
    result: String,
    errno: i32,
    /// Whether the kernel refused the attempt. False also without an attempt, which proves nothing.
    held: bool,
    /// Whether the probe could make the attempt.
    tried: bool,
}

/// Directories for the attempts that create a file, the least visible first.
const DIRECTORIES: [&str; 6] = ["/tmp", "/run", "/dev/shm", "/var/tmp", "/dev", "/"];

/// Makes the ten attempts, each in its own process.
pub(crate) fn try_all() -> Vec<Escape> {
    let outsider = outsider();
    vec![
        try_one(
            "dot-dot",
            "open the host's /etc/shadow through many ..",
            &Attempt::Open(c"../../../../../../../../../../../../../../../../etc/shadow"),
        ),
        chroot_again(),
        try_one(
            "host-path",
            "open the host's /etc/passwd through the root of process 1",
            &Attempt::Open(c"/proc/1/root/etc/passwd"),
        ),
        make_disk_node(),
        try_one("mount-proc", "mount a proc of its own", &Attempt::MountProc),
        try_one("become-root", "take uid 0", &Attempt::BecomeRoot),
        try_one(
            "file-handle",
            "open the root inode of the file system below the jail by a made-up handle",
            // Inode 2 is the root directory of most file systems.
            &Attempt::OpenByHandle { inode: 2 },
        ),
        try_one(
            "join-init-namespace",
            "join the mount namespace of process 1",
            &Attempt::JoinMountNamespace(outsider),
        ),
        try_one("trace-other", "attach to process 1 as a tracer", &Attempt::Trace(outsider)),
        try_one("raw-packets", "open a socket for raw packets", &Attempt::RawPackets),
    ]
}

fn try_one(name: &'static str, what: &'static str, attempt: &Attempt) -> Escape {
    judge(name, what, attempt::in_child(attempt))
}

fn judge(name: &'static str, what: &'static str, outcome: Outcome) -> Escape {
    let code = |error: Errno| error.raw_os_error();
    let (result, errno, held, tried) = match outcome {
        Outcome::Succeeded => ("SUCCEEDED".to_owned(), 0, false, true),
        Outcome::Killed(signal) => (format!("KILLED BY SIGNAL {signal}"), 0, true, true),
        Outcome::Refused(error) if !is_exhaustion(error) => (errno::name(error), code(error), true, true),
        Outcome::Refused(error) | Outcome::Unknown(error) => {
            (format!("NOT TRIED: {}", errno::name(error)), code(error), false, false)
        }
    };
    Escape { name, what, result, errno, held, tried }
}

/// Whether the cause is a limit of the jail, at which an attempt ends before the kernel decides about it.
fn is_exhaustion(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::INTR)
}

/// A process that may be outside the jail: process 1, or the parent of process 1, if it has one.
fn outsider() -> Option<Pid> {
    if getpid().is_init() { getppid() } else { Some(Pid::INIT) }
}

fn chroot_again() -> Escape {
    let own = unique_path("root");
    let is_created = fs::create_dir(&own).is_ok();
    // If no directory can be created, any existing one serves; the root, the last, always exists.
    let existing = || DIRECTORIES.iter().map(Path::new).find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let below = as_c_string(if is_created { &own } else { existing() });
    let attempt = Attempt::ChrootAgain { below: &below, goal: c"/etc/shadow" };
    let escape = try_one("chroot-again", "change the root a second time and climb out above it", &attempt);
    if is_created {
        // A failure to remove the directory has no remedy.
        let _ = fs::remove_dir(&own);
    }
    escape
}

fn make_disk_node() -> Escape {
    let path = unique_path("disk");
    // Usually the first virtio disk; the node is not opened.
    let node = as_c_string(&path);
    let outcome = attempt::in_child(&Attempt::MakeBlockNode { at: &node, major: 254, minor: 0 });
    if outcome == Outcome::Succeeded {
        // As above.
        let _ = fs::remove_file(&path);
    }
    judge("make-disk-node", "make a device node of a disk", outcome)
}

/// A unique path, in a writable directory if one exists.
fn unique_path(purpose: &str) -> PathBuf {
    let directory = DIRECTORIES.iter().map(Path::new).find(|directory| writable::is_writable(directory));
    let name = format!(".stockade-probe-{}-{purpose}", std::process::id());
    directory.unwrap_or(Path::new("/")).join(name)
}

/// The paths in this module contain no NUL, so the conversion cannot fail.
fn as_c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_counts_as_held() {
        let result = |outcome| {
            let escape = judge("name", "what", outcome);
            (escape.held, escape.tried)
        };
        assert_eq!(result(Outcome::Refused(Errno::PERM)), (true, true));
        assert_eq!(result(Outcome::Killed(31)), (true, true));
        assert_eq!(result(Outcome::Succeeded), (false, true));
        assert_eq!(result(Outcome::Unknown(Errno::AGAIN)), (false, false));
        assert_eq!(result(Outcome::Refused(Errno::MFILE)), (false, false), "the kernel did not decide");
    }

    #[test]
    fn a_refusal_has_the_name_of_its_errno() {
        let escape = judge("name", "what", Outcome::Refused(Errno::PERM));
        assert_eq!((escape.result.as_str(), escape.errno), ("EPERM", 1));
    }
}
