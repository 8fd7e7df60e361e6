//! What was read of the host for an earlier jail and still holds, so that it is not read again for each.

use std::sync::Mutex;

use crate::sys::error::Result;
use crate::sys::process::ProcessRef;
use crate::sys::procfs::read;

/// A value that is remembered. It is never waited for: in a child that was forked while another thread was at it,
/// it may be locked for good, and is then found out anew.
pub(crate) struct Cached<T>(Mutex<Option<T>>);

impl<T: Clone> Cached<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.0.try_lock().ok()?.clone()
    }

    pub(crate) fn keep(&self, value: T) -> T {
        if let Ok(mut kept) = self.0.try_lock() {
            *kept = Some(value.clone());
        }
        value
    }
}

/// The kernel's name for this boot, which no process outlives.
pub(crate) fn boot_id() -> Result<String> {
    static KNOWN: Cached<String> = Cached::new();
    match KNOWN.get() {
        Some(known) => Ok(known),
        None => Ok(KNOWN.keep(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())),
    }
}

/// The pid namespace of this process, which it never leaves, by the inode of its file; 0 if it cannot be told.
pub(crate) fn pid_namespace() -> u64 {
    static KNOWN: Cached<(i32, u64)> = Cached::new();
    // A child may have been born into another one.
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let read = || (pid, rustix::fs::stat("/proc/self/ns/pid").map_or(0, |facts| facts.st_ino));
    KNOWN.get().filter(|known| known.0 == pid).unwrap_or_else(|| KNOWN.keep(read())).1
}

/// This process. A child of it that was not executed anew is another, in which this is looked up again.
pub(crate) fn myself() -> ProcessRef {
    static KNOWN: Cached<ProcessRef> = Cached::new();
    let pid = rustix::process::getpid();
    let known = KNOWN.get().filter(|known| known.pid == pid.as_raw_nonzero().get());
    known.unwrap_or_else(|| KNOWN.keep(ProcessRef::of(pid)))
}
