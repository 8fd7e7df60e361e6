//! Unsafe operations of the probe inside a jail: escape attempts in a child process, detached processes, signals,
//! file descriptors, network interfaces.
//!
//! A forked child of a program with threads can rely on system calls only. The caller therefore prepares the child's
//! action as an [`Attempt`]; an arbitrary function could allocate.

use rustix::fd::{AsFd, IntoRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::convert::Infallible;
use std::ffi::{CStr, c_int, c_long};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::{io, ptr};

// ---- attempts ------------------------------------------------------------------------------------------

/// An attempt to escape from a jail. Its effects end with the child, except a file of a known name.
#[derive(Clone, Copy, Debug)]
pub enum Attempt<'a> {
    /// Open a file for reading.
    Open(&'a CStr),
    /// Change the root to `below` while staying above it, climb to the top, and make that the root. The attempt
    /// succeeds if the root differs from the old one, or if `goal` can be opened from it.
    ChrootAgain {
        /// A directory inside the current root.
        below: &'a CStr,
        /// A file that exists only in a root outside the jail.
        goal: &'a CStr,
    },
    /// Create a block device node, which the caller removes.
    MakeBlockNode {
        /// The path of the node.
        at: &'a CStr,
        /// The major number of the device.
        major: u32,
        /// The minor number of the device.
        minor: u32,
    },
    /// Create a detached proc mount, which ends with the child.
    MountProc,
    /// Become uid 0.
    BecomeRoot,
    /// Open an inode of the root's file system by a constructed handle, without a path.
    OpenByHandle {
        /// The number of the inode.
        inode: u32,
    },
    /// Join the mount namespace of a process.
    JoinMountNamespace(Option<Pid>),
    /// Attach to a process as its tracer, without stopping it.
    Trace(Option<Pid>),
    /// Open a socket for raw packets.
    RawPackets,
}

/// The outcome of an [`Attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The attempt succeeded, which it must not in a jail.
    Succeeded,
    /// The kernel refused the attempt.
    Refused(Errno),
    /// The attempt got the child killed by this signal.
    Killed(i32),
    /// The child could not be created or waited for.
    Unknown(Errno),
}

/// The exit code of a child whose errno does not fit into an exit code.
const ERRNO_TOO_LARGE: i32 = 255;
/// The maximum depth of a jail's root on the host.
const CLIMB: usize = 64;

/// Makes the attempt in a child process, which then exits.
pub fn in_child(attempt: &Attempt) -> Outcome {
    // SAFETY: the child makes system calls on prepared arguments and exits.
    match unsafe { fork() } {
        Err(error) => Outcome::Unknown(error),
        Ok(Side::Child) => exit(perform(attempt)),
        Ok(Side::Parent(child)) => wait_for(child),
    }
}

fn perform(attempt: &Attempt) -> Result<(), Errno> {
    match *attempt {
        Attempt::Open(path) => open(path),
        Attempt::ChrootAgain { below, goal } => chroot_again(below, goal),
        Attempt::MakeBlockNode { at, major, minor } => {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(CWD, at, rustix::fs::FileType::BlockDevice, Mode::RUSR, device)
        }
        Attempt::MountProc => mount_proc(),
        Attempt::BecomeRoot => rustix::thread::set_thread_uid(rustix::process::Uid::ROOT),
        Attempt::OpenByHandle { inode } => open_by_handle(inode),
        Attempt::JoinMountNamespace(target) => {
            let target = target.ok_or(Errno::SRCH)?;
            let process = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::empty())?;
            let mount = rustix::thread::ThreadNameSpaceType::MOUNT;
            rustix::thread::move_into_thread_name_spaces(process.as_fd(), mount)
        }
        Attempt::Trace(target) => seize(target.ok_or(Errno::SRCH)?),
        Attempt::RawPackets => {
            use rustix::net::{AddressFamily, SocketFlags, SocketType};
            // Protocol 0 receives nothing, so the socket is harmless.
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .map(drop)
        }
    }
}

fn open(path: &CStr) -> Result<(), Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map(drop)
}

fn chroot_again(below: &CStr, goal: &CStr) -> Result<(), Errno> {
    rustix::process::chdir(c"/")?;
    let before = rustix::fs::stat(c"/")?;
    rustix::process::chroot(below)?;
    for _ in 0..CLIMB {
        rustix::process::chdir(c"..")?;
    }
    rustix::process::chroot(c".")?;
    let after = rustix::fs::stat(c"/")?;
    if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) { open(goal) } else { Ok(()) }
}

fn mount_proc() -> Result<(), Errno> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let proc = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(proc.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(proc.as_fd(), flags, MountAttrFlags::empty()).map(drop)
}

/// `struct file_handle` with the handle of most file systems: an inode and its generation.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    inode: u32,
    generation: u32,
}

