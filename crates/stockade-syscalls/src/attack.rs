//! Attacks of a compromised process from inside a jail. Each success would be harmful.

use std::ffi::{CStr, CString, c_int, c_long, c_uint, c_ulong};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::program::last_errno;

/// The name and the result of one attempt; `Ok` means harm.
pub type Attempted = (&'static str, Result<(), Errno>);

/// Attempts against another process, which may have the same uid.
pub fn on_process(pid: i32) -> Vec<Attempted> {
    vec![
        ("trace", trace(pid)),
        ("memory", open(pid, "mem", OFlags::RDWR)),
        ("executable-read", open(pid, "exe", OFlags::RDONLY)),
        ("executable-write", open(pid, "exe", OFlags::RDWR)),
        ("root", open(pid, "root", OFlags::RDONLY | OFlags::DIRECTORY)),
        ("working-directory", open(pid, "cwd", OFlags::RDONLY | OFlags::DIRECTORY)),
        ("descriptors", open(pid, "fd/0", OFlags::RDWR)),
        ("environment", read_some(pid, "environ")),
        ("memory-map", open(pid, "map_files", OFlags::RDONLY | OFlags::DIRECTORY)),
        ("get-descriptor", get_descriptor(pid)),
        ("write-memory", write_memory(pid)),
        ("mount-namespace", join(pid)),
        ("score", open(pid, "oom_score_adj", OFlags::WRONLY)),
    ]
}

/// Attempts against the host.
pub fn on_host() -> Vec<Attempted> {
    let write = |path: &CStr| rustix::fs::open(path, OFlags::WRONLY, Mode::empty()).map(drop);
    vec![
        ("core-pattern", write(c"/proc/sys/kernel/core_pattern")),
        ("modprobe", write(c"/proc/sys/kernel/modprobe")),
        ("sysrq", write(c"/proc/sysrq-trigger")),
        ("mount", rustix::mount::mount(c"none", c"/", c"tmpfs", rustix::mount::MountFlags::empty(), c"")),
        ("remount-suid", rustix::mount::mount_remount(c"/", rustix::mount::MountFlags::BIND, c"")),
        ("unmount", rustix::mount::unmount(c"/", rustix::mount::UnmountFlags::DETACH)),
        ("open-tree", open_tree()),
        // SAFETY: only CLONE_FILES makes unshare unsafe.
        ("mount-namespace", unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }),
        ("change-root", rustix::process::chroot(c"/")),
        ("pivot-root", rustix::process::pivot_root(c"/", c"/")),
        ("block-node", block_node()),
        ("handle", open_by_handle()),
        ("uid-0", become_root()),
        ("capabilities", regain()),
        ("ambient", ambient()),
        ("securebits", checked(prctl(libc::PR_SET_SECUREBITS, 0))),
        ("new-privileges", checked(prctl(libc::PR_SET_NO_NEW_PRIVS, 0))),
        ("session-keyring", read_keyring()),
        ("user-keyring", read_user_keyring()),
        ("user-namespace-0", map_uid_0()),
        ("real-time", real_time()),
        ("priority", priority()),
        ("type-on-terminal", type_on_terminal()),
        ("raw-packets", raw_packets()),
    ]
}

