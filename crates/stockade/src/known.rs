//! What was read of the host for an earlier jail and still holds, so that it is not read again for each.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Result;
use crate::host::{CgroupLayout, read};
use crate::leash::LeashPoint;
use crate::process::ProcessRef;

/// The file systems of cgroups.
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The kernel's name for this boot, which no process outlives.
pub(crate) fn boot_id() -> Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let id = read("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(KNOWN.get_or_init(|| id).clone())
}

/// The pid namespace of this process, which it never leaves, by the inode of its file; 0 if it cannot be told.
pub(crate) fn pid_namespace() -> u64 {
    static KNOWN: OnceLock<u64> = OnceLock::new();
    *KNOWN.get_or_init(|| rustix::fs::stat("/proc/self/ns/pid").map_or(0, |facts| facts.st_ino))
}

/// This process. A child of it that was not executed anew is another, in which this is looked up again.
pub(crate) fn myself() -> ProcessRef {
    static KNOWN: Mutex<Option<ProcessRef>> = Mutex::new(None);
    let pid = rustix::process::getpid();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let same = known.filter(|known| known.pid == pid.as_raw_nonzero().get());
    *known.insert(same.unwrap_or_else(|| ProcessRef::of(pid)))
}

/// Where cgroup hierarchies are mounted. The mount table, which can be long, is read again only if one of them
/// is gone, or if `suffices` says that something is missing.
pub(crate) fn cgroup_mounts(suffices: impl Fn(&CgroupLayout) -> bool) -> Result<CgroupLayout> {
    static KNOWN: Mutex<Option<CgroupLayout>> = Mutex::new(None);
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(known) = known.filter(|known| is_there(known) && suffices(known)) {
        return Ok(known);
    }
    let read = CgroupLayout::read_mounts()?;
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
    Ok(read)
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
    static KNOWN: Mutex<Option<LeashPoint>> = Mutex::new(None);
    if KNOWN.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(point) {
        return true;
    }
    let holds = look();
    if holds {
        *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(point.clone());
    }
    holds
}
