//! What a process does to itself between `clone` and `exec`, as data.
//!
//! A child of a threaded process may only make system calls: another thread may have held the allocator's
//! lock, or any other, at the moment of the clone. So nothing is decided and nothing allocated there. A
//! [`Program`] is made in full beforehand, and the child carries it out call by call.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::spawn;

/// One thing that a process does to itself on its way into a jail: one system call, or a few that are one
/// act.
#[derive(Debug)]
pub enum Call {
    /// Close every descriptor from 3 up that no call of the program needs (`close_range`).
    CloseOthers,
    /// Become the leader of a new session, without a terminal (`setsid`).
    NewSession,
    /// Join the network namespace behind the descriptor (`setns`).
    JoinNetwork(OwnedFd),
    /// Set a resource limit, soft and hard alike (`setrlimit`).
    Limit {
        /// What is limited.
        resource: Resource,
        /// The limit, in the resource's own unit.
        value: u64,
    },
    /// Write a text to a file with one `write`, as cgroup files want it.
    Write {
        /// The file, open for writing.
        file: OwnedFd,
        /// The text.
        text: &'static [u8],
    },
    /// Go to a directory (`fchdir`). Before the mount namespace is copied: the working directory is carried
    /// over into the copy, a descriptor is not.
    ///
    /// Shared with whoever holds the directory open for other work.
    ChangeDirectory(Arc<OwnedFd>),
    /// Copy the mount namespace (`unshare`).
    UnshareMounts,
    /// Make every mount of the namespace a slave: what happens here stays here (`mount`).
    MakeMountsSlaves,
    /// Take a copy of the working directory with the mounts below it (`open_tree`).
    CloneTree,
    /// Mount the copy onto the working directory (`move_mount`).
    AttachTree,
    /// Go to the root of the copy (`fchdir`).
    EnterTree,
    /// Make the working directory the root, the old root stacked upon it (`pivot_root`).
    PivotRoot,
    /// Take the old root away (`umount2`).
    DetachOldRoot,
    /// Go to the new root (`chdir`).
    ChangeToRoot,
    /// Put descriptors in the place of the standard ones (`dup2`); `None` leaves that one as it is.
    Redirect([Option<OwnedFd>; 3]),
    /// Go on in a child; the process itself stays behind until it is known how the program ended (see
    /// [`Program::run`]).
    Daemonize,
    /// Go on in a child once more and end the process itself: the child is in its session and does not
    /// lead it, so that it can never get a terminal again. Must come after [`Call::Daemonize`].
    ForkAgain,
    /// Go on in a child that is the first process of a new pid namespace. Must be followed, some calls
    /// later, by [`Call::WritePidFile`], at which the child waits.
    NewPidNamespace,
    /// Write the pid of the process that will execute into a new file at this path.
    WritePidFile(CString),
    /// Wait until the parent has said go (see [`spawn::Child::go_and_tell`]); end if the parent is gone.
    WaitForGo,
    /// Set the group (`setgid`).
    SetGid(u32),
    /// Drop every supplementary group (`setgroups`).
    ClearGroups,
    /// Set the user (`setuid`).
    SetUid(u32),
    /// SIGPIPE at its default, no signal blocked.
    ResetSignals,
    /// Every signal at its default.
    DefaultSignals,
    /// Become another program (`execve`), with an empty environment.
    Execute(Execute),
}

/// An argument of the program to execute.
#[derive(Debug)]
pub enum Argument {
    /// A text known beforehand.
    Text(CString),
    /// The processor time of the executing process at that moment, in microseconds.
    CpuTime,
    /// The processor time of the processes that came before it since the program began, in microseconds.
    EarlierCpuTime,
}

/// How often an executable that is open for writing is tried: for two seconds in all.
const MOST_TRIES: u32 = 10_000;
const TRY_AGAIN_AFTER: rustix::thread::Timespec = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// What to execute. Every byte it needs is allocated when it is made.
#[derive(Debug)]
pub struct Execute {
    path: CString,
    arguments: Vec<Argument>,
    numbers: Vec<Decimal>,
    pointers: Vec<*const c_char>,
}

