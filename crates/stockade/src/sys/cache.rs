//! Facts about the host that hold for the life of this process, so that each is read once.

use std::sync::Mutex;

use stockade_syscalls::namespace::namespace_file;

use crate::sys::error::Result;
use crate::sys::process::ProcessRef;
use crate::sys::procfs::{BOOT_ID, read};

/// A value that is computed once.
///
/// Its lock is never waited for: if another thread held it during a fork, it stays locked in the child for ever. The
/// child computes the value again.
pub(crate) struct Cached<T>(Mutex<Option<T>>);

impl<T: Clone> Cached<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.0.try_lock().ok()?.clone()
    }

    pub(crate) fn keep(&self, value: T) -> T {
        if let Ok(mut cached) = self.0.try_lock() {
            *cached = Some(value.clone());
        }
        value
    }
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> Result<String> {
    static KNOWN: Cached<String> = Cached::new();
    match KNOWN.get() {
        Some(known) => Ok(known),
        None => Ok(KNOWN.keep(read(BOOT_ID)?.trim().to_owned())),
    }
}

/// The inode of the pid namespace of this process, which it never leaves; 0 if it cannot be read.
pub(crate) fn pid_namespace() -> u64 {
    static KNOWN: Cached<(i32, u64)> = Cached::new();
    // A cloned child may be in another namespace.
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let read = || (pid, rustix::fs::stat(namespace_file("self", "pid")).map_or(0, |facts| facts.st_ino));
    KNOWN.get().filter(|known| known.0 == pid).unwrap_or_else(|| KNOWN.keep(read())).1
}

/// This process. A forked child is another process, and looks itself up again.
pub(crate) fn myself() -> ProcessRef {
    static KNOWN: Cached<ProcessRef> = Cached::new();
    let pid = rustix::process::getpid();
    let known = KNOWN.get().filter(|known| known.pid == pid.as_raw_nonzero().get());
    known.unwrap_or_else(|| KNOWN.keep(ProcessRef::of(pid)))
}
