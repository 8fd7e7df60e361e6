//! The actions that a process performs on itself between `clone` and `exec`.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::capabilities;
use crate::copy::copy;
use crate::descriptors::above_standard;
use crate::execute::ExecuteWith;
use crate::features::Feature;
use crate::filter::Filter;
use crate::inherited::Attribute;
use crate::mounts;
use crate::program::last_errno;

/// One action that a process performs on itself on its way into a jail: one system call, or a few that belong
/// together.
#[derive(Debug)]
pub enum Call {
    /// Close every file descriptor from 3 up that no call of the program needs (`close_range`).
    CloseOthers,
    /// Become the leader of a new session, without a terminal (`setsid`).
    NewSession,
    /// Join a network namespace (`setns`).
    JoinNetwork(OwnedFd),
    /// Set the soft and the hard limit of a resource (`setrlimit`).
    Limit {
        /// The limited resource.
        resource: Resource,
        /// The limit, in the resource's own unit.
        value: u64,
    },
    /// Write a text to a file with one `write`, as cgroup files require.
    Write {
        /// The file, open for writing.
        file: OwnedFd,
        /// The text.
        text: &'static [u8],
    },
    /// Change to a directory (`fchdir`). Must come before the copy of the mount namespace: the working directory
    /// moves into the copy, a file descriptor does not.
    ///
    /// The caller may use the same open directory elsewhere.
    ChangeDirectory(Arc<OwnedFd>),
    /// Join a mount namespace and change to its root (`setns`). The process must not share its root and working
    /// directory with another process.
    JoinMounts(OwnedFd),
    /// Join a namespace of this kind (`setns`).
    JoinNamespace(OwnedFd, LinkNameSpaceType),
    /// Copy the mount namespace (`unshare`).
    UnshareMounts,
    /// Make every mount of the namespace a nosuid slave, so that later mounts do not propagate (`mount_setattr`).
    MakeMountsSlaves,
    /// Clone the working directory with the mounts below it (`open_tree`).
    CloneTree,
    /// Clone the working directory without the mounts below it (`open_tree`).
    CloneTreeAlone,
    /// Mount the clone onto the working directory (`move_mount`).
    AttachTree,
    /// Change to the root of the clone (`fchdir`).
    EnterTree,
    /// Make all mounts from the working directory down nosuid slaves (`mount_setattr`).
    MakeTreeSlave,
    /// Make the root and all mounts below it nosuid (`mount_setattr`).
    MakeRootNosuid,
    /// Make the working directory the root, with the old root stacked upon it (`pivot_root`).
    PivotRoot,
    /// Unmount the old root (`umount2`).
    DetachOldRoot,
    /// Make the working directory the root (`chroot`).
    ///
    /// If the working directory is the root of the topmost mount on the root of the mount namespace, the result
    /// equals that of [`Call::PivotRoot`] and [`Call::DetachOldRoot`], except that the mounts below stay covered.
    ChangeRoot,
    /// Change to the new root (`chdir`).
    ChangeToRoot,
    /// Attach a detached mount at a path below the working directory, without following symbolic links
    /// (`openat2`, `move_mount`).
    Attach {
        /// The mount.
        mount: OwnedFd,
        /// The path, relative to the working directory.
        at: CString,
        /// The device and inode numbers that the path must have; otherwise the call fails with ESTALE.
        onto: Option<(u64, u64)>,
    },
    /// Unmount an attached mount, wherever it is in this namespace (`fchdir`, `umount2`).
    Detach(Detach),
    /// Replace the standard streams (`dup2`); `None` keeps a stream as it is.
    Redirect([Option<OwnedFd>; 3]),
    /// Make this the controlling terminal of the session that the process leads (`TIOCSCTTY`).
    TakeTerminal(OwnedFd),
    /// Reset an inherited attribute to its documented value.
    Reset(Attribute),
    /// Remove every capability but these from the bounding set, and lock the securebits (`prctl`).
    BoundCapabilities(CapabilitySet),
    /// Drop every capability but these from all sets (`capset`).
    KeepCapabilities(CapabilitySet),
    /// Drop inheritable and ambient capabilities (`capset`).
    ClearInheritable,
    /// Set no_new_privs (`prctl`).
    NoNewPrivileges,
    /// Until the next exec, prevent tracing by processes without CAP_SYS_PTRACE (`prctl`).
    BecomeUndumpable,
    /// Install a seccomp filter (`prctl`).
    Filter(Filter),
    /// Continue in a child. The process itself waits for the program's outcome (see
    /// [`Program::run`](crate::program::Program::run)).
    Daemonize,
    /// Continue in a child once more, and exit. The child does not lead its session, so it can never get a
    /// terminal again. Must come after [`Call::Daemonize`].
    ForkAgain,
    /// Continue in a child that is the first process of a new pid namespace. A later [`Call::WritePidFile`] must
    /// follow, at which the child waits.
    NewPidNamespace,
    /// Write the pid of the executing process into a new file at this path.
    WritePidFile(CString),
    /// Wait until the parent releases this process (see
    /// [`Child::release_and_wait`](crate::spawn::Child::release_and_wait)); exit if the parent has exited.
    WaitForRelease,
    /// Set the group (`setgid`).
    SetGid(u32),
    /// Drop every supplementary group (`setgroups`).
    ClearGroups,
    /// Set the user (`setuid`).
    SetUid(u32),
    /// Set SIGPIPE to its default action and unblock all signals.
    ResetSignals,
    /// Set every signal to its default action.
    DefaultSignals,
    /// Execute a program with an empty environment (`execve`).
    Execute(Execute),
    /// Execute a program with an environment, through the executor (`execveat`).
    ExecuteWith(ExecuteWith),
    /// Change into a new file system in memory that is mounted nowhere (`fsopen`, `fsmount`). It ends with the process.
    EnterMemory,
    /// Create a character device node in the working directory (`mknodat`).
    MakeNode {
        /// Its name.
        name: CString,
        /// The major and minor number of the device.
        device: (u32, u32),
    },
    /// Open a file in the working directory for reading and writing, and close it (`open`).
    OpenFile(CString),
    /// Make a call that jails need, without an effect.
    Probe(Feature),
    /// Copy from one file descriptor to another until the writer closes its end (`read`, `write`).
    ///
    /// The launcher treats this like an exec: nothing after it can fail.
    Copy {
        /// The non-blocking source.
        from: OwnedFd,
        /// The target.
        to: OwnedFd,
    },
    /// Exit with code 0.
    End,
}