impl Execute {
    /// The file at `path` (as seen after all calls before), with `arguments`, the first of which is argv0.
    pub fn new(path: CString, arguments: Vec<Argument>) -> Self {
        let numbers = arguments.iter().map(|_| Decimal::default()).collect();
        let pointers = vec![std::ptr::null(); arguments.len() + 1];
        Self { path, arguments, numbers, pointers }
    }

    /// Returns only if it failed.
    fn run(&mut self, earlier_cpu_us: u64) -> Errno {
        let slots = self.arguments.iter().zip(&mut self.numbers).zip(&mut self.pointers);
        for ((argument, number), pointer) in slots {
            *pointer = match argument {
                Argument::Text(text) => text.as_ptr(),
                Argument::CpuTime => number.set(cpu_time_us()).as_ptr(),
                Argument::EarlierCpuTime => number.set(earlier_cpu_us).as_ptr(),
            };
        }
        let environment = [std::ptr::null::<c_char>()];
        for _ in 0..MOST_TRIES {
            // SAFETY: `pointers` holds one pointer per argument, each to a NUL-terminated string owned by
            // `self`, and ends with a null pointer (it is one longer than `arguments`); so does
            // `environment`.
            unsafe { libc::execve(self.path.as_ptr(), self.pointers.as_ptr(), environment.as_ptr()) };
            if last_errno() != Errno::TXTBSY {
                break;
            }
            // Another thread forked while the executable was being written, and its child still holds the
            // descriptor until it executes. The kernel has nothing to wait at for that.
            let _ = rustix::thread::nanosleep(&TRY_AGAIN_AFTER);
        }
        last_errno()
    }
}

/// Room for a number in decimal, closed by a NUL.
#[derive(Debug, Default)]
struct Decimal {
    text: [u8; 21],
}

impl Decimal {
    fn set(&mut self, mut number: u64) -> &CStr {
        let mut at = self.text.len() - 1;
        self.text[at] = 0;
        loop {
            at -= 1;
            self.text[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        CStr::from_bytes_until_nul(&self.text[at..]).unwrap_or_default()
    }
}

/// Where a program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number of the call, from 0.
    pub call: usize,
    /// What the kernel said.
    pub errno: Errno,
}

impl Failure {
    /// Reports it through `link`, without allocating. If nobody reads there any more, nobody is told.
    pub(crate) fn send(self, link: BorrowedFd<'_>) {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&(self.call as u32).to_ne_bytes());
        message[4..].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(link, &message);
    }

    /// Waits at the other end of the link: a failure, or `None` once every process that held this end has
    /// executed something else or ended.
    pub(crate) fn receive(link: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let mut message = [0; 8];
        let length = loop {
            match rustix::io::read(link, &mut message) {
                // A child that failed without having read the word to go on: the socket tells that first,
                // once, and then what the child had to say.
                Err(Errno::INTR | Errno::CONNRESET) => (),
                read => break read?,
            }
        };
        if length < message.len() {
            return Ok(None);
        }
        let (call, errno) = message.split_at(4);
        let call = u32::from_ne_bytes(call.try_into().unwrap_or_default()) as usize;
        let errno = Errno::from_raw_os_error(i32::from_ne_bytes(errno.try_into().unwrap_or_default()));
        Ok(Some(Self { call, errno }))
    }
}

/// A list of calls, complete with everything they need.
#[derive(Debug)]
pub struct Program {
    calls: Vec<Call>,
    /// The descriptors to close, as ranges with both ends in them.
    gaps: Vec<(u32, u32)>,
    /// What the processes before this one used, in microseconds of processor time.
    earlier_cpu_us: u64,
    position: Position,
}

/// Which process of the program this is.
#[derive(Debug)]
enum Position {
    /// The one that began.
    Origin,
    /// One that it made; failures go through the link.
    Descendant { link: OwnedFd },
    /// The one that made the pid namespace, until it has written its child's pid.
    Parent { child: Pid, gate: OwnedFd, then: Then },
    /// The first process of a pid namespace, until its pid is written.
    Held { gate: OwnedFd, link: OwnedFd },
}

/// What the maker of a pid namespace does once its child may go on.
#[derive(Debug)]
enum Then {
    /// It is the origin: wait at this end of the link for the outcome.
    Wait(OwnedFd),
    /// It is a descendant itself, with its own link: end.
    End(OwnedFd),
}

/// Why a program stopped.
enum Stop {
    /// The call at hand failed.
    Here(Errno),
    /// A descendant reported a failure.
    Below(Failure),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Here(errno)
    }
}

