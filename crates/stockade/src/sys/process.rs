//! Processes, identified by pid and start time, because the kernel reuses pids.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use stockade_syscalls::poll::wait_until;
use stockade_syscalls::user::as_user;

use crate::spec::clock::since_boot_ns;
use crate::spec::{ExitStatus, JailPath};
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::file_id::FileId;
use crate::sys::procfs::{field, process_file, read_file};
use crate::sys::unheeded::{Unheeded, unheeded};
use crate::sys::{cache, mounts};

/// The time that killed processes have to exit.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that the killed processes of one jail have to exit, all waits together.
#[derive(Debug)]
pub(crate) struct Patience(Cell<Duration>);

impl Default for Patience {
    fn default() -> Self {
        Self(Cell::new(KILL_TIMEOUT))
    }
}

impl Patience {
    /// Waits until a deadline. The time waited is subtracted from what is left for later waits.
    pub(crate) fn spend<R>(&self, wait: impl FnOnce(Instant) -> R) -> R {
        let began = Instant::now();
        let waited = wait(began + self.0.get());
        self.0.set(self.0.get().saturating_sub(began.elapsed()));
        waited
    }

    /// Leaves no time for later waits.
    pub(crate) fn end(&self) {
        self.0.set(Duration::ZERO);
    }
}

/// A process by its pid and its start time, which together are unique within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The pid, as the process that wrote it saw it.
    pub pid: i32,
    /// The start time, in clock ticks since the boot of the host (field 22 of `/proc/PID/stat`, without the offset of
    /// a time namespace); 0 if it had exited.
    pub started: u64,
}

impl ProcessRef {
    /// This process.
    pub fn myself() -> Self {
        cache::myself()
    }

    /// The process with this pid, at this moment.
    pub fn of(pid: Pid) -> Self {
        Self::of_pid(pid.as_raw_nonzero().get())
    }

    /// The same by the number of a pid.
    pub(crate) fn of_pid(pid: i32) -> Self {
        Self { pid, started: stat(pid).map_or(0, |stat| stat.started) }
    }

    /// A process that was created just now, after `before`.
    ///
    /// Unless the clock has ticked since then, its start time is known without reading `/proc`.
    pub(crate) fn started_after(before: Moment, pid: Pid) -> Self {
        let now = Moment::now();
        if now == before { Self { pid: pid.as_raw_nonzero().get(), started: now.0 } } else { Self::of(pid) }
    }

    /// Whether it exists and is not a zombie. True also if a process with this pid exists that cannot be inspected.
    pub fn is_alive(&self) -> bool {
        self.examine().unwrap_or(true)
    }

    /// Whether it exists and is not a zombie.
    ///
    /// # Errors
    /// Returns an error if a process with this pid exists, and whether it is this one cannot be found out: `/proc` is
    /// another namespace's, or hides it.
    pub(crate) fn examine(&self) -> Result<bool> {
        let cause = match stat(self.pid) {
            Ok(stat) if stat.started == self.started => return Ok(!stat.exited),
            Ok(_) => return Ok(false),
            // A procfs that hides a process has no entry for it.
            Err(Errno::NOENT) => Errno::ACCESS,
            Err(cause) => cause,
        };
        if exists(self.pid) {
            Err(cause).context(Operation::Inspect, format!("process {}", self.pid))
        } else {
            Ok(false)
        }
    }

    /// The time since its start, in milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        (host_boot_ns().saturating_sub(self.started.saturating_mul(Moment::TICK_NS))) / 1_000_000
    }

    /// The exit status of a zombie, for which its parent has not waited yet; `None` if this process may not see it.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        let status = stat(self.pid).ok().filter(|stat| stat.started == self.started && stat.exited)?.status?;
        // The kernel shows 0 to a process that may not trace it.
        let sees_all = || {
            let own = rustix::thread::capabilities(None);
            own.is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_PTRACE))
        };
        (status != ExitStatus::Exited(0) || sees_all()).then_some(status)
    }

    /// Waits for a child that has exited, so that no zombie stays.
    pub(crate) fn reap(&self) -> Result<()> {
        let Some(process) = PidFd::open(self.pid)? else { return Ok(()) };
        match stat(self.pid) {
            Ok(stat) if stat.started == self.started && stat.exited => process.reap().map(drop),
            _ => Ok(()),
        }
    }

    /// Opens its pidfd; `None` if it has exited. An error if it cannot be inspected: it could be another process.
    pub(crate) fn open(&self) -> Result<Option<PidFd>> {
        // The pidfd first, then the check: the process that a pidfd refers to cannot change.
        let Some(fd) = PidFd::open(self.pid)? else { return Ok(None) };
        Ok(self.examine()?.then_some(fd))
    }
}