/// An attached mount that is to be unmounted, in a mount namespace that may have no procfs.
#[derive(Debug)]
pub struct Detach {
    mount: OwnedFd,
    /// The procfs of the caller: `umount2` takes no file descriptor, and a mount of a file is no working directory.
    proc: OwnedFd,
    below_proc: CString,
}

impl Detach {
    /// The unmounting of `mount`, a file descriptor of its root above 2.
    ///
    /// # Errors
    /// Returns the errors of opening `/proc`.
    pub fn new(mount: OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).and_then(above_standard)?;
        let below_proc = CString::new(format!("self/fd/{}", mount.as_raw_fd())).unwrap_or_default();
        Ok(Self { mount, proc, below_proc })
    }
}

/// An argument of the program to execute.
#[derive(Debug)]
pub enum Argument {
    /// A fixed text.
    Text(CString),
    /// The processor time of the executing process at the exec, in microseconds.
    CpuTime,
    /// The processor time of all processes of the program until the exec, in microseconds.
    ProgramCpuTime,
}

const SLAVES: MountPropagationFlags = MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC);

/// The number of attempts for an executable that is open for writing: two seconds in all.
const MOST_TRIES: u32 = 10_000;
const TRY_AGAIN_AFTER: rustix::thread::Timespec = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// A program file with its arguments; its constructor allocates all memory that the exec needs.
#[derive(Debug)]
pub struct Execute {
    path: CString,
    arguments: Vec<Argument>,
    numbers: Vec<Decimal>,
    pointers: Vec<*const c_char>,
}

// SAFETY: only `run` sets and reads the pointers, in the process that executes.
unsafe impl Send for Execute {}

