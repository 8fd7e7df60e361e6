//! `clone3` of a child that carries out a [`Program`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::descriptors::above_standard;
use crate::program::{Failure, Program, last_errno};

/// What the child gets of its own from the moment it exists.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions<'a> {
    /// A pid namespace, whose first process it is.
    pub pid_namespace: bool,
    /// A network namespace with nothing but a loopback interface that is down.
    pub network_namespace: bool,
    /// An IPC namespace, without shared memory, semaphores and message queues.
    pub ipc_namespace: bool,
    /// The cgroup v2 directory to be born in; moving there later would cost a grace period of the kernel.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child that is carrying out its program.
#[derive(Debug)]
pub struct Child {
    /// Its pid, as this process sees it.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    pub(crate) link: OwnedFd,
}

impl Child {
    /// Lets the child go past `Call::WaitForRelease`, and waits until it has executed its program (`None`) or
    /// failed (where, and why). Its pidfd is returned whatever happens.
    ///
    /// A child that is killed on the way counts as executed: its exit status tells.
    pub fn release_and_wait(self) -> (OwnedFd, Result<Option<Failure>, Errno>) {
        let outcome = match rustix::net::send(&self.link, b"g", rustix::net::SendFlags::NOSIGNAL) {
            // A child that is gone already has said why.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Failure::receive(self.link.as_fd()),
            // The child waits on, until the link closes.
            Err(cause) => Err(cause),
        };
        (self.pidfd, outcome)
    }

    /// Closes the link, at which the child ends.
    pub fn abandon(self) -> (OwnedFd, Result<Option<Failure>, Errno>) {
        (self.pidfd, Ok(None))
    }
}

/// Clones a child that carries out `program`. This process may have any number of threads.
///
/// The child starts with no signal handler, and reports the end of its program through a socket that only
/// it and the returned [`Child`] hold.
///
/// # Errors
/// What the kernel says of `socketpair` or `clone3` (EPERM, EAGAIN, ENOSPC for too many namespaces, EBUSY
/// for a cgroup v2 that hands controllers down).
pub fn spawn(program: &mut Program, birth: CloneOptions<'_>) -> Result<Child, Errno> {
    let (ours, theirs) = link()?;
    program.seal(Some(theirs.as_fd()));
    match clone_with_pidfd(birth)? {
        None => program.run_in_child(theirs),
        Some((pid, pidfd)) => Ok(Child { pid, pidfd, link: ours }),
    }
}

/// Clones a child with its pidfd and without signal handlers; `None` in the child.
pub(crate) fn clone_with_pidfd(birth: CloneOptions<'_>) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let mut flags = libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if birth.pid_namespace {
        flags |= libc::CLONE_NEWPID as u64;
    }
    if birth.network_namespace {
        flags |= libc::CLONE_NEWNET as u64;
    }
    if birth.ipc_namespace {
        flags |= libc::CLONE_NEWIPC as u64;
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = clone_args(flags, libc::SIGCHLD);
    args.pidfd = (&raw mut pidfd) as u64;
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let Some(pid) = clone3(&args)? else { return Ok(None) };
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there, and this is its only owner.
    Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// A plain fork with further clone `flags` and no exit signal where a namespace is made, SIGCHLD otherwise;
/// `None` in the child. For programs that run in a process without threads.
pub(crate) fn clone(flags: libc::c_int) -> Result<Option<Pid>, Errno> {
    let signal = if flags == 0 { libc::SIGCHLD } else { 0 };
    clone3(&clone_args(flags as u64, signal))
}

/// A pair of connected sockets that keep messages whole and whose end is seen at the other.
pub(crate) fn link() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pair =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // A caller may have closed the standard streams.
    Ok((above_standard(pair.0)?, above_standard(pair.1)?))
}

// In the kernel's headers from 5.5 and 5.7; libc has them as i32, where the second does not fit.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone_args(flags: u64, exit_signal: libc::c_int) -> libc::clone_args {
    // SAFETY: clone_args is a structure of integers, for which zero is valid and means "not given".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = exit_signal as u64;
    args
}

fn clone3(args: &libc::clone_args) -> Result<Option<Pid>, Errno> {
    // SAFETY: without CLONE_VM the child has a copy of this memory, the stack included, and goes on from
    // here; callers make nothing but system calls there, until it executes or ends.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(args), size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(last_errno());
    }
    Ok(Pid::from_raw(i32::try_from(pid).unwrap_or_default()))
}
