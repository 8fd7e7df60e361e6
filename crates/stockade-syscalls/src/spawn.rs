//! `clone3` of a child that runs a [`Program`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::descriptors::above_standard;
use crate::program::{Failure, Program, last_errno};

/// The namespaces and the cgroup that a child is created in.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions<'a> {
    /// Whether to create a pid namespace, with the child as its first process.
    pub pid_namespace: bool,
    /// Whether to create a network namespace. Its only interface is a loopback that is down.
    pub network_namespace: bool,
    /// Whether to create an IPC namespace.
    pub ipc_namespace: bool,
    /// The cgroup v2 directory to create the child in (`CLONE_INTO_CGROUP`). A later move would cost a grace period
    /// of the kernel.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child that runs its program.
#[derive(Debug)]
pub struct Child {
    /// Its pid, as this process sees it.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    pub(crate) channel: OwnedFd,
}

impl Child {
    /// Releases the child from `Call::WaitForRelease`, and waits until it has executed its program or failed. Always
    /// returns its pidfd.
    ///
    /// A child that is killed before the exec counts as executed: its exit status shows the signal.
    ///
    /// # Arguments
    /// `give_up` is asked ten times a second whether the wait ends now, with the time waited. The child lives on then.
    pub fn release_and_wait(self, give_up: GiveUp<'_>) -> (OwnedFd, Result<Released, Errno>) {
        let outcome = match rustix::net::send(&self.channel, b"g", rustix::net::SendFlags::NOSIGNAL) {
            // A child that has already exited has sent the reason.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => self.wait(give_up),
            // The child waits until the channel closes.
            Err(cause) => Err(cause),
        };
        (self.pidfd, outcome)
    }

    fn wait(&self, give_up: GiveUp<'_>) -> Result<Released, Errno> {
        let channel = self.channel.as_fd();
        Ok(match receive(channel, give_up, || Failure::receive(channel))? {
            None => Released::GivenUp,
            Some(None) => Released::Executed,
            Some(Some(failure)) => Released::Failed(failure),
        })
    }

    /// Closes the channel, at which the child exits, and returns its pidfd.
    pub fn abandon(self) -> OwnedFd {
        self.pidfd
    }
}

/// What became of a released child.
#[derive(Debug)]
pub enum Released {
    /// It has executed its program, or was killed before.
    Executed,
    /// One of its calls has failed.
    Failed(Failure),
    /// It has done neither yet, and the wait was given up.
    GivenUp,
}

/// Whether a wait of this length is given up.
pub type GiveUp<'a> = &'a mut dyn FnMut(Duration) -> bool;

/// The time between two questions whether a wait is given up.
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);

/// Receives from a channel, once that has a message or is closed; `None` if the wait is given up.
pub(crate) fn receive<T>(
    channel: BorrowedFd<'_>,
    give_up: GiveUp<'_>,
    mut receive: impl FnMut() -> Result<T, Errno>,
) -> Result<Option<T>, Errno> {
    set_socket_timeout(channel, Timeout::Recv, Some(QUESTION_INTERVAL))?;
    let began = Instant::now();
    loop {
        match receive() {
            Err(Errno::AGAIN) if give_up(began.elapsed()) => return Ok(None),
            Err(Errno::AGAIN) => (),
            received => return received.map(Some),
        }
    }
}

/// Clones a child that runs `program`. This process may have any number of threads.
///
/// The child starts without signal handlers. It sends the outcome of its program through a socket pair that only
/// the child and the returned [`Child`] hold.
///
/// # Errors
/// Returns the errors of `socketpair` and `clone3`: EPERM, EAGAIN, ENOSPC for too many namespaces, EBUSY for a
/// cgroup v2 that enables controllers for child cgroups.
pub fn spawn(program: &mut Program, options: CloneOptions<'_>) -> Result<Child, Errno> {
    let (parent_end, child_end) = channel()?;
    program.compute_gaps(Some(child_end.as_fd()));
    match clone_with_pidfd(options)? {
        None => program.run_in_child(child_end),
        Some((pid, pidfd)) => Ok(Child { pid, pidfd, channel: parent_end }),
    }
}

/// Clones a child with its pidfd and without signal handlers; `None` in the child.
pub(crate) fn clone_with_pidfd(options: CloneOptions<'_>) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let mut flags = libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if options.pid_namespace {
        flags |= libc::CLONE_NEWPID as u64;
    }
    if options.network_namespace {
        flags |= libc::CLONE_NEWNET as u64;
    }
    if options.ipc_namespace {
        flags |= libc::CLONE_NEWIPC as u64;
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = clone_args(flags, libc::SIGCHLD);
    args.pidfd = (&raw mut pidfd) as u64;
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let Some(pid) = clone3(&args)? else { return Ok(None) };
    // SAFETY: with CLONE_PIDFD the kernel has stored a new file descriptor there, and this is its only owner.
    Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// Forks with further clone `flags`; `None` in the child. The exit signal is SIGCHLD, or none if a namespace is
/// created. For programs that run in a process without threads.
pub(crate) fn clone(flags: libc::c_int) -> Result<Option<Pid>, Errno> {
    let signal = if flags == 0 { libc::SIGCHLD } else { 0 };
    clone3(&clone_args(flags as u64, signal))
}

/// Creates a pair of connected sockets. They keep message boundaries, and each end sees the other close.
pub(crate) fn channel() -> Result<(OwnedFd, OwnedFd), Errno> {
    let pair =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // A caller may have closed the standard streams.
    Ok((above_standard(pair.0)?, above_standard(pair.1)?))
}

// In the kernel's headers since 5.5 and 5.7; libc has them as i32, which is too small for the second.
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
    // SAFETY: without CLONE_VM the child has a copy of this memory, the stack included, and continues here. Callers
    // make only system calls there until it executes or exits.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(args), size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(last_errno());
    }
    Ok(Pid::from_raw(i32::try_from(pid).unwrap_or_default()))
}
