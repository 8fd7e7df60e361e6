//! Processes, told apart for good: a pid alone may mean another one tomorrow.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::spec::{ExitStatus, JailPath};
use crate::sys::cache;
use crate::sys::error::{Context, Operation, Result};
use crate::sys::mounts;
use crate::sys::procfs::read_file;

/// The time that killed processes have to exit.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A process by its pid and the moment it started, which together never come again within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

impl ProcessRef {
    /// This process.
    pub fn myself() -> Self {
        cache::myself()
    }

    /// The process that has this pid now.
    pub fn of(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        Self { pid, started: stat(pid).map_or(0, |stat| stat.started) }
    }

    /// A process that was made after `before`, and just now. Its start is known without asking the kernel, unless
    /// the clock has ticked meanwhile.
    pub(crate) fn started_after(before: Moment, pid: Pid) -> Self {
        let now = Moment::now();
        if now == before { Self { pid: pid.as_raw_nonzero().get(), started: now.0 } } else { Self::of(pid) }
    }

    /// Whether it is still there and not yet a zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    /// How long ago it was started, in milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        (since_boot_ns().saturating_sub(self.started * Moment::TICK_NS)) / 1_000_000
    }

    /// How it ended, while nobody has taken that away: its parent has not waited for it yet.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        stat(self.pid).filter(|stat| stat.started == self.started && stat.ended)?.status
    }

    /// Takes the status of a child away that ended and was not waited for, so that no zombie stays.
    pub(crate) fn reap(&self) -> Result<()> {
        let Some(process) = PidFd::open(self.pid)? else { return Ok(()) };
        match stat(self.pid) {
            Some(stat) if stat.started == self.started && stat.ended => process.reap().map(drop),
            _ => Ok(()),
        }
    }

    /// A descriptor of it; `None` if it is gone.
    pub(crate) fn open(&self) -> Result<Option<PidFd>> {
        // First the descriptor, then the check: what the descriptor means cannot change in between.
        let fd = PidFd::open(self.pid)?;
        Ok(fd.filter(|_| self.is_alive()))
    }
}

/// A moment as the kernel tells those at which processes start: in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    /// How long a tick is for programs, whatever the kernel's own are.
    const TICK_NS: u64 = 10_000_000;

    pub(crate) fn now() -> Self {
        Self(since_boot_ns() / Self::TICK_NS)
    }
}

fn since_boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

struct Stat {
    started: u64,
    ended: bool,
    /// How it ended, as far as the kernel tells this process.
    status: Option<ExitStatus>,
}

fn stat(pid: i32) -> Option<Stat> {
    let line = StatLine::of(pid)?;
    let ended = matches!(line.field(3)?, "Z" | "X");
    let started = line.field(22)?.parse().ok()?;
    let status = line.field(52).and_then(|status| status.parse().ok()).map(ExitStatus::from_status);
    Some(Stat { started, ended, status })
}

/// What `/proc/PID/stat` says, from the third field on.
pub(crate) struct StatLine(String);

impl StatLine {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let mut text = read_file(format!("/proc/{pid}/stat")).ok()?;
        // The command's name is in parentheses and may hold anything, parentheses too.
        let after_name = text.rfind(") ")? + 2;
        text.drain(..after_name);
        Some(Self(text))
    }

    /// The field with this number, as proc(5) counts them.
    pub(crate) fn field(&self, number: usize) -> Option<&str> {
        self.0.trim_end().split(' ').nth(number.checked_sub(3)?)
    }
}

