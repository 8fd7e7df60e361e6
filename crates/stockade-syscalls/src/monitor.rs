//! A child whose parent is the monitor, a small process that remains when this process exits.

#[path = "../programs/files.rs"]
pub mod files;

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions, waitid};
use rustix::thread::CapabilitySet;

use crate::call::{default_signal, default_signals, reset_signals};
use crate::capabilities;
use crate::execute::put;
use crate::inherited::Attribute;
use crate::program::{Failure, Program, close_range, exit_now, last_errno};
use crate::sealed::sealed_bytes;
use crate::spawn::{Child, CloneOptions, channel, clone_with_pidfd, receive};

/// The monitor's program, compiled by the build script from `programs/monitor.rs`.
const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitor"));

/// The files and the title of a monitor.
#[derive(Debug)]
pub struct MonitorConfig<'a> {
    /// The jail's entry, where the monitor writes its [`files`].
    pub entry: BorrowedFd<'a>,
    /// The reading end of the pipe with the VMM's output, and the maximum size of the log in bytes.
    pub log: Option<(BorrowedFd<'a>, u64)>,
    /// The jail's cgroup with a memory controller, which counts the processes that the kernel kills because memory runs out.
    pub memory_cgroup: Option<BorrowedFd<'a>>,
    /// The argument that process lists show after the monitor's name.
    pub title: CString,
}

/// A started monitor.
#[derive(Debug)]
pub struct Monitor {
    /// Its pid.
    pub pid: Pid,
    /// Its pidfd, which is readable once the child's exit status is written.
    pub pidfd: OwnedFd,
}

/// Whether the wait for a monitor is given up: the child's pid, once it is known, and the time waited.
pub type GiveUpOn<'a> = &'a mut dyn FnMut(Option<Pid>, Duration) -> bool;

/// Clones a monitor, which clones a child that runs `program`.
///
/// # Arguments
/// `give_up` is asked as by [`Child::release_and_wait`], with the child's pid once that is known. The monitor and the
/// child are killed then.
///
/// # Errors
/// Returns the errors of `memfd_create`, `socketpair` and both `clone3` calls, and ETIMEDOUT if the wait is given up.
pub fn spawn_monitored(
    program: &mut Program,
    options: CloneOptions<'_>,
    config: &MonitorConfig<'_>,
    give_up: GiveUpOn<'_>,
) -> Result<(Child, Monitor), Errno> {
    let executable = sealed_bytes(c"stockade-monitor", ELF)?;
    let limit = CString::new(config.log.map_or(0, |(_, limit)| limit).to_string()).unwrap_or_default();
    let (launcher_end, child_end) = channel()?;
    // The monitor has its own channel: the child's closes with the child, and each reports one process.
    let (monitor_channel, to_launcher) = channel()?;
    program.compute_gaps(Some(child_end.as_fd()));
    let Some((pid, pidfd)) = clone_with_pidfd(CloneOptions::default())? else {
        drop((launcher_end, monitor_channel));
        run_monitor(program, options, config, &executable, &limit, child_end, &to_launcher)
    };
    drop((child_end, to_launcher));
    let monitor = Monitor { pid, pidfd };
    let mut child = None;
    match await_start(&monitor_channel, give_up, &mut child) {
        Ok((pid, pidfd)) => Ok((Child { pid, pidfd, channel: launcher_end }, monitor)),
        Err(cause) => {
            // Any child exits when its channel closes, unless it is frozen, and the monitor has nothing to watch.
            drop(launcher_end);
            child.iter().for_each(end);
            end(&monitor.pidfd);
            Err(cause)
        }
    }
}

/// Receives the child, and waits until the monitor has executed its program, or was killed.
///
/// # Arguments
/// `found` gets the child's pidfd if the wait for the monitor fails.
fn await_start(
    channel: &OwnedFd,
    give_up: GiveUpOn<'_>,
    found: &mut Option<OwnedFd>,
) -> Result<(Pid, OwnedFd), Errno> {
    let fd = channel.as_fd();
    let received = receive(fd, &mut |waited| give_up(None, waited), || receive_child(channel))?;
    let (pid, pidfd) = received.ok_or(Errno::TIMEDOUT)?;
    // The end of the channel without a failure means that both have executed their programs: the child has a copy.
    let ended = receive(fd, &mut |waited| give_up(Some(pid), waited), || Failure::receive(fd));
    match ended.and_then(|ended| ended.ok_or(Errno::TIMEDOUT)) {
        Ok(None) => Ok((pid, pidfd)),
        Ok(Some(failure)) => Err(failure.errno),
        Err(cause) => {
            *found = Some(pidfd);
            Err(cause)
        }
    }
}

/// Kills a child and waits for it, at most for a second: longer only a process lives that the kernel holds.
fn end(child: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(child, Signal::KILL);
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&second));
    let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// Runs in the monitor's process, which only makes system calls: it may be the child of a threaded process.