/// Attempts of a process of uid 0 to leave a set-uid file in this directory.
pub fn on_set_uid(directory: &CStr) -> Vec<Attempted> {
    let Ok(file) = plain_file(directory) else { return Vec::new() };
    let path = join_path(directory, c"attack-plain");
    let new = join_path(directory, c"attack-set-uid");
    let raw = |number: c_long, arguments: [c_ulong; 4]| {
        let [one, two, three, four] = arguments;
        // SAFETY: the pointers among the arguments lead to strings that outlive the call.
        checked(unsafe { libc::syscall(number, one, two, three, four, 0) })
    };
    let (at, set_uid) = (libc::AT_FDCWD as c_ulong, 0o4755);
    let (path, new, fd) = (path.as_ptr() as c_ulong, new.as_ptr() as c_ulong, file.as_raw_fd() as c_ulong);
    let create = (libc::O_CREAT | libc::O_WRONLY | libc::O_EXCL) as c_ulong;
    let unnamed = (libc::O_TMPFILE | libc::O_WRONLY) as c_ulong;
    let regular = c_ulong::from(libc::S_IFREG) | 0o4755;
    // A `struct open_how`: flags, mode, resolve.
    let how = [create, set_uid, 0];
    let mut tried = vec![
        ("fchmod", raw(libc::SYS_fchmod, [fd, set_uid, 0, 0])),
        ("fchmodat", raw(libc::SYS_fchmodat, [at, path, set_uid, 0])),
        ("fchmodat2", raw(452, [at, path, set_uid, 0])),
        ("set-gid", raw(libc::SYS_fchmodat, [at, path, 0o2755, 0])),
        ("openat", raw(libc::SYS_openat, [at, new, create, set_uid])),
        ("tmpfile", raw(libc::SYS_openat, [at, directory.as_ptr() as c_ulong, unnamed, set_uid])),
        ("mknodat", raw(libc::SYS_mknodat, [at, new, regular, 0])),
        ("openat2", raw(libc::SYS_openat2, [at, new, how.as_ptr() as c_ulong, size_of_val(&how) as c_ulong])),
        ("io-uring", raw(libc::SYS_io_uring_setup, [1, [0_u64; 32].as_mut_ptr() as c_ulong, 0, 0])),
        ("file-capability", file_capability(&file)),
    ];
    #[cfg(target_arch = "x86_64")]
    tried.extend([
        ("chmod", raw(libc::SYS_chmod, [path, set_uid, 0, 0])),
        ("creat", raw(libc::SYS_creat, [new, set_uid, 0, 0])),
        ("open", raw(libc::SYS_open, [new, create, set_uid, 0])),
        ("mknod", raw(libc::SYS_mknod, [new, regular, 0, 0])),
        ("chmod-x32", raw(libc::SYS_chmod | 0x4000_0000, [path, set_uid, 0, 0])),
        ("chmod-i386", chmod_i386()),
    ]);
    for name in [c"attack-plain", c"attack-set-uid"] {
        let _ = rustix::fs::unlink(join_path(directory, name));
    }
    tried
}

/// Attempts of a process of uid 0 to reach more of the host than its tree, with the help of a VMM.
pub fn on_confinement() -> Vec<Attempted> {
    let raw = |number: c_long, arguments: [c_ulong; 4]| {
        let [one, two, three, four] = arguments;
        // SAFETY: the pointers among the arguments lead to memory that outlives the call.
        checked(unsafe { libc::syscall(number, one, two, three, four, 0) })
    };
    let unix = libc::AF_UNIX as c_ulong;
    let mut pair = [0_i32; 2];
    let pair = pair.as_mut_ptr() as c_ulong;
    // These errors are about the arguments: the call is available, and a valid file descriptor would succeed.
    let is_available = |result: Result<(), Errno>| match result {
        Err(Errno::BADF | Errno::INVAL | Errno::FAULT) => Ok(()),
        other => other,
    };
    // An access list of the owner, a group and others. Each entry has two octets of a tag, two of permissions and an
    // id.
    let list: [u8; 28] = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255,
        255, 255,
    ];
    let (root, name) = (c"/".as_ptr() as c_ulong, c"system.posix_acl_access".as_ptr() as c_ulong);
    // SAFETY: the strings and the list outlive the call.
    let access_list =
        checked(unsafe { libc::syscall(libc::SYS_setxattr, root, name, list.as_ptr(), list.len(), 0) });
    vec![
        ("unix-socket", raw(libc::SYS_socket, [unix, libc::SOCK_STREAM as c_ulong, 0, 0])),
        ("datagram-pair", raw(libc::SYS_socketpair, [unix, libc::SOCK_DGRAM as c_ulong, 0, pair])),
        ("join-namespace", is_available(raw(libc::SYS_setns, [c_ulong::MAX, 0, 0, 0]))),
        ("foreign-ring", is_available(raw(libc::SYS_io_uring_enter, [c_ulong::MAX, 0, 0, 0]))),
        ("filter-listener", is_available(raw(libc::SYS_seccomp, [c_ulong::MAX, 0, 0, 0]))),
        ("access-list", access_list),
    ]
}

