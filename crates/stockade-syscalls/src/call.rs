//! What a process does to itself between `clone` and `exec`, call by call.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::capabilities;
use crate::copy::copy;
use crate::execute::ExecuteWith;
use crate::filter::Filter;
use crate::inherited::Attribute;
use crate::mounts;
use crate::program::last_errno;

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
    /// Join the mount namespace behind the descriptor, and go to its root (`setns`). Needs a process that shares
    /// its root and working directory with no other.
    JoinMounts(OwnedFd),
    /// Join the namespace behind the descriptor, of this kind (`setns`).
    JoinNamespace(OwnedFd, LinkNameSpaceType),
    /// Copy the mount namespace (`unshare`).
    UnshareMounts,
    /// Make every mount of the namespace a slave without set-uid bits: what happens here stays here
    /// (`mount_setattr`).
    MakeMountsSlaves,
    /// Take a copy of the working directory with the mounts below it (`open_tree`).
    CloneTree,
    /// Take a copy of the working directory without the mounts below it (`open_tree`).
    CloneTreeAlone,
    /// Mount the copy onto the working directory (`move_mount`).
    AttachTree,
    /// Go to the root of the copy (`fchdir`).
    EnterTree,
    /// Make the mounts from the working directory down slaves without set-uid bits (`mount_setattr`).
    MakeTreeSlave,
    /// Take set-uid bits away from the root and all mounts below it (`mount_setattr`).
    MakeRootNosuid,
    /// Make the working directory the root, the old root stacked upon it (`pivot_root`).
    PivotRoot,
    /// Take the old root away (`umount2`).
    DetachOldRoot,
    /// Make the working directory the root (`chroot`). Where it is the root of the topmost mount on the root of
    /// the mount namespace, nothing tells this from [`Call::PivotRoot`] with the old root taken away, but for what
    /// lies covered below.
    ChangeRoot,
    /// Go to the new root (`chdir`).
    ChangeToRoot,
    /// Attach a mount that is attached nowhere yet, at a path below the working directory that leads through
    /// no link (`openat2`, `move_mount`).
    Attach {
        /// The mount.
        mount: OwnedFd,
        /// Where, relative to the working directory.
        at: CString,
    },
    /// Put descriptors in the place of the standard ones (`dup2`); `None` leaves that one as it is.
    Redirect([Option<OwnedFd>; 3]),
    /// Make this terminal the one of the session that the process leads (`TIOCSCTTY`).
    TakeTerminal(OwnedFd),
    /// Put something that the process has inherited to its documented state.
    Reset(Attribute),
    /// Take every capability but these out of the bounding set, and lock the securebits (`prctl`).
    BoundCapabilities(CapabilitySet),
    /// Give up every capability but these, in all sets (`capset`).
    KeepCapabilities(CapabilitySet),
    /// Give up inheritable and ambient capabilities (`capset`).
    ClearInheritable,
    /// Never have more privileges than now (`prctl`).
    NoNewPrivileges,
    /// Be traced by no process without CAP_SYS_PTRACE, until something is executed (`prctl`).
    BecomeUndumpable,
    /// Install a filter of system calls (`prctl`).
    Filter(Filter),
    /// Go on in a child; the process itself stays behind until it is known how the program ended (see
    /// [`Program::run`](crate::program::Program::run)).
    Daemonize,
    /// Go on in a child once more and end the process itself: the child is in its session and does not
    /// lead it, so that it can never get a terminal again. Must come after [`Call::Daemonize`].
    ForkAgain,
    /// Go on in a child that is the first process of a new pid namespace. Must be followed, some calls
    /// later, by [`Call::WritePidFile`], at which the child waits.
    NewPidNamespace,
    /// Write the pid of the process that will execute into a new file at this path.
    WritePidFile(CString),
    /// Wait until the parent has said go (see [`Child::release_and_wait`](crate::spawn::Child::release_and_wait)); end if the parent is gone.
    WaitForRelease,
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
    /// Become any other program (`execveat`), with an environment.
    ExecuteWith(ExecuteWith),
    /// Carry over what is written to one descriptor to another, until the other side is closed (`read`, `write`).
    /// To the one that launched it this is as executing something: all that could fail has been done.
    Copy {
        /// Read from, without blocking.
        from: OwnedFd,
        /// Written to.
        to: OwnedFd,
    },
    /// End, with nothing more to do.
    End,
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

