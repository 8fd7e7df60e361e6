//! Processes, identified by pid and start time, because the kernel reuses pids.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use stockade_syscalls::poll::wait_until;

use crate::spec::clock::since_boot_ns;
use crate::spec::{ExitStatus, JailPath};
use crate::sys::error::{Context, Operation, Result};
use crate::sys::file_id::FileId;
use crate::sys::procfs::{process_file, read_file};
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
    /// The start time, in clock ticks since boot (field 22 of `/proc/PID/stat`); 0 if it had exited.
    pub started: u64,
}

impl ProcessRef {
    /// This process.
    pub fn myself() -> Self {
        cache::myself()
    }

    /// The process with this pid, at this moment.
    pub fn of(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        Self { pid, started: stat(pid).map_or(0, |stat| stat.started) }
    }

    /// A process that was created just now, after `before`.
    ///
    /// Unless the clock has ticked since then, its start time is known without reading `/proc`.
    pub(crate) fn started_after(before: Moment, pid: Pid) -> Self {
        let now = Moment::now();
        if now == before { Self { pid: pid.as_raw_nonzero().get(), started: now.0 } } else { Self::of(pid) }
    }

    /// Whether it exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.exited)
    }

    /// The time since its start, in milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        (since_boot_ns().saturating_sub(self.started * Moment::TICK_NS)) / 1_000_000
    }

    /// The exit status of a zombie, for which its parent has not waited yet; `None` if this process may not see it.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        let status = stat(self.pid).filter(|stat| stat.started == self.started && stat.exited)?.status?;
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
            Some(stat) if stat.started == self.started && stat.exited => process.reap().map(drop),
            _ => Ok(()),
        }
    }

    /// Opens its pidfd; `None` if it has exited.
    pub(crate) fn open(&self) -> Result<Option<PidFd>> {
        // The pidfd first, then the check: the process that a pidfd refers to cannot change.
        let fd = PidFd::open(self.pid)?;
        Ok(fd.filter(|_| self.is_alive()))
    }
}

/// A time in clock ticks since boot, as the kernel gives the start of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The length of a clock tick for programs, which does not depend on the kernel's own.
    const TICK_NS: u64 = 10_000_000;

    pub(crate) fn now() -> Self {
        Self(since_boot_ns() / Self::TICK_NS)
    }
}

struct Stat {
    started: u64,
    exited: bool,
    /// The exit status, if the kernel shows it to this process.
    status: Option<ExitStatus>,
}

fn stat(pid: i32) -> Option<Stat> {
    let line = StatLine::of(pid)?;
    let exited = matches!(line.field(3)?, "Z" | "X");
    let started = line.field(22)?.parse().ok()?;
    let status = line.field(52).and_then(|status| status.parse().ok()).map(ExitStatus::from_status);
    Some(Stat { started, exited, status })
}

/// The text of `/proc/PID/stat`, from the third field on.
pub(crate) struct StatLine(String);

impl StatLine {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let mut text = read_file(process_file(pid, "stat")).ok()?;
        // The command's name is in parentheses and may itself contain parentheses.
        let after_name = text.rfind(") ")? + 2;
        text.drain(..after_name);
        Some(Self(text))
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

/// The processes whose root directory is `root`.
pub(crate) fn rooted_at(root: BorrowedFd<'_>) -> Vec<i32> {
    let Ok(root) = FileId::of(root) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let kernel_threads = kernel_threads();
    pids.filter(|pid| kernel_threads.binary_search(pid).is_err() && is_rooted_at(*pid, root)).collect()
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

fn is_rooted_at(pid: i32, root: FileId) -> bool {
    FileId::at(process_file(pid, "root")) == Ok(root)
}

/// Kills the process with this pid if its root directory is `root`, and waits until it exits.
pub(crate) fn kill_if_rooted_at(root: BorrowedFd<'_>, pid: i32, deadline: Instant) -> Result<bool> {
    let facts = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    let Some(process) = PidFd::open(pid)? else { return Ok(false) };
    // Checked with the pidfd held: while the process exists, its pid is not reused.
    if !is_rooted_at(pid, facts) || has_exited(pid) {
        return Ok(false);
    }
    process.kill(Some(deadline))
}

/// What became of killed processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Killed {
    /// How many were killed.
    pub(crate) count: usize,
    /// One that has not exited in time.
    pub(crate) survivor: Option<i32>,
}

/// Kills the processes whose root directory is `root`, until there is none or the time is up.
pub(crate) fn kill_rooted_at(root: BorrowedFd<'_>, deadline: Instant) -> Result<Killed> {
    let facts = FileId::of(root).context(Operation::Inspect, "a jail's root")?;
    let mut killed = Killed::default();
    loop {
        let mut exiting = Vec::new();
        for pid in rooted_at(root) {
            let Some(process) = PidFd::open(pid)? else { continue };
            // Checked again with the pidfd held: the pid may have been reused before.
            if is_rooted_at(pid, facts) && !has_exited(pid) {
                process.signal(Signal::KILL)?;
                exiting.push(process);
            }
        }
        if exiting.is_empty() {
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
    stat(pid).is_none_or(|stat| stat.exited)
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
