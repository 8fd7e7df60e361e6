//! A child whose parent is not this process but a small monitor, which stays behind when this process ends.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{DumpableBehavior, Pid};
use rustix::thread::CapabilitySet;

use crate::call::{default_signal, default_signals, reset_signals};
use crate::capabilities;
use crate::execute::put;
use crate::inherited::Attribute;
use crate::program::{Failure, Program, close_range, exit_now, last_errno};
use crate::sealed::sealed_bytes;
use crate::spawn::{Child, CloneOptions, clone_with_pidfd, link};

/// The monitor's program, compiled by the build script from `programs/monitor.rs`.
const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitor"));

/// What a monitor does.
#[derive(Debug)]
pub struct MonitorConfig<'a> {
    /// Where it writes `ended`, once the child has ended, and `log`.
    pub place: BorrowedFd<'a>,
    /// What it copies to the log: the reading end of a pipe, and the most that the log may hold, in bytes.
    pub log: Option<(BorrowedFd<'a>, u64)>,
    /// What it is called in lists of processes, behind its name.
    pub title: CString,
}

/// A monitor that was started.
#[derive(Debug)]
pub struct Monitor {
    /// Its pid.
    pub pid: Pid,
    /// Its pidfd: readable once the child's end is written down.
    pub pidfd: OwnedFd,
}

/// Clones a monitor, which clones a child that carries out `program`.
///
/// # Errors
/// What the kernel says of `memfd_create`, `socketpair` or `clone3`, the child's clone among them.
pub fn spawn_monitored(
    program: &mut Program,
    birth: CloneOptions<'_>,
    duty: &MonitorConfig<'_>,
) -> Result<(Child, Monitor), Errno> {
    let executable = sealed_bytes(c"stockade-monitor", ELF)?;
    let limit = CString::new(duty.log.map_or(0, |(_, limit)| limit).to_string()).unwrap_or_default();
    let (ours, theirs) = link()?;
    // The monitor has a link of its own: the child's closes with the child, and each tells of one process.
    let (word, to_launcher) = link()?;
    program.seal(Some(theirs.as_fd()));
    let Some((pid, pidfd)) = clone_with_pidfd(CloneOptions::default())? else {
        drop((ours, word));
        watch(program, birth, duty, &executable, &limit, theirs, &to_launcher)
    };
    drop((theirs, to_launcher));
    let monitor = Monitor { pid, pidfd };
    // Its end, without a failure, means that the monitor has executed its program, or was killed.
    let heard = hear(&word).and_then(|child| match Failure::receive(word.as_fd())? {
        None => Ok(child),
        Some(failure) => Err(failure.errno),
    });
    match heard {
        Ok((pid, pidfd)) => Ok((Child { pid, pidfd, link: ours }, monitor)),
        Err(cause) => {
            // The child, if there is one, ends when its link closes; the monitor has nothing to watch.
            drop(ours);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(monitor.pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            Err(cause)
        }
    }
}

/// The monitor's life, from here on with system calls alone.
fn watch(
    program: &mut Program,
    birth: CloneOptions<'_>,
    duty: &MonitorConfig<'_>,
    executable: &OwnedFd,
    limit: &CString,
    link: OwnedFd,
    word: &OwnedFd,
) -> ! {
    // Above the numbers that the monitor's program expects something at; it ends with the exec.
    let Ok(word) = rustix::io::fcntl_dupfd_cloexec(word, 16) else { exit_now(1) };
    // Where the launcher ignores SIGCHLD the kernel would keep no status of the child for the monitor.
    let failed = default_signal(libc::SIGCHLD).and_then(|()| match clone_with_pidfd(birth)? {
        None => program.run_in_child(link),
        Some((pid, child)) => {
            // The child's link is the child's alone from here on.
            drop(link);
            tell(&word, pid, child.as_fd())?;
            rustix::process::setsid()?;
            rustix::process::chdir(c"/")?;
            give_up()?;
            take_over(duty, executable, &child, limit, &word)
        }
    });
    if let Err(errno) = failed {
        Failure { call: 0, errno }.send(word.as_fd());
    }
    exit_now(1)
}

/// Gives up what the monitor inherits from the launcher, and all that it has no need of.
///
/// It stays uid 0, to write into the jail's place. Its program may not be read without a capability, so that not even
/// another process of root without capabilities, a visitor for one, can trace it.
fn give_up() -> Result<(), Errno> {
    Attribute::ALL.into_iter().try_for_each(Attribute::reset)?;
    rustix::thread::set_thread_groups(&[])?;
    default_signals();
    reset_signals()?;
    // A log that may grow no more is no reason to end: the VMM would end too.
    ignore(libc::SIGXFSZ)?;
    ignore(libc::SIGPIPE)?;
    rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)?;
    rustix::thread::set_thread_uid(rustix::process::Uid::ROOT)?;
    capabilities::bound(CapabilitySet::empty())?;
    // Before it has no capability more than a VMM of uid 0, which could trace it then.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    capabilities::keep(CapabilitySet::empty())?;
    capabilities::no_new_privileges()
}

fn ignore(signal: i32) -> Result<(), Errno> {
    // SAFETY: SIG_IGN installs no handler, so no code of ours can be run by it.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// Puts every descriptor where the monitor's program expects it, and becomes that.
fn take_over(
    duty: &MonitorConfig<'_>,
    executable: &OwnedFd,
    child: &OwnedFd,
    limit: &CString,
    word: &OwnedFd,
) -> Result<(), Errno> {
    // Out of the way of their places first; the program ends with the exec.
    let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 16);
    let (executable, place, child) = (clear(executable.as_fd())?, clear(duty.place)?, clear(child.as_fd())?);
    let output = duty.log.map(|(output, _)| clear(output)).transpose()?;
    put(&place, 3)?;
    put(&child, 4)?;
    if let Some(output) = &output {
        put(output, 5)?;
    }
    let first = if output.is_some() { 6 } else { 5 };
    let mut kept = [word.as_raw_fd().unsigned_abs(), executable.as_raw_fd().unsigned_abs()];
    kept.sort_unstable();
    close_range(0, 2)?;
    let mut from = first;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX)?;
    let arguments =
        [c"stockade-monitor".as_ptr(), limit.as_ptr(), duty.title.as_ptr(), std::ptr::null::<libc::c_char>()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: both lists end with a null pointer, and every other one is to a string closed by a NUL that
    // lives as long as the call; the descriptor is open.
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

/// Tells the launcher the child's pid, with its pidfd.
fn tell(word: &OwnedFd, pid: Pid, child: BorrowedFd<'_>) -> Result<(), Errno> {
    let message = pid.as_raw_nonzero().get().to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [child];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(word, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// What the monitor tells first: the child, or why there is none.
fn hear(word: &OwnedFd) -> Result<(Pid, OwnedFd), Errno> {
    let mut message = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut message)];
        rustix::net::recvmsg(word, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let (first, second) = message.split_at(4);
    let number = |bytes: &[u8]| i32::from_ne_bytes(bytes.try_into().unwrap_or_default());
    match (received.bytes, fd) {
        (4, Some(fd)) if number(first) > 0 => Ok((Pid::from_raw(number(first)).ok_or(Errno::SRCH)?, fd)),
        // A failure: the number of the call, which is of no interest, and the cause.
        (8, None) => Err(Errno::from_raw_os_error(number(second))),
        // The monitor was killed before it could tell.
        _ => Err(Errno::CONNRESET),
    }
}