impl Execute {
    /// Creates the exec of `path` with `arguments`, the first of which is argv0.
    ///
    /// All earlier calls of the program take effect before the kernel resolves `path`.
    pub fn new(path: CString, arguments: Vec<Argument>) -> Self {
        let numbers = arguments.iter().map(|_| Decimal::default()).collect();
        let pointers = vec![std::ptr::null(); arguments.len() + 1];
        Self { path, arguments, numbers, pointers }
    }

    /// Executes the program; returns only on failure.
    pub(crate) fn run(&mut self, earlier_cpu_us: u64) -> Errno {
        let slots = self.arguments.iter().zip(&mut self.numbers).zip(&mut self.pointers);
        // Read once, so that both times are of one moment.
        let mut read = None;
        let mut own_cpu_us = || *read.get_or_insert_with(cpu_time_us);
        for ((argument, number), pointer) in slots {
            *pointer = match argument {
                Argument::Text(text) => text.as_ptr(),
                Argument::CpuTime => number.set(own_cpu_us()).as_ptr(),
                Argument::ProgramCpuTime => number.set(earlier_cpu_us + own_cpu_us()).as_ptr(),
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
            // ETXTBSY: another thread forked while the executable was being written, and its child holds the
            // writable file descriptor until it executes. The kernel offers nothing to wait on.
            let _ = rustix::thread::nanosleep(&TRY_AGAIN_AFTER);
        }
        last_errno()
    }
}

/// A buffer for a decimal number with its NUL.
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
    /// Performs an action of this process alone; `state` passes from call to call.
    pub(crate) fn perform(&mut self, state: &mut State) -> Result<(), Errno> {
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
                // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_NEWNS changes no file descriptor.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            }
            Self::MakeMountsSlaves => state.make_slaves(c"/"),
            Self::MakeTreeSlave => {
                state.make_slaves(c".")?;
                state.make_up_for_nosuid()
            }
            Self::MakeRootNosuid => match mounts::make_nosuid(c"/") {
                // The working directory is the root here.
                Err(Errno::NOSYS | Errno::PERM) => mounts::remount_nosuid(),
                changed => changed,
            },
            Self::CloneTree => state.clone_tree(OpenTreeFlags::AT_RECURSIVE),
            Self::CloneTreeAlone => state.clone_tree(OpenTreeFlags::empty()),
            Self::AttachTree => {
                let tree = state.tree.as_ref().ok_or(Errno::BADF)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(tree, c"", CWD, c".", flags)
            }
            // `take` closes it here: the process needs no file descriptor of the tree once it is inside.
            Self::EnterTree => rustix::process::fchdir(state.tree.take().ok_or(Errno::BADF)?),
            Self::PivotRoot => {
                state.make_up_for_nosuid()?;
                rustix::process::pivot_root(c".", c".")
            }
            Self::DetachOldRoot => rustix::mount::unmount(c".", UnmountFlags::DETACH),
            Self::ChangeRoot => rustix::process::chroot(c"."),
            Self::ChangeToRoot => rustix::process::chdir(c"/"),
            Self::Attach { mount, at, onto } => attach(mount, at, *onto),
            Self::Detach(detach) => {
                rustix::process::fchdir(&detach.proc)?;
                rustix::mount::unmount(&*detach.below_proc, UnmountFlags::DETACH)
            }
            Self::Redirect([stdin, stdout, stderr]) => {
                stdin.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdin)?;
                stdout.as_ref().map_or(Ok(()), rustix::stdio::dup2_stdout)?;
                stderr.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr)
            }
            Self::EnterMemory => enter_memory(),
            Self::MakeNode { name, device: (major, minor) } => {
                let (kind, mode) = (FileType::CharacterDevice, Mode::RUSR | Mode::WUSR);
                rustix::fs::mknodat(CWD, &*name, kind, mode, rustix::fs::makedev(*major, *minor))
            }
            Self::OpenFile(name) => {
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::open(&*name, flags, Mode::empty()).map(drop)
            }
            Self::Probe(feature) => feature.probe(),
            Self::SetGid(gid) => rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(*gid)),
            Self::ClearGroups => rustix::thread::set_thread_groups(&[]),
            Self::SetUid(uid) => rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(*uid)),
            Self::ResetSignals => reset_signals(),
            Self::DefaultSignals => {
                default_signals();
                Ok(())
            }
            // These concern more than one process: `Program` performs them itself.
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
            Self::Detach(detach) => vec![detach.mount.as_raw_fd(), detach.proc.as_raw_fd()],
            Self::Redirect(streams) => streams.iter().flatten().map(AsRawFd::as_raw_fd).collect(),
            Self::ExecuteWith(execute) => execute.descriptors(),
            _ => Vec::new(),
        }
    }
}