/// A process held by descriptor.
#[derive(Debug)]
pub(crate) struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    pub(crate) fn new(fd: OwnedFd, pid: i32) -> Self {
        Self { fd, pid }
    }

    /// The process that has this pid now; `None` if there is none.
    pub(crate) fn open(pid: i32) -> Result<Option<Self>> {
        let Some(raw) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
        match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { fd, pid })),
            // EINVAL, from Linux 6.15 on ENOENT: the pid of a thread that leads no process, and of a process that is
            // being waited for at this moment.
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

    /// Sends a signal; a process that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(cause) => Err(cause).context(Operation::Kill, self.pid),
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.wait_for_exit(Some(Instant::now())), Ok(true))
    }

    /// Waits for its end; false if the deadline came first.
    pub(crate) fn wait_for_exit(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let mut wait = [PollFd::new(&self.fd, PollFlags::IN)];
            let timeout = deadline.map(remaining);
            match poll(&mut wait, timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => (),
                Err(cause) => return Err(cause).context(Operation::Wait, self.pid),
            }
        }
    }

    /// Its mount namespace, to attach something in it.
    pub(crate) fn mount_namespace(&self) -> Result<OwnedFd> {
        let at = || format!("the mount namespace of process {}", self.pid);
        let namespace = stockade_syscalls::mounts::mount_namespace(self.pid);
        // First the namespace, then the look: while the process lives its pid is nobody else's.
        if self.wait_for_exit(Some(Instant::now()))? {
            return Err(Errno::SRCH).context(Operation::Open, at());
        }
        namespace.context(Operation::Open, at())
    }

    /// The mount points that it sees, as paths below its root.
    pub(crate) fn mount_points(&self) -> Result<Vec<JailPath>> {
        let table = mounts::of_process(self.pid)?;
        Ok(table.into_iter().filter_map(|mount| JailPath::try_from(mount.point).ok()).collect())
    }

    /// How it ended, if it is a child of this process; takes the status away, so that no zombie stays.
    pub(crate) fn reap(&self) -> Result<Option<ExitStatus>> {
        match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let code = status.exit_status().map(ExitStatus::Exited);
                Ok(code.or_else(|| status.terminating_signal().map(ExitStatus::Killed)))
            }
            Ok(None) | Err(Errno::CHILD) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Wait, self.pid),
        }
    }
}

/// The time left until a deadline, not below zero.
pub(crate) fn remaining(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// The processes whose root directory is the one that is open here.
pub(crate) fn rooted_at(root: BorrowedFd<'_>) -> Vec<i32> {
    let Ok(root) = rustix::fs::fstat(root) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let kernels = kernel_threads();
    pids.filter(|pid| kernels.binary_search(pid).is_err() && is_rooted_at(*pid, &root)).collect()
}

/// The kernel's own threads, in order: most of what `/proc` lists, and never in a jail. None where they cannot
/// be told.
fn kernel_threads() -> Vec<i32> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // Their parent has pid 2, unless this is a pid namespace, where that is any process.
    let flags = StatLine::of(2).and_then(|line| line.field(9)?.parse::<u32>().ok());
    if flags.is_none_or(|flags| flags & PF_KTHREAD == 0) {
        return Vec::new();
    }
    let children = std::fs::read_to_string("/proc/2/task/2/children").unwrap_or_default();
    let mut threads: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    threads.sort_unstable();
    threads
}

/// Whether a process has this root directory.
fn is_rooted_at(pid: i32, root: &rustix::fs::Stat) -> bool {
    let theirs = rustix::fs::stat(format!("/proc/{pid}/root"));
    theirs.is_ok_and(|theirs| (theirs.st_dev, theirs.st_ino) == (root.st_dev, root.st_ino))
}

/// Kills the process of this pid if its root directory is the one open here, and waits for its end.
pub(crate) fn kill_if_rooted_at(root: BorrowedFd<'_>, pid: i32, deadline: Instant) -> Result<bool> {
    let facts = rustix::fs::fstat(root).context(Operation::Inspect, "a jail's root")?;
    let Some(process) = PidFd::open(pid)? else { return Ok(false) };
    // Looked at with the descriptor held: the pid cannot go to another process then.
    if !is_rooted_at(pid, &facts) || zombie(pid) {
        return Ok(false);
    }
    process.signal(Signal::KILL)?;
    process.wait_for_exit(Some(deadline))
}

/// Kills every process whose root directory is the one open here, until there is none.
pub(crate) fn kill_rooted_at(root: BorrowedFd<'_>, patience: Duration) -> Result<usize> {
    let deadline = Instant::now() + patience;
    let facts = rustix::fs::fstat(root).context(Operation::Inspect, "a jail's root")?;
    let mut killed = 0;
    loop {
        let mut ending = Vec::new();
        for pid in rooted_at(root) {
            let Some(process) = PidFd::open(pid)? else { continue };
            // Again with the descriptor held: the pid may have gone to another process meanwhile.
            if is_rooted_at(pid, &facts) && !zombie(pid) {
                process.signal(Signal::KILL)?;
                ending.push(process);
            }
        }
        if ending.is_empty() || Instant::now() >= deadline {
            return Ok(killed);
        }
        killed += ending.len();
        for process in ending {
            process.wait_for_exit(Some(deadline))?;
        }
    }
}

fn zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|stat| stat.ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_just_born_has_the_start_that_the_kernel_tells() {
        for _ in 0..50 {
            let before = Moment::now();
            let mut child = std::process::Command::new("/bin/true").spawn().expect("start a child");
            let pid = Pid::from_child(&child);
            assert_eq!(ProcessRef::started_after(before, pid), ProcessRef::of(pid));
            child.wait().expect("wait for the child");
        }
    }
}