fn plain_file(directory: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(join_path(directory, c"attack-plain"), flags, Mode::RWXU)
}

fn join_path(directory: &CStr, name: &CStr) -> CString {
    let joined = [directory.to_bytes(), b"/", name.to_bytes()].concat();
    CString::new(joined).unwrap_or_default()
}

/// Tries `chmod` through the 32-bit interface, which has its own numbers.
///
/// The path is null, because a valid one would have to be in low memory. EFAULT shows that the kernel ran the call.
#[cfg(target_arch = "x86_64")]
fn chmod_i386() -> Result<(), Errno> {
    const CHMOD: c_int = 15;
    let answer: c_long;
    // SAFETY: the kernel takes a null path and reads nothing from it; rbx, which the compiler reserves, is restored.
    unsafe {
        std::arch::asm!("push rbx", "xor ebx, ebx", "int 0x80", "pop rbx", inlateout("rax") c_long::from(CHMOD) => answer,
            in("rcx") 0o4755, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    match i32::try_from(answer) {
        // The kernel ran the call and refused only the path.
        Ok(answer) if answer == -libc::EFAULT => Ok(()),
        Ok(answer) if answer < 0 => Err(Errno::from_raw_os_error(-answer)),
        _ => Ok(()),
    }
}

fn file_capability(file: &OwnedFd) -> Result<(), Errno> {
    // VFS_CAP_REVISION_2, effective, all capabilities permitted.
    let value: [u8; 20] = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0];
    rustix::fs::fsetxattr(file, "security.capability", &value, rustix::fs::XattrFlags::empty())
}

fn trace(pid: i32) -> Result<(), Errno> {
    let nothing: c_ulong = 0;
    // SAFETY: PTRACE_SEIZE stops nothing and takes no memory.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, nothing, nothing) })?;
    // SAFETY: as above.
    unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, nothing, nothing) };
    Ok(())
}

fn path_of(pid: i32, file: &str) -> String {
    format!("/proc/{pid}/{file}")
}

fn open(pid: i32, file: &str, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::open(path_of(pid, file), flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map(drop)
}

fn read_some(pid: i32, file: &str) -> Result<(), Errno> {
    let file = rustix::fs::open(path_of(pid, file), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::io::read(&file, &mut [0; 16])? {
        0 => Err(Errno::NODATA),
        _ => Ok(()),
    }
}

fn get_descriptor(pid: i32) -> Result<(), Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(&process, 1, rustix::process::PidfdGetfdFlags::empty()).map(drop)
}

fn write_memory(pid: i32) -> Result<(), Errno> {
    let byte = [0_u8; 1];
    let local = libc::iovec { iov_base: byte.as_ptr().cast_mut().cast(), iov_len: 1 };
    // The usual start address of static programs.
    let remote = libc::iovec { iov_base: 0x40_0000 as *mut _, iov_len: 1 };
    // SAFETY: reads one byte of this process, and writes only to another process.
    let written = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    // EFAULT: the access was allowed, and only the address is invalid.
    match checked(written as c_long) {
        Err(Errno::FAULT) => Ok(()),
        other => other,
    }
}

fn join(pid: i32) -> Result<(), Errno> {
    let namespace =
        rustix::fs::open(path_of(pid, "ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(rustix::thread::LinkNameSpaceType::Mount),
    )
}

fn open_tree() -> Result<(), Errno> {
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE;
    rustix::mount::open_tree(CWD, c"/", flags).map(drop)
}

fn block_node() -> Result<(), Errno> {
    let at = c"/attack-node";
    rustix::fs::mknodat(CWD, at, FileType::BlockDevice, Mode::RUSR, rustix::fs::makedev(254, 0))?;
    rustix::fs::unlink(at)
}

fn open_by_handle() -> Result<(), Errno> {
    // Inode 2, the root of most file systems.
    let handle: [u32; 4] = [8, 1, 2, 0];
    let root = rustix::fs::open(c"/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    // SAFETY: the kernel reads the handle, which states its length.
    checked(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), handle.as_ptr(), libc::O_RDONLY)
    })
}

