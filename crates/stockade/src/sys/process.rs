//! Processes, identified by pid and start time, because the kernel reuses pids.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use stockade_syscalls::mount_table::{self, Mount};
use stockade_syscalls::mounts::mount_namespace;
use stockade_syscalls::poll::wait_until;

use crate::spec::clock::since_boot_ns;
use crate::spec::{ExitStatus, JailPath};
use crate::sys::cache;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::procfs::{field, process_file, read_file};
use crate::sys::unheeded::{Unheeded, unheeded};

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

/// The path of a file that the kernel has for each process.
pub(crate) fn file_of(pid: i32, file: &str) -> Result<String, Errno> {
    Ok(process_file(shown_as(pid)?, file))
}

/// Reads a file that the kernel has for each process.
pub(crate) fn text_of(pid: i32, file: &str) -> Result<String, Errno> {
    read_file(file_of(pid, file)?).map_err(|e| errno(&e))
}

/// All mounts that a process sees.
pub(crate) fn mounts_of(pid: i32) -> Result<Vec<Mount>> {
    let at = || format!("the mounts of process {pid}");
    let table = file_of(pid, "mountinfo").context(Operation::Read, at())?;
    mount_table::read(&table).context(Operation::Read, at())
}

/// The number under which `/proc` shows a process. It is the pid, unless the procfs is of another pid namespace.
pub(crate) fn shown_as(pid: i32) -> Result<i32, Errno> {
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
        let mut text = text_of(pid, "stat")?;
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
        let status = text_of(self.pid, "status").ok()?;
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
        let namespace = file_of(self.pid, "ns/mnt").and_then(|file| mount_namespace(&file));
        // The namespace first, then the check: while the process lives, no other process has its pid.
        if self.wait_for_exit(Some(Instant::now()))? {
            return Err(Errno::SRCH).context(Operation::Open, at());
        }
        namespace.context(Operation::Open, at())
    }

    /// The mount points that the process sees, as paths below its root.
    pub(crate) fn mount_points(&self) -> Result<Vec<JailPath>> {
        let table = mounts_of(self.pid)?;
        Ok(table.into_iter().filter_map(|mount| JailPath::try_from(mount.point).ok()).collect())
    }

    /// Waits for the process, which has exited, so that no zombie stays; `None` unless it is a child of this process.
    pub(crate) fn reap(&self) -> Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED)
    }

    /// The exit status of the process, which has exited and stays a zombie; `None` unless it is a child of this process.
    pub(crate) fn exit_status(&self) -> Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    }

    fn wait_with(&self, options: WaitIdOptions) -> Result<Option<ExitStatus>> {
        // NOHANG: a process that another one traces has to be waited for by that one first, which may never do so.
        let options = options | WaitIdOptions::NOHANG;
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

/// Whether a process is a zombie or gone.
pub(crate) fn has_exited(pid: i32) -> bool {
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