/// All mounts from one down, slaves: what happens there goes no further.
const SLAVES: MountPropagationFlags = MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC);

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

// SAFETY: the pointers are set and read by the one call that executes, in the process that makes it.
unsafe impl Send for Execute {}

impl Execute {
    /// The file at `path` (as seen after all calls before), with `arguments`, the first of which is argv0.
    pub fn new(path: CString, arguments: Vec<Argument>) -> Self {
        let numbers = arguments.iter().map(|_| Decimal::default()).collect();
        let pointers = vec![std::ptr::null(); arguments.len() + 1];
        Self { path, arguments, numbers, pointers }
    }

    /// Returns only if it failed.
    pub(crate) fn run(&mut self, earlier_cpu_us: u64) -> Errno {
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
pub(crate) struct Decimal {
    text: [u8; 21],
}

impl Decimal {
    pub(crate) fn set(&mut self, mut number: u64) -> &CStr {
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

impl Call {
    /// Makes a call that concerns this process alone. `state` goes from call to call.
    pub(crate) fn make(&mut self, state: &mut State) -> Result<(), Errno> {
        match self {
            Self::NewSession => rustix::process::setsid().map(drop),
            Self::JoinNetwork(netns) => {
                rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            }
            Self::JoinMounts(mounts) => {
                rustix::thread::move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
            }
            Self::JoinNamespace(namespace, kind) => {
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(*kind))
            }
            Self::TakeTerminal(terminal) => rustix::process::ioctl_tiocsctty(&*terminal),
            Self::Reset(attribute) => attribute.reset(),
            Self::BoundCapabilities(kept) => capabilities::bound(*kept),
            Self::KeepCapabilities(kept) => capabilities::keep(*kept),
            Self::ClearInheritable => capabilities::clear_inheritable(),
            Self::NoNewPrivileges => capabilities::no_new_privileges(),
            Self::BecomeUndumpable => rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
            Self::Filter(filter) => filter.install(),
            Self::Copy { from, to } => copy(from.as_fd(), to.as_fd()),
            Self::Limit { resource, value } => {
                rustix::process::setrlimit(*resource, Rlimit { current: Some(*value), maximum: Some(*value) })
            }
            Self::Write { file, text } => rustix::io::write(&*file, text).map(drop),
            Self::ChangeDirectory(directory) => rustix::process::fchdir(&*directory),
            Self::UnshareMounts => {
                // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_NEWNS touches no descriptor.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            }
            Self::MakeMountsSlaves => state.make_slaves(c"/"),
            Self::MakeTreeSlave => {
                state.make_slaves(c".")?;
                state.make_up_for_nosuid()
            }
            Self::MakeRootNosuid => match mounts::make_nosuid(c"/") {
                // The working directory is the root by now.
                Err(Errno::NOSYS | Errno::PERM) => mounts::remount_nosuid(),
                made => made,
            },
            Self::CloneTree => state.clone_tree(OpenTreeFlags::AT_RECURSIVE),
            Self::CloneTreeAlone => state.clone_tree(OpenTreeFlags::empty()),
            Self::AttachTree => {
                let tree = state.tree.as_ref().ok_or(Errno::BADF)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(tree, c"", CWD, c".", flags)
            }
            // Taken, so that it is closed here: nothing of the jail's own tree is needed from outside.
            Self::EnterTree => rustix::process::fchdir(state.tree.take().ok_or(Errno::BADF)?),
            Self::PivotRoot => {
                state.make_up_for_nosuid()?;
                rustix::process::pivot_root(c".", c".")
            }
            Self::DetachOldRoot => rustix::mount::unmount(c".", UnmountFlags::DETACH),
            Self::ChangeRoot => rustix::process::chroot(c"."),
            Self::ChangeToRoot => rustix::process::chdir(c"/"),
            Self::Attach { mount, at } => attach(mount, at),
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
            | Self::WaitForRelease
            | Self::Execute(_)
            | Self::ExecuteWith(_)
            | Self::End => Err(Errno::INVAL),
        }
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::JoinNetwork(fd)
            | Self::JoinMounts(fd)
            | Self::JoinNamespace(fd, _)
            | Self::TakeTerminal(fd)
            | Self::Write { file: fd, .. }
            | Self::Attach { mount: fd, .. } => vec![fd.as_raw_fd()],
            Self::Copy { from, to } => vec![from.as_raw_fd(), to.as_raw_fd()],
            Self::ChangeDirectory(fd) => vec![fd.as_raw_fd()],
            Self::Redirect(streams) => streams.iter().flatten().map(AsRawFd::as_raw_fd).collect(),
            Self::ExecuteWith(execute) => execute.descriptors(),
            _ => Vec::new(),
        }
    }
}

/// What a process keeps from one call to a later one.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The jail's tree, between the calls that clone and enter it.
    tree: Option<OwnedFd>,
    /// Whether the kernel could not make all mounts `nosuid` at once.
    needs_nosuid: bool,
}

impl State {
    fn clone_tree(&mut self, extent: OpenTreeFlags) -> Result<(), Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | extent;
        self.tree = Some(rustix::mount::open_tree(CWD, c".", flags)?);
        Ok(())
    }

    fn make_slaves(&mut self, path: &CStr) -> Result<(), Errno> {
        match mounts::make_nosuid_slaves(path) {
            // Before Linux 5.12, or under a filter of system calls that is older.
            Err(Errno::NOSYS | Errno::PERM) => {
                self.needs_nosuid = true;
                rustix::mount::mount_change(path, SLAVES)
            }
            made => made,
        }
    }

    /// Without `mount_setattr` the root of the jail alone is made `nosuid`; mounts of others below it stay as they are.
    fn make_up_for_nosuid(&mut self) -> Result<(), Errno> {
        if std::mem::take(&mut self.needs_nosuid) { mounts::remount_nosuid() } else { Ok(()) }
    }
}

/// Attaches a mount where `at` leads, which whoever owns the tree may exchange at any moment: at worst for
/// something else in the tree.
fn attach(mount: &OwnedFd, at: &CStr) -> Result<(), Errno> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::openat2(CWD, at, flags, Mode::empty(), inside)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", point, c"", flags)
}

/// Every signal at its default. What the caller ignores would stay ignored in the VMM, which a hang-up or an
/// interrupt then no longer reached.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // Two cannot be changed.
        let _ = default_signal(signal);
    }
}

/// A signal at its default.
///
/// Asks the kernel and not the C library, which hides two signals, and has children that it spawns ignore them.
pub(crate) fn default_signal(signal: i32) -> Result<(), Errno> {
    const SIGNAL_SET_SIZE: usize = 8;
    // The kernel's `sigaction`: the default, no flags, no restorer, no signal blocked.
    let default = [0_usize; 4];
    let previous = std::ptr::null_mut::<usize>();
    // SAFETY: the kernel reads its `sigaction`, 32 bytes, and the default installs no handler; the previous one is not
    // asked for.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), previous, SIGNAL_SET_SIZE) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn reset_signals() -> Result<(), Errno> {
    default_signal(libc::SIGPIPE)?;
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t, which the call initialises.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: initialised just above; the old mask is not asked for.
    let refused = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

/// What this process has used of the processors, in microseconds.
pub(crate) fn cpu_time_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
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
}