fn become_root() -> Result<(), Errno> {
    if rustix::process::getuid().is_root() {
        return Err(Errno::ALREADY);
    }
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })
}

/// Tries to add capabilities to the permitted set.
fn regain() -> Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    let more = now.permitted | CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: more, permitted: more, ..now })
}

fn ambient() -> Result<(), Errno> {
    rustix::thread::configure_capability_in_ambient_set(CapabilitySet::CHOWN, true)
}

/// Reads the session keyring. If it has a key, it is the launcher's keyring.
fn read_keyring() -> Result<(), Errno> {
    match crate::state::attack_session_keyring()[0] {
        Ok(0) => Err(Errno::NODATA),
        Ok(_) => Ok(()),
        Err(errno) => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Reads the keyring of uid 0, which belongs to the host. The keyring of another uid is the jail's own.
fn read_user_keyring() -> Result<(), Errno> {
    if !rustix::process::getuid().is_root() {
        return Err(Errno::ALREADY);
    }
    crate::state::user_keyring().map(drop)
}

/// Creates a user namespace as uid 0, in a child, because a process cannot leave it again.
fn map_uid_0() -> Result<(), Errno> {
    if !rustix::process::getuid().is_root() {
        return Err(Errno::ALREADY);
    }
    crate::call::default_signal(libc::SIGCHLD)?;
    // SAFETY: the child makes one call and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: only CLONE_FILES makes unshare unsafe.
        let created = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) };
        crate::program::exit_now(created.map_or_else(Errno::raw_os_error, |()| 0));
    }
    let child = Pid::from_raw(child).ok_or_else(last_errno)?;
    let waited = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
    })?;
    match waited.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::CHILD),
    }
}

fn real_time() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one structure.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) }.into())
}

fn priority() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -1) }.into())
}

fn type_on_terminal() -> Result<(), Errno> {
    let byte = b'x';
    // SAFETY: the kernel reads one byte.
    let typed = |fd: c_int| checked(unsafe { libc::ioctl(fd, libc::TIOCSTI, &raw const byte) }.into());
    typed(0).or_else(|_| typed(1)).or_else(|_| typed(2))
}

fn raw_packets() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) }.into())
}

fn prctl(option: c_int, argument: c_uint) -> c_long {
    let nothing: c_ulong = 0;
    // SAFETY: the options in this module take no pointer.
    unsafe { libc::prctl(option, c_ulong::from(argument), nothing, nothing, nothing) }.into()
}

fn checked(answer: c_long) -> Result<(), Errno> {
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Executes a program in a child and returns its exit code; `None` if it was killed.
///
/// The exit code is 127 if the program cannot be executed.
///
/// # Errors
/// Returns the errors of `sigaction`, `fork` and `waitpid`.
pub fn exit_code_of(program: &CStr, argument: &CStr) -> Result<Option<i32>, Errno> {
    // If the launcher ignores SIGCHLD, the kernel keeps no exit code.
    crate::call::default_signal(libc::SIGCHLD)?;
    let arguments = [program.as_ptr(), argument.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the child executes or exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: both lists end with a null pointer, and the other pointers are to strings that outlive the call.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        crate::program::exit_now(127);
    }
    let child = Pid::from_raw(child).ok_or_else(last_errno)?;
    let waited = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
    })?;
    Ok(waited.and_then(|(_, status)| status.exit_status()))
}
