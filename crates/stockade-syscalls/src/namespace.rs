//! Namespaces, made without leaving one's own.

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

/// Makes a network namespace and returns a descriptor of it; the caller stays where it is.
///
/// The namespace lives as long as the descriptor, a process in it, or a mount of it. Its loopback
/// interface is down, as after `ip netns add`.
///
/// # Errors
/// What the kernel says of `unshare` (EPERM without CAP_SYS_ADMIN, ENOSPC over the limit), of opening
/// `/proc/thread-self/ns/net`, or of starting a thread.
pub fn new_network() -> io::Result<OwnedFd> {
    begin_network()?.wait()
}

/// Begins to make a network namespace, while the caller does something else.
///
/// # Errors
/// What the kernel says of starting a thread.
pub fn begin_network() -> io::Result<PendingNamespace> {
    let make = || {
        // SAFETY: only CLONE_FILES makes unshare unsafe (descriptors would mean different files in
        // different threads); CLONE_NEWNET touches no descriptor.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(open("/proc/thread-self/ns/net")?)
    };
    std::thread::Builder::new()
        .name("namespace".into())
        .spawn(make)
        .map(|thread| PendingNamespace(Some(thread)))
}

/// A namespace that is being made. One that nobody waits for is gone as soon as it is there.
#[derive(Debug)]
pub struct PendingNamespace(Option<JoinHandle<io::Result<OwnedFd>>>);

impl PendingNamespace {
    /// Waits for it.
    ///
    /// # Errors
    /// What the kernel says of `unshare` or of opening its file.
    pub fn wait(mut self) -> io::Result<OwnedFd> {
        let made = self.0.take().map(JoinHandle::join);
        made.and_then(Result::ok)
            .unwrap_or_else(|| Err(io::Error::other("the thread that made the namespace panicked")))
    }
}

impl Drop for PendingNamespace {
    fn drop(&mut self) {
        // No thread outlives what it was for.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// Makes a mount namespace with one mount in it, the directory `root`, read-only, and returns a descriptor of it; the
/// caller stays where it is.
///
/// The namespace lives as long as the descriptor, a process in it, or a mount of it.
///
/// # Arguments
/// `processor` is the one to make it on; `None` leaves that to the kernel.
///
/// # Errors
/// What the kernel says of `unshare`, `open_tree`, `move_mount`, `pivot_root` or `mount` (EPERM without CAP_SYS_ADMIN),
/// of opening `/proc/thread-self/ns/mnt`, of that processor, or of starting a thread.
pub fn new_mounts(root: OwnedFd, processor: Option<usize>) -> io::Result<OwnedFd> {
    in_a_thread(move || {
        if let Some(processor) = processor {
            let mut only = CpuSet::new();
            only.set(processor);
            rustix::thread::sched_setaffinity(None, &only)?;
        }
        // A working directory of the thread's own, which the copy of the mounts then leads over.
        // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_FS touches no descriptor.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::fchdir(&root)?;
        let mut state = State::default();
        Call::UnshareMounts.make(&mut state)?;
        // While there still is a /proc.
        let mounts = open("/proc/thread-self/ns/mnt")?;
        for mut call in [
            Call::MakeMountsSlaves,
            Call::CloneTree,
            Call::AttachTree,
            Call::EnterTree,
            Call::PivotRoot,
            Call::DetachOldRoot,
        ] {
            call.make(&mut state)?;
        }
        // What is mounted over it hides it; should that be taken away, there is nothing to be done with it.
        let nothing = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount(c".", nothing | MountFlags::NOEXEC, c"")?;
        Ok(mounts)
    })
}

/// Clones a child that carries out `program` in the pid namespace of another process; the caller stays where it
/// is, and is the child's parent all the same.
///
/// # Errors
/// What the kernel says of `setns` (EPERM without CAP_SYS_ADMIN, ESRCH if the process is gone), or as for
/// [`spawn()`].
pub fn spawn_beside(
    process: BorrowedFd<'_>,
    program: &mut Program,
    birth: CloneOptions<'_>,
) -> io::Result<Child> {
    in_a_thread(|| {
        // Where the thread's children are born; the thread itself moves nowhere.
        rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
        Ok(spawn(program, birth)?)
    })
}

/// A thread has namespaces of its own, and takes them along when it ends: only a descriptor remains. Nothing
/// has to be switched back, so nothing can be left switched.
fn in_a_thread<T: Send>(make: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, make)?;
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
    fn what_lies_below_a_jails_tree_is_empty_and_cannot_be_written_to() {
        let test = std::any::type_name_of_val(&|| ());
        if !testkit::has(rustix::process::geteuid().is_root(), test, "root") {
            return;
        }
        let directory = std::env::temp_dir().join(format!("stk-mounts-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let root = rustix::fs::open(&directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mounts = new_mounts(root, None).unwrap();
        let seen = in_a_thread(|| {
            // SAFETY: only CLONE_FILES makes unshare unsafe; CLONE_FS touches no descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
            Call::JoinMounts(mounts).make(&mut State::default())?;
            Ok((std::fs::read_dir("/")?.count(), std::fs::create_dir("/x").unwrap_err()))
        });
        std::fs::remove_dir(&directory).unwrap();
        let (entries, refused) = seen.unwrap();
        assert_eq!((entries, refused.raw_os_error()), (0, Some(Errno::ROFS.raw_os_error())));
    }
}
