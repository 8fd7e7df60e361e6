//! Facts about the host that hold for the life of this process, so that each is read once.

use std::sync::Mutex;

use stockade_syscalls::namespace::namespace_file;

use crate::sys::error::{Context, Operation, Result};
use crate::sys::process::ProcessRef;
use crate::sys::procfs::{BOOT_ID, process_file, read, read_file};

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

/// The inode of the pid namespace of this process, which it never leaves.
pub(crate) fn pid_namespace() -> Result<u64> {
    static KNOWN: Cached<(i32, u64)> = Cached::new();
    of_this_process(&KNOWN, || {
        let file = namespace_file("self", "pid");
        Ok(rustix::fs::stat(&file).context(Operation::Inspect, file)?.st_ino)
    })
}

/// Whether the procfs at `/proc` has the pids of this process's namespace. A program that is started in a new pid
/// namespace may still have the old one, in which the same pid is another process.
pub(crate) fn is_own_procfs() -> bool {
    static KNOWN: Cached<(i32, bool)> = Cached::new();
    let read = || {
        let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
        let shown = rustix::fs::readlink("/proc/self", Vec::new());
        Ok(shown.is_ok_and(|shown| shown.as_bytes() == own.as_bytes()))
    };
    of_this_process(&KNOWN, read).unwrap_or(false)
}

/// The time since boot of this process's time namespace minus that of the host, in nanoseconds. It never changes.
pub(crate) fn boot_offset_ns() -> i64 {
    /// The inode of the host's time namespace, the same on every kernel.
    const OF_HOST: u64 = 0xEFFF_FFFA;
    static KNOWN: Cached<(i32, i64)> = Cached::new();
    let read = || match rustix::fs::stat(namespace_file("self", "time")) {
        Ok(facts) if facts.st_ino != OF_HOST => {
            Ok(boot_offset_in(&read_file(process_file("self", "timens_offsets")).unwrap_or_default()))
        }
        // A kernel without time namespaces has no such file.
        Ok(_) | Err(_) => Ok(0),
    };
    of_this_process(&KNOWN, read).unwrap_or(0)
}

/// The offset of the boot time in the text of `/proc/PID/timens_offsets`: a clock, seconds and nanoseconds per line.
fn boot_offset_in(text: &str) -> i64 {
    let offset = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        // Linux 5.6 has the number of the clock.
        fields.next().filter(|clock| ["boottime", "7"].contains(clock))?;
        let mut number = || fields.next()?.parse::<i64>().ok();
        Some(number()?.saturating_mul(1_000_000_000).saturating_add(number()?))
    });
    offset.unwrap_or(0)
}

/// A fact about this process. A forked child is another process, may be in other namespaces, and looks itself.
fn of_this_process<T: Copy>(known: &Cached<(i32, T)>, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    match known.get().filter(|known| known.0 == pid) {
        Some(known) => Ok(known.1),
        None => Ok(known.keep((pid, read()?)).1),
    }
}

/// This process. A forked child is another process, and looks itself up again.
pub(crate) fn myself() -> ProcessRef {
    static KNOWN: Cached<ProcessRef> = Cached::new();
    let pid = rustix::process::getpid();
    let known = KNOWN.get().filter(|known| known.pid == pid.as_raw_nonzero().get());
    known.unwrap_or_else(|| KNOWN.keep(ProcessRef::of(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_the_boot_time_is_read() {
        let text = "monotonic           3         0\nboottime         5000        70\n";
        assert_eq!(boot_offset_in(text), 5_000_000_000_070);
        assert_eq!(boot_offset_in("1 0 0\n7 -2 5\n"), -1_999_999_995);
        assert_eq!(boot_offset_in(""), 0);
    }
}
