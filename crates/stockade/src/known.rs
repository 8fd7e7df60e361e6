//! What was read of the host for an earlier jail and still holds, so that it is not read again for each.

use std::sync::Mutex;

use crate::error::Result;
use crate::host::{CgroupLayout, read};
use crate::leash::LeashPoint;
use crate::process::ProcessRef;

/// The file systems of cgroups.
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A value that is remembered. It is never waited for: in a child that was forked while another thread was at it,
/// it may be locked for good, and is then found out anew.
struct Kept<T>(Mutex<Option<T>>);

impl<T: Clone> Kept<T> {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn get(&self) -> Option<T> {
        self.0.try_lock().ok()?.clone()
    }

    fn keep(&self, value: T) -> T {
        if let Ok(mut kept) = self.0.try_lock() {
            *kept = Some(value.clone());
        }
        value
    }
}

/// The kernel's name for this boot, which no process outlives.
pub(crate) fn boot_id() -> Result<String> {
    static KNOWN: Kept<String> = Kept::new();
    match KNOWN.get() {
        Some(known) => Ok(known),
        None => Ok(KNOWN.keep(read("/proc/sys/kernel/random/boot_id")?.trim().to_owned())),
    }
}

/// The pid namespace of this process, which it never leaves, by the inode of its file; 0 if it cannot be told.
pub(crate) fn pid_namespace() -> u64 {
    static KNOWN: Kept<(i32, u64)> = Kept::new();
    // A child may have been born into another one.
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let read = || (pid, rustix::fs::stat("/proc/self/ns/pid").map_or(0, |facts| facts.st_ino));
    KNOWN.get().filter(|known| known.0 == pid).unwrap_or_else(|| KNOWN.keep(read())).1
}

/// This process. A child of it that was not executed anew is another, in which this is looked up again.
pub(crate) fn myself() -> ProcessRef {
    static KNOWN: Kept<ProcessRef> = Kept::new();
    let pid = rustix::process::getpid();
    let known = KNOWN.get().filter(|known| known.pid == pid.as_raw_nonzero().get());
    known.unwrap_or_else(|| KNOWN.keep(ProcessRef::of(pid)))
}

/// Where cgroup hierarchies are mounted. The mount table, which can be long, is read again only if one of them
/// is gone, or if `suffices` says that something is missing.
pub(crate) fn cgroup_mounts(suffices: impl Fn(&CgroupLayout) -> bool) -> Result<CgroupLayout> {
    static KNOWN: Kept<CgroupLayout> = Kept::new();
    if let Some(known) = KNOWN.get().filter(|known| is_there(known) && suffices(known)) {
        return Ok(known);
    }
    Ok(KNOWN.keep(CgroupLayout::read_mounts()?))
}

/// Whether every hierarchy is still mounted where it was.
fn is_there(layout: &CgroupLayout) -> bool {
    let v1 = layout.v1.iter().map(|hierarchy| (&hierarchy.mount, CGROUP_MAGIC));
    let v2 = layout.v2.iter().map(|unified| (&unified.mount, CGROUP2_MAGIC));
    v1.chain(v2).all(|(mount, magic)| {
        let facts = rustix::fs::statfs(mount.as_path());
        facts.is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(magic))
    })
}

/// Whether this process is in the cgroup that a leash would be made below. Its list of processes, which can be
/// long, is read once: the process's own path, by which the point was found, tells if it moves.
pub(crate) fn holds_me(point: &LeashPoint, look: impl FnOnce() -> bool) -> bool {
    static KNOWN: Kept<LeashPoint> = Kept::new();
    if KNOWN.get().as_ref() == Some(point) {
        return true;
    }
    let holds = look();
    if holds {
        KNOWN.keep(point.clone());
    }
    holds
}