fn open_by_handle(inode: u32) -> Result<(), Errno> {
    // The working directory determines the file system.
    rustix::process::chdir(c"/")?;
    // Kind 1 is FILEID_INO32_GEN; generation 0 matches any.
    let mut handle = FileHandle { bytes: 8, kind: 1, inode, generation: 0 };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the handle is a whole `file_handle` of the size it states and outlives the call. A new file
    // descriptor has no owner and closes with this process, which is about to exit.
    let opened =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, libc::AT_FDCWD, &raw mut handle, flags) };
    checked(opened)
}

fn seize(target: Pid) -> Result<(), Errno> {
    let target = target.as_raw_pid();
    // SAFETY: PTRACE_SEIZE takes no address and no data; it touches no memory of this process.
    let attached =
        unsafe { libc::ptrace(libc::PTRACE_SEIZE, target, ptr::null_mut::<()>(), ptr::null_mut::<()>()) };
    checked(attached)
}

fn checked(returned: c_long) -> Result<(), Errno> {
    if returned < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

// ---- child processes -----------------------------------------------------------------------------------

enum Side {
    Parent(Pid),
    Child,
}

/// Forks.
///
/// # Safety
/// The child must not return to the caller's caller. It may only make system calls until it exits, because another
/// thread may have held any lock at the fork.
unsafe fn fork() -> Result<Side, Errno> {
    // SAFETY: the caller restricts the child to system calls.
    let forked = unsafe { libc::fork() };
    match forked {
        0 => Ok(Side::Child),
        1.. => Pid::from_raw(forked).map(Side::Parent).ok_or(Errno::INVAL),
        // Pid takes no negative number.
        _ => Err(last_errno()),
    }
}

/// Exits a child at once, without destructors and without flushing the parent's buffers.
fn exit(result: Result<(), Errno>) -> ! {
    let code = match result {
        Ok(()) => 0,
        Err(error) if (1..ERRNO_TOO_LARGE).contains(&error.raw_os_error()) => error.raw_os_error(),
        Err(_) => ERRNO_TOO_LARGE,
    };
    // SAFETY: the process ends here, so no code runs afterwards.
    unsafe { libc::_exit(code) }
}

fn wait_for(child: Pid) -> Outcome {
    match rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty())) {
        Ok(Some((_, status))) => outcome(status),
        Ok(None) => Outcome::Unknown(Errno::CHILD),
        Err(error) => Outcome::Unknown(error),
    }
}

fn outcome(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Outcome::Succeeded,
        (Some(code), _) if code < ERRNO_TOO_LARGE => Outcome::Refused(Errno::from_raw_os_error(code)),
        (_, Some(signal)) => Outcome::Killed(signal),
        _ => Outcome::Unknown(Errno::RANGE),
    }
}

fn pause_forever() -> ! {
    loop {
        rustix::event::pause();
    }
}

/// Forks a child that sleeps until it is killed, and returns its pid.
///
/// # Errors
/// Returns the errors of `fork`.
pub fn spawn_paused() -> io::Result<i32> {
    // SAFETY: the child only sleeps.
    match unsafe { fork() }? {
        Side::Child => pause_forever(),
        Side::Parent(child) => Ok(child.as_raw_pid()),
    }
}

/// Forks as fast as possible, in every child too, until all are killed.
pub fn fork_for_ever() -> ! {
    loop {
        // Parent and child both continue. A refused fork may succeed later.
        // SAFETY: the child only forks.
        let _ = unsafe { fork() };
    }
}

/// Starts a process that sleeps until it is killed, in its own session and without a living parent, and returns its
/// pid.
///
/// # Errors
/// Returns the errors of `fork`, `setsid` and `pipe2`.
pub fn spawn_daemon() -> io::Result<i32> {
    spawn_detached(None)
}

/// Starts a daemon that also leaves its namespaces: it has its own user and mount namespaces, and its root is
/// `/outcast`, which the caller has created.
///
/// # Errors
/// Returns the errors of [`spawn_daemon`], and an error if user namespaces are forbidden.
pub fn spawn_outcast() -> io::Result<i32> {
    spawn_detached(Some(c"/outcast"))
}

