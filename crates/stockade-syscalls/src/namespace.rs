//! A network namespace, made without leaving one's own.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

/// Makes a network namespace and returns a descriptor of it; the caller stays where it is.
///
/// The namespace lives as long as the descriptor, a process in it, or a mount of it. Its loopback
/// interface is down, as after `ip netns add`.
///
/// # Errors
/// What the kernel says of `unshare` (EPERM without CAP_SYS_ADMIN, ENOSPC over the limit), of opening
/// `/proc/thread-self/ns/net`, or of starting a thread.
pub fn new_network() -> io::Result<OwnedFd> {
    // A thread has a network namespace of its own, and takes it along when it ends: only the
    // descriptor remains. Nothing has to be switched back, so nothing can be left switched.
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(|| -> io::Result<OwnedFd> {
            // SAFETY: only CLONE_FILES makes unshare unsafe (descriptors would mean different files in
            // different threads); CLONE_NEWNET touches no descriptor.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?)
        })?
        .join()
        .map_err(|_| io::Error::other("the thread that made the network namespace panicked"))?
}