impl Program {
    /// A program of `calls`, in this order.
    pub fn new(calls: Vec<Call>) -> Self {
        Self { calls, gaps: Vec::new(), earlier_cpu_us: 0, position: Position::Origin }
    }

    /// Carries the program out in this process, which must have no other thread.
    ///
    /// If all goes well this never returns: the process has become another program, or, where the program
    /// goes on in a child, it ends with exit code 0 once the child has executed. What fails in a child is
    /// reported to and returned in the process that called.
    pub fn run(&mut self) -> Failure {
        self.seal(None);
        let failure = self.carry_out();
        self.report(failure);
        failure
    }

    /// The same in a child that was cloned for it; never returns.
    pub(crate) fn run_in_child(&mut self, link: OwnedFd) -> ! {
        self.position = Position::Descendant { link };
        let failure = self.carry_out();
        self.report(failure);
        exit_now(1)
    }

    /// Reports a failure to the origin and ends, unless this is the origin.
    fn report(&self, failure: Failure) {
        match &self.position {
            Position::Origin | Position::Parent { then: Then::Wait(_), .. } => (),
            Position::Descendant { link }
            | Position::Held { link, .. }
            | Position::Parent { then: Then::End(link), .. } => {
                failure.send(link.as_fd());
                exit_now(1)
            }
        }
    }

    /// Works out what [`Call::CloseOthers`] closes: all but what the calls hold, `link`, and 0 to 2.
    pub(crate) fn seal(&mut self, link: Option<BorrowedFd<'_>>) {
        let mut kept: Vec<RawFd> = self.calls.iter().flat_map(Call::descriptors).collect();
        kept.extend(link.map(|l| l.as_raw_fd()));
        kept.retain(|&fd| fd > 2);
        kept.sort_unstable();
        kept.dedup();
        let mut first = 3;
        self.gaps.clear();
        for fd in kept {
            let fd = fd.unsigned_abs();
            if fd > first {
                self.gaps.push((first, fd - 1));
            }
            first = fd + 1;
        }
        self.gaps.push((first, u32::MAX));
    }

    /// Returns only at the call that failed.
    fn carry_out(&mut self) -> Failure {
        let mut tree = None;
        for index in 0..self.calls.len() {
            match self.call(index, &mut tree) {
                Ok(()) => (),
                Err(Stop::Here(errno)) => return Failure { call: index, errno },
                Err(Stop::Below(failure)) => return failure,
            }
        }
        // A program that executes nothing has nothing to go on with.
        Failure { call: self.calls.len(), errno: Errno::NOEXEC }
    }

    fn call(&mut self, index: usize, tree: &mut Option<OwnedFd>) -> Result<(), Stop> {
        match &mut self.calls[index] {
            Call::Daemonize => self.daemonize(),
            Call::ForkAgain => Ok(fork_again()?),
            Call::NewPidNamespace => Ok(self.new_pid_namespace()?),
            Call::WritePidFile(_) => self.write_pid_file(index),
            Call::WaitForGo => Ok(self.wait_for_go()?),
            Call::CloseOthers => {
                Ok(self.gaps.iter().try_for_each(|&(first, last)| close_range(first, last))?)
            }
            Call::Execute(execute) => Err(execute.run(self.earlier_cpu_us).into()),
            simple => Ok(simple.make(tree)?),
        }
    }

    /// The first fork of a daemon: the caller's process waits for the outcome, the child goes on.
    fn daemonize(&mut self) -> Result<(), Stop> {
        let (ours, theirs) = spawn::link()?;
        self.earlier_cpu_us += cpu_time_us();
        if spawn::clone(0)?.is_some() {
            drop(theirs);
            return outcome(&ours);
        }
        drop(ours);
        self.position = Position::Descendant { link: theirs };
        Ok(())
    }

