//! The processes with a certain root directory: those of a jail.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::CapabilitySet;
use stockade_syscalls::user::as_user;

use crate::sys::error::{Context, Operation, Result};
use crate::sys::file_id::FileId;
use crate::sys::process::{PidFd, StatLine, file_of, has_exited, text_of};
use crate::sys::procfs::{field, read_file};
use crate::sys::{cache, mounts};

/// The processes with a certain root directory.
#[derive(Debug, Default)]
pub(crate) struct Rooted {
    /// Those that were found.
    pub(crate) found: Vec<i32>,
    /// Processes whose root cannot be inspected.
    pub(crate) unseen: Vec<i32>,
    /// Whether a process had exited before its root was inspected. It may have left a child behind.
    pub(crate) vanished: bool,
}

/// The processes whose root directory is `root`.
///
/// # Errors
/// Returns an error if `/proc` cannot be read, hides processes, or is that of another pid namespace.
pub(crate) fn rooted_at(root: BorrowedFd<'_>) -> Result<Rooted> {
    let root = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    if !cache::is_own_procfs() {
        return Err(Errno::XDEV).context(Operation::Inspect, "the processes of this pid namespace");
    }
    if hides_processes() {
        return Err(Errno::PERM).context(Operation::Inspect, "the processes that '/proc' hides");
    }
    let entries = std::fs::read_dir("/proc").context(Operation::Read, "/proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let kernel_threads = kernel_threads();
    let mut rooted = Rooted::default();
    for pid in pids.filter(|pid| kernel_threads.binary_search(pid).is_err()) {
        match root_of(pid) {
            Ok(found) if found == root => rooted.found.push(pid),
            Ok(_) => (),
            // Nor has a zombie a root, but its children are those of another process already.
            Err(Errno::NOENT | Errno::SRCH) => rooted.vanished |= !is_zombie(pid),
            Err(_) if has_exited(pid) => (),
            Err(_) => rooted.unseen.push(pid),
        }
    }
    Ok(rooted)
}

/// Whether `/proc` lists only the processes that this process may inspect (`hidepid`).
fn hides_processes() -> bool {
    let may_inspect_all = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    // Of several mounts on each other the last is seen.
    let procfs = || mounts::table().ok()?.into_iter().rfind(|mount| mount.point == Path::new("/proc"));
    !may_inspect_all && procfs().is_some_and(|procfs| hides_from_this_group(&procfs.fs_options))
}

/// Whether a procfs with these options hides processes from the groups of this process.
fn hides_from_this_group(options: &[String]) -> bool {
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let hides = value("hidepid=").is_some_and(|how| ["2", "invisible", "4", "ptraceable"].contains(&how));
    let exempt = value("gid=").and_then(|gid| gid.parse().ok()).unwrap_or(0);
    let groups = || rustix::process::getgroups().unwrap_or_default();
    let is_exempt =
        || rustix::process::getegid().as_raw() == exempt || groups().iter().any(|gid| gid.as_raw() == exempt);
    hides && !is_exempt()
}

/// The pids of the kernel's threads, sorted; empty if they cannot be identified.
///
/// They are most of the entries of `/proc`, and never in a jail.
fn kernel_threads() -> Vec<i32> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // Their parent has pid 2, except in a pid namespace, where pid 2 is any process.
    let flags = StatLine::of(2).and_then(|line| line.field(9)?.parse::<u32>().ok());
    if flags.is_none_or(|flags| flags & PF_KTHREAD == 0) {
        return Vec::new();
    }
    let children = read_file("/proc/2/task/2/children").unwrap_or_default();
    let mut threads: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    threads.sort_unstable();
    threads
}

fn is_zombie(pid: i32) -> bool {
    StatLine::of(pid).is_some_and(|line| line.field(3) == Some("Z"))
}