fn spawn_detached(root: Option<&CStr>) -> io::Result<i32> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child creates a session, forks, sends a pid and exits: system calls only.
    match unsafe { fork() }? {
        Side::Child => {
            drop(reader);
            exit(fork_daemon(writer, root).map(|never| match never {}))
        }
        Side::Parent(between) => {
            drop(writer);
            let mut pid = [0; 4];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut pid));
            match (wait_for(between), length) {
                (Outcome::Refused(error), _) | (_, Err(error)) => Err(error.into()),
                (_, Ok(4)) => Ok(i32::from_ne_bytes(pid)),
                (_, Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// Runs in the process between the caller and the daemon; returns only on failure.
fn fork_daemon(writer: OwnedFd, root: Option<&CStr>) -> Result<Infallible, Errno> {
    rustix::process::setsid()?;
    if let Some(root) = root {
        let flags = rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNS;
        // SAFETY: only CLONE_FILES makes unshare unsafe.
        unsafe { rustix::thread::unshare_unsafe(flags) }?;
        rustix::process::chroot(root)?;
        rustix::process::chdir(c"/")?;
    }
    // SAFETY: the child closes a file descriptor and sleeps.
    match unsafe { fork() }? {
        Side::Child => {
            drop(writer);
            pause_forever()
        }
        Side::Parent(daemon) => {
            rustix::io::write(&writer, &daemon.as_raw_pid().to_ne_bytes())?;
            exit(Ok(()))
        }
    }
}

/// The id of the caller's session; 0 if its leader is outside the caller's pid namespace.
///
/// # Errors
/// Returns the errors of `getsid`.
pub fn session() -> io::Result<i32> {
    // SAFETY: takes no memory. rustix's getsid cannot return 0.
    let session = unsafe { libc::getsid(0) };
    if session < 0 { Err(io::Error::last_os_error()) } else { Ok(session) }
}

// ---- signals -------------------------------------------------------------------------------------------

const SIGNALS: std::ops::RangeInclusive<c_int> = 1..=64;
/// The bytes of the kernel's signal set.
const SIGNAL_SET_SIZE: usize = 8;

/// The numbers of the signals that the process ignores.
///
/// Rust's runtime ignores SIGPIPE in every program. The result therefore has SIGPIPE if the process was started with
/// it ignored, unless [`ignore_signal`] or [`signal_self`] has changed it since.
///
/// # Errors
/// Returns the errors of `sigaction`.
pub fn ignored_signals() -> io::Result<Vec<i32>> {
    let mut ignored = Vec::new();
    for signal in SIGNALS {
        let is_ignored = if signal == libc::SIGPIPE {
            PIPE_SIGNAL_IGNORED.load(Ordering::Relaxed)
        } else {
            is_ignored(signal)?
        };
        if is_ignored {
            ignored.push(signal);
        }
    }
    Ok(ignored)
}

/// Calls the kernel directly: the C library hides two signals.
fn is_ignored(signal: c_int) -> io::Result<bool> {
    // The handler is the first field of the kernel's `sigaction`, which has at most 32 bytes.
    let mut action = [0_usize; 8];
    let unchanged = ptr::null::<()>();
    // SAFETY: the call changes nothing; the kernel writes its `sigaction`, at most 32 bytes, into 64 of `action`.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, unchanged, action.as_mut_ptr(), SIGNAL_SET_SIZE)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(action[0] == libc::SIG_IGN) }
}

/// The numbers of the signals that the calling thread blocks.
///
/// # Errors
/// Returns the errors of `sigprocmask`.
pub fn blocked_signals() -> io::Result<Vec<i32>> {
    let mut blocked = 0_u64;
    let unchanged = ptr::null::<u64>();
    // SAFETY: the call changes nothing; the kernel writes the 8 bytes of its signal set into `blocked`.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, unchanged, &raw mut blocked, SIGNAL_SET_SIZE)
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(SIGNALS.filter(|signal| blocked & signal_bit(*signal) != 0).collect())
}

fn signal_bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Ignores a signal from now on.
///
/// # Errors
/// Returns EINVAL if the number is no signal, or the signal cannot be ignored.
pub fn ignore_signal(signal: i32) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Sends a signal to the calling process, with the default action and unblocked.
///
/// Returns if the signal does not end the process.
///
/// # Errors
/// Returns EINVAL if the number is no signal.
pub fn signal_self(signal: i32) -> io::Result<()> {
    if !SIGNALS.contains(&signal) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // These two always have their default action, and the kernel may refuse even to set that.
    if !matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
        set_disposition(signal, libc::SIG_DFL)?;
    }
    unblock(signal)?;
    let this_process = rustix::process::getpid().as_raw_pid();
    // SAFETY: signals only this process, with the kernel's default action.
    let sent = unsafe { libc::kill(this_process, signal) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_disposition(signal: i32, disposition: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: the callers pass SIG_IGN or SIG_DFL, which run no code of this process.
    let before = unsafe { libc::signal(signal, disposition) };
    if before == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    if signal == libc::SIGPIPE {
        PIPE_SIGNAL_IGNORED.store(disposition == libc::SIG_IGN, Ordering::Relaxed);
    }
    Ok(())
}

fn unblock(signal: c_int) -> io::Result<()> {
    let set = signal_bit(signal);
    let ignored = ptr::null_mut::<u64>();
    // SAFETY: the kernel reads the 8 bytes of its signal set from `set` and writes nothing.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const set, ignored, SIGNAL_SET_SIZE)
    };
    checked(answer).map_err(io::Error::from)
}

// ---- file descriptors ----------------------------------------------------------------------------------

/// The open file descriptors below `limit`, found by a call for each number.
///
/// A standard stream that was closed at the start is not in the list, although Rust's runtime has opened
/// another file with that number.
pub fn open_descriptors(limit: c_int) -> Vec<i32> {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    (0..limit).filter(|number| is_open(*number) && !(*number < 3 && closed & (1 << number) != 0)).collect()
}

fn is_open(number: c_int) -> bool {
    // SAFETY: F_GETFD only reads a flag, and every number is allowed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0
}

// ---- network interfaces --------------------------------------------------------------------------------

/// The names of the network interfaces of the caller's network namespace, in the kernel's order.
///
/// # Errors
/// Returns an error if the kernel cannot be queried, for example EMFILE for the socket.
pub fn interfaces() -> io::Result<Vec<String>> {
    // SAFETY: takes nothing; returns null or an array that this function frees.
    let array = unsafe { libc::if_nameindex() };
    if array.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut names = Vec::new();
    let mut next = array;
    loop {
        // SAFETY: `next` is within the array: the loop stops at the last entry, which has no name.
        let entry = unsafe { next.read() };
        if entry.if_name.is_null() {
            break;
        }
        // SAFETY: a name that is not null is a string that is valid until the array is freed.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
        // SAFETY: the current entry is not the last, so another one follows.
        next = unsafe { next.add(1) };
    }
    // SAFETY: the array is the one from `if_nameindex`, freed once; the names were copied.
    unsafe { libc::if_freenameindex(array) };
    Ok(names)
}

// ---- before the runtime --------------------------------------------------------------------------------

/// Whether the process was started with SIGPIPE ignored, or has been set to ignore it since.
static PIPE_SIGNAL_IGNORED: AtomicBool = AtomicBool::new(false);
/// The standard streams that were closed at the start, as bits.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Records the state that Rust's runtime is about to change.
///
/// The runtime ignores SIGPIPE, and opens `/dev/null` for closed standard streams. Without `/dev/null`, as in a jail,
/// it would abort; an empty file in memory prevents that.
extern "C" fn record_start() {
    PIPE_SIGNAL_IGNORED.store(is_ignored(libc::SIGPIPE).unwrap_or(false), Ordering::Relaxed);
    for number in 0..3 {
        if !is_open(number) {
            CLOSED_AT_START.fetch_or(1 << number, Ordering::Relaxed);
            open_lowest_number();
        }
    }
}

fn open_lowest_number() {
    let opened = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())
        .or_else(|_| rustix::fs::memfd_create(c"closed", rustix::fs::MemfdFlags::empty()));
    if let Ok(file) = opened {
        // It stays open without an owner, as standard streams do.
        let _ = file.into_raw_fd();
    }
}

// SAFETY: the C library calls each function of this section once, after its own initialisation and before
// `main`; this one uses system calls and atomics only.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_START: extern "C" fn() = record_start;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fd::AsRawFd;
    use std::fs::File;

    #[test]
    fn an_attempt_that_the_kernel_allows_succeeds() {
        assert_eq!(in_child(&Attempt::Open(c"/")), Outcome::Succeeded);
    }

    #[test]
    fn a_refused_attempt_has_its_errno() {
        assert_eq!(in_child(&Attempt::Open(c"/nowhere/at/all")), Outcome::Refused(Errno::NOENT));
        assert_eq!(in_child(&Attempt::Trace(None)), Outcome::Refused(Errno::SRCH));
    }

    #[test]
    fn a_file_descriptor_is_listed_while_it_is_open() {
        let file = File::open("/").unwrap();
        let number = file.as_raw_fd();
        assert!(open_descriptors(number + 1).contains(&number));
        assert!(!open_descriptors(number).contains(&number));
    }

    #[test]
    fn the_loopback_is_an_interface() {
        assert!(interfaces().unwrap().contains(&"lo".to_owned()));
    }

    #[test]
    fn invalid_signal_numbers_are_refused() {
        for number in [-1, 0, 65, i32::MIN, i32::MAX] {
            assert_eq!(signal_self(number).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{number}");
            assert_eq!(ignore_signal(number).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{number}");
        }
    }

    #[test]
    fn session_returns_the_session_of_the_process() {
        let status = std::fs::read_to_string("/proc/self/stat").unwrap();
        let after_name = &status[status.rfind(')').unwrap()..];
        assert_eq!(after_name.split(' ').nth(4), Some(session().unwrap().to_string().as_str()));
    }
}