    fn new_pid_namespace(&mut self) -> Result<(), Errno> {
        // A child of a session's leader must leave that session: the leader's end would send it SIGHUP.
        // SAFETY: getsid reads no memory of this process. (rustix's cannot return the 0 that stands for a
        // leader outside this pid namespace.)
        let session = unsafe { libc::getsid(0) };
        let leads = session == rustix::process::getpid().as_raw_nonzero().get();
        let (gate, keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (then, link) = match &self.position {
            Position::Descendant { link } => (
                Then::End(rustix::io::fcntl_dupfd_cloexec(link, 3)?),
                rustix::io::fcntl_dupfd_cloexec(link, 3)?,
            ),
            _ => spawn::link().map(|(ours, theirs)| (Then::Wait(ours), theirs))?,
        };
        self.earlier_cpu_us += cpu_time_us();
        if let Some(child) = spawn::clone(libc::CLONE_NEWPID)? {
            self.position = Position::Parent { child, gate: keep, then };
            return Ok(());
        }
        drop((keep, then));
        self.position = Position::Held { gate, link };
        if leads {
            rustix::process::setsid()?;
        }
        Ok(())
    }

    /// Whoever knows the pid writes it; the first process of a pid namespace waits until that is done.
    fn write_pid_file(&mut self, index: usize) -> Result<(), Stop> {
        let Call::WritePidFile(path) = &self.calls[index] else { return Err(Errno::INVAL.into()) };
        match &self.position {
            Position::Origin | Position::Descendant { .. } => Ok(write_pid(path, rustix::process::getpid())?),
            Position::Parent { child, gate, then } => {
                // On failure this process ends, which closes the gate, which ends the child.
                write_pid(path, *child)?;
                rustix::io::write(gate, b"g")?;
                match then {
                    Then::Wait(link) => outcome(link),
                    Then::End(_) => exit_now(0),
                }
            }
            Position::Held { gate, .. } => {
                let mut go = [0];
                match rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut go))? {
                    0 => exit_now(1),
                    _ => Ok(()),
                }
            }
        }
    }

    fn wait_for_go(&self) -> Result<(), Errno> {
        let Position::Descendant { link } = &self.position else { return Ok(()) };
        let mut go = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(link, &mut go))? {
            0 => exit_now(1),
            _ => Ok(()),
        }
    }
}

impl Call {
    /// Makes a call that concerns this process alone. `tree` holds the jail's tree between the calls that
    /// clone and enter it.
    fn make(&mut self, tree: &mut Option<OwnedFd>) -> Result<(), Errno> {
        match self {
            Self::NewSession => rustix::process::setsid().map(drop),
            Self::JoinNetwork(netns) => {
                rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            }
            Self::Limit { resource, value } => {
                rustix::process::setrlimit(*resource, Rlimit { current: Some(*value), maximum: Some(*value) })
            }
            Self::Write { file, text } => rustix::io::write(&*file, text).map(drop),
            Self::ChangeDirectory(directory) => rustix::process::fchdir(&*directory),
            Self::UnshareMounts => {
                // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_NEWNS touches no descriptor.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            }
            Self::MakeMountsSlaves => {
                let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                rustix::mount::mount_change(c"/", slave)
            }
            Self::CloneTree => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::AT_RECURSIVE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                *tree = Some(rustix::mount::open_tree(CWD, c".", flags)?);
                Ok(())
            }
            Self::AttachTree => {
                let tree = tree.as_ref().ok_or(Errno::BADF)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(tree, c"", CWD, c".", flags)
            }
            // Taken, so that it is closed here: nothing of the jail's own tree is needed from outside.
            Self::EnterTree => rustix::process::fchdir(tree.take().ok_or(Errno::BADF)?),
            Self::PivotRoot => rustix::process::pivot_root(c".", c"."),
            Self::DetachOldRoot => rustix::mount::unmount(c".", UnmountFlags::DETACH),
            Self::ChangeToRoot => rustix::process::chdir(c"/"),
            Self::Redirect([stdin, stdout, stderr]) => {
                stdin.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin)?;
                stdout.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout)?;
                stderr.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr)
            }
            Self::SetGid(gid) => rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(*gid)),
            Self::ClearGroups => rustix::thread::set_thread_groups(&[]),
            Self::SetUid(uid) => rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(*uid)),
            Self::ResetSignals => reset_signals(),
            Self::DefaultSignals => {
                default_signals();
                Ok(())
            }
            // These concern more than one process: the program makes them itself.
            Self::CloseOthers
            | Self::Daemonize
            | Self::ForkAgain
            | Self::NewPidNamespace
            | Self::WritePidFile(_)
            | Self::WaitForGo
            | Self::Execute(_) => Err(Errno::INVAL),
        }
    }

    fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::JoinNetwork(fd) | Self::Write { file: fd, .. } => vec![fd.as_raw_fd()],
            Self::ChangeDirectory(fd) => vec![fd.as_raw_fd()],
            Self::Redirect(streams) => streams.iter().flatten().map(AsRawFd::as_raw_fd).collect(),
            _ => Vec::new(),
        }
    }
}