/// A time in clock ticks since boot, as the kernel gives the start of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The length of a clock tick for programs, which does not depend on the kernel's own.
    const TICK_NS: u64 = 10_000_000;

    pub(crate) fn now() -> Self {
        Self(host_boot_ns() / Self::TICK_NS)
    }
}

/// The time since the boot of the host, in nanoseconds. A time namespace shows another.
fn host_boot_ns() -> u64 {
    since_boot_ns().saturating_add_signed(cache::boot_offset_ns().saturating_neg())
}

/// Whether a process with this pid exists that is no zombie. For this the kernel does not need `/proc`.
pub(crate) fn exists(pid: i32) -> bool {
    let Some(raw) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return false };
    match rustix::process::test_kill_process(raw) {
        Err(Errno::SRCH) => false,
        // EPERM: another user's.
        Ok(()) | Err(_) => match PidFd::open(pid) {
            Ok(Some(process)) => !process.has_exited(),
            Ok(None) => false,
            Err(_) => true,
        },
    }
}

struct Stat {
    started: u64,
    exited: bool,
    /// The exit status, if the kernel shows it to this process.
    status: Option<ExitStatus>,
}

fn stat(pid: i32) -> Result<Stat, Errno> {
    let line = StatLine::read(pid)?;
    let exited = matches!(line.field(3), Some("Z" | "X"));
    let shown: u64 = line.field(22).and_then(|started| started.parse().ok()).ok_or(Errno::INVAL)?;
    // The offset is in whole ticks, unless a checkpoint was restored in the namespace.
    let offset = cache::boot_offset_ns().div_euclid(Moment::TICK_NS.cast_signed());
    let started = shown.saturating_add_signed(offset.saturating_neg());
    let status = line.field(52).and_then(|status| status.parse().ok()).map(ExitStatus::from_status);
    Ok(Stat { started, exited, status })
}

/// The number under which `/proc` shows a process. It is the pid, unless the procfs is of another pid namespace.
fn shown_as(pid: i32) -> Result<i32, Errno> {
    if cache::is_own_procfs() {
        return Ok(pid);
    }
    let process = PidFd::open(pid).map_err(|e| e.cause)?.ok_or(Errno::NOENT)?;
    let facts = format!("fdinfo/{}", process.fd.as_raw_fd());
    let facts = read_file(process_file("self", &facts)).map_err(|e| errno(&e))?;
    field(&facts, "Pid").parse().ok().filter(|pid| *pid > 0).ok_or(Errno::XDEV)
}

/// The text of `/proc/PID/stat`, from the third field on.
pub(crate) struct StatLine(String);

impl StatLine {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::read(pid).ok()
    }

    fn read(pid: i32) -> Result<Self, Errno> {
        let mut text = read_file(process_file(shown_as(pid)?, "stat")).map_err(|e| errno(&e))?;
        // The command's name is in parentheses and may itself contain parentheses.
        let after_name = text.rfind(") ").ok_or(Errno::INVAL)? + 2;
        text.drain(..after_name);
        Ok(Self(text))
    }

    /// The field with this number, counted as in proc(5).
    pub(crate) fn field(&self, number: usize) -> Option<&str> {
        self.0.trim_end().split(' ').nth(number.checked_sub(3)?)
    }
}

