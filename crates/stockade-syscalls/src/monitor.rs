//! A child whose parent is not this process but a small monitor, which stays behind when this process ends.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::Pid;

use crate::call::default_signal;
use crate::program::{Failure, Program, close_range, exit_now, last_errno};
use crate::spawn::{Birth, Child, clone_with_pidfd, link};

/// The monitor's program, compiled by the build script from `monitor/monitor.rs`.
const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitor"));

/// What a monitor does.
#[derive(Debug)]
pub struct Duty<'a> {
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
    birth: Birth<'_>,
    duty: &Duty<'_>,
) -> Result<(Child, Monitor), Errno> {
    let executable = executable()?;
    let limit = CString::new(duty.log.map_or(0, |(_, limit)| limit).to_string()).unwrap_or_default();
    let (ours, theirs) = link()?;
    // The monitor has a link of its own: the child's closes with the child, and each tells of one process.
    let (word, to_launcher) = link()?;
    program.seal(Some(theirs.as_fd()));
    let Some((pid, pidfd)) = clone_with_pidfd(Birth::default())? else {
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

/// The monitor's program as a file without a name.
fn executable() -> Result<OwnedFd, Errno> {
    let name = c"stockade-monitor";
    let executable = match rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one of these may be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC),
        made => made,
    }?;
    if rustix::io::write(&executable, ELF)? < ELF.len() {
        return Err(Errno::NOSPC);
    }
    Ok(executable)
}

/// The monitor's life, from here on with system calls alone.
fn watch(
    program: &mut Program,
    birth: Birth<'_>,
    duty: &Duty<'_>,
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
            take_over(duty, executable, &child, limit, &word)
        }
    });
    if let Err(errno) = failed {
        Failure { call: 0, errno }.send(word.as_fd());
    }
    exit_now(1)
}

/// Puts every descriptor where the monitor's program expects it, and becomes that.
fn take_over(
    duty: &Duty<'_>,
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

/// Makes `number` a descriptor of the same file that survives the exec.
fn put(fd: &OwnedFd, number: i32) -> Result<(), Errno> {
    // SAFETY: this process was cloned to become another program, and nothing in it uses the descriptor that
    // had this number before.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(last_errno()) } else { Ok(()) }
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