/// The second fork of a daemon.
fn fork_again() -> Result<(), Errno> {
    match spawn::clone(0)? {
        Some(_) => exit_now(0),
        None => Ok(()),
    }
}

/// Waits for the descendants: their failure is ours; their success ends this process.
fn outcome(link: &OwnedFd) -> Result<(), Stop> {
    match Failure::receive(link.as_fd())? {
        Some(failure) => Err(Stop::Below(failure)),
        None => exit_now(0),
    }
}

fn write_pid(path: &CStr, pid: Pid) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?;
    let mut number = Decimal::default();
    let text = number.set(u64::from(pid.as_raw_nonzero().get().unsigned_abs()));
    rustix::io::write(file, text.to_bytes()).map(drop)
}

/// Closes every descriptor from 3 up that this process got from its caller.
///
/// To be called first of all: whatever the process opened itself would be closed too.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_inherited() -> Result<(), Errno> {
    close_range(3, u32::MAX)
}

pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: in a child that will execute or end, and in a program that owns its whole process, no code
    // runs later that would use the closed descriptors: those of the program are outside the range.
    let refused = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Every signal at its default. What the caller ignores would stay ignored in the VMM, which a hang-up or an
/// interrupt then no longer reached.
fn default_signals() {
    for signal in 1..=64 {
        // The C library keeps two of them to itself, and two others cannot be changed.
        let _ = default_signal(signal);
    }
}

/// A signal at its default.
pub(crate) fn default_signal(signal: i32) -> Result<(), Errno> {
    // SAFETY: SIG_DFL installs no handler, so no code of ours can be run by it.
    if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

fn reset_signals() -> Result<(), Errno> {
    default_signal(libc::SIGPIPE)?;
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t, which the call initialises.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: initialised just above; the old mask is not asked for.
    let refused = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

fn cpu_time_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Ends this process without running anything that the process it was copied from has registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_decimal() {
        let mut number = Decimal::default();
        assert_eq!(number.set(0).to_bytes(), b"0");
        assert_eq!(number.set(1_234).to_bytes(), b"1234");
        assert_eq!(number.set(u64::MAX).to_bytes(), b"18446744073709551615");
    }

    #[test]
    fn all_descriptors_but_the_needed_are_closed() {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY, Mode::empty()).expect("open /dev/null");
        let raw = null.as_raw_fd().unsigned_abs();
        let mut program = Program::new(vec![Call::CloseOthers, Call::ChangeDirectory(Arc::new(null))]);
        program.seal(None);
        let closed = |fd: u32| program.gaps.iter().any(|&(first, last)| first <= fd && fd <= last);
        assert!(!closed(0) && !closed(1) && !closed(2), "the standard descriptors stay open");
        assert!(!closed(raw), "what a call needs stays open");
        assert!((3..64).filter(|&fd| fd != raw).all(closed) && closed(u32::MAX));
    }
}
