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

use crate::program::{Program, close_range, exit_now, last_errno};
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

/// What the monitor tells first: the child's pid, or why there is none.
const STARTED: i32 = 1;
const REFUSED: i32 = 2;

/// Clones a monitor, which clones a child that carries out `program`.
///
/// # Errors
/// What the kernel says of `memfd_create`, `socketpair` or `clone3`, the child's clone among them.
pub fn spawn_monitored(
    program: &mut Program,
    birth: Birth<'_>,
    duty: &Duty<'_>,
) -> Result<(Child, Monitor), Errno> {
    let executable = rustix::fs::memfd_create("stockade-monitor", MemfdFlags::CLOEXEC)?;
    let written = rustix::io::write(&executable, ELF)?;
    if written < ELF.len() {
        return Err(Errno::NOSPC);
    }
    let limit = CString::new(duty.log.map_or(0, |(_, limit)| limit).to_string()).unwrap_or_default();
    let (ours, theirs) = link()?;
    program.seal(Some(theirs.as_fd()));
    let Some((pid, pidfd)) = clone_with_pidfd(Birth::default())? else {
        watch(program, birth, duty, &executable, &limit, theirs)
    };
    drop(theirs);
    let monitor = Monitor { pid, pidfd };
    match hear(&ours)? {
        Ok((pid, pidfd)) => Ok((Child { pid, pidfd, link: ours }, monitor)),
        Err(cause) => {
            // It has ended, having nothing to watch.
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
    birth: Birth<'_>,
    duty: &Duty<'_>,
    executable: &OwnedFd,
    limit: &CString,
    link: OwnedFd,
) -> ! {
    let child = match clone_with_pidfd(birth) {
        Ok(None) => program.run_in_child(link),
        Ok(Some((pid, child))) => {
            if tell(&link, STARTED, pid.as_raw_nonzero().get(), Some(child.as_fd())).is_err() {
                // The launcher is gone, and with it the word for the child to go on.
                exit_now(1);
            }
            child
        }
        Err(cause) => {
            let _ = tell(&link, REFUSED, cause.raw_os_error(), None);
            exit_now(1);
        }
    };
    // A failure from here on leaves the child without a monitor, as if that had been killed: it runs, and
    // only the way it ends is not known.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir(c"/");
    let _ = take_over(duty, executable, &child, limit);
    exit_now(1)
}

/// Puts every descriptor where the monitor's program expects it, and becomes that.
fn take_over(duty: &Duty<'_>, executable: &OwnedFd, child: &OwnedFd, limit: &CString) -> Result<(), Errno> {
    // Out of the way of their places first.
    let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 16);
    let (executable, place, child) = (clear(executable.as_fd())?, clear(duty.place)?, clear(child.as_fd())?);
    let output = duty.log.map(|(output, _)| clear(output)).transpose()?;
    put(&place, 3)?;
    put(&child, 4)?;
    if let Some(output) = &output {
        put(output, 5)?;
    }
    close_range(0, 2)?;
    // The link among them: the launcher waits for the child's executing alone.
    let end = if output.is_some() { 6 } else { 5 };
    let keep = executable.as_raw_fd().unsigned_abs();
    close_range(end, keep - 1)?;
    close_range(keep + 1, u32::MAX)?;
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

fn tell(link: &OwnedFd, word: i32, number: i32, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&word.to_ne_bytes());
    message[4..].copy_from_slice(&number.to_ne_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(link, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// What the monitor told: the child, or why there is none.
fn hear(link: &OwnedFd) -> Result<Result<(Pid, OwnedFd), Errno>, Errno> {
    let mut message = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            link,
            &mut [IoSliceMut::new(&mut message)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let (word, number) = message.split_at(4);
    let word = i32::from_ne_bytes(word.try_into().unwrap_or_default());
    let number = i32::from_ne_bytes(number.try_into().unwrap_or_default());
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    match (word, fd, received.bytes) {
        (STARTED, Some(fd), 8) if number > 0 => Ok(Ok((Pid::from_raw(number).ok_or(Errno::SRCH)?, fd))),
        (REFUSED, _, 8) => Ok(Err(Errno::from_raw_os_error(number))),
        // The monitor was killed before it could tell.
        _ => Ok(Err(Errno::CONNRESET)),
    }
}