fn run_monitor(
    program: &mut Program,
    options: CloneOptions<'_>,
    config: &MonitorConfig<'_>,
    executable: &OwnedFd,
    limit: &CString,
    child_channel: OwnedFd,
    channel: &OwnedFd,
) -> ! {
    // Above the numbers that the monitor's program uses; it closes at the exec.
    let Ok(channel) = rustix::io::fcntl_dupfd_cloexec(channel, 16) else { exit_now(1) };
    // If the launcher ignores SIGCHLD, the kernel would keep no exit status of the child for the monitor.
    let failed = default_signal(libc::SIGCHLD).and_then(|()| match clone_with_pidfd(options)? {
        None => program.run_in_child(child_channel),
        Some((pid, child)) => {
            // Only the child may hold its end: the launcher waits for it to close.
            drop(child_channel);
            send_child(&channel, pid, child.as_fd())?;
            rustix::process::setsid()?;
            rustix::process::chdir(c"/")?;
            drop_privileges()?;
            execute(config, executable, &child, limit, &channel)
        }
    });
    if let Err(errno) = failed {
        Failure { call: 0, errno }.send(channel.as_fd());
    }
    exit_now(1)
}

/// Resets the state that the monitor inherits from the launcher, and drops all privileges that it does not need.
///
/// It keeps uid 0, to write into the jail's entry. Reading its program needs a capability. Root processes without
/// capabilities, such as exec processes, therefore cannot trace it.
fn drop_privileges() -> Result<(), Errno> {
    Attribute::ALL.into_iter().try_for_each(Attribute::reset)?;
    rustix::thread::set_thread_groups(&[])?;
    default_signals();
    reset_signals()?;
    // At the size limit of the log the monitor must not die: the VMM would die too.
    ignore(libc::SIGXFSZ)?;
    ignore(libc::SIGPIPE)?;
    rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)?;
    rustix::thread::set_thread_uid(rustix::process::Uid::ROOT)?;
    capabilities::bound(CapabilitySet::empty())?;
    // Before the capabilities are dropped: a VMM of uid 0 could trace a dumpable process without any.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    capabilities::keep(CapabilitySet::empty())?;
    capabilities::no_new_privileges()
}

fn ignore(signal: i32) -> Result<(), Errno> {
    // SAFETY: SIG_IGN installs no handler, so the signal runs no code of this process.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// Moves every file descriptor to the number that the monitor's program expects, and executes the program.
fn execute(
    config: &MonitorConfig<'_>,
    executable: &OwnedFd,
    child: &OwnedFd,
    limit: &CString,
    channel: &OwnedFd,
) -> Result<(), Errno> {
    // First above all of those numbers; the program's own file descriptor closes at the exec.
    let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 16);
    let (executable, entry, child) =
        (clear(executable.as_fd())?, clear(config.entry)?, clear(child.as_fd())?);
    let output = config.log.map(|(output, _)| clear(output)).transpose()?;
    let cgroup = config.memory_cgroup.map(clear).transpose()?;
    let placed = [(Some(&entry), 3), (Some(&child), 4), (output.as_ref(), 5), (cgroup.as_ref(), 6)];
    for (fd, number) in placed {
        match fd {
            Some(fd) => put(fd, number)?,
            None => close_range(number.unsigned_abs(), number.unsigned_abs())?,
        }
    }
    let mut kept = [channel.as_raw_fd().unsigned_abs(), executable.as_raw_fd().unsigned_abs()];
    kept.sort_unstable();
    close_range(0, 2)?;
    let mut from = 7;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX)?;
    let arguments = [
        c"stockade-monitor".as_ptr(),
        limit.as_ptr(),
        config.title.as_ptr(),
        std::ptr::null::<libc::c_char>(),
    ];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both lists end with a null pointer, and every other pointer is to a NUL-terminated string that outlives
    // the call; the file descriptor is open.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            executable.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(last_errno())
}

/// Sends the child's pid and pidfd to the launcher.
fn send_child(channel: &OwnedFd, pid: Pid, child: BorrowedFd<'_>) -> Result<(), Errno> {
    let message = pid.as_raw_nonzero().get().to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [child];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Receives the monitor's first message: the child, or the reason why there is none.
fn receive_child(channel: &OwnedFd) -> Result<(Pid, OwnedFd), Errno> {
    let mut message = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut message)];
        rustix::net::recvmsg(channel, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let (first, second) = message.split_at(4);
    let number = |bytes: &[u8]| i32::from_ne_bytes(bytes.try_into().unwrap_or_default());
    match (received.bytes, fd) {
        (4, Some(fd)) if number(first) > 0 => Ok((Pid::from_raw(number(first)).ok_or(Errno::SRCH)?, fd)),
        // A failure: the index of the call, which means nothing here, and the cause.
        (8, None) => Err(Errno::from_raw_os_error(number(second))),
        // The monitor was killed before it sent anything.
        _ => Err(Errno::CONNRESET),
    }
}