fn is_rooted_at(pid: i32, root: FileId) -> Result<bool, Errno> {
    match root_of(pid) {
        Ok(found) => Ok(found == root),
        // It has exited.
        Err(Errno::NOENT | Errno::SRCH) => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// The root directory of a process.
fn root_of(pid: i32) -> Result<FileId, Errno> {
    let root = file_of(pid, "root")?;
    let look = || FileId::at(&root);
    let refused = match look() {
        Err(refused @ (Errno::ACCESS | Errno::PERM)) => refused,
        looked => return looked,
    };
    // Without CAP_SYS_PTRACE, the process's own user may look. Processes that hide even from it belong to root here.
    let facts = rustix::fs::stat(file_of(pid, ".")?)?;
    if facts.st_uid == 0 {
        return Err(refused);
    }
    as_user(facts.st_uid, facts.st_gid, look).map_err(|_| refused)?
}

/// Whether the root directory of a process is `root`.
///
/// # Errors
/// Returns an error if its root cannot be inspected.
pub(crate) fn has_root(pid: i32, root: BorrowedFd<'_>) -> Result<bool> {
    let root = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    is_rooted_at(pid, root).context(Operation::Inspect, format!("process {pid}"))
}

/// Whether a process whose root cannot be inspected may be one of a jail with this user.
pub(crate) fn may_be_confined(pid: i32, uid: u32) -> bool {
    match text_of(pid, "status") {
        Ok(status) => {
            let is_of_user = field(&status, "Uid").split_whitespace().any(|found| found.parse() == Ok(uid));
            let permitted = u64::from_str_radix(field(&status, "CapPrm"), 16).unwrap_or(0);
            // No process in a jail has this capability, but many that only another with it may inspect.
            is_of_user && !CapabilitySet::from_bits_retain(permitted).contains(CapabilitySet::SYS_PTRACE)
        }
        Err(cause) => !matches!(cause, Errno::NOENT | Errno::SRCH),
    }
}

/// Kills the process with this pid if its root directory is `root`, and waits until it exits.
pub(crate) fn kill_if_rooted_at(root: BorrowedFd<'_>, pid: i32, deadline: Instant) -> Result<bool> {
    let facts = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    let Some(process) = PidFd::open(pid)? else { return Ok(false) };
    // Checked with the pidfd held: while the process exists, its pid is not reused.
    if is_rooted_at(pid, facts) != Ok(true) || has_exited(pid) {
        return Ok(false);
    }
    process.kill(Some(deadline))
}

/// What became of killed processes.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    /// How many were killed.
    pub(crate) count: usize,
    /// One that has not exited in time.
    pub(crate) survivor: Option<i32>,
    /// Other processes, whose root cannot be inspected.
    pub(crate) unseen: Vec<i32>,
}

/// How often a search in which a process vanished is repeated without finding any of the jail's.
const MOST_QUIET_SEARCHES: u32 = 3;

/// Kills the processes whose root directory is `root`, until there is none or the time is up.
///
/// A process that forks and exits all the time can be ahead of a search. So a search that found one is repeated, and so is
/// one in which a process vanished, a few times: on a busy host some always do.
pub(crate) fn kill_rooted_at(root: BorrowedFd<'_>, deadline: Instant) -> Result<Killed> {
    let facts = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    let (mut killed, mut quiet) = (Killed::default(), 0);
    loop {
        let mut exiting = Vec::new();
        let rooted = rooted_at(root)?;
        if rooted.found.is_empty() {
            quiet += 1;
            if !rooted.vanished || quiet == MOST_QUIET_SEARCHES {
                killed.unseen = rooted.unseen;
                return Ok(killed);
            }
            continue;
        }
        quiet = 0;
        if Instant::now() >= deadline {
            killed.survivor = rooted.found.last().copied();
            return Ok(killed);
        }
        for pid in rooted.found {
            let Some(process) = PidFd::open(pid)? else { continue };
            // Checked again with the pidfd held: the pid may have been reused before.
            if is_rooted_at(pid, facts) == Ok(true) && !has_exited(pid) {
                process.signal(Signal::KILL)?;
                exiting.push(process);
            }
        }
        killed.count += exiting.len();
        for process in exiting {
            if !process.wait_for_exit(Some(deadline))? {
                killed.survivor = Some(process.pid());
                return Ok(killed);
            }
        }
    }
}
