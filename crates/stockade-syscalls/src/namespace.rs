//! Namespaces: their kinds and files, and their creation while the caller stays in its own.

use std::fmt::Display;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::thread::{CpuSet, ThreadNameSpaceType, UnshareFlags};

use crate::call::{Call, State};
use crate::program::Program;
use crate::spawn::{Child, CloneOptions, spawn};

/// The kinds of namespaces, by the names of their files in `/proc/PID/ns`.
pub const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The path of a process's namespace of this kind.
///
/// # Arguments
/// `process` is a pid, `self` or `thread-self`.
pub fn namespace_file(process: impl Display, kind: &str) -> String {
    format!("/proc/{process}/ns/{kind}")
}

/// Creates a network namespace without entering it.
///
/// The namespace lives as long as the returned file descriptor, a process in it, or a mount of it. Its loopback
/// interface is down, as after `ip netns add`.
///
/// # Errors
/// Returns the errors of `unshare` (EPERM without CAP_SYS_ADMIN, ENOSPC over the limit), of opening
/// `/proc/thread-self/ns/net`, and of starting a thread.
pub fn new_network() -> io::Result<OwnedFd> {
    begin_network()?.wait()
}

/// Begins to create a network namespace in a thread of its own.
///
/// # Errors
/// Returns an error if the thread cannot be started.
pub fn begin_network() -> io::Result<PendingNamespace> {
    let create = || {
        // SAFETY: only CLONE_FILES makes unshare unsafe (file descriptors would mean different files in
        // different threads); CLONE_NEWNET changes no file descriptor.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(open(&namespace_file("thread-self", "net"))?)
    };
    std::thread::Builder::new()
        .name("namespace".into())
        .spawn(create)
        .map(|thread| PendingNamespace(Some(thread)))
}

/// A namespace in creation. If it is dropped, the kernel removes the namespace.
#[derive(Debug)]
pub struct PendingNamespace(Option<JoinHandle<io::Result<OwnedFd>>>);

impl PendingNamespace {
    /// Waits for the namespace.
    ///
    /// # Errors
    /// Returns the errors of `unshare` and of opening the namespace's file.
    pub fn wait(mut self) -> io::Result<OwnedFd> {
        let joined = self.0.take().map(JoinHandle::join);
        joined
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(io::Error::other("the thread that creates the namespace panicked")))
    }
}

impl Drop for PendingNamespace {
    fn drop(&mut self) {
        // The thread must not outlive its purpose.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// Creates a mount namespace without entering it. Its only mount is the directory `root`, read-only.
///
/// The namespace lives as long as the returned file descriptor, a process in it, or a mount of it.
///
/// # Arguments
/// `processor`: the CPU to create the namespace on; `None` leaves the choice to the kernel.
///
/// # Errors
/// Returns the errors of `unshare`, `open_tree`, `move_mount`, `pivot_root` and `mount` (EPERM without
/// CAP_SYS_ADMIN), of opening `/proc/thread-self/ns/mnt`, of `sched_setaffinity`, and of starting a thread.
pub fn new_mounts(root: OwnedFd, processor: Option<usize>) -> io::Result<OwnedFd> {
    in_a_thread(move || {
        if let Some(processor) = processor {
            let mut only = CpuSet::new();
            only.set(processor);
            rustix::thread::sched_setaffinity(None, &only)?;
        }
        // The thread needs its own working directory, which the kernel moves into the copy of the mounts.
        // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_FS changes no file descriptor.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::fchdir(&root)?;
        let mut state = State::default();
        Call::UnshareMounts.perform(&mut state)?;
        // Before the pivot hides /proc.
        let mounts = open(&namespace_file("thread-self", "mnt"))?;
        for mut call in [
            Call::MakeMountsSlaves,
            Call::CloneTree,
            Call::AttachTree,
            Call::EnterTree,
            Call::PivotRoot,
            Call::DetachOldRoot,
        ] {
            call.perform(&mut state)?;
        }
        // A jail's tree covers this directory. If that is unmounted, the directory must be of no use.
        let nothing = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount(c".", nothing | MountFlags::NOEXEC, c"")?;
        Ok(mounts)
    })
}

/// Clones a child that runs `program` in the pid namespace of another process.
///
/// The caller stays in its own namespaces and is the child's parent.
///
/// # Errors
/// Returns the errors of `setns` (EPERM without CAP_SYS_ADMIN, ESRCH if the process has exited) and of [`spawn()`].
pub fn spawn_beside(
    process: BorrowedFd<'_>,
    program: &mut Program,
    options: CloneOptions<'_>,
) -> io::Result<Child> {
    in_a_thread(|| {
        // Changes the pid namespace of the thread's children, not of the thread.
        rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
        Ok(spawn(program, options)?)
    })
}

/// Runs `work` in a thread of its own. The namespaces that the thread enters end with it, so no error path can forget
/// to switch back.
fn in_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread for namespaces panicked"))?
    })
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_below_a_jails_tree_is_empty_and_read_only() {
        let test = std::any::type_name_of_val(&|| ());
        if !testkit::has(rustix::process::geteuid().is_root(), test, "root") {
            return;
        }
        let directory = std::env::temp_dir().join(format!("stk-mounts-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let root = rustix::fs::open(&directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mounts = new_mounts(root, None).unwrap();
        let seen = in_a_thread(|| {
            // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_FS changes no file descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
            Call::JoinMounts(mounts).perform(&mut State::default())?;
            Ok((std::fs::read_dir("/")?.count(), std::fs::create_dir("/x").unwrap_err()))
        });
        std::fs::remove_dir(&directory).unwrap();
        let (entries, refused) = seen.unwrap();
        assert_eq!((entries, refused.raw_os_error()), (0, Some(Errno::ROFS.raw_os_error())));
    }
}