/// The state that one call leaves for a later one.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The jail's tree, between the calls that clone and enter it.
    tree: Option<OwnedFd>,
    /// Whether the kernel lacks `mount_setattr`, so that no mount is nosuid yet.
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
            // Before Linux 5.12, or under a seccomp filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                self.needs_nosuid = true;
                rustix::mount::mount_change(path, SLAVES)
            }
            changed => changed,
        }
    }

    /// Without `mount_setattr`, makes only the jail's root nosuid; foreign mounts below it stay as they are.
    fn make_up_for_nosuid(&mut self) -> Result<(), Errno> {
        if std::mem::take(&mut self.needs_nosuid) { mounts::remount_nosuid() } else { Ok(()) }
    }
}

fn enter_memory() -> Result<(), Errno> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let memory = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(memory.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = rustix::mount::fsmount(memory.as_fd(), flags, MountAttrFlags::empty())?;
    rustix::process::fchdir(mount)
}

/// Attaches a mount at `at`. The owner of the tree can exchange that path at any moment, but only for another path
/// in the tree; with `onto` not even for that.
fn attach(mount: &OwnedFd, at: &CStr, onto: Option<(u64, u64)>) -> Result<(), Errno> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = match rustix::fs::openat2(CWD, at, flags, Mode::empty(), inside) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if onto.is_some() => return Err(Errno::STALE),
        opened => opened?,
    };
    if let Some(onto) = onto {
        let found = rustix::fs::fstat(&point)?;
        if (found.st_dev, found.st_ino) != onto {
            return Err(Errno::STALE);
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", point, c"", flags)
}

/// Sets every signal to its default action.
///
/// Signals that the caller ignores would stay ignored in the VMM, which a hang-up or an interrupt could then no
/// longer end.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SIGKILL and SIGSTOP cannot be changed.
        let _ = default_signal(signal);
    }
}

/// Sets a signal to its default action.
///
/// Calls the kernel directly: the C library hides two signals, and children that it spawns ignore them.
pub(crate) fn default_signal(signal: i32) -> Result<(), Errno> {
    const SIGNAL_SET_SIZE: usize = 8;
    // The kernel's `sigaction`: the default, no flags, no restorer, no signal blocked.
    let default = [0_usize; 4];
    let previous = std::ptr::null_mut::<usize>();
    // SAFETY: the kernel reads its `sigaction`, 32 bytes, and the default installs no handler; the pointer to the
    // previous action is null.
    let answer =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), previous, SIGNAL_SET_SIZE) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn reset_signals() -> Result<(), Errno> {
    default_signal(libc::SIGPIPE)?;
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t, which the call initialises.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: initialised just above; the pointer to the old mask is null.
    let refused = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The processor time of this process, in microseconds.
pub(crate) fn cpu_time_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
    fn a_mount_is_attached_to_no_other_than_the_given_inode() {
        // No mount: an attempt to attach it fails with EINVAL or EPERM, and so shows that the inode was accepted.
        let no_mount = rustix::fs::open(c"/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let own = rustix::fs::stat(c"src").unwrap();
        let outcome = |at, onto| attach(&no_mount, at, onto).unwrap_err();
        assert_eq!(outcome(c"src", Some((own.st_dev, own.st_ino + 1))), Errno::STALE);
        assert_eq!(outcome(c"src", Some((own.st_dev + 1, own.st_ino))), Errno::STALE);
        assert_eq!(outcome(c"no-such", Some((own.st_dev, own.st_ino))), Errno::STALE);
        assert_eq!(outcome(c"no-such", None), Errno::NOENT);
        for onto in [None, Some((own.st_dev, own.st_ino))] {
            let cause = outcome(c"src", onto);
            assert!([Errno::INVAL, Errno::PERM].contains(&cause), "{cause}");
        }
    }
}