/// A process with its pidfd.
#[derive(Debug)]
pub(crate) struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    pub(crate) fn new(fd: OwnedFd, pid: i32) -> Self {
        Self { fd, pid }
    }

    /// Opens the process with this pid, at this moment; `None` if there is none.
    pub(crate) fn open(pid: i32) -> Result<Option<Self>> {
        let Some(raw) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
        match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { fd, pid })),
            // EINVAL, from Linux 6.15 on ENOENT: the pid is that of a thread that leads no process, or of a process
            // that its parent waits for at this moment.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Kill, pid),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a signal, unless the process has exited.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(cause) => Err(cause).context(Operation::Kill, self.pid),
        }
    }

    /// Kills the process and waits until it has exited; false if the deadline comes first.
    pub(crate) fn kill(&self, deadline: Option<Instant>) -> Result<bool> {
        self.signal(Signal::KILL)?;
        self.wait_for_exit(deadline)
    }

    /// Why a signal that was just sent has no effect on the process; `None` if it has one, or if that is unknown.
    pub(crate) fn unheeded(&self, signal: Signal) -> Option<Unheeded> {
        let status = read_file(process_file(shown_as(self.pid).ok()?, "status")).ok()?;
        // Another process may have the pid of one that has exited.
        unheeded(&status, signal).filter(|_| !self.has_exited())
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.wait_for_exit(Some(Instant::now())), Ok(true))
    }

    /// Waits until the process exits; false if the deadline comes first.
    pub(crate) fn wait_for_exit(&self, deadline: Option<Instant>) -> Result<bool> {
        wait_until(&mut [PollFd::new(&self.fd, PollFlags::IN)], deadline).context(Operation::Wait, self.pid)
    }

    /// Opens its mount namespace.
    pub(crate) fn mount_namespace(&self) -> Result<OwnedFd> {
        let at = || format!("the mount namespace of process {}", self.pid);
        let namespace = stockade_syscalls::mounts::mount_namespace(self.pid);
        // The namespace first, then the check: while the process lives, no other process has its pid.
        if self.wait_for_exit(Some(Instant::now()))? {
            return Err(Errno::SRCH).context(Operation::Open, at());
        }
        namespace.context(Operation::Open, at())
    }

    /// The mount points that the process sees, as paths below its root.
    pub(crate) fn mount_points(&self) -> Result<Vec<JailPath>> {
        let table = mounts::of_process(self.pid)?;
        Ok(table.into_iter().filter_map(|mount| JailPath::try_from(mount.point).ok()).collect())
    }

    /// Waits for the process, which has exited, so that no zombie stays; `None` unless it is a child of this process.
    pub(crate) fn reap(&self) -> Result<Option<ExitStatus>> {
        // NOHANG: a process that another one traces has to be waited for by that one first, which may never do so.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options) {
            Ok(Some(status)) => {
                let code = status.exit_status().map(ExitStatus::Exited);
                Ok(code.or_else(|| status.terminating_signal().map(ExitStatus::Killed)))
            }
            Ok(None) | Err(Errno::CHILD) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Wait, self.pid),
        }
    }
}

/// The processes with a certain root directory.
#[derive(Debug, Default)]
pub(crate) struct Rooted {
    /// Those that were found.
    pub(crate) found: Vec<i32>,
    /// Processes whose root cannot be inspected.
    pub(crate) unseen: Vec<i32>,
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
        match is_rooted_at(pid, root) {
            Ok(true) => rooted.found.push(pid),
            Ok(false) => (),
            // A zombie has no root.
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
    let shown = shown_as(pid)?;
    let look = || FileId::at(process_file(shown, "root"));
    let refused = match look() {
        Err(refused @ (Errno::ACCESS | Errno::PERM)) => refused,
        looked => return looked,
    };
    // Without CAP_SYS_PTRACE, the process's own user may look. Processes that hide even from it belong to root here.
    let facts = rustix::fs::stat(process_file(shown, "."))?;
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
    match read_file(process_file(pid, "status")) {
        Ok(status) => {
            let is_of_user = field(&status, "Uid").split_whitespace().any(|found| found.parse() == Ok(uid));
            let permitted = u64::from_str_radix(field(&status, "CapPrm"), 16).unwrap_or(0);
            // No process in a jail has this capability, but many that only another with it may inspect.
            is_of_user && !CapabilitySet::from_bits_retain(permitted).contains(CapabilitySet::SYS_PTRACE)
        }
        Err(e) => !matches!(errno(&e), Errno::NOENT | Errno::SRCH),
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

/// Kills the processes whose root directory is `root`, until there is none or the time is up.
pub(crate) fn kill_rooted_at(root: BorrowedFd<'_>, deadline: Instant) -> Result<Killed> {
    let facts = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    let mut killed = Killed::default();
    loop {
        let mut exiting = Vec::new();
        let rooted = rooted_at(root)?;
        for pid in rooted.found {
            let Some(process) = PidFd::open(pid)? else { continue };
            // Checked again with the pidfd held: the pid may have been reused before.
            if is_rooted_at(pid, facts) == Ok(true) && !has_exited(pid) {
                process.signal(Signal::KILL)?;
                exiting.push(process);
            }
        }
        if exiting.is_empty() {
            killed.unseen = rooted.unseen;
            return Ok(killed);
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

fn has_exited(pid: i32) -> bool {
    stat(pid).map_or_else(|_| !exists(pid), |stat| stat.exited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_of_a_new_child_is_that_of_proc() {
        for _ in 0..50 {
            let before = Moment::now();
            let mut child = std::process::Command::new("/bin/true").spawn().expect("start a child");
            let pid = Pid::from_child(&child);
            assert_eq!(ProcessRef::started_after(before, pid), ProcessRef::of(pid));
            child.wait().expect("wait for the child");
        }
    }
}
